"""Starters are the solutions without their answers, and they run as they are."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from ftlab import files
from ftlab.course.execution import execute
from ftlab.errors import BadInput
from ftlab.exercises import authoring, checker, manifest, starters
from ftlab.exercises.outcomes import Answer, Outcome, Result, Status
from tests.nightly import few_by_day

STEPS = ("tokenize", "train", "conclusion")
LEVELS = tuple(manifest.levels().values())


def code(source: str, *tags: str, **more):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}, **more)


def todo(step: str, source: str, **more):
    return code(f"# TODO {step}\n{source}", "todo", f"step:{step}", **more)


def made(*cells):
    """The starter of a notebook with these cells."""
    return starters.starter(nbformat.v4.new_notebook(cells=list(cells)), STEPS)


def blanks(source: str, *later) -> str:
    """What stands in the starter under the comment of a todo cell, if these cells follow."""
    return made(todo("train", source), *later).cells[0].source.removeprefix("# TODO train\n")


@pytest.mark.parametrize(
    ("answer", "later", "left"),
    [
        ("model = load()\nscratch = 1", "print(model)", "model = ..."),
        ("a, (b, *c) = load()", "print(a, b, c)", "a, b, c = ..., ..., ..."),
        ("a, scratch, b = load()", "print(b, a)", "a, b = ..., ..."),
        ("a = b = load()", "print(a, b)", "a = ...\nb = ..."),
        ("steps: int = 3", "print(steps)", "steps = ..."),
        ("steps = 3\nsteps = steps * 2\nsteps += 1", "print(steps)", "steps = ..."),
        ("with open('x') as file:\n    text = file.read()", "print(text)", "text = ..."),
        ("if True:\n    low = 1\nelse:\n    low = 2", "print(low)", "low = ..."),
        ("model.train()\nmodel.config.x = 1\nnotes['a'] = 2", "print(model, notes)", "..."),
        ("import os\nfrom pathlib import Path", "print(1)", "..."),
        ("names = [row for row in table]", "print(1)", "..."),
        ("row = 1", "print([row for row in table])", "..."),  # another row
        ("row = 1", "for row in table:\n    print(row)", "..."),
        ("row = 1", "row = 2\nprint(row)", "..."),
        ("rows = 1", "def f():\n    return rows", "rows = ..."),
        ("rows = 1", "rows += 1", "rows = ..."),
        ("rows = 1", "names = [row for row in rows]", "rows = ..."),
    ],
)
def test_a_todo_cell_keeps_a_blank_for_each_name_that_a_later_cell_reads(answer, later, left):
    assert blanks(answer, code(later)) == left


@pytest.mark.parametrize(
    ("comment", "left"),
    [
        ("make `model`", "model = ..."),
        ("write `load`, and make `model`", "def load(): ...\n\n\nmodel = ..."),
        ("write `load()`", "def load(): ..."),
        ("load a model, `models`", "..."),
    ],
)
def test_what_no_given_cell_reads_has_a_blank_if_the_comment_names_it(comment, left):
    answer = todo("train", f"# {comment}\ndef load():\n    return 1\n\n\nmodel = load()")
    source = made(answer, todo("conclusion", "best = model.best")).cells[0].source
    assert source == f"# TODO train\n# {comment}\n{left}"


def test_a_name_that_a_given_cell_sets_anew_has_no_blank():
    assert blanks("rows = 1", code("rows = 2"), code("print(rows)")) == "..."


def test_a_name_that_a_given_function_above_reads_has_a_blank():
    starter = made(code("def show():\n    print(model)"), todo("train", "model = load()"))
    assert starter.cells[1].source == "# TODO train\nmodel = ..."


def test_functions_keep_signature_and_docstring_and_lose_their_body():
    answer = '''import torch
length = 3


@cached
def tokenize(rows: dict, *, length: int = 3, name="a") -> dict:
    """Tokenize `rows`.

    All of them.
    """
    # the answer
    return secret(rows)


def bare(
    rows,
):
    # the answer
    return secret(rows)


done = 1'''
    assert (
        blanks(answer, code("print(length, tokenize, bare, done)"))
        == '''length = ...


@cached
def tokenize(rows: dict, *, length: int = 3, name="a") -> dict:
    """Tokenize `rows`.

    All of them.
    """
    ...


def bare(
    rows,
): ...


done = ...'''
    )


def test_the_starter_has_the_whole_todo_comment_and_no_comment_of_the_answer():
    answer = "#\n# - one point\n#   and its end\nmodel = load()  # secret\n# TODO is no answer, either"
    assert blanks(answer, code("print(model)")) == "#\n# - one point\n#   and its end\nmodel = ..."


def test_what_is_for_the_solution_alone_is_left_out_and_the_rest_is_copied():
    output = nbformat.v4.new_output("stream", text="1\n")
    cells = [
        nbformat.v4.new_markdown_cell("# Level", id="title"),
        nbformat.v4.new_markdown_cell("The answer", metadata={"tags": ["solution-only"]}),
        code("print(0)", "solution-only"),
        todo("train", "model = load()", id="train", execution_count=3),
        code("print(model)", "keep", id="shown", execution_count=4, outputs=[output]),
    ]
    starter = made(*cells)
    assert [cell.id for cell in starter.cells] == ["title", "train", "shown"]
    assert starter.cells[0].source == "# Level"
    assert starter.cells[1].metadata.tags == ["todo", "step:train"]
    assert (starter.cells[2].source, starter.cells[2].metadata.tags) == ("print(model)", ["keep"])
    assert [(cell.execution_count, cell.outputs) for cell in starter.cells[1:]] == [(None, []), (None, [])]
    assert cells[4].outputs == [output]  # the solution itself is as it was


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([todo("sleep", "x = 1")], r"has the steps \['sleep'\]; expected .* of tokenize, train, conclusion"),
        ([code("# TODO\nx = 1", "todo")], r"has the steps \[\]"),
        ([todo("train", "x = 1"), todo("train", "y = 1")], "two cells are tagged step:train"),
        ([code("x = 1", "todo", "step:train")], r"begins with \['x = 1'\]; expected a comment"),
        ([todo("train", "x = = 1")], "the line 'x = = 1' is no Python"),
        ([todo("train", "import torch"), code("torch.zeros(1)")], "needs torch, which only a todo cell imports"),
        (
            [todo("train", "from typing import Any\ndef f(x: Any):\n    return x"), code("f(1)")],
            "needs Any, which only a todo cell",
        ),
    ],
)
def test_a_solution_that_cannot_become_a_starter_is_refused_in_one_sentence(cells, message):
    with pytest.raises(BadInput, match=message):
        made(*cells)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder of exercises with a made solution of each level, its steps in order."""
    folder = tmp_path / "exercises"
    (folder / "solutions").mkdir(parents=True)
    for level in LEVELS:
        cells = [todo(step, f"{step.replace('-', '_')} = secret()", id=step) for step in level.steps]
        cells.append(code(f"print({', '.join(level.steps)})".replace("-", "_"), id="last"))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "solutions" / f"{level.notebook}.ipynb")
    monkeypatch.setattr(starters, "exercises_folder", lambda: folder)
    return folder


