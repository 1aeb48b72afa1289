from pathlib import Path

import pytest

from ftlab.course import expected_time, runner
from tests.command_line import ftlab


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Runs that do nothing, on a machine whose speed is not measured."""
    monkeypatch.setattr(runner, "run", lambda *wanted, **options: (Path("runs"), []))
    monkeypatch.setattr(expected_time, "_rate_here", lambda: 1e11)


def test_the_whole_course_is_announced_before_it_begins(capsys):
    code, _, said = ftlab(capsys, "run")
    assert code == 0
    assert [line.startswith("ftlab: this runs the whole course") for line in said] == [True, False, False, False]
    assert "00_start_here, 01_data_audit, 02_text_classification" in said[0]


def test_chosen_lessons_are_announced_in_one_line_with_their_minutes(capsys):
    _, _, said = ftlab(capsys, "run", "02", "03")
    (line,) = said
    assert line.startswith("ftlab: lessons 02, 03 take ")
    assert "minutes" in line


@pytest.mark.parametrize("more", [["--json"], ["-p", "rows", "40"], ["--profile", "smoke"]])
def test_nothing_is_announced_in_json_or_where_the_minutes_are_not_known(capsys, more):
    assert ftlab(capsys, "run", "02", *more)[2] == []


def test_the_whole_course_in_json_says_nothing_on_stderr(capsys):
    code, out, said = ftlab(capsys, "run", "--json")
    assert (code, said) == (0, [])
    assert out.startswith("{")
