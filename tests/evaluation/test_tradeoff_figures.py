import numpy as np
import pandas as pd
import pytest

from ftlab.evaluation import tradeoff_figures

RUNS = pd.DataFrame(
    [
        {
            "targets": targets,
            "rank": rank,
            "seed": seed,
            "loss_change": -0.1 * rank - 0.01 * seed,
            "forgetting": 1 + 0.01 * rank,
        }
        for targets in ("q, v", "all linear")
        for rank in (1, 4)
        for seed in (0, 1)
    ]
    + [{"targets": "full", "rank": None, "seed": seed, "loss_change": -0.5, "forgetting": 1.2} for seed in (0, 1)]
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def headless():
    import matplotlib

    matplotlib.use("agg")


def test_ranks_are_drawn_as_means_over_seeds_with_full_fine_tuning_as_a_level_and_this_run_as_a_cross():
    live = pd.DataFrame([{"targets": "q, v", "rank": 4, "loss_change": -0.38, "forgetting": 1.05}])
    learned, forgot = tradeoff_figures.ranks(RUNS, live).axes
    lines = {line.get_label(): line.get_xydata() for line in learned.lines}
    np.testing.assert_allclose(lines["q, v"], [[1, -0.105], [4, -0.405]])
    np.testing.assert_allclose(lines["full"][:, 1], -0.5)
    np.testing.assert_allclose(learned.lines[-1].get_xydata(), [[4, -0.38]])
    np.testing.assert_allclose(forgot.lines[-1].get_xydata(), [[4, 1.05]])
    assert [tick.get_text() for tick in learned.get_xticklabels()] == ["1", "4"]
    assert learned.get_xlabel()
    assert learned.get_ylabel()
    assert forgot.get_ylabel()


def test_without_a_run_there_is_no_cross():
    learned, _ = tradeoff_figures.ranks(RUNS).axes
    assert [line.get_label() for line in learned.lines] == ["q, v", "all linear", "full"]


PROMPTS = pd.DataFrame(
    [
        {"template": template, "examples": k, "draw": draw, "score": base + 0.1 * k + 0.02 * draw}
        for template, base in (("alpaca", 0.0), ("chat", 0.2))
        for k in (0, 1, 3)
        for draw in ((0,) if k == 0 else (0, 1, 2))
    ]
    + [{"template": "tuned", "score": 0.9, "low": 0.8, "high": 0.95}]
)  # fmt: skip


def test_few_shot_prompts_are_lines_over_draws_with_the_tuned_model_as_a_level_and_this_run_as_crosses():
    live = pd.DataFrame([{"template": "chat", "examples": 3, "score": 0.6}])
    (axis,) = tradeoff_figures.few_shot(PROMPTS, live).axes
    lines = {line.get_label(): line.get_xydata() for line in axis.lines}
    np.testing.assert_allclose(lines["alpaca prompt"], [[0, 0], [1, 0.12], [3, 0.32]])
    np.testing.assert_allclose(lines["chat prompt"], [[0, 0.2], [1, 0.32], [3, 0.52]])
    np.testing.assert_allclose(lines["tuned, with its interval"][:, 1], 0.9)
    (cross,) = [line for line in axis.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(cross.get_xydata(), [[3, 0.6]])
    bands = [band.get_paths()[0].get_extents().get_points() for band in axis.collections]
    np.testing.assert_allclose(bands[0], [[0, 0], [3, 0.34]])  # the least and the most of the draws
    (interval,) = axis.patches
    assert (interval.get_y(), interval.get_y() + interval.get_height()) == pytest.approx((0.8, 0.95))
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "1", "3"]
    assert axis.get_ylabel() == "exact match"
    assert axis.get_xlabel()
    without = tradeoff_figures.few_shot(PROMPTS, score="ROUGE-L")
    assert "this run" not in without.legends[0].get_title().get_text()
    assert without.axes[0].get_ylabel() == "ROUGE-L"


def test_coverage_is_drawn_with_the_chosen_threshold_marked_on_each_split():
    curves = {
        "validation": pd.DataFrame({"threshold": [0.9, 0.6], "coverage": [0.5, 1.0], "accuracy": [1.0, 0.8]}),
        "test": pd.DataFrame({"threshold": [0.95, 0.7, 0.5], "coverage": [0.3, 0.6, 1.0], "accuracy": [1.0, 0.9, 0.7]}),
    }
    (axis,) = tradeoff_figures.coverage(curves, 0.6, 0.95).axes
    lines = [line.get_xydata().tolist() for line in axis.lines]
    assert lines[1] == [[1.0, 0.8]]
    assert lines[3] == [[0.6, 0.9]]
    assert lines[4] == [[0, 0.95], [1, 0.95]]


def test_bars_stand_in_the_order_given_with_their_values():
    (axis,) = tradeoff_figures.bars({"one": 2.0, "other": 3.5}, "tokens a second", "Speed").axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["other", "one"]
    assert [bar.get_width() for bar in axis.patches] == [3.5, 2.0]
    assert [text.get_text() for text in axis.texts] == ["3.5", "2"]
    assert axis.get_xlabel() == "tokens a second"


def test_the_rates_that_were_tried_are_a_panel_for_each_task_with_a_ring_around_the_choice():
    tried = pd.DataFrame(
        [
            {"task": task, "targets": targets, "learning_rate": rate, "loss_change": -rate}
            for task in ("tutor", "notes")
            for targets in ("full", "q, v")
            for rate in (1e-3, 1e-4, 1e-2)
        ]
    )
    chosen = tried[tried["learning_rate"] == 1e-3]
    figure = tradeoff_figures.sweep(tried, chosen)
    assert [axis.get_title() for axis in figure.axes] == ["tutor", "notes"]
    for axis in figure.axes:
        full, ring, *_ = axis.get_lines()
        assert full.get_xdata().tolist() == [1e-4, 1e-3, 1e-2]
        assert ring.get_xdata().tolist() == [1e-3]
        assert axis.get_xscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["full", "q, v"]
