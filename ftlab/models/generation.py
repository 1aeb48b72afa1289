"""Answers of a causal language model: prompts in batches, padded on the left, each ended at its EOS.

A decoder goes on from the last position of a row, so padding stands on the left, and positions are counted from the
first real token (transformers does this from the attention mask). A batch then gives what one prompt at a time gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.errors import BadInput
from ftlab.models import batches
from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """What a model wrote after a prompt: its text without special tokens, its tokens, and whether EOS ended it."""

    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Sampling:
    """How to draw the next token: from the smallest set that holds `top_p` of the probability (nucleus sampling).

    `temperature` divides the logits: below 1 the likely becomes likelier. Source: Holtzman et al., arXiv 1904.09751.
    """

    seed: int = 0
    temperature: float = 0.7
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise BadInput(f"seed is {self.seed}; expected a whole number from 0 to 2**63 - 1")
        if not (self.temperature > 0 and 0 < self.top_p <= 1):
            raise BadInput(
                f"temperature is {self.temperature} and top_p {self.top_p}; expected a temperature above 0 and a top_p "
                "above 0 and at most 1 (for the likeliest token each time, leave `sampling` out)"
            )


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    tokens: int = batches.TOKENS,
    batch_size: int | None = None,
    what: str = "answering",
) -> list[Answer]:
    """An answer to each prompt (token ids, `prompts.prompt_ids`), in their order; greedy unless `sampling` is given.

    Greedy: the likeliest token each time, so that equal models give equal answers. A batch holds at most `tokens`
    tokens, answers included, and at most `batch_size` prompts, of like length. What the model's own generation config
    says of sampling and penalties is left aside, so that two models are compared by the same rules. Raises BadInput for
    an empty prompt, and for more tokens than the model has positions.
    """
    require_room(model, prompts, max_new_tokens)
    if batch_size is not None and batch_size < 1:
        raise BadInput(f"batch_size is {batch_size}; expected at least 1")
    config = _rules(tokenizer, max_new_tokens, sampling)
    answers: dict[int, Answer] = {}
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    progress = Bar(desc=what, total=len(prompts), unit="answers")
    with _answering(model, sampling), progress as bar:
        for places in batches.by_length(lengths, tokens, rows=batch_size):
            rows = {"input_ids": [list(prompts[place]) for place in places]}
            inputs = tokenizer.pad(rows, padding_side="left", return_tensors="pt").to(model.device)
            found = model.generate(**inputs, generation_config=config)
            for place, ids in zip(places, found[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                answers[place] = _answer(ids, tokenizer)
            bar.update(len(places))
    return [answers[place] for place in range(len(prompts))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> Iterator[str]:
    """The answer to one prompt in pieces, as they come; joined they are the text that `generate` gives.

    The model runs beside whoever reads, so ask it nothing else, and switch no adapter, before the last piece. Close the
    iterator to stop early. Raises BadInput as `generate` does, at once.
    """
    require_room(model, [prompt], max_new_tokens)
    return _pieces(model, tokenizer, prompt, _rules(tokenizer, max_new_tokens, sampling), sampling)


def _pieces(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    config: GenerationConfig,
    sampling: Sampling | None,
) -> Iterator[str]:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    import torch
    from transformers import TextIteratorStreamer

    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    unread = Event()

    def enough(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(ids),), unread.is_set(), device=ids.device)

    def work() -> None:
        ids = torch.tensor([list(prompt)], device=model.device)
        try:
            with _answering(model, sampling):
                model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=streamer,
                    stopping_criteria=[enough],
                )  # fmt: skip
        except BaseException:
            streamer.on_finalized_text("", stream_end=True)  # or the reader would wait for ever
            raise

    with ThreadPoolExecutor(max_workers=1) as pool:
        working = pool.submit(work)
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            unread.set()
        working.result()


def _rules(tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, sampling: Sampling | None) -> GenerationConfig:
    from transformers import GenerationConfig

    how = {"do_sample": False} if sampling is None else {
        "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0,
    }  # fmt: skip
    return GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, **how,
    )  # fmt: skip


@contextmanager
def _answering(model: PreTrainedModel, sampling: Sampling | None) -> Iterator[None]:
    """The model in evaluation mode and without a generation config of its own; afterwards it is as it was.

    Whatever a call's config leaves open, transformers fills from the model's: penalties, beams, a least length. What is
    drawn meanwhile is drawn by the seed, and leaves PyTorch's own generator alone.
    """
    import torch
    from transformers import GenerationConfig

    own = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT asks the model inside for it
    config, modes = own.generation_config, [(module, module.training) for module in model.modules()]
    own.generation_config = GenerationConfig()
    model.eval()
    try:
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(0 if sampling is None else sampling.seed)
            yield
    finally:
        own.generation_config = config
        for module, mode in modes:
            module.training = mode


def _answer(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    """What stands before EOS; after it there is padding."""
    stopped = tokenizer.eos_token_id in ids
    own = list(ids[: ids.index(tokenizer.eos_token_id)]) if stopped else list(ids)
    return Answer(tokenizer.decode(own, skip_special_tokens=True), len(own) + stopped, stopped)


def require_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise BadInput unless the model has positions for each prompt (token ids) and `max_new_tokens` after it."""
    if max_new_tokens < 1:
        raise BadInput(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise BadInput(f"prompt {number} is empty; give the model something to go on from")
    if not len(prompts):
        raise BadInput("there are no prompts to answer; give at least one")
    most = getattr(model.config, "max_position_embeddings", None)
    longest = int(np.argmax([len(prompt) for prompt in prompts]))
    if most is not None and (wanted := len(prompts[longest]) + max_new_tokens) > most:
        raise BadInput(
            f"prompt {longest} has {len(prompts[longest]):,} tokens, and with {max_new_tokens:,} new ones that makes "
            f"{wanted:,}; the model has positions for {most:,}: shorten the prompt or lower max_new_tokens"
        )
