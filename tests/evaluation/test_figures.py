import re

import numpy as np
import pandas as pd
import pytest

from ftlab.errors import BadInput
from ftlab.evaluation import baselines, calibration, figures
from ftlab.evaluation.predictions import prediction_table
from tests.evaluation.tables import assert_one_sentence, labelled_rows

RELIABILITY = {
    "before": pd.DataFrame(
        {"low": [0.5, 0.6, 0.9], "high": [0.6, 0.7, 1.0], "rows": [10, 4, 86], "confidence": [0.55, 0.62, 0.97],
         "accuracy": [0.5, 0.75, 0.9]}
    ),
    "after": pd.DataFrame(
        {"low": [0.6, 0.8], "high": [0.8, 1.0], "rows": [40, 60], "confidence": [0.7, 0.9], "accuracy": [0.7, 0.9]}
    ),
}  # fmt: skip
POINTS = pd.DataFrame(
    [{"model": model, "rows": rows, "accuracy": base + 0.1 * seed, "seed": seed}
     for model, base in (("word counts", 0.5), ("fine-tuned", 0.7)) for rows in (50, 200, 1000) for seed in (0, 1)]
)  # fmt: skip
LIVE = pd.DataFrame({"model": ["fine-tuned"] * 2, "rows": [50, 200], "accuracy": [0.62, 0.81], "seed": 0})


