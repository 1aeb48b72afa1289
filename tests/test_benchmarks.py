"""What a benchmark compares is compared on rows with one use each: none chooses and judges, none is in two seeds."""

import importlib.util
import json
import math
import sys

import pandas as pd
import pytest
from datasets import concatenate_datasets

from ftlab import files
from ftlab.course import profiles
from ftlab.data import few_shot, prompts, sources
from ftlab.evaluation import answers


@pytest.fixture
def benchmark(repository, monkeypatch):
    """A module of benchmarks/, by its name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", repository / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def freezing_scores(benchmark, monkeypatch):
    """The benchmark of what to freeze, on rows that are shipped."""
    module = benchmark("freezing_scores")
    small = {"DATASET": "mini_reviews", "SIZES": (12, 6), "TEST_ROWS": 50, "VALIDATION_ROWS": 20, "CHOOSING_ROWS": 16}
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_every_use_of_a_row_in_what_to_freeze_is_its_only_one(freezing_scores):
    rows = freezing_scores.draw()
    freezing_scores.require_apart(rows.uses)
    assert [len(part) for part in rows.uses.values()] == [16, 20, *[12] * 5, *[10] * 5]
    ids = [row for part in rows.uses.values() for row in part["id"]]
    assert len(ids) == len(set(ids))
    assert all(sum(part["label"]) == len(part) / 2 for part in rows.uses.values())
    assert rows.test[0]["id"] == freezing_scores.draw().test[0]["id"]  # in each process the same


def test_a_row_with_two_uses_stops_what_to_freeze_and_so_does_its_near_copy(freezing_scores):
    uses = freezing_scores.draw().uses
    again = uses["test, seed 2"].select([3])
    with pytest.raises(AssertionError, match=r"the row .* has '.*' and '.*' for its uses"):
        freezing_scores.require_apart({**uses, "again": again})
    longest = max(uses["to choose by, validation"], key=lambda row: len(row["text"]))
    near = again.map(lambda row: {"id": "near", "text": longest["text"] + " indeed", "label": row["label"]})
    with pytest.raises(AssertionError, match="the cluster of near-copies"):
        freezing_scores.require_apart({**uses, "near": near})
    within = concatenate_datasets([uses["test, seed 2"], near.map(lambda row: {"text": again[0]["text"] + " indeed"})])
    freezing_scores.require_apart({**uses, "test, seed 2": within})


def test_a_smaller_test_split_of_the_same_seed_is_a_part_of_a_larger_one():
    """So the test rows of the lessons, of which there are fewer, choose nothing in the benchmark either."""
    from ftlab.data.splits import split

    for seed in range(3):
        small, large = (
            split(sources.load("mini_reviews"), rows=None, validation_rows=20, test_rows=size, seed=seed)
            for size in (14, 60)
        )
        assert set(small.open_test("x")["id"]) <= set(large.open_test("x")["id"])


@pytest.mark.parametrize("task", ["tutor", "clinical_notes"])
def test_a_row_that_chooses_a_rate_of_an_adapter_judges_none(benchmark, task):
    sweep = benchmark("lora_sweep")
    choosing = sweep.draw(task, sweep.CHOOSING_SEED)
    used = {*choosing.train["id"], *choosing.validation["id"]}
    assert len(choosing.validation) == sweep.CHOOSING_ROWS
    for seed in sweep.SEEDS:
        assert not used & {*sweep.draw(task, seed).open_test("to see that none of its rows chose anything")["id"]}


def tried_by_the_sweep(sweep, monkeypatch, best: float) -> dict:
    """The sweep's choice for full fine-tuning, where the loss is lowest at `best`."""

    def alone(script, task, targets, rank, seed, rate):
        return {"task": task, "targets": targets, "learning_rate": rate, "loss_change": abs(math.log(rate / best))}

    monkeypatch.setattr(sweep, "alone", alone)
    runs = sweep.try_rates("tutor", sweep.FULL)
    found = sweep.choice(runs)
    assert found["tried"] == [run["learning_rate"] for run in runs]
    return found