def test_starters_are_written_for_each_level_and_compared_to_the_byte(course):
    names = [f"{level.notebook}.ipynb" for level in LEVELS]
    assert starters.compare() == names
    assert [path.name for path in starters.write_starters()] == names
    assert starters.compare() == []
    before = (course / names[0]).read_bytes()
    (course / names[0]).write_bytes(before.replace(b"...", b"1"))
    assert starters.compare() == names[:1]
    starters.write_starters()
    assert (course / names[0]).read_bytes() == before


def test_nothing_is_written_if_one_solution_is_wrong(course):
    last = course / "solutions" / f"{LEVELS[-1].notebook}.ipynb"
    last.write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match="is no notebook"):
        starters.write_starters()
    last.unlink()
    with pytest.raises(BadInput, match="there is no solution of level3"):
        starters.write_starters()
    assert [path.name for path in course.iterdir()] == ["solutions"]


def test_the_solution_of_each_step_is_code_without_its_comment(course):
    level = LEVELS[0]
    assert starters.solution_cells(level) == {step: f"{step} = secret()" for step in level.steps}


def test_the_exercises_are_found_in_the_current_folder_and_in_the_one_above(course, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(starters, "__file__", str(course / "no" / "such" / "package.py"))
    for folder in (course.parent, course):
        monkeypatch.chdir(folder)
        assert starters.exercises_folder() == course
    monkeypatch.chdir(course / "solutions")
    with pytest.raises(BadInput, match="there is no folder exercises/solutions"):
        starters.exercises_folder()


ASK = {
    "cells": "profile = 'cpu'",
    "record": "import json, os\nfrom pathlib import Path\nfolder = Path(os.environ['FTLAB_WORK_FOLDER']) / {level!r}\n"
    "folder.mkdir(parents=True)\n(folder / 'attempt.json').write_text(json.dumps({{'level': {level!r}, 'format': 1, "
    "'profile': profile, 'model': 'tiny-distilbert', 'dataset': 'mini_reviews'}}))",
}


def test_authoring_runs_every_level_whatever_the_others_do_and_says_so_in_a_line(course, tmp_path, capsys):
    """Made notebooks: the first stops, the second hands in nothing but its name."""
    for level, last in zip(LEVELS, ("1 / 0", ASK["record"].format(level="level2"), "print(profile)"), strict=True):
        cells = [code(ASK["cells"], "parameters", id="parameters"), code(last, id="last")]
        cells += [code("# TODO\nx = 1", "todo", f"step:{step}", id=step) for step in level.steps]
        metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
        path = course / "solutions" / f"{level.notebook}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    before = {path.name: path.read_bytes() for path in (course / "solutions").iterdir()}
    assert not authoring.author(LEVELS, profile="smoke", work=tmp_path / "work")
    first, second, third = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("level") and ":" in line
    )
    assert first.startswith("level1_classifier: STOPPED: level1_classifier stopped with ZeroDivisionError")
    assert second.startswith("level2_freezing: run ")
    assert "NOT STARTED" in second
    assert "NOT STARTED" in third
    assert {path.name: path.read_bytes() for path in (course / "solutions").iterdir()} == before  # a rehearsal


