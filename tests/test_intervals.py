"""Coverage of intervals: of a mean, of another run, with copies, and of a few ratings."""

import doctest

import numpy as np
import pytest
from scipy import stats

from ftlab import intervals
from ftlab.intervals import (
    another_run,
    bounded_mean,
    expanded,
    holm,
    mean_interval,
    over_seeds,
    paired,
    side_by_side,
    t_test,
)

TIMES = 2000
ALLOWED = 0.015  # three standard errors of a coverage of 0.95 over so many draws


def holds(interval, value) -> bool:
    return interval.low <= value <= interval.high


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(intervals).failed == 0


# --- seeds ---


@pytest.mark.parametrize("seeds", [3, 5])
def test_over_seeds_holds_the_mean_and_another_run_the_next_run_as_often_as_they_say(seeds):
    draws = np.random.default_rng(0).normal(0.7, 0.02, (TIMES, seeds + 1))
    mean = np.mean([holds(over_seeds(values), 0.7) for values in draws[:, 1:]])
    run = np.mean([holds(another_run(values), after) for after, *values in draws])
    assert (mean, run) == (pytest.approx(0.95, abs=ALLOWED), pytest.approx(0.95, abs=ALLOWED))


def test_the_interval_of_the_mean_is_no_promise_about_another_run():
    draws = np.random.default_rng(1).normal(0.7, 0.02, (TIMES, 6))
    assert np.mean([holds(over_seeds(values), after) for after, *values in draws]) < 0.85


def test_another_run_is_wider_than_the_mean_by_the_root_of_one_more_than_the_seeds():
    values = np.array([0.70, 0.74, 0.71, 0.77, 0.72])
    mean, run = over_seeds(values), another_run(values)
    assert mean.value == run.value
    assert run.high - run.low == pytest.approx(np.sqrt(6) * (mean.high - mean.low))
    assert np.isnan(another_run(values[:1]).low)


def test_the_test_over_seeds_agrees_with_their_interval():
    rng = np.random.default_rng(2)
    for values in rng.normal(0.02, 0.02, (50, 4)):
        assert (t_test(values) < 0.05) == (not holds(over_seeds(values), 0))


@pytest.mark.parametrize("values", [[0.1], [0.1, 0.1], [0.0, 0.0], [0.55 - 0.45, 0.35 - 0.25]])
def test_equal_values_show_no_spread_and_prove_nothing(values):
    """Accuracies of 20 rows come in steps of 0.05: two seeds often differ by the same."""
    assert np.isnan(t_test(np.array(values)))


# --- several comparisons ---


def test_holm_multiplies_and_keeps_the_order():
    rng = np.random.default_rng(0)
    for _ in range(50):
        given = rng.random(6) ** 3
        found = holm(given)
        assert (found >= given).all()
        assert found.min() == pytest.approx(min(1, 6 * given.min()))
        assert (np.diff(found[np.argsort(given)]) >= 0).all()
        shuffled = rng.permutation(6)
        assert holm(given[shuffled]).tolist() == found[shuffled].tolist()


def test_one_test_alone_is_not_corrected_and_a_nan_is_no_test():
    assert holm([0.03]).tolist() == [0.03]
    assert holm([]).tolist() == []
    found = holm([0.02, float("nan"), 0.03])
    assert found[[0, 2]].tolist() == [0.04, 0.04]
    assert np.isnan(found[1])


def test_holm_keeps_false_alarms_to_one_family_in_twenty():
    p_values = np.random.default_rng(0).random((TIMES, 27))
    assert np.mean(p_values.min(axis=1) < 0.05) > 0.7
    assert np.mean([holm(line).min() < 0.05 for line in p_values]) == pytest.approx(0.05, abs=ALLOWED)


def test_comparisons_side_by_side_are_clear_only_together():
    barely = paired(np.array([1.0] * 8 + [0.0] * 92), np.array([0.0] * 7 + [0.0] + [1.0] + [0.0] * 91))
    surely = paired(np.array([1.0] * 60 + [0.0] * 40), np.zeros(100))
    assert barely.clear
    assert 0.025 < barely.p_value < 0.05
    alone = mean_interval(np.array([0.1, 0.3, 0.2]))
    found = side_by_side({"barely": barely, "rouge-l": alone, "surely": surely, "again": barely})
    assert list(found) == ["barely", "rouge-l", "surely", "again"]
    assert found["rouge-l"] == alone
    assert (found["barely"].clear, found["surely"].clear) == (False, True)
    assert "no clear difference" in str(found["barely"])
    assert "with Holm's correction 0.078" in str(found["barely"])
    assert side_by_side({"alone": barely})["alone"].clear


# --- copies ---


