"""The table of refused conversations quotes what the reader of files says, and the examples are read."""

import json
import re

import pytest

from ftlab.data import conversations
from tests import pages

ASKED, ANSWERED = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be brief."}
# By the first cell of the table: conversations of that kind.
REFUSED = {
    "no list of turns": ["Why?", 3, {"role": "user", "content": "Why?"}, None],
    "no turns": [[], "[]"],
    "a turn with other keys": [[{"speaker": "user", "text": "Why?"}, ANSWERED]],
    "an unknown role": [[{"role": "narrator", "content": "Then"}, ANSWERED]],
    "a call of a tool, or a tool's answer": [[ASKED, {"role": "tool", "content": "4"}, ANSWERED]],
    "pictures, reasoning or calls beside the text": [
        [ASKED, {**ANSWERED, "tool_calls": [{"name": "add"}]}],
        [{**ASKED, "images": ["cat.png"]}, ANSWERED],
        [ASKED, {**ANSWERED, "reasoning_content": "Hm."}],
    ],
    "an empty turn": [[ASKED, {"role": "assistant", "content": " "}], [{"from": "human", "value": ""}, ANSWERED]],
    "a turn of several parts": [
        [{"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, ANSWERED]
    ],
    "two turns of one side in a row": [[ASKED, ASKED, ANSWERED], [ASKED, ANSWERED, ANSWERED]],
    "an answer before a question": [[ANSWERED, ASKED, ANSWERED], [SYSTEM, ANSWERED]],
    "a system turn that is not the first": [[ASKED, SYSTEM, ANSWERED]],
    "no turn of the assistant": [[ASKED]],
    "the user's turn at the end": [[ASKED, ANSWERED, ASKED]],
    "a turn with a weight (`weight`, `train`) other than 1": [[ASKED, {**ANSWERED, "weight": 0}]],
}


@pytest.fixture(scope="module")
def section(repository) -> str:
    text = (repository / "docs" / "your_own_files.md").read_text(encoding="utf-8")
    return text.partition("\n## Conversations\n")[2].partition("\n## ")[0]


def test_each_line_of_the_table_quotes_the_refusal(section):
    lines = dict(re.findall(r"^\| (.+?) \| `(.+?)` \|$", section, re.MULTILINE))
    assert lines.keys() == REFUSED.keys()
    for kind, said in lines.items():
        for value in REFUSED[kind]:
            assert said in conversations.problem_of(value), (kind, value)


def test_the_rows_that_the_page_shows_are_read_alike(section):
    (block,) = pages.blocks(section, "json")
    ways = [conversations.read(json.loads(line).values(), "the page") for line in block.strip().splitlines()]
    assert ways[0] == ways[1]
    assert [turn["role"] for turn in ways[0][0]] == ["user", "assistant"]
