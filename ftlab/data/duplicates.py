"""Duplicates and near-duplicates among texts, their clusters, and the rule for duplicates that contradict each other.

Two texts are near-duplicates if they share most of their word bigrams (Jaccard similarity of the two sets). To compare
all pairs would take hours. MinHash (Broder 1997) makes short signatures that agree as often as the sets overlap, and
banding (Indyk and Motwani 1998) finds the pairs that may be similar. These pairs are then compared exactly.
"""

from __future__ import annotations

import hashlib
import operator
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ftlab.data.words import Words, normalise

NEAR = 0.6  # Jaccard similarity; with a tenth of the words changed it is about 0.65
FEWEST_WORDS = 8  # in shorter texts a few common words are already most of the bigrams
BANDS, BAND_ROWS = 21, 3  # finds 99.9 % of the pairs at 0.65, and 17 in a million at 0.01
BUCKET = 30  # in a bucket of up to so many texts all pairs are compared; in a larger one, neighbours only
PROMISING = 0.4  # share of equal signature values: three standard errors below NEAR


@dataclass(frozen=True)
class NearPairs:
    """Pairs of positions whose texts are near-duplicates, `first` before `second`, with their Jaccard similarity."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def same(texts: Iterable[str]) -> np.ndarray:
    """Return a group number for each of `texts`: equal if they are equal after `normalise`.

    >>> same(["Good film", "bad", "good  film"]).tolist()
    [0, 1, 0]
    """
    groups: dict[bytes, int] = {}
    keys = (hashlib.blake2b(normalise(text).encode(errors="surrogatepass"), digest_size=16).digest() for text in texts)
    return np.fromiter((groups.setdefault(key, len(groups)) for key in keys), dtype=np.int64)


def distinct(texts: Iterable[str], labels: Sequence[int] | None = None) -> np.ndarray:
    """Return the positions of the texts that a split is drawn from, in order: the first of those that are equal.

    This is the rule of every split for rows that contradict each other. Texts whose `labels` differ are left out, all
    of them, since at least one label is wrong. Without `labels` the first is kept: the outputs of a task are free text,
    and two different ones may both be right.

    >>> distinct(["Good", "good", "bad"]).tolist()
    [0, 2]
    >>> distinct(["Good", "good", "bad"], labels=[1, 0, 0]).tolist()
    [2]

    Args:
        texts: equal after `normalise` means equal.
        labels: one for each text.
    """
    _, firsts, of = np.unique(same(texts), return_index=True, return_inverse=True)
    contradicted = np.zeros(len(firsts), dtype=bool)
    if labels is not None:
        found = np.asarray(labels)
        contradicted[of[found != found[firsts][of]]] = True
    return np.sort(firsts[~contradicted])


def near(words: Words, rows: np.ndarray, done: Callable[[int], object] = lambda rows: None) -> NearPairs:
    """Return the near-duplicates among the texts at the positions `rows`, no two of which should be equal.

    Texts that differ in punctuation alone are near-duplicates whatever their length; each is paired with the first of
    them.

    Args:
        words: of all texts.
        rows: positions of the texts to compare.
        done: called from time to time with the number of texts compared since the last call.
    """
    first_of: dict[bytes, int] = {}
    alike = np.array([first_of.setdefault(words.row(row).tobytes(), row) for row in rows], dtype=np.int64)
    again = (alike != rows) & (words.lengths[rows] > 0)
    equal = NearPairs(alike[again], rows[again], np.ones(int(again.sum())))

    kinds = rows[(alike == rows) & (words.lengths[rows] >= FEWEST_WORDS)]
    signatures = np.empty((len(kinds), BANDS * BAND_ROWS), dtype=np.uint32)
    for place, signature in enumerate(_signatures(words, kinds)):
        signatures[place] = signature
        if place % 1000 == 999:
            done(1000)
    first, second = _candidates(signatures)
    agree = _agreement(signatures, first, second)
    first, second = kinds[first[agree >= PROMISING]], kinds[second[agree >= PROMISING]]
    similarity = jaccard(words, first, second)
    close = similarity >= NEAR
    return NearPairs(
        np.append(equal.first, first[close]),
        np.append(equal.second, second[close]),
        np.append(equal.similarity, similarity[close]),
    )


def jaccard(words: Words, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Jaccard similarity of each pair: the bigrams in both texts divided by the bigrams in either.

    >>> words = Words.of(["a good film", "a good plot"])  # "a good" is in both; "good film" and "good plot" in one
    >>> jaccard(words, np.array([0]), np.array([1])).round(2).tolist()
    [0.33]

    Args:
        words: of all texts.
        first: (n,) positions in `words`.
        second: (n,) positions in `words`.
    """

    @lru_cache(maxsize=20_000)  # a text that was made from a template is in many pairs
    def bigrams(row: int) -> set[int]:
        return set(words.bigrams(row).tolist())

    similarity = np.zeros(len(first))
    for place, (one, two) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        here, there = bigrams(one), bigrams(two)
        either = len(here | there)
        similarity[place] = len(here & there) / either if either else float((words.row(one) == words.row(two)).all())
    return similarity


