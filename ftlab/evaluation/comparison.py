"""Scores of classifiers from prediction tables, with confidence intervals, by class, and two models compared.

If the rows have groups (an author, a patient), these are drawn, and not the rows: rows of a group are right or wrong
together, so they tell less than as many others. Source: Davison and Hinkley 1997, section 3.8.

The intervals of F1 and MCC are bootstraps over rows. These scores depend only on the confusion matrix, and drawing rows
with replacement draws its counts from a multinomial distribution. So the counts are drawn and not the rows: thousands
of resamples take milliseconds. The interval lies between their quantiles (`intervals.resampled_interval`). Source:
Efron and Tibshirani 1993.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from ftlab.data import group_columns
from ftlab.errors import BadInput
from ftlab.intervals import (
    LEVEL,
    RESAMPLES,
    Comparison,
    Interval,
    mean_interval,
    paired,
    proportion,
    resampled_interval,
)

__all__ = ["Comparison", "Interval", "accuracy", "by_truncation", "compare", "correct", "difference", "mean_interval",
           "report", "scores", "smallest_difference"]  # fmt: skip

AT_ONCE = 2**22  # draws of groups that are in memory together
Metric = Literal["accuracy", "f1_macro", "f1_weighted", "mcc"]


def correct(predictions: pd.DataFrame) -> np.ndarray:
    """Return 1.0 for each row of `predictions` whose prediction is its label, and 0.0 for each other row."""
    return (predictions["label"] == predictions["prediction"]).to_numpy(dtype=float)


def accuracy(predictions: pd.DataFrame, *, level: float = LEVEL) -> Interval:
    """Return the accuracy of `predictions` with Wilson's interval at `level`, or with a bootstrap over its groups."""
    groups = group_columns.of(predictions)
    if groups is None:
        return proportion(correct(predictions), level=level)
    return mean_interval(correct(predictions), groups=groups, bounds=(0, 1), level=level)


def scores(predictions: pd.DataFrame, *, seed: int = 0, level: float = LEVEL) -> dict[str, Interval]:
    """Compute accuracy, macro F1, weighted F1, MCC and the F1 of each class, each with its interval.

    Accuracy has the interval of `accuracy`; the others have a percentile bootstrap over rows, or over groups if the
    table has a column `group`. A bootstrap draws only mistakes that occur in the rows: with few mistakes its interval
    is too narrow, and with none it is a point. With one row or group alone its bounds are NaN.

    Args:
        predictions: a table of `prediction_table`.
        seed: of the bootstrap.
        level: of confidence.

    Returns:
        The intervals by name: "accuracy", "f1_macro", "f1_weighted", "mcc", and "f1[<label>]" for each class.
    """
    names = _labels(predictions)
    shape = (len(names), len(names))
    cells = _cells(predictions, names)
    counts = np.bincount(cells, minlength=len(names) ** 2).reshape(shape)
    drawn, lots = _resample(cells, len(names) ** 2, group_columns.of(predictions), seed)
    drawn = drawn.reshape(-1, *shape)
    found = {"accuracy": accuracy(predictions, level=level)}
    measures = {"f1_macro": _f1_macro, "f1_weighted": _f1_weighted, "mcc": _mcc}
    for name, measure in measures.items():
        found[name] = resampled_interval(measure(counts[np.newaxis])[0], measure(drawn), lots, level=level)
    by_class, drawn_by_class = _f1(counts[np.newaxis])[0], _f1(drawn)
    for index, name in enumerate(names):
        found[f"f1[{name}]"] = resampled_interval(by_class[index], drawn_by_class[:, index], lots, level=level)
    return found


def compare(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 0) -> Comparison:
    """Return the accuracy of `first` minus that of `second`, paired by row id (see `intervals.paired`).

    Both tables must have the same row ids, in any order; the groups are those of `first`. `seed` is of the bootstrap.
    """
    return paired(correct(first), correct(_aligned(first, second)), groups=group_columns.of(first), seed=seed)


