"""A kill at any moment: what is on disk is whole or plainly unfinished, and the next run ends the same."""

import json
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from ftlab import files
from ftlab.progress import LIVE
from ftlab.serving import extra
from tests import nightly
from tests.faults import operations
from tests.faults.forks import Ended, Server
from tests.faults.operations import OPERATIONS, found, hidden

COUNTS = os.environ.get("FTLAB_FAULTS_COUNTS")  # a file to which each kill that was survived is added


@dataclass(frozen=True)
class Undisturbed:
    """What an operation leaves where nothing befalls it, how long it takes, and the largest file that it writes."""

    ended: Ended
    files: dict[str, str]
    largest: int
    place: Path

    @classmethod
    def of(cls, server: Server, name: str, place: Path) -> "Undisturbed":
        place.mkdir()
        ended = server.run(name, place)
        assert ended.code == 0, ended.said
        assert hidden(place) == []
        sizes = [path.stat().st_size for path in place.rglob("*") if path.is_file()]
        return cls(ended, found(place), max(sizes, default=1), place)


def draw(choose: random.Random, name: str, undisturbed: Undisturbed) -> dict[str, float | bool]:
    """When the kill comes: before a change to the file system, within a file, or after a time."""
    kinds = ["change", "change", "change", "seconds"] + ["byte"] * OPERATIONS[name].in_process
    kind = choose.choice(kinds)
    if kind == "change":
        return {"change": choose.randrange(len(undisturbed.ended.changes))}
    if kind == "byte":
        return {"byte": round(undisturbed.largest ** choose.random())}
    return {"seconds": undisturbed.ended.seconds * choose.uniform(0.05, 0.95), "orphans": choose.random() < 0.5}


def parts(hashes: dict[str, str], depth: int) -> dict[str, dict[str, str]]:
    """The files by the file or folder that is whole or absent, `depth` levels deep."""
    grouped: dict[str, dict[str, str]] = {}
    for path, digest in hashes.items():
        grouped.setdefault("/".join(path.split("/")[:depth]), {})[path] = digest
    return grouped


def make_older(undisturbed: Undisturbed, name: str, place: Path) -> None:
    """Put an older result into `place`, for the operation to replace."""
    marked, depth = OPERATIONS[name].marked, OPERATIONS[name].depth
    for part in parts(undisturbed.files, depth):
        (place / part).parent.mkdir(parents=True, exist_ok=True)
        if marked and (undisturbed.place / part).is_file():
            shutil.copy(undisturbed.place / part, place / part)  # a table, which nothing else may take the place of
        elif marked:
            shutil.copytree(undisturbed.place / part, place / part)
            (place / part / marked).write_text("older", encoding="utf-8")
        else:
            (place / part).write_text("older", encoding="utf-8")


def require_whole(name: str, place: Path, undisturbed: Undisturbed, older: dict[str, str]) -> None:
    """Demand that each visible thing is that of the undisturbed run or the older one, and that no older one is lost."""
    operation = OPERATIONS[name]
    before, after = parts(older, operation.depth), parts(undisturbed.files, operation.depth)
    there = parts(found(place), operation.depth)
    for part, held in there.items():
        if not any(end in part for end in operation.unfinished):
            assert held in (before.get(part), after.get(part)), f"{part} is half: {sorted(held)}"
    for part in before:
        if part not in there:  # between two renames: it is aside, and put back by whoever comes next
            files.sweep((place / part).parent)
            now = parts(found(place), operation.depth).get(part)
            assert now in (before[part], after[part]), f"the older {part} is lost"


def count(name: str, moment: dict[str, float | bool]) -> None:
    """Note that `name` has survived a kill, if somebody asks for it."""
    if COUNTS:
        with Path(COUNTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"operation": name, **moment}) + "\n")


def same(name: str, hashes: dict[str, str]) -> dict[str, str]:
    """What is equal for equal runs: all, and of checkpoints the weights alone, since Trainer writes its paths there."""
    unfinished = OPERATIONS[name].unfinished
    return {
        path: digest for path, digest in hashes.items()
        if path.endswith(".safetensors") or not any(end in path for end in unfinished)
    }  # fmt: skip


