"""Texts as word ids: read once, then compared and counted as numbers; also the lines that many texts share."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Scripts without spaces between words, and about how many characters make a word. There each character has an id of its
# own. Tibetan has a mark after each syllable instead, and its syllables are words here.
UNSPACED = {
    (0x0E00, 0x0EFF): 4,  # Thai and Lao
    (0x1000, 0x109F): 4, (0xA9E0, 0xA9FF): 4, (0xAA60, 0xAA7F): 4,  # Burmese
    (0x1780, 0x17FF): 4,  # Khmer
    (0x3005, 0x3007): 2, (0x3400, 0x4DBF): 2, (0x4E00, 0x9FFF): 2, (0x20000, 0x3134F): 2,  # Chinese characters
    (0x3040, 0x30FF): 2,  # Japanese syllables
}  # fmt: skip
LONGEST_WORD = max(UNSPACED.values())
LINE_END = re.compile(r"\n|<br\s*/?>|</p>", re.IGNORECASE)
TOLD = 1_000_000  # characters after which a bar moves
UNLIMITED, MARKS = 5000, 30  # characters; combining marks on one letter
MARKED = range(0x300, 0x1F000)  # all code points of combining marks are in it
MAYBE_MARKS = re.compile(f"[\u0300-\U0001efff]{{{MARKS + 1}}}")  # ten times as quick as a search for marks alone
SHARED_BY, SHARED_CHARACTERS, SHARED_WORDS = 5, 20, 3
FEW_LINES = 50
FEWEST_WORDS = 8  # of a text that is compared: in shorter ones a few common words are already most of the bigrams
SHORT = 16  # words: a shorter text is another text with a second word changed


class _Folding(dict[int, str]):
    """A table for `str.translate`: letters, marks and digits stay; every other character becomes a space.

    Combining marks stay because they are the vowels of many scripts.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = unicodedata.category(character)[0] in "LMN"
        apart = characters_of_a_word(character) > 1
        self[code] = f" {character} " if kept and apart else character if kept else " "
        return self[code]


_FOLDING = _Folding()


def characters_of_a_word(character: str) -> int:
    """Return about how many characters make a word in the script of `character`; 1 in a script with spaces.

    >>> characters_of_a_word("a"), characters_of_a_word("\u4e00"), characters_of_a_word("\u0e01")
    (1, 2, 4)
    """
    code = ord(character)
    return next((count for (low, high), count in UNSPACED.items() if low <= code <= high), 1)


RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]")
LOWERED = re.compile("[\u2080-\u2089]")


def normalise(text: str) -> str:
    """Return `text` for comparison: NFKC, case folded, white space reduced to single spaces.

    Punctuation and symbols stay, since they may be the only difference: "great :)" and "great :(". So does whether a
    digit is raised or lowered.

    >>> normalise(" A GREAT\\n film :)"), normalise("10\\u00b2")
    ('a great film :)', '10^2')
    """
    if not text.isascii():
        text = RAISED.sub(r"^\g<0>", LOWERED.sub(r"_\g<0>", text))
    return " ".join(_folded(text).split())


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    if len(text) > UNLIMITED and MAYBE_MARKS.search(text):
        text = _many_marks().sub(r"\1", text)
    return unicodedata.normalize("NFKC", text).casefold()


@cache
def _many_marks() -> re.Pattern[str]:
    """Return what finds more marks in a row than any script has, in texts over UNLIMITED characters.

    They are put in order by a sort whose time grows with the square of their number, so a megabyte of them would never
    end (Unicode Standard Annex 15, section 13, has the same limit).
    """
    marks = "".join(character for character in map(chr, MARKED) if unicodedata.combining(character))
    return re.compile(f"([{marks}]{{{MARKS}}})[{marks}]+")


