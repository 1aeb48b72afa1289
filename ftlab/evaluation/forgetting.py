"""What was forgotten: how a general text surprises a language model before and after it was fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.sources import ROWS
from ftlab.errors import BadInput
from ftlab.intervals import Interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RESAMPLES = 4000


def general_passages() -> list[str]:
    """The passages of the course's general text, which no task of the course resembles (rows/general.md)."""
    return (ROWS / "general.txt").read_text(encoding="utf-8").strip().split("\n\n")


def passage_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[str],
    *,
    max_length: int = 256,
    tokens: int = 2048,
) -> pd.DataFrame:
    """For each passage its tokens that are predicted, and their mean loss (cross-entropy, in nats).

    A passage is cut at `max_length` tokens; its first token is predicted from nothing and does not count. Padding is on
    the right and counts for nothing, so the batches (of at most `tokens`) do not matter.
    """
    import torch

    from ftlab.models import batches

    encodings = tokenizer(list(passages), truncation=True, max_length=max_length)
    if short := [place for place, ids in enumerate(encodings["input_ids"]) if len(ids) < 2]:
        raise BadInput(f"passage {short[0]} has no two tokens, so there is nothing to predict; leave it out")

    def mean_loss(output: object, attention_mask: torch.Tensor) -> torch.Tensor:
        logits, ids = output.logits[:, :-1].float(), seen.pop()[:, 1:]  # type: ignore[attr-defined]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
        counted = attention_mask[:, 1:].to(losses.dtype)
        return (losses * counted).sum(dim=1) / counted.sum(dim=1)

    seen: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, __, batch: seen.append(batch["input_ids"]), with_kwargs=True)
    try:
        losses = batches.run(model, tokenizer, encodings, mean_loss, tokens=tokens, what="general text")
    finally:
        hook.remove()
    return pd.DataFrame({"tokens": [len(ids) - 1 for ids in encodings["input_ids"]], "loss": losses})


def perplexity(losses: pd.DataFrame, *, seed: int = 0, level: float = 0.95) -> Interval:
    """exp of the mean loss of a token, with a bootstrap interval over passages.

    The passages are a sample of what could be written, so it is they that are drawn, each with all of its tokens.
    """
    value, drawn = _perplexities(losses, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def change(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0, level: float = 0.95) -> Interval:
    """Perplexity after over perplexity before, on the same passages: 1 is nothing forgotten, 2 twice as surprised.

    The interval is a paired bootstrap: each resample draws passages, and both models read those that were drawn.
    """
    if before["tokens"].tolist() != after["tokens"].tolist():
        raise BadInput("the two tables are of other passages or tokens; measure both on the same passages")
    (one, drawn_one), (other, drawn_other) = _perplexities(before, seed), _perplexities(after, seed)
    low, high = np.quantile(drawn_other / drawn_one, [(1 - level) / 2, (1 + level) / 2])
    return Interval(other / one, float(low), float(high), level)


def _perplexities(losses: pd.DataFrame, seed: int) -> tuple[float, np.ndarray]:
    """The perplexity of all passages, and that of each resample of them; equal seeds draw equal passages."""
    tokens, total = losses["tokens"].to_numpy(), (losses["tokens"] * losses["loss"]).to_numpy()
    times = np.random.default_rng(seed).multinomial(len(losses), np.full(len(losses), 1 / len(losses)), size=RESAMPLES)
    return float(np.exp(total.sum() / tokens.sum())), np.exp((times @ total) / (times @ tokens))
