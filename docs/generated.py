"""Write what the pages quote from the stored benchmarks: `python docs/generated.py`.

A figure in a page stands between two comments, which no reader sees:

    <!-- figure .2f learning_curve: avg(rotten_tomatoes.runs[?model=='fine-tuned'].accuracy) -->0.72<!-- end -->

First a format of Python, then a benchmark of benchmarks/results, then a JMESPath expression (jmespath.org) on its
`result`. A whole table stands between two comments too, the first and the last of them on lines of their own:

    <!-- lessons: from benchmarks/results/first_run.json -->
    ...
    <!-- end -->

`TABLES` says which there are, and `docs/results.png` is drawn by docs/picture.py. Those of sizing are not measured, but
computed by ftlab.memory.sizing. A comment that begins like one of these and has another form is an error. A test
compares, so a page never quotes what is no longer measured.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jmespath

from ftlab.course import bench
from ftlab.errors import BadInput
from ftlab.memory import sizing

if TYPE_CHECKING:
    import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
if str(REPOSITORY / "docs") not in sys.path:  # so that it may be run and imported from anywhere
    sys.path.append(str(REPOSITORY / "docs"))

import benchmark_page  # noqa: E402
import claim_tables  # noqa: E402
import distributed_table  # noqa: E402
import lesson_tables  # noqa: E402
import picture  # noqa: E402

TABLES: dict[str, Callable[[], str]] = {
    "lessons": lesson_tables.minutes_and_memory,
    "expected results": lesson_tables.expected_results,
    "benchmarks": benchmark_page.summary,
    "every benchmark": benchmark_page.sections,
    "claims": claim_tables.all_claims,
    "equality of processes": lambda: as_markdown(distributed_table.equality()),
    "sizing memory": lambda: as_markdown(sizing.memory_table()),
    "sizing hours": lambda: as_markdown(sizing.hours_table()),
    "sizing bottlenecks": lambda: as_markdown(sizing.bottleneck_table()),
}
FIGURE = re.compile(r"(<!-- figure (\S+) (\w+): (.+?) -->).*?(<!-- end -->)")
TABLE = re.compile(rf"(<!-- ({'|'.join(TABLES)}): from \S+ -->\n).*?(<!-- end -->)", re.DOTALL)
MEANT = re.compile(rf"<!--\s*(?:figure|{'|'.join(TABLES)})\b", re.IGNORECASE)  # also with a slip in it


def result(benchmark: str) -> Any:
    """Return the stored result of `benchmark`."""
    return bench.stored(benchmark)["result"]


def as_markdown(table: pd.DataFrame) -> str:
    """Return a table of text in Markdown, without its index."""
    head, *lines = [f"| {' | '.join(cells)} |" for cells in (list(table.columns), *table.to_numpy().tolist())]
    return "\n".join([head, "|" + "---|" * len(table.columns), *lines])


def with_figures(text: str) -> str:
    """Return `text` with each figure and each table as it is stored.

    Raises:
        ValueError: an expression finds nothing, or something that the format does not fit, or a table lacks a value, or
            a comment is not written as the module's docstring explains.
    """
    understood = {match.start() for kind in (FIGURE, TABLE) for match in kind.finditer(text)}
    for match in MEANT.finditer(text):
        if match.start() not in understood:
            line = text[match.start() :].splitlines()[0]
            raise ValueError(f"{line[:80]!r} is no comment that docs/generated.py explains; see there and correct it")

    def figure(match: re.Match[str]) -> str:
        before, form, benchmark, expression, after = match.groups()
        value = jmespath.search(expression, result(benchmark))
        if value is None or isinstance(value, (list, dict)):
            raise ValueError(f"{benchmark} has no one value at {expression}; expected a number or a word")
        written = format(value, form.replace("s", "")).replace("%", " %")
        return f"{before}{written}{after}"

    def table(match: re.Match[str]) -> str:
        before, name, after = match.groups()
        return f"{before}{TABLES[name]()}\n{after}"

    return TABLE.sub(table, FIGURE.sub(figure, text))


def pages() -> list[Path]:
    """Return the Markdown files that may quote figures."""
    return [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "LOG.md"]


def main() -> int:
    """Rewrite every page, and the picture, that has changed. Return 1 if one of them could not be written."""
    failed = 0
    for page in filter(Path.is_file, pages()):
        before = page.read_text(encoding="utf-8")
        try:
            after = with_figures(before)
        except (ValueError, BadInput) as problem:  # the others are written all the same
            print(f"{page.relative_to(REPOSITORY)}: {problem}", file=sys.stderr)
            failed = 1
            continue
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(REPOSITORY))
    try:
        if picture.write():
            print(picture.FILE.relative_to(REPOSITORY))
    except (ValueError, BadInput) as problem:
        print(f"{picture.FILE.relative_to(REPOSITORY)}: {problem}", file=sys.stderr)
        failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
