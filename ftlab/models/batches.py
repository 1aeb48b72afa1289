"""Run a model over many rows: batches of rows of similar length, answers in the order of the rows.

Rows of a batch are padded to its longest row, so rows of similar length need little padding. A batch is limited by its
number of tokens: many short rows fit, and long rows stay within memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 2048  # in a batch, padding included
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# How far the other rows of a batch may move an answer by rounding, as a share of its largest number, by precision.
ROUNDING, ROUNDING_IN_HALF = 1e-4, 0.1
SPARSE = "block_sparse"  # attention that BigBird applies to long texts
_padding_is_safe: MutableMapping[Any, bool] = WeakKeyDictionary()  # by model; see `run_batches`


def by_length(lengths: Sequence[int], tokens: int = TOKENS, *, rows: int | None = None) -> Iterator[list[int]]:
    """Put rows into batches of similar length, the longest rows first.

    The longest come first, so that a batch that does not fit into memory fails at once and not at the end.

    Args:
        lengths: tokens of each row.
        tokens: the most tokens in a batch, padding included; a longer row is a batch by itself.
        rows: the most rows in a batch; None for no limit.

    Yields:
        The indices of the rows of one batch.

    >>> list(by_length([3, 9, 4, 5], tokens=10))
    [[1], [3, 2], [0]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, int(lengths[order[start]])))
        size = size if rows is None else min(size, rows)
        yield order[start : start + size].tolist()
        start += size


def same_answer(model: Any, alone: torch.Tensor, batched: torch.Tensor) -> bool:
    """Return whether the answer of `model` to a row `alone` is, but for rounding, that to it in a batch, `batched`.

    Within `torch.autocast` a model in fp32 rounds as one in half precision.
    """
    import torch

    full = model.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(model.device.type)
    rounding = ROUNDING if full else ROUNDING_IN_HALF
    return bool((alone.float() - batched.float()).abs().max() <= rounding * alone.float().abs().max())


