"""What was forgotten: how a general text surprises a language model before and after it was fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.prompts import prompt_ids
from ftlab.data.sources import ROWS
from ftlab.errors import BadInput
from ftlab.evaluation import losses
from ftlab.intervals import Interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Beginnings that any English language model can go on with, none of them a task of the course.
PROBES = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village by the sea,",
    "The opposite of hot is",
    "Dear Sir or Madam, I am writing to",
)


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
    """For each passage its tokens that are predicted, and their mean loss (see `losses.row_losses`).

    A passage is cut at `max_length` tokens; its first token is predicted from nothing and does not count.
    """
    from datasets import Dataset

    ids = tokenizer(list(passages), truncation=True, max_length=max_length)["input_ids"]
    if short := [place for place, row in enumerate(ids) if len(row) < 2]:
        raise BadInput(f"passage {short[0]} has no two tokens, so there is nothing to predict; leave it out")
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    return losses.row_losses(model, tokenizer, rows, tokens=tokens, what="general text")


def perplexity(table: pd.DataFrame, *, seed: int = 0, level: float = 0.95) -> Interval:
    """exp of the mean loss of a token, with a bootstrap interval over passages (see `losses.mean_loss`)."""
    found = losses.mean_loss(table, seed=seed, level=level)
    return _exp(found)


def change(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0, level: float = 0.95) -> Interval:
    """Perplexity after over perplexity before, on the same passages: 1 is nothing forgotten, 2 twice as surprised.

    The interval is a paired bootstrap: each resample draws passages, and both models read those that were drawn.
    """
    return _exp(losses.difference(before, after, seed=seed, level=level))


def probes(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, *, tokens: int = 16
) -> pd.DataFrame:
    """How each model goes on with PROBES, greedily, side by side: one line a beginning, one column a model."""
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
