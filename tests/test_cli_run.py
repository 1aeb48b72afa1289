import json
from pathlib import Path

import pytest

from ftlab.course import expected_time, ledger, runner
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


@pytest.mark.parametrize("more", [[], ["02", "03"]])
def test_claims_that_were_never_measured_are_announced(capsys, monkeypatch, more):
    monkeypatch.setattr(ledger, "stored", lambda profile: [])
    _, _, said = ftlab(capsys, "run", *more, "--profile", "gpu")
    numbers = ", ".join(more or ("00", "01", "02", "03", "04", "05", "06"))
    line = f"ftlab: the claims of profile gpu are expected, not yet measured, and stop no lesson (lessons {numbers})"
    assert said[-1] == line
    assert line not in ftlab(capsys, "run", *more, "--profile", "gpu", "-p", "seed", "1")[2]
    assert line not in ftlab(capsys, "run", *more)[2]


def test_the_claims_are_counted_at_the_end(capsys, monkeypatch):
    def row(standing, holds):
        return ledger.Row("02_x", "gain", "at least 1", 1.0, holds, standing, "this run", "gpu", 0, "", "a CPU", "")

    found = [row("always", True), row("enforced", True), row("expected", False)]
    monkeypatch.setattr(ledger, "read", lambda folder: folder)
    monkeypatch.setattr(ledger, "rows", lambda folder: found if folder == Path("runs") else [])
    _, out, _ = ftlab(capsys, "run", "02")
    table = Path("runs") / "claims.csv"
    assert out.splitlines()[-1] == (
        f"3 claims: 2 hold, 1 does not, 2 were enforced, 1 expected, not yet measured -> {table}"
    )
    counts = {"claims": 3, "hold": 2, "do_not_hold": 1, "enforced": 2, "expected": 1}
    assert json.loads(ftlab(capsys, "run", "02", "--json")[1])["claims"] == counts
