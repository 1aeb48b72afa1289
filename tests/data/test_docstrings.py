"""Pairs from Python's docstrings: enough of them in any version, no module imported, and each answer once."""

import ast
import json
import platform
import re
import subprocess
import sys

import pandas as pd
import pytest

from ftlab import files
from ftlab.data import docstrings, duplicates, sources, tasks

# Prints the standard library's modules that are imported while the pairs are read, the first time in a process.
WATCH = """
import sys
import pandas as pd
from ftlab.data import docstrings, duplicates
duplicates.near_copies(["what the comparison itself imports", "no matter"])
pd.DataFrame([{"id": "a"}]).drop_duplicates("id").reset_index(drop=True).copy()
seen = []
sys.addaudithook(lambda event, given: seen.append(given[0].partition(".")[0]) if event == "import" else None)
assert len(docstrings.pairs())
print(",".join(sorted(set(seen) & sys.stdlib_module_names)))
"""


@pytest.fixture(scope="module")
def pairs():
    return docstrings.pairs()


@pytest.fixture(scope="module")
def used(pairs):
    """The call of each, by its id without "python-"."""
    return dict(zip(pairs["id"].str.removeprefix("python-"), pairs["input"], strict=True))


def test_there_are_enough_pairs_of_enough_modules(pairs):
    assert len(pairs) >= 1500
    assert pairs["module"].nunique() >= 100
    assert pairs["module"].value_counts(normalize=True).iloc[0] < 0.1


def test_no_module_is_imported_by_reading_its_docstrings():
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_ids_are_unique_and_instructions_too(pairs):
    assert pairs["id"].is_unique
    assert pairs["instruction"].is_unique
    assert not pairs.isna().any(axis=None)


def test_answers_are_within_their_bounds_and_prose_on_one_line(pairs):
    lengths = pairs["output"].str.len()
    assert lengths.between(docstrings.LEAST, docstrings.MOST).all()
    assert pairs["output"].str.match(r"[A-Z].*[.!?]$").all()
    assert not pairs["output"].str.contains(r"\n|  |>>>|::").any()


def test_no_two_answers_are_near_copies(pairs):
    """Modules repeat each other (`queue` and `asyncio.queues`): the answers of one would be in training and test."""
    assert len(set(duplicates.near_copies(pairs["output"].tolist()))) == len(pairs)


def test_what_is_private_a_test_or_left_out_does_not_stand_here(pairs):
    assert docstrings.LEFT_OUT.isdisjoint(pairs["module"])
    assert not pairs["id"].str.contains(r"[-.]_|\.tests?\.").any()


def test_the_modules_are_in_order_and_named_by_what_is_asked(pairs):
    assert pairs["module"].is_monotonic_increasing
    names = pairs["id"].str.removeprefix("python-")
    assert pairs["instruction"].tolist() == [f"What is `{name}` for?" for name in names]
    assert pairs["module"].tolist() == [name.partition(".")[0] for name in names]


def test_each_use_is_python_that_can_be_parsed(used):
    for name, use in used.items():
        said, bracket, arguments = use.partition("(")
        assert name.endswith(said.removeprefix("class "))
        if bracket:
            ast.parse(f"def used({arguments}: ...")


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("shutil.copy", "copy(src, dst, *, follow_symlinks=True)"),
        ("functools.total_ordering", "total_ordering(cls)"),
        ("inspect.Signature.bind", "Signature.bind(*args, **kwargs)"),
        ("threading.Thread.ident", "Thread.ident"),
        ("traceback.StackSummary.from_list", "StackSummary.from_list(a_list)"),
    ],
    ids=["a function", "a class as an argument", "nothing but a bound object", "a property", "a bound class"],
)
def test_it_is_used_as_python_s_manual_says(used, name, use):
    places = [
        place for place in used if place.split(".")[0] == name.split(".")[0] and place.endswith(use.split("(")[0])
    ]
    assert [used[place] for place in places] == [use]


