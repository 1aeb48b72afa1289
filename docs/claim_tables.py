"""The table of all claims for claims.md: what was measured in the stored runs, and what is expected of the gpu profile.

Values come from benchmarks/claims. A claim that no run on a GPU has measured has its bound from the notebook and from
profiles.toml.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

from ftlab.course import ledger, profiles
from ftlab.course.notebooks import lessons
from ftlab.wording import in_markdown

MEASURED = ("lesson", "claim", "bound", "measured", "holds", "enforced", "from")
AWAITED = ("lesson", "claim", "bound", "enforced")
ENFORCED = {
    ledger.ALWAYS: "in every run",
    ledger.ENFORCED: "in the profile's own run",
    ledger.FP32: "in fp32 alone",
    ledger.REPORTED: "no",
    ledger.EXPECTED: "not yet",
}


VALUE = "…"  # in a text, for what the code computes
# What may leave out the code in it. (A loop of a lesson turns at least once.)
BRANCHES = (ast.If, ast.IfExp, ast.While, ast.Try, ast.Match, ast.FunctionDef, ast.Lambda, ast.ClassDef)


class Call(NamedTuple):
    """One `lesson.claim(...)` of a notebook; in a loop over values that the code lists, one for each of them.

    Attributes:
        words: its text, with VALUE for what the code computes.
        keywords: its keywords as code.
        certain: whether it runs whenever its cell does, so not in a branch.
    """

    words: str
    keywords: dict[str, str]
    certain: bool

    def makes(self, claim: str) -> bool:
        """Whether `claim`, a text without its bound, may be of this call."""
        return re.fullmatch(re.escape(self.words).replace(VALUE, ".+"), claim) is not None

    @property
    def stored(self) -> bool:
        """Whether the value comes from a stored benchmark."""
        return self.keywords.get("stored", "False") != "False"


def all_claims() -> str:
    """Return tables of the stored claims of cpu and of gpu, and of those expected of gpu, with their counts.

    Raises:
        ValueError: no run of the cpu profile is stored, or the notebooks do not claim what is stored.
    """
    committed = ledger.stored("cpu")
    if not committed:
        raise ValueError("there is no benchmarks/claims/cpu.json; take it from the repository, or run make notebooks")
    measured = ledger.rows(committed)
    on_gpu = [row for row in ledger.rows(ledger.stored("gpu")) if not _budget(row.lesson).expects(row.claim)]
    known = {row.lesson for row in on_gpu}  # a claim of theirs that is not there was not made on a GPU
    expected = [
        (row.lesson, row.claim, *_bound_and_standing(row))
        for row in measured
        if row.source != ledger.STORED and row.lesson not in known
    ]
    parts = [f"**Profile `cpu`, measured.** {_where(measured)}", _table(MEASURED, map(_cells, measured))]
    if on_gpu:
        parts += [f"**Profile `gpu`, measured.** {_where(on_gpu)}", _table(MEASURED, map(_cells, on_gpu))]
    awaited = ((_link(lesson), in_markdown(claim), bound, ENFORCED[how]) for lesson, claim, bound, how in expected)
    parts += [f"**Profile `gpu`, {ledger.NOT_MEASURED}.**", _table(AWAITED, awaited)]
    return "\n\n".join([*parts, _counted(measured, on_gpu, len(expected))])


def _where(rows: Sequence[ledger.Row]) -> str:
    """On which machine the lessons ran, and when: "Lessons 00, 01: AMD EPYC, 2 cores, 2026-11-30."."""
    lessons_of: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        of_run = lessons_of.setdefault((row.hardware, row.date), [])
        if (number := row.lesson.partition("_")[0]) not in of_run:
            of_run.append(number)
    runs = [
        f"{'Lessons' if len(numbers) > 1 else 'Lesson'} {', '.join(numbers)}: {in_markdown(hardware)}, {date}"
        for (hardware, date), numbers in lessons_of.items()
    ]
    return "; ".join(runs) + "."


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    said = ["| " + " | ".join(cells) + " |" for cells in (head, *lines)]
    return "\n".join([said[0], "|---" * len(head) + "|", *said[1:]])


def _counted(measured: list[ledger.Row], on_gpu: list[ledger.Row], expected: int) -> str:
    """How many claims there are of each profile, and how many hold."""
    of_cpu, of_gpu = ledger.counts(measured), ledger.counts(on_gpu)
    said = f"Profile `cpu`: {of_cpu['claims']} claims, {of_cpu['hold']} hold. Profile `gpu`: "
    if on_gpu:
        said += f"{of_gpu['claims']} claims measured, {of_gpu['hold']} hold; "
    return f"{said}{expected} claims {ledger.NOT_MEASURED}."


def _cells(row: ledger.Row) -> Sequence[str]:
    measured = "no finite number" if row.measured is None else f"{row.measured:.3g}"
    holds = "yes" if row.holds else "**no**"
    return _link(row.lesson), in_markdown(row.claim), row.bound, measured, holds, ENFORCED[row.standing], row.source


def _link(lesson: str) -> str:
    return f"[{lesson.partition('_')[0]}](../notebooks/{lesson}.ipynb)"


def _budget(lesson: str) -> profiles.Budget:
    return profiles.resolve(lesson.partition("_")[2], "gpu")


def _bound_and_standing(row: ledger.Row) -> tuple[str, str]:
    """The bound that a claim measured in cpu has in gpu, and its standing there.

    Raises:
        ValueError: the notebook of the lesson does not claim it.
    """
    (path,) = [lesson.path for lesson in lessons() if lesson.name == row.lesson]
    for call in calls(path):
        if call.makes(row.claim):
            bound = row.bound
            for keyword in ("at_least", "at_most"):
                if name := re.fullmatch(r"budget\.(\w+)", call.keywords.get(keyword, "")):
                    words = keyword.replace("_", " ")
                    bound = re.sub(rf"{words} \S+", f"{words} {getattr(_budget(row.lesson), name[1]):g}", bound)
            return bound, _standing(call)
    raise ValueError(f"{row.lesson} does not claim {row.claim!r}, which is stored of it; run make notebooks")


def _standing(call: Call) -> str:
    """How much a claim counts in a run on a GPU, which computes in half precision."""
    # A dtype under a condition is for a parameter set by hand; without one there is no dtype.
    if (dtype := call.keywords.get("computed_in", "None")) != "None" and " if " not in dtype:
        return ledger.FP32
    return ledger.ALWAYS if call.keywords.get("always", "False") != "False" else ledger.EXPECTED


@cache
def calls(path: Path) -> tuple[Call, ...]:
    """Return the calls of `lesson.claim` in the notebook at `path`."""
    return tuple(_calls(path))


def _calls(path: Path) -> Iterator[Call]:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield from calls_in("".join(cell["source"]))


def calls_in(source: str) -> list[Call]:
    """Return the calls of `lesson.claim` in the `source` of a cell."""
    return list(_calls_of(ast.parse(source), {}, certain=True)) if "lesson.claim(" in source else []


def _calls_of(node: ast.AST, known: Mapping[str, ast.expr], *, certain: bool) -> Iterator[Call]:
    """The calls in `node`, with what is `known` of names."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "lesson.claim":
        keywords = {word.arg or "**": ast.unparse(_value(word.value, known)) for word in node.keywords}
        yield Call(_words(_value(node.args[0], known), known), keywords, certain)
    for turn in _turns(node):
        for child in ast.iter_child_nodes(node):
            yield from _calls_of(child, {**known, **turn}, certain=certain and not isinstance(node, BRANCHES))


def _turns(node: ast.AST) -> list[dict[str, ast.expr]]:
    """What the names of a loop stand for in each turn, where the code lists the values; else one turn of no names."""
    if not (isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple | ast.List)):
        return [{}]
    return [dict(_names(node.target, value)) for value in node.iter.elts]


def _names(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The names that `target = value` gives values to."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, other in zip(target.elts, value.elts, strict=True):
            yield from _names(one, other)


def _value(code: ast.expr, known: Mapping[str, ast.expr]) -> ast.expr:
    return known.get(code.id, code) if isinstance(code, ast.Name) else code


def _words(text: ast.expr, known: Mapping[str, ast.expr]) -> str:
    """The text that an expression becomes, with VALUE for what the code computes."""
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    values = [_value(part.value, known) if _is_plain(part) else part for part in parts]
    return "".join(str(value.value) if isinstance(value, ast.Constant) else VALUE for value in values)


def _is_plain(part: ast.expr) -> TypeGuard[ast.FormattedValue]:
    """Whether `part` puts a value into a text without a format of its own."""
    return isinstance(part, ast.FormattedValue) and part.format_spec is None and part.conversion == -1
