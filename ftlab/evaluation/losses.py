"""Cross-entropy loss of a language model on held-out rows: of each row, and per token with an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data import group_columns
from ftlab.data.group_columns import GROUP
from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput
from ftlab.intervals import LEVEL, RESAMPLES, Interval, resampled_interval
from ftlab.models import batches
from ftlab.progress import Bar

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def row_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    tokens: int = batches.TOKENS,
    what: str = "held-out loss",
) -> pd.DataFrame:
    """Compute the mean cross-entropy of each row over its supervised tokens.

    The LM head runs only where a token is supervised. Padding is on the right and is not supervised, so the result does
    not depend on the batches.

    Args:
        model: a causal language model.
        tokenizer: pads the rows.
        rows: with input_ids and labels, as `prompts.encode` makes them, and perhaps group.
        tokens: of a batch, padding included.
        what: the text of the progress bar.

    Returns:
        One line a row, in the order of the rows: `tokens`, how many are supervised, `loss`, in nats, and if the rows
        have it, `group`.

    Raises:
        BadInput: there are no rows, or a row has no supervised token.
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
    groups = {GROUP: list(rows[GROUP])} if GROUP in rows.column_names else {}
    return pd.DataFrame({"tokens": counts, "loss": found} | groups)


def mean_loss(losses: pd.DataFrame, *, seed: int = 0, level: float = LEVEL) -> Interval:
    """Return the mean loss per token in nats, with a bootstrap interval over rows (see `resampled_interval`).

    The rows are the sample, so the bootstrap draws rows, each with all of its tokens; rows that share a group are drawn
    together. `losses` is a table of `row_losses`; `seed` is of the bootstrap, `level` of confidence.
    """
    value, drawn = resampled(losses, seed)
    return resampled_interval(value, drawn, _lots(losses), level=level)


def difference(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0, level: float = LEVEL) -> Interval:
    """Return the mean loss per token in `after` minus that in `before`, with a paired bootstrap interval.

    Both are tables of `row_losses` on the same rows; each resample draws the same rows of both. `seed` is of the
    bootstrap, `level` of confidence.
    """
    require_same(before, after)
    (one, drawn_one), (other, drawn_other) = resampled(before, seed), resampled(after, seed)
    return resampled_interval(other - one, drawn_other - drawn_one, _lots(before), level=level)


def require_same(before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Raise BadInput unless `before` and `after` count the same tokens in each row."""
    if before["tokens"].tolist() != after["tokens"].tolist():
        raise BadInput("the two tables are of other rows or tokens; measure both on the same rows")


def resampled(losses: pd.DataFrame, seed: int) -> tuple[float, np.ndarray]:
    """Return the mean loss per token of `losses`, and of each resample; one `seed` draws the same rows, or groups.

    >>> resampled(pd.DataFrame({"tokens": [1, 3], "loss": [4.0, 2.0]}), seed=0)[0]  # (1 * 4 + 3 * 2) / 4
    2.5
    """
    tokens, total = losses["tokens"].to_numpy(), (losses["tokens"] * losses["loss"]).to_numpy()
    value = float(total.sum() / tokens.sum())
    if (groups := group_columns.of(losses)) is not None:
        tokens, total = (np.bincount(groups, weights=each) for each in (tokens, total))
    lots = len(tokens)
    times = np.random.default_rng(seed).multinomial(lots, np.full(lots, 1 / lots), size=RESAMPLES)
    return value, (times @ total) / (times @ tokens)


def _lots(losses: pd.DataFrame) -> int:
    """How many rows or groups a resample draws."""
    groups = group_columns.of(losses)
    return len(losses) if groups is None else int(groups.max()) + 1
