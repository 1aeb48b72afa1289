"""The notebook's side of an exercise: begin, check, hint and solution."""

import json
from pathlib import Path

import pytest

from ftlab.errors import BadInput
from ftlab.exercises import checker, manifest
from ftlab.exercises.exercise import WORK, begin, work_folder


@pytest.fixture
def level1(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_WORK_FOLDER", str(tmp_path / "work"))
    return begin("level1", {"profile": "smoke", "seed": 3, "dataset": None})


def test_nothing_recorded_is_not_started(level1):
    result = level1.check()
    assert not result.started
    assert result.exit_code == 3
    assert str(result).splitlines()[1].startswith("NOT STARTED")
    assert "NOT STARTED" in result._repr_html_()


def test_parameters_are_those_of_the_profile_unless_given(level1):
    assert (level1.model, level1.dataset, level1.seed) == ("tiny-distilbert", "mini_reviews", 3)
    assert begin("1", {"profile": "smoke", "dataset": "tickets", "other": 5}).dataset == "tickets"


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"profile": "fast"}, "there is no profile 'fast'"),
        ({"profile": "smoke", "dataset": "nothing"}, "there is no data set 'nothing'"),
        ({"profile": "smoke", "dataset": "lost.csv"}, "there is no file lost.csv"),
        ({"profile": "smoke", "model": "nothing"}, "there is no model 'nothing'"),
        ({"profile": "smoke", "seed": -1}, "seed is -1"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused(parameters, sentence):
    with pytest.raises(BadInput, match=sentence):
        begin("level1", parameters)


def test_an_unknown_level_is_refused():
    with pytest.raises(BadInput, match="there is no level 'level9'; there are level1, level2, level3"):
        begin("level9")


def test_each_hint_comes_once_and_then_the_last_stays(level1, capsys):
    for _ in range(4):
        level1.hint()
    said = [line for line in capsys.readouterr().out.splitlines() if ", hint " in line]
    first = manifest.level("level1").rules[0]
    assert said == [f"{first.id}, hint {n} of 3: {first.hints[n - 1]}" for n in (1, 2, 3, 3)]


def test_a_hint_can_be_asked_for_by_rule(level1, capsys):
    level1.hint("leak")
    assert manifest.level("level1").rule("leak").hints[0] in capsys.readouterr().out
    with pytest.raises(BadInput, match="there is no rule 'nothing'"):
        level1.hint("nothing")


def test_the_solution_of_a_step_is_the_cell_of_the_solution_notebook(level1, capsys):
    level1.solution("arguments")
    said = capsys.readouterr().out
    assert "TrainingArguments(" in said
    assert "TfidfVectorizer" not in said
    level1.solution("all")
    assert "TfidfVectorizer" in capsys.readouterr().out
    with pytest.raises(BadInput, match="there is no step 'nothing'"):
        level1.solution("nothing")


def test_the_work_folder_is_beside_the_exercises(tmp_path, monkeypatch):
    monkeypatch.delenv("FTLAB_WORK_FOLDER", raising=False)
    for here, expected in (
        ("exercises", (WORK,)), ("exercises/solutions", (WORK, "solutions")), ("mine", ("mine", WORK)),
    ):  # fmt: skip
        (tmp_path / here).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / here)
        assert work_folder("level1") == tmp_path.joinpath(*expected, "level1")


@pytest.mark.parametrize("name", ["level1", "level2", "level3"])
def test_every_rule_has_a_check_a_step_and_its_help(name):
    level = manifest.level(name)
    assert list(checker.CHECKS[name]) == [rule.id for rule in level.rules]
    for rule in level.rules:
        assert rule.step in (*level.steps, "rows")
        assert rule.what, rule.why
        assert len(rule.hints) == 3, rule.id


@pytest.mark.parametrize("name", ["level1", "level2", "level3"])
def test_the_help_names_headings_that_the_lessons_have(name, repository):
    """`next` says "lesson 02, 'Save the model'"."""
    import re

    headings: dict[str, set[str]] = {}
    for path in sorted((repository / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = [
            line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()
        ]
        headings[path.name[:2]] = {line.lstrip("# ") for line in lines if line.startswith("#")}
    named = 0
    for rule in manifest.level(name).rules:
        for number, quoted in re.findall(
            r"lesson (\d\d)((?:,? (?:and )?'[^']+')+)", " ".join([rule.next, *rule.hints])
        ):
            for heading in re.findall(r"'([^']+)'", quoted):
                assert heading in headings[number], f"{rule.id}: lesson {number} has no heading {heading!r}"
                named += 1
    assert named >= len(manifest.level(name).rules)


def test_each_level_names_its_notebook_and_its_lessons(repository):
    for level in manifest.levels().values():
        assert (repository / "exercises" / f"{level.notebook}.ipynb").is_file()
        for lesson in level.lessons:
            assert (repository / "notebooks" / f"{lesson}.ipynb").is_file()
        assert set(level.profiles) == {"smoke", "cpu", "gpu"}


def test_every_lesson_that_a_level_builds_on_links_to_it(repository: Path):
    for level in manifest.levels().values():
        for lesson in level.lessons:
            text = (repository / "notebooks" / f"{lesson}.ipynb").read_text(encoding="utf-8")
            assert f"../exercises/{level.notebook}.ipynb" in text, (lesson, level.notebook)
