"""Answers with broken JSON or code fences, where most others of the same rows have valid ones.

An answer in prose to another kind of question ("Thanks!", "What is JSON?") is not broken. So an answer should be JSON
if its prompt has the words that the prompts of the JSON answers share, or if it has their names ("order", "item").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab.data.audit.cut_off import sure_sign

FEWEST, MOST = 10, 0.9  # answers that are valid, and their share of those that should be
ALL = 0.8  # share of all answers that are valid JSON: then each answer should be
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
_FENCED = re.compile(r"\s*```(?:json|JSON)?[ \t]*\n(?P<inside>.*?)\n?[ \t]*```\s*\Z", re.DOTALL)
_LIKE_JSON = re.compile(r"\s*(?:\{\s*\"|\[\s*[{\[\"])")
_OPENS = re.compile(r"[{\[]")
SHARED, READ = 0.5, 1000  # of the prompts, or of the answers, that share a word or a name; characters that are read


@dataclass(frozen=True)
class _Kind:
    """What the prompts and the answers in JSON have in common.

    Attributes:
        words: that at least half of the prompts have.
        one: whether all rows have one prompt, or their prompts are not known.
        names: of the members that at least half of the answers have.
    """

    words: frozenset[str]
    one: bool
    names: frozenset[str]

    @staticmethod
    def of(prompts: Sequence[str], values: Sequence[Any]) -> _Kind:
        names = (value[0] if isinstance(value, list) and value else value for value in values)
        return _Kind(
            words=_shared(map(_words, prompts), len(prompts)),
            one=len(set(prompts)) == 1,
            names=_shared((set(value) if isinstance(value, dict) else set() for value in names), len(values)),
        )

    def asks(self, prompt: str) -> bool:
        """Whether `prompt` asks for such an answer."""
        if self.one or not self.words:
            return self.one
        return len(self.words & _words(prompt)) >= max(1, SHARED * len(self.words))

    def has_names(self, answer: str) -> bool:
        """Whether `answer` has half of the names or more, each before a colon."""
        text = answer[-READ:] if len(answer) > READ else answer
        found = sum(re.search(rf"(?<!\w){re.escape(name)}[\"']?\s*:", text) is not None for name in self.names)
        return bool(self.names) and found >= SHARED * len(self.names)


def _words(prompt: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", prompt[:READ].lower()))


def _shared(sets: Iterable[set[str]], number: int) -> frozenset[str]:
    counts = Counter(each for one in sets for each in one)
    return frozenset(each for each, count in counts.items() if count >= SHARED * number)


def broken(answers: Sequence[str], prompts: Sequence[str] | None = None) -> list[str]:
    """Return for each of `answers` what is broken in its JSON or its code fences, or "".

    A code fence or JSON that is open at the end is left to `cut_off`.

    Args:
        answers: of all rows.
        prompts: the prompt of each; without them, all answers are to one prompt.

    >>> broken(['{"a": 1}'] * 10 + ['{"a": 1,}', '{"a": [1, 2}'])[-2:]
    ['a mistake in the JSON, line 1', '']
    """
    reasons = [""] * len(answers)
    asked = [""] * len(answers) if prompts is None else prompts
    for place, reason in [*_json(answers, asked), *_fences(answers)]:
        if not reasons[place] and not sure_sign(answers[place]):
            reasons[place] = reason
    return reasons


def _json(answers: Sequence[str], prompts: Sequence[str]) -> list[tuple[int, str]]:
    like = [place for place, answer in enumerate(answers) if _LIKE_JSON.match(_unfenced(answer))]
    if len(like) < FEWEST:
        return []
    mistakes = {place: _mistake(_unfenced(answers[place])) for place in like}
    valid = sum(not mistake for mistake in mistakes.values())
    there = [place for place, answer in enumerate(answers) if answer.strip()]
    if valid >= max(FEWEST, ALL * len(there)):
        mistakes |= {place: _no_json(answers[place]) for place in there if place not in mistakes}
    elif valid < max(FEWEST, MOST * len(like)):
        return []
    found = [(place, mistake) for place, mistake in mistakes.items() if mistake]
    if not found:
        return []
    whole = [place for place in like if not mistakes[place]]
    kind = _Kind.of([prompts[place] for place in whole], [_value(answers[place]) for place in whole])
    return [
        (place, mistake)
        for place, mistake in found
        if kind.asks(prompts[place]) or kind.has_names(answers[place]) or (place in like and not kind.names)
    ]


def _value(answer: str) -> Any:
    """The value of valid JSON; of lines of JSON the first."""
    try:
        return json.JSONDecoder().raw_decode(_unfenced(answer).lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _unfenced(answer: str) -> str:
    """The JSON of an answer that has nothing but a code fence around it; else the answer."""
    return match["inside"] if "```" in answer and (match := _FENCED.match(answer)) else answer


def _mistake(text: str) -> str:
    """Return the mistake in `text`, which should be JSON or lines of JSON, or ""."""
    try:
        json.loads(text)
    except json.JSONDecodeError as problem:
        if problem.msg == "Extra data" and _lines_of_json(text):
            return ""
        if problem.msg == "Extra data":
            return f"text after the JSON, line {problem.lineno}"
        return f"a mistake in the JSON, line {problem.lineno}"
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets within brackets
        return ""
    return ""


def _lines_of_json(text: str) -> bool:
    try:
        return all(isinstance(json.loads(line), dict | list) for line in text.splitlines() if line.strip())
    except (ValueError, RecursionError):
        return False


def _no_json(answer: str) -> str:
    """Return what an answer is that does not begin with JSON, although all others do; "" for another JSON value."""
    try:
        json.loads(_unfenced(answer))
    except RecursionError:
        return ""
    except ValueError:
        return "text around the JSON" if _OPENS.search(answer) else "no JSON"
    return ""


def _fences(answers: Sequence[str]) -> list[tuple[int, str]]:
    counts = {place: len(_FENCE.findall(answer)) for place, answer in enumerate(answers) if "```" in answer}
    balanced = sum(count > 0 and count % 2 == 0 for count in counts.values())
    if balanced < max(FEWEST, MOST * len(counts)):
        return []
    return [(place, "a code fence that is closed but never opened") for place, count in counts.items() if count % 2]
