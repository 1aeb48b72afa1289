"""Confidence intervals of scores, paired tests of two models on the same rows, and Holm's correction.

Which interval to choose: `mean_interval` or `proportion` over rows, `over_seeds` for the mean over seeds, `another_run`
for one more run, `bounded_mean` for a few ratings, `resampled_interval` for a score that you resampled yourself. `holm`
corrects the p-values of several tests.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

LEVEL = 0.95  # of every interval, unless a caller chooses another
RESAMPLES = 4000  # of a bootstrap that draws counts (see `resampled_interval`)
MEAN_RESAMPLES = 2000  # of `mean_interval`
BCA_ROWS = 5000  # at most; above them `mean_interval` uses percentiles
RATING_DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A measured value with its confidence interval (or prediction interval, see `another_run`)."""

    value: float
    low: float
    high: float
    level: float = LEVEL

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows: the difference in accuracy with its interval, and McNemar's exact p-value.

    `only_first` and `only_second` count the rows that only the first or only the second model got right. Rows that both
    got right, or both wrong, do not show which model is better. `p_holm` is the p-value corrected for several
    comparisons (see `side_by_side`); it is None for a single comparison.
    """

    difference: Interval
    only_first: int
    only_second: int
    p_value: float
    p_holm: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero and the exact test agrees: on few rows a bootstrap is too narrow."""
        excludes_zero = self.difference.low > 0 or self.difference.high < 0
        p_value = self.p_value if self.p_holm is None else self.p_holm
        return excludes_zero and p_value < 1 - self.difference.level

    def __str__(self) -> str:
        verdict = "a clear difference" if self.clear else "no clear difference"
        among = "" if self.p_holm is None else f", with Holm's correction {self.p_holm:.2g}"
        return f"{verdict}: {self.difference} (exact McNemar p = {self.p_value:.2g}{among})"


