"""Recipes over seeds: paired by seed, wide intervals with few seeds, the same result with cached features."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.evaluation import figures, seed_comparison
from ftlab.evaluation.seed_comparison import Contest, Recipe
from ftlab.intervals import another_run, over_seeds

pytestmark = pytest.mark.usefixtures("one_thread")


def runs(**by_model):
    """A table of runs with 10 rows: f1_macro of each model by seed."""
    lines = [
        {"model": model, "rows": 10, "seed": seed, "f1_macro": value, "seconds": 1.0 + seed, "trainable": 5}
        for model, values in by_model.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(lines)


def test_the_interval_over_seeds_is_student_s():
    values = np.array([0.70, 0.74, 0.71, 0.77])
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_one_seed_has_no_interval_and_equal_seeds_have_a_point():
    assert np.isnan(over_seeds(np.array([0.7])).low)
    assert over_seeds(np.array([0.7, 0.7, 0.7])).low == pytest.approx(0.7)


def test_a_summary_has_a_line_for_each_model_and_size_with_its_means():
    found = seed_comparison.summary(runs(a=[0.6, 0.8], b=[0.5, 0.5]))
    assert found["model"].tolist() == ["a", "b"]
    assert found["score"].tolist() == pytest.approx([0.7, 0.5])
    assert found["seconds"].tolist() == pytest.approx([1.5, 1.5])
    assert found["low"].iloc[0] < 0.7 < found["high"].iloc[0]


def test_gaps_are_paired_by_seed():
    """Seeds differ a lot, and `b` is above `a` by the same in each: clear, though the models' own intervals overlap."""
    table = runs(a=[0.5, 0.6, 0.7], b=[0.55, 0.651, 0.749])
    found = seed_comparison.gaps(table, against="a").iloc[0]
    assert found["model"] == "b"
    assert found["gap"] == pytest.approx(0.05)
    assert found["clear"]
    own = seed_comparison.summary(table).set_index("model")
    assert own.loc["a", "high"] > own.loc["b", "low"]


def test_a_gap_that_changes_sides_from_seed_to_seed_is_not_clear():
    assert not seed_comparison.gaps(runs(a=[0.5, 0.6, 0.7], b=[0.6, 0.59, 0.71]), against="a")["clear"].any()


def test_gaps_against_a_model_that_is_not_there_are_refused_with_those_that_are():
    with pytest.raises(BadInput, match=r"no model 'c'.*a, b"):
        seed_comparison.gaps(runs(a=[0.5, 0.6], b=[0.5, 0.6]), against="c")


def test_the_names_of_recipes_say_what_is_frozen():
    names = [Recipe(policy, layers, 1, 1e-3).name for policy, layers in (("full", None), ("first_layers", 2))]
    assert names == ["all of it", "first 2 frozen"]


@pytest.fixture(scope="module")
def rows():
    return sources.load("mini_reviews")["train"]


@pytest.mark.parametrize("recipe", [Recipe("first_layers", 4, 1, 1e-3), Recipe("head", None, 1, 1e-2),
                                    Recipe("gradual", None, 1, 1e-3)], ids=lambda recipe: recipe.policy)  # fmt: skip
def test_equal_runs_of_a_contest_give_equal_answers(recipe, rows):
    contest = Contest(rows.select(range(100, 120)), model="tiny-distilbert", max_length=16, batch_size=8)
    first, second = (contest.run(recipe, rows.select(range(24)), seed=3, least_steps=4) for _ in range(2))
    pd.testing.assert_frame_equal(first.predictions, second.predictions)
    assert first.predictions["id"].tolist() == rows.select(range(100, 120))["id"][:]
    assert first.line()["trainable"] == first.plan.trainable
    assert first.seconds > 0


def test_features_of_the_test_rows_serve_every_run_of_a_contest(rows, monkeypatch):
    from ftlab.freezing import features

    sizes = []
    compute = features.compute
    monkeypatch.setattr(
        features, "compute", lambda model, plan, given, *more, **options: (
            sizes.append(len(given)) or compute(model, plan, given, *more, **options)
        )
    )  # fmt: skip
    contest = Contest(rows.select(range(100, 120)), model="tiny-distilbert", max_length=16, batch_size=8)
    for seed in (0, 1):
        contest.run(Recipe("head", None, 1, 1e-2), rows.select(range(24)), seed=seed, least_steps=2)
    assert sizes == [24, 20, 24]


def test_the_figures_draw_every_model_and_size():
    table = pd.concat([runs(a=[0.6, 0.8], b=[0.5, 0.5]), runs(a=[0.7, 0.8], b=[0.6, 0.5]).assign(rows=100)])
    baseline = pd.DataFrame([{"model": "TF-IDF", "rows": 10, "seed": seed, "f1_macro": 0.4} for seed in (0, 1)])
    summary = seed_comparison.summary(pd.concat([table, baseline]))
    figure = figures.score_by_seconds(summary)
    assert [axis.get_title() for axis in figure.axes] == ["10 training rows", "100 training rows"]
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"a", "b", "TF-IDF", "Pareto front"}
    figure = figures.score_by_rows(summary, summary.head(1))
    assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} == {"a", "b", "TF-IDF"}


def test_a_summary_has_the_interval_of_the_mean_and_the_wider_one_of_another_run():
    values = np.array([0.6, 0.65, 0.7, 0.72])
    line = seed_comparison.summary(runs(a=values)).iloc[0]
    assert (line["low"], line["high"]) == pytest.approx((over_seeds(values).low, over_seeds(values).high))
    assert (line["run_low"], line["run_high"]) == pytest.approx((another_run(values).low, another_run(values).high))
    assert line["run_low"] < line["low"] < line["high"] < line["run_high"]


def test_gaps_are_clear_only_among_all_lines_of_their_table():
    """Each line by itself has an interval without zero; among so many lines that is weak evidence."""
    one = {f"m{number}": [0.52, 0.53, 0.54 + number / 1e4] for number in range(12)}
    table = runs(a=[0.5, 0.505, 0.5], **one)
    alone = seed_comparison.gaps(table[table["model"].isin(["a", "m0"])], against="a").iloc[0]
    among = seed_comparison.gaps(table, against="a")
    assert alone["clear"]
    assert alone["p_holm"] == alone["p"]
    assert (among["low"] > 0).all()
    assert not among["clear"].any()
    assert among["p_holm"].min() == pytest.approx(12 * among["p"].min())


def test_of_tables_in_which_nothing_differs_few_have_a_line_that_is_called_clear():
    rng = np.random.default_rng(0)
    names = ["a", *(f"m{number}" for number in range(9))]
    found = [seed_comparison.gaps(runs(**dict(zip(names, rng.normal(0.7, 0.02, (10, 5)), strict=True))), against="a")
             for _ in range(60)]  # fmt: skip
    assert sum(table["clear"].any() for table in found) <= 6
    assert sum(((table["low"] > 0) | (table["high"] < 0)).any() for table in found) >= 10


def test_one_seed_makes_nothing_clear():
    found = seed_comparison.gaps(runs(a=[0.5], b=[0.9]), against="a").iloc[0]
    assert not found["clear"]
    assert np.isnan([found["low"], found["p"], found["p_holm"]]).all()


def test_a_model_alone_has_nothing_to_be_compared_with():
    with pytest.raises(BadInput, match="no model but 'a'"):
        seed_comparison.gaps(runs(a=[0.5, 0.6]), against="a")
