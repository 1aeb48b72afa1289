"""The ledger of claims: what each lesson claims, what was measured, where and when.

`ftlab run` writes it as claims.csv into a run's folder. benchmarks/claims/<profile>.json holds it for the run whose
outputs the course stores: `ftlab.course.refresh` writes that of the cpu profile, and for a run on a GPU

    python -m ftlab.course.refresh --claims RUN_FOLDER

does. Until a lesson's run of the gpu profile is stored there, that lesson's claims are expected and not enforced.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.course import notebooks
from ftlab.errors import BadInput
from ftlab.wording import one_line, printable, some

FILE = "claims.csv"  # in a run's folder
STOPPED = "stopped.json"  # in the folder of a lesson that a claim stopped; the runner keeps it as <lesson>.failed.json

# How much a claim counts in the run that made it.
ALWAYS, ENFORCED, EXPECTED, REPORTED, FP32 = "always", "enforced", "expected", "reported", "fp32 only"
ENFORCING = (ALWAYS, ENFORCED)  # a broken claim of these stops the lesson
NOT_MEASURED = "expected, not yet measured"
HERE, STORED = "this run", "stored benchmark"

KEPT = ("lesson", "profile", "seed", "budget", "set_by_hand", "started", "hardware", "versions", "claims")
Entry = dict[str, Any]  # one run of one lesson: these of its metrics.json and record.json


@dataclass(frozen=True)
class Row:
    """One claim of one run of a lesson.

    Attributes:
        lesson: the name of the notebook.
        claim: what is claimed, without the bound.
        bound: "at least 0.75".
        measured: the value; None if it was no finite number.
        holds: whether the value keeps the bound.
        standing: "always" (enforced in every run), "enforced", "expected" (of a profile that was never measured),
            "reported" (smoke, or a seed or parameters set by hand), or "fp32 only" (computed in half precision, and
            promised in fp32 alone).
        source: "this run" or "stored benchmark"; empty if an older run did not note it.
        profile: smoke, cpu or gpu.
        seed: of the run.
        set_by_hand: the parameters that were set by hand, as NAME=VALUE.
        hardware: the GPU, or the processor, with the cores.
        date: when the run began.
    """

    lesson: str
    claim: str
    bound: str
    measured: float | None
    holds: bool
    standing: str
    source: str
    profile: str
    seed: int
    set_by_hand: str
    hardware: str
    date: str


COLUMNS = tuple(field.name for field in fields(Row))


def split_statement(statement: str) -> tuple[str, str]:
    """Return the claim and the bound of `statement`.

    >>> split_statement("exact match: gain over the base: at least 0.3")
    ('exact match: gain over the base', 'at least 0.3')
    """
    claim, _, bound = statement.rpartition(": ")
    return claim, bound


def rows(entries: Sequence[Entry]) -> list[Row]:
    """Return the rows of `entries`, in their order."""
    return [_row(entry, claim) for entry in entries for claim in entry["claims"]]


def _row(entry: Entry, claim: Mapping[str, Any]) -> Row:
    text, bound = split_statement(claim["claim"])
    stored = claim.get("stored")
    return Row(
        lesson=entry["lesson"],
        claim=text,
        bound=bound,
        measured=claim["value"],
        holds=claim["true"],
        standing=claim.get("standing", ENFORCED if claim["held"] else REPORTED),
        source="" if stored is None else STORED if stored else HERE,
        profile=entry["profile"],
        seed=entry["seed"],
        set_by_hand=", ".join(f"{name}={value}" for name, value in entry["set_by_hand"].items()),
        hardware=machine(entry["hardware"]),
        date=entry["started"][:10],
    )


def machine(hardware: Mapping[str, Any]) -> str:
    """Return the GPU of `hardware` (see `records.hardware`), or its processor, with the cores.

    >>> machine({"gpu": None, "processor": "AMD EPYC", "cores": 2})
    'AMD EPYC, 2 cores'
    """
    return f"{hardware['gpu'] or hardware['processor']}, {hardware['cores']} cores"


def read(folder: Path) -> list[Entry]:
    """Return the latest run of each lesson in a run's `folder`, in the order of the course.

    A lesson that comes to its end removes the <lesson>.failed.json of an earlier run. Where both are there, because the
    run was killed in between or Windows kept the file open, the one that began later counts.

    Raises:
        BadInput: a file there is not what a lesson writes.
    """
    found = []
    for lesson in notebooks.lessons():
        done = (folder / lesson.name / "metrics.json", folder / lesson.name / "record.json")
        stopped = (folder / f"{lesson.name}.failed.json",)
        there = [_entry(*paths) for paths in (done, stopped) if all(path.is_file() for path in paths)]
        found += sorted(there, key=_began)[-1:]
    return found


def _began(entry: Entry) -> float:
    return datetime.fromisoformat(entry["started"]).timestamp()


def _entry(*paths: Path) -> Entry:
    """One run of a lesson, from the files at `paths` together."""
    try:
        together = {name: value for path in paths for name, value in json.loads(path.read_bytes()).items()}
        entry = {name: together[name] for name in KEPT}
        rows([entry])
        _began(entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BadInput(
            f"{paths[0]} is not what a lesson writes ({type(problem).__name__}: {one_line(problem)}); delete "
            f"{paths[0].parent if len(paths) > 1 else paths[0]} and run the lesson again"
        ) from problem
    return entry


def require_place(folder: Path) -> None:
    """Raise BadInput unless `write` could write claims.csv into `folder`, over no file of another kind."""
    path = folder / FILE
    if path.exists():
        with files.explained(path, BadInput):
            first = path.read_bytes().splitlines()[:1] if path.is_file() else []
        if not first or not first[0].decode("utf-8-sig", "replace").startswith("lesson,claim,bound,"):
            raise BadInput(
                f"{path} was not written by ftlab run, which writes a table of that name; choose another folder "
                "with --out"
            )
    read(folder)


def write(folder: Path) -> Path | None:
    """Write the claims of all lessons in a run's `folder` to its claims.csv, atomically.

    A cell that a spreadsheet would read as a formula begins with an apostrophe.

    Args:
        folder: with a folder for each lesson that came to its end, and <lesson>.failed.json for one that a claim
            stopped. What other runs left there stays in the table; a lesson that ran again replaces its rows.

    Returns:
        The path of claims.csv; None if no lesson claims anything.

    Raises:
        BadInput: it cannot be written, or a file there is not what a lesson writes.
    """
    path, found = folder / FILE, rows(read(folder))
    if not found and not path.exists():
        return None
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([_cell(value) for value in asdict(row).values()] for row in found)
    with files.atomic(path, error=BadInput) as temporary:
        # Excel reads a file as UTF-8 only if it begins with a byte order mark.
        temporary.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    return path


def _cell(value: Any) -> Any:
    """One cell: text that a spreadsheet would compute is protected, and None is empty."""
    if not isinstance(value, str):
        return value
    line = " ".join(printable(value).split())
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def counts(found: Sequence[Row]) -> dict[str, int]:
    """Return how many claims there are in `found`: in all, that hold, that do not, enforced, and expected."""
    hold = sum(row.holds for row in found)
    return {
        "claims": len(found),
        "hold": hold,
        "do_not_hold": len(found) - hold,
        "enforced": sum(row.standing in ENFORCING for row in found),
        "expected": sum(row.standing == EXPECTED for row in found),
    }


def summary(found: Sequence[Row]) -> str:
    """Return the counts of `found` in a line."""
    number = counts(found)
    parts = [f"{number['hold']} hold"]
    if number["do_not_hold"]:
        parts.append(f"{number['do_not_hold']} {'does' if number['do_not_hold'] == 1 else 'do'} not")
    parts.append(f"{number['enforced']} {'was' if number['enforced'] == 1 else 'were'} enforced")
    if number["expected"]:
        parts.append(f"{number['expected']} {NOT_MEASURED}")
    return f"{number['claims']} claim{'' if len(found) == 1 else 's'}: {', '.join(parts)}"


def store_file(profile: str) -> Path:
    """Return the path of the stored claims of `profile`. Raises BadInput where there is no course."""
    return notebooks.notebooks_folder().parent / "benchmarks" / "claims" / f"{profile}.json"


def stored(profile: str) -> list[Entry]:
    """Return the stored run of each lesson in `profile`, in the order of the course; [] where nothing is stored.

    Raises:
        BadInput: the file is not what `store` writes.
    """
    try:
        path = store_file(profile)
    except BadInput:  # ftlab without the course
        return []
    if not path.is_file():
        return []
    try:
        lessons = json.loads(path.read_bytes())["lessons"]
        rows(lessons)
        return [{name: entry[name] for name in KEPT} for entry in lessons]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BadInput(f"{path} is damaged ({one_line(problem)}); take it from the repository again") from problem


def measured(slug: str, profile: str, settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the claims of a lesson that were measured in `profile`, by a stored run of the same budget.

    Args:
        slug: the notebook's name without its number, "text_classification".
        profile: smoke, cpu or gpu.
        settings: the budget. A changed bound of a claim leaves it measured; any other change does not.
    """
    return frozenset(
        split_statement(claim["claim"])[0]
        for entry in stored(profile)
        if entry["lesson"].partition("_")[2] == slug and _without_bounds(entry["budget"]) == _without_bounds(settings)
        for claim in entry["claims"]
    )


