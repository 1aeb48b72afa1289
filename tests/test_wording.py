"""A value in a message is short, and the cut leaves no part of a word."""

import pytest

from ftlab.wording import beginning, one_line, quoted, visible


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("short", "'short'"),
        ("a " * 20 + "the key ghp_37HyVaQXekW9LctXb03rEMU64yTY6BzUZKC9", "'" + "a " * 20 + "the key..."),
        ({"key": "sk-" + "aB3" * 30}, "{'key': ..."),
        ("and " * 10 + "4111 1111 1111 1111 of his", "'" + "and " * 9 + "and..."),
        ("x" * 100, "'xxxxxxx..."),
        ("\u5bc6" * 100, "'" + "\u5bc6" * 59 + "..."),
        ([*range(100)], "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,..."),
    ],
)
def test_a_long_value_is_cut_before_a_word(value, said):
    assert quoted(value) == said


def test_a_beginning_is_never_longer_than_asked():
    for most in range(9, 60):
        assert len(beginning("to be or 4111 1111 1111 1111 not to be, that is " * 3, most)) <= most + len("...")


PERSIAN = "\u0645\u062a\u0646\u200c\u0647\u0627"  # spelled with a joiner, as many of its words
HINDI = "\u0915\u094d\u200d\u0937"
CODER = "\U0001f469\u200d\U0001f4bb"  # one emoji, joined of two


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (PERSIAN, PERSIAN),
        (HINDI, HINDI),
        (f"{CODER} role", f"{CODER} role"),
        (f"{PERSIAN} ", f"'{PERSIAN} '"),
        ("Preis\xa0\u20ac", "'Preis\\xa0\u20ac'"),  # the letters stay, the space that looks like another does not
        ("te\u200dxt", "'te\\u200dxt'"),  # which would be taken for "text"
        ("\u200d\u00fc", "'\\u200d\u00fc'"),
        ("\u00fc\\u200c\u00fc", "\u00fc\\u200c\u00fc"),  # the six characters themselves
        ("\u00fc\\u200c\u00fc\n", "'\u00fc\\\\u200c\u00fc\\n'"),
        ("\u0645\u202ea", "'\u0645\\u202ea'"),
        ("\ud800", "'\\ud800'"),
    ],
)
def test_a_name_keeps_its_letters_and_only_what_does_not_show_is_escaped(name, said):
    assert visible(name) == said


def test_a_value_and_an_error_keep_their_letters_too():
    assert quoted(PERSIAN) == f"'{PERSIAN}'"
    assert quoted("Preis\xa0\u20ac") == "'Preis\\xa0\u20ac'"
    assert one_line(ValueError(f"no {PERSIAN} in \x1b[1m")) == f"no {PERSIAN} in \\x1b[1m"


def test_a_long_error_is_cut_before_a_word():
    assert one_line("word " * 60 + "end").endswith("word...")
