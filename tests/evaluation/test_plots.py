import numpy as np
import pandas as pd
import pytest

from ftlab.data import sources
from ftlab.evaluation import plots
from ftlab.evaluation.predictions import prediction_table


def figures():
    rows = sources.load("mini_reviews")["train"].select(range(40))
    rng = np.random.default_rng(0)
    answers = prediction_table(rows, rng.dirichlet([1, 1], 40))
    lengths = pd.DataFrame({"tokens": rng.integers(5, 300, 200)})
    log = [{"epoch": 0.5, "loss": 0.7}, {"epoch": 1.0, "loss": 0.6}, {"epoch": 1.0, "eval_loss": 0.65, "eval_f1": 0.6}]
    ladder = pd.DataFrame({"model": ["one", "two"], "accuracy": [0.5, 0.8], "low": [0.4, 0.7], "high": [0.6, 0.9]})
    return {
        "label_order": plots.label_order(sources.read("mini_reviews")["label"], 20),
        "token_lengths": plots.token_lengths(lengths, 128),
        "training_curves": plots.training_curves(log),
        "scores": plots.scores(ladder),
        "confusion": plots.confusion(answers, ["negative", "positive"]),
    }


@pytest.fixture(scope="module", autouse=True)
def headless():
    import matplotlib

    matplotlib.use("agg")


def test_every_figure_has_labelled_axes_and_a_title():
    for name, figure in figures().items():
        drawn = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
        assert all(axis.get_xlabel() and axis.get_title() for axis in drawn), name
        assert all(axis.get_ylabel() or not len(axis.get_yticks()) or name == "scores" for axis in drawn), name


def test_a_figure_is_shown_with_its_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    plots.show(figures()["scores"], alt="two dots")
    (data,), options = shown[0]
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == "[figure] two dots"
    assert options["metadata"] == {"image/png": {"alt": "two dots"}}
