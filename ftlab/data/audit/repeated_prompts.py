"""Prompts that repeat with another answer: short ones, which contradict each other, and longer ones."""

from __future__ import annotations

import re

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import text_noise
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table
from ftlab.data.words import UNSPACED, normalise

FEW_WORDS = 5  # an answer of so many words is a label, a number, yes or no, a name: two such answers contradict
SHOWN = 60  # characters of an answer, as evidence
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # not one between two numbers
_AROUND = " .!?。！？।؟\"'“”`*"  # noqa: RUF001


def check(table: Table) -> list[Finding]:
    """Find rows with the prompt of an earlier row and another answer; each is in one finding.

    If both answers are short and say different things (`_differ`), they contradict each other. Longer texts may both be
    right. A row with the first row's answer is left to the search for duplicates.
    """
    there = table.frame[~sources.blank(table.frame["prompt"])]
    keys = there["prompt"].map(normalise) + (there["messages"].map(_system) if table.conversations else "")
    answers = there["completion"].fillna("").map(normalise)
    again = (answers != answers.groupby(keys).transform("first")) & (keys != "")
    if not again.any():
        return []
    repeated = keys.isin(keys[again])
    short = answers[repeated].map(_is_short)
    contradicting, others = [], []
    for _, places in there.index[repeated].to_series().groupby(keys[repeated], sort=False):
        first = places.iloc[0]
        seen: dict[str, int] = {}  # short answers, and the first row of each
        for place in places:
            said = answers[place]
            earlier = next((row for text, row in seen.items() if _differ(text, said)), None)
            if again[place] and short[place] and earlier is not None:
                contradicting.append((place, earlier))
            elif again[place]:
                others.append((place, first))
            if short[place]:
                seen.setdefault(said, place)
    what = "the prompt of an earlier row with {} in {{count}}"
    found = []
    if contradicting:
        evidence = _evidence(there, contradicting)
        first = evidence.iloc[0]
        said = f"{what.format('a contradicting answer')}; the first is {first['id']}: {first['answer']!r} after "
        said += f"{first['earlier_answer']!r} in {first['same_prompt_as']}"
        found.append(finding("contradicting_answers", said, evidence=evidence))
    if others:
        evidence = _evidence(there, others)
        found.append(finding("duplicate_prompts", what.format("another completion"), evidence=evidence))
    return found


def _evidence(rows: pd.DataFrame, pairs: list[tuple[int, int]]) -> pd.DataFrame:
    pairs = sorted(pairs)
    second, first = ([place for place, _ in pairs], [place for _, place in pairs])
    shown = rows.loc[[*{*second, *first}], "completion"].fillna("").map(text_noise.without_personal_data)
    return pd.DataFrame(
        {
            "id": rows["id"].loc[second].to_numpy(),
            "same_prompt_as": rows["id"].loc[first].to_numpy(),
            "answer": shown.loc[second].str[:SHOWN].to_numpy(),
            "earlier_answer": shown.loc[first].str[:SHOWN].to_numpy(),
        }
    )


def _is_short(answer: str) -> bool:
    """Whether the normalised `answer` is a few words in one line; not blank, which is a finding of its own."""
    unspaced = sum(low <= ord(character) <= high for character in answer for low, high in UNSPACED)
    return bool(answer) and len(answer.split()) + unspaced <= FEW_WORDS and not re.search(r"[.!?]\s+\w", answer)


def _differ(answer: str, other: str) -> bool:
    """Whether two normalised answers differ by more than spelling, and neither begins with the whole other one.

    >>> _differ("yes", "no"), _differ("yes.", "yes"), _differ("5mg", "5 mg"), _differ("yes", "yes, it is")
    (True, False, False, False)
    """
    shorter, longer = sorted((_spelled(answer), _spelled(other)), key=len)
    if _SPACE.sub("", shorter) == _SPACE.sub("", longer):
        return False
    return not shorter or not re.match(rf"{re.escape(shorter)}(?:[,;:.!?]?\s)", longer)


def _spelled(answer: str) -> str:
    """Return `answer` in one spelling: numbers in digits, without a sign between thousands."""
    words = (str(_NUMBERS.index(word)) if word in _NUMBERS else word for word in answer.strip(_AROUND).split())
    return re.sub(r"(?<=\d)[, ](?=\d{3}(?!\d))", "", " ".join(words))


def _system(messages: list[dict[str, str]] | None) -> str:
    """The system text of a conversation, as part of the key of its prompt: another one may ask for another answer."""
    told = messages[0] if isinstance(messages, list) and messages else {}
    return "\n" + normalise(told["content"]) if told.get("role") == "system" else ""
