"""What a model leaves in rows that it wrote: refusals, loops, chat markers, and answers that end in the middle.

Also answers that say nothing, and those whose JSON or code fences are broken although others have valid ones.

In a conversation each turn of the assistant is an answer; the evidence then has the number of the turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import chat_markers, personal_data
from ftlab.data.audit.broken_formats import broken
from ftlab.data.audit.cut_off import cut_off
from ftlab.data.audit.empty_answers import empty_like
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.refusals import refusal
from ftlab.data.audit.repetition import loop
from ftlab.data.audit.table import Table

AS_ITS_PROMPT = {"a colon at the end": tuple(":\uff1a"), "a comma at the end": tuple(",\uff0c\u3001\u060c")}
LAST = 40  # characters at the end of an answer, as evidence


def check(table: Table, own: frozenset[str] = frozenset()) -> list[Finding]:
    """Find the rows of `table` with an answer that a model or a chat log has spoilt.

    Args:
        table: the rows under audit.
        own: lines of the template that the rows are trained with; they are no chat markers.
    """
    said = answers(table)
    texts = said["answer"].tolist()
    prompts = said["prompt"].tolist()
    asked = [*zip(texts, prompts, strict=True)]
    kinds = (
        ("refusal", "an answer that refuses, or speaks of itself as a model,", "found",
         [refusal(answer, prompt) for answer, prompt in asked]),
        ("cut_off_answer", "an answer that ends in the middle", "why", _cut_off(asked)),
        ("repetition_loop", "an answer that repeats itself", "found", [loop(*pair) for pair in asked]),
        ("empty_like_answer", "an answer that says nothing", "found", empty_like(texts, prompts)),
        ("broken_format", "a broken format that other answers have whole", "why", broken(texts, prompts)),
    )  # fmt: skip
    found = []
    for finding_id, what, column, spoilt in kinds:
        rows = _first_of_each(said.assign(**{column: spoilt}), column)
        if rows.empty:
            continue
        rows[column] = rows[column].map(personal_data.without_private)
        if finding_id == "cut_off_answer":
            rows["end"] = [personal_data.without_private(answer.rstrip())[-LAST:] for answer in rows["answer"]]
        what = f"{what} in {{count}}; {_example(rows, column)}"
        found.append(finding(finding_id, what, evidence=without_texts(rows)))
    return [*found, *_markers(table, said, own)]


def _cut_off(asked: Sequence[tuple[str, str]]) -> list[str]:
    """How each answer of pairs of answer and prompt is cut off, or "".

    A translation ends in a colon or a comma as its original does.
    """
    return [
        "" if reason in AS_ITS_PROMPT and prompt.rstrip()[-1:] in AS_ITS_PROMPT[reason] else reason
        for reason, (_, prompt) in zip(cut_off([answer for answer, _ in asked]), asked, strict=True)
    ]


def _markers(table: Table, said: pd.DataFrame, own: frozenset[str]) -> list[Finding]:
    """Find the rows with a chat marker in an answer, or in the prompt of a pair."""
    asked = zip(said["answer"], said["prompt"], strict=True)
    seen = said.assign(found=[chat_markers.in_answer(*pair, own) for pair in asked], part="answer")
    if not table.conversations:  # there the prompt is what a user wrote
        marks = seen["prompt"].map(lambda prompt: chat_markers.in_prompt(prompt, own))
        bare = seen["found"] == ""
        seen = seen.assign(found=seen["found"].where(~bare, marks), part=seen["part"].where(~bare, "prompt"))
    rows = _first_of_each(seen, "found")
    if rows.empty:
        return []
    named = ", ".join(repr(mark) for mark in rows["found"].value_counts().index[:3])
    what = f"a chat marker or a heading of another template in {{count}}: {named}"
    return [finding("chat_markers", what, evidence=without_texts(rows))]


def _example(rows: pd.DataFrame, column: str) -> str:
    first = rows.iloc[0]
    turn = f", turn {first['turn']}" if "turn" in rows else ""
    return f"the first is {first['id']}{turn}: {first[column]}"


def answers(table: Table) -> pd.DataFrame:
    """Return a line for each answer of `table` that is not blank: id of its row, turn (in chats), prompt and answer."""
    frame = table.frame
    if not table.conversations:
        there = frame[~sources.blank(frame["completion"])]
        return pd.DataFrame({"id": there["id"], "prompt": there["prompt"].fillna(""), "answer": there["completion"]})
    lines = [
        (row, number, said[number - 2]["content"], turn["content"])
        for row, said in frame[["id", "messages"]].itertuples(index=False)
        for number, turn in enumerate(said or [], start=1)
        if turn["role"] == "assistant"
    ]
    return pd.DataFrame(lines, columns=["id", "turn", "prompt", "answer"])


def without_texts(said: pd.DataFrame) -> pd.DataFrame:
    """Return `said`, lines of `answers`, as evidence, without the texts."""
    return said.drop(columns=["prompt", "answer"])


def _first_of_each(said: pd.DataFrame, column: str) -> pd.DataFrame:
    """The first answer of each row that has something in `column`."""
    return said[said[column] != ""].drop_duplicates("id")
