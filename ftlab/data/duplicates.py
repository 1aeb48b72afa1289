"""Which texts are the same, or nearly: exact copies, copies that differ in writing, and near-duplicates.

Near means that two texts share most of their pairs of neighbouring words (Jaccard similarity of the two sets).
Comparing every text with every other would take hours; MinHash (Broder 1997) makes short signatures that agree as often
as the sets overlap, and banding them (Indyk and Motwani 1998) brings together only the texts that may be similar. What
is found so is then compared exactly.
"""

from __future__ import annotations

import hashlib
import operator
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ftlab.data.words import Words, normalise

NEAR = 0.6  # of the word pairs shared: a tenth of the words changed leaves about 0.65
FEWEST_WORDS = 8  # in shorter texts a handful of common words would already be "most of it"
BANDS, BAND_ROWS = 21, 3  # finds 99.9 % of the pairs at 0.65, and 17 in a million at 0.01
BUCKET = 30  # texts in a bucket up to which all are compared with all; beyond, each with its neighbours
PROMISING = 0.4  # of a signature shared: three standard errors below NEAR


@dataclass(frozen=True)
class NearPairs:
    """Pairs of positions whose texts are near-duplicates, `first` before `second`, with their Jaccard similarity."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def same(texts: Iterable[str]) -> np.ndarray:
    """A group number for each text: equal for texts that are equal after `normalise`."""
    groups: dict[bytes, int] = {}
    keys = (hashlib.blake2b(normalise(text).encode(errors="surrogatepass"), digest_size=16).digest() for text in texts)
    return np.fromiter((groups.setdefault(key, len(groups)) for key in keys), dtype=np.int64)


def near(words: Words, rows: np.ndarray, done: Callable[[int], object] = lambda rows: None) -> NearPairs:
    """The near-duplicates among the texts at the positions `rows`, of which no two should be equal.

    Texts with the very same words, apart by punctuation alone, are near whatever their length; each stands in a pair
    with the first of its kind. `done` is called now and then with the number of texts compared since.
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
    """The exact similarity of each pair of positions: pairs of neighbouring words in both, of those in either."""

    @lru_cache(maxsize=20_000)  # of a template with many copies, each text stands in many pairs
    def bigrams(row: int) -> set[int]:
        return set(words.bigrams(row).tolist())

    similarity = np.zeros(len(first))
    for place, (one, two) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        here, there = bigrams(one), bigrams(two)
        either = len(here | there)
        similarity[place] = len(here & there) / either if either else float((words.row(one) == words.row(two)).all())
    return similarity


def clusters(size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A cluster number for each of `size` positions: equal where a chain of pairs leads from one to the other."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(size, size))
    return connected_components(links, directed=False)[1]


def together(texts: list[str]) -> np.ndarray:
    """A cluster number for each text: equal for texts that are the same or near-duplicates of each other."""
    groups = same(texts)
    firsts = np.unique(groups, return_index=True)[1]
    pairs = near(Words.of(texts), firsts)
    return clusters(len(firsts), groups[pairs.first], groups[pairs.second])[groups]


def _signatures(words: Words, rows: np.ndarray) -> Iterator[np.ndarray]:
    from datasketch import MinHash

    # By the words themselves and not their numbers, so that the order of the rows does not matter. A collision of these
    # 32 bits, which are what datasketch permutes, makes a candidate more, and candidates are compared exactly.
    marks = np.array([zlib.crc32(word.encode()) for word in words.vocabulary], dtype=np.uint32)

    def pairs(row: int) -> list[int]:
        here = marks[words.row(row)]
        return np.unique(here[:-1] * np.uint32(0x9E3779B1) + here[1:]).tolist()

    for sketch in MinHash.generator(map(pairs, rows), num_perm=BANDS * BAND_ROWS, hashfunc=operator.index):
        yield sketch.hashvalues


def _candidates(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of places whose signatures agree in a whole band, each pair once."""
    found: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    size = len(signatures)
    bands = [_mix(signatures[:, start : start + BAND_ROWS]) for start in range(0, BANDS * BAND_ROWS, BAND_ROWS)]
    for band, following in zip(bands, bands[1:] + bands[:1], strict=True):
        # Within a bucket by the next band: where the bucket is too large to compare all, likely pairs are neighbours.
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
    """The share of each pair's signatures that agrees: an estimate of the Jaccard similarity."""
    agree = np.empty(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        agree[part] = (signatures[first[part]] == signatures[second[part]]).mean(axis=1)
    return agree
