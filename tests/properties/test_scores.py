"""Scores against slow references: bounded, and the same in any order of the rows."""

import functools
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ftlab.errors import BadInput
from ftlab.evaluation import answers, calibration, comparison, metrics, selective
from tests import nightly
from tests.properties import strategies

SLOW = settings(max_examples=nightly.cases(few=10, nightly=1_000))
NAMES = ("a", "b", "c")


@st.composite
def predictions(draw, *, least=1, most=25):
    """A table as `prediction_table` makes it, with certain and equal probabilities among them."""
    weights = st.lists(st.sampled_from([0.0, 1e-9, 0.1, 0.3, 0.5, 1.0, 3.0]), min_size=3, max_size=3).filter(any)
    shares = np.array(draw(st.lists(weights, min_size=least, max_size=most)))
    shares /= shares.sum(axis=1, keepdims=True)
    best = shares.argmax(axis=1)
    labels = draw(st.lists(st.sampled_from(NAMES), min_size=len(shares), max_size=len(shares)))
    table = {
        "id": [f"r{n}" for n in range(len(shares))],
        "label": labels,
        "prediction": [NAMES[place] for place in best],
    }
    return pd.DataFrame(
        {**table, "confidence": shares.max(axis=1), **{f"p_{name}": shares[:, n] for n, name in enumerate(NAMES)}}
    )


def shuffled(table, random):
    order = [*range(len(table))]
    random.shuffle(order)
    return table.iloc[order]


RANDOMS = st.randoms(use_true_random=False)


def f1_by_hand(true, said, name):
    hits = sum(one == two == name for one, two in zip(true, said, strict=True))
    there = true.count(name) + said.count(name)
    return 2 * hits / there if there else 0.0


def mcc_by_hand(true, said):
    """The correlation of the two tables of 0 and 1 (Gorodkin 2004): a column for each class."""
    x, y = (np.array([[one == name for name in NAMES] for one in column], dtype=float) for column in (true, said))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    spread = math.sqrt((x * x).sum() * (y * y).sum())
    return (x * y).sum() / spread if spread else 0.0


@given(predictions(), RANDOMS)
@SLOW
def test_scores_are_those_by_hand_bounded_and_the_same_in_any_order(table, random):
    found = comparison.scores(table)
    true, said = list(table["label"]), list(table["prediction"])
    present = sorted({*true, *said})
    of_class = {name: f1_by_hand(true, said, name) for name in present}
    assert found["accuracy"].value == pytest.approx(
        sum(one == two for one, two in zip(true, said, strict=True)) / len(true)
    )
    assert found["mcc"].value == pytest.approx(mcc_by_hand(true, said), abs=1e-9)
    for name in present:
        assert found[f"f1[{name}]"].value == pytest.approx(of_class[name])
    weights = {name: true.count(name) for name in present}
    assert found["f1_weighted"].value == pytest.approx(
        sum(of_class[name] * weights[name] for name in present) / len(true)
    )
    for name, one in found.items():
        if len(table) == 1 and name != "accuracy":  # resamples of a single row are all equal: no interval
            assert math.isnan(one.low)
            assert math.isnan(one.high)
        else:
            assert (-1 if name == "mcc" else 0) - 1e-9 <= one.low <= one.high <= 1 + 1e-9
    other = comparison.scores(shuffled(table, random))
    assert {name: str(one) for name, one in other.items()} == {name: str(one) for name, one in found.items()}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20))
@SLOW
def test_the_metrics_of_a_training_agree_with_the_scores_of_its_table(rows):
    true, said = ([NAMES[pair[side]] for pair in rows] for side in (0, 1))
    scores = comparison.scores(
        pd.DataFrame({"id": range(len(rows)), "label": true, "prediction": said, "confidence": 1.0})
    )
    given_rows = {"references": [one for one, _ in rows], "predictions": [two for _, two in rows]}
    assert metrics.Accuracy()._compute(**given_rows)["accuracy"] == pytest.approx(scores["accuracy"].value)
    assert metrics.MatthewsCorrelation()._compute(**given_rows)["matthews_correlation"] == pytest.approx(
        scores["mcc"].value, abs=1e-9
    )
    assert metrics.F1()._compute(**given_rows, average="weighted")["f1"] == pytest.approx(scores["f1_weighted"].value)