def test_the_sweep_tries_rates_beyond_an_edge_that_is_the_best(benchmark, monkeypatch):
    sweep = benchmark("lora_sweep")
    inside = tried_by_the_sweep(sweep, monkeypatch, best=1e-4)
    assert (inside["learning_rate"], inside["on_edge"], len(inside["tried"])) == (1e-4, False, 4)
    below = tried_by_the_sweep(sweep, monkeypatch, best=2e-5)
    assert (below["learning_rate"], below["on_edge"]) == (2.5e-5, False)
    assert min(below["tried"]) == 1.25e-5


def test_a_rate_that_is_best_on_an_edge_after_all_tries_is_said_to_be(benchmark, monkeypatch):
    sweep = benchmark("lora_sweep")
    found = tried_by_the_sweep(sweep, monkeypatch, best=1.0)
    assert len(found["tried"]) == sweep.MOST_RATES
    assert found["on_edge"]
    assert found["learning_rate"] == max(found["tried"])


@pytest.mark.parametrize("task", ["clinical_notes", "tutor"])
def test_a_test_row_of_the_few_shot_prompts_is_in_none_of_them_and_chooses_none(benchmark, task):
    shots = benchmark("few_shot")
    splits = shots.splits_of(task)
    judges = set(splits.open_test("x")["id"])
    assert len(splits.validation) == shots.VALIDATION_ROWS[task]
    assert not judges & {*splits.validation["id"], *splits.train["id"]}
    for _, k, draw in shots.ways(task):
        assert len(few_shot.draw(splits.train, k, draw)) == k
    assert set(shots.TEMPLATES) == set(prompts.TEMPLATES)


def test_all_few_shot_prompts_are_tried_and_the_shortest_of_the_best_is_chosen(benchmark):
    shots = benchmark("few_shot")
    assert shots.ways("clinical_notes")[:5] == [
        ("alpaca", 0, 0),
        *(("alpaca", 1, draw) for draw in (0, 1, 2)),
        ("alpaca", 3, 0),
    ]
    assert len(shots.ways("clinical_notes")) == len(set(shots.ways("clinical_notes"))) == 2 * (1 + 3 * 3)

    def line(k, draw, score, template="alpaca"):
        return {"template": template, "examples": k, "draw": draw, "score": score}

    tried = [line(0, 0, 0.1), line(6, 0, 0.5), line(3, 2, 0.5), line(3, 1, 0.5), line(6, 1, 0.9, "chat")]
    assert shots.choice(tried, "alpaca") == line(3, 1, 0.5)
    assert shots.choice(tried, "chat") == line(6, 1, 0.9, "chat")


def test_a_tuned_model_is_compared_with_a_prompt_row_by_row(benchmark):
    shots = benchmark("few_shot")
    said = pd.DataFrame({"id": list("abcdef"), "answer": ["x"] * 6, "output": ["x"] * 6})
    tuned = answers.measured(said, ["exact match", "rouge-l"])
    shown = answers.measured(said.assign(answer=["x", "y", "y", "y", "y", "y"]), ["exact match", "rouge-l"])
    exact, overlap = (shots.compared(tuned, shown, name) for name in ("exact match", "rouge-l"))
    assert exact["difference"] == pytest.approx(5 / 6)
    assert exact["low"] < exact["difference"] <= exact["high"]
    assert exact["p_value"] == pytest.approx(2 / 2**5)
    assert overlap["difference"] == pytest.approx(5 / 6)
    assert overlap["p_value"] is None


