import io
import re

import nbformat
import pytest
from rich.console import Console
from rich.progress import Progress

from ftlab import files
from ftlab.course import live_status
from ftlab.progress import CLAIMS


def printed(text):
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    return nbformat.v4.new_code_cell("lesson.claim(...)", outputs=[output])


CELLS = [
    nbformat.v4.new_markdown_cell("# A lesson\n\nwords"),
    nbformat.v4.new_code_cell("1"),
    nbformat.v4.new_markdown_cell("## [red]First[/red] \x1b[31mpart\n\nwords\n\n### Within it"),
    printed("rows 3\n✓ accuracy: at least 0.75\n"),
    printed("✗ gain: at least 0 (not so here, and not promised for this run)\n"),
    nbformat.v4.new_markdown_cell("## Second part"),
    printed("".join(f"✓ claim {number}\n" for number in range(9)) + "✗ one that does not hold\n"),
]


def run(display, folder):
    """What a runner tells a display in a lesson of CELLS."""
    claims = [{"claim": "accuracy: at least 0.75", "value": 0.8154}, {"claim": "gain: at least 0", "value": -0.15}]
    files.write_json(folder / CLAIMS, claims)
    display.begin("02_lesson", folder)
    for index, cell in enumerate(CELLS):
        display.cell(index, CELLS)
        if cell.cell_type == "code":
            display.cell_done(index, CELLS)
    display.end("accuracy [0.8]\x07\x1b[2J")


WITHOUT_A_TERMINAL = """\
ftlab: running 02_lesson
    0:00  A lesson
    0:00  Within it
          ✓ accuracy: 0.815 (at least 0.75)
          ✗ gain: -0.15 (at least 0; not so here, and not promised for this run)
    0:00  Second part
          ✓ claim 0
          ✓ claim 1
          ✓ claim 2
          ✓ claim 3
          ✗ one that does not hold
    0:00  result: accuracy [0.8]
"""


def test_without_a_terminal_sections_claims_and_the_result_are_plain_lines(capsys, tmp_path):
    with live_status.display(watch=True) as display:
        run(display, tmp_path)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", WITHOUT_A_TERMINAL)


def test_where_nobody_watches_only_the_beginning_is_told(capsys, tmp_path):
    with live_status.display(watch=False) as display:
        run(display, tmp_path)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "ftlab: running 02_lesson\n")


@pytest.fixture
def terminal():
    """A rich Progress on a terminal of 100 columns, and what it has written."""
    written = io.StringIO()
    with Progress(console=Console(file=written, force_terminal=True, width=100, highlight=False)) as progress:
        yield progress, written


def test_in_a_terminal_claims_stand_below_their_section_and_above_the_status_line(terminal, tmp_path):
    progress, written = terminal
    run(live_status.Live(progress), tmp_path)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in written.getvalue().splitlines()]
    lines = [line for line in lines if line and "━" not in line]
    expected = WITHOUT_A_TERMINAL.splitlines()[2:]
    assert lines == ["02_lesson", *expected]
    assert progress.tasks == []


def test_in_a_terminal_the_mark_of_a_claim_is_green_where_it_holds_and_red_where_not(terminal, tmp_path):
    progress, written = terminal
    run(live_status.Live(progress), tmp_path)
    assert "\x1b[32m✓\x1b[0m accuracy" in written.getvalue()
    assert "\x1b[31m✗\x1b[0m gain" in written.getvalue()


def test_a_heading_or_a_line_of_a_notebook_cannot_move_the_cursor_or_set_colours(terminal, tmp_path):
    progress, written = terminal
    cells = [nbformat.v4.new_markdown_cell("# [red]a[/red] \x1b[31mb\x07"), printed("✓ \x1b[2J[bold]c\u202e\n")]
    display = live_status.Live(progress)
    display.begin("02_lesson", tmp_path)
    display.cell(1, cells)
    display.cell_done(1, cells)
    assert "[red]a[/red] b" in written.getvalue()
    assert "[bold]c" in written.getvalue()
    assert not re.search("\x1b\\[(2J|31m)|\x07|\u202e", written.getvalue())


NOT_NOTED = ["", "[{", '[{"claim": 3}]', '{"a": 1}', '[{"claim": "x: at least 1", "value": null}]']


@pytest.mark.parametrize("noted", NOT_NOTED)
def test_a_claim_without_a_noted_value_is_shown_as_it_was_printed(tmp_path, noted):
    (tmp_path / CLAIMS).write_text(noted, encoding="utf-8")
    assert live_status.with_value("✓ x: at least 1", tmp_path) == "✓ x: at least 1"
