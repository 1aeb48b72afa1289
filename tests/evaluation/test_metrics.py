import socket
import warnings

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from ftlab.evaluation import metrics


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a metric asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def labels_and_guesses(classes, rows=200, seed=0):
    rng = np.random.default_rng(seed)
    references = rng.integers(0, classes, rows)
    return references, np.where(rng.random(rows) < 0.5, references, rng.integers(0, classes, rows))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_metrics_need_no_network_and_agree_with_scikit_learn(classes):
    references, predictions = labels_and_guesses(classes)
    both = {"references": references, "predictions": predictions}
    assert metrics.Accuracy().compute(**both) == {"accuracy": accuracy_score(references, predictions)}
    for average in ("macro", "micro", "weighted"):
        assert metrics.F1().compute(**both, average=average) == {
            "f1": f1_score(references, predictions, average=average)
        }
    assert metrics.F1().compute(**both) == metrics.F1().compute(**both, average="macro")
    correlation = metrics.MatthewsCorrelation().compute(**both)
    assert correlation == {"matthews_correlation": pytest.approx(matthews_corrcoef(references, predictions))}


@pytest.mark.parametrize("label", [0, 1])
def test_binary_f1_is_of_the_label_that_one_asks_for(label):
    references, predictions = labels_and_guesses(2, seed=1)
    both = {"references": references, "predictions": predictions}
    found = metrics.F1().compute(**both, average="binary", pos_label=label)
    assert found == {"f1": f1_score(references, predictions, pos_label=label)}
    assert found != metrics.F1().compute(**both, average="binary", pos_label=1 - label)


def test_a_class_that_is_never_predicted_has_no_f1_and_no_warning():
    both = {"references": [0, 0, 1, 2], "predictions": [0, 0, 0, 0]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.F1().compute(**both)["f1"] == pytest.approx((2 * 2 / 6 + 0 + 0) / 3)
        assert metrics.MatthewsCorrelation().compute(**both)["matthews_correlation"] == 0.0


def test_metrics_can_be_computed_together_and_again():
    together = evaluate.combine([metrics.Accuracy(), metrics.F1(), metrics.MatthewsCorrelation()])
    references, predictions = labels_and_guesses(3)
    first = together.compute(references=references, predictions=predictions)
    assert first == pytest.approx(
        {
            "accuracy": accuracy_score(references, predictions),
            "f1": f1_score(references, predictions, average="macro"),
            "matthews_correlation": matthews_corrcoef(references, predictions),
        }
    )
    together.compute(references=[0, 1], predictions=[1, 0])
    assert together.compute(references=references, predictions=predictions) == first