@pytest.fixture(scope="module", autouse=True)
def headless():
    import matplotlib

    matplotlib.use("agg")


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def answers(rows=40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    texts = [f"text {number}" for number in range(rows)]
    return prediction_table(labelled_rows(texts, rng.integers(0, 2, rows)), rng.dirichlet([1, 1], rows))


def log(epochs=2):
    evals = [{"epoch": float(epoch), "eval_loss": 0.6, "eval_f1": 0.5} for epoch in range(1, epochs + 1)]
    return [{"epoch": 0.5, "loss": 0.7}, {"epoch": 1.0, "loss": 0.6}, *evals]


FIGURES = {
    "label_order": lambda: figures.label_order(pd.Series(["b", "a", "b", "a"]), 2),
    "token_lengths": lambda: figures.token_lengths(pd.DataFrame({"tokens": np.arange(5, 300)}), 128),
    "training_curves": lambda: figures.training_curves(log()),
    "scores": lambda: figures.scores(baselines.ladder({"one": answers(), "two": answers(30)})),
    "confusion": lambda: figures.confusion(answers(), ["negative", "positive"]),
    "reliability": lambda: figures.reliability(RELIABILITY),
    "reliability of a model": lambda: figures.reliability({"model": calibration.reliability(answers())}),
    "learning_curve": lambda: figures.learning_curve(POINTS, LIVE),
    "learning_curve without a run": lambda: figures.learning_curve(POINTS),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_labelled_axes_and_titles(name):
    figure = FIGURES[name]()
    drawn = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    for axis in drawn:
        assert axis.get_title()
        shared = axis.get_subplotspec().rowspan.stop < axis.get_gridspec().nrows  # the axis beneath has the label
        assert axis.get_xlabel() or shared
        names = [tick.get_text() for tick in axis.get_yticklabels()]
        assert axis.get_ylabel() or not names or any(re.search("[a-z]", tick) for tick in names)


@pytest.mark.parametrize("name", FIGURES)
def test_a_line_that_is_one_of_several_has_its_name_in_the_legend(name):
    for axis in FIGURES[name]().axes:
        labels = [line.get_label() for line in axis.lines if not line.get_label().startswith("_")]
        legend = axis.get_legend()
        assert labels == ([text.get_text() for text in legend.get_texts()] if legend else [])


def test_a_figure_is_shown_with_its_text_and_closed(monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    figure = FIGURES["scores"]()
    figures.show(figure, alt="two dots")
    (data,), options = shown[0]
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == "[figure] two dots"
    assert options["metadata"] == {"image/png": {"alt": "two dots"}}
    assert not plt.fignum_exists(figure.number)


def test_a_reliability_diagram_draws_the_table_and_its_empty_bins_as_empty():
    top, foot = figures.reliability(RELIABILITY).axes
    lines = {line.get_label(): line.get_xydata() for line in top.lines}
    for name, table in RELIABILITY.items():
        np.testing.assert_array_equal(lines[name], table[["confidence", "accuracy"]])
    np.testing.assert_array_equal(lines["as sure as right"], [[0, 0], [1, 1]])
    before, after = (patch.get_data() for patch in foot.patches)
    np.testing.assert_allclose(before.edges, np.arange(11) / 10)
    assert before.values.tolist() == [0, 0, 0, 0, 0, 10, 4, 0, 0, 86]
    assert after.values.tolist() == [0, 0, 0, 40, 60]
    assert top.get_xlim() == (0.5, 1.0)


@pytest.mark.parametrize("bins", [1, 7, 15, 100])
def test_a_reliability_diagram_takes_any_number_of_bins(bins):
    table = calibration.reliability(answers(400), bins=bins)
    (drawn,) = (patch.get_data() for patch in figures.reliability({"model": table}).axes[1].patches)
    assert len(drawn.values) == bins
    np.testing.assert_allclose(drawn.edges[:-1][drawn.values > 0], table["low"])
    assert drawn.values[drawn.values > 0].tolist() == table["rows"].tolist()


def test_a_learning_curve_draws_the_mean_over_seeds_its_range_and_this_runs_points():
    (axis,) = figures.learning_curve(POINTS, LIVE).axes
    assert axis.get_xscale() == "log"
    lines = {line.get_label(): line.get_xydata() for line in axis.lines}
    np.testing.assert_allclose(lines["word counts"], [[50, 0.55], [200, 0.55], [1000, 0.55]])
    np.testing.assert_allclose(lines["fine-tuned"], [[50, 0.75], [200, 0.75], [1000, 0.75]])
    (crosses,) = (line for line in axis.lines if line.get_marker() == "x")
    np.testing.assert_array_equal(crosses.get_xydata(), LIVE[["rows", "accuracy"]])
    assert crosses.get_color() == next(line for line in axis.lines if line.get_label() == "fine-tuned").get_color()
    lows_and_highs = [set(np.round(band.get_paths()[0].vertices[:, 1], 6)) for band in axis.collections]
    assert lows_and_highs == [{0.5, 0.6}, {0.7, 0.8}]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["50", "200", "1,000"]
    assert axis.get_legend().get_title().get_text() == "crosses: this run"


def test_a_model_of_this_run_alone_is_drawn_and_named_too():
    other = LIVE.assign(model="tiny")
    (axis,) = figures.learning_curve(POINTS, other).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["word counts", "fine-tuned", "tiny"]
    (crosses,) = (line for line in axis.lines if line.get_marker() == "x")
    np.testing.assert_array_equal(crosses.get_xydata(), other[["rows", "accuracy"]])


def test_a_run_without_points_leaves_the_stored_ones():
    (axis,) = figures.learning_curve(POINTS, pd.DataFrame([])).axes
    assert not any(line.get_marker() == "x" for line in axis.lines)
    assert not axis.get_legend().get_title().get_text()


@pytest.mark.parametrize("count", [0, 4])
def test_more_lines_than_one_can_tell_apart_are_refused_and_none_is_left_out_in_silence(count):
    tables = {f"model {number}": RELIABILITY["before"] for number in range(count)}
    points = pd.concat([POINTS.head(0), *(POINTS.assign(model=name) for name in tables)])
    for draw, what in ((figures.reliability, tables), (figures.learning_curve, points)):
        with pytest.raises(BadInput) as caught:
            draw(what)
        assert_one_sentence(caught, f"there are {count} lines", "1 to 3")


def test_as_many_lines_as_one_can_tell_apart_have_each_their_colour_and_marker():
    three = {f"model {number}": RELIABILITY["before"] for number in range(3)}
    points = pd.concat([POINTS.assign(model=name) for name in three])
    for figure in (figures.reliability(three), figures.learning_curve(points)):
        lines = [line for line in figure.axes[0].lines if line.get_label() in three]
        assert len({(line.get_color(), line.get_marker()) for line in lines}) == 3


@pytest.mark.parametrize(
    ("labels", "title"),
    [("ab", "a (dark), b (light)"), ("cab", "a (dark) to c (light)"), ("dabc", "a (dark) to d (light)")],
)
def test_the_order_of_labels_names_the_ends_of_its_colours(labels, title):
    (axis,) = figures.label_order(pd.Series(list(labels * 3)), 2).axes
    assert axis.get_title().endswith(title)
    codes = axis.images[0].get_array()
    assert codes[0, : len(labels)].tolist() == [sorted(labels).index(label) for label in labels]


def test_token_lengths_count_the_rows_that_each_length_keeps_whole():
    tokens = pd.DataFrame({"tokens": [10, 300, 20, 40]})
    left, right = figures.token_lengths(tokens, 32).axes
    (share,) = (line for line in right.lines if line.get_linestyle() == "-")
    np.testing.assert_array_equal(share.get_xydata(), [[10, 0.25], [20, 0.5], [40, 0.75], [300, 1.0]])
    assert all("max_length 32" in axis.get_legend().get_texts()[0].get_text() for axis in (left, right))


def test_training_curves_are_drawn_from_the_log_with_or_without_training_losses():
    left, right = figures.training_curves(log()).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert lines == {"training": [[0.5, 0.7], [1.0, 0.6]], "validation": [[1.0, 0.6], [2.0, 0.6]]}
    assert right.lines[0].get_xydata().tolist() == [[1.0, 0.5], [2.0, 0.5]]
    left, _ = figures.training_curves(log()[2:]).axes
    assert [line.get_label() for line in left.lines] == ["validation"]


def test_the_best_model_stands_at_the_top_of_the_ladder_with_its_interval():
    table = pd.DataFrame({"model": ["one", "two"], "accuracy": [0.8, 0.5], "low": [0.7, 0.4], "high": [0.85, 0.6]})
    (axis,) = figures.scores(table).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["two", "one"]
    dots = axis.containers[0].lines[0].get_xydata().tolist()
    assert dots == [[0.5, 0], [0.8, 1]]
    bars = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(bars, [[0.4, 0.6], [0.7, 0.85]])


def test_a_confusion_matrix_counts_the_rows_and_keeps_a_label_without_any():
    names = ["negative", "neutral", "positive"]
    table = answers()
    (heatmap, _) = figures.confusion(table, names).axes
    counts = np.array([int(text.get_text()) for text in heatmap.texts]).reshape(3, 3)
    for row, true in enumerate(names):
        for column, predicted in enumerate(names):
            assert counts[row, column] == ((table["label"] == true) & (table["prediction"] == predicted)).sum()
    shares = heatmap.collections[0].get_array().reshape(3, 3)
    np.testing.assert_allclose(shares.sum(axis=1), [1, 0, 1])