@given(predictions(least=2), RANDOMS)
@SLOW
def test_two_models_are_compared_by_row_whatever_the_order(table, random):
    other = shuffled(table.assign(prediction=table["label"]), random)
    found, swapped = comparison.compare(table, other), comparison.compare(other, table)
    assert found.difference.value == pytest.approx(comparison.correct(table).mean() - 1)
    assert (found.only_first, found.only_second) == (0, int((table["label"] != table["prediction"]).sum()))
    assert found.p_value == swapped.p_value
    gap = comparison.difference(table, other, "accuracy")
    assert gap.value == pytest.approx(found.difference.value)
    assert -1 <= gap.low <= gap.high <= 1e-9
    with pytest.raises(BadInput):
        comparison.compare(table, other.assign(id=other["id"] + "x"))


# --- calibration ---


def ece_by_hand(table, bins):
    """For each bin, open below and closed above (the lowest is closed): its rows' |mean confidence - accuracy|."""
    error = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        mine = [
            row for row in table.itertuples() if low < row.confidence <= high or (number == 0 and row.confidence == 0)
        ]
        if mine:
            sure = sum(row.confidence for row in mine) / len(mine)
            right = sum(row.label == row.prediction for row in mine) / len(mine)
            error += len(mine) * abs(sure - right)
    return error / len(table)


@given(predictions(), st.integers(1, 20), RANDOMS)
@settings(max_examples=nightly.cases(few=20, nightly=1_000))
def test_the_calibration_error_is_that_by_hand(table, bins, random):
    found = calibration.expected_calibration_error(table, bins=bins)
    assert found == pytest.approx(ece_by_hand(table, bins), abs=1e-9)
    assert 0 <= found <= 1
    assert calibration.expected_calibration_error(shuffled(table, random), bins=bins) == pytest.approx(found, abs=1e-9)
    lines = calibration.reliability(table, bins=bins)
    assert lines["rows"].sum() == len(table)
    assert (lines["low"] - 1e-12 <= lines["confidence"]).all()
    assert (lines["confidence"] <= lines["high"] + 1e-12).all()
    with pytest.raises(BadInput, match="at least 1"):
        calibration.reliability(table, bins=1 - bins)


@given(predictions())
def test_the_log_loss_is_that_by_hand(table):
    losses = calibration.log_losses(table)
    for loss, row in zip(losses, table.to_dict("records"), strict=True):
        share = row[f"p_{row['label']}"]
        assert loss >= -1e-9
        assert math.isfinite(loss)
        if share > 1e-30:
            assert loss == pytest.approx(-math.log(share), abs=1e-6)
        else:
            assert loss > 80  # as far as a float32 goes


@given(predictions(), st.floats(0.05, 20))
@settings(max_examples=nightly.cases(few=20, nightly=1_000))
def test_a_temperature_changes_no_prediction_and_the_best_one_makes_no_loss_worse(table, temperature):
    found = calibration.scaled(table, temperature)
    columns = [f"p_{name}" for name in NAMES]
    assert found[columns].sum(axis=1).tolist() == pytest.approx([1] * len(table))
    assert found["confidence"].tolist() == found[columns].max(axis=1).tolist()
    for place, name in enumerate(table["prediction"]):
        assert found[f"p_{name}"].iloc[place] == pytest.approx(found["confidence"].iloc[place])
    back = calibration.scaled(found, 1 / temperature)
    if (table[columns] > 1e-3).all(axis=None) and 0.5 < temperature < 2:
        assert back[columns].to_numpy().ravel().tolist() == pytest.approx(
            table[columns].to_numpy().ravel().tolist(), abs=1e-6
        )
    best = calibration.temperature(table)
    low, high = calibration.RANGE
    assert low <= best <= high or best == 1.0
    assert calibration.log_loss(calibration.scaled(table, best)) <= calibration.log_loss(table) + 1e-3
    for wrong in (0.0, -temperature, math.nan):
        with pytest.raises(BadInput, match="more than 0"):
            calibration.scaled(table, wrong)