@pytest.mark.parametrize(
    ("source", "name", "use"),
    [
        ("class A:\n @staticmethod\n def f(cls, x): ...", "A.f", "A.f(cls, x)"),
        ("class A:\n def f(selfish, x): ...", "A.f", "A.f(x)"),
        ("class A:\n def f(*given): ...", "A.f", "A.f(*given)"),
        ("class A:\n def __init__(self, x=1): ...", "A", "A(x=1)"),
        ("class A: ...", "A", "class A"),
        ("class A:\n @functools.cached_property\n def f(self): ...", "A.f", "A.f"),
        ("class A:\n @f.setter\n def f(self, value): ...", "A.f", "A.f"),
        ("@_SpecialForm\ndef Any(self, parameters): ...", "Any", "Any"),
        ("async def f(self, /, x): ...", "f", "f(self, /, x)"),
    ],
)
def test_the_object_itself_is_no_argument_and_a_property_is_not_called(source, name, use):
    assert {name: docstrings._call(name, node) for name, node in docstrings._public(ast.parse(source))}[name] == use


def test_of_a_name_that_is_defined_twice_the_first_is_taken(monkeypatch, tmp_path):
    source = '''
class Tap:
    @property
    def flow(self):
        """How much water comes out of it in a minute, in litres."""
    @flow.setter
    def flow(self, value):
        """Turn the tap until so many litres of water come out in a minute."""
'''
    path = tmp_path / "tap.py"
    path.write_text(source, encoding="utf-8")
    monkeypatch.setattr(docstrings, "_modules", lambda: [("tap", path)])
    table = docstrings._pairs.__wrapped__()
    assert table["output"].tolist() == ["How much water comes out of it in a minute, in litres."]


def test_a_table_that_was_changed_is_not_what_the_next_one_gets(pairs):
    mine = docstrings.pairs()
    mine["output"] = "changed"
    assert docstrings.pairs().equals(pairs)


def test_the_modules_are_those_of_this_python():
    modules = dict(docstrings._modules())
    assert {"json", "json.decoder", "shutil"} <= set(modules)
    assert modules["json"].samefile(sys.modules["json"].__file__)


SHIPPED = sources.ROWS / "python_docstrings.jsonl"
CARD = (sources.ROWS / "python_docstrings.md").read_text(encoding="utf-8")


def library() -> pd.DataFrame:
    """The rows that the task `tutor` has from the standard library, under the names of `docstrings.pairs`."""
    rows = tasks.read("tutor")
    rows = rows[rows["kind"] == "library"].rename(columns={"group": "module"})
    return rows[["id", "module", "instruction", "input", "output"]].reset_index(drop=True)


def test_the_rows_of_a_lesson_are_shipped_and_those_that_the_card_pins():
    assert files.sha256(SHIPPED) in CARD
    assert docstrings.MADE_WITH in CARD
    rows = [json.loads(line) for line in SHIPPED.read_text(encoding="ascii").split("\n")[:-1]]
    assert library().to_dict("records") == rows
    counted = re.match(r"# python_docstrings: (\d+) questions", CARD)
    assert int(counted[1]) == len(rows)
    assert f"{len({row['module'] for row in rows})} of them" in CARD


def test_the_rows_of_a_lesson_do_not_depend_on_the_python_that_runs(monkeypatch):
    before = tasks.read("tutor")

    def no_longer():
        raise AssertionError("the lesson reads the docstrings of the running Python")

    monkeypatch.setattr(docstrings, "pairs", no_longer)
    monkeypatch.setattr(docstrings, "_pairs", no_longer)
    assert tasks.read("tutor").equals(before)


def test_what_is_shipped_is_what_the_maker_makes(pairs):
    """The bytes are equal under the Python that made the file; under another version most rows are."""
    if platform.python_version() == docstrings.MADE_WITH:
        assert docstrings.as_lines(pairs).encode() == SHIPPED.read_bytes()
    shared = set(map(tuple, library().to_numpy())) & set(map(tuple, pairs.to_numpy()))
    assert len(shared) > 0.8 * len(pairs)


def test_the_licence_of_the_docstrings_stands_beside_them_with_its_notice():
    text = (sources.ROWS / "python_docstrings.LICENSE.txt").read_text(encoding="utf-8")
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in text
    assert "2023 Python Software Foundation;\nAll Rights Reserved" in text
    for said in ("Python Software Foundation License Version 2", "2001-2023 Python Software", "Changed from"):
        assert said in CARD


def test_the_record_of_a_run_says_where_the_docstrings_are_from():
    splits = tasks.load("tutor", rows=20, validation_rows=4, test_rows=4)
    origin = sources.provenance(splits.train)
    assert docstrings.MADE_WITH in origin.origin
    assert "PSF-2.0" in origin.licence
    assert origin.sha256 not in (files.sha256(SHIPPED), files.sha256(sources.ROWS / "tutor.jsonl"))  # of both
