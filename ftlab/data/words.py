"""Texts as word ids: read once, then compared and counted as numbers; also the lines that many texts share."""

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

# Scripts without spaces between words: each character counts as a word.
UNSPACED = ((0x0E00, 0x0EFF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x3134F))
LINE_END = re.compile(r"\n|<br\s*/?>|</p>", re.IGNORECASE)
SHARED_BY, SHARED_CHARACTERS, SHARED_WORDS = 5, 20, 3


class _Folding(dict[int, str]):
    """A table for `str.translate`: letters, marks and digits stay; every other character becomes a space.

    Combining marks stay because they are the vowels of many scripts.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = unicodedata.category(character)[0] in "LMN"
        spaced = any(low <= code <= high for low, high in UNSPACED)
        self[code] = f" {character} " if kept and spaced else character if kept else " "
        return self[code]


_FOLDING = _Folding()


def normalise(text: str) -> str:
    """Return `text` for comparison: NFKC, case folded, white space reduced to single spaces.

    Punctuation and symbols stay, since they may be the only difference: "great :)" and "great :(".

    >>> normalise(" A GREAT\\n film :)")
    'a great film :)'
    """
    return " ".join(_folded(text).split())


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


@dataclass(frozen=True)
class Words:
    """The words of many texts, without case and punctuation, as ids: text i is `ids[starts[i]:starts[i + 1]]`.

    Equal ids mean equal words, and `vocabulary[id]` is the word.

    >>> words = Words.of(["A good film!", "Good."])
    >>> words.vocabulary, words.row(0).tolist(), words.row(1).tolist()
    (['a', 'good', 'film'], [0, 1, 2], [1])
    """

    ids: np.ndarray
    starts: np.ndarray
    vocabulary: list[str]

    @classmethod
    def of(cls, texts: Iterable[str], done: Callable[[int], object] = lambda rows: None) -> Words:
        """Return the words of `texts`; `done` is called from time to time with the number of texts read since then."""
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
        """The number of words in each text."""
        return np.diff(self.starts)

    def row(self, index: int) -> np.ndarray:
        """Return the word ids of the text at `index`, in order."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def bigrams(self, index: int) -> np.ndarray:
        """Return a number for each bigram of the text at `index`; equal numbers mean equal bigrams."""
        words = self.row(index).astype(np.int64)
        return words[:-1] * len(self.vocabulary) + words[1:]

    def counts(self) -> csr_matrix:
        """Return how often each word is in each text: a sparse matrix of shape (texts, vocabulary)."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self.ids), dtype=np.float32)
        matrix = csr_matrix((ones, self.ids.copy(), self.starts), shape=(len(self), len(self.vocabulary)))
        matrix.sum_duplicates()
        return matrix


def long_lines(text: str) -> list[str]:
    """Return the lines of `text` with at least 20 characters and 3 words; none if it has a single line."""
    if "\n" not in text and "<" not in text:
        return []
    parts = [part.strip() for part in LINE_END.split(text)]
    if len(parts) < 2:
        return []
    return [part for part in parts if len(part) >= SHARED_CHARACTERS and len(part.split()) >= SHARED_WORDS]


def shared_lines(texts: Iterable[str]) -> dict[str, int]:
    """Return the long lines that at least SHARED_BY of `texts` have: line -> number of texts, most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(long_lines(text)))
    return {line: count for line, count in counts.most_common() if count >= SHARED_BY}


def without_lines(text: str, lines: Iterable[str]) -> str:
    """Return `text` without these `lines` and the line ends after them.

    >>> without_lines("Sent from my phone\\nIt is broken.", ["Sent from my phone"])
    'It is broken.'
    """
    unwanted = set(lines)
    parts = re.split(rf"({LINE_END.pattern})", text, flags=LINE_END.flags)
    pieces = zip(parts[::2], [*parts[1::2], ""], strict=True)
    return "".join(part + end for part, end in pieces if part.strip() not in unwanted).strip()