@pytest.mark.parametrize(
    ("status", "profile", "stored", "holds"),
    [
        (Status.PASS, "cpu", True, True),
        (Status.WARN, "cpu", True, True),
        (Status.FIX, "cpu", False, False),
        (Status.NOT_CHECKED, "cpu", False, False),
        (Status.NOT_STARTED, "cpu", True, False),  # a person has not rated yet
        (Status.PASS, "smoke", False, True),
        (Status.FIX, "smoke", False, False),
    ],
)
def test_outputs_are_stored_from_the_cpu_profile_unless_a_rule_asks_for_a_correction(
    course, tmp_path, monkeypatch, capsys, status, profile, stored, holds
):
    level = LEVELS[0]
    statuses = [status, *[Status.PASS] * (len(level.rules) - 1)]
    outcomes = [Outcome(rule, Answer(one, "", "", "")) for rule, one in zip(level.rules, statuses, strict=True)]

    def attempt(level, work, *, profile):
        executed = nbformat.v4.new_notebook(cells=[code("1", outputs=[nbformat.v4.new_output("stream", text="1")])])
        nbformat.write(executed, work / f"{level.notebook}.ipynb")
        return authoring.Attempt(level, 2.0, Result(level, work / level.name, profile, tuple(outcomes), 1.0))

    monkeypatch.setattr(authoring, "attempt", attempt)
    assert authoring.author([level], profile=profile, work=tmp_path / "work") == holds
    assert "level1_classifier: run 2 s, check 1 s; " in capsys.readouterr().out
    kept = nbformat.read(starters.solution_file(level), as_version=4)
    assert any(cell.get("outputs") for cell in kept.cells) == stored
    assert (course / f"{level.notebook}.ipynb").is_file()


def test_solutions_are_run_by_one_process_at_a_time(course, tmp_path):
    lock = files.acquire_lock(tmp_path / authoring.LOCK)
    with pytest.raises(BadInput, match=r"the solutions are being run in .* wait until that has ended"):
        authoring.author(LEVELS, work=tmp_path)
    files.release_lock(lock)
    assert [path.name for path in course.iterdir()] == ["solutions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["level9"], "there is no level 'level9'; there are level1, level2, level3"),
        (["--profile", "large"], "level1 has no profile 'large'; it has smoke, cpu, gpu"),
    ],
)
def test_authoring_refuses_a_wrong_question_in_one_sentence(capsys, arguments, message):
    assert authoring.main(arguments) == 2
    assert capsys.readouterr() == ("", f"ftlab: {message}\n")


