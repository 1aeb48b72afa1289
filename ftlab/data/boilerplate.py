"""Words that many texts begin or end with: a page, a notice or a signature, with or without line ends.

Such words make unlike texts alike, and hide the copies among them: a copy with a page behind it shares few words with
its source. So they are left out before texts are compared.

If the texts are sorted by their words from the back, those with a common end stand together (as in a suffix array,
Manber and Myers 1993). The longest such end that is shared by enough texts, and by texts that are otherwise unlike, is
taken. The beginnings are found in the same way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ftlab.data.words import FEWEST_WORDS, SHARED_BY, Words, long_lines, may_have_line, without_lines

LONGEST = 2000  # words that are read from an end of a text
READ, NEXT = 10, 200  # texts, and words of each, by which it is judged whether they are otherwise unlike
TRIED = 40  # texts among which these are looked for; some may be too short
STATED_WORDS, STATED_CHARACTERS = 15, 60  # of a block that is named: shorter ones may be idioms, as of film reviews
SEARCHES = 500  # blocks whose characters are looked for; what differs in a letter is looked for again
OPENING = "([{\"'\u201c\u2018\u00ab\u00bf\u00a1"  # it belongs to the word behind it
UNLIKE = 0.15  # Jaccard similarity of the bigrams of two reviews that are no copies: at most about so much


@dataclass(frozen=True)
class Shared:
    """How many words each text shares with SHARED_BY texts or more that are otherwise unlike it.

    Attributes:
        first: (n,) words at the beginning of each text.
        last: (n,) words at its end.
    """

    first: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def shared(words: Words) -> Shared:
    """Return how many of the `words` at the beginning and at the end of each text are boilerplate.

    Blocks of fewer than FEWEST_WORDS words do not count. Nor does a block that would leave fewer than FEWEST_WORDS
    words of a text: it is most of what the text says.
    """
    front, back = _Ends(words, 1), _Ends(words, -1)
    first = front.boilerplate(back.lengths(back.blocks))
    last = back.boilerplate(front.lengths(front.blocks))
    few = words.size(words.starts[:-1] + first, np.maximum(words.starts[:-1] + first, words.starts[1:] - last))
    few = few < FEWEST_WORDS
    return Shared(np.where(few, 0, first), np.where(few, 0, last))


def without_shared(words: Words) -> Words:
    """Return `words` without the words that many texts begin or end with.

    >>> page = "read more reviews like this one on our pages"
    >>> texts = [f"{name} is a film about {name} and the family of {name} {page}" for name in "abcdef"]
    >>> without_shared(Words.of(texts)).row(0).tolist() == Words.of(texts).row(0).tolist()  # templates stay whole
    True
    """
    found = shared(words)
    if not (found.first.any() or found.last.any()):
        return words
    place, lengths = np.arange(len(words.ids)), words.lengths
    unwanted = place < np.repeat(words.starts[:-1] + found.first, lengths)
    return words.without(unwanted | (place >= np.repeat(words.starts[1:] - found.last, lengths)))


@dataclass(frozen=True)
class Boilerplate:
    """What many texts share, as it is written: lines, and what texts begin or end with (the longest first).

    >>> found = Boilerplate(lines=(), beginnings=(), ends=("All rights are reserved.",))
    >>> found.part_of("A long film. All rights are reserved."), found.removed_from("Long. All rights are reserved.")
    ('All rights are reserved.', 'Long.')
    """

    lines: tuple[str, ...]
    beginnings: tuple[str, ...]
    ends: tuple[str, ...]

    def part_of(self, text: str) -> str | None:
        """Return the first of the lines in `text`, or else what it begins or ends with; None if there is nothing."""
        known = frozenset(self.lines)
        lines = long_lines(text) if may_have_line(text, self.lines) else []
        return next((line for line in lines if line in known), None) or self._end_of(text.strip())

    def removed_from(self, text: str) -> str:
        """Return `text` without the lines, and without what it begins or ends with."""
        text = without_lines(text, self.lines) if self.lines else text
        while end := self._end_of(text.strip()):
            text = text.strip()
            text = (text.removeprefix(end) if text.startswith(end) else text.removesuffix(end)).strip()
        return text

    def _end_of(self, text: str) -> str | None:
        """Return what `text` begins or ends with, if something else is beside it."""
        begins = (part for part in self.beginnings if text.startswith(part) and text != part)
        ends = (part for part in self.ends if text.endswith(part) and text != part)
        return next(begins, None) or next(ends, None)


def boilerplate(words: Words, texts: Sequence[str], lines: Iterable[str] = ()) -> Boilerplate:
    """Return the longer parts that many of `texts` begin or end with, as they are written, beside their `lines`.

    Args:
        words: of `texts`.
        texts: to look at; copies among them do not count.
        lines: from `shared_lines`.
    """
    found = shared(words)
    by_side = []
    for counts, at_end in ((found.first, False), (found.last, True)):
        written: set[str] = set()
        searches = 0
        for row in np.flatnonzero(counts >= STATED_WORDS).tolist():
            text = texts[row].strip()
            if any(text.endswith(part) if at_end else text.startswith(part) for part in written):
                continue
            searches += 1
            part = (_last_words if at_end else _first_words)(text, int(counts[row]))
            if len(part) >= STATED_CHARACTERS:
                written.add(part)
            if searches == SEARCHES:
                break
        by_side.append(tuple(sorted(written, key=lambda part: (-len(part), part))))
    return Boilerplate(tuple(lines), *by_side)


def _count(text: str) -> int:
    return len(Words.of([text]).ids)


def _first_words(text: str, count: int) -> str:
    """Return the beginning of `text` with so many words, and the punctuation behind them."""
    size = 8 * count
    while size < len(text) and _count(text[:size]) <= count:
        size *= 2
    end = bisect_right(range(min(size, len(text)) + 1), count, key=lambda end: _count(text[:end])) - 1
    return text[:end].rstrip().rstrip(OPENING).rstrip()


def _last_words(text: str, count: int) -> str:
    """Return the end of `text` with so many words, and quotation marks or brackets before them."""
    size = 8 * count
    while size < len(text) and _count(text[-size:]) <= count:
        size *= 2
    start = max(0, len(text) - size)
    start += bisect_left(range(len(text) - start + 1), -count, key=lambda step: -_count(text[start + step :]))
    while start < len(text) and not text[start].isalnum() and text[start] not in OPENING:
        start += 1
    return text[start:]


class _Ends:
    """The texts by one of their ends: in order of their first words, or of their last words backwards.

    Attributes:
        rows: the positions of the texts that may share words at this end; of equal texts the first.
        blocks: (start, end, depth): the texts rows[start:end] share `depth` words.
    """

    def __init__(self, words: Words, step: int) -> None:
        self.words, self.step = words, step
        keys = {row: words.row(row)[::step][:LONGEST].tobytes() for row in _likely(words, step)}
        # Equal texts are one text here: copies of a text do not make its words boilerplate.
        self.copies: list[list[int]] = []
        for row in sorted(keys, key=keys.__getitem__):
            before = self.copies[-1][0] if self.copies else row
            if before != row and keys[before] == keys[row] and words.lengths[before] == words.lengths[row]:
                self.copies[-1].append(row)
            else:
                self.copies.append([row])
        self.rows = [same[0] for same in self.copies]
        texts = [words.row(row)[::step][:LONGEST] for row in self.rows]
        common = [_common(one, two) for one, two in pairwise(texts)]
        self.blocks = [
            (start, end, depth)
            for start, end, depth in _intervals(common)
            if end - start >= SHARED_BY and depth >= FEWEST_WORDS and self._words_of(start, depth) >= FEWEST_WORDS
        ]

    def _words_of(self, place: int, depth: int) -> int:
        """Return how many words the first (or last) `depth` ids of a text are."""
        start, end = self.words.starts[self.rows[place] : self.rows[place] + 2]
        return int(self.words.size(*((start, start + depth) if self.step > 0 else (end - depth, end))))

    def lengths(self, blocks: list[tuple[int, int, int]]) -> np.ndarray:
        """Return the words of each text that are in one of `blocks`, the longest one."""
        lengths = np.zeros(len(self.words), dtype=np.int64)
        for same, depth in zip(self.copies, _deepest(blocks, len(self.rows)).tolist(), strict=True):
            lengths[same] = depth
        return lengths

    def boilerplate(self, other: np.ndarray) -> np.ndarray:
        """Return the words of each text that are in a block whose texts are otherwise unlike.

        Args:
            other: the words that each text may share at its other end; they do not make two texts alike.
        """
        return self.lengths([block for block in self.blocks if self._otherwise_unlike(block, other)])

    def _otherwise_unlike(self, block: tuple[int, int, int], other: np.ndarray) -> bool:
        """Return whether the texts of a block are mostly unlike without the words that they share.

        Only some of them are read, so that thousands of nested blocks, as in texts that repeat one word, cost little.
        """
        start, end, depth = block
        rests: list[np.ndarray] = []
        for place in np.linspace(start, end - 1, min(end - start, TRIED)).astype(int).tolist():
            row = self.rows[place]
            until = int(self.words.lengths[row] - other[row])
            if len(rests) < READ and until - depth >= FEWEST_WORDS:
                rest = self.words.row(row)[:: self.step][depth : min(until, depth + NEXT)]
                rests.append(np.unique(self.words.bigrams_of(rest)))
        similarity = []
        for one, two in pairwise(rests):
            both = np.intersect1d(one, two, assume_unique=True).size
            similarity.append(both / (len(one) + len(two) - both))
        return len(rests) >= SHARED_BY and float(np.median(similarity)) <= UNLIKE


def _likely(words: Words, step: int) -> list[int]:
    """Return the positions of the texts whose first (or last) FEWEST_WORDS words SHARED_BY texts or more have."""
    rows = np.flatnonzero(words.lengths >= 2 * FEWEST_WORDS)
    if not len(rows):
        return []
    ends = words.starts[rows] if step > 0 else words.starts[rows + 1] - 1
    here = words.ids[ends[:, None] + step * np.arange(FEWEST_WORDS)]
    _, of, counts = np.unique(here, axis=0, return_inverse=True, return_counts=True)
    return rows[counts[of.reshape(-1)] >= SHARED_BY].tolist()


def _common(one: np.ndarray, two: np.ndarray) -> int:
    """Return how many words two texts have in common before the first that differs."""
    size = min(len(one), len(two))
    if not size or one[0] != two[0]:
        return 0
    differs = one[:size] != two[:size]
    return int(differs.argmax()) if differs.any() else size


def _intervals(common: list[int]) -> Iterator[tuple[int, int, int]]:
    """Return (start, end, depth) of each run of neighbours that share `depth` words, where depth cannot be raised.

    `common[i]` is what the texts i and i + 1 share. There are fewer runs than texts (Abouelhoda, Kurtz and Ohlebusch
    2004: the intervals of an array of longest common prefixes).
    """
    stack: list[tuple[int, int]] = []  # (start, depth), the deepest last
    for place, depth in enumerate([*common, 0]):
        start = place
        while stack and stack[-1][1] > depth:
            start, deeper = stack.pop()
            yield start, place + 1, deeper
        if depth and (not stack or stack[-1][1] < depth):
            stack.append((start, depth))


def _deepest(blocks: list[tuple[int, int, int]], size: int) -> np.ndarray:
    """Return for each of `size` places the depth of the innermost block around it; blocks are nested or apart."""
    depths = np.zeros(size, dtype=np.int64)
    inside: list[tuple[int, int]] = []  # (end, depth) of the blocks around `place`, the innermost last
    place = 0

    def fill_until(end: int) -> None:
        nonlocal place
        while inside and inside[-1][0] <= end:
            until, depth = inside.pop()
            depths[place:until] = depth
            place = max(place, until)
        if inside:
            depths[place:end] = inside[-1][1]
        place = max(place, end)

    for start, end, depth in sorted(blocks, key=lambda block: (block[0], -block[1])):
        fill_until(start)
        inside.append((end, depth))
    fill_until(size)
    return depths
