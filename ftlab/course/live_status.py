"""The status line of a run: lesson, section, cells done, training step, time. Silent where nobody watches."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Display:
    """The status line. `progress` is a rich Progress, or None where nobody watches."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.task: Any = None

    def begin(self, lesson: str, live: Path) -> None:
        """Start the line of `lesson`; while it trains it writes its step to the file `live`."""
        if self.progress is None:
            print(f"ftlab: running {lesson}", file=sys.stderr, flush=True)
        else:
            self.task = self.progress.add_task(lesson, total=None, section="starting the kernel", live=live)

    def cell(self, index: int, cells: Sequence[Any]) -> None:
        """Show that the cell at `index` of `cells` starts; the section is the last heading before it."""
        if self.progress is None:
            return
        section = ""
        for cell in cells[: index + 1]:
            if cell.cell_type == "markdown" and (heading := re.search(r"^#+\s+(.+)$", cell.source, re.MULTILINE)):
                section = heading[1].strip()
        self.progress.update(self.task, completed=index, total=len(cells), section=section[:48])

    def end(self, headline: str) -> None:
        """Show `headline`, the lesson's result: it is done."""
        if self.progress is not None:
            total = self.progress.tasks[-1].total
            self.progress.update(self.task, completed=total, section=headline[:80])


@contextmanager
def display(watch: bool) -> Iterator[Display]:
    """Yield a Display on stderr: live if `watch` is true and stderr is a terminal, else silent."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (watch and console.is_terminal):
        yield Display(None)
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Steps(ProgressColumn):
        """Step of training, as the lesson writes it."""

        def render(self, task: Task) -> Text:
            try:
                live = json.loads(Path(task.fields["live"]).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return Text("")
            return Text(f"{live['what']}: step {live['step']} of {live['of']}", style="cyan")

    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[section]}"),
        Steps(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        yield Display(progress)