def mean_interval(
    values: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Return the mean of per-row values with a bootstrap interval: BCa, or percentile if BCa is undefined or slow.

    BCa (Efron 1987) corrects for skew. Over several thousand rows the mean is hardly skewed, and BCa's time grows with
    the square of the rows. On few rows the bootstrap runs at a higher level (see `expanded`); below ten rows the
    interval is still too narrow. On constant values (two models that are always right or wrong together) a bootstrap is
    not defined: the interval is then `bounded_mean`'s if `bounds` are given, and otherwise a point.

    Args:
        values: (n,) one value a row.
        groups: (n,) a number for each row, equal for copies. Whole groups are drawn (cluster bootstrap: Davison and
            Hinkley 1997, section 3.8), because a copy of a row adds no information. One group alone: bounds are NaN.
        bounds: the lowest and the highest possible value.
        seed: of the resampling.
        level: of confidence.
    """
    from scipy import stats

    value = float(np.mean(values))
    member = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    totals, sizes = np.bincount(member, weights=values), np.bincount(member)
    if np.ptp(values) == 0 and bounds:
        return bounded_mean(np.full(len(sizes), value), *bounds, level=level)
    if np.ptp(values) == 0:
        return Interval(value, value, value, level)
    if len(sizes) < 2:
        return Interval(value, float("nan"), float("nan"), level)

    def mean(totals: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
        return totals.sum(axis=axis) / sizes.sum(axis=axis)

    def bootstrap(method: Literal["BCa", "percentile"]) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where BCa is not defined it is NaN; that is handled below
            result = stats.bootstrap(
                (totals, sizes), mean, confidence_level=expanded(level, len(sizes)), n_resamples=MEAN_RESAMPLES,
                batch=100,
                rng=seed, method=method, paired=True,
            ).confidence_interval  # fmt: skip
        return float(result.low), float(result.high)

    low, high = bootstrap("BCa" if len(sizes) <= BCA_ROWS else "percentile")
    if np.isnan(low) or np.isnan(high):
        low, high = bootstrap("percentile")
    return Interval(value, low, high, level)


def expanded(level: float, drawn: int) -> float:
    """Return the level at which a bootstrap of `drawn` rows or groups has the coverage `level`.

    A bootstrap takes the sample's spread for the population's, as a normal interval does. Student's t interval is wider
    by two factors, and the expanded level corrects for both. Over some hundred rows nothing changes. Source: Hesterberg
    2015, section 3.3.

    >>> [round(expanded(0.95, drawn), 3) for drawn in (6, 12, 1000)]
    [0.995, 0.978, 0.95]
    """
    from scipy import stats

    if drawn < 2:
        return level
    reach = np.sqrt(drawn / (drawn - 1)) * stats.t.ppf((1 + level) / 2, drawn - 1)
    return float(1 - 2 * stats.norm.cdf(-reach))


def resampled_interval(value: float, drawn: np.ndarray, rows: int, *, level: float = LEVEL) -> Interval:
    """Return `value` with the percentile interval of the same score over the resamples `drawn`, shaped (resamples,).

    `rows` is the number of rows or groups in a resample: on few the percentiles lie further out than `level` (see
    `expanded`). With one row or group alone the bounds are NaN.
    """
    if rows < 2 and np.ptp(drawn) == 0:
        return Interval(float(value), float("nan"), float("nan"), level)
    wide = expanded(level, rows)
    low, high = np.quantile(drawn, [(1 - wide) / 2, (1 + wide) / 2])
    return Interval(float(value), float(low), float(high), level)


def bounded_mean(values: np.ndarray, lowest: float, highest: float, *, seed: int = 0, level: float = LEVEL) -> Interval:
    """Return the mean of a few `values` between `lowest` and `highest`, such as ratings, with an interval.

    It assumes nothing but the bounds: values may be discrete, skewed or all equal, where Student's t interval and a
    bootstrap are far too narrow. For values at the two bounds it is Clopper and Pearson's interval. `seed` is of the
    random draws, `level` of confidence. Source: Learned-Miller and Thomas 2019, arXiv:1905.06208: its coverage is
    conjectured, and no counterexample is known.

    >>> print(bounded_mean(np.array([5.0, 5.0, 5.0, 5.0]), 1, 5))
    5.000 [2.591, 5.000]
    """
    scaled = np.sort((np.asarray(values, dtype=float) - lowest) / (highest - lowest))
    if np.ptp(scaled) == 0:  # the result of the other branch in closed form
        beyond = 1 - ((1 - level) / 2) ** (1 / len(scaled))
        low, high = scaled[0] - scaled[0] * beyond, scaled[0] + (1 - scaled[0]) * beyond
    else:
        uniform = np.sort(np.random.default_rng(seed).random((RATING_DRAWS, len(scaled))), axis=1)
        above, below = (1 - uniform @ np.diff(np.append(one, 1)) for one in (scaled, (1 - scaled)[::-1]))
        low, high = 1 - np.quantile(below, (1 + level) / 2), np.quantile(above, (1 + level) / 2)
    low, high = (lowest + (highest - lowest) * end for end in (low, high))
    return Interval(float(np.mean(values)), float(low), float(high), level)


def over_seeds(values: np.ndarray, *, level: float = LEVEL) -> Interval:
    """Return the mean of `values`, one for each seed, with Student's t confidence interval at `level`.

    It is an interval of the mean over many seeds, not of a single run: see `another_run`. With three seeds it is wide
    (4.3 standard errors on either side), as it should be. With one seed the bounds are NaN.

    >>> print(over_seeds(np.array([0.7, 0.8, 0.9])))
    0.800 [0.552, 1.048]
    """
    return _student(values, 1 / max(1, len(values)), level)


def another_run(values: np.ndarray, *, level: float = LEVEL) -> Interval:
    """Return the mean of `values`, one for each seed, with Student's t prediction interval for one more run.

    If runs are normally distributed, another seed's run lies in it with the probability `level`:
    mean ± t·s·sqrt(1 + 1/n). With five seeds it is 2.4 times as wide as the interval of the mean. Source: Hahn and
    Meeker, Statistical Intervals, 1991, section 4.7.

    >>> print(another_run(np.array([0.7, 0.8, 0.9])))
    0.800 [0.303, 1.297]
    """
    return _student(values, 1 + 1 / max(1, len(values)), level)


def _student(values: np.ndarray, variances: float, level: float) -> Interval:
    """Return the mean with Student's interval; the variance is `variances` times the variance of one value."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"), level)
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) * np.sqrt(variances))
    return Interval(mean, mean - reach, mean + reach, level)


