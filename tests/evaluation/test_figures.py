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
RATES = pd.DataFrame(
    {"loss": [0.69, 0.6, np.nan], "loss low": [0.68, 0.5, np.nan], "loss high": [0.7, 0.7, np.nan],
     "macro F1": [0.4, 0.7, np.nan], "macro F1 low": [0.3, 0.6, np.nan], "macro F1 high": [0.5, 0.8, np.nan]},
    index=[1e-5, 1e-4, 1e-3],
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
    "learning_rates": lambda: figures.learning_rates(RATES, 1e-4, 0.693),
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
    np.testing.assert_array_equal(lines["perfect calibration"], [[0, 0], [1, 1]])
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
    ("labels", "shown"), [("ab", ["a", "b"]), ("cab", ["a", "b", "c"]), ("gfedcba", ["a", "...", "g"])]
)
def test_the_order_of_labels_names_its_colours(labels, shown):
    figure = figures.label_order(pd.Series(list(labels * 3)), 2)
    (axis,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == shown
    strip = axis.images[0]
    codes = strip.get_array()
    assert codes[0, : len(labels)].tolist() == [sorted(labels).index(label) for label in labels]
    ends = [strip.cmap(strip.norm(code)) for code in (0, len(labels) - 1)]
    assert [legend.get_patches()[place].get_facecolor() for place in (0, -1)] == ends
    assert [text.get_text() for text in axis.texts] == ["first 2 rows"]


def test_a_method_has_one_colour_in_every_figure_under_each_of_its_names():
    looks = [
        figures.method_styles(names)
        for names in (["fine-tuned", "TF-IDF"], ["x", "all of it"], ["base", "tuned"], ["full fine-tuning", "y"])
    ]
    full = figures.METHODS["full fine-tuning"]
    assert [
        look[name] for look, name in zip(looks, ("fine-tuned", "all of it", "tuned", "full fine-tuning"), strict=True)
    ] == [full] * 4
    assert looks[0]["TF-IDF"] == figures.METHODS["tf-idf"]
    assert figures.method_styles(["first 3 frozen"])["first 3 frozen"] == figures.METHODS["first layers frozen"]


@pytest.mark.parametrize(
    "names", [[f"model {number}" for number in range(9)], ["first 4 frozen", "first 5 frozen", "tuned", "all of it"]]
)
def test_no_two_models_of_a_figure_share_a_colour_or_a_marker(names):
    looks = figures.method_styles([*names, names[0]])
    assert list(looks) == names
    for part in (0, 1):
        assert len({look[part] for look in looks.values()}) == len(names)


def test_more_models_than_there_are_colours_are_drawn_all_the_same():
    assert len(figures.method_styles(map(str, range(40)))) == 40


MANY = pd.DataFrame(
    [
        {"model": model, "rows": rows, "score": 0.5 + number / 20, "low": 0.4, "high": 0.95, "seconds": seconds}
        for number, (model, seconds) in enumerate(
            {"all of it": 40.0, "first 4 frozen": 20.0, "first 5 frozen": 15.0, "head only": 5.0, "TF-IDF": None,
             "sentence vectors": None}.items()
        )
        for rows in (100, 500)
    ]
)  # fmt: skip
HIGHLIGHTED = ["all of it", "first 4 frozen", "head only", "sentence vectors"]


def coloured(axis) -> set[str]:
    """The labels of what is drawn in colour: lines, and the dots of error bars."""
    handles, labels = axis.get_legend_handles_labels()
    return {label for _, label in zip(handles, labels, strict=True)} - {"Pareto front"}


def test_of_many_models_the_main_ones_are_in_colour_and_the_others_grey_and_without_a_name():
    figure = figures.score_by_seconds(MANY)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*HIGHLIGHTED, "Pareto front"]
    for axis in figure.axes:
        assert coloured(axis) == set(HIGHLIGHTED)
        faint = [line for line in axis.lines if line.get_marker() == "o" and line.get_color() == figures.FAINT]
        assert len(faint) == 1  # first 5 frozen; TF-IDF has neither a time nor a name
    (axis,) = figures.score_by_rows(MANY).axes
    assert coloured(axis) == set(HIGHLIGHTED)
    assert sum(line.get_color() == figures.FAINT for line in axis.lines) == 2


