import itertools

import numpy as np
import pytest

from ftlab.data import duplicates, sources
from ftlab.data.words import Words, normalise


def edited(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with a share of its words replaced."""
    words = text.split()
    for place in rng.choice(len(words), max(1, round(share * len(words))), replace=False):
        words[place] = f"other{rng.integers(1000)}"
    return " ".join(words)


def words_of(text: str) -> list[str]:
    words = Words.of([text])
    return [words.vocabulary[number] for number in words.row(0)]


def family() -> list[str]:
    """Some hundred short texts, each with copies that are edited a little, somewhat or much; no two are equal."""
    rng = np.random.default_rng(0)
    texts = sources.read("mini_reviews")["text"].tolist()[:80]
    return list(
        dict.fromkeys([*texts, *(edited(text, share, rng) for text in texts for share in (0.02, 0.08, 0.15, 0.3))])
    )


def near(texts: list[str]) -> dict[tuple[int, int], float]:
    pairs = duplicates.near(Words.of(texts), np.arange(len(texts)))
    return dict(
        zip(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), pairs.similarity.tolist(), strict=True)
    )


def all_pairs(texts: list[str]) -> dict[tuple[int, int], float]:
    """Compare all pairs, which `near` avoids."""
    grams = [set(itertools.pairwise(words_of(text))) for text in texts]
    long = [index for index, text in enumerate(texts) if len(words_of(text)) >= duplicates.FEWEST_WORDS]
    similarity = {
        (one, two): len(grams[one] & grams[two]) / len(grams[one] | grams[two])
        for one, two in itertools.combinations(long, 2)
        if grams[one] & grams[two]
    }
    return {pair: value for pair, value in similarity.items() if value >= duplicates.NEAR}


def same(texts: list[str]) -> list[int]:
    return duplicates.same(texts).tolist()


def partition(numbers) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in np.unique(numbers)}


def test_the_similarity_of_near_duplicates_is_exact():
    texts = family()
    expected = all_pairs(texts)
    found = near(texts)
    assert len(found) > 100
    assert found == {pair: pytest.approx(expected[pair]) for pair in found}


def test_nearly_all_near_duplicates_are_found_and_all_close_ones():
    texts = family()
    expected = all_pairs(texts)
    missed = expected.keys() - near(texts).keys()
    assert len(missed) <= 0.01 * len(expected)
    assert all(expected[pair] < 0.7 for pair in missed)


def test_the_earlier_of_two_near_duplicates_is_named_first():
    assert all(first < second for first, second in near(family()))


def test_near_duplicates_are_the_same_in_each_run():
    assert near(family()) == near(family())


def test_only_the_asked_positions_are_compared():
    texts = family()
    asked = np.arange(0, len(texts), 2)
    pairs = duplicates.near(Words.of(texts), asked)
    everything = {pair: value for pair, value in near(texts).items() if not (pair[0] % 2 or pair[1] % 2)}
    assert dict(zip(zip(pairs.first, pairs.second, strict=True), pairs.similarity, strict=True)) == everything


def test_texts_with_little_in_common_are_not_near():
    assert near(sources.read("mini_reviews")["text"].tolist()) == {}


def test_the_same_words_in_another_order_are_not_near():
    text = sources.read("mini_reviews")["text"][4]
    assert near([text, " ".join(reversed(text.split()))]) == {}


def test_a_few_common_words_are_no_near_duplicate():
    short = ["a very good film indeed and well", "a very good film indeed and bad"]
    assert near(short) == {}
    assert near([f"so {text} made" for text in short]) != {}


@pytest.mark.parametrize(
    ("one", "other"), [("great", "great!"), ("great :)", "great :("), ("well-made, so", "well made so")]
)
def test_texts_that_differ_in_punctuation_alone_are_near_whatever_their_length(one, other):
    assert near([one, "something else", other]) == {(0, 2): 1.0}
    assert same([one, other]) == [0, 1]


def test_texts_without_a_word_are_not_near_to_each_other():
    assert near(["!!!", "???", "🙂"]) == {}


def test_many_texts_that_differ_in_punctuation_alone_are_all_near_to_the_first():
    assert near([f"great{'!' * row}" for row in range(50)]) == {(0, row): 1.0 for row in range(1, 50)}


def test_near_duplicates_are_found_in_scripts_without_spaces():
    text = "这部电影的故事非常感人演员的表演也十分出色值得一看"
    assert list(near([text, text.replace("十分", "特别"), "今天天气很好我们一起去公园散步吧然后回家吃饭"])) == [(0, 1)]


def test_no_text_or_one_has_no_near_duplicate():
    assert near([]) == {}
    assert near([family()[0]]) == {}


def test_a_template_filled_in_many_times_is_one_cluster():
    texts = [f"this is a template with the number {n} in the midst of all of its other words" for n in range(300)]
    assert len(set(duplicates.together(texts).tolist())) == 1


def test_equal_texts_have_equal_numbers_however_they_are_written():
    assert same(["A film", "another", "a  FILM", "a film "]) == [0, 1, 0, 0]


def test_punctuation_and_symbols_tell_texts_apart():
    assert same(["!!!", "???", "!!!", "", "great :)", "great :("]) == [0, 1, 0, 2, 3, 4]


def test_a_text_that_begins_like_another_is_another():
    assert same(["a film", "a film twice", "film", "a"]) == [0, 1, 2, 3]


def test_equality_is_that_of_the_normal_form():
    texts = [*family(), *(text.upper() for text in family()[::3]), "我喜欢", "我喜欢 "]
    numbers: dict[str, int] = {}
    assert same(texts) == [numbers.setdefault(normalise(text), len(numbers)) for text in texts]


def test_a_chain_of_pairs_is_one_cluster():
    clusters = duplicates.clusters(6, np.array([0, 1, 4]), np.array([1, 3, 5]))
    assert partition(clusters) == {frozenset({0, 1, 3}), frozenset({2}), frozenset({4, 5})}


def test_without_pairs_each_position_is_a_cluster():
    none = np.array([], dtype=np.int64)
    assert len(set(duplicates.clusters(4, none, none).tolist())) == 4


def test_clusters_hold_all_near_and_equal_texts_and_no_other():
    texts = family()
    texts += [text.upper() for text in texts[:40]]
    clusters = duplicates.together(texts)
    distinct = list(dict.fromkeys(normalise(text) for text in texts))
    places = {text: place for place, text in enumerate(distinct)}
    pairs = np.array(list(near(distinct)))
    expected = duplicates.clusters(len(distinct), pairs[:, 0], pairs[:, 1])
    assert partition(clusters) == partition(expected[[places[normalise(text)] for text in texts]])


def test_clusters_of_clear_copies_do_not_depend_on_the_order_of_the_texts():
    originals = [text for text in sources.read("mini_reviews")["text"] if len(text.split()) >= 20]
    texts = [*originals, *(edited(text, 0.01, np.random.default_rng(0)) for text in originals)]
    assert min(all_pairs(texts).values()) > 0.75
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = duplicates.together([texts[index] for index in order])
    back = np.empty(len(texts), dtype=np.int64)
    back[order] = shuffled
    assert partition(back) == partition(duplicates.together(texts))


def test_no_text_is_no_cluster():
    assert len(duplicates.together([])) == 0


def test_comparing_says_how_far_it_is():
    told: list[int] = []
    words = Words.of([f"w{number} and seven words more that tell nothing" for number in range(2100)])
    duplicates.near(words, np.arange(2100), told.append)
    assert told == [1000, 1000]
