"""`ftlab check`, called as a person calls it."""

import json

import pytest

from ftlab.exercises import manifest
from tests.command_line import ftlab


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    """A folder with nothing in it, and no other work folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FTLAB_WORK_FOLDER", raising=False)
    return tmp_path


def begun(folder, level: str = "level3"):
    """A work folder with the beginning of a try: for level 3, two rows of instructions."""
    folder.mkdir(parents=True)
    attempt = {"level": level, "format": 1, "profile": "smoke", "model": "tiny-gpt2"}
    (folder / "attempt.json").write_text(json.dumps(attempt), encoding="utf-8")
    if level == "level3":
        rows = [{"id": f"row-{n}", "instruction": f"Say {n}.", "input": "", "output": f"{n}"} for n in (1, 2)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("name", ["level1", "2", "level3"])
def test_a_level_that_was_not_begun_is_not_started(capsys, somewhere, name):
    code, out, _ = ftlab(capsys, "check", name)
    level = manifest.level(name)
    assert code == 3
    assert out.splitlines() == [
        level.title,
        f"NOT STARTED: nothing is recorded in {somewhere / 'work' / level.name}; work through the notebook "
        f"{level.notebook}",
    ]
    assert list(somewhere.iterdir()) == []


def test_an_empty_folder_is_not_started_either(capsys, somewhere):
    (somewhere / "mine").mkdir()
    assert ftlab(capsys, "check", "1", "--work", "mine")[0] == 3
    assert ftlab(capsys, "check", "1", "--work", "nowhere")[0] == 3


def test_the_default_is_work_level_beside_the_exercises_and_a_variable_may_name_another(capsys, somewhere, monkeypatch):
    begun(somewhere / "work" / "level3")
    (somewhere / "exercises").mkdir()
    for folder in (somewhere, somewhere / "exercises"):
        monkeypatch.chdir(folder)
        assert ftlab(capsys, "check", "level3")[0] == 1
    monkeypatch.setenv("FTLAB_WORK_FOLDER", str(somewhere / "elsewhere"))
    assert ftlab(capsys, "check", "level3")[0] == 3


def test_a_level_that_was_begun_shows_each_rule_and_is_not_done(capsys, somewhere):
    begun(somewhere / "mine")
    code, out, _ = ftlab(capsys, "check", "level3", "--work", "mine")
    assert code == 1
    assert "FIX enough: 50 rows at least" in out
    assert all(f" {rule.id} " in out for rule in manifest.level("level3").rules)


def test_json_is_one_object_and_nothing_else(capsys, somewhere):
    begun(somewhere / "mine")
    for folder, exit_code in (("mine", 1), ("nowhere", 3)):
        code, out, _ = ftlab(capsys, "check", "level3", "--work", folder, "--json")
        found = json.loads(out)
        assert (code, out.count("\n"), found["level"], found["done"]) == (exit_code, 1, "level3", False)
        assert [rule["id"] for rule in found["rules"]] == [rule.id for rule in manifest.level("level3").rules]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["level9"], "there is no level 'level9'; there are level1, level2, level3"),
        (["4"], "there is no level '4'"),
        (["level1", "--work", "level2"], "holds a try of level2, and you asked about level1"),
        (["level1", "--work", "file"], "file is a file; give the folder that the notebook recorded into"),
        (["level1", "--work", "other"], "has no attempt.json"),
        (["level1", "--work", "x" * 300], "cannot be looked at"),
        ([], "LEVEL"),
    ],
)
def test_a_wrong_question_is_one_sentence_and_exit_code_2(capsys, somewhere, arguments, message):
    begun(somewhere / "level2", "level2")
    (somewhere / "file").write_text("", encoding="utf-8")
    (somewhere / "other").mkdir()
    (somewhere / "other" / "notes.txt").write_text("", encoding="utf-8")
    code, out, err = ftlab(capsys, "check", *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
