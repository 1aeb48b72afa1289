# ruff: noqa: RUF001  these tests are about letters of many scripts
import time

import pytest

from ftlab.data import normalisation
from ftlab.data.normalisation import comparable, disguises, names_as_class, skeleton, template
from ftlab.data.words import normalise

TEXT = "The best film that I have seen at this café in a year, and a long one!"
SCRIPTS = {
    "German": "Der Film über die größte Straße der Stadt war schön, aber viel zu lang für Kinder.",
    "Chinese": "这部电影的故事非常感人，演员的表演也十分出色，音乐和摄影都很美，值得一看。",
    "Arabic": "كان الفيلم جميلا جدا، وأحببت الموسيقى والممثلين والقصة الطويلة التي لا تنسى.",
    "Hindi": "यह फ़िल्म बहुत अच्छी है और इसकी कहानी मुझे हमेशा याद रहेगी, सबको देखनी चाहिए।",
    "Thai": "หนังเรื่องนี้ดีมากและนักแสดงก็เล่นได้ยอดเยี่ยมจนฉันอยากดูอีกครั้ง",
    "Russian": "Этот фильм оказался лучшим из всех, что я видел за последние годы, и музыка тоже.",
    "Japanese": "この映画がとても好きで、友達と一緒にもう一度映画館へ見に行きたいと思っています。",
    "Python": "def read(path: Path) -> list[str]:\n    return [line for line in path.open() if line < '<b>']\n",
}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (TEXT.replace("e", "\u0435"), ["look-alike letters"]),
        (TEXT.replace("o", "\u03bf").replace("T", "\u03a4"), ["look-alike letters"]),
        (TEXT.replace("i", "i\u200b").replace("a", "a\u00ad"), ["invisible characters"]),
        (TEXT.replace("a", "a\ufe0f"), ["invisible characters"]),
        (TEXT.replace("e", "\u00e8").upper(), ["accents"]),
        (TEXT.replace(" ", ""), ["spaces"]),
        (TEXT.replace("at", "&#97;t").replace("é", "&eacute;"), ["HTML entities"]),
        (f"<p>{TEXT.replace('film', '<b>film</b>')}<br /></p>", ["HTML tags"]),
        (
            TEXT.replace("t f", "t\u200bf").replace("o", "\u043e"),
            ["invisible characters", "look-alike letters", "spaces"],
        ),
        (TEXT.upper(), ["case, width or white space"]),
        (TEXT, []),
        (TEXT.replace("best", "worst"), []),
    ],
)  # fmt: skip
def test_each_disguise_is_seen_through_and_named(other, said):
    assert disguises(TEXT, other) == said
    assert (skeleton(TEXT) == skeleton(other)) == (bool(said) or other == TEXT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("schon", "schön"), ("may be", "maybe"), ("ano", "año"), ("great :)", "great :("), ("1", "11"), ("が", "か"),
        ("What does the <b> tag of a page do in the end?", "What does the <i> tag of a page do in the end?"),
        ("यह किताब बहुत अच्छी है और लंबी भी", "यह कताब बहुत अच्छी है और लंबी भी"),
        ("not a good film for a long evening", "a good film for a long evening"),
        ("seen 10 times in a long and rainy year", "seen 11 times in a long and rainy year"),
    ],
)  # fmt: skip
def test_what_a_reader_tells_apart_stays_apart(one, other):
    assert skeleton(one) != skeleton(other)
    assert disguises(one, other) == []


def test_a_capital_that_looks_latin_is_read_as_latin_among_latin_letters():
    assert skeleton("Νo one can say that the film is good") == skeleton("No one can say that the film is good")
    assert comparable("ΝΑΙ") == "vai"  # a Greek word has its own letters, equal in all texts


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_equal_after_normalising_is_equal_as_skeletons(text):
    assert skeleton(normalise(text)) == skeleton(text)
    assert skeleton(text.upper()) == skeleton(text.upper().lower())


@pytest.mark.parametrize("text", [SCRIPTS[name] for name in ("Chinese", "Arabic", "Hindi", "Thai", "Japanese")])
def test_marks_that_are_vowels_and_letters_without_a_latin_likeness_stay(text):
    assert comparable(text) == normalise(text)


def test_numbers_and_names_of_a_template_are_classes():
    assert template("Dear Ann, you owe us 1,200.50 by 3/4.") == template("Dear Mr Li Wei, you owe us 7 by 30.11.")
    assert template("you owe us 7 euros") != template("you owe us 7 dollars")
    assert names_as_class("The film was shot in Rome.") == "The film was shot in \ue000."
    long = "the film with Tom Hanks " * 40
    assert names_as_class(long) == long


HOSTILE = {
    "marks": "\u0300\u0316" * 300_000, "less": "<" * 500_000, "tags": "<a " * 200_000, "comments": "<!--" * 200_000,
    "ends": "</p" * 200_000, "and": "&a" * 300_000, "entities": "&amp;" * 100_000, "numbers": "0 " * 300_000,
    "decimals": "1," * 300_000, "capitals": "Aa " * 200_000, "zero width": "\u200b" * 500_000,
    "brackets": "(" * 500_000, "cyrillic": "\u0430" * 500_000, "greek": "\u039da " * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.clock
def test_a_hostile_text_takes_time_in_proportion_to_its_length(text):
    start = time.process_time()
    template(text)
    comparable(text)
    assert time.process_time() - start < 8  # a scan that is not linear takes minutes


def test_a_text_in_ascii_without_entities_and_tags_is_plain():
    assert normalisation.is_plain("a good film, 10/10\n")
    assert not any(normalisation.is_plain(text) for text in ("caf\u00e9", "a & b", "a < b", "a\x07b"))
