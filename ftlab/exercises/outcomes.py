"""What a checker answers: for each rule PASS, FIX, WARN, NOT CHECKED or NOT STARTED; and whether the level is done."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ftlab.exercises.manifest import Level, Rule


class Status(StrEnum):
    """The answer of a rule."""

    PASS = "PASS"
    FIX = "FIX"
    WARN = "WARN"
    NOT_CHECKED = "NOT CHECKED"
    NOT_STARTED = "NOT STARTED"


@dataclass(frozen=True)
class Answer:
    """What a check decided: its status, what it expected, what it found, and in which file."""

    status: Status
    expected: str
    found: str
    where: str
    advice: str = ""  # for this finding; it comes before the rule's own `next`


@dataclass(frozen=True)
class Outcome:
    """The answer of one rule."""

    rule: Rule
    answer: Answer

    @property
    def status(self) -> Status:
        """The status of the answer."""
        return self.answer.status

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON can hold it."""
        said = asdict(self.answer)
        advice = said.pop("advice")
        return {
            "id": self.rule.id, "rule": self.rule.what, **said, "status": str(self.status), "why": self.rule.why,
            "next": " ".join(filter(None, (advice, self.rule.next))),
        }  # fmt: skip


MARKS = {Status.PASS: "✓", Status.FIX: "✗", Status.WARN: "!", Status.NOT_CHECKED: "?", Status.NOT_STARTED: "·"}
COLOURS = {Status.PASS: "#2e7d32", Status.FIX: "#c62828", Status.WARN: "#b26a00"}


@dataclass(frozen=True)
class Result:
    """All outcomes of a level, in the order of its rules."""

    level: Level
    work: Path
    profile: str
    outcomes: tuple[Outcome, ...]
    seconds: float = 0.0
    earlier: int = 0  # earlier tries that were kept

    def of(self, *statuses: Status) -> list[Outcome]:
        """Return the outcomes with one of these statuses."""
        return [outcome for outcome in self.outcomes if outcome.status in statuses]

    @property
    def started(self) -> bool:
        """Whether anything was handed in."""
        return len(self.of(Status.NOT_STARTED)) < len(self.outcomes)

    @property
    def passed(self) -> bool:
        """Whether every rule was checked and none asks for a correction."""
        return not self.of(Status.FIX, Status.NOT_CHECKED, Status.NOT_STARTED)

    @property
    def done(self) -> bool:
        """Whether the level is completed. A run with tiny random models (profile smoke) never completes it."""
        return self.passed and self.profile != "smoke"

    @property
    def exit_code(self) -> int:
        """0: done. 1: something to correct, or unchecked. 3: not started."""
        return 0 if self.done else 1 if self.started else 3

    @property
    def state(self) -> str:
        """The result of the level in one sentence."""
        counts = {status: len(self.of(status)) for status in Status}
        if not self.started:
            return f"NOT STARTED: nothing is recorded in {self.work}; work through the notebook {self.level.notebook}"
        if counts[Status.FIX]:
            return f"TO FIX: {_rules(counts[Status.FIX])} of {len(self.outcomes)}; each is explained below"
        if counts[Status.NOT_STARTED]:
            waiting = _rules(counts[Status.NOT_STARTED])
            return f"TO FINISH: {waiting} of {len(self.outcomes)} wait for what is not handed in"
        if counts[Status.NOT_CHECKED]:
            return f"NOT ALL CHECKED: {_rules(counts[Status.NOT_CHECKED])} of {len(self.outcomes)} could not be checked"
        if self.profile == "smoke":
            return "REHEARSAL: every rule holds, but with a tiny random model (profile smoke), which completes no level"
        return f"PASSED: all {len(self.outcomes)} rules" + (
            f", {counts[Status.WARN]} with a warning" if counts[Status.WARN] else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON can hold it."""
        return {
            "level": self.level.name, "done": self.done, "state": self.state, "profile": self.profile,
            "work": str(self.work), "earlier_tries": self.earlier, "seconds": round(self.seconds, 1),
            "rules": [outcome.to_dict() for outcome in self.outcomes],
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [self.level.title, self.state, ""]
        if not self.started:
            return "\n".join(lines[:2])
        width = max(len(outcome.rule.id) for outcome in self.outcomes)
        for outcome in self.outcomes:
            mark = f"{MARKS[outcome.status]} {outcome.status:<11}"
            lines.append(f"{mark}  {outcome.rule.id:<{width}}  {outcome.answer.found or outcome.rule.what}")
        for outcome in [*self.of(Status.FIX), *self.of(Status.NOT_CHECKED, Status.WARN)]:
            lines += ["", *_explained(outcome)]
        if self.earlier:
            lines += ["", f"{_tries(self.earlier)} in {self.work / 'earlier'}"]
        return "\n".join(lines)

    __repr__ = __str__  # where a notebook shows plain text

    def _repr_html_(self) -> str:
        parts = [f"<b>{html.escape(self.level.title)}</b><br><span role='status'>{html.escape(self.state)}</span>"]
        if self.started:
            parts.append(self._table())
        for outcome in [*self.of(Status.FIX), *self.of(Status.NOT_CHECKED, Status.WARN)]:
            first, *rest = map(html.escape, _explained(outcome))
            colour = COLOURS.get(outcome.status, "#666")
            style = f"border-left:4px solid {colour};padding:4px 10px;margin:8px 0"
            parts.append(f"<div style='{style}'><b>{first}</b><br>{'<br>'.join(rest)}</div>")
        if self.earlier:
            parts.append(f"<div>{html.escape(_tries(self.earlier))}</div>")
        return "".join(parts)

    def _table(self) -> str:
        rows = []
        for outcome in self.outcomes:
            # The text keeps the colour of the page: on a half transparent background it is readable in light and dark.
            tone = f"background:{COLOURS[outcome.status]}33;" if outcome.status in COLOURS else ""
            cells = (
                f"<td style='text-align:left;{tone}white-space:nowrap'>{MARKS[outcome.status]} "
                f"{outcome.status}</td>"
                f"<td style='text-align:left'><code>{outcome.rule.id}</code></td>"
                f"<td style='text-align:left'>{html.escape(outcome.rule.what)}</td>"
                f"<td style='text-align:left'>{html.escape(outcome.answer.found)}</td>"
            )
            rows.append(f"<tr>{cells}</tr>")
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("", "rule", "what it asks", "found"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _explained(outcome: Outcome) -> Sequence[str]:
    answer = outcome.answer
    return [
        f"{outcome.status} {outcome.rule.id}: {outcome.rule.what}",
        *([f"expected: {answer.expected}"] if answer.expected else []),
        f"found: {answer.found}" + (f" ({answer.where})" if answer.where else ""),
        f"why it matters: {outcome.rule.why}",
        f"next: {' '.join(filter(None, (answer.advice, outcome.rule.next)))}",
    ]


def _rules(count: int) -> str:
    return "1 rule" if count == 1 else f"{count} rules"


def _tries(count: int) -> str:
    return "1 earlier try is kept" if count == 1 else f"{count} earlier tries are kept"
