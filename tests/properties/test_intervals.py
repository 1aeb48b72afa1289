"""Intervals and tests: their bounds, their symmetries, slow references, and at night their coverage by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from ftlab import intervals
from tests import nightly

LEVELS = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])
SLOW = settings(max_examples=nightly.cases(few=15, nightly=1_000))  # a bootstrap each
TINY = 1e-9
rights = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60).map(np.array)
shares = st.lists(st.floats(0, 1).map(lambda value: round(value, 6)), min_size=1, max_size=30).map(np.array)
pairs = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)


def in_order(interval):
    return interval.low - TINY <= interval.value <= interval.high + TINY


@given(rights, LEVELS)
@example(np.array([1.0]), 0.95)
@example(np.zeros(5), 0.95)
def test_wilsons_interval_has_the_share_and_is_the_mirror_of_that_of_the_wrong_ones(right, level):
    found, other = intervals.proportion(right, level=level), intervals.proportion(1 - right, level=level)
    assert 0 <= found.low <= found.high <= 1
    assert in_order(found)
    assert [found.low, found.high] == pytest.approx([1 - other.high, 1 - other.low], abs=1e-12)
    z, n, share = stats.norm.ppf((1 + level) / 2), len(right), right.mean()  # Wilson 1927, by hand
    middle, reach = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    wanted = [(middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n)]
    assert [found.low, found.high] == pytest.approx(wanted, abs=1e-9)


@given(rights, LEVELS, LEVELS)
def test_a_higher_level_never_has_a_narrower_interval(right, one, other):
    low, high = sorted([one, other])
    narrow, wide = intervals.proportion(right, level=low), intervals.proportion(right, level=high)
    assert wide.low <= narrow.low + TINY
    assert narrow.high <= wide.high + TINY


@given(shares, st.floats(-5, 5), st.floats(0.1, 10))
@settings(max_examples=nightly.cases(few=25, nightly=1_000))
@example(np.array([0.0]), 1.0, 4.0)
@example(np.ones(4), 1.0, 4.0)
def test_a_bounded_mean_stays_within_its_bounds_and_moves_with_the_scale(values, lowest, width):
    found = intervals.bounded_mean(values, 0, 1)
    assert found.low >= -TINY
    assert found.high <= 1 + TINY
    assert in_order(found)
    other = intervals.bounded_mean(lowest + width * values, lowest, lowest + width)
    assert [found.low, found.high] == pytest.approx(
        [(end - lowest) / width for end in (other.low, other.high)], abs=1e-6
    )


@given(st.integers(0, 20), st.integers(0, 20))
def test_of_values_at_the_two_bounds_a_bounded_mean_is_clopper_and_pearsons(ones, zeros):
    if not ones + zeros:
        return
    found = intervals.bounded_mean(np.array([1.0] * ones + [0.0] * zeros), 0, 1)
    exact = stats.binomtest(ones, ones + zeros).proportion_ci(0.95, method="exact")
    assert [found.low, found.high] == pytest.approx([exact.low, exact.high], abs=0.02)  # it draws 10,000 times


@given(shares, LEVELS)
def test_of_seeds_the_interval_of_one_more_run_is_wider_than_that_of_the_mean(values, level):
    mean, run = intervals.over_seeds(values, level=level), intervals.another_run(values, level=level)
    assert mean.value == run.value == values.mean()
    if len(values) == 1:
        assert all(map(math.isnan, (mean.low, mean.high, run.low, run.high)))
        return
    assert run.low <= mean.low <= mean.value <= mean.high <= run.high
    if np.std(values) > 1e-6:
        exact = stats.t.interval(level, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
        assert [mean.low, mean.high] == pytest.approx(list(exact), abs=1e-9)


@given(shares.filter(lambda values: len(values) > 1), st.integers(0, 5))
@SLOW
@example(np.array([0.0, 1.0]), 0)
@example(np.ones(9), 0)
def test_a_bootstrap_has_the_mean_and_lies_between_the_extreme_values(values, seed):
    found = intervals.mean_interval(values, bounds=(0, 1), seed=seed)
    assert found.value == pytest.approx(values.mean())
    assert in_order(found)
    assert found.low >= -TINY
    assert found.high <= 1 + TINY
    assert found == intervals.mean_interval(values, bounds=(0, 1), seed=seed)
    if np.ptp(values):
        assert values.min() - TINY <= found.low
        assert found.high <= values.max() + TINY


# In 64ths, so that no sum is rounded: the last bit of a tied mean moves BCa's correction, and on few rows the interval.
exact_shares = st.lists(st.integers(0, 64).map(lambda part: part / 64), min_size=3, max_size=20).map(np.array)


@given(exact_shares, st.sampled_from([2, 4]))
@SLOW
def test_copies_of_rows_in_one_group_add_no_information(values, times):
    alone = intervals.mean_interval(values)
    groups = np.tile(np.arange(len(values)), times)
    copied = intervals.mean_interval(np.tile(values, times), groups=groups)
    assert [copied.value, copied.low, copied.high] == pytest.approx([alone.value, alone.low, alone.high], abs=1e-6)


def exact_mcnemar(pairs):
    """By counting: twice the chance of so few wins of the weaker model, if each of the two wins half of the time."""
    won, lost = pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))
    tail = sum(math.comb(won + lost, wins) for wins in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2 ** (won + lost))


@given(pairs)
@SLOW
@example([(1.0, 1.0)])
@example([(1.0, 0.0)] * 6)
def test_a_paired_comparison_is_exact_and_the_mirror_of_that_of_the_swapped_models(pairs):
    first, second = np.array(pairs).T
    found, other = intervals.paired(first, second), intervals.paired(second, first)
    assert found.p_value == pytest.approx(exact_mcnemar(pairs), abs=1e-12)
    assert found.p_value == other.p_value
    assert (found.only_first, found.only_second) == (other.only_second, other.only_first)
    assert found.difference.value == pytest.approx(first.mean() - second.mean())
    assert found.difference.value == pytest.approx(-other.difference.value)
    assert in_order(found.difference)
    mirrored = [-other.difference.high, -other.difference.low]
    assert [found.difference.low, found.difference.high] == pytest.approx(mirrored, abs=1e-9)


def holm_by_hand(p_values):
    """Each test takes the largest of its own corrected p-value and those of the smaller ones, and at most 1."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = largest
    return found


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(0, 3), st.randoms(use_true_random=False))
@example([], 0, None)
def test_holms_correction_is_that_by_hand_in_any_order(p_values, missing, random):
    found = intervals.holm(p_values)
    assert found.tolist() == pytest.approx(holm_by_hand(p_values))
    assert all(
        p <= corrected <= min(1.0, p * len(p_values)) + TINY for p, corrected in zip(p_values, found, strict=True)
    )
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert all(found[one] <= found[next_] for one, next_ in itertools.pairwise(order))
    mixed = [*enumerate(p_values)] + [(None, math.nan)] * missing
    if random is not None:
        random.shuffle(mixed)
    for (place, _), corrected in zip(mixed, intervals.holm([p for _, p in mixed]), strict=True):
        assert math.isnan(corrected) if place is None else corrected == found[place]


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12).map(np.array))
def test_the_t_test_agrees_with_the_interval_of_the_mean(values):
    p_value, found = intervals.t_test(values), intervals.over_seeds(values)
    if math.isnan(p_value):
        assert np.ptp(values) < 1e-8
        return
    assert 0 <= p_value <= 1
    assert intervals.t_test(-values) == pytest.approx(p_value, abs=1e-9)
    if np.std(values) > 1e-6 and abs(p_value - 0.05) > 1e-6:
        assert (p_value < 0.05) == (found.low > 0 or found.high < 0)


