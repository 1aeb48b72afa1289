"""Rows of one dialogue are linked; rows that share no more than a fixed opening are not."""

import json

import numpy as np
import pytest

from ftlab.data import dialogues, sources, tasks
from ftlab.data.audit import audit_instructions

GREETING = (
    "Hello",
    "Hello and welcome to Acme support. My name is Eva, and I am happy to help. What can I do for you today?",
)
CLOSING = ("Thanks, bye", "Thank you for your call, have a very good day, and do come back whenever you need our help.")


def turns(*said: str) -> list[dict[str, str]]:
    """A conversation in which the user and the assistant take turns."""
    return [
        {"role": role, "content": text} for role, text in zip(["user", "assistant"] * len(said), said, strict=False)
    ]


def own(number: int) -> tuple[str, str]:
    """A question and its answer that are like those of no other number."""
    words = np.random.default_rng(number).integers(10**9, size=24)
    return tuple(" ".join(f"w{word}" for word in part) for part in (words[:8], words[8:]))


def chats(start: int, stop: int) -> list[list[dict[str, str]]]:
    """Support chats that share nothing but their greeting."""
    return [turns(*GREETING, *own(number)) for number in range(start, stop)]


def written(path, rows) -> str:
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("rows", [8, 60])
@pytest.mark.parametrize("shared", ["greeting", "closing"])
def test_a_long_exchange_that_many_rows_share_links_none(rows, shared):
    said = [(*GREETING, *own(n)) if shared == "greeting" else (*own(n), *CLOSING) for n in range(rows)]
    assert len(set(dialogues.clusters([turns(*each) for each in said]))) == rows


@pytest.mark.parametrize("sharing", [2, 5])
@pytest.mark.parametrize("rows", [10, 200])
def test_a_long_exchange_that_a_few_rows_share_links_them(rows, sharing):
    said = [(*own(rows), *own(n)) if n < sharing else own(n) for n in range(rows)]
    numbers = dialogues.clusters([turns(*each) for each in said])
    assert len(set(numbers[:sharing])) == 1
    assert len(set(numbers)) == rows - sharing + 1


def test_an_exchange_that_a_few_rows_repeat_is_not_taken_for_one_of_many_rows():
    again = [turns(*own(99) * 4, *own(n)) for n in range(2)]
    assert len(set(dialogues.clusters(again))) == 1


def test_growing_copies_with_a_common_greeting_stay_linked_each_with_its_own_dialogue():
    said = [(*GREETING, *own(n), *own(n + 100), *own(n + 200)) for n in range(12)]
    grown = [turns(*each[:size]) for each in said for size in (4, 6, 8)]
    numbers = dialogues.clusters(grown).reshape(12, 3)
    assert all(len(set(each)) == 1 for each in numbers)
    assert len(set(numbers[:, 0])) == 12


def test_growing_copies_of_one_dialogue_stay_linked_when_they_are_most_rows():
    said = [text for n in range(9) for text in own(n)]
    grown = [turns(*said[:size]) for size in range(2, 20, 2)]
    assert len(set(dialogues.clusters(grown))) == 1


def test_chats_with_a_fixed_greeting_can_be_split(tmp_path):
    splits = tasks.load(written(tmp_path / "chats.jsonl", chats(0, 200)), rows=None, validation_rows=20, test_rows=20)
    assert splits.sizes == {"train": 160, "validation": 20, "test": 20}


def test_a_fixed_greeting_is_no_leakage(tmp_path):
    train, test = (
        sources.read_conversations(written(tmp_path / f"{name}.jsonl", chats(*numbers)))
        for name, numbers in (("train", (0, 200)), ("test", (200, 240)))
    )
    assert not {"leakage", "near_leakage"} & {found.id for found in audit_instructions(train, test=test).findings}
