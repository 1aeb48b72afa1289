"""Names, values and errors as parts of a message: short, printable, on one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# What a terminal obeys (control characters, but for line ends and tabs) and what reverses the order of a line.
COMMANDS = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def printable(text: object) -> str:
    """Return `text` for a terminal or a page: what a terminal would obey stands there as its escape.

    Without it, a column's name could clear the screen, set the window's title, or show a line backwards
    (https://trojansource.codes). Line ends and tabs stay.

    >>> print(printable("in \\x1b[1mbold"))
    in \\x1b[1mbold
    """
    return str(text).translate(COMMANDS)


def in_markdown(text: object) -> str:
    """Return `text` on one line, as text in Markdown: no tag, no link and no picture, no border, no end of code.

    >>> in_markdown("<b>good</b> | bad")
    '&lt;b>good&lt;/b> \\\\| bad'
    """
    line = re.sub(r"\s*[\n\u2028\u2029]\s*", " ", printable(text))
    return line.translate(_MARKUP).replace("](", r"]\(")


_MARKUP = str.maketrans({"<": "&lt;", "|": r"\|", "`": "'"})


def shown(name: Any) -> str:
    """Return `name`, read from a user's file, for a message: plain if it is a simple name, else quoted.

    >>> shown("lm_head.weight"), shown("a b")
    ('lm_head.weight', "'a b'")
    """
    if isinstance(name, str) and re.fullmatch(r"[\w.\-/]+", name, re.ASCII):
        return name if len(name) <= 120 else f"{name[:120]}..."
    return quoted(name)


def quoted(value: Any) -> str:
    """Return `value`, read from a user's file, for a message: its repr, at most 60 characters, on one line."""
    return beginning(_quotation(value) if isinstance(value, str) else ascii(value))


def visible(name: Any) -> str:
    """Return `name`, read from a user's file, for a list of names: as it is if each character shows, else quoted.

    A name with a line end in it would make two lines of a message, and a space at an end would not be seen. A joiner
    between two letters or signs beyond ASCII shows: Persian and Hindi words are spelled with it, and emoji made by it.

    >>> visible("a b"), visible("a "), visible("a\\nb")
    ('a b', "'a '", "'a\\\\nb'")
    """
    text = str(name)
    shows = _JOINER.sub("", text).isprintable() and text == text.strip()
    return text if shows else _quotation(text)


def _quotation(text: str) -> str:
    """The repr of a text: only what does not show is escaped in it, and the letters stay."""
    return _ESCAPED_JOINER.sub(lambda found: {"c": "\u200c", "d": "\u200d"}[found[1]], repr(text))


_JOINER = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
_ESCAPED_JOINER = re.compile(r"(?<=[^\x00-\x7f])\\u200([cd])(?=[^\x00-\x7f])")


def beginning(text: str, most: int = 60) -> str:
    """Return `text`; of a longer one than `most` characters its beginning, up to the end of a word, and "...".

    No word is cut, and no number in groups: half a key or half a card number is private too, and a search for such in
    the message would not know it. Of a text that is one long word, the first characters stay.

    >>> beginning("our key is sk-1234567890 and more", most=20), beginning("our card is 4111 1111 1111", most=20)
    ('our key is...', 'our card is...')
    """
    if len(text) <= most:
        return text
    start = _LAST_WORD.sub("", text[:most]) if _IN_WORD.match(text[most]) else text[:most]
    words = start.rstrip().split(" ")
    while len(words) > 1 and any(map(str.isdigit, words[-1])) and words[-1][-1] not in ",;:":
        words.pop()
    start = " ".join(words).rstrip()
    return f"{start if len(start) >= SHORTEST else text[:SHORTEST]}..."


SHORTEST = 8  # characters of a beginning
_IN_WORD = re.compile("[!-~]")  # where there are no spaces between words, as in Chinese, a text may be cut anywhere
_LAST_WORD = re.compile("[!-~]+$")


def some(names: Iterable[str]) -> str:
    """Return the first three of `names` for a message, and the number of all if there are more.

    >>> some(["a", "b"]), some("abcd")
    ('a, b', 'a, b, c, ... (4 in all)')
    """
    names = list(names)
    return ", ".join(map(shown, names[:3])) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")


def one_line(problem: Exception | str) -> str:
    """Return the text of the error `problem` on one line, at most 200 characters; without a text, its class."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if text.isprintable() and len(text) <= 200 else _quotation(beginning(text, 200))[1:-1]
