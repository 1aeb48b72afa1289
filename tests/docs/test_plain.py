"""The scripts without ftlab do as they say, keep to the lessons, and stand in the page as they are."""

import ast
import csv
import json
import re
import runpy
import sys

import pytest

from ftlab import files
from ftlab.course import bench, handout
from ftlab.errors import BadInput
from tests import modules

SCRIPTS = ("classification", "lora")


@pytest.fixture(scope="module")
def plain(repository):
    """The benchmark of the scripts."""
    return modules.load(repository / "benchmarks" / "plain.py")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The rows and models of the smoke profile."""
    return handout.write(tmp_path_factory.mktemp("plain") / "handout", profile="smoke")


@pytest.fixture
def run(repository, given, tmp_path, monkeypatch, capsys, one_thread):
    """Run a script as its reader does; what it printed, and the folder of its result."""

    def start(name):
        script = repository / "docs" / "plain" / f"{name}.py"
        paths = (script, given[name].weights, given[name].folder, tmp_path / "out")
        monkeypatch.setattr(sys, "argv", list(map(str, paths)))
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out, tmp_path / "out"

    return start


def source(repository, name):
    return (repository / "docs" / "plain" / f"{name}.py").read_text(encoding="utf-8")


def test_the_classifier_trains_and_its_saved_model_answers_with_names(run):
    said, out = run("classification")
    assert re.search(r"s of training, test accuracy 0\.\d{4}, macro F1 0\.\d{4}", said)
    assert re.search(r"'label': '(negative|positive)'", said)
    assert (out / "model.safetensors").is_file()
    assert (out / "tokenizer.json").is_file()
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["id2label"] == {
        "0": "negative",
        "1": "positive",
    }


def test_the_adapter_trains_is_merged_and_answers_as_before(run):
    said, out = run("lora")
    before, after = re.search(r"held-out loss (\d\.\d{4}) before, (\d\.\d{4}) after", said).groups()
    assert float(after) < float(before)
    assert (out / "adapter_model.safetensors").is_file()
    assert (out / "merged" / "model.safetensors").is_file()  # the script compares it with the adapter


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_imports_nothing_from_ftlab(repository, plain, name):
    text = source(repository, name)
    assert len(plain.code(text)) <= 50
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert not [module for module in imported if module.startswith("ftlab")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_without_its_paths_says_how_it_is_called(repository, name, monkeypatch):
    line = next(line for line in source(repository, name).splitlines() if line.startswith("MODEL, ROWS, OUT"))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "distilbert-base-uncased"])
    with pytest.raises(SystemExit, match=f"usage: {name}.py MODEL ROWS OUT"):
        exec(line, {"sys": sys})


def test_the_page_has_the_scripts_as_they_are(repository):
    page = (repository / "docs" / "without_ftlab.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks == [source(repository, name) for name in SCRIPTS], "copy docs/plain/*.py into docs/without_ftlab.md"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_settings_of_a_script_are_those_of_its_lesson(repository, name):
    """What the lessons' budgets name, and a script sets, is equal."""
    from ftlab.course import profiles

    budget = profiles.resolve(handout.LESSONS[name], "cpu", {})
    code = source(repository, name)
    names = {"num_train_epochs": "epochs", "per_device_train_batch_size": "batch_size", "r": "rank"}
    names |= {"lora_alpha": "alpha", "learning_rate": "", "weight_decay": "", "max_length": "", "MAX_LENGTH": ""}
    settings = re.findall(r"\b(\w+) ?= ?(\d[\d.]*(?:e-\d+)?)(?=[,)\s])", code)
    found = {names[key] or key.lower(): float(value) for key, value in settings if key in names}
    assert len(found) >= 5
    assert found == {key: float(budget.settings[key]) for key in found}


def test_the_handout_has_the_rows_of_the_lesson_and_a_library_reads_them_unchanged(given, tmp_path):
    """The lesson's own calls draw other ids only if the rows differ; `datasets` reads texts as they were written."""
    from datasets import load_dataset

    from ftlab.course import auto_budget, profiles

    for name, rows_of in (("classification", handout.classification_rows), ("lora", handout.instruction_rows)):
        budget = auto_budget.fitted(profiles.resolve(handout.LESSONS[name], "smoke", {"seed": 0}))
        kind, suffix, options = {
            "classification": ("csv", "csv", {"keep_default_na": False}), "lora": ("json", "jsonl", {}),
        }[name]  # fmt: skip
        for split, expected in rows_of(budget).items():
            path = str(given[name].folder / f"{split}.{suffix}")
            read = load_dataset(kind, data_files=path, split="train", cache_dir=str(tmp_path), **options)
            assert read.to_list() == expected.drop(columns="id").to_dict("records")


def test_texts_that_look_like_missing_values_or_hold_quotes_survive(tmp_path):
    import pandas as pd
    from datasets import load_dataset

    texts = ["NA", "null", 'she said "no", twice', "two\nlines", "naïve — ok", " spaces ", "1.0"]
    handout._write_rows(pd.DataFrame({"id": texts, "text": texts, "label": "x"}), tmp_path, "train")
    rows = load_dataset(
        "csv", data_files=str(tmp_path / "train.csv"), split="train", cache_dir=str(tmp_path), keep_default_na=False
    )
    assert list(rows["text"]) == texts
    with (tmp_path / "train.csv").open(encoding="utf-8", newline="") as lines:
        assert [row["text"] for row in csv.DictReader(lines)] == texts


def test_a_handout_is_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    assert handout.main([str(tmp_path / "full"), "--profile", "smoke"]) == 2
    assert re.fullmatch(r"ftlab: .*full is not empty.*choose a new folder\n", capsys.readouterr().err)
    assert handout.main([str(tmp_path / "new"), "--profile", "moon"]) == 2
    assert "moon" in capsys.readouterr().err

    def stop(budget):
        raise BadInput("no rows")

    monkeypatch.setattr(handout, "instruction_rows", stop)
    assert handout.main([str(tmp_path / "new"), "--profile", "smoke"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_handout_prints_the_commands(tmp_path, capsys):
    assert handout.main([str(tmp_path / "new"), "--profile", "smoke"]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"^  python docs.plain.(classification|lora)\.py .+ .+ .+$", said, flags=re.MULTILINE)) == 2


def test_the_stored_comparison_is_of_these_scripts_and_each_is_within_the_lessons_interval(repository, plain):
    stored = bench.stored("plain")["result"]
    for name, measured in (("classification", "accuracy"), ("lora", "loss_after")):
        assert stored[name]["script_sha256"] == plain.sha256(source(repository, name)), "run `ftlab bench plain --save`"
        assert plain.within(stored[name]["script"][measured], stored[name]["lesson"][measured])
    assert all(stored["bars"].values())


@pytest.mark.assets
def test_the_handout_of_today_has_the_rows_of_the_stored_comparison(tmp_path):
    stored = bench.stored("plain")["result"]
    for name, given in handout.write(tmp_path / "handout").items():
        hashes = {path.stem: files.sha256(path) for path in given.folder.iterdir()}
        assert hashes == stored[name]["rows_sha256"]
