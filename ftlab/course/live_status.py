"""What a run shows on stderr: the section that it is in, the claims as they come, and the result of each lesson.

In a terminal a status line stays below these: lesson, cells done, time, section, training step. Where nobody watches a
terminal there are plain lines instead.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ftlab.progress import CLAIMS, LIVE

MOST = 4  # claims of one section that are shown; of more, only those that do not hold
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Display(Protocol):
    """What the runner tells a display of a lesson."""

    def begin(self, lesson: str, folder: Path) -> None:
        """`lesson` begins; it writes its files into `folder`."""

    def cell(self, index: int, cells: Sequence[Any]) -> None:
        """The cell at `index` of `cells` begins."""

    def cell_done(self, index: int, cells: Sequence[Any]) -> None:
        """The cell at `index` of `cells` has run, well or not."""

    def end(self, headline: str) -> None:
        """The lesson is done; `headline` is its result."""


class Quiet:
    """A display that tells only which lesson begins."""

    def begin(self, lesson: str, folder: Path) -> None:
        """Print the line that begins a lesson; its `folder` is not used."""
        print(f"ftlab: running {lesson}", file=sys.stderr, flush=True)

    def cell(self, index: int, cells: Sequence[Any]) -> None:
        """Show nothing."""

    def cell_done(self, index: int, cells: Sequence[Any]) -> None:
        """Show nothing."""

    def end(self, headline: str) -> None:
        """Show nothing."""


class Lines(Quiet):
    """Plain lines: each section with the time since the lesson began, its claims, and the result."""

    def begin(self, lesson: str, folder: Path) -> None:
        """Print the line that begins `lesson`. Its claims are read from its `folder`."""
        super().begin(lesson, folder)
        self.start(folder)

    def start(self, folder: Path) -> None:
        """Begin to count the time of a lesson, whose claims are in `folder`."""
        self._began = time.monotonic()
        self._folder = folder
        self.section = ""
        self._claims = 0

    def cell(self, index: int, cells: Sequence[Any]) -> None:
        """Show the section if the cell at `index` of `cells` begins one."""
        if (section := section_at(index, cells)) != self.section:
            self.section, self._claims = section, 0
            self._show_section(section)

    def cell_done(self, index: int, cells: Sequence[Any]) -> None:
        """Show the claims that the cell at `index` of `cells` has printed."""
        for line in claim_lines(cells[index]):
            self._claims += 1
            if self._claims <= MOST or line.startswith("✗"):
                self.show_claim(with_value(line, self._folder))

    def end(self, headline: str) -> None:
        """Show `headline`, the lesson's result, and how long it took."""
        self._print(f"  {self.clock()}  result: {plain_line(headline)}")

    def _show_section(self, section: str) -> None:
        self._print(f"  {self.clock()}  {section}")

    def show_claim(self, claim: str) -> None:
        """Show `claim`, a line."""
        self._print(f"          {claim}")

    def clock(self) -> str:
        """Return the time since the lesson began."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:3d}:{seconds:02d}"

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Live(Lines):
    """The same above a status line. `progress` is a rich Progress."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.task: Any = None

    def begin(self, lesson: str, folder: Path) -> None:
        """Start the status line of `lesson`; while it trains, it writes its step into `folder`."""
        from rich.text import Text

        self.start(folder)
        self._heading = ""
        self.progress.print(Text(lesson, style="bold"))
        self.task = self.progress.add_task(lesson, total=None, section="starting the kernel", live=folder / LIVE)

    def cell(self, index: int, cells: Sequence[Any]) -> None:
        """Move the status line to the cell at `index` of `cells`."""
        super().cell(index, cells)
        self.progress.update(self.task, completed=index, total=len(cells), section=self.section)

    def end(self, headline: str) -> None:
        """Replace the status line by `headline`, the lesson's result."""
        self.progress.remove_task(self.task)
        super().end(headline)

    def _show_section(self, section: str) -> None:
        self._heading = section  # the status line names it; above that line it stands only over its claims

    def show_claim(self, claim: str) -> None:
        """Show `claim`, a line."""
        if self._heading:
            self._print(f"  {self.clock()}  {self._heading}", style="dim")
            self._heading = ""
        super().show_claim(claim)

    def _print(self, line: str, style: str = "") -> None:
        from rich.padding import Padding
        from rich.text import Text

        shown = Text(line.lstrip(), style=style)
        shown.highlight_regex("^✓", "green")
        shown.highlight_regex("^✗", "red")
        self.progress.print(Padding(shown, (0, 0, 0, len(line) - len(line.lstrip()))))


def section_at(index: int, cells: Sequence[Any]) -> str:
    """Return the last heading of the Markdown in `cells` up to the cell at `index`, on one line; "" without one."""
    for cell in reversed(cells[: index + 1]):
        if cell.cell_type == "markdown" and (headings := re.findall(r"^#+\s+(.+)$", cell.source, re.MULTILINE)):
            return plain_line(headings[-1])
    return ""


def claim_lines(cell: Any) -> list[str]:
    """Return the lines that `lesson.claim` printed in `cell`: they begin with a tick or a cross."""
    said = "".join(output.text for output in cell.get("outputs", ()) if output.get("name") == "stdout")
    return [plain_line(line) for line in said.splitlines() if line.startswith(("✓ ", "✗ "))]


def with_value(line: str, folder: Path) -> str:
    """Return the `line` of a claim with the measured value, which the running lesson notes in `folder`.

    "✓ accuracy: at least 0.75" becomes "✓ accuracy: 0.815 (at least 0.75)".
    """
    try:
        noted = json.loads((folder / CLAIMS).read_text(encoding="utf-8"))
        for claim in reversed(noted):
            what, _, bound = claim["claim"].rpartition(": ")
            if claim["value"] is not None and line[2:].startswith(plain_line(claim["claim"])):
                rest = line[2 + len(plain_line(claim["claim"])) :].strip(" ()")  # whether it is promised for this run
                return f"{line[0]} {plain_line(what)}: {claim['value']:.3g} ({'; '.join(filter(None, (bound, rest)))})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no such file, or not one of ours
        pass
    return line


def plain_line(text: str) -> str:
    """Return `text` on one line, without what a terminal would obey: escape sequences and control characters.

    >>> plain_line("in \x1b[1mbold\x1b[0m\x07")
    'in bold'
    """
    text = " ".join(_ANSI.sub("", text).split())
    return "".join(character for character in text if character.isprintable())


@contextmanager
def display(watch: bool) -> Iterator[Display]:
    """Yield a Display on stderr: with a status line in a terminal, plain lines elsewhere, Quiet unless `watch`."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not (watch and console.is_interactive):
        yield Lines() if watch else Quiet()
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    class Steps(ProgressColumn):
        """Step of training, as the lesson writes it."""

        def render(self, task: Task) -> Text:
            try:
                live = json.loads(Path(task.fields["live"]).read_text(encoding="utf-8"))
                return Text(plain_line(f"{live['what']}: step {live['step']} of {live['of']}"), style="cyan")
            except (OSError, ValueError, KeyError, TypeError):
                return Text("")

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=12),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[section]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        ),
        Steps(),
    )
    with Progress(*columns, console=console, refresh_per_second=4, expand=True) as progress:
        yield Live(progress)
