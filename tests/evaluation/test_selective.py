import numpy as np
import pandas as pd
import pytest

from ftlab.errors import BadInput
from ftlab.evaluation import comparison, selective
from tests.evaluation.tables import answers


def with_confidence(confidences, right) -> pd.DataFrame:
    labels = ["a" if one else "b" for one in right]
    return answers(labels, ["a"] * len(labels)).assign(confidence=confidences)


MIXED = with_confidence([0.6, 0.9, 0.7, 0.9, 0.5], [False, True, True, True, False])


def test_each_confidence_is_a_threshold_whose_rows_are_counted():
    curve = selective.coverage(MIXED)
    assert curve["threshold"].tolist() == [0.9, 0.7, 0.6, 0.5]
    assert curve["coverage"].tolist() == [0.4, 0.6, 0.8, 1.0]
    assert curve["accuracy"].tolist() == pytest.approx([1, 1, 0.75, 0.6])


def test_the_curve_is_what_counting_by_hand_gives_and_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    table = with_confidence(rng.random(200).round(2), rng.random(200) < 0.7)
    curve = selective.coverage(table)
    for line in curve.itertuples():
        answered = table[table["confidence"] >= line.threshold]
        assert line.coverage == len(answered) / 200
        assert line.accuracy == pytest.approx((answered["label"] == answered["prediction"]).mean())
    pd.testing.assert_frame_equal(selective.coverage(table.sample(frac=1, random_state=1)), curve)


@pytest.mark.parametrize(("wanted", "expected"), [(1.0, 0.7), (0.75, 0.6), (0.6, 0.5), (0.01, 0.5)])
def test_the_threshold_is_the_one_that_answers_most_and_is_right_often_enough(wanted, expected):
    assert selective.threshold(MIXED, wanted) == expected


def test_a_threshold_is_judged_with_intervals_and_without_accuracy_where_nothing_is_sure():
    coverage, accuracy = selective.at(MIXED, 0.7)
    assert coverage.value == 0.6
    assert accuracy.value == 1
    assert coverage.low < 0.6 < coverage.high
    coverage, accuracy = selective.at(MIXED, 0.99)
    assert coverage.value == 0
    assert accuracy is None


@pytest.mark.parametrize("wanted", [0, -1, 1.1, float("nan")])
def test_an_accuracy_that_cannot_be_is_refused(wanted):
    with pytest.raises(BadInput, match="expected more than 0 and at most 1"):
        selective.threshold(MIXED, wanted)


def test_what_no_threshold_can_give_is_said_with_the_best_there_is():
    wrong = with_confidence([0.9, 0.8], [False, True])
    with pytest.raises(BadInput, match="no threshold makes 90% of the answers right: the best is 50%; ask for less"):
        selective.threshold(wrong, 0.9)


def test_no_threshold_may_be_a_result_and_then_nothing_is_answered():
    wrong = with_confidence([1.0, 0.8], [False, True])
    assert selective.threshold(wrong, 0.9, otherwise=selective.NEVER) == selective.NEVER
    assert selective.threshold(wrong, 0.5, otherwise=selective.NEVER) == 0.8
    covered, accuracy = selective.at(wrong, selective.NEVER)
    assert (covered.value, accuracy) == (0, None)
    with pytest.raises(BadInput, match="expected more than 0"):
        selective.threshold(wrong, 2, otherwise=selective.NEVER)


def test_no_predictions_are_refused():
    with pytest.raises(BadInput, match="there are no predictions"):
        selective.coverage(MIXED.iloc[:0])


def test_of_rows_that_share_groups_the_groups_are_drawn():
    """Twelve authors of 25 rows each, always right or always wrong: as much as twelve rows tell."""
    right = np.repeat(np.arange(12) % 3 != 0, 25)
    table = with_confidence(np.full(300, 0.9), right).assign(group=np.repeat(np.arange(12), 25).astype(str))
    coverage, accuracy = selective.at(table, 0.5)
    assert (coverage.value, accuracy.value) == (1, pytest.approx(2 / 3))
    assert accuracy == comparison.accuracy(table)
    _, of_rows = selective.at(table.drop(columns="group"), 0.5)
    assert accuracy.high - accuracy.low > 3 * (of_rows.high - of_rows.low)