def clusters(size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a cluster number for each of `size` positions: equal if a chain of pairs connects them.

    >>> clusters(4, np.array([0, 1]), np.array([1, 3])).tolist()
    [0, 0, 1, 0]

    Args:
        size: the number of positions.
        first: (n,) one position of each pair.
        second: (n,) the other one.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(size, size))
    return connected_components(links, directed=False)[1]


def together(texts: list[str]) -> np.ndarray:
    """Return a cluster number for each of `texts`: equal for the same texts and for chains of near-duplicates."""
    groups = same(texts)
    firsts = np.unique(groups, return_index=True)[1]
    pairs = near(Words.of(texts), firsts)
    return clusters(len(firsts), groups[pairs.first], groups[pairs.second])[groups]


def _signatures(words: Words, rows: np.ndarray) -> Iterator[np.ndarray]:
    from datasketch import MinHash

    # A hash of the word, and not its id, so that the order of the rows does not matter. datasketch permutes 32 bits; a
    # collision only adds a candidate, and candidates are compared exactly.
    marks = np.array([zlib.crc32(word.encode()) for word in words.vocabulary], dtype=np.uint32)

    def pairs(row: int) -> list[int]:
        here = marks[words.row(row)]
        return np.unique(here[:-1] * np.uint32(0x9E3779B1) + here[1:]).tolist()

    for sketch in MinHash.generator(map(pairs, rows), num_perm=BANDS * BAND_ROWS, hashfunc=operator.index):
        yield sketch.hashvalues


def _candidates(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of positions whose signatures agree in a whole band, each pair once."""
    found: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    size = len(signatures)
    bands = [_mix(signatures[:, start : start + BAND_ROWS]) for start in range(0, BANDS * BAND_ROWS, BAND_ROWS)]
    for band, following in zip(bands, bands[1:] + bands[:1], strict=True):
        # A bucket is sorted by the next band: if it is too large to compare all pairs, likely pairs are neighbours.
        order = np.lexsort((following, band))
        keys = band[order]
        ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, size)
        starts = np.append(0, ends[:-1])
        end_of = np.repeat(ends, ends - starts)
        small = np.repeat(ends - starts <= BUCKET, ends - starts)
        for step in range(1, BUCKET):
            here = np.flatnonzero((np.arange(size) + step < end_of) & (small | (step <= 2)))
            if not len(here):
                break
            one, two = order[here], order[here + step]
            found.append(np.unique(np.minimum(one, two) * size + np.maximum(one, two)))
    pairs = np.unique(np.concatenate(found))
    return pairs // max(1, size), pairs % max(1, size)


def _mix(columns: np.ndarray) -> np.ndarray:
    """One 64-bit number for the values of a band."""
    mixed = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _agreement(signatures: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The share of equal values in the signatures of each pair: an estimate of the Jaccard similarity."""
    agree = np.empty(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        agree[part] = (signatures[first[part]] == signatures[second[part]]).mean(axis=1)
    return agree