@pytest.mark.usefixtures("one_thread")
def test_the_few_shot_benchmark_measures_prompts_training_and_where_they_break_even(benchmark, monkeypatch):
    shots = benchmark("few_shot")
    small = {"model": "tiny-llama", "rows": 12, "test_rows": 6, "max_new_tokens": 4, "epochs": 1, "max_length": 256}
    resolve = profiles.resolve
    monkeypatch.setattr(profiles, "resolve", lambda *given: resolve(*given[:2], {**given[2], **small}))
    for name, value in {
        "EXAMPLES": {"clinical_notes": (0, 2)},
        "DRAWS": {"clinical_notes": (0, 1)},
        "VALIDATION_ROWS": {"clinical_notes": 6},
    }.items():
        monkeypatch.setattr(shots, name, value)
    found = shots._run("clinical_notes")
    tried = [(line["template"], line["examples"], line["draw"]) for line in found["choosing"]]
    assert tried == [*shots.ways("clinical_notes"), ("tuned", 0, 0)]
    assert [line["template"] for line in found["tests"]] == ["alpaca", "chat", "tuned"]
    chosen, (alpaca, chat) = found["tests"][0], found["comparisons"]
    assert chosen["rows"] == 6
    assert chosen["seconds"] > 0
    saved = chosen["seconds"] - found["tests"][2]["seconds"]
    wanted = alpaca["training_seconds"] / saved if saved > 0 else math.inf
    assert alpaca["questions"] == pytest.approx(wanted)
    assert chat["metric"] == "exact match"
    assert json.loads(files.to_json(found))["task"] == "clinical_notes"


def test_each_mistake_that_is_put_into_the_code_is_one_place_of_a_function(benchmark):
    suite = benchmark("suite")
    source = (
        'MOST = 3 > 2\n\ndef wide(word: str) -> bool:\n    """Whether a word is wide."""\n'
        '    if word == "é": raise ValueError(f"{word == MOST} is ü")\n    return len(word) > MOST\n'
    )
    made = list(suite.possible(source, "ftlab/words.py"))
    texts = {mutant.applied(source.encode()).decode() for mutant in made}
    assert texts == {
        source.replace('word == "é"', "(word != 'é')"),
        source.replace("len(word) > MOST", "(len(word) <= MOST)"),
        source.replace("return len(word) > MOST", "pass"),
        source.replace('raise ValueError(f"{word == MOST} is ü")', "pass"),
    }
    assert {mutant.kind for mutant in made} == {"flipped", "dropped"}


def write_signs(folder, source: str, test: str) -> None:
    """A package with one module, and its test."""
    for name, text in (("ftlab/signs.py", source), ("tests/test_signs.py", test), ("tests/__init__.py", "")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.night
def test_a_mistake_is_noticed_by_the_tests_that_run_its_line_or_survives_them(benchmark, tmp_path):
    """On a package of one function; the tests know one of its two lines."""
    suite = benchmark("suite")
    source = "def sign(number):\n    if number > 0:\n        return 1\n    return -1 if number < 0 else 0\n"
    test = "from ftlab.signs import sign\n\n\ndef test_sign():\n    assert sign(2) == 1\n    sign(-2)\n"
    write_signs(tmp_path, source, test)
    found = {}
    for mutant in suite.possible(source, "ftlab/signs.py"):
        result = suite.outcome(mutant, tmp_path, {("ftlab/signs.py", 2): {"tests/test_signs.py::test_sign"}}, {
            "tests/test_signs.py::test_sign": 0.01})  # fmt: skip
        found[mutant.before] = (result["outcome"], result["tests"], result["noticed_by"])
    by = "tests/test_signs.py::test_sign"
    assert found == {
        "number > 0": ("noticed", 1, by),
        "return 1": ("noticed", 1, by),
        "return -1 if number < 0 else 0": ("survived", 1, ""),
        "number < 0": ("survived", 1, ""),
    }
    assert (tmp_path / "ftlab" / "signs.py").read_text(encoding="utf-8") == source


def test_a_mistake_that_is_noticed_by_a_test_which_fails_without_it_too_is_not_counted(benchmark, tmp_path):
    suite = benchmark("suite")
    source = "def sign(number):\n    return number > 0\n"
    write_signs(
        tmp_path, source,
        "import pytest\nfrom ftlab.signs import sign\n\n\n@pytest.mark.parametrize('number', ['a - b', 2])\n"
        "def test_sign(number):\n    assert sign(number)\n",
    )  # fmt: skip
    test = "tests/test_signs.py::test_sign"
    (flipped, *_) = suite.possible(source, "ftlab/signs.py")
    result = suite.outcome(flipped, tmp_path, {("ftlab/signs.py", 2): {test}}, {test: 0.01})
    assert result["outcome"] == "unsure"
    assert "unsure" not in suite.COUNTED