@given(predictions(), st.floats(0.01, 1), RANDOMS)
@settings(max_examples=nightly.cases(few=20, nightly=1_000))
def test_a_threshold_is_the_lowest_that_reaches_the_accuracy_by_trying_each(table, wanted, random):
    curve = selective.coverage(table)
    for line in curve.to_dict("records"):
        mine = table[table["confidence"] >= line["threshold"]]
        assert line["coverage"] == pytest.approx(len(mine) / len(table))
        assert line["accuracy"] == pytest.approx((mine["label"] == mine["prediction"]).mean())
    assert curve["coverage"].is_monotonic_increasing
    assert curve["coverage"].iloc[-1] == 1
    pd.testing.assert_frame_equal(curve, selective.coverage(shuffled(table, random)))
    reach = [
        each
        for each in sorted({*table["confidence"]})
        if comparison.correct(table[table["confidence"] >= each]).mean() >= wanted
    ]
    found = selective.threshold(table, wanted, otherwise=selective.NEVER)
    assert found == (reach[0] if reach else selective.NEVER)
    share, right = selective.at(table, found)
    assert (right is None) == (not reach)
    if right is not None:
        assert right.value >= wanted - 1e-9
        assert share.value == pytest.approx((table["confidence"] >= found).mean())


# --- answers ---


def longest_common(one, other):
    """The longest common subsequence, by its definition."""

    @functools.cache
    def length(i, j):
        if i == len(one) or j == len(other):
            return 0
        if one[i] == other[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


SHORT = st.one_of(strategies.plain, strategies.texts.filter(lambda text: len(text) < 120))


@given(SHORT, SHORT)
@settings(max_examples=nightly.cases(few=80, nightly=1_000))
@example("the cat", "cat the")
@example("", "")
def test_rouge_l_is_that_by_its_definition_symmetric_and_1_for_equal_words(text, reference):
    one, other = (tuple(re.findall(r"[^\W_]+", part.lower())) for part in (text, reference))
    found = answers.rouge_l(text, reference)
    assert found == pytest.approx(2 * longest_common(one, other) / (len(one) + len(other)) if one and other else 0.0)
    assert found == answers.rouge_l(reference, text)
    assert 0 <= found <= 1
    assert (found == 1) == (one == other and bool(one))
    assert answers.rouge_l(text.upper().lower(), text.lower()) == (
        1.0 if text.upper().lower() == text.lower() and one else answers.rouge_l(text.upper().lower(), text.lower())
    )


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["write", "explain", "urgent", "calm"]), strategies.texts, strategies.texts, st.booleans()
    ),
    min_size=1,
    max_size=6,
)


@given(ROWS, RANDOMS)
@SLOW
def test_each_measure_of_an_answer_is_from_0_to_1_and_belongs_to_its_row(rows, random):
    table = pd.DataFrame(
        [
            {
                "id": f"r{n}",
                "kind": kind,
                "instruction": "x",
                "input": "",
                "test": "",
                "answer": said,
                "stopped": stopped,
                "output": kind if kind in ("urgent", "calm") else wanted or "x",
            }
            for n, (kind, wanted, said, stopped) in enumerate(rows)
        ]
    )
    names = ("exact match", "right word", "stopped", "format", "rouge-l")
    found = answers.measured(table, names)
    values = found[[*names]].to_numpy()
    assert np.nanmin(values) >= 0
    assert np.nanmax(values) <= 1
    labelled = (table["kind"] == table["output"]).to_numpy()
    assert (found["right word"].notna().to_numpy() == labelled).all()
    assert (
        found["exact match"].to_numpy()
        <= np.maximum(found["rouge-l"].to_numpy(), 0)
        + (table["answer"].str.lower().str.findall(r"[^\W_]+").str.len() == 0)
    ).all()
    again = answers.measured(shuffled(table, random), names).set_index("id").loc[table["id"]]
    np.testing.assert_array_equal(again[[*names]].to_numpy(), values)
    perfect = answers.measured(table.assign(answer=table["output"], stopped=True), names)
    assert (perfect["exact match"] == 1).all()
    assert perfect["right word"].dropna().eq(1).all()


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0.1, 0.95))
def test_the_smallest_difference_falls_with_the_rows(rows, disagree, power):
    assume(round(rows * disagree) > 0)
    found = comparison.smallest_difference(rows, disagree, power=power)
    assert 0 < found <= 1
    assert comparison.smallest_difference(4 * rows, disagree, power=power) <= found + 1e-9
