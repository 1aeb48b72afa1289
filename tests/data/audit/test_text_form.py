import time

import numpy as np
import pytest

from ftlab.data.audit import text_form
from ftlab.data.words import Words


def form(*texts: str) -> dict[str, list[str]]:
    words = Words.of(texts)
    described = text_form.describe(texts, words, words.counts(), np.arange(len(texts)))
    return {str(name): described[name].tolist() for name in described}


def of(text: str, feature: str) -> str:
    return form(text, "another text")[feature][0]


@pytest.mark.parametrize(
    ("feature", "text", "value"),
    [
        ("final character", "It is over.", "'.'"),
        ("final character", "It is over.  ", "'.'"),
        ("final character", "It is over", "a letter"),
        ("final character", "नमस्ते", "a letter"),  # it ends in a vowel sign
        ("final character", "room 12", "a digit"),
        ("first character", "\n- one", "'-'"),
        ("case", "GREAT FILM", "all capitals"),
        ("case", "GREAT FILM, dear", "mostly capitals"),
        ("case", "A Great Film", "many capitals"),
        ("case", "a great film", "no capitals"),
        ("case", "A good and long-winded film", "a capital first letter"),
        ("case", "the name of the film is Jaws", "a small first letter"),
        ("case", "ЭТО ХОРОШИЙ ФИЛЬМ", "all capitals"),
        ("case", "这部电影很好", "no letters with case"),
        ("case", "1234", "no letters with case"),
        ("space around the text", " a", "before"),
        ("space around the text", "a\n", "after"),
        ("space around the text", "\u3000a ", "before and after"),
        ("space around the text", "a b", "none"),
        ("spaces within the text", "a  b", "doubled"),
        ("spaces within the text", "it ends here . ", "before full stops"),
        ("spaces within the text", "a\u00a0b", "no-break spaces"),
        ("emoji", "good 😀 and 😡", "😀"),
        ("emoji", "© 2020 ™ ½ é", "none"),
        ("script", "Привет", "Cyrillic"),
        ("script", "これは本です", "Japanese"),
        ("script", "这部电影", "CJK"),
        ("script", "café", "Latin with accents"),
        ("script", "x \u201cquoted\u201d", "Latin"),
        ("language", "Der Film ist nicht gut und das Ende auch nicht", "German"),
        ("language", "the end of the film", "English"),
        ("language", "Jaws", "unknown"),
        ("digits", "in 1999", "many"),
        ("digits", "it was released in 1999 or so", "some"),
        ("quotation marks", "a „film“", "low"),
        ("apostrophes", "it\u2019s", "curly"),
        ("dashes", "good \u2014 mostly", "em dash"),
        ("dashes", "good -- mostly", "two hyphens"),
        ("markup", "a <b>film</b>", "tags"),
        ("markup", "1 < 2 and 3 > 2", "none"),
        ("markup", "Tom &amp; Jerry", "entities"),
        ("markup", "**good**", "Markdown"),
        ("line ends", "a\r\nb", "carriage return, line feed"),
        ("line ends", "a\n\nb", "blank lines"),
        ("line ends", "a\n", "none"),
        ("links", "see www.example.com", "URL"),
        ("links", "@jo see it", "a name after @"),
        ("links", "#film", "a tag after #"),
        ("links", "jo@example.com", "none"),
        ("first word", "Great film!", "great"),
        ("last word", "Great film!", "film"),
        ("last word", "!!!", "no word"),
    ],
)
def test_the_form_of_a_text(feature, text, value):
    assert of(text, feature) == value


def test_the_form_belongs_to_the_given_rows():
    words = Words.of(["one two", "", "three four"])
    described = text_form.describe(["three four"], words, words.counts(), np.array([2]))
    assert described["first word"].tolist() == ["three"]
    assert described["last word"].tolist() == ["four"]


@pytest.mark.parametrize("piece", ["<", "&", "<a", "# ", "* ", "@", " #", "-", "\u0300", "😀", "É", " ", "\n", "9"])
@pytest.mark.clock
def test_a_hostile_text_of_a_megabyte_takes_no_time(piece):
    start = time.process_time()
    form(piece * (1_000_000 // len(piece)), "x" + piece * 500_000 + "x")
    assert time.process_time() - start < 2
