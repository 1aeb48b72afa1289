"""Texts as words: read once, then compared, counted and weighed as numbers."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Scripts that put no space between words: each character is taken for a word.
UNSPACED = ((0x0E00, 0x0EFF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x3134F))
LINE_END = re.compile(r"\n|<br\s*/?>|</p>", re.IGNORECASE)
SHARED_BY, SHARED_CHARACTERS, SHARED_WORDS = 5, 20, 3


class _Folding(dict[int, str]):
    """What each character becomes: itself, or a space for punctuation, symbols, white space and control characters.

    Combining marks stay: in many scripts they are the vowels.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = unicodedata.category(character)[0] in "LMN"
        spaced = any(low <= code <= high for low, high in UNSPACED)
        self[code] = f" {character} " if kept and spaced else character if kept else " "
        return self[code]


_FOLDING = _Folding()


def normalise(text: str) -> str:
    """The text as two copies of it compare: NFKC, case folded, white space reduced.

    Punctuation and symbols stay, since they can be the whole difference: "great :)" and "great :(".

    >>> normalise("A GREAT  film") == normalise("a great film")
    True
    """
    return " ".join(_folded(text).split())


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


@dataclass(frozen=True)
class Words:
    """The words of many texts, without case and punctuation, as ids: text i is `ids[starts[i]:starts[i + 1]]`.

    Equal ids mean equal words, so that comparing and counting need no strings. `vocabulary[id]` is the word.
    """

    ids: np.ndarray
    starts: np.ndarray
    vocabulary: list[str]

    @classmethod
    def of(cls, texts: Iterable[str], done: Callable[[int], object] = lambda rows: None) -> Words:
        """Read the texts; `done` is called now and then with the number of texts read since."""
        numbers: defaultdict[str, int] = defaultdict()
        numbers.default_factory = numbers.__len__  # an unknown word gets the next number
        ids, starts = array("i"), array("q", [0])
        for row, text in enumerate(texts, start=1):
            ids.extend(map(numbers.__getitem__, _folded(text).translate(_FOLDING).split()))
            starts.append(len(ids))
            if row % 1000 == 0:
                done(1000)
        return cls(np.frombuffer(ids, dtype=np.int32), np.frombuffer(starts, dtype=np.int64), list(numbers))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Words in each text."""
        return np.diff(self.starts)

    def row(self, index: int) -> np.ndarray:
        """The word ids of one text, in order."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def bigrams(self, index: int) -> np.ndarray:
        """A number for each pair of neighbouring words in one text; equal numbers mean equal pairs."""
        words = self.row(index).astype(np.int64)
        return words[:-1] * len(self.vocabulary) + words[1:]

    def counts(self) -> csr_matrix:
        """How often each text holds each word: a sparse matrix of shape (texts, vocabulary)."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self.ids), dtype=np.float32)
        matrix = csr_matrix((ones, self.ids.copy(), self.starts), shape=(len(self), len(self.vocabulary)))
        matrix.sum_duplicates()
        return matrix


def long_lines(text: str) -> list[str]:
    """The lines of a text of several lines that are long enough to say something."""
    if "\n" not in text and "<" not in text:
        return []
    parts = [part.strip() for part in LINE_END.split(text)]
    if len(parts) < 2:
        return []
    return [part for part in parts if len(part) >= SHARED_CHARACTERS and len(part.split()) >= SHARED_WORDS]


def shared_lines(texts: Iterable[str]) -> dict[str, int]:
    """Lines of some length that stand in several of the texts, with the number of texts; the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(long_lines(text)))
    return {line: count for line, count in counts.most_common() if count >= SHARED_BY}


def without_lines(text: str, lines: Iterable[str]) -> str:
    """The text without these lines and the line ends after them."""
    unwanted = set(lines)
    parts = re.split(rf"({LINE_END.pattern})", text, flags=LINE_END.flags)
    pieces = zip(parts[::2], [*parts[1::2], ""], strict=True)
    return "".join(part + end for part, end in pieces if part.strip() not in unwanted).strip()
