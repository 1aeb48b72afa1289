"""How many of the doubted labels are wrong, said before anyone reads them: checked on labels whose truth is known."""

import numpy as np
import pytest

from ftlab.data.audit import audit, label_errors, linear_model

from .planted import changed, opinions, table

ROWS = 4000


def judged(wrong: float, *, rows: int = ROWS, power: float = 1.0, classes: int = 2, sure: float = 2.0, seed: int = 0):
    """Draw true labels from known probabilities, replace a share of them, and return what a model would say.

    The model knows the probabilities, and states them too modestly by `power`. `sure` is how far they lie apart.

    Returns:
        Probabilities (rows, classes), the labels, and which of them are wrong.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * sure
    true = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    flipped = rng.random(rows) < wrong
    labels = np.where(flipped, (true + rng.integers(1, classes, rows)) % classes, true)
    scores = np.exp(logits / power)
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), labels, flipped


def share_of_wrong(probabilities, labels) -> float:
    noise = label_errors.estimate(probabilities, labels)
    return float(noise.weights.sum(axis=0) @ label_errors.WRONG)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("power", [1.0, 3.0])
@pytest.mark.parametrize("wrong", [0.0, 0.05, 0.2])
def test_the_share_of_wrong_labels_is_estimated_whatever_the_model_s_modesty(wrong, power, classes):
    probabilities, labels, _ = judged(wrong, power=power, classes=classes)
    assert share_of_wrong(probabilities, labels) == pytest.approx(wrong, abs=0.02)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sure", [1.5, 3.0])
def test_of_the_doubted_labels_as_many_are_wrong_as_expected(sure, seed):
    probabilities, labels, flipped = judged(0.1, power=2.0, sure=sure, seed=seed)
    noise = label_errors.estimate(probabilities, labels)
    found = label_errors.doubted(labels, probabilities, noise)
    low, high = noise.interval(probabilities[found], labels[found])
    right = flipped[found].mean()
    assert right > 0.5
    assert low - 0.05 <= right <= high + 0.05
    assert noise.chance(probabilities[found], labels[found]).mean() == pytest.approx(right, abs=0.12)


def test_the_list_stops_at_even_odds():
    probabilities, labels, flipped = judged(0.1)
    noise = label_errors.estimate(probabilities, labels)
    found = label_errors.doubted(labels, probabilities, noise)
    chances = noise.chance(probabilities[found], labels[found])
    assert (np.diff(chances) <= 0).all()
    assert chances[-1] >= label_errors.EVEN
    others = np.setdiff1d(np.flatnonzero(probabilities.argmax(axis=1) != labels), found)
    assert flipped[others].mean() < label_errors.EVEN


@pytest.mark.parametrize("seed", range(4))
def test_many_doubts_of_a_weak_model_are_no_finding(seed):
    """The model contradicts a third of the labels, and all of them are right: the cases are hard."""
    probabilities, labels, _ = judged(0.0, sure=0.8, power=2.0, seed=seed)
    assert (probabilities.argmax(axis=1) != labels).mean() > 0.25
    assert len(label_errors.doubted(labels, probabilities)) <= 2


def test_from_a_few_rows_it_cannot_be_told():
    frame = opinions(200)
    other = {"good": "bad", "bad": "good"}
    report = audit(changed(frame, "label", {row: other[frame["label"][row]] for row in range(10, 18)}))
    assert "likely_label_errors" not in report
    assert "from so few doubts it cannot be told which are errors" in " ".join(report.skipped)


def test_errors_of_one_kind_are_pointed_out_without_a_list():
    """The first tenth of the rows is all "good", so no label of a good text is wrong, and some of bad ones are."""
    report = audit(changed(opinions(2000), "label", dict.fromkeys(range(200), "good")))
    assert "likely_label_errors" not in report
    assert "where it is surest of 'bad'" in " ".join(report.skipped)


def test_the_finding_says_how_many_are_expected_to_be_wrong():
    frame = opinions(400, 1)
    other = {"good": "bad", "bad": "good"}
    found = audit(changed(frame, "label", {row: other[frame["label"][row]] for row in range(0, 200, 10)}))
    doubts = found["likely_label_errors"]
    assert "of these labels are expected to be wrong (between" in doubts.what
    assert "of all wrong labels the list has about" in doubts.what
    assert doubts.evidence["chance_wrong"].between(0.5, 1).all()
    planted = {f"r{row}" for row in range(0, 200, 10)}
    assert len(planted & set(doubts.rows)) >= 17
    assert len(doubts.rows) <= 21


def test_as_many_planted_flips_are_listed_as_is_said():
    probabilities, labels, flipped = judged(0.1, sure=3.0)
    noise = label_errors.estimate(probabilities, labels)
    found = label_errors.doubted(labels, probabilities, noise)
    listed = np.isin(np.flatnonzero(flipped), found).mean()
    assert label_errors._recall(noise, probabilities, labels) == pytest.approx(listed, abs=0.05)


def test_a_model_that_counts_words_for_many_classes_is_not_asked():
    rng = np.random.default_rng(0)
    names = [f"class{number}" for number in range(linear_model.MANY_CLASSES)]
    labels = names * 12
    texts = [f"{label} {' '.join(rng.choice(list('abcdefgh'), 4))}" for label in labels]
    report = audit(changed(table(texts, labels), "label", {0: names[5], 40: names[3]}))
    assert "likely_label_errors" not in report
    assert "for 30 classes the simple model counts words" in " ".join(report.skipped)


def test_extreme_probabilities_and_tiny_tables_break_nothing():
    probabilities = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    noise = label_errors.estimate(probabilities, np.array([0, 1, 1, 1]))
    chances = noise.chance(probabilities, np.array([0, 1, 1, 1]))
    assert np.isfinite(chances).all()
    assert chances[2] > chances[0]
    assert noise.weights.sum() == pytest.approx(1)