def require_tidy(place: Path, *, idle: bool) -> None:
    """Demand that nothing hidden is left; after an `idle` run, which had nothing to write, what a sweep takes away."""
    assert not list(place.rglob(LIVE))
    if idle:
        for left in hidden(place):
            files.sweep((place / left).parent)
    assert [left for left in hidden(place) if not (idle and left.endswith("/.lock"))] == []


@pytest.mark.parametrize(
    "name", [name for name, operation in OPERATIONS.items() if operation.kills[1] and name != "hand in"]
)
def test_after_a_kill_all_is_whole_and_the_next_run_ends_as_if_nothing_had_been(server, name, tmp_path):
    if name == "export" and not extra.installed(extra.CONVERTER, extra.LLAMA_CPP):
        pytest.skip("the extra `serve` is not installed")
    operation, tried = OPERATIONS[name], Counter()
    wanted = nightly.cases(few=operation.kills[0], nightly=operation.kills[1])
    if not wanted:
        pytest.skip("too long by day: the nightly run does it")
    undisturbed = Undisturbed.of(server, name, tmp_path / "undisturbed")
    for number in range(10 * wanted):
        if tried.total() == wanted:
            break
        choose = random.Random(f"{name} {number} {os.getpid() if nightly.NIGHTLY else 0}")
        place = tmp_path / f"{number}"
        place.mkdir()
        if operation.marked is not None and choose.random() < 0.5:
            make_older(undisturbed, name, place)
        older = found(place)
        moment = draw(choose, name, undisturbed)
        ended = server.run(name, place, **moment)
        told = f"{name}, attempt {number}, killed at {moment}, {'an older result' if older else 'nothing'} there"
        assert ended.killed or ended.code == 0, f"{told}: {ended.said}"  # or it had ended before
        tried[next(iter(moment))] += ended.killed
        try:
            require_whole(name, place, undisturbed, older)
            whole = found(place) == undisturbed.files
            again = server.run(name, place)
            assert again.code == 0, again.said
            assert again.value == undisturbed.ended.value
            assert same(name, found(place)) == same(name, undisturbed.files)
            # What the killed one had started, pip for example, may have written on for a moment.
            require_tidy(place, idle=whole or bool(moment.get("orphans")))
        except AssertionError as problem:
            problem.add_note(told)
            raise
        if ended.killed:
            count(name, moment)
        shutil.rmtree(place)
    assert tried.total() == wanted


def test_the_kills_of_a_night_are_a_thousand_and_those_of_a_day_forty():
    assert sum(operation.kills[1] for operation in operations.OPERATIONS.values()) == 1000
    assert sum(operation.kills[0] for operation in operations.OPERATIONS.values()) == 40


def test_a_hand_in_that_is_killed_leaves_the_earlier_try_in_one_piece(server, tmp_path):
    """A try begins with a folder of its own; an earlier one is moved aside, and is never torn in two."""
    operation = OPERATIONS["hand in"]
    undisturbed = Undisturbed.of(server, "hand in", tmp_path / "undisturbed")
    moves = server.run("hand in", undisturbed.place).changes  # the second try moves the first
    whole = {path.partition("/")[2]: digest for path, digest in undisturbed.files.items()}
    for number in range(nightly.cases(few=operation.kills[0], nightly=operation.kills[1])):
        choose = random.Random(f"hand in {number}")
        place = tmp_path / f"{number}"
        place.mkdir()
        assert server.run("hand in", place).code == 0
        moment = choose.randrange(12) if choose.random() < 0.5 else choose.randrange(len(moves))  # the moves come first
        ended = server.run("hand in", place, change=moment)
        assert ended.killed, ended.said
        again = server.run("hand in", place)
        assert again.code == 0, again.said
        tries = parts({path.partition("/")[2]: digest for path, digest in found(place).items()}, 2)
        now = {path: digest for held in tries.values() for path, digest in held.items()}
        assert {path: digest for path, digest in now.items() if not path.startswith("earlier/")} == whole
        first = {path.removeprefix("earlier/1/"): digest for path, digest in tries["earlier/1"].items()}
        assert first == whole, f"killed before change {moment}, {moves[moment]}"
        for path, digest in now.items():
            assert digest == whole[path.split("/", 2)[2] if path.startswith("earlier/") else path]
        assert hidden(place) == []
        count("hand in", {"change": moment})