def test_a_baseline_without_a_training_time_is_a_level():
    for axis in figures.score_by_seconds(MANY).axes:
        (level,) = (line for line in axis.lines if line.get_linestyle() == "--")
        assert level.get_label() == "sentence vectors"
        assert set(level.get_ydata()) == {0.75}


def test_the_caller_chooses_the_models_in_colour():
    chosen = ["first 5 frozen", "TF-IDF"]
    (axis,) = figures.score_by_rows(MANY, highlight=chosen).axes
    assert coloured(axis) == set(chosen)
    assert all(coloured(axis) == set(chosen) for axis in figures.score_by_seconds(MANY, highlight=chosen).axes)


def test_the_models_of_this_run_come_before_those_of_the_benchmark_and_each_has_its_cross():
    live = MANY[MANY["model"].isin(["first 5 frozen", "TF-IDF"]) & (MANY["rows"] == 100)]
    (axis,) = figures.score_by_rows(MANY, live).axes
    assert coloured(axis) == {"all of it", "first 5 frozen", "head only", "sentence vectors"}
    crosses = [line for line in axis.lines if line.get_marker() == "x"]
    assert sorted(float(cross.get_ydata()[0]) for cross in crosses) == live["score"].tolist()


def test_the_style_is_the_same_in_every_figure_and_ends_with_it():
    import matplotlib.pyplot as plt

    before = plt.rcParams["font.size"], plt.rcParams["axes.spines.top"]
    with figures.style():
        assert plt.rcParams["axes.spines.top"] is False
    for draw in FIGURES.values():
        figure = draw()
        assert figure.get_facecolor() == (1, 1, 1, 1)
        assert figure.get_size_inches()[0] <= 8
        assert all(
            text.get_fontsize() >= 9 for axis in figure.axes for text in (*axis.get_xticklabels(), axis.xaxis.label)
        )
    assert (plt.rcParams["font.size"], plt.rcParams["axes.spines.top"]) == before


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


def test_learning_rates_stand_on_a_log_axis_with_intervals_and_a_cross_where_training_diverged():
    loss, score = figures.learning_rates(RATES, 1e-4, guess=0.693).axes
    for axis, column in ((loss, "loss"), (score, "macro F1")):
        assert axis.get_xscale() == "log"
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1e-05", "0.0001", "0.001"]
        assert axis.containers[0].lines[0].get_xydata().tolist() == [
            [1e-5, RATES[column].iloc[0]],
            [1e-4, RATES[column].iloc[1]],
        ]
        bars = [segment[:, 1].tolist() for bar in axis.collections for segment in bar.get_segments()]
        np.testing.assert_allclose(bars, RATES[[f"{column} low", f"{column} high"]].dropna())
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["planned rate"] == [[1e-4, 0], [1e-4, 1]]
    assert lines["guessing"] == [[0, 0.693], [1, 0.693]]
    assert lines["diverged"] == [[1e-3, 0]]
    without = figures.learning_rates(RATES.dropna(), 1e-4).axes[0]
    assert not {"guessing", "diverged"} & {line.get_label() for line in without.lines}


def test_the_best_model_stands_at_the_top_of_the_ladder_with_its_interval():
    table = pd.DataFrame({"model": ["one", "two"], "accuracy": [0.8, 0.5], "low": [0.7, 0.4], "high": [0.85, 0.6]})
    (axis,) = figures.scores(table).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["two", "one"]
    dots = [container.lines[0].get_xydata().tolist() for container in axis.containers]
    assert dots == [[[0.5, 0]], [[0.8, 1]]]
    bars = [segment[:, 0].tolist() for bar in axis.collections for segment in bar.get_segments()]
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
