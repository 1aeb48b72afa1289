"""Pieces of a text that were found in it, and which one counts where two overlap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """The characters from `start` to `end` of a text, the finding that they belong to, and what they are, in words."""

    start: int
    end: int
    finding: str
    name: str


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Return `spans` in the order of the text; of two that overlap, the one that was given first stays.

    >>> spans = [Span(4, 8, "a", "one"), Span(6, 9, "b", "two"), Span(0, 4, "b", "three")]
    >>> [span.name for span in without_overlaps(spans)]
    ['three', 'one']
    """
    given = list(spans)
    if len(given) < 2:
        return given
    # Sorted by place, a span can only overlap its neighbours; the better one of two (given earlier) stays.
    order = sorted(range(len(given)), key=lambda number: (given[number].start, number))
    kept: list[int] = []
    for number in order:
        stays = True
        while kept and given[kept[-1]].end > given[number].start:
            if kept[-1] < number:
                stays = False
                break
            kept.pop()
        if stays:
            kept.append(number)
    return [given[number] for number in kept]


class Joined:
    """A text without some of its pieces, and the places in the text that it was made from.

    Args:
        text: the whole text.
        gone: start and end of each piece to leave out, in order and apart.

    Attributes:
        text: what is left.

    >>> joined = Joined("ab--cd", [(2, 4)])
    >>> joined.text, joined.start(2), joined.end(2)
    ('abcd', 4, 2)
    """

    def __init__(self, text: str, gone: Sequence[tuple[int, int]]):
        starts = [0, *(end for _, end in gone)]
        ends = [*(start for start, _ in gone), len(text)]
        self.text = "".join(text[start:end] for start, end in zip(starts, ends, strict=True))
        self._starts = [0]  # of each piece that is left, in what is left
        self._before = [0]  # how much is gone before it
        for start, end in gone:
            self._starts.append(start - self._before[-1])
            self._before.append(self._before[-1] + end - start)

    def start(self, place: int) -> int:
        """Return the place in the whole text of the character at `place`."""
        return place + self._before[bisect_right(self._starts, place) - 1]

    def end(self, place: int) -> int:
        """Return the place in the whole text after the character before `place`."""
        return self.start(place - 1) + 1

    def pieces(self, start: int, end: int) -> list[int]:
        """Return the places between `start` and `end` at which a piece was left out."""
        return self._starts[bisect_right(self._starts, start) : bisect_right(self._starts, end - 1)]
