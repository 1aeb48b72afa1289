"""Rows that come from one dialogue: of them one must not be learned while another is for testing.

A row of several turns is learned at each of its answers. Data sets often have a dialogue as several rows: up to its
first answer, up to its second one, and so on. Then the question and answer of a short row are learned word for word in
a longer one, although the two rows are not alike as wholes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ftlab.data import duplicates
from ftlab.data.conversations import Turn
from ftlab.data.words import Words, normalise

OWN_WORDS = 16  # words of a question and its answer from which they belong to one dialogue; shorter ones, such as a
# greeting, are equal in dialogues that have nothing else in common


def clusters(rows: Sequence[Sequence[Turn]]) -> np.ndarray:
    """Return a cluster number for each of `rows`, equal for rows of one dialogue.

    Two rows are of one dialogue if one of them is the beginning of the other, or if they share a question of the user
    and its answer of together OWN_WORDS words or more. A question and answer that more than a tenth of the rows have,
    such as a fixed greeting, is what the data set is like, and links none (as in `duplicates.template_links`). System
    turns do not count, nor do case and white space.

    >>> first = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    >>> more = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    >>> clusters([first, more, first + more]).tolist()
    [0, 1, 0]

    Args:
        rows: the turns of each conversation; the last is the assistant's.
    """
    beginnings = [_beginnings(turns) for turns in rows]
    whole = {found[-1] for found in beginnings}
    keys = [(row, key) for row, found in enumerate(beginnings) for key in found if key in whole]
    keys += _long_exchanges(rows)
    numbers = {key: len(rows) + number for number, key in enumerate(dict.fromkeys(key for _, key in keys))}
    first, second = np.array([(row, numbers[key]) for row, key in keys], dtype=np.int64).T
    return duplicates.clusters(len(rows) + len(numbers), first, second)[: len(rows)]


def _beginnings(turns: Sequence[Turn]) -> list[bytes]:
    """A digest of the turns up to each answer, the whole conversation last."""
    running, found = hashlib.blake2b(digest_size=16), []
    for turn in turns:
        if turn["role"] == "system":
            continue
        text = f"{turn['role']}\0{normalise(turn['content'])}\0"
        running.update(text.encode(errors="surrogatepass"))
        if turn["role"] == "assistant":
            found.append(running.digest())
    return found


def _long_exchanges(rows: Sequence[Sequence[Turn]]) -> list[tuple[int, bytes]]:
    """The row and the words, as bytes, of each question with its answer of OWN_WORDS or more that few rows have."""
    pairs = [
        (row, f"{asked['content']}\n{answer['content']}")
        for row, turns in enumerate(rows)
        for asked, answer in pairwise(turns)
        if answer["role"] == "assistant"
    ]
    words = Words.of([text for _, text in pairs])
    long = dict.fromkeys(  # each once, however often a row repeats it
        (row, words.row(place).tobytes()) for place, (row, _) in enumerate(pairs) if words.sizes[place] >= OWN_WORDS
    )
    rows_with = Counter(exchange for _, exchange in long)
    most = duplicates.most_of_template(len(rows))
    return [(row, exchange) for row, exchange in long if rows_with[exchange] <= most]