def difference(
    first: pd.DataFrame, second: pd.DataFrame, metric: Metric = "f1_macro", *, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Return a score of `first` minus that of `second` on the same rows, with a paired bootstrap interval.

    Paired means: each resample draws rows, and both models are scored on the drawn rows.

    Args:
        first: a table of `prediction_table`; if it has groups, these are drawn.
        second: one with the same row ids, in any order.
        metric: "accuracy", "f1_macro", "f1_weighted" or "mcc".
        seed: of the bootstrap.
        level: of confidence.

    Raises:
        BadInput: another metric, or tables of different rows.
    """
    if metric not in _MEASURES:
        raise BadInput(f"there is no metric {metric!r} to compare by; there are {', '.join(_MEASURES)}")
    second = _aligned(first, second)
    names = sorted({*_labels(first), *_labels(second)})
    codes = {name: index for index, name in enumerate(names)}
    answers = [frame[column].map(codes).to_numpy(dtype=int) for frame, column in
               ((first, "label"), (first, "prediction"), (second, "prediction"))]  # fmt: skip
    # Only the combinations that occur: with many classes most combinations of (label, first, second) do not.
    (true, by_first, by_second), cells = np.unique(np.stack(answers), axis=1, return_inverse=True)
    cells = cells.ravel()
    drawn, lots = _resample(cells, len(true), group_columns.of(first), seed)
    measure = _MEASURES[metric]

    def gap(drawn: np.ndarray) -> np.ndarray:
        each = (measure(_confusions(true, predicted, drawn, len(names))) for predicted in (by_first, by_second))
        return np.subtract(*each)

    counts = np.bincount(cells, minlength=len(true))
    return resampled_interval(gap(counts[np.newaxis])[0], gap(drawn), lots, level=level)


def smallest_difference(rows: int, disagree: float, *, power: float = 0.8, level: float = LEVEL) -> float:
    """Return the smallest true difference in accuracy that McNemar's exact test on `rows` rows would detect.

    On the rows where exactly one model is right, the number that the better model wins is binomial; the search goes
    over differences in steps of one row. The number of such rows varies too, so the power is close to `power` and not
    equal to it. Source: Connor 1987, by exact counting.

    Args:
        rows: how many test rows there are.
        disagree: the share of rows where exactly one model is right; a first comparison measures it.
        power: the probability that the test detects the difference.
        level: 1 minus the significance level of the test.

    Returns:
        A difference from 0 to 1; 1.0 if no difference is large enough.

    Raises:
        BadInput: a share, power or level outside 0 to 1.
    """
    from scipy import stats

    for name, share in (("disagree", disagree), ("power", power), ("level", level)):
        if not 0 <= share <= 1:
            raise BadInput(f"{name} is {share}; expected a share, from 0 to 1")
    pairs = round(rows * disagree)
    wins = np.arange(pairs + 1)
    shown = wins[2 * stats.binom.sf(wins - 1, pairs, 0.5) < 1 - level]
    if not len(shown):
        return 1.0
    gaps = np.arange(pairs + 1)  # of wins over losses
    powers = stats.binom.sf(shown[0] - 1, pairs, (1 + gaps / pairs) / 2)
    return float(gaps[powers >= power][0] / rows)


def by_truncation(predictions: pd.DataFrame, tokens: Sequence[int], max_length: int) -> pd.DataFrame:
    """Compare the accuracy on rows that were truncated at `max_length` with that on rows that the model read whole.

    The two groups are different rows: longer texts may be harder or easier for other reasons.

    Args:
        predictions: a table of `prediction_table`.
        tokens: of each row before truncation, special tokens included, in the order of the table.
        max_length: in tokens.

    Returns:
        One line for each group: rows, count, accuracy, low and high (95 %).

    Raises:
        BadInput: the number of token counts is not the number of rows.
    """
    if len(tokens) != len(predictions):
        raise BadInput(
            f"there are {len(tokens):,} token counts for {len(predictions):,} rows; give one for each row of the table"
        )
    cut = np.asarray(tokens) > max_length
    lines = []
    for name, group in (("read whole", predictions[~cut]), ("cut", predictions[cut])):
        found = accuracy(group) if len(group) else Interval(np.nan, np.nan, np.nan)
        lines.append({"rows": name, "count": len(group), "accuracy": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(lines)


def report(predictions: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Return precision, recall, F1 with its interval, and support of each class, then the macro and weighted averages.

    `predictions` is a table of `prediction_table`; `seed` is of the bootstrap.
    """
    from sklearn.metrics import classification_report

    names = _labels(predictions)
    keys = [f"f1[{name}]" for name in names]  # as in `scores`; a label "accuracy" cannot be mistaken for the score
    result = classification_report(
        predictions["label"], predictions["prediction"], labels=names, target_names=keys, output_dict=True,
        zero_division=0.0,
    )  # fmt: skip
    result.pop("accuracy")
    table = pd.DataFrame(result).T.rename(columns={"f1-score": "f1"})
    table.index = pd.Index([*names, "macro avg", "weighted avg"])
    found = scores(predictions, seed=seed)
    intervals = [found[key] for key in (*keys, "f1_macro", "f1_weighted")]
    table.insert(3, "f1_low", [interval.low for interval in intervals])
    table.insert(4, "f1_high", [interval.high for interval in intervals])
    return table.astype({"support": int})


def _aligned(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return `second` in the order of `first`, by row id. Raises BadInput unless both have the same rows, each once."""
    for table in (first, second):
        if (again := table["id"].duplicated()).any():
            raise BadInput(f"row {table['id'][again].iloc[0]} was answered twice by one model; keep one answer a row")
    if alone := set(first["id"]) ^ set(second["id"]):
        raise BadInput(
            f"the two models answered different rows ({min(alone)} only one of them); compare them on the same ones"
        )
    second = second.set_index("id").loc[first["id"]].reset_index()
    if (other := first["label"].to_numpy() != second["label"].to_numpy()).any():
        place = int(other.argmax())
        raise BadInput(
            f"row {first['id'].iloc[place]} has the label {first['label'].iloc[place]!r} in one table and "
            f"{second['label'].iloc[place]!r} in the other; compare answers to the same rows"
        )
    return second


def _labels(predictions: pd.DataFrame) -> list[str]:
    """Return the labels of a table, true or predicted, sorted."""
    return sorted({*predictions["label"], *predictions["prediction"]})


def _cells(predictions: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Return the cell of the confusion matrix that each row falls into, counted row by row of the matrix."""
    codes = {name: index for index, name in enumerate(names)}
    return (predictions["label"].map(codes) * len(names) + predictions["prediction"].map(codes)).to_numpy(dtype=int)


def _resample(cells: np.ndarray, size: int, groups: np.ndarray | None, seed: int) -> tuple[np.ndarray, int]:
    """Draw rows with replacement, or whole groups of them, and count them by cell.

    Args:
        cells: (rows,) the cell of each row, from 0 to `size` - 1.
        size: the number of cells.
        groups: (rows,) the group of each row, or None.
        seed: of the draws.

    Returns:
        The counts, shaped (resamples, cells), and how many rows or groups each resample draws.
    """
    lots = np.random.default_rng(seed)
    if groups is None:
        counts = np.bincount(cells, minlength=size)
        return lots.multinomial(len(cells), counts / len(cells), size=RESAMPLES), len(cells)
    members = np.unique(groups, return_inverse=True)[1]
    count = int(members.max()) + 1
    of_group = csr_array((np.ones(len(cells), dtype=np.int64), (members, cells)), shape=(count, size))
    step = max(1, AT_ONCE // count)
    drawn = [
        lots.multinomial(count, np.full(count, 1 / count), size=min(step, RESAMPLES - done)) @ of_group
        for done in range(0, RESAMPLES, step)
    ]
    return np.concatenate(drawn), count


def _confusions(true: np.ndarray, predicted: np.ndarray, drawn: np.ndarray, size: int) -> np.ndarray:
    """Return confusion matrices (resamples, true labels, predicted labels); `drawn` counts each combination."""
    counts = np.zeros((size, size, len(drawn)), dtype=drawn.dtype)
    for combination, times in enumerate(drawn.T):
        counts[true[combination], predicted[combination]] += times
    return np.moveaxis(counts, 2, 0)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, and 0 where the denominator is 0, as scikit-learn does with `zero_division=0`."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)


# Each measure takes confusion matrices of the shape (resamples, true labels, predicted labels).


def _accuracy(counts: np.ndarray) -> np.ndarray:
    return _divide(np.trace(counts, axis1=1, axis2=2), counts.sum(axis=(1, 2)).astype(float))


def _f1(counts: np.ndarray) -> np.ndarray:
    """Return the F1 of each class, shaped (resamples, classes)."""
    right = np.diagonal(counts, axis1=1, axis2=2)
    return _divide(2.0 * right, (counts.sum(axis=1) + counts.sum(axis=2)).astype(float))


def _f1_macro(counts: np.ndarray) -> np.ndarray:
    # A class that is neither true nor predicted in a resample does not count in its mean.
    there = (counts.sum(axis=1) + counts.sum(axis=2)) > 0
    return _divide(_f1(counts).sum(axis=1), there.sum(axis=1).astype(float))


def _f1_weighted(counts: np.ndarray) -> np.ndarray:
    support = counts.sum(axis=2)
    return _divide((_f1(counts) * support).sum(axis=1), support.sum(axis=1).astype(float))


def _mcc(counts: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation for any number of classes (Gorodkin 2004)."""
    true, predicted = counts.sum(axis=2).astype(float), counts.sum(axis=1).astype(float)
    rows = true.sum(axis=1)
    covariance = np.trace(counts, axis1=1, axis2=2) * rows - (true * predicted).sum(axis=1)
    spread = np.sqrt((rows**2 - (true**2).sum(axis=1)) * (rows**2 - (predicted**2).sum(axis=1)))
    return _divide(covariance, spread)


_MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy, "f1_macro": _f1_macro, "f1_weighted": _f1_weighted, "mcc": _mcc,
}  # fmt: skip
