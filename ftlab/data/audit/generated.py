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
    answers = _answers(table)
    asked = zip(answers["answer"], answers["prompt"], strict=True)
    refusals = _first_of_each(answers.assign(found=[refusal(answer, prompt) for answer, prompt in asked]), "found")
    cut = _first_of_each(answers.assign(why=cut_off(answers["answer"].tolist())), "why")
    cut["end"] = [text_noise.without_personal_data(answer.rstrip()[-LAST:]) for answer in cut["answer"]]
    found = []
    if len(refusals):
        what = f"an answer that refuses, or speaks of itself as a model, in {{count}}; {_example(refusals, 'found')}"
        found.append(finding("refusal", what, evidence=_without_texts(refusals)))
    if len(cut):
        what = f"an answer that ends in the middle in {{count}}; {_example(cut, 'why')}"
        found.append(finding("cut_off_answer", what, evidence=_without_texts(cut)))
    return found


def _example(rows: pd.DataFrame, column: str) -> str:
    first = rows.iloc[0]
    turn = f", turn {first['turn']}" if "turn" in rows else ""
    return f"the first is {first['id']}{turn}: {first[column]}"


def _answers(table: Table) -> pd.DataFrame:
    """One line for each answer that is not blank: the id of its row, its turn (in conversations), prompt and answer."""
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


def _first_of_each(answers: pd.DataFrame, column: str) -> pd.DataFrame:
    """The first answer of each row that has something in `column`."""
    return answers[answers[column] != ""].drop_duplicates("id")


def _without_texts(answers: pd.DataFrame) -> pd.DataFrame:
    return answers.drop(columns=["prompt", "answer"])
