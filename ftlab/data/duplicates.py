"""Copies among texts (disguised, edited, cut, from a template), their clusters, and copies that contradict each other.

Two texts are near-duplicates if they share most of their word bigrams (Jaccard similarity of the two sets). To compare
all pairs would take hours. MinHash (Broder 1997) makes short signatures that agree as often as the sets overlap, and
banding (Indyk and Motwani 1998) finds the pairs that may be similar. These pairs are then compared exactly.

Copies that differ in the writing alone have equal skeletons (`normalisation`); a part of a text is found by
`containment`; and what many texts begin or end with is left out before they are compared (`boilerplate`).
"""

from __future__ import annotations

import hashlib
import operator
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ftlab.data import normalisation
from ftlab.data.boilerplate import without_shared
from ftlab.data.containment import Contained, contained
from ftlab.data.words import FEWEST_WORDS, SHORT, Words, normalise

NEAR = 0.6  # Jaccard similarity; with a tenth of the words changed it is about 0.65
CHANGED = 2  # bigrams that a changed word is in
BANDS, BAND_ROWS = 21, 3  # finds 99.9 % of the pairs at 0.65, and 17 in a million at 0.01
BUCKET = 30  # in a bucket of up to so many texts all pairs are compared; in a larger one, neighbours only
OF_NAMES = 3  # texts that are equal but for names, before they are taken for a template
FIXED = 0.9  # share of the texts of a template that have a word which belongs to the template
FEW, OFTEN = 5, 0.1  # texts, and share of all texts, that a template links at most
SIGNS_TELL = 40  # words: in a longer text, another sign is no more than an edit
PROMISING = 0.4  # share of equal signature values: three standard errors below NEAR


@dataclass(frozen=True)
class NearPairs:
    """Pairs of positions whose texts are near-duplicates, `first` before `second`, with their Jaccard similarity."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Forms:
    """Each text in five forms, from the strictest to the widest, as numbers: equal numbers mean equal forms.

    Attributes:
        same: (n,) after `normalise`.
        skeletons: (n,) after `normalisation.skeleton`: copies, however they are disguised. Texts with different accents
            are different texts, unless one of them has none, or hardly any.
        written: (n,) like `skeletons`, but all texts with different accents are different.
        numbers: (n,) with a class in place of each number; -1 for a text without numbers, or with little else.
        names: (n,) with a class in place of each name too; -1 for a text without names, or with little else.
    """

    same: np.ndarray
    written: np.ndarray
    skeletons: np.ndarray
    numbers: np.ndarray
    names: np.ndarray

    @property
    def firsts(self) -> np.ndarray:
        """The position of the first text of each skeleton, in order."""
        return np.unique(self.skeletons, return_index=True)[1]


def forms(texts: Iterable[str]) -> Forms:
    """Return the forms of `texts` by which copies are found.

    >>> texts = ["The caf\u00e9 on the beach is good", "the cafe on the beach isgood", "the cafe on the beach is bad"]
    >>> forms(texts).skeletons
    array([0, 0, 1])
    """
    same, skeletons, numbers, names = _Numbers(), _Skeletons(), _Numbers(), _Numbers()
    for text in texts:
        normal = normalise(text)
        same.add(normal)
        skeleton = skeletons.add(normalisation.normal(text, normal))
        template = normalisation.numbers_as_class(skeleton)
        numbers.add(template if template != skeleton and _is_template(template, skeleton) else None)
        named = normalisation.names_as_class(text)
        template = normalisation.template(text) if named is not text and named != text else ""
        names.add(template if template and _is_template(template, skeleton) else None)
    return Forms(same.array(), skeletons.written(), skeletons.array(), numbers.array(), names.array())


def _is_template(template: str, skeleton: str) -> bool:
    """Return whether most of the text is left beside the numbers and names."""
    fixed = len(template) - template.count(normalisation.NUMBER) - template.count(normalisation.NAME)
    return fixed > normalisation.SHORT and 2 * fixed >= len(skeleton)


class _Numbers:
    """A number for each different text, by hash, so that the texts need not be kept; -1 for None."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}
        self.given = array("q")

    def add(self, text: str | None) -> None:
        if text is None:
            self.given.append(-1)
        else:
            key = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
            self.given.append(self.known.setdefault(key, len(self.known)))

    def array(self) -> np.ndarray:
        return np.array(self.given, dtype=np.int64)


