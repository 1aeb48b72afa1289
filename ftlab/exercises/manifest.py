"""What levels.toml says of each level: its title, notebook, lessons, steps, models, data sets, and rules."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ftlab.errors import BadInput


@dataclass(frozen=True)
class Rule:
    """What a checker demands, why, what to do when it fails, and three hints. `step` is the cell that it is about."""

    id: str
    what: str
    step: str
    why: str
    next: str
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Level:
    """One level: `steps` are the cells that a learner writes, `profiles` the model and data set of each profile."""

    name: str
    title: str
    notebook: str
    minutes: int
    difficulty: str
    goal: str
    handed_in: str
    lessons: tuple[str, ...]
    steps: tuple[str, ...]
    profiles: Mapping[str, Mapping[str, str]]
    rules: tuple[Rule, ...]

    def rule(self, name: str) -> Rule:
        """Return the rule with the id `name`. Raises KeyError if there is none."""
        return {rule.id: rule for rule in self.rules}[name]


@cache
def levels() -> Mapping[str, Level]:
    """Return the levels of levels.toml by name: level1, level2 and level3."""
    written = tomllib.loads((Path(__file__).parent / "levels.toml").read_text(encoding="utf-8"))
    return {name: _level(name, one) for name, one in written.items()}


def level(name: str) -> Level:
    """Return the level called `name`; "1" is level1 too. Raises BadInput if there is no such level."""
    wanted = f"level{name}" if name.isdecimal() else name
    if wanted not in levels():
        raise BadInput(f"there is no level {name!r}; there are {', '.join(levels())}")
    return levels()[wanted]


def _level(name: str, written: Mapping[str, object]) -> Level:
    given = dict(written)
    rules = given.pop("rules")
    assert isinstance(rules, list)
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Level(name=name, rules=tuple(Rule(**{**one, "hints": tuple(one["hints"])}) for one in rules), **lists)  # type: ignore[arg-type]