def _without_bounds(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not name.startswith(("at_least_", "at_most_"))}


def storable(folder: Path) -> list[Entry]:
    """Return what `store` would store of a run's `folder`.

    Raises:
        BadInput: there is no lesson, or one that the course does not stand for: of the smoke profile, with a seed or
            parameters set by hand, with a claim that does not hold, or of the gpu profile without a GPU.
    """
    entries = read(folder)
    if not entries:
        raise BadInput(f"{folder} has no lesson that ran; expected the folder of a run, as `ftlab run` names it")
    for entry in entries:
        if reason := _why_not(entry):
            raise BadInput(f"the claims of {entry['lesson']} in {folder} are not stored: {reason}")
    return entries


def store(folder: Path) -> list[Path]:
    """Store the claims of a run's `folder` in benchmarks/claims, by profile; the rows of other lessons stay.

    Returns:
        The files that were written.

    Raises:
        BadInput: as `storable`.
    """
    entries = storable(folder)
    written = []
    for profile in dict.fromkeys(entry["profile"] for entry in entries):
        kept = {entry["lesson"]: entry for entry in stored(profile)}
        kept |= {entry["lesson"]: entry for entry in entries if entry["profile"] == profile}
        in_order = [kept[lesson.name] for lesson in notebooks.lessons() if lesson.name in kept]
        path = store_file(profile)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"profile": profile, "lessons": in_order})
        written.append(path)
    return written


def _why_not(entry: Entry) -> str:
    """Why the course does not stand for this run, and what to do; empty if it does."""
    if entry["profile"] == "smoke":
        return "smoke's weights are random; run it with the profile cpu or gpu"
    if entry["set_by_hand"] or entry["seed"] != 0:
        names = [*entry["set_by_hand"], *(["seed"] if entry["seed"] != 0 else [])]
        return f"{some(names)} was set by hand; run it without parameters"
    if entry["profile"] == "gpu" and not entry["hardware"]["gpu"]:
        return "the profile gpu ran without a GPU; run it on one"
    broken = [row for row in rows([entry]) if not row.holds and row.standing != FP32]
    if broken:
        value = "no finite number" if broken[0].measured is None else f"{broken[0].measured:g}"
        return (
            f"{len(broken)} of them broke the bound, the first {broken[0].claim!r} ({broken[0].bound}, measured "
            f"{value}); correct the bound or the lesson, and run it again"
        )
    return ""