class _Skeletons:
    """A number for each different skeleton; accents are left out where a text without them is there.

    Two words may differ in an accent alone, but nobody writes some accents and leaves out others of a word.
    """

    def __init__(self) -> None:
        self.bare, self.accented = _Numbers(), _Numbers()
        self.accents: dict[int, int] = {}  # of the texts that have some, by their number

    def add(self, normal: str) -> str:
        """Add a text that `normalisation.normal` has returned; return its skeleton."""
        skeleton = normalisation.skeleton_of(normal)
        with_accents = skeleton if normal.isascii() else normalisation.accented_skeleton_of(normal)
        self.bare.add(skeleton)
        self.accented.add(with_accents)
        if with_accents != skeleton:
            self.accents[self.accented.given[-1]] = normalisation.accents_of(with_accents)
        return skeleton

    def written(self) -> np.ndarray:
        """The numbers of the skeletons with their accents."""
        return self.accented.array()

    def array(self) -> np.ndarray:
        """The numbers of the skeletons, from 0 without a gap, in order of the texts."""
        if not self.accents:
            return self.bare.array()
        variants: dict[int, set[int]] = {}
        for bare, accented in zip(self.bare.given, self.accented.given, strict=True):
            variants.setdefault(bare, set()).add(accented)
        stands_for: dict[int, int] = {}
        for numbers in variants.values():
            plainest = min(numbers, key=lambda number: (self.accents.get(number, 0), number))
            few = 10 * self.accents.get(plainest, 0)
            stands_for |= {number: plainest for number in numbers if self.accents.get(number, 0) >= few}
        kept: dict[int, int] = {}
        return np.array(
            [kept.setdefault(stands_for.get(number, number), len(kept)) for number in self.accented.given],
            dtype=np.int64,
        )


def same(texts: Iterable[str]) -> np.ndarray:
    """Return a group number for each of `texts`: equal if they are equal after `normalise`.

    >>> same(["Good film", "bad", "good  film"]).tolist()
    [0, 1, 0]
    """
    numbers = _Numbers()
    for text in texts:
        numbers.add(normalise(text))
    return numbers.array()


def copies(texts: Iterable[str]) -> np.ndarray:
    """Return a group number for each of `texts`: equal if they are copies, however they are disguised (see `Forms`)."""
    numbers = _Skeletons()
    for text in texts:
        numbers.add(normalisation.normal(text))
    return numbers.array()


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


def near(
    words: Words,
    rows: np.ndarray,
    done: Callable[[int], object] = lambda rows: None,
    *,
    if_short: float = CHANGED,
    texts: Sequence[str] | None = None,
) -> NearPairs:
    """Return the near-duplicates among the texts at the positions `rows`, no two of which should be equal.

    Texts that differ in punctuation alone are near-duplicates whatever their length; each is paired with the first of
    them. With `texts`, short ones are not if they differ in signs that tell them apart, such as "C" and "C++".

    Args:
        words: of all texts.
        rows: positions of the texts to compare.
        done: called from time to time with the number of texts compared since the last call.
        if_short: in texts of under SHORT words, the bigrams of one of them that the other may lack.
        texts: all texts; None to compare words alone.
    """
    first_of: dict[tuple[bytes, str], int] = {}
    said = [words.row(row).tobytes() for row in rows]
    often = Counter(said)
    signs = [
        telling_signs(words, texts, int(row)) if texts is not None and often[key] > 1 else ""
        for key, row in zip(said, rows, strict=True)
    ]
    keys = zip(zip(said, signs, strict=True), rows, strict=True)
    alike = np.array([first_of.setdefault(key, row) for key, row in keys], dtype=np.int64)
    again = (alike != rows) & (words.lengths[rows] > 0)
    equal = NearPairs(alike[again], rows[again], np.ones(int(again.sum())))

    kinds = rows[(alike == rows) & (words.sizes[rows] >= FEWEST_WORDS)]
    signatures = np.empty((len(kinds), BANDS * BAND_ROWS), dtype=np.uint32)
    for place, signature in enumerate(_signatures(words, kinds)):
        signatures[place] = signature
        if place % 1000 == 999:
            done(1000)
    first, second = _candidates(signatures)
    agree = _agreement(signatures, first, second)
    first, second = kinds[first[agree >= PROMISING]], kinds[second[agree >= PROMISING]]
    similarity = jaccard(words, first, second)
    close = (similarity >= NEAR) & (_lacking(words, first, second) <= if_short)
    if texts is not None:  # with the same words, short texts that are near were paired above
        pairs = zip(first.tolist(), second.tolist(), strict=True)
        same_words = np.array([np.array_equal(words.row(one), words.row(two)) for one, two in pairs], dtype=bool)
        close &= ~(same_words & (words.sizes[first] < SIGNS_TELL))
    return NearPairs(
        np.append(equal.first, first[close]),
        np.append(equal.second, second[close]),
        np.append(equal.similarity, similarity[close]),
    )


