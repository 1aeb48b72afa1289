"""Texts that are the beginning, or a part, of another text.

Such a pair is no near-duplicate: the Jaccard similarity of a text and its first half is a half. So the audit looks for
the words of one text in the other. Two texts are compared if they share runs of five words that few texts have. Not
every run is looked up: of some neighbours the one with the smallest hash is enough (winnowing, Schleimer, Wilkerson and
Aiken 2003). With eight neighbours, two texts that share twelve words in a row share a chosen run. The pairs are then
verified exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ftlab.data.words import FEWEST_WORDS, SHORT, Words

# A part may be edited: one word in TENTH, or one word if it is shorter. An edit changes two bigrams.
TENTH = 10
# The inner text is at least PART of the outer one (half its characters, roughly) or has LONG words, and at most MOST of
# it: a text that is more of another one is its near-duplicate.
PART, LONG, MOST = 0.4, 40, 0.9
RUNS = 0.5  # share of its runs of RUN words: programs have many bigrams in common, in another order
EDITED = 8  # words that a text and its edited copy share at least: in shorter texts an idiom would be enough
MOST_IF_SHORT = 0.75  # like MOST, of a text of under SHORT words that is edited
RUN = 5  # words
# Of how many neighbouring runs one is chosen: each where a text is short, and an edit leaves few runs as they were.
NEIGHBOURS, NEIGHBOURS_IF_SHORT = 8, 1
SHARED = 0.25  # share of chosen runs that other texts have: with an edit of each tenth word, more than this is left
PROBES = 8  # the rarest shared runs of a text, by which other texts are looked up
BUCKET, NEXT = 30, 3  # a run that more texts have leads only to the next longer texts with it
OUTERS = 8  # candidates that are verified for each text, those with the most runs first


@dataclass(frozen=True)
class Contained:
    """Pairs of positions: the text at `inner` is a part of the longer one at `outer`.

    Attributes:
        inner: (n,) positions of the shorter texts.
        outer: (n,) positions of the longer texts.
        share: (n,) share of the inner text's bigrams that the outer text has, in one piece of about its length.
        part: (n,) words of the inner text divided by words of the outer one.
    """

    inner: np.ndarray
    outer: np.ndarray
    share: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.inner)


def contained(words: Words, rows: np.ndarray, done: Callable[[int], object] = lambda rows: None) -> Contained:
    """Return the texts at the positions `rows` that are a part of another one of them, in one piece, edited a little.

    A pair is listed if the inner text has FEWEST_WORDS words or more, and is at least about half as long as the outer
    one or has LONG words. Texts of about the same length are not listed: they are near-duplicates.

    >>> words = Words.of(["the film is long and the plot is thin", "as I said the film is long and the plot is thin"])
    >>> contained(words, np.array([0, 1])).inner.tolist()
    [0]

    Args:
        words: of all texts.
        rows: positions of the texts to compare, no two of which should be equal.
        done: called once with the number of texts.

    Returns:
        The pairs, each once, ordered by the inner text.
    """
    lengths = words.lengths
    # From here on a text is its place among the texts in order of length, so the outer one of a pair comes later.
    texts = rows[words.sizes[rows] >= FEWEST_WORDS]
    texts = texts[np.lexsort((texts, lengths[texts]))]
    sizes = lengths[texts]
    inner, outer, shift = np.concatenate(
        [
            _candidates(words, texts[sizes < LONG / PART], NEIGHBOURS_IF_SHORT),
            _candidates(words, texts[sizes >= LONG], NEIGHBOURS),
        ],
        axis=1,
    )
    inner, outer, shift = (column[_first_of_each(inner, outer)] for column in (inner, outer, shift))
    pairs = zip(inner.tolist(), outer.tolist(), shift.tolist(), strict=True)
    share = np.array([_share(words, *pair) for pair in pairs], dtype=float)
    done(len(rows))
    count = words.sizes[inner] - 1
    # Of a script without spaces, a word may have a character more than the usual word: half a bigram.
    edited = ((1 - share) * count <= _changed(words.sizes[inner]) + 0.5) & (share * count >= EDITED)
    edited &= (words.sizes[inner] >= SHORT) | (lengths[inner] <= MOST_IF_SHORT * lengths[outer])
    kept = np.flatnonzero(edited | (share == 1))
    return Contained(inner[kept], outer[kept], share[kept], lengths[inner[kept]] / lengths[outer[kept]])


def _changed(sizes: np.ndarray) -> np.ndarray:
    """Return how many bigrams of a text of so many words an edit of one word in TENTH changes."""
    return 2 * np.maximum(1, sizes // TENTH)


def _first_of_each(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Return the positions of the pairs that did not occur before, ordered by the inner text, then by the outer one."""
    order = np.lexsort((outer, inner))
    again = (inner[order][1:] == inner[order][:-1]) & (outer[order][1:] == outer[order][:-1])
    return order[np.append(True, ~again)[: len(order)]]


