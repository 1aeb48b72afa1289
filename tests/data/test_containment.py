import time

import numpy as np
import pytest

from ftlab.data.containment import LONG, PART, contained
from ftlab.data.words import FEWEST_WORDS, Words

VOCABULARY = [f"word{number}" for number in range(2000)]


def text(words: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(VOCABULARY, words))


def others(count: int = 50, words: int = 60) -> list[str]:
    return [text(words, seed=1000 + number) for number in range(count)]


def pairs(texts: list[str]) -> set[tuple[int, int]]:
    found = contained(Words.of(texts), np.arange(len(texts)))
    return set(zip(found.inner.tolist(), found.outer.tolist(), strict=True))


def part(of: str, start: float, end: float) -> str:
    words = of.split()
    return " ".join(words[round(start * len(words)) : round(end * len(words))])


@pytest.mark.parametrize("words", [2 * FEWEST_WORDS, 40, 200, 1000])
@pytest.mark.parametrize("place", [(0, 0.5), (0.25, 0.75), (0.5, 1), (0, 0.8), (0.2, 1)])
def test_a_text_that_is_the_beginning_or_a_part_of_another_one_is_found(words, place):
    outer = text(words)
    inner = part(outer, *place)
    found = contained(Words.of([*others(), inner, outer]), np.arange(52))
    assert (found.inner.tolist(), found.outer.tolist(), found.share.tolist()) == ([50], [51], [1.0])
    assert found.part[0] == pytest.approx(len(inner.split()) / words)


@pytest.mark.parametrize("words", [60, 200])
def test_a_part_is_found_after_small_edits(words):
    outer = text(words)
    inner = part(outer, 0.3, 0.95).split()
    inner[5::12] = ["another"] * len(inner[5::12])
    found = contained(Words.of([*others(), " ".join(inner), outer]), np.arange(52))
    assert (found.inner.tolist(), found.outer.tolist()) == ([50], [51])
    assert 0.8 < found.share[0] < 0.9


def test_a_short_part_of_a_long_text_is_found_from_some_length_on():
    outer = text(1000)
    assert pairs([*others(), part(outer, 0.3, 0.3 + LONG / 1000), outer]) == {(50, 51)}
    assert not pairs([*others(), part(outer, 0.3, 0.3 + (LONG - 1) / 1000), outer])


def test_an_idiom_of_a_few_words_is_no_part():
    texts = ["this is one of the best films of the year", "it really is one of the best films and it is long and sad"]
    assert not pairs([*others(), *texts])


def test_a_text_of_few_words_is_no_part():
    outer = text(2 * FEWEST_WORDS)
    assert not pairs([*others(), part(outer, 0, (FEWEST_WORDS - 1) / (2 * FEWEST_WORDS)), outer])


def test_near_duplicates_are_no_parts():
    words = text(100)
    assert not pairs([*others(), words, words + " again and again"])


def test_the_same_words_in_another_order_are_no_part():
    outer = text(100)
    words = part(outer, 0, 0.6).split()
    assert not pairs([*others(), " ".join(np.random.default_rng(1).permutation(words)), outer])


def test_words_from_all_over_a_long_text_are_no_part():
    outer = text(3000)
    words = outer.split()
    pieces = [words[start : start + 6] for start in range(0, 3000, 300)]
    assert not pairs([*others(), " ".join(word for piece in pieces for word in piece), outer])


def test_a_part_of_two_texts_is_paired_with_both():
    inner = text(50)
    assert pairs([*others(), inner, f"{inner} {text(30, 1)}", f"{text(30, 2)} {inner}"]) == {(50, 51), (50, 52)}


def test_only_the_given_rows_are_compared():
    outer = text(100)
    words = Words.of([part(outer, 0, 0.5), outer, text(100, 1)])
    assert len(contained(words, np.array([0, 2]))) == 0
    assert len(contained(words, np.array([0, 1]))) == 1


def test_the_order_of_the_texts_does_not_matter():
    texts = [*others(20), *(part(text(80, seed), 0.1, 0.7) for seed in range(1000, 1010)), text(80, 1005)]
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = {(order[one], order[two]) for one, two in pairs([texts[place] for place in order])}
    assert shuffled == pairs(texts)


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["a b c"], ["word"] * 3, [text(8)], [text(8), ""]])
def test_texts_without_anything_to_compare_have_no_parts(texts):
    assert not pairs(texts)


def test_texts_without_spaces_are_compared_by_character_and_two_of_these_are_a_word():
    outer = "这部电影的故事很长但是演员们演得非常好我会再看一次"
    assert not pairs([outer[:14], outer])
    assert pairs([outer[:17], outer, "完全不同的另一句话没有什么可以比较的地方真的没有"]) == {(0, 1)}


def test_rows_of_one_template_and_its_halves_cost_little():
    body = text(120)
    halves = [f"number{number} {part(body, 0, 0.5 + number / 10_000)}" for number in range(1000)]
    wholes = [f"{body} number{number}" for number in range(2000)]
    texts = [*halves, *wholes]
    found = contained(Words.of(texts), np.arange(len(texts)))
    assert set(range(1000)) <= set(found.inner.tolist())
    assert len(found) <= 10 * len(texts)


def test_a_hostile_text_ends():
    texts = ["0 " * 200_000, "0 " * 150_000, "0 1 " * 100_000, "a " * 10]
    assert pairs(texts) == {(1, 0)}


def test_all_texts_are_reported_as_done():
    done: list[int] = []
    contained(Words.of(others(10)), np.arange(10), done.append)
    assert sum(done) == 10


def test_a_half_is_the_least_part():
    assert PART < 0.5


@pytest.mark.clock
def test_nested_beginnings_of_one_long_text_are_compared_quickly():
    words = [f"w{number * number % 4999}" for number in range(3000)]
    texts = [" ".join(words[:length]) for length in range(40, 3000, 10)]
    start = time.process_time()
    found = contained(Words.of(texts), np.arange(len(texts)))
    assert len(found) > 500
    assert (found.share == 1).all()
    assert time.process_time() - start < 5
