"""How a language model is surprised by what it should say: the loss of each row, and of a token on average."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput
from ftlab.intervals import Interval, expanded
from ftlab.models import batches
from ftlab.progress import Bar

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RESAMPLES = 4000


def row_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    tokens: int = batches.TOKENS,
    what: str = "held-out loss",
) -> pd.DataFrame:
    """For each row its labels that count (`tokens`), and the mean cross-entropy of these, in nats (`loss`).

    `rows` has input_ids and labels, as `prompts.encode` makes them. The LM head runs where a label counts and nowhere
    else; padding stands on the right and counts for nothing, so batches do not matter. Raises BadInput for a row with
    no label that counts, and where there are no rows.
    """
    import torch

    ids, labels = list(rows["input_ids"]), list(rows["labels"])
    if not ids:
        raise BadInput("there are no rows to measure a loss on; give at least one")
    counts = [sum(label != IGNORED for label in row[1:]) for row in labels]  # nothing predicts the first token
    if 0 in counts:
        raise BadInput(f"row {counts.index(0)} has no label to predict, so it has no loss; leave it out")
    found = np.empty(len(ids))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), Bar(desc=what, total=len(ids), unit="rows") as bar:
            for places in batches.by_length([len(row) for row in ids], tokens):
                rows_here = {"input_ids": [ids[place] for place in places]}
                inputs = tokenizer.pad(rows_here, padding_side="right", return_tensors="pt").to(model.device)
                targets = torch.full_like(inputs["input_ids"], IGNORED)
                for line, place in zip(targets, places, strict=True):
                    line[: len(labels[place]) - 1] = torch.tensor(labels[place][1:])
                keep = targets != IGNORED
                logits = model(**inputs, logits_to_keep=keep).logits.reshape(int(keep.sum()), -1).float()
                each = torch.nn.functional.cross_entropy(logits, targets[keep], reduction="none").cpu()
                for place, part in zip(places, each.split([counts[place] for place in places]), strict=True):
                    found[place] = part.mean()
                bar.update(len(places))
    finally:
        model.train(was_training)
    return pd.DataFrame({"tokens": counts, "loss": found})


def mean_loss(losses: pd.DataFrame, *, seed: int = 0, level: float = 0.95) -> Interval:
    """The loss of a token, in nats, with a percentile bootstrap interval over rows (expanded where these are few).

    The rows are a sample of what could be asked, so it is they that are drawn, each with all of its tokens.
    """
    value, drawn = resampled(losses, seed)
    return _interval(value, drawn, len(losses), level)


def difference(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0, level: float = 0.95) -> Interval:
    """The loss of a token after less that before, on the same rows: a paired bootstrap, so both are of drawn rows."""
    require_same(before, after)
    (one, drawn_one), (other, drawn_other) = resampled(before, seed), resampled(after, seed)
    return _interval(other - one, drawn_other - drawn_one, len(before), level)


def require_same(before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Raise BadInput unless both tables count the same tokens."""
    if before["tokens"].tolist() != after["tokens"].tolist():
        raise BadInput("the two tables are of other rows or tokens; measure both on the same rows")


def resampled(losses: pd.DataFrame, seed: int) -> tuple[float, np.ndarray]:
    """The loss of a token over all rows, and over each resample of them; equal seeds draw equal rows."""
    tokens, total = losses["tokens"].to_numpy(), (losses["tokens"] * losses["loss"]).to_numpy()
    times = np.random.default_rng(seed).multinomial(len(losses), np.full(len(losses), 1 / len(losses)), size=RESAMPLES)
    return float(total.sum() / tokens.sum()), (times @ total) / (times @ tokens)


def _interval(value: float, drawn: np.ndarray, rows: int, level: float) -> Interval:
    wide = expanded(level, rows)
    low, high = np.quantile(drawn, [(1 - wide) / 2, (1 + wide) / 2])
    return Interval(value, float(low), float(high), level)