def pad(tokenizer: PreTrainedTokenizerBase, columns: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, torch.Tensor]:
    """Pad rows to the longest one, as `tokenizer.pad` does, but faster.

    `tokenizer.pad` goes through all tokens in Python: on short rows that takes as long as a small model.

    Args:
        tokenizer: its pad token and padding side are used.
        columns: the tokenizer's output for some rows, by name (`MODEL_INPUTS`).

    Returns:
        Each column as a tensor (rows, longest row), and an attention_mask if `columns` has none.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}
    given = {name: [torch.tensor(row, dtype=torch.long) for row in column] for name, column in columns.items()}
    given.setdefault("attention_mask", [torch.ones_like(row) for row in given["input_ids"]])
    return {
        name: pad_sequence(column, batch_first=True, padding_value=fill[name], padding_side=tokenizer.padding_side)
        for name, column in given.items()
    }


def run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encodings: Mapping[str, Sequence[Sequence[int]]],
    read: Callable[[Any, torch.Tensor], torch.Tensor],
    *,
    tokens: int = TOKENS,
    what: str = "predicting",
) -> np.ndarray:
    """Run a model over tokenized rows in batches, and read an answer for each row from its output.

    The model is put into evaluation mode. It runs in its own precision and without gradients. If padding changes its
    answers, only rows of one length share a batch (`run_batches`).

    Args:
        model: on the device where it is to run.
        tokenizer: the one that made `encodings`.
        encodings: the tokenizer's output for at least one row, without padding.
        read: from the model's output and the attention mask of a batch to a tensor (rows, ...), such as `softmax`.
        tokens: the most tokens in a batch, padding included.
        what: the name on the progress bar.

    Returns:
        (rows, ...) float32, in the order of the rows.
    """
    columns = {name: list(encodings[name]) for name in MODEL_INPUTS if name in encodings}

    def batch(places: Sequence[int]) -> Mapping[str, torch.Tensor]:
        return pad(tokenizer, {name: [column[place] for place in places] for name, column in columns.items()})

    return run_batches(model, [len(ids) for ids in columns["input_ids"]], batch, read, tokens=tokens, what=what)


def run_batches(
    model: PreTrainedModel,
    lengths: Sequence[int],
    batch: Callable[[list[int]], Mapping[str, torch.Tensor]],
    read: Callable[[Any, torch.Tensor], torch.Tensor],
    *,
    tokens: int = TOKENS,
    what: str = "predicting",
) -> np.ndarray:
    """Do what `run` does, for batches that the caller makes.

    Some models ignore the attention mask (FNet), or mix a token with the padding beside it (ConvBERT). No list of them
    is ever complete, so the first batch that needs padding is a test: if its shortest row has another answer alone than
    padded, batches of this model are divided into rows of one length. What is no module of PyTorch is not tested: in 8
    bits a graph of ONNX Runtime rounds by all rows of a batch, and `onnx_classifier.export` has compared it.

    Args:
        model: on the device where it is to run.
        lengths: tokens of each row.
        batch: from the indices of some rows to the model's inputs for them; labels are left out.
        read: from the model's output and the attention mask of a batch to a tensor (rows, ...).
        tokens: the most tokens in a batch, padding included.
        what: the name on the progress bar.

    Returns:
        (rows, ...) float32, in the order of the rows.
    """
    import torch

    sparse = _sparse_parts(model)

    def answered(places: Sequence[int]) -> torch.Tensor:
        for part in sparse:
            part.set_attention_type(SPARSE)
        inputs = {name: tensor.to(model.device) for name, tensor in batch(list(places)).items() if name != "labels"}
        return read(model(**inputs), inputs["attention_mask"])

    answers: dict[int, np.ndarray] = {}
    model.eval()
    with torch.inference_mode(), Bar(desc=what, total=len(lengths), unit="rows") as progress:
        for places in by_length(lengths, tokens):
            long, short = places[0], places[-1]
            alike = [places]
            if lengths[long] != lengths[short] and isinstance(model, torch.nn.Module):
                if model not in _padding_is_safe:
                    alone, padded = answered([short])[0], answered([long, short])[1]
                    _padding_is_safe[model] = not sparse and same_answer(model, alone, padded)
                if not _padding_is_safe[model]:
                    alike = [list(some) for _, some in groupby(places, key=lambda place: lengths[place])]
            for some in alike:
                for place, answer in zip(some, answered(some).float().cpu().numpy(), strict=True):
                    answers[place] = answer
                progress.update(len(some))
    return np.stack([answers[place] for place in range(len(lengths))])


def _sparse_parts(model: Any) -> list[Any]:
    """Return the parts of `model` that forget their sparse attention over a short text, and have to be told again.

    BigBird computes a short batch with full attention, and then all later ones too, so that its answer to a long text
    would depend on the texts before it. How it computes a short text also depends on the longest one in the batch, so
    only rows of one length share one.
    """
    import torch

    if not isinstance(model, torch.nn.Module) or getattr(model.config, "attention_type", None) != SPARSE:
        return []
    return [part for part in model.modules() if hasattr(part, "set_attention_type")][:1]  # the outermost tells the rest


def softmax(output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the probability of each label, (rows, labels), from the `output`; `attention_mask` is ignored."""
    return output.logits.float().softmax(dim=-1)


def mean_pooled(output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the last hidden states over the real tokens, L2-normalised: (rows, width).

    `output` has the last_hidden_state (rows, tokens, width), and `attention_mask` is 0 where there is padding. Sentence
    encoders such as MiniLM were trained with this mean (Reimers and Gurevych, Sentence-BERT, 2019).

    >>> from types import SimpleNamespace
    >>> import torch
    >>> states = torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]]])
    >>> mean_pooled(SimpleNamespace(last_hidden_state=states), torch.tensor([[1, 1, 0]])).tolist()  # mean (3, 4)
    [[0.6000000238418579, 0.800000011920929]]
    """
    import torch

    mask = attention_mask.unsqueeze(-1).to(output.last_hidden_state.dtype)
    mean = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def first_token(output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the last hidden state of each row's first token, L2-normalised: (rows, width).

    BERT's classification head reads this vector of the `output`. `attention_mask` is unused: padding must be on the
    right.
    """
    import torch

    return torch.nn.functional.normalize(output.last_hidden_state[:, 0], dim=-1)
