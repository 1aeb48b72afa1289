# ruff: noqa: RUF001  these tests are about letters of many scripts
import itertools
import unicodedata
from collections import Counter

import numpy as np
import pytest

from ftlab.data import duplicates, sources
from ftlab.data.words import SHARED_BY, Words, normalise, shared_lines, without_lines

SCRIPTS = [
    "A GREAT film, and a long one!",
    "Straße, Café and naïve façades",
    "यह फ़िल्म बहुत अच्छी है।",
    "我喜欢这部电影，真的。",
    "この映画がとても好きです。",
    "หนังเรื่องนี้ดีมาก",
    "이 영화는 정말 좋다",
    "هذا الفيلم رائع",
    "Этот фильм — лучший!",
    "ﬁne “quotes” ½ ² № ™ 🙂",
    "",
    "!!!",
]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A GREAT film!", "a great film!"),
        (" a\tgreat \n film", "a great film"),
        ("ﬁne", "fine"),
        ("ＦＩＬＭ １２！", "film 12!"),
        ("STRASSE", "straße"),
        ("Café  NOIR", "café noir"),
        (unicodedata.normalize("NFD", "déjà vu"), "déjà vu"),
        ("it\u00a0is", "it is"),
    ],
)
def test_texts_that_differ_only_in_writing_are_equal(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("not good", "good"), ("good film", "film good"), ("goodfilm", "good film"), ("resume", "résumé")],
)
def test_other_words_stay_apart(one, other):
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize("text", SCRIPTS)
def test_normalising_twice_is_normalising_once(text):
    assert normalise(normalise(text)) == normalise(text)


def test_a_devanagari_letter_is_the_same_in_one_code_and_in_two():
    assert normalise("\u095eिल्म") == normalise("\u092b\u093cिल्म")


def said(text: str) -> list[str]:
    """The words of a text."""
    words = Words.of([text])
    return [words.vocabulary[number] for number in words.row(0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A GREAT film, and a long one!", "a great film and a long one"),
        ("well-made snake_case (so what?)", "well made snake case so what"),
        ("“quoted”—it’s ½ ok", "quoted it s 1 2 ok"),
        ("यह फ़िल्म, बहुत अच्छी है।", "यह फ\u093cिल्म बहुत अच्छी है"),
        ("이 영화는, 정말 좋다!", "이 영화는 정말 좋다"),
        ("我喜欢这部电影。", "我 喜 欢 这 部 电 影"),
        ("我喜欢iPhone，真的！", "我 喜 欢 iphone 真 的"),
        ("𠀀𠀁", "𠀀 𠀁"),
        ("!!! 🙂 …", ""),
    ],
)
def test_words_are_told_apart_by_spaces_and_punctuation_or_in_chinese_by_character(text, words):
    assert said(text) == words.split()


def test_the_vowels_of_devanagari_are_part_of_its_words():
    assert said("किताब") != said("कताब")
    assert len(said("यह फ़िल्म बहुत अच्छी है।")) == 5


@pytest.mark.parametrize("text", SCRIPTS)
def test_words_are_the_same_however_the_text_is_written(text):
    assert said(normalise(text)) == said(text)


def test_lengths_count_words():
    assert Words.of(["one two three", "", "one"]).lengths.tolist() == [3, 0, 1]


def test_equal_words_have_equal_numbers_in_all_texts():
    words = Words.of(["red blue", "BLUE green", "Red!"])
    assert words.row(0)[1] == words.row(1)[0]
    assert words.row(0)[0] == words.row(2)[0]
    assert sorted(words.vocabulary) == ["blue", "green", "red"]


def test_bigrams_are_equal_where_the_pairs_of_words_are():
    texts = sources.read("mini_reviews")["text"].head(40).tolist()
    words = Words.of(texts)
    names: dict[int, tuple[str, str]] = {}
    for index, text in enumerate(texts):
        expected = list(itertools.pairwise(said(text)))
        for number, pair in zip(words.bigrams(index).tolist(), expected, strict=True):
            assert names.setdefault(number, pair) == pair
    assert len(set(names.values())) == len(names)


def test_a_text_of_one_word_or_none_has_no_pair():
    words = Words.of(["one", "", "one two"])
    assert [len(words.bigrams(index)) for index in range(3)] == [0, 0, 1]


def test_counts_are_those_of_each_word_in_each_text():
    texts = [*SCRIPTS, "a rose is a rose is a rose"]
    words = Words.of(texts)
    counts = words.counts()
    assert counts.shape == (len(texts), len(words.vocabulary))
    for index, text in enumerate(texts):
        row = counts[index].toarray()[0]
        counted = {words.vocabulary[number]: int(row[number]) for number in np.flatnonzero(row)}
        assert counted == dict(Counter(said(text)))


