"""Secrets that a line end or a control character splits, as in a mail or a narrow table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from ftlab.data.audit import secrets
from ftlab.data.audit.spans import Joined, Span

# A line end with the quotation marks or spaces of the next line, or a control character.
_BREAK = re.compile("(?:\r\n|[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029])[ \t>]{0,40}")
_IN_KEY = re.compile(r"[\w+/-]", re.ASCII)
_CONTINUED = "=\\"  # a sign before a line end that says that the line goes on: of mails, and of shells
_STARTS = tuple(start for keys in secrets.KEYS.values() for starts, _, _ in keys for start in starts)
_FORMS = {
    name: [form for keys in secrets.KEYS.values() for _, of, form in keys if of == name]
    for name in {name for keys in secrets.KEYS.values() for _, name, _ in keys}
} | {"JSON web token": [secrets.JWT], "private key": [secrets.PRIVATE_KEY]}
LONGEST = 16  # letters that a word has
CHANGES = 4  # of case, in letters that are no word
MOST_LINES = 100  # of a secret: a limit for hostile texts
SHORTEST_REST = 12  # characters of a password or of a key without a known form on a next line


def find(text: str) -> Iterator[Span]:
    """Yield the secrets in `text` that go over the end of a line.

    >>> [(span.start, span.end) for span in find("my ghp_aB3dE5gH7jK9mN1p\\nQ2rS4tU6vW8xY0zA1bC3 is new")]
    [(3, 44)]
    """
    gone = [*_breaks(text)]
    if not gone:
        return
    joined = Joined(text, gone)
    for span in secrets.find(joined.text):
        if end := _end(joined, span):
            yield span._replace(start=joined.start(span.start), end=joined.end(end))


def _breaks(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of what stands between two lines, where a key may go on."""
    for match in _BREAK.finditer(text):
        start, end = match.span()
        start -= text[start - 1 : start] in _CONTINUED
        before, after = text[max(0, start - 1) : start], text[end : end + 1]
        if _IN_KEY.match(before) and _IN_KEY.match(after) and not text.startswith(_STARTS, end):
            yield start, end


def _end(joined: Joined, span: Span) -> int:
    """Where the secret `span` ends, without words of a next line; 0 if it is of one line."""
    places = [*joined.pieces(span.start, span.end), span.end][:MOST_LINES]
    forms = _FORMS.get(span.name, [])
    while len(places) > 1:
        *_, before, end = places
        value, rest = joined.text[span.start : end], joined.text[before:end]
        if not forms and len(rest) >= SHORTEST_REST and _changes(rest) >= CHANGES:
            return end
        if any(form.fullmatch(value) for form in forms):
            # If the first line is a whole key, a word of the next line is none of it.
            whole = any(form.fullmatch(joined.text[span.start : before]) for form in forms)
            if is_random(rest) if whole else sum(map(str.isdecimal, value)) > 1 or _changes(value) > 2 * CHANGES:
                return end
        places.pop()
    return 0


def is_random(word: str) -> bool:
    """Return whether `word` is a piece of a key or a number, and not a word of a language.

    >>> is_random("fDyOXabc"), is_random("x7f3"), is_random("JavaScript"), is_random("2024")
    (True, True, False, False)
    """
    if word.isdecimal():
        return len(word) >= 6
    return len(word) >= LONGEST or any(map(str.isdecimal, word)) or _changes(word) >= CHANGES


def _changes(word: str) -> int:
    """How often `word` changes between small and capital letters."""
    cases = [letter.isupper() for letter in word]
    return sum(one != other for one, other in pairwise(cases))
