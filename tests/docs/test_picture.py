"""README's picture shows what is stored."""

import json
import shutil

import pytest
from PIL import Image

from ftlab.course import bench

ANSWERS = {
    f"{model}_{measure}{end}": value
    for model, base in (("base", 0.1), ("tuned", 0.8))
    for measure in ("exact match", "stopped")
    for end, value in (("", base), ("_low", base - 0.05), ("_high", base + 0.05))
}


@pytest.fixture
def picture(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "docs"))
    import picture

    return picture


@pytest.fixture
def stored(picture, tmp_path, monkeypatch):
    """A first run whose lesson 04 measured what is given."""
    folder = tmp_path / "results"
    shutil.copytree(bench.results_folder(), folder)
    monkeypatch.setattr(bench, "results_folder", lambda: folder)

    def store(metrics):
        path = folder / "first_run.json"
        first_run = json.loads(path.read_text(encoding="utf-8"))
        first_run["result"]["lessons"][picture.LESSON]["metrics"] = metrics
        path.write_text(json.dumps(first_run), encoding="utf-8")

    return store


def test_the_curve_is_that_of_the_stored_benchmark(picture):
    runs = bench.stored("learning_curve")["result"]["rotten_tomatoes"]["runs"]
    plotted = picture.curve().set_index(["model", "rows"])
    assert len(plotted) == len({(run["model"], run["rows"]) for run in runs})
    for (model, rows), line in plotted.iterrows():
        scores = [run["accuracy"] for run in runs if (run["model"], run["rows"]) == (model, rows)]
        assert line["mean"] == pytest.approx(sum(scores) / len(scores))
        assert (line["min"], line["max"]) == (min(scores), max(scores))


def test_the_figure_draws_the_numbers_of_its_tables(picture, stored):
    import matplotlib.pyplot as plt

    stored(ANSWERS)
    curve, answers = picture.curve(), picture.before_and_after()
    figure = picture.draw(curve, answers)
    left, right = figure.axes
    drawn = {tuple(round(y, 6) for y in line.get_ydata()) for line in left.lines}
    for _, line in curve.groupby("model"):
        assert tuple(round(100 * mean, 6) for mean in line["mean"]) in drawn
    heights = [bar.get_height() for bar in right.patches]
    assert heights == pytest.approx([10, 10, 80, 80])
    for axis in (left, right):
        assert axis.get_ylabel()
        assert axis.get_title()
    assert left.get_xlabel()
    plt.close(figure)


def test_the_picture_is_drawn_anew_only_for_other_numbers(picture, stored, tmp_path):
    file = tmp_path / "results.png"
    stored(ANSWERS)
    assert picture.write(file)
    assert not picture.write(file)
    stored(ANSWERS | {"tuned_stopped": 0.81})
    assert picture.write(file)
    with Image.open(file) as image:
        assert image.width >= 1200
    assert file.stat().st_size < 150_000


@pytest.mark.parametrize("missing", ["tuned_stopped", "base_exact match_low"])
def test_a_number_that_was_not_measured_is_refused_by_its_name(picture, stored, missing):
    stored({name: value for name, value in ANSWERS.items() if name != missing})
    with pytest.raises(ValueError, match=missing.removesuffix("_low")):
        picture.write()


def test_the_picture_in_the_repository_shows_what_is_stored(picture):
    stamp = picture.hash_of(picture.curve(), picture.before_and_after())
    assert picture.drawn_from() == stamp, "docs/results.png is stale: run docs/generated.py"
    assert picture.FILE.stat().st_size < 150_000