def telling_signs(words: Words, texts: Sequence[str], row: int) -> str:
    """Return the signs that tell a short text from another one with the same words; nothing for a long one.

    In a longer text, an edited sign is like an edited word. Nothing is returned either where words were taken out
    of the text (`compared`), since the signs may have been among them.
    """
    size = int(words.size(words.starts[row], words.starts[row + 1]))
    if size >= SIGNS_TELL or words.lengths[row] < Words.of([normalisation.comparable(texts[row])]).lengths[0]:
        return ""
    return normalisation.signs(texts[row], short=size < FEWEST_WORDS)


def _lacking(words: Words, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how many bigrams of one text of each pair the other lacks; 0 if neither is under SHORT words.

    In scripts without spaces, where a bigram is a run of characters, they are counted in words.
    """
    lacking = np.zeros(len(first))
    for place in np.flatnonzero(np.minimum(words.sizes[first], words.sizes[second]) < SHORT):
        rows = int(first[place]), int(second[place])
        here, there = (set(words.bigrams(row).tolist()) for row in rows)
        alone = (len(here - there) / max(1, len(here)), len(there - here) / max(1, len(there)))
        lacking[place] = max(share * (words.sizes[row] - 1) for share, row in zip(alone, rows, strict=True))
    return np.round(lacking)


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
    """Return a cluster number for each of `texts`: equal for texts that must not be on two sides of a split.

    These are copies however they are disguised, near-duplicates, a text and a part of it, texts that were filled into
    one template (`template_links`), and chains of such links.
    """
    found, words = forms(texts), compared(texts, Words.of(texts))
    pairs, parts = near(words, found.firsts, texts=texts), contained(words, found.firsts)
    return joined(found.skeletons, *split_links(of_templates(found, words.sizes), pairs, parts, words))


def split_links(
    templates: np.ndarray, pairs: NearPairs, parts: Contained, words: Words
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pairs of positions that a split keeps together, of each kind.

    Near-duplicates and parts that were filled into a template that fills many rows are linked only if most of what was
    filled in is the same.

    Args:
        templates: (n,) from `of_templates`.
        pairs: the near-duplicates.
        parts: the texts that are a part of another one.
        words: of the texts.
    """
    _, of, counts = np.unique(templates, return_inverse=True, return_counts=True)
    fills = (counts > most_of_template(len(templates)))[of] & (templates >= 0)
    filled_in = _filled_in(templates, fills, words)
    links = [template_links(templates)]
    for first, second in ((pairs.first, pairs.second), (parts.inner, parts.outer)):
        apart = fills[first] & (templates[first] == templates[second])
        for place in np.flatnonzero(apart):
            one, two = filled_in[first[place]], filled_in[second[place]]
            apart[place] = len(one & two) < NEAR * len(one | two)
        links.append((first[~apart], second[~apart]))
    return links


def _filled_in(templates: np.ndarray, fills: np.ndarray, words: Words) -> dict[int, set[int]]:
    """The words of each text that `fills` a template, without those that nearly all texts of the template have."""
    rows: dict[int, list[int]] = {}
    for row in np.flatnonzero(fills).tolist():
        rows.setdefault(int(templates[row]), []).append(row)
    found: dict[int, set[int]] = {}
    for members in rows.values():
        having = Counter(word for row in members for word in {*words.row(row).tolist()})
        own = {word for word, count in having.items() if count < FIXED * len(members)}
        found |= {row: own.intersection(words.row(row).tolist()) for row in members}
    return found


def most_of_template(texts: int) -> float:
    """Return in how many of so many `texts` a part may be, before it is taken for what the whole set is like."""
    return max(FEW, OFTEN * texts)


def near_copies(texts: list[str]) -> np.ndarray:
    """Return a cluster number for each of `texts`: equal for the same texts and for chains of near-duplicates alone.

    The shipped rows were made by this narrower rule.
    """
    groups = same(texts)
    pairs = near(Words.of(texts), np.unique(groups, return_index=True)[1], if_short=SHORT)
    return joined(groups, (pairs.first, pairs.second))


def joined(groups: np.ndarray, *links: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return a cluster number for each text: equal for one number in `groups`, and for chains of `links`.

    >>> joined(np.array([0, 1, 0, 2]), (np.array([0]), np.array([3]))).tolist()
    [0, 1, 0, 0]

    Args:
        groups: (n,) numbers from 0 without a gap.
        links: for each kind of link, the positions of the first and of the second text of each pair.
    """
    first, second = (groups[np.concatenate([pairs[side] for pairs in links])] for side in (0, 1))
    return clusters(int(groups.max()) + 1 if len(groups) else 0, first, second)[groups]


def compared(texts: Sequence[str], words: Words) -> Words:
    """Return the words by which texts are compared: of their comparable forms, without what many of them share.

    Args:
        texts: as they are.
        words: of these texts; those of plain texts are not read again.
    """
    breaks = np.zeros(len(texts), dtype=bool)
    rows = []
    for row, text in enumerate(texts):
        if normalisation.is_plain(text):
            continue
        if text.isascii() and "&" not in text and text.count("<") == text.count("<br"):
            breaks[row] = True  # by far the most frequent tag: it is quicker to take its name out of the words
        else:
            rows.append(row)
    if breaks.any() and "br" in words.vocabulary:
        name = words.vocabulary.index("br")
        words = words.without((words.ids == name) & np.repeat(breaks, words.lengths))
    return without_shared(words.replaced(rows, (normalisation.comparable(texts[row]) for row in rows)))


def of_templates(found: Forms, lengths: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Return the number of each text's template; -1 for a text that was filled into none.

    Two texts that differ in numbers alone are enough. Names are taken for fillings from OF_NAMES texts on.

    Args:
        found: the forms of the texts.
        lengths: (n,) words of each text; FEWEST_WORDS or more are needed.
        among: (n,) which texts count; None for all.
    """
    usable = (lengths >= FEWEST_WORDS) & (True if among is None else among)
    links = [np.empty((2, 0), dtype=np.int64)]
    for numbers, fewest in ((found.numbers, 2), (found.names, OF_NAMES)):
        places = np.flatnonzero(usable & (numbers >= 0))
        _, of = np.unique(numbers[places], return_inverse=True)
        different = np.unique(np.stack((of, found.skeletons[places])), axis=1)[0]  # each text of a template once
        enough = np.bincount(different, minlength=len(of))[of] >= fewest
        places, of = places[enough], of[enough]
        _, starts, back = np.unique(of, return_index=True, return_inverse=True)
        links.append(np.stack((places[starts][back], places)))
    first, second = np.concatenate(links, axis=1)
    filled = np.unique(second)
    numbers = np.full(len(lengths), -1)
    numbers[filled] = clusters(len(lengths), first, second)[filled]
    return numbers


def template_links(templates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of positions: the first text of each template, and another text of it.

    A template that more than a tenth of the texts were filled into is what the data set is like: to keep its texts
    together would leave nothing to split. It links none.

    Args:
        templates: (n,) from `of_templates`.
    """
    places = np.flatnonzero(templates >= 0)
    _, starts, of, counts = np.unique(templates[places], return_index=True, return_inverse=True, return_counts=True)
    few = (counts <= most_of_template(len(templates)))[of]
    first, second = places[starts][of][few], places[few]
    return first[first != second], second[first != second]


def _signatures(words: Words, rows: np.ndarray) -> Iterator[np.ndarray]:
    from datasketch import MinHash

    # A hash of the word, and not its id, so that the order of the rows does not matter. datasketch permutes 32 bits; a
    # collision only adds a candidate, and candidates are compared exactly.
    marks = np.array([zlib.crc32(word.encode()) for word in words.vocabulary], dtype=np.uint32)

    def pairs(row: int) -> list[int]:
        return np.unique(words.bigrams_of(words.row(row), marks)).tolist()

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
