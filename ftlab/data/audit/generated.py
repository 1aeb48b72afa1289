"""What a model leaves in rows that it wrote: refusals, and answers that end in the middle.

In a conversation each turn of the assistant is an answer; the evidence then has the number of the turn.
"""

from __future__ import annotations

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import text_noise
from ftlab.data.audit.cut_off import cut_off
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.refusals import refusal
from ftlab.data.audit.table import Table

LAST = 40  # characters at the end of an answer, as evidence


def check(table: Table) -> list[Finding]:
    """Find the rows of `table` with an answer that refuses or is cut off."""
    said = answers(table)
    asked = zip(said["answer"], said["prompt"], strict=True)
    refusals = _first_of_each(said.assign(found=[refusal(answer, prompt) for answer, prompt in asked]), "found")
    cut = _first_of_each(said.assign(why=cut_off(said["answer"].tolist())), "why")
    cut["end"] = [text_noise.without_personal_data(answer.rstrip()[-LAST:]) for answer in cut["answer"]]
    found = []
    if len(refusals):
        what = f"an answer that refuses, or speaks of itself as a model, in {{count}}; {_example(refusals, 'found')}"
        found.append(finding("refusal", what, evidence=without_texts(refusals)))
    if len(cut):
        what = f"an answer that ends in the middle in {{count}}; {_example(cut, 'why')}"
        found.append(finding("cut_off_answer", what, evidence=without_texts(cut)))
    return found


def _example(rows: pd.DataFrame, column: str) -> str:
    first = rows.iloc[0]
    turn = f", turn {first['turn']}" if "turn" in rows else ""
    return f"the first is {first['id']}{turn}: {first[column]}"


def answers(table: Table) -> pd.DataFrame:
    """Return a line for each answer that is not blank: id of its row, turn (in conversations), prompt and answer."""
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
    """Return lines of `answers` as evidence, without the texts."""
    return said.drop(columns=["prompt", "answer"])


def _first_of_each(said: pd.DataFrame, column: str) -> pd.DataFrame:
    """The first answer of each row that has something in `column`."""
    return said[said[column] != ""].drop_duplicates("id")
