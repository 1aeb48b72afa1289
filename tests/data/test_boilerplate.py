import numpy as np
import pytest

from ftlab.data.boilerplate import STATED_WORDS, boilerplate, shared, without_shared
from ftlab.data.words import FEWEST_WORDS, SHARED_BY, Words

VOCABULARY = [f"word{number}" for number in range(2000)]
PAGE = (
    "This review was collected for research, and may not be sold. All rights are reserved by the owners of the site. "
    "Read more reviews (like this one) on our pages!"
)
LENGTH = len(PAGE.split())


def text(words: int = 30, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(VOCABULARY, words))


def texts(count: int, words: int = 30) -> list[str]:
    return [text(words, 1000 + number) for number in range(count)]


def said(words: Words, row: int) -> str:
    return " ".join(words.vocabulary[number] for number in words.row(row))


def find(rows: list[str]):
    return boilerplate(Words.of(rows), rows)


@pytest.mark.parametrize("wrap", ["{text} {page}", "{page} {text}", "{text}\n\n{page}\n", "{page}<br />{text}"])
def test_a_page_is_taken_out(wrap):
    rows = [*texts(20), *(wrap.format(text=text(30, seed), page=PAGE) for seed in range(SHARED_BY))]
    left = without_shared(Words.of(rows))
    for seed in range(SHARED_BY):
        assert said(left, 20 + seed).removeprefix("br ") == text(30, seed)
    assert [said(left, row) for row in range(20)] == texts(20)


def test_pages_at_both_ends_are_taken_out():
    rows = [f"{PAGE} {text(30, seed)} {PAGE}" for seed in range(SHARED_BY)]
    assert said(without_shared(Words.of(rows)), 0) == text(30, 0)


def test_what_fewer_texts_share_stays():
    words = Words.of([f"{text(30, seed)} {PAGE}" for seed in range(SHARED_BY - 1)] + texts(20))
    assert without_shared(words) is words


def test_copies_of_one_text_are_no_reason_to_take_its_words_out():
    words = Words.of([f"{text()} {PAGE}"] * 10 + texts(20))
    assert without_shared(words) is words


def test_a_page_is_taken_out_of_copies_too():
    rows = [text(), *[f"{text()} {PAGE}"] * 10, *(f"{text(30, seed)} {PAGE}" for seed in range(1, SHARED_BY))]
    left = without_shared(Words.of(rows))
    assert {said(left, row) for row in range(11)} == {text()}


def test_edited_copies_keep_what_makes_them_alike():
    words = text(60).split()
    rows = []
    for seed in range(20):
        copy = list(words)
        copy[(seed * 3) % 30] = f"other{seed}"
        rows.append(" ".join(copy))
    assert not shared(Words.of(rows)).last.any()


def test_templates_keep_what_makes_them_alike():
    rows = [
        f"Dear Mr {name}, your order {number} has been sent today and you will have it on day {number % 28}. Please "
        "call us at any time of the day if you have a question about it or about the next one"
        for number, name in enumerate(text(40).split())
    ]
    words = Words.of(rows)
    assert without_shared(words) is words


def test_a_short_text_before_a_page_stays_whole():
    rows = [f"{text(FEWEST_WORDS - 1, seed)} {PAGE}" for seed in range(10)]
    rows += [f"{text(FEWEST_WORDS, seed)} {PAGE}" for seed in range(10, 20)]
    last = shared(Words.of(rows)).last
    assert last.tolist() == [0] * 10 + [LENGTH] * 10


def test_of_a_page_within_a_page_each_text_loses_the_longer_one():
    longer = f"Our archive has more than you think of. {PAGE}"
    rows = [f"{text(30, seed)} {PAGE}" for seed in range(6)] + [f"{text(30, seed)} {longer}" for seed in range(6, 12)]
    assert set(shared(Words.of(rows)).last.tolist()) == {LENGTH, LENGTH + 8}


@pytest.mark.parametrize("rows", [[], [""], ["a"] * 10, ["a b c d e f g h"] * 10, ["0 " * n for n in range(300)]])
def test_texts_without_boilerplate_stay(rows):
    words = Words.of(rows)
    assert without_shared(words) is words


# --- as it is written ---


def test_a_page_is_stated_as_it_is_written():
    rows = [f"{text(30, seed)}. {PAGE}" for seed in range(6)] + [f"{PAGE}\n“{text(30, seed)}”" for seed in range(6, 12)]
    found = find(rows)
    assert (found.beginnings, found.ends) == ((PAGE,), (PAGE,))
    assert [found.part_of(row) for row in rows] == [PAGE] * 12
    assert found.removed_from(rows[0]) == f"{text(30, 0)}."
    assert found.removed_from(rows[6]) == f"“{text(30, 6)}”"
    assert found.part_of(text()) is None
    assert found.removed_from(text()) == text()


def test_a_page_in_another_case_is_stated_too():
    rows = [f"{text(30, seed)} {PAGE if seed % 2 else PAGE.upper()}" for seed in range(6)]
    assert set(find(rows).ends) == {PAGE, PAGE.upper()}


def test_a_short_idiom_is_not_stated():
    idiom = "this is without a doubt one of the worst films i have ever seen"
    assert len(idiom.split()) < STATED_WORDS
    found = find([f"{idiom} {text(30, seed)}" for seed in range(10)])
    assert (found.beginnings, found.ends) == ((), ())


def test_a_text_that_is_the_page_alone_is_kept():
    found = find([f"{text(30, seed)} {PAGE}" for seed in range(6)])
    assert found.part_of(PAGE) is None
    assert found.removed_from(PAGE) == PAGE


def test_lines_are_found_and_removed_with_the_pages():
    rows = [f"{text(30, seed)} {PAGE}" for seed in range(6)]
    found = boilerplate(Words.of(rows), rows, ["Sent from my new phone"])
    assert found.part_of("It is broken.\nSent from my new phone") == "Sent from my new phone"
    assert found.removed_from(f"It is broken.\nSent from my new phone\nBut why? {PAGE}") == "It is broken.\nBut why?"


def test_a_page_without_spaces_is_stated_as_it_is_written():
    page = (
        "本评论仅供研究使用未经许可不得转载版权所有违者必究。更多评论请访问我们"
        "的网站并写下您自己的评论谢谢您的支持与理解祝您观影愉快再见朋友们。"
    )
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    rows = ["".join(np.random.default_rng(seed).choice(letters, 30)) + "。" + page for seed in range(6)]
    assert find(rows).ends == (page,)
