"""Every search of the audit takes a time that grows with the text: no text makes one run for ever."""

import time

import pytest

from ftlab.data.audit import personal_data, text_noise

PIECES = [
    "<", "a@", "0 ", "(", "\u0300", "a", "0", "1-", "+1", "-", "_", ".", "a.", "1.", "1:", ":", "://a:", "password=",
    "password: a1", "secret ", "pass:", "aws key ", "eyJ", "eyJa.", "sk-", "AKIA", "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ", "passport ", "passport 1 ", "tax id", "A1", "DE89 ", "DE89 3704 ", "4111 1111 ", "(0)", "(030) 1 ",
    "+49 30 ", "tel 1", "a@a.a", "&", "&amp;", "&#", "<a ", "<a href='", "<!--", "</s>", "<s>", "\u200b", "a\u00ad",
    "\u05d0\u200f", "\u00c3", "Authorization: Bearer a1", "1.1.1.1", "2001:a", "SSN ", "123-45-", "12345678A",
    "xoxb-1-", "SG.a", "DE8", "de89 \n", "password=\"a1", "<password>", "curl -u a:", "mysql -p", "03.04.2021 ", "MTa.",
    "token=a1;", "passwort is ", "IdNr. 1", "://a:b@", "-----BEGIN PRIVATE KEY-----\n-", "02 ", "pw:<a",
    "\n", " ", "\u5bc6\u7801:", "\u0661 ",
    "a\n", "A1\n", "ghp_aB3\n", "sk-\x07", "-----BEGIN PRIVATE KEY-----\n" + "A\n" * 9999, "password: a1b2c\n",
    "a1\u200b",
]  # fmt: skip
SIZE = 100_000


def seconds(text):
    start = time.process_time()
    personal_data.without_private(text)
    for find in text_noise.FINDERS.values():
        find(text)
    text_noise.strip_invisible(text)
    text_noise.strip_markup(text)
    text_noise.decode_entities(text)
    return time.process_time() - start


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_text_of_one_piece_is_searched_in_seconds(piece):
    """A search that is quadratic in 100,000 characters takes minutes."""
    assert seconds((piece * SIZE)[:SIZE]) < 10
