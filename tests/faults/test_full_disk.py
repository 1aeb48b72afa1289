"""A disk that is full: one sentence, exit code 2, nothing half, and the same command works where there is space."""

import pytest

from ftlab import files
from tests import nightly
from tests.faults.operations import OPERATIONS, found, hidden
from tests.faults.small_disks import needs_mounts
from tests.faults.test_kills import parts

COMMANDS = ("merge", "predict", "audit", "fetch")  # of the command line; the others are called as functions
SAID = "the disk is full"


def lines(said: str) -> list[str]:
    """What a command said, without the lines that a bar would be on a terminal."""
    return [line for line in said.splitlines() if line.startswith("ftlab: ") and not line.endswith("...")]


@pytest.mark.parametrize("name", ["save", "merge", "predict", "audit", "store", "tiny", "hand in", "save an adapter"])
@pytest.mark.parametrize("limit", [1, 700] if nightly.NIGHTLY else [700])
def test_a_file_that_cannot_grow_is_one_sentence_and_leaves_nothing_half(server, name, limit, tmp_path):
    """RLIMIT_FSIZE: whoever writes beyond it, Python or a library in Rust or C++, is refused more."""
    ended = server.run(name, tmp_path, limit=limit)
    if name in COMMANDS:
        assert ended.code == 2, ended.said
        assert len(lines(ended.said)) == 1
    else:
        assert ended.code != 0
    assert SAID in ended.said, ended.said
    there = found(tmp_path)
    again = server.run(name, tmp_path)
    assert again.code == 0, again.said
    require_nothing_half(name, there, found(tmp_path))
    assert hidden(tmp_path) == []


def require_nothing_half(name: str, there: dict[str, str], after: dict[str, str]) -> None:
    """Demand that what was left, `there`, is whole, as it is in the result of the next run, `after`."""
    if name == "hand in":  # written file by file; the next try has moved an unfinished one to the folder `earlier`
        of_the_try = {path: digest for path, digest in after.items() if "/earlier/" not in path}
        assert {path: digest for path, digest in there.items() if of_the_try.get(path) != digest} == {}
        return
    depth = OPERATIONS[name].depth
    whole = parts(after, depth)
    assert {part: held for part, held in parts(there, depth).items() if held != whole.get(part)} == {}


@pytest.mark.parametrize(
    ("name", "half", "after"),
    [
        ("save", {"model/a": "1"}, {"model/a": "1", "model/b": "2"}),
        ("tiny", {"home/tiny/model/a": "1"}, {"home/tiny/model/a": "1", "home/tiny/model/b": "2"}),
        ("hand in", {"work/a": "half"}, {"work/a": "1", "work/b": "2", "work/earlier/1/a": "half"}),
    ],
)
def test_what_is_half_is_noticed(name, half, after):
    require_nothing_half(name, {}, after)
    require_nothing_half(name, {path: digest for path, digest in after.items() if "/earlier/" not in path}, after)
    with pytest.raises(AssertionError):
        require_nothing_half(name, half, after)


@needs_mounts
@pytest.mark.parametrize("name", ["save", "merge", "predict", "audit", "store", "tiny", "fetch", "hand in", "train"])
def test_a_small_disk_that_runs_full_is_one_sentence_and_the_retry_with_space_works(server, name, tmp_path):
    ended = server.run(f"{name} on a small disk", tmp_path)
    assert ended.code == 0, ended.said
    full, again = ended.value
    assert full["code"] == (2 if name in COMMANDS else 70), full
    # fetch and merge ask for the space before they begin; Trainer says it in the system's words.
    assert any(words in full["said"] for words in (SAID, "free some space", files.NO_SPACE)), full
    if name in COMMANDS:
        assert len(lines(full["said"])) == 1, full
    if name not in ("hand in", "train"):  # which go on from what they have
        assert full["found"] == {}
        assert [left for left in full["hidden"] if not left.endswith(".lock")] == []
    assert again["code"] == 0, again
    assert again["hidden"] == []
