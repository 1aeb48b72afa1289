"""Write what the pages quote from the stored benchmarks: `python docs/generated.py`.

A figure in a page stands between two comments, which no reader sees:

    <!-- figure .2f learning_curve: avg(rotten_tomatoes.runs[?model=='fine-tuned'].accuracy) -->0.72<!-- end -->

First a format of Python, then a benchmark of benchmarks/results, then a JMESPath expression (jmespath.org) on its
`result`. A test compares, so a page never quotes what is no longer measured.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jmespath

REPOSITORY = Path(__file__).resolve().parents[1]
FIGURE = re.compile(r"(<!-- figure (\S+) (\w+): (.+?) -->).*?(<!-- end -->)")


@cache
def result(benchmark: str) -> Any:
    """Return the stored result of `benchmark`."""
    path = REPOSITORY / "benchmarks" / "results" / f"{benchmark}.json"
    return json.loads(path.read_text(encoding="utf-8"))["result"]


def with_figures(text: str) -> str:
    """Return `text` with each figure as it is stored.

    Raises:
        ValueError: an expression finds nothing, or something that the format does not fit.
    """

    def figure(match: re.Match[str]) -> str:
        before, form, benchmark, expression, after = match.groups()
        value = jmespath.search(expression, result(benchmark))
        if value is None or isinstance(value, (list, dict)):
            raise ValueError(f"{benchmark} has no one value at {expression}; expected a number or a word")
        return f"{before}{value:{form.replace('s', '')}}{after}"

    return FIGURE.sub(figure, text)


def pages() -> list[Path]:
    """Return the Markdown files that may quote figures."""
    return [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "LOG.md"]


def main() -> None:
    """Rewrite every page that has changed."""
    for page in filter(Path.is_file, pages()):
        before = page.read_text(encoding="utf-8")
        after = with_figures(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