def t_test(values: np.ndarray) -> float:
    """Return the p-value of Student's test that the mean of `values` is 0; NaN if it is not defined.

    It is not for fewer than two values, nor for equal ones: scores of few rows come in steps, so that two differences
    are equal by chance, and show no spread.
    """
    from scipy import stats

    if len(values) < 2 or np.allclose(values, values[0], rtol=1e-9, atol=1e-12):
        return float("nan")
    return float(stats.ttest_1samp(values, 0).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return the `p_values` of several tests, corrected for their number, in the given order.

    The chance of at least one false alarm among all tests is then at most the chosen level. The smallest p-value is
    multiplied by the number of tests, the next by one less, and so on; none becomes smaller than the one before it. NaN
    stays NaN and does not count as a test. Source: Holm, A simple sequentially rejective multiple test procedure, 1979.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(given), np.nan)
    order = np.argsort(given)[: int(np.isfinite(given).sum())]  # NaN comes last
    times = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(given[order] * times))
    return adjusted


def side_by_side(comparisons: Mapping[str, Comparison | Interval]) -> dict[str, Comparison | Interval]:
    """Return the same `comparisons` with their p-values corrected for their number (see `holm`).

    An Interval is returned unchanged, because it has no test.
    """
    tested = {name: one for name, one in comparisons.items() if isinstance(one, Comparison)}
    adjusted = dict(zip(tested, holm([one.p_value for one in tested.values()]), strict=True))
    return {
        name: replace(one, p_holm=float(adjusted[name])) if isinstance(one, Comparison) else one
        for name, one in comparisons.items()
    }


def proportion(right: np.ndarray, *, level: float = LEVEL) -> Interval:
    """Return the share of ones in `right`, an array of 0 and 1, with Wilson's interval at `level` (Wilson 1927).

    It holds near 0 and 1 too.

    >>> print(proportion(np.array([1, 1, 1, 0])))
    0.750 [0.301, 0.954]
    """
    from scipy import stats

    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(level, method="wilson")
    return Interval(float(right.mean()), float(interval.low), float(interval.high), level)


def paired(first: np.ndarray, second: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0) -> Comparison:
    """Return the accuracy of `first` minus that of `second`, with a bootstrap interval and McNemar's exact test.

    The interval is a bootstrap over rows of the per-row difference. The test is binomial, on the rows that exactly one
    model got right. Sources: Efron and Tibshirani 1993; McNemar 1947.

    Args:
        first: (n,) 1.0 if the first model is right on a row, 0.0 if it is wrong.
        second: (n,) the same for the second model, on the same rows in the same order.
        groups: (n,) a number for each row, equal for copies. The bootstrap then draws groups, and each group has one
            vote in the test, for the model that is right on more of its rows.
        seed: of the bootstrap.

    Four rows that only the first model got right, and none that only the second did: p = 2 * (1/2)**4.

    >>> print(paired(np.array([1.0, 1, 1, 1, 0]), np.array([0.0, 0, 0, 0, 0])).p_value)
    0.125
    """
    from scipy import stats

    only_first, only_second = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    gaps = np.asarray(first - second, dtype=float)
    votes = gaps if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], weights=gaps)
    won, lost = int((votes > 0).sum()), int((votes < 0).sum())
    p_value = float(stats.binomtest(min(won, lost), won + lost).pvalue) if won + lost else 1.0
    difference = mean_interval(gaps, groups=groups, bounds=(-1, 1), seed=seed)
    return Comparison(difference, only_first, only_second, p_value)
