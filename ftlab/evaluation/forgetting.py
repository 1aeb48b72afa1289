"""Forgetting: perplexity of a language model on a general text before and after fine-tuning, and sample completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.prompts import prompt_ids
from ftlab.data.sources import ROWS
from ftlab.errors import BadInput
from ftlab.evaluation import losses
from ftlab.intervals import LEVEL, Interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Beginnings that any English language model can continue; none is from a task of the course.
PROBES = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village by the sea,",
    "The opposite of hot is",
    "Dear Sir or Madam, I am writing to",
)


def general_passages() -> list[str]:
    """Return the passages of the course's general text, which resembles no task of the course (rows/general.md)."""
    return (ROWS / "general.txt").read_text(encoding="utf-8").strip().split("\n\n")


def passage_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[str],
    *,
    max_length: int = 256,
    tokens: int = 2048,
) -> pd.DataFrame:
    """Compute the mean loss of each passage (see `losses.row_losses`); its first token is not predicted.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        passages: texts of at least two tokens.
        max_length: in tokens; longer passages are truncated.
        tokens: of a batch, padding included.

    Returns:
        One line a passage: `tokens`, how many are predicted, and `loss`, in nats.

    Raises:
        BadInput: a passage of fewer than two tokens.
    """
    from datasets import Dataset

    ids = tokenizer(list(passages), truncation=True, max_length=max_length)["input_ids"]
    if short := [place for place, row in enumerate(ids) if len(row) < 2]:
        raise BadInput(f"passage {short[0]} has fewer than two tokens, so there is nothing to predict; leave it out")
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    return losses.row_losses(model, tokenizer, rows, tokens=tokens, what="general text")


def perplexity(table: pd.DataFrame, *, seed: int = 0, level: float = LEVEL) -> Interval:
    """Return the perplexity, exp of the mean loss per token, of a `table` of `passage_losses`.

    Its interval is a bootstrap over passages with `seed`, at `level` (see `losses.mean_loss`).

    >>> table = pd.DataFrame({"tokens": [1, 1], "loss": [np.log(2), np.log(8)]})
    >>> round(perplexity(table).value, 6)  # exp((log 2 + log 8) / 2)
    4.0
    """
    return _exp(losses.mean_loss(table, seed=seed, level=level))


def change(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0, level: float = LEVEL) -> Interval:
    """Return the perplexity in `after` divided by that in `before`, on the same passages: 1 means nothing forgotten.

    Both are tables of `passage_losses`. The interval is a paired bootstrap with `seed`, at `level`: each resample draws
    the same passages for both.
    """
    return _exp(losses.difference(before, after, seed=seed, level=level))


def probes(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, *, tokens: int = 16
) -> pd.DataFrame:
    """Return how each of `models` continues PROBES, greedily: one line for each beginning, one column for each model.

    All models use `tokenizer`; a continuation has at most `tokens` tokens.
    """
    from ftlab.models.generation import generate

    prompts = [prompt_ids(text, tokenizer) for text in PROBES]
    columns = {
        name: [answer.text for answer in generate(model, tokenizer, prompts, max_new_tokens=tokens, what="probes")]
        for name, model in models.items()
    }
    return pd.DataFrame(columns, index=pd.Index(PROBES, name="beginning"))


def _exp(interval: Interval) -> Interval:
    value, low, high = np.exp([interval.value, interval.low, interval.high])
    return Interval(float(value), float(low), float(high), interval.level)