def test_counting_leaves_the_words_as_they_were():
    words = Words.of(["b a b", "a c"])
    before = words.ids.copy()
    words.counts()
    assert words.ids.tolist() == before.tolist()


def test_texts_without_a_word_are_read_as_well():
    for texts in (["", "!!!"], []):
        words = Words.of(texts)
        assert words.lengths.tolist() == [0] * len(texts)
        assert words.vocabulary == []


def test_reading_says_how_far_it_is():
    told: list[int] = []
    Words.of(["a word"] * 2500, told.append)
    assert told == [1000, 1000]


# --- lines that many texts share ---


def test_lines_that_five_texts_share_are_shared():
    texts = [f"a text of its own, number {row}\nAll rights are reserved." for row in range(SHARED_BY)]
    assert shared_lines(texts) == {"All rights are reserved.": SHARED_BY}
    assert shared_lines(texts[1:]) == {}


def test_the_line_of_most_texts_comes_first():
    texts = [
        f"number {row}\nAll rights are reserved.{chr(10) + 'Read more on our pages.' * (row % 2)}" for row in range(12)
    ]
    assert list(shared_lines(texts)) == ["All rights are reserved.", "Read more on our pages."]


@pytest.mark.parametrize("end", ["\n", "\r\n", "<br>", "<BR />", "</p>"])
def test_a_line_ends_where_a_reader_sees_it_end(end):
    assert shared_lines([f"number {row}{end}All rights are reserved." for row in range(5)])


def test_taking_lines_out_leaves_the_others_as_they_are():
    text = "one\nAll rights are reserved.\ntwo<br>All rights are reserved.<br>three"
    assert without_lines(text, ["All rights are reserved."]) == "one\ntwo<br>three"
    assert without_lines(text, []) == text


# --- other words in the same texts ---


def test_replacing_texts_gives_the_words_of_the_new_ones():
    texts = ["a rose", "is a rose", "", "or a tulip"]
    expected = ["a rose", "new words", "a rose is", "or a tulip"]
    words = Words.of(texts).replaced([1, 2], expected[1:3])
    assert [[words.vocabulary[number] for number in words.row(row)] for row in range(4)] == [
        text.split() for text in expected
    ]


def test_taking_words_out_leaves_the_others_in_their_texts():
    words = Words.of(["a b a", "b", "c a b"])
    left = words.without(words.ids == words.vocabulary.index("b"))
    assert [[left.vocabulary[number] for number in left.row(row)] for row in range(3)] == [["a", "a"], [], ["c", "a"]]


def test_a_megabyte_of_accents_comes_to_an_end():
    assert len(normalise("a" + "\u0316\u0301" * 500_000)) < 100


def test_characters_of_scripts_without_spaces_are_a_part_of_a_word():
    texts = ["a b c", "一二三四", "\u0e01" * 8, "\u1780" * 8, "\u1000" * 8, "a 一二 b", ""]
    assert Words.of(texts).sizes.tolist() == [3, 2, 2, 2, 2, 3, 0]
    assert Words.of(texts[:1]).sizes.tolist() == [3]
    assert Words.of(["\u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51\u0f0b"]).sizes.tolist() == [2]  # Tibetan syllables


def test_bigrams_of_scripts_without_spaces_are_runs_of_characters():
    words = Words.of(["一二三四", "二三四五", "a b 一二三", "一二", "b a"])
    grams = [words.bigrams(row).tolist() for row in range(5)]
    assert [len(each) for each in grams] == [2, 2, 3, 0, 1]
    assert grams[0][1] == grams[1][0]
    assert grams[2][2] == grams[0][0]
    text, number = words.all_bigrams()
    assert [number[text == row].tolist() for row in range(5)] == grams


def test_bigrams_by_marks_do_not_depend_on_the_order_of_the_texts():
    texts = ["一二三四", "a b \u0e01\u0e02\u0e03\u0e04\u0e05\u0e06\u0e07"]

    def numbers(texts: list[str], row: int) -> list[int]:
        words = Words.of(texts)
        marks = np.array([ord(word) for word in words.vocabulary], dtype=np.uint32)
        return words.bigrams_of(words.row(row), marks).tolist()

    assert numbers(texts, 0) == numbers(texts[::-1], 1)
    assert numbers(texts, 1) == numbers(texts[::-1], 0)


def test_a_raised_digit_is_no_plain_one():
    """10\u00b2 plus 1 is another question than 102 plus 1."""
    assert normalise("10\u00b2") != normalise("102")
    assert normalise("H\u2082O") != normalise("H2O")
    assert normalise("\uff11\uff10\uff12") == normalise("102")  # wide letters are the same ones
    assert duplicates.distinct(["x\u00b2 + 3", "x2 + 3"], labels=[0, 1]).tolist() == [0, 1]
