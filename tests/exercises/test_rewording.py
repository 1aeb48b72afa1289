"""Texts in other words, by a pretrained encoder."""

import pytest

from ftlab.exercises import rewording

pytestmark = [pytest.mark.assets, pytest.mark.usefixtures("one_thread")]
TICKET = (
    "In the receipts tab the button for the download sits behind the column of the totals, so whoever has a small "
    "laptop cannot click it. The sums are right."
)
REWORDED = (
    "In the receipts tab the download button is hidden behind the total column, so people with small laptops can't "
    "click on it. The amounts are right."
)
OTHER = (
    "Since the update the search for older invoices finds nothing that was written before March, although the list "
    "shows all of them when I scroll down."
)


def pairs(texts, others):
    return {(pair.first, pair.second): pair for pair in rewording.nearest(texts, others)}


def test_a_text_in_other_words_is_called_the_same_and_another_one_is_not():
    found = pairs([REWORDED, OTHER], [TICKET])
    assert found[0, 0].same
    assert not found[1, 0].alike


def test_short_sentences_of_one_pattern_are_named_and_not_called_the_same():
    """They say different things, and the encoder hardly sees it."""
    found = pairs(
        ["Return the arc cosine (measured in radians) of x."], ["Return the cosine of x (measured in radians)."]
    )
    assert found[0, 0].cosine > rewording.SAME
    assert found[0, 0].alike
    assert not found[0, 0].same


def test_the_closest_pair_comes_first():
    cosines = [pair.cosine for pair in rewording.nearest([OTHER, REWORDED], [TICKET, OTHER])]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] == pytest.approx(1)


def test_no_texts_make_no_pairs():
    assert rewording.nearest([], ["a text"]) == rewording.nearest(["a text"], []) == []
