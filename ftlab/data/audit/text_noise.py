"""Noise in texts: markup, HTML entities, mojibake, invisible characters, boilerplate and personal data."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pandas as pd

from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.table import Table
from ftlab.data.words import SHARED_BY, long_lines, shared_lines

TAGS = (
    "a abbr article b big blockquote body br button center cite code dd del div dl dt em figure font footer form h1 h2 "
    "h3 h4 h5 h6 head header hr html i iframe img input ins label li link main meta nav ol option p pre s script "
    "section select small span strike strong style sub sup svg table tbody td textarea tfoot th thead title tr tt u ul"
)
MARKUP = re.compile(
    rf"<(?:/?(?:{TAGS.replace(' ', '|')})(?:\s[^<>]{{0,300}})?/?|!--.{{0,300}}?--|!doctype[^<>]{{0,100}})>", re.I
)
# "</s>" alone is the end-of-sequence token of many models; the pair <s>...</s> is HTML for text that is struck out.
ENDS, STRUCK_OUT = ("<s>", "</s>"), re.compile(r"<s>.*?</s>", re.IGNORECASE | re.DOTALL)
ENTITY = re.compile(r"&(?:[a-z][a-z0-9]{1,8}|#\d{2,6}|#x[0-9a-f]{2,5});", re.I)
# Control characters except tab and line ends, soft hyphens, zero-width and direction marks, and U+FFFD, which replaces
# a character that was lost. Persian and emoji need the joiners U+200C and U+200D, so these are not in the list.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffd]"
)
EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}(?!png|jpe?g|gif|svg|webp)[a-z]{2,24}(?![\w-])", re.IGNORECASE
)
# International with a plus, North American, or national with a leading zero and groups. Ranges of years and ISBNs must
# not match.
PHONE = re.compile(
    r"(?<![\w.,$€£+-])(?<!ISBN )(?:\+\d[\d .()/-]{6,18}\d(?! \d)"
    r"|(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-][2-9]\d{2}[ .-]\d{4}"
    r"|\(?0[1-9]\d{1,3}\)?[ /-]\d[\d -]{4,9}\d)(?![\w-]|[.,]\d)"
)
# In the groups that are printed on cards, or in one piece that is not part of a URL or a name.
CARD = re.compile(
    r"(?<![\w.,/=#-])(?:[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}|3\d{3}([ -])\d{6}\2\d{4,5}|[2-6]\d{12,18})(?![\w/-])"
)
# Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay (ISO/IEC 7812 registry, as widely published).
ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
)
PERSONAL = {  # the order matters: a card number may match as a phone number too
    "card_numbers": (CARD, "[card]"),
    "phone_numbers": (PHONE, "[phone]"),
    "email_addresses": (EMAIL, "[email]"),
}


def check(table: Table) -> list[Finding]:
    """Return the findings on noise and personal data in the training rows of `table`."""
    rows = table.texts[table.train]
    ids, texts = rows["id"].to_numpy(), rows["text"].tolist()
    found = []
    for finding_id, what in (
        ("markup", "HTML tags"),
        ("entities", "HTML entities"),
        ("mojibake", "wrongly decoded characters"),
        ("control_characters", "invisible characters"),
        ("email_addresses", "e-mail addresses"),
        ("phone_numbers", "phone numbers"),
        ("card_numbers", "payment card numbers"),
    ):
        seen = [(row, match) for row, text in enumerate(texts) if (match := FINDERS[finding_id](text))]
        if seen:
            shown = [
                _shortened(match) if finding_id in PERSONAL else printable(without_personal_data(match))
                for _, match in seen
            ]
            evidence = pd.DataFrame({"id": ids[[row for row, _ in seen]], "found": shown})
            what = f"{what} in {{count}} ({share(len(seen), len(texts))})"
            found.append(finding(finding_id, what, evidence=evidence))
    return found + _boilerplate(table)


def strip_markup(text: str) -> str:
    """Return `text` with each HTML tag replaced by a space.

    >>> strip_markup("A <b>good</b> film<br />")
    'A good film'
    """
    kept = () if STRUCK_OUT.search(text) else ENDS
    return re.sub(r"[ \t]{2,}", " ", MARKUP.sub(lambda tag: tag[0] if tag[0].lower() in kept else " ", text)).strip()


def decode_entities(text: str) -> str:
    """Return `text` with HTML entities decoded, also those that were encoded up to three times.

    >>> decode_entities("Tom &amp; Jerry, &amp;quot;best&amp;quot;")
    'Tom & Jerry, "best"'
    """
    for _ in range(3):
        text = ENTITY.sub(lambda match: html.unescape(match[0]).replace("\xa0", " "), text)
    return text


def fix_encoding(text: str) -> str:
    """Return `text` with mojibake corrected, where the library ftfy can do it (Speer 2019).

    >>> fix_encoding("caf\\u00c3\\u00a9") == "caf\\u00e9"
    True
    """
    import ftfy

    return ftfy.fix_encoding(text)


def strip_invisible(text: str) -> str:
    """Return `text` without control and zero-width characters.

    >>> strip_invisible("co\\u200bffee")
    'coffee'
    """
    return INVISIBLE.sub("", text)


def mask(finding_id: str) -> Callable[[str], str]:
    """Return a function that replaces the personal data of finding `finding_id` in a text by a placeholder.

    >>> mask("email_addresses")("Write to jo@example.com.")
    'Write to [email].'
    """
    pattern, placeholder = PERSONAL[finding_id]

    def masked(text: str) -> str:
        return pattern.sub(lambda match: placeholder if _is_real(finding_id, match[0]) else match[0], text)

    return masked


def without_personal_data(text: str) -> str:
    """Return `text` with each e-mail address, phone and card number replaced, since reports are passed on."""
    for finding_id in PERSONAL:
        text = mask(finding_id)(text)
    return text


def _shortened(match: str) -> str:
    """Return the first character and the last two, enough for its owner to recognise it."""
    return f"{match[0]}…{match[-2:]}"


def printable(text: str) -> str:
    """Return `text` on one line, with characters that would not show as their code points.

    >>> printable("co\\u200bffee")
    'coU+200B ffee'
    """
    text = " ".join(text.split())
    return "".join(character if character.isprintable() else f"U+{ord(character):04X} " for character in text).strip()


def _boilerplate(table: Table) -> list[Finding]:
    lines = shared_lines(table.answers)
    if not lines:
        return []
    rows = table.texts[table.train]
    texts = rows[table.columns[-1]].fillna("")
    first = [next((line for line in long_lines(text) if line in lines), None) for text in texts]
    evidence = pd.DataFrame({"id": rows["id"].to_numpy(), "line": first}).dropna()
    evidence["line"] = evidence["line"].map(without_personal_data)
    most = without_personal_data(next(iter(lines)))
    what = f"a line that {SHARED_BY} or more texts share in {{count}}, such as {most[:60]!r}"
    return [finding("boilerplate", what, evidence=evidence)]


def _first(pattern: re.Pattern[str], finding_id: str, needs: Callable[[str], bool]) -> Callable[[str], str | None]:
    """Return a function that finds the first real match in a text; `needs` is a quick test that most texts fail."""

    def find(text: str) -> str | None:
        if not needs(text):
            return None
        return next((match[0] for match in pattern.finditer(text) if _is_real(finding_id, match[0])), None)

    return find


def _is_real(finding_id: str, match: str) -> bool:
    if finding_id == "entities":
        return html.unescape(match) != match
    digits = [int(character) for character in match if character.isdecimal()]
    if finding_id == "phone_numbers":
        return 9 <= len(digits) <= 15
    if finding_id == "card_numbers":
        return ISSUED.fullmatch("".join(map(str, digits))) is not None and _luhn(digits)
    return True


def _luhn(digits: list[int]) -> bool:
    """Return whether the check digit is correct (ISO/IEC 7812-1, annex B)."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _markup(text: str) -> str | None:
    if "<" not in text:
        return None
    kept = () if STRUCK_OUT.search(text) else ENDS
    return next((tag[0] for tag in MARKUP.finditer(text) if tag[0].lower() not in kept), None)


def _mojibake(text: str) -> str | None:
    if text.isascii():
        return None
    from ftfy import badness

    match = badness.BADNESS_RE.search(text)
    return match[0] if match else None


def _invisible(text: str) -> str | None:
    match = None if text.isascii() and text.isprintable() else INVISIBLE.search(text)
    return match[0] if match else None


def _any_digit(text: str) -> bool:
    return _DIGITS.search(text) is not None


_DIGITS = re.compile(r"\d[\d .()/-]{7}")
FINDERS: dict[str, Callable[[str], str | None]] = {
    "markup": _markup,
    "entities": _first(ENTITY, "entities", lambda text: "&" in text),
    "mojibake": _mojibake,
    "control_characters": _invisible,
    "email_addresses": _first(EMAIL, "email_addresses", lambda text: "@" in text),
    "phone_numbers": _first(PHONE, "phone_numbers", _any_digit),
    "card_numbers": _first(CARD, "card_numbers", _any_digit),
}