@dataclass(frozen=True)
class Words:
    """The words of many texts, without case and punctuation, as ids: text i is `ids[starts[i]:starts[i + 1]]`.

    Equal ids mean equal words, and `vocabulary[id]` is the word; in a script without spaces, it is a character.

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
        told = characters = 0
        for row, text in enumerate(texts, start=1):
            ids.extend(map(numbers.__getitem__, _folded(text).translate(_FOLDING).split()))
            starts.append(len(ids))
            characters += len(text)
            if row - told == 1000 or characters > TOLD:
                done(row - told)
                told, characters = row, 0
        return cls(np.frombuffer(ids, dtype=np.int32), np.frombuffer(starts, dtype=np.int64), list(numbers))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of ids of each text: its words, or its characters in a script without spaces."""
        return np.diff(self.starts)

    @property
    def sizes(self) -> np.ndarray:
        """The number of words in each text, about so many in a script without spaces.

        >>> Words.of(["a good film", "\u597d\u597d\u597d\u597d"]).sizes.tolist()
        [3, 2]
        """
        return self.size(self.starts[:-1], self.starts[1:])

    def size(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the number of words of each piece of `ids`, from `starts` to `ends`."""
        if self._before is None:
            return ends - starts
        return (self._before[ends] - self._before[starts]) // LONGEST_WORD

    @cached_property
    def _parts(self) -> np.ndarray | None:
        """How many characters make a word, for each word of the vocabulary; None if all are words."""
        parts = [characters_of_a_word(word) if len(word) == 1 else 1 for word in self.vocabulary]
        return np.array(parts, dtype=np.int8) if any(part > 1 for part in parts) else None

    @cached_property
    def _before(self) -> np.ndarray | None:
        """How many words stand before each of `ids`, times LONGEST_WORD; None if each id is a word."""
        if self._parts is None:
            return None
        return np.append(0, np.cumsum((LONGEST_WORD // self._parts)[self.ids], dtype=np.int64))

    def row(self, index: int) -> np.ndarray:
        """Return the word ids of the text at `index`, in order."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def bigrams(self, index: int) -> np.ndarray:
        """Return a number for each bigram of the text at `index`; equal numbers mean equal bigrams.

        In a script without spaces, a bigram is a run of characters, half as many again as a word has. A change of one
        word then changes as large a share of the bigrams as in a script with spaces.
        """
        return self.bigrams_of(self.row(index))

    def bigrams_of(self, ids: np.ndarray, marks: np.ndarray | None = None) -> np.ndarray:
        """Return a number for each bigram of `ids`, a piece of a text.

        Args:
            ids: (n,) of words, in order.
            marks: a number for each word of the vocabulary, uint32, which is used in place of its id.
        """
        numbers, widths = self._bigrams_from(ids, marks)
        if widths is None:
            return numbers[:-1]
        return numbers[np.arange(len(ids)) + widths <= len(ids)]

    def all_bigrams(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (text, number) of the bigrams of all texts, in order."""
        text = np.repeat(np.arange(len(self)), self.lengths)
        numbers, widths = self._bigrams_from(self.ids, None)
        ends = np.repeat(self.starts[1:], self.lengths)
        inside = np.arange(len(self.ids)) + (2 if widths is None else widths) <= ends
        return text[inside], numbers[inside]

    def _bigrams_from(self, ids: np.ndarray, marks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """The number of the bigram that begins at each of `ids`, and how many of them it has (None: 2 each)."""
        here = ids.astype(np.int64) if marks is None else marks[ids]
        factor = here.dtype.type(len(self.vocabulary) if marks is None else 0x9E3779B1)
        numbers = here * factor
        numbers[:-1] += here[1:]
        parts = None if self._parts is None else self._parts[ids]
        if parts is None or not (parts > 1).any():
            return numbers, None
        widths = np.where(parts > 1, parts.astype(np.int64) * 3 // 2, 2)
        for width in {*np.unique(widths[parts > 1]).tolist()}:
            runs = here.copy()
            for step in range(1, width):  # an odd factor, so that no character falls out of the number at its top
                runs *= factor | here.dtype.type(1)
                runs[:-step] += here[step:]
            numbers = np.where((parts > 1) & (widths == width), runs, numbers)
        return numbers, widths

    def replaced(self, rows: Sequence[int], texts: Iterable[str]) -> Words:
        """Return the words of the same texts, but of other `texts` at the positions `rows` (in order).

        >>> words = Words.of(["a good film", "good"]).replaced([1], ["a film again"])
        >>> [words.vocabulary[number] for number in words.row(1)]
        ['a', 'film', 'again']
        """
        if not len(rows):
            return self
        other = Words.of(texts)
        numbers = {word: number for number, word in enumerate(self.vocabulary)}
        here = np.array([numbers.setdefault(word, len(numbers)) for word in other.vocabulary], dtype=np.int32)
        new = here[other.ids]
        pieces, end = [], 0
        for place, row in enumerate(rows):
            pieces += [self.ids[end : self.starts[row]], new[other.starts[place] : other.starts[place + 1]]]
            end = self.starts[row + 1]
        lengths = self.lengths
        lengths[rows] = other.lengths
        return Words(np.concatenate([*pieces, self.ids[end:]]), np.append(0, np.cumsum(lengths)), list(numbers))

    def without(self, unwanted: np.ndarray) -> Words:
        """Return the same texts without the words at which `unwanted` (one entry for each of `ids`) is True."""
        before = np.searchsorted(np.flatnonzero(unwanted), self.starts)
        return Words(self.ids[~unwanted], self.starts - before, self.vocabulary)

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


def may_have_line(text: str, lines: Collection[str]) -> bool:
    """Return False if `text` has none of `lines`. Where these are few, it is quicker than to cut the text in lines."""
    return len(lines) > FEW_LINES or any(line in text for line in lines)


def without_lines(text: str, lines: Iterable[str]) -> str:
    """Return `text` without these `lines` and the line ends after them.

    >>> without_lines("Sent from my phone\\nIt is broken.", ["Sent from my phone"])
    'It is broken.'
    """
    unwanted = set(lines)
    parts = re.split(rf"({LINE_END.pattern})", text, flags=LINE_END.flags)
    pieces = zip(parts[::2], [*parts[1::2], ""], strict=True)
    return "".join(part + end for part, end in pieces if part.strip() not in unwanted).strip()
