"""What is typed or written beside the rows: parameters, names of files, YAML and JSON. It is data, and never code."""

import argparse
import json

import nbformat
import numpy as np
import pytest

from ftlab.commands.run import read_parameters
from ftlab.course.execution import execute
from ftlab.data import streams, tables
from ftlab.errors import BadInput
from ftlab.evaluation.rating import COLUMNS, Item, Sheet
from ftlab.models import model_files
from tests import windows
from tests.command_line import ftlab
from tests.hostile.payloads import FORMULAS, MARKUP, TEMPLATE, TERMINAL

CODE = "__import__('pathlib').Path({mark!r}).touch()"


@pytest.fixture
def mark(tmp_path):
    """A file that a payload would make; the test fails if it is there at its end."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


def given(**options):
    return read_parameters(argparse.Namespace(**{"file": [], "yaml": [], "parameter": [], **options}))


def test_a_value_stays_the_text_that_it_is(mark):
    code = CODE.format(mark=str(mark))
    for value in (code, f"a{code}'; {code}", TEMPLATE.replace("{{", "a{{"), "$(touch ran)"):
        assert given(parameter=[("dataset", value)])["dataset"] == value


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "!x y"])
def test_a_tag_of_yaml_makes_no_object(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.yaml").write_text(f"dataset: {text}", encoding="utf-8")
    for options in ({"yaml": [f"dataset: {text}"]}, {"file": [tmp_path / "more.yaml"]}):
        with pytest.raises(BadInput, match="is not YAML"):
            given(**options)
    assert given(parameter=[("dataset", text)]) == {"dataset": text}  # of -p it is the text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["rows", "epochs", "learning_rate", "max_length"])
def test_code_in_the_place_of_a_number_is_refused(capsys, mark, name):
    code, _, err = ftlab(
        capsys, "run", "02", "--profile", "smoke", "-p", name, CODE.format(mark=str(mark)), "--out", mark.parent / "out"
    )
    assert code == 2
    assert len(err) == 1
    assert not (mark.parent / "out").exists()


@pytest.mark.parametrize("name", ["rows = 1; import os", "__import__('os')", "seed\nimport os", "{}"])
def test_code_in_the_place_of_a_name_is_refused(capsys, name):
    code, _, err = ftlab(capsys, "run", "02", "--profile", "smoke", "-p", name, "1")
    assert code == 2
    assert "has no parameter" in err[0]


@pytest.mark.parametrize("strange", ["{}{0.__class__}", 'it\'s "quoted"', "$(touch ran) `touch ran`; %s"])
def test_a_parameter_reaches_a_cell_as_it_is(tmp_path, strange):
    """papermill writes parameters into code, and formats the paths of notebooks."""
    windows.require_name(strange)
    folder = tmp_path / strange
    folder.mkdir()
    cells = [
        nbformat.v4.new_code_cell("dataset = None", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import pathlib; pathlib.Path('said').write_text(repr(dataset))"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "P", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "a.ipynb")
    value = f"{strange}\n'''\"\"\"{TERMINAL}"
    execute(
        folder / "a.ipynb", folder / "b.ipynb", {"dataset": value}, settings={}, results=folder, failed=""
    )  # fmt: skip
    assert (folder / "said").read_text(encoding="utf-8") == repr(value)
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("name", ["{}.csv", "it's.csv", "$(touch ran).csv", "a\nb.csv", "{0.__class__}.csv", "%s.csv"])
def test_a_file_may_have_such_a_name(tmp_path, monkeypatch, name):
    windows.require_name(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("text,label\na,b\n", encoding="utf-8")
    assert tables.read_table(tmp_path / name, ["text"])["text"].tolist() == ["a"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ['{"a": ' + "[" * 100_000, '{"a": ' + "9" * 5_000 + "}", "[1]", "\x80", '"a"'])
def test_json_that_is_no_settings_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(BadInput):
        model_files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.parquet", "a.npy", "a.pkl", "a.joblib", "a.pickle", "a.xlsx", "a.py", "a.arrow"])
def test_a_pickle_is_no_file_of_rows(tmp_path, mark, name):
    import pickle

    from tests.hostile.payloads import Bomb

    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(BadInput):
        tables.read_table(tmp_path / name, [])


def test_a_form_for_a_spreadsheet_has_no_formula(tmp_path):
    sheet = Sheet(tuple(Item(f"{place}", text, text, "m") for place, text in enumerate(FORMULAS)), ("m", "n"))
    sheet.write_form(tmp_path / "form.csv")
    form = tables.read_table(tmp_path / "form.csv", list(COLUMNS))
    for text in [*form["prompt"], *form["answer"]]:
        assert not text.startswith(("=", "+", "-", "@", "\t", "\r", " ", "\uff1d"))


def test_formulas_among_predictions_are_told_and_kept(capsys, tmp_path, classifier_folder):
    rows = [{"text": text, "label": "-5.0"} for text in (*FORMULAS, MARKUP, "plain")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, _, err = ftlab(capsys, "predict", classifier_folder, tmp_path / "rows.jsonl", "--out", tmp_path / "out.csv")
    assert (
        f"{len(FORMULAS)} values begin as a formula does (=, +, -, @), which a spreadsheet may take for one" in err[-1]
    )
    assert tables.read_table(tmp_path / "out.csv", [])["text"].tolist() == [row["text"] for row in rows]
    _, _, err = ftlab(capsys, "predict", classifier_folder, tmp_path / "rows.jsonl", "--out", tmp_path / "out.jsonl")
    assert not err


def test_numbers_items_of_lists_and_phone_numbers_are_no_formulas():
    import pandas as pd

    plain = ["- a list item", "-\ta list item (the first)", "+49 170 123456", "+1 (555) 010-1234", "-1e5", "-3.5 %"]
    assert streams.formulas(pd.DataFrame({"a": plain})) == 0
    for text in ("- cmd|' /C calc'!A0", "- SUM(A1)", "+49 170+A1", "-1e5+A1", "-a list", "\tplain", "\r@SUM(1)"):
        assert streams.formulas(pd.DataFrame({"a": [text]})) == 1, text
    assert streams.formulas(pd.DataFrame({"a": ["-5", "+3.25", " -1,000 ", "-"], "b": [-1, -2.5, np.nan, None]})) == 0
