import itertools

import numpy as np
import pytest

from ftlab.data import duplicates, sources
from ftlab.data.words import SHORT, Words, normalise


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
        if grams[one] & grams[two] and not is_another_text(grams[one], grams[two])
    }
    return {pair: value for pair, value in similarity.items() if value >= duplicates.NEAR}


def is_another_text(one: set[tuple[str, str]], other: set[tuple[str, str]]) -> bool:
    """Whether more than one word was changed in a short text."""
    short = min(len(one), len(other)) < SHORT - 1
    return short and max(len(one - other), len(other - one)) > duplicates.CHANGED


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
    ("one", "other"),
    [("great", "great!"), ("well-made, so", "well made so"), ("(so) it ends here", "\u201cso\u201d it ends here")],
)
def test_texts_that_differ_in_punctuation_alone_are_near_whatever_their_length(one, other):
    assert near([one, "something else", other]) == {(0, 2): 1.0}
    assert same([one, other]) == [0, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C", "C++"), ("C#", "C"), ("great :)", "great :("), ("great film \U0001f44d", "great film \U0001f44e"),
        ("+1", "-1"), ("-37", "37"), ("really?", "really."), ("5'", '5"'), ("schon", "sch\u00f6n"),
        ("x = a + b * c - d", "x = a - b * c + d"),
        ("return a != b and c or d if e else f", "return a == b and c or d if e else f"),
        ("the temperature in the room is -5 degrees now", "the temperature in the room is 5 degrees now"),
        ("hier soir il a p\u00each\u00e9 toute la nuit", "hier soir il a p\u00e9ch\u00e9 toute la nuit"),
    ],
)  # fmt: skip
def test_short_texts_with_the_same_words_and_other_telling_signs_are_not_near(one, other):
    assert duplicates.together([one, "something else", other]).tolist() == [0, 1, 2]


def test_in_a_long_text_another_sign_is_an_edit():
    long = " ".join(LONG.split() * 2)
    assert near_with_signs([f"{long} :)", f"{long} :("]) == 1
    assert near_with_signs(["so it ends :)", "so it ends :("]) == 0


def near_with_signs(texts: list[str]) -> int:
    return len(duplicates.near(Words.of(texts), np.arange(len(texts)), texts=texts))


HOUSES = "\u0434\u043e\u043c " * 6  # Russian; the word before it has a letter of its own, which is no accent


@pytest.mark.parametrize("texts", [
    ["il a p\u00each\u00e9 hier soir au bord du lac", "il a p\u00e9ch\u00e9 hier soir au bord du lac"],
    ["con b\u00f2 \u1edf ch\u1ee3 h\u00f4m nay r\u1ea5t l\u1edbn",
     "con b\u01a1 \u1edf ch\u1ee3 h\u00f4m nay r\u1ea5t l\u1edbn"],
    ["Das M\u00e4dchen hat den Kuchen schon gebacken", "Das M\u00e4dchen hat den Kuchen sch\u00f6n gebacken"],
    ["\u043c\u043e\u0439 " + HOUSES, "\u043c\u043e\u0438 " + HOUSES],
])  # fmt: skip
def test_texts_with_different_accents_are_no_copies(texts):
    assert duplicates.copies(texts).tolist() == [0, 1]
    assert duplicates.forms(texts).skeletons.tolist() == [0, 1]


def test_a_text_without_accents_is_a_copy_of_the_one_with_them():
    texts = ["il a peche hier soir au bord du lac", "il a p\u00each\u00e9 hier soir au bord du lac", "another"]
    found = duplicates.forms(texts)
    assert found.skeletons.tolist() == [0, 0, 1]
    assert found.written.tolist() == [0, 1, 2]


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


FILLED = [f"this is a template with the number {n} in the midst of all of its other words" for n in range(300)]


def test_a_template_filled_in_many_times_is_one_cluster():
    others = [" ".join(f"w{row}x{place}" for place in range(12)) for row in range(300)]
    assert len(set(duplicates.together([*FILLED[:30], *others])[:30].tolist())) == 1