def test_the_ratings_of_a_person_are_kept_whole_and_never_lost(course, tmp_path):
    form, kept = tmp_path / "ratings.csv", course / "solutions" / "level3_ratings.csv"
    authoring.keep_ratings(form)
    form.write_text("item,rating\n1,\n2,\n", encoding="utf-8")
    authoring.keep_ratings(form)
    assert authoring.missing_ratings(form) == ["1", "2"]
    form.write_text("item,rating\n1,4\n2,\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no rating of the answers 2, and this run would lose the others"):
        authoring.keep_ratings(form)
    assert not kept.exists()
    form.write_text("item,rating\n1,4\n2,5\n", encoding="utf-8")
    authoring.keep_ratings(form)
    assert kept.read_text(encoding="utf-8") == form.read_text(encoding="utf-8")


# The notebooks of the course


@pytest.fixture(params=LEVELS, ids=lambda level: level.name)
def level(request):
    return request.param


@pytest.fixture
def starter_file(level, repository) -> Path:
    return repository / "exercises" / f"{level.notebook}.ipynb"


def todo_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if "todo" in cell.metadata.get("tags", [])]


def test_the_starter_is_what_its_solution_makes_of_it(level):
    assert starters.compare([level]) == []


def test_the_starter_has_a_todo_for_each_step_in_order_and_no_line_of_an_answer(level, starter_file):
    cells = todo_cells(starter_file)
    named = [tag for cell in cells for tag in cell.metadata.tags if tag.startswith("step:")]
    assert named == [f"step:{step}" for step in level.steps]
    answers = starters.solution_cells(level)
    for step, cell in zip(level.steps, cells, strict=True):
        assert cell.source.startswith("# TODO")
        assert not statements(answers[step]) & statements(cell.source), cell.source


def statements(source: str) -> set[str]:
    """The statements of a cell, without those that a learner is given: `...` and the head of a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef):
            found.add(ast.unparse(node))
    docstrings = {node for node in found if node.startswith(("'", '"'))}
    return found - docstrings - {"..."}


def test_every_file_of_the_exercises_is_one_that_belongs_there(repository):
    notebooks = {f"{level.notebook}.ipynb" for level in LEVELS}
    found = {path.relative_to(repository / "exercises").as_posix() for path in (repository / "exercises").rglob("*")}
    found = {name for name in found if not re.search(r"__pycache__|\.ipynb_checkpoints|\.ruff_cache", name)}
    needed = {"README.md", "ruff.toml", "solutions", *notebooks, *(f"solutions/{name}" for name in notebooks)}
    needed |= {f"solutions/level3_{name}" for name in ("rows.jsonl", "prompts.jsonl", "rows.md")}
    assert needed <= found
    assert found <= needed | {"solutions/level3_ratings.csv"}


@pytest.mark.slow
@pytest.mark.parametrize("level", few_by_day(LEVELS, LEVELS[1]), ids=lambda level: level.name)
def test_the_untouched_starter_runs_to_its_end_and_hands_in_nothing(level, starter_file, tmp_path):
    settings = {"FTLAB_WORK_FOLDER": str(tmp_path / "work")}
    execute(
        starter_file, tmp_path / "executed.ipynb", {"profile": "smoke"}, settings=settings, results=tmp_path,
        failed="",
    )  # fmt: skip
    assert not (tmp_path / "work").exists()
    result = checker.check(level, tmp_path / "work" / level.name)
    assert result.state.startswith("NOT STARTED")
    assert result.exit_code == 3


@pytest.mark.slow
@pytest.mark.parametrize("level", few_by_day(LEVELS, LEVELS[0], LEVELS[2]), ids=lambda level: level.name)
def test_the_solution_rehearses_in_smoke_and_completes_no_level(level, tmp_path):
    done = authoring.attempt(level, tmp_path / "work", profile="smoke")
    assert {
        one.rule.id: one.answer for one in done.result.outcomes if one.status not in (Status.PASS, Status.WARN)
    } == {}
    assert done.result.state.startswith("REHEARSAL")
    assert not done.result.done


def test_stored_outputs_name_no_folder_of_a_machine(repository):
    for path in (repository / "exercises").rglob("*.ipynb"):
        outputs = [cell.get("outputs", []) for cell in nbformat.read(path, as_version=4).cells]
        said = nbformat.v4.new_output("stream", text=str(outputs))["text"]
        assert not re.search(r"/(work|home|root|tmp|Users)/\w", said), path
