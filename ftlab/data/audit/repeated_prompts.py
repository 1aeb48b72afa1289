"""Prompts that repeat with another answer: short ones, which contradict each other, and longer ones.

Two prompts are nearly equal only if nothing that they differ in can change the answer: politeness, articles,
punctuation, a disguise (`normalisation`), or one misspelt word. "Is 7 prime?" and "Is 8 prime?" are two questions.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import pandas as pd

from ftlab.data import normalisation, sources
from ftlab.data.audit import personal_data
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table
from ftlab.data.words import UNSPACED, normalise

FEW_WORDS = 5  # an answer of so many words is a label, a number, yes or no, a name: two such answers contradict
LONGEST = 200  # characters of a short answer
SHOWN = 60  # characters of an answer, as evidence
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # not one between two numbers
FEWEST_CONTENT = 3  # words of a prompt that is compared with others that are nearly equal
FEWEST_LETTERS, WRONG_LETTER = (
    5,
    7,
)  # of a word that may be misspelt, and of one with a wrong letter: shorter ones are words
KNOWN_WORD = 3  # prompts with a word from which on it is no misspelling
COMPARED = 10  # rows of a prompt that is nearly equal, with other answers
Key = tuple[str, ...]
_FILLER = frozenset((
    "a", "an", "the", "please", "pls", "plz", "kindly", "could", "can", "would", "you", "me", "hi", "hello", "hey",
    "thanks", "thank", "just", "tell", "bitte",
))  # fmt: skip
_SHORT_FORMS = (("n't", " not"), ("what's", "what is"), ("who's", "who is"), ("where's", "where is"), ("'re", " are"))
_CONTENT = re.compile(r"\d+(?:[.,]\d+)*|[\w']+|[^\w\s.,;:!?\"']")
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
    return [*_again(there, keys, answers, again), *_nearly(there, keys, answers)]


def _again(there: pd.DataFrame, keys: pd.Series, answers: pd.Series, again: pd.Series) -> list[Finding]:
    """The findings on the rows that ask `again` what an earlier one with the same key asks."""
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


def _nearly(there: pd.DataFrame, keys: pd.Series, answers: pd.Series) -> list[Finding]:
    """The finding on short answers that contradict that of an earlier prompt that is nearly equal."""
    short = answers.map(_is_short)
    if short.sum() < 2:
        return []
    content = {row: _content(prompt) for row, prompt in there.loc[short, "prompt"].items()}
    content = {row: words for row, words in content.items() if len(words) >= FEWEST_CONTENT}
    system = there.loc[[*content], "messages"].map(_system) if "messages" in there else None
    seen: dict[tuple[Key, str], list[int]] = {}
    found: dict[int, tuple[int, str]] = {}
    misspelt = _misspellings(content, there["prompt"])
    for row, words in content.items():
        told = "" if system is None else system[row]
        for key, how in ((words, "politeness, articles, punctuation or a disguise"), *misspelt.get(row, ())):
            rows = seen.setdefault((key, told), [])
            earlier = next((other for other in rows if _differ(answers[other], answers[row])), None)
            if row not in found and earlier is not None and keys[earlier] != keys[row]:
                found[row] = (earlier, how)
            if len(rows) < COMPARED:
                rows.append(row)
    if not found:
        return []
    evidence = _evidence(there, [(row, earlier) for row, (earlier, _) in found.items()])
    evidence["differs_in"] = [found[row][1] for row in sorted(found)]
    first = evidence.iloc[0]
    said = f"nearly the prompt of an earlier row with a contradicting answer in {{count}}; the first is {first['id']}: "
    said += f"{first['answer']!r} after {first['earlier_answer']!r} in {first['same_prompt_as']}"
    return [finding("contradicting_near_prompts", said, evidence=evidence)]


def _content(prompt: str) -> tuple[str, ...]:
    """Return the words and signs of `prompt` that its answer may depend on.

    >>> _content("Please tell me, is the Moon made of cheese?") == _content("is Moon made of cheese")
    True
    """
    text = normalise(prompt)
    if not any(map(unicodedata.decomposition, text)):  # an accent may make another word: "schon" and "schön"
        text = normalisation.comparable(prompt)
    text = text.replace("\u2019", "'")
    for form, whole in _SHORT_FORMS if "'" in text else ():
        text = text.replace(form, whole)
    return tuple(word for word in _CONTENT.findall(text) if word not in _FILLER)


def _misspellings(content: Mapping[int, tuple[str, ...]], prompts: pd.Series) -> dict[int, list[tuple[Key, str]]]:
    """Return for each row the keys, with words on them, that it shares with a prompt in which one word is misspelt.

    A word is misspelt if no other of `prompts` has it, and it is one slip away from the word at its place in another
    prompt, which KNOWN_WORD of them have.
    """
    places: dict[int, list[tuple[int, str]]] = {}
    for row, words in content.items():
        for place, key in _without_each(words):
            word = words[place]
            if len(word) >= FEWEST_LETTERS and word.isalpha() and word.title() not in prompts[row]:  # no name
                places.setdefault(key, []).append((row, word))
    slips = [
        (key, first, second)
        for key, there in places.items()
        if len(there) > 1
        for first, second in combinations(sorted({word for _, word in there[:COMPARED]}), 2)
        if _one_slip(first, second)
    ]
    wanted = {word for _, *pair in slips for word in pair}
    often = Counter(word for text in prompts if wanted for word in {*_CONTENT.findall(normalise(text))} & wanted)
    found: dict[int, list[tuple[Key, str]]] = {}
    for key, *pair in slips:
        wrong, right = sorted(pair, key=lambda word: often[word])
        if often[wrong] <= 1 and often[right] >= KNOWN_WORD:
            for row, word in places[key]:
                if word in pair:
                    found.setdefault(row, []).append(((str(key), *pair), f"{wrong!r} for {right!r}"))
    return found


def _without_each(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Return for each place in `words` a number that is equal for texts that differ only there."""
    size, base = (1 << 61) - 1, 1_000_003
    codes = [hash(word) % size for word in words]
    total, power, powers = 0, 1, []
    for code in codes:
        total = (total + code * power) % size
        powers.append(power)
        power = power * base % size
    for place, (code, at) in enumerate(zip(codes, powers, strict=True)):
        yield place, hash((len(words), place, (total - code * at) % size))