def test_copies_of_rows_make_no_interval_narrower_and_no_test_surer():
    values = np.random.default_rng(0).choice([-1, 0, 1], 60, p=[0.1, 0.6, 0.3])
    first, second, groups = 1.0 * (values > 0), 1.0 * (values < 0), np.repeat(np.arange(60), 5)
    once = paired(first, second, groups=np.arange(60))
    often = paired(np.repeat(first, 5), np.repeat(second, 5), groups=groups)
    assert (often.p_value, often.difference.value) == pytest.approx((once.p_value, once.difference.value))
    assert (often.difference.low, often.difference.high) == pytest.approx(
        (once.difference.low, once.difference.high), abs=0.01
    )
    as_rows = paired(np.repeat(first, 5), np.repeat(second, 5))
    assert as_rows.difference.high - as_rows.difference.low < 0.6 * (once.difference.high - once.difference.low)


def test_groups_of_one_row_are_rows():
    first, second = (np.random.default_rng(seed).random(80) < 0.7 for seed in (0, 1))
    names = np.random.default_rng(2).permutation(80)
    alone, grouped = paired(first * 1.0, second * 1.0), paired(first * 1.0, second * 1.0, groups=np.arange(80))
    assert alone == grouped
    assert paired(first * 1.0, second * 1.0, groups=names).p_value == alone.p_value


def test_over_clusters_of_copies_the_interval_holds_the_truth_as_often_as_it_says_and_over_their_rows_it_does_not():
    rng = np.random.default_rng(3)
    held = {"clusters": 0, "rows": 0}
    for seed in range(150):
        sizes = rng.integers(1, 10, 40)
        values, groups = np.repeat(rng.choice([-1.0, 0, 1], 40, p=[0.2, 0.6, 0.2]), sizes), np.repeat(range(40), sizes)
        held["clusters"] += holds(mean_interval(values, groups=groups, seed=seed), 0)
        held["rows"] += holds(mean_interval(values, seed=seed), 0)
    assert held["clusters"] >= 135
    assert held["rows"] <= 120


def test_a_single_cluster_has_no_interval():
    found = mean_interval(np.array([0.0, 1.0, 1.0]), groups=np.array([7, 7, 7]))
    assert found.value == pytest.approx(2 / 3)
    assert np.isnan([found.low, found.high]).all()


# --- few values, or all alike ---


@pytest.mark.parametrize(("wins", "size"), [(0, 5), (1, 4), (3, 6), (6, 6), (9, 30)])
def test_for_values_at_their_bounds_the_bounded_mean_is_clopper_and_pearson_s(wins, size):
    found = bounded_mean(np.array([1.0] * wins + [0.0] * (size - wins)), 0, 1)
    exact = stats.binomtest(wins, size).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.01)


RATINGS = {
    "all over": (0.2, 0.2, 0.2, 0.2, 0.2), "nearly all the best": (0.02, 0.03, 0.05, 0.2, 0.7),
    "best or worst": (0.1, 0, 0, 0, 0.9), "seldom the worst": (0.03, 0, 0, 0, 0.97),
    "the middle": (0, 0.25, 0.5, 0.25, 0),
}  # fmt: skip


@pytest.mark.parametrize("size", [4, 6, 15, 30])
@pytest.mark.parametrize("shares", RATINGS.values(), ids=RATINGS)
def test_few_ratings_have_an_interval_that_holds_whatever_they_are(shares, size):
    rng, truth = np.random.default_rng(0), float(np.arange(1, 6) @ shares)
    drawn = rng.choice(np.arange(1, 6), (150, size), p=shares)
    assert np.mean([holds(bounded_mean(values, 1, 5), truth) for values in drawn]) >= 0.94


def test_the_bounded_mean_turns_round_and_scales_with_its_bounds():
    values = np.array([1.0, 2, 2, 5, 4, 3])
    found, other = bounded_mean(values, 1, 5), bounded_mean(6 - values, 1, 5)
    assert (other.low, other.high) == pytest.approx((6 - found.high, 6 - found.low), abs=0.05)
    tenfold = bounded_mean(10 * values, 10, 50)
    assert (tenfold.low, tenfold.high) == pytest.approx((10 * found.low, 10 * found.high))
    assert found.low < found.value < found.high


def test_two_models_that_are_always_right_and_wrong_together_are_not_known_to_be_equal():
    same = paired(np.ones(90), np.ones(90)).difference
    assert same.value == 0
    assert -0.1 < same.low < 0 < same.high < 0.1
    better = paired(np.ones(90), np.zeros(90)).difference
    assert (better.value, better.high) == (1, 1)
    assert 0.9 < better.low < 0.95
    assert mean_interval(np.ones(5)).low == 1  # of a value whose bounds nobody gave


@pytest.mark.parametrize("size", [12, 20])
def test_a_bootstrap_of_few_rows_holds_the_mean_as_often_as_it_says(size):
    draws = np.random.default_rng(0).normal(2, 1, (200, size))
    assert np.mean([holds(mean_interval(values), 2) for values in draws]) >= 0.92
    assert expanded(0.95, 100_000) == pytest.approx(0.95, abs=1e-4)
    assert expanded(0.95, 1) == 0.95