def test_near_duplicates_in_a_template_that_fills_the_rows_are_not_joined_either():
    assert near(FILLED) != {}
    assert len(set(duplicates.together(FILLED).tolist())) == 300


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


# --- what must not be on two sides of a split ---

LONG = "the old man walks along the shore in the rain and thinks of the letters that he never sent to anybody at all"
DISGUISED = LONG.replace("e", "\u0435").replace("in the rain", "inthe rain")


@pytest.mark.parametrize(
    "other", [DISGUISED, LONG.upper() + "!", " ".join(LONG.split()[:13]), LONG.replace("letters", "songs")]
)
def test_a_copy_is_together_with_its_source_however_it_was_made(other):
    assert partition(duplicates.together([LONG, "something else", other])) == {frozenset({0, 2}), frozenset({1})}


def test_the_narrower_rule_joins_near_copies_alone():
    assert partition(duplicates.near_copies([LONG, DISGUISED, LONG.replace("letters", "songs")])) == {
        frozenset({0, 2}), frozenset({1})
    }  # fmt: skip


def letters(count: int) -> list[str]:
    return [
        f"on day {7 * row} of {row} we sold {row * row} of {row + 3}, {row} more than {row + 9}" for row in range(count)
    ]


def test_texts_that_differ_in_numbers_alone_are_together():
    assert len(set(duplicates.together(letters(2)).tolist())) == 1


def test_a_template_that_fills_the_rows_joins_nothing():
    """Otherwise nothing would be left to split."""
    texts = [f"{row} and {2 * row} make {3 * row}, and {row} times {row} make {row * row} at last" for row in range(40)]
    assert len(set(duplicates.together(texts).tolist())) == 40


def test_names_are_fillings_from_three_texts_on():
    texts = [f"my friend {name} met my sister {other} at my house on a rainy day" for name, other in
             (("Ann Lee", "Bob"), ("Carl", "Dora May"), ("Olga", "Wei"))]  # fmt: skip
    for count, clusters in ((2, 2), (3, 1)):
        found = duplicates.forms(texts[:count])
        numbers = duplicates.of_templates(found, Words.of(texts[:count]).lengths)
        assert len(set(numbers[numbers >= 0].tolist())) == clusters % 2


def test_texts_of_little_more_than_numbers_were_filled_into_no_template():
    texts = [
        f"{row}, {row + 1}; {row + 2} / {row + 3} and {row + 4}: {row + 5} {row + 6} {row + 7}" for row in range(9)
    ]
    assert (duplicates.of_templates(duplicates.forms(texts), Words.of(texts).lengths) == -1).all()


def test_words_are_compared_without_disguises_and_kept_as_they_are_written():
    texts = ["Der schöne Film<br />und mehr", "plain words", "the b\u0435st &amp; l\u200bast"]
    words = Words.of(texts)
    compared = duplicates.compared(texts, words)
    said = [[compared.vocabulary[number] for number in compared.row(row)] for row in range(3)]
    assert said == [["der", "schone", "film", "und", "mehr"], ["plain", "words"], ["the", "best", "last"]]
    assert "schöne" in words.vocabulary


def test_plain_words_are_not_read_again():
    texts = ["a good film", "a bad film"]
    words = Words.of(texts)
    assert duplicates.compared(texts, words) is words


def test_a_short_text_with_more_than_one_word_changed_is_another_text():
    one = "the value of the setting epub_contributor must not be empty for books"
    assert near([one, one.replace("contributor", "copyright")]) != {}
    assert near([one, one.replace("epub_contributor", "epub_copyright (or copyright alone)")]) == {}


@pytest.mark.parametrize("unlike", [
    ["現在、この製品の他のバリエーションは利用できません。",
     "この製品の特定のバリエーションを選択してください。"],
    ["กลุ่ม/ชื่อผู้ใช้",
     "ชื่อผู้ใช้ Liberapay"],
])  # fmt: skip
def test_unlike_texts_without_spaces_are_not_near(unlike):
    assert near(unlike) == {}


def test_edited_copies_without_spaces_are_near():
    text = "这部电影的故事很长但是演员们演得非常好我会再看一次"
    assert near([text, text.replace("非常", "特别")]) != {}