def _one_slip(word: str, other: str) -> bool:
    """Whether one letter too many, too few or wrong, or two that changed places, tell the words apart.

    >>> _one_slip("captial", "capital"), _one_slip("capitl", "capital"), _one_slip("spain", "italy")
    (True, True, False)
    """
    if word == other or min(len(word), len(other)) < FEWEST_LETTERS or word[0] != other[0]:
        return False
    start = next((at for at, pair in enumerate(zip(word, other, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(word), len(other)) if start is None else start
    here, there = word[start:], other[start:]
    if len(here) == len(there):
        return (here[1:] == there[1:] and len(word) >= WRONG_LETTER) or (
            here[:2] == there[1::-1] and here[2:] == there[2:]
        )
    shorter, longer = sorted((here, there), key=len)
    return longer[1:] == shorter


def _evidence(rows: pd.DataFrame, pairs: list[tuple[int, int]]) -> pd.DataFrame:
    pairs = sorted(pairs)
    second, first = ([place for place, _ in pairs], [place for _, place in pairs])
    shown = rows.loc[[*{*second, *first}], "completion"].fillna("").map(personal_data.without_private)
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
    if not answer or len(answer) > LONGEST:
        return False
    unspaced = sum(low <= ord(character) <= high for character in answer for low, high in UNSPACED)
    return len(answer.split()) + unspaced <= FEW_WORDS and not re.search(r"[.!?]\s+\w", answer)


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