def _chosen_runs(words: Words, texts: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (hash, text, place of its first word) of the chosen runs: by hash, then by text, each once in a text.

    The hash is made of the words, and not of their ids, so that the order of the rows does not matter.
    """
    marks = np.array([zlib.crc32(word.encode(errors="surrogatepass")) for word in words.vocabulary], dtype=np.uint64)
    sizes = words.lengths[texts]
    starts = np.cumsum(sizes) - sizes
    here = marks[words.ids[np.repeat(words.starts[texts] - starts, sizes) + np.arange(sizes.sum())]]
    runs = np.zeros(max(0, len(here) - RUN + 1), dtype=np.uint64)
    for step in range(RUN):
        runs *= np.uint64(0x9E3779B97F4A7C15)
        runs += here[step : step + len(runs)]
        runs ^= runs >> np.uint64(31)
    # A window is so many neighbouring runs of one text, and `smallest` the smallest hash of each window.
    smallest = runs[: max(0, len(runs) - neighbours + 1)].copy()
    for step in range(1, neighbours):
        np.minimum(smallest, runs[step : step + len(smallest)], out=smallest)
    inside = np.ones(len(smallest), dtype=bool)
    for step in range(1, RUN + neighbours - 1):
        inside[starts[1:] - step] = False
    chosen = np.zeros(len(runs), dtype=bool)
    for step in range(neighbours):
        part = slice(step, step + len(smallest))
        chosen[part] |= inside & (runs[part] == smallest)
    places = np.flatnonzero(chosen)
    text = np.repeat(np.arange(len(texts)), sizes)[places]
    hashes = runs[places]
    order = np.argsort(hashes, kind="stable")
    hashes, text, place = hashes[order], text[order], (places - starts[text])[order]
    first = np.append(True, (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1]))[: len(hashes)]
    return hashes[first], text[first], place[first]


def _candidates(words: Words, texts: np.ndarray, neighbours: int) -> np.ndarray:
    """Return pairs of texts that share rare runs: (3, n), the shorter text, the longer one, and the shift.

    The shift says how many words later the shared runs are in the longer text.

    Args:
        words: of all texts.
        texts: positions of the texts to compare, ordered by length.
        neighbours: of how many neighbouring runs one is chosen.
    """
    hashes, text, place = _chosen_runs(words, texts, neighbours)
    ends = np.flatnonzero(np.append(hashes[1:] != hashes[:-1], True)[: len(hashes)]) + 1
    sizes = np.diff(ends, prepend=0)
    size, end = np.repeat(sizes, sizes), np.repeat(ends, sizes)
    shared = size > 1
    often = np.bincount(text[shared], minlength=len(texts)) >= SHARED * np.bincount(text, minlength=len(texts))
    # The texts of a run stand in order of length: `there` is the first that is long enough to contain the one `here`.
    here = np.flatnonzero(shared & often[text])
    lengths = words.lengths[texts][text]
    long = (words.sizes[texts] >= LONG)[text]
    longest = int(lengths.max(initial=0))
    run = np.repeat(np.arange(len(sizes)), sizes) * (longest + 2)
    enough = np.minimum(np.ceil(lengths[here] / MOST).astype(np.int64), longest + 1)
    there = np.searchsorted(run + lengths, run[here] + enough)
    there, here = there[there < end[here]], here[there < end[here]]
    rare = np.lexsort((size[here], text[here]))
    rare = rare[_rank(text[here][rare]) < PROBES]
    here, there = here[rare], there[rare]

    found = [np.empty((3, 0), dtype=np.int64)]
    for step in range(BUCKET):
        more = (there + step < end[here]) & ((size[here] <= BUCKET) | (step < NEXT))
        here, there = here[more], there[more]
        outer = there + step
        fits = (lengths[here] >= PART * lengths[outer]) | long[here]
        one, two = here[fits], outer[fits]
        found.append(np.stack((text[one], text[two], place[two] - place[one])))
    first, second, shift = np.concatenate(found, axis=1)
    order = np.lexsort((shift, second, first))
    first, second, shift = first[order], second[order], shift[order]
    starts = np.flatnonzero(np.append(True, (first[1:] != first[:-1]) | (second[1:] != second[:-1]))[: len(first)])
    votes = np.diff(starts, append=len(first))
    pairs = np.stack((first[starts], second[starts], shift[starts + votes // 2]))  # the median shift
    pairs = pairs[:, np.lexsort((-votes, pairs[0]))]
    first, second, shift = pairs[:, _rank(pairs[0]) < OUTERS]
    return np.stack((texts[first], texts[second], shift))


def _rank(numbers: np.ndarray) -> np.ndarray:
    """Return how many equal numbers stand before each of the sorted `numbers`."""
    return np.arange(len(numbers)) - np.searchsorted(numbers, numbers)


def _share(words: Words, inner: int, outer: int, shift: int) -> float:
    """Return the share of the inner text's bigrams in the piece of the outer one that begins `shift` words later."""
    here = words.row(inner)
    if shift >= 0 and np.array_equal(here, words.row(outer)[shift : shift + len(here)]):
        return 1.0
    slack = max(2, len(here) // 5)  # words that an edit may add
    there = words.row(outer)[max(0, shift - slack) : max(0, shift + len(here) + slack)]
    if len(here) >= LONG and _share_of(_runs(here), _runs(there)) < RUNS:
        return 0.0
    pairs, known = words.bigrams_of(here), words.bigrams_of(there)
    # Two texts that begin with one phrase are no copies: the short one has an end of its own.
    short = int(words.size(words.starts[inner], words.starts[inner + 1])) < SHORT
    if short and here[0] == words.row(outer)[0] and pairs[-1] not in known:
        return 0.0
    return _share_of(pairs, known)


def _runs(ids: np.ndarray) -> np.ndarray:
    """Return a hash for each run of RUN words."""
    runs = np.zeros(max(0, len(ids) - RUN + 1), dtype=np.uint64)
    for step in range(RUN):
        runs *= np.uint64(0x9E3779B97F4A7C15)
        runs += ids[step : step + len(runs)].astype(np.uint64)
        runs ^= runs >> np.uint64(31)
    return runs


def _share_of(here: np.ndarray, there: np.ndarray) -> float:
    """Return the share of `here` that is in `there` too."""
    return float(np.isin(here, there).mean())
