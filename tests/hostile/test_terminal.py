"""Nothing in a file of somebody else reaches the terminal as a command to it."""

import csv
import json

import pytest

from ftlab.errors import BadInput
from ftlab.files import to_json
from ftlab.wording import in_markdown, printable
from tests import windows
from tests.command_line import ftlab
from tests.hostile.payloads import MARKDOWN, MARKUP, TERMINAL, obeyed


def written(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def rows(tmp_path):
    """Rows with a payload in each text and label, some of them copies."""
    lines = [[f"{TERMINAL} review {row // 2}", f"{TERMINAL}{row % 2}"] for row in range(60)]
    return written(tmp_path / "rows.csv", ["text", "label"], lines)


def test_the_payload_is_one():
    assert len(set(obeyed(TERMINAL))) == 4
    assert obeyed(f"plain\n\ttext, {printable(TERMINAL)}") == []


def test_an_audit_says_nothing_to_the_terminal(capsys, rows, tmp_path):
    code, out, _ = ftlab(capsys, "audit", rows, "--html", tmp_path / "report.html")
    assert code == 0
    assert "owned" in out  # the label is shown
    assert obeyed(out) == []
    assert obeyed((tmp_path / "report.html").read_text(encoding="utf-8")) == []


def test_an_audit_in_json_says_nothing_to_the_terminal(capsys, rows):
    _, out, _ = ftlab(capsys, "audit", rows, "--json")
    assert obeyed(out) == []
    assert f"{TERMINAL}0" in json.loads(out)["classes"][0].values()


@pytest.mark.parametrize("header", [[TERMINAL, "label"], ["text", TERMINAL], [f"a{TERMINAL}", f"b{TERMINAL}"]])
def test_the_name_of_a_column_says_nothing_to_the_terminal(capsys, tmp_path, header):
    code, out, err = ftlab(capsys, "audit", written(tmp_path / "rows.csv", header, [["a", "b"], ["c", "d"]]))
    assert code == 2
    assert len(err) == 1
    assert obeyed(out + err[0]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", f"{TERMINAL}.csv"], ["audit", "rows.csv", f"--{TERMINAL}"], [TERMINAL], ["run", TERMINAL],
        ["run", "02", "-p", TERMINAL, "1"], ["run", "02", "-p", "model", TERMINAL], ["merge", TERMINAL, "a", "b"],
        ["predict", TERMINAL, TERMINAL], ["check", TERMINAL], ["export", TERMINAL, "x.gguf"],
        ["run", "02", "--yaml", TERMINAL], ["audit", "x.csv", "--text", TERMINAL],
    ],
    ids=lambda given: " ".join(given).replace(TERMINAL, "PAYLOAD"),
)  # fmt: skip
def test_what_is_refused_is_refused_without_the_payload(capsys, arguments):
    code, out, err = ftlab(capsys, *arguments)
    assert code == 2
    assert obeyed("".join([out, *err])) == []


def test_a_file_with_such_a_name_is_read_and_shown(capsys, tmp_path):
    windows.require_name(f"{TERMINAL}.csv")
    lines = [[f"this is the text with the number {row}", row % 2] for row in range(40)]
    path = written(tmp_path / f"{TERMINAL}.csv", ["text", "label"], lines)
    code, out, _ = ftlab(capsys, "audit", path, "--html", path.with_suffix(".html"))
    assert code == 0
    assert "the report as a page" in out
    assert obeyed(out) == []


def test_predictions_say_nothing_to_the_terminal(capsys, rows, classifier_folder, tmp_path):
    _, out, _ = ftlab(capsys, "predict", classifier_folder, rows)
    assert obeyed(out) == []
    assert json.loads(out.splitlines()[0])["label"] == f"{TERMINAL}0"  # JSON has lost nothing


def test_the_name_of_a_file_of_predictions_says_nothing_to_the_terminal(capsys, rows, classifier_folder, tmp_path):
    windows.require_name(f"{TERMINAL}.csv")
    _, out, _ = ftlab(capsys, "predict", classifier_folder, rows, "--out", tmp_path / f"{TERMINAL}.csv")
    assert obeyed(out) == []


def test_an_error_shows_no_payload_in_jupyter_either():
    problem = BadInput(f"there is no {TERMINAL}")
    assert obeyed(str(problem)) == []
    assert obeyed("".join(problem._render_traceback_())) == []


def test_json_keeps_each_character_and_none_that_a_terminal_obeys():
    assert json.loads(to_json({TERMINAL: "\x7f\x85"})) == {TERMINAL: "\x7f\x85"}
    assert obeyed(to_json({TERMINAL: "\x7f\x85"})) == []


def test_markdown_has_no_tag_no_link_no_border_and_no_heading():
    shown = in_markdown(f"{MARKUP} {MARKDOWN} {TERMINAL}")
    assert "<" not in shown
    assert "\n" not in shown
    assert "`" not in shown
    assert obeyed(shown) == []
    assert "](" not in shown
    assert "|" not in shown.replace(r"\|", "")