@given(st.integers(2, 500), LEVELS)
@example(2, 0.9)  # of two rows it is 1.0 in floating point: the interval is the whole range of the resamples
def test_the_expanded_level_is_higher_and_falls_to_the_level_with_the_rows(drawn, level):
    wide, wider = intervals.expanded(level, drawn + 1), intervals.expanded(level, drawn)
    assert level < wide <= wider <= 1
    assert wide < wider or drawn < 4


DRAWS = nightly.cases(few=60, nightly=1_000)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("wilson", 0.92, 0.98),
        ("seeds", 0.93, 0.97),
        ("run", 0.93, 0.97),
        ("bootstrap", 0.92, 0.98),
        ("bounded", 0.93, 1.0),
    ],
)
def test_an_interval_at_95_percent_covers_the_truth_about_as_often(name, least, most):
    """The bounds are for 1,000 draws, whose own standard error is 0.7 points; a bounded mean may cover more often."""
    rng, hits = np.random.default_rng(7), 0
    for draw in range(DRAWS):
        if name == "wilson":
            truth, found = 0.8, intervals.proportion((rng.random(100) < 0.8).astype(float))
        elif name in ("seeds", "run"):
            values = rng.normal(0.7, 0.1, 6)
            found = (intervals.over_seeds if name == "seeds" else intervals.another_run)(values[:5])
            truth = 0.7 if name == "seeds" else values[5]
        elif name == "bootstrap":
            truth, found = 0.5, intervals.mean_interval(rng.random(40), bounds=(0, 1), seed=draw)
        else:
            truth, found = 3.0, intervals.bounded_mean(rng.integers(1, 6, 12).astype(float), 1, 5, seed=draw)
        hits += found.low <= truth <= found.high
    spread = 0 if nightly.NIGHTLY else 4 * math.sqrt(0.05 * 0.95 / DRAWS)
    assert least - spread <= hits / DRAWS <= most + spread
