"""Answers that repeat themselves, as a model does that got into a loop."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ftlab.data.audit.source_code import is_code
from ftlab.data.words import UNSPACED

FEWEST_WORDS = 12  # of an answer in which a loop is searched
PIECE = 4  # words: a loop repeats pieces of so many words
# A loop: a phrase of up to 2 words that fills LONG words in a row, of up to 7 words that comes FOUR times or more, or a
# longer one that comes THREE times. In all it has FEWEST_REPEATED words.
LONG, FOUR, THREE, LONG_PHRASE, FEWEST_REPEATED = 12, 4, 3, 8, 12
NUMBERED = 5  # words of a phrase that is compared without its numbers, as items of a list: "Day 1, Day 2" is none
SHOWN = 8  # words of the phrase, as evidence
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"[(\[#]?\d+[.):\],]*")  # the number of an item; one within a word belongs to the word
# What people repeat on purpose: laughter and singing, chords and bases of DNA (in capitals).
_LAUGH = re.compile(
    r"\W*(?:(?:[bm]?wah?|[hxj][aeiou]|hee|la|na|da|ta|do+|dum|boo|bla|blah|lol|tick|tock|tra|\u0445[\u0430\u0435\u0438])+h?"
    r"|[\u54c8\u5475\u563f\u563b\u3046\u3075\u3078\u306f\u30cf\u30d5\u30d8\u308f\u7b11ww\uff57\uff01\u3001\uff0c\u3002!,~\uff5e]+)\W*",
    re.IGNORECASE,
)
_CHORD = re.compile(
    r"\W*(?:[A-H][#b\u266d\u266f]?(?:maj|min|m|dim|sus|aug|add)?\d{0,2}(?:sus\d)?(?:/[A-H][#b]?)?|N\.?C\.?)?\W*"
)
_BASES = re.compile(r"\W*[ACGTUN]{3,}\W*")
# Words of two letters that prose is made of: a loop of them counts.
_SMALL = frozenset(
    ("a", "am", "an", "as", "at", "be", "by", "do", "go", "he", "i", "if", "in", "is", "it", "me", "my", "no", "of",
     "on", "or", "so", "to", "up", "us", "we")
)  # fmt: skip
_CODE = re.compile(r"(?:[-+*/:=<>!]?=|=>|->|[{}\[\]]+[;,]?|.*\w\(.*\)[;:,]?|.*\);|</?\w[^<>]*>.*)")
_WANTED = re.compile(
    r"\b(?:repeat\w*|repetit\w+|again and again|\d+ times|song|lyrics|chorus|refrain|chant|mantra|poem|rhyme|verses?|"
    r"filler|lorem|dummy|tongue.?twister|onomatop\w+)\b",
    re.IGNORECASE,
)


def loop(answer: str, prompt: str = "") -> str:
    """Return what `answer` repeats over and over, with how often, or "". Code in fences is not looked at.

    Args:
        answer: to the prompt.
        prompt: if it asks for something that repeats, such as a song, no loop is found.

    >>> loop("The film is slow. " + "It is a good film. " * 5)
    "'it is a good film.' 5 times in a row"
    >>> loop("It was a very, very, very long film, and I liked each of its many minutes.")
    ''
    """
    if len(answer) < 2 * FEWEST_WORDS:
        return ""
    text = _FENCED.sub(" ", answer) if "```" in answer else answer
    words = _words(text.lower())
    start, period, count = _longest_run(words) if _repeats(words) else (0, 1, 0)
    if not count:
        words = ["0" if _NUMBER.fullmatch(word) else word for word in words]
        start, period, count = _longest_run(words) if _repeats(words) else (0, 1, 0)
        if period < NUMBERED:
            return ""
    phrase = words[start : start + period]
    if not count or not any(map(_WORD.search, phrase)) or _WANTED.search(prompt):
        return ""
    written = _words(text)
    if _on_purpose(written[start : start + period] if len(written) == len(words) else phrase) or is_code(text):
        return ""
    shown = " ".join(phrase[:SHOWN]) + (" ..." if period > SHOWN else "")
    return f"{shown!r} {count // period} times in a row"


def _on_purpose(phrase: Sequence[str]) -> bool:
    """Whether `phrase` is laughter, chords, bases of DNA, a line of code, or codes of a letter or two.

    >>> _on_purpose(["C", "G", "Am", "F"]), _on_purpose(["the", "sea"])
    (True, False)
    """
    if any(_CODE.fullmatch(word[:80]) for word in phrase) or any(
        all(map(pattern.fullmatch, phrase)) for pattern in (_LAUGH, _CHORD, _BASES)
    ):
        return True
    bare = [re.sub(r"\W", "", word) for word in phrase]
    short = phrase[0].isascii() and all(len(word) <= 2 for word in bare)
    return short and not _SMALL.issuperset(word.lower() for word in bare)


def _words(text: str) -> list[str]:
    """The words of `text`; in a script without spaces its characters."""
    words = text.split()
    if text.isascii() or len(text) < 15 * len(words):
        return words
    unspaced = sum(low <= ord(character) <= high for character in text for low, high in UNSPACED)
    return [character for word in words for character in word] if 2 * unspaced > len(text) else words


def _repeats(words: Sequence[str]) -> bool:
    """Whether enough pieces of `words` occur again; cheap, and false for nearly all texts."""
    count = len(words) - PIECE + 1
    return (
        count >= FEWEST_WORDS - PIECE + 1
        and count - len(set(zip(*(words[step:] for step in range(PIECE)), strict=False))) >= PIECE
    )


def _longest_run(words: Sequence[str]) -> tuple[int, int, int]:
    """Return start, period and length of the run in `words` that repeats its first words most often, in words."""
    last: dict[tuple[str, ...], int] = {}
    best, period, start = (0, 1, 0), 0, 0
    for place, piece in enumerate(zip(*(words[step:] for step in range(PIECE)), strict=False)):
        back = place - last.get(piece, place)
        if back != period:
            period, start = back, place - back
        last[piece] = place
        if period and (count := place + PIECE - start) > best[2] and _is_loop(period, count):
            best = (start, period, count)
    return best


def _is_loop(period: int, count: int) -> bool:
    """Whether `count` words in a row that repeat after `period` words are a loop."""
    if count < max(FEWEST_REPEATED, period * 2):
        return False
    if period <= 2:
        return count >= LONG
    return count >= period * (FOUR if period < LONG_PHRASE else THREE)
