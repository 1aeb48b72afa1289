"""Find texts that are another text in other words: near in meaning for a pretrained encoder, and in their words.

Word bigrams (`data.duplicates`) see copies in which a tenth of the words changed. A copy with synonyms is beyond them,
so the pairs that share most rare words are embedded, too. This finds light rewording: of twelve texts with synonyms in
the old order, seven are called the same, and four more are named for a person to read. Of forty texts that a writer
told anew it finds few, and no threshold finds them without calling honest neighbours copies: a cosine measures the
topic, and does not see a negation. In short sentences of one pattern ("the cosine of x", "the arc cosine of x") it sees
no difference at all, so short texts are never called the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftlab.evaluation import baselines

ENCODER, MAX_LENGTH = "minilm", 128
NEIGHBOURS = 3  # of each text, by the words that they share
MOST_PAIRS = 200  # that are embedded
SAME = 0.9  # cosine of two texts that say the same
SHORT = 12  # words, below which a cosine cannot tell a pattern from a copy
LONG = 90  # words, above which the encoder reads the beginning alone
ALIKE = 0.75  # cosine from which a person should read both


@dataclass(frozen=True)
class Pair:
    """The positions of two texts, with their cosine, and how many words the shorter and the longer one have."""

    first: int
    second: int
    cosine: float
    fewest: int
    most: int

    @property
    def same(self) -> bool:
        """Whether the two say the same in other words."""
        return self.cosine >= SAME and self.fewest >= SHORT and self.most <= LONG

    @property
    def alike(self) -> bool:
        """Whether a person should read the two."""
        return self.cosine >= ALIKE


def nearest(texts: Sequence[str], others: Sequence[str]) -> list[Pair]:
    """Return pairs of one of `texts` and one of `others` that are close, by falling cosine.

    Only the pairs that share most words, weighted by TF-IDF, are compared: NEIGHBOURS for each text, MOST_PAIRS in all.

    Raises AssetError if the encoder is not in the cache and cannot be fetched.
    """
    first, second = _candidates(texts, others)
    if not len(first):
        return []
    used, places = np.unique(np.append(first, second + len(texts)), return_inverse=True)
    everything = [*texts, *others]
    vectors = baselines.embed([everything[place] for place in used], ENCODER, max_length=MAX_LENGTH)
    cosine = (vectors[places[: len(first)]] * vectors[places[len(first) :]]).sum(axis=1)
    words = [
        sorted((len(texts[one].split()), len(others[other].split())))
        for one, other in zip(first, second, strict=True)
    ]  # fmt: skip
    order = np.argsort(-cosine, kind="stable")
    return [Pair(int(first[n]), int(second[n]), float(cosine[n]), *words[n]) for n in order]


def _candidates(texts: Sequence[str], others: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of pairs of texts that share most words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    empty = np.empty(0, dtype=int)
    if not texts or not others:
        return empty, empty
    vectorizer = TfidfVectorizer(sublinear_tf=True, strip_accents="unicode")
    vectorizer = baselines.words_or_characters(vectorizer, [*texts, *others]).fit([*texts, *others])
    search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(others)), metric="cosine", algorithm="brute")
    distance, found = search.fit(vectorizer.transform(others)).kneighbors(vectorizer.transform(texts))
    first = np.repeat(np.arange(len(texts)), found.shape[1])
    closest = np.argsort(distance.ravel(), kind="stable")[:MOST_PAIRS]
    return first[closest], found.ravel()[closest]
