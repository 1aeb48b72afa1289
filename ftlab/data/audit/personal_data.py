"""Personal data and secrets in a text: where they are, their masks, and what no report may show."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from ftlab.data import conversations
from ftlab.data.audit import identifiers, phone_numbers, secrets, split_keys
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.spans import Joined, Span, without_overlaps
from ftlab.data.audit.table import Table

KINDS = {  # what the rows have, and what replaces it
    "secrets": ("keys or passwords", "[secret]"),
    "bank_accounts": ("bank account numbers", "[iban]"),
    "card_numbers": ("payment card numbers", "[card]"),
    "national_ids": ("identity, tax or passport numbers", "[id number]"),
    "email_addresses": ("e-mail addresses", "[email]"),
    "phone_numbers": ("phone numbers", "[phone]"),
    "ip_addresses": ("IP addresses", "[ip]"),
    "documentation_addresses": ("addresses or phone numbers that are reserved for examples", "[example]"),
}
EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}(?!png|jpe?g|gif|svg|webp)[a-z]{2,24}(?![a-z\d_-])", re.IGNORECASE
)
# Reserved for documentation and tests (RFC 2606, RFC 6761).
RESERVED = re.compile(
    r"@(?:[\w-]+\.)*(?:example(?:\.(?:com|net|org|edu))?|test|invalid|localhost|local)$", re.IGNORECASE
)
IPV4 = re.compile(r"(?<![A-Za-z\d_.-])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z\d_-]|\.(?:\d|in-addr))")
IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-f]{3}:[0-9a-f:]{2,35}(?![\w:]|\.\d)", re.IGNORECASE)
# Three small numbers of four are more often a version or a section than an address, unless a word says so.
VERSION = re.compile(r"(?:version|release|firmware|build|rev|v|section|chapter|==|>=|~=|@)[ .:=]{0,3}$", re.IGNORECASE)
ADDRESS = re.compile(
    r"(?:\bip\b|\baddr|\bhost\b|\bclient\b|\bserver\b|\bfrom\b|//|\bping\b|\bssh\b)[^\n]{0,20}$", re.IGNORECASE
)
SMALL = 32
PUBLIC = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "123.45.67.89"}  # resolvers that all name, an example
# Six digits that signs may separate: phone and card numbers, bank accounts and most numbers of persons have them.
_DIGITS = re.compile(r"\d(?:[ .()/\xa0\u2010-\u2013-]{0,3}\d){5}")
_LETTERED = re.compile(r"\d[A-Z][\dA-Z]{3}")  # of numbers with letters among them
PASSPORTS = ("passport", "passeport", "pasaporte", "passaport", "reisepass", "ausweis")
_PASSPORT = re.compile("|".join(PASSPORTS), re.IGNORECASE)
AROUND = 60  # characters on both sides of the digits, for the words beside a number
LONGEST = 80  # characters of a number
_DIGIT, _SPACE = re.compile(r"\d"), re.compile(r"\s")
_DOTTED = re.compile(r"\d\.\d{1,3}\.\d")
_PIECE = re.compile(r"[^\W_]{4,}")
# What does not show: soft hyphens, zero-width characters, joiners, direction marks, selectors of variants, and tags.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)


def check(table: Table) -> list[Finding]:
    """Return the findings on secrets and personal data in the texts and labels of all rows of `table`."""
    table.progress.set_description("searching for personal data")
    rows = said(table)
    ids = rows["id"].to_numpy()
    seen: dict[str, dict[int, dict[str, None]]] = {kind: {} for kind in KINDS}  # for each row, what is said of it
    spans = spans_of(table)
    for row, text in enumerate(rows["text"].tolist()):
        spans[ids[row]] = scan(text)
        for span in spans[ids[row]]:
            seen[span.finding].setdefault(row, {})[shown(span, text[span.start : span.end])] = None
    for label in rows["label"].unique().tolist():
        for span in scan(label) if isinstance(label, str) else ():
            for row in np.flatnonzero(rows["label"] == label).tolist():
                name = f"{shown(span, label[span.start : span.end])} (label)"
                seen[span.finding].setdefault(row, {})[name] = None
    found = []
    for kind, of_row in seen.items():
        if not of_row:
            continue
        of_row = dict(sorted(of_row.items()))
        evidence = pd.DataFrame({"id": ids[[*of_row]], "found": [", ".join(names) for names in of_row.values()]})
        what = f"{KINDS[kind][0]} in {{count}} ({share(len(of_row), len(rows))})"
        splits = rows["split"].to_numpy()[[*of_row]]
        if table.others:
            evidence["split"] = splits
        for split in table.others:
            if there := int((splits == split).sum()):
                what += f", {there:,} of them in {split}"
        if kind in ("secrets", "national_ids"):
            names = Counter(name for names in of_row.values() for name in names).most_common(3)
            what += ": " + ", ".join(f"{name} ({count:,})" for name, count in names)
        found.append(finding(kind, what, evidence=evidence))
    return found


def said(table: Table) -> pd.DataFrame:
    """Return id, split, label and text of the rows of `table` in all splits; a conversation with its system turns."""

    def compute() -> pd.DataFrame:
        rows = table.texts[["id", "split", "label", "text"]]
        if not table.conversations:
            return rows
        frames = [frame for frame in (table.frame, *table.others.values()) if "messages" in frame]
        turns = {row: said or [] for frame in frames for row, said in zip(frame["id"], frame["messages"], strict=True)}
        system = rows["id"].map(lambda row: conversations.said_by(turns.get(row, []), "system"))
        return rows.assign(text=rows["text"].where(system == "", system + "\n\n" + rows["text"]))

    return table.cached("said", compute)


def spans_of(table: Table) -> dict[str, list[Span]]:
    """Return what `check` has found by `scan` in the text of each row of `table`, by the id of the row."""
    return table.cached("spans", dict)


def scan(text: str) -> list[Span]:
    """Return where secrets and personal data stand in `text`, in its order and without overlaps.

    Invisible characters in them, and line ends in a key, hide nothing.

    >>> [(span.finding, span.name) for span in scan("ask jo.doe@mail.de, +49 30 901820")]
    [('email_addresses', 'e-mail address'), ('phone_numbers', 'phone number')]
    """
    if text.isascii():
        return _scan(text)
    unseen = [match.span() for match in _UNSEEN.finditer(text)]
    if not unseen:
        return _scan(text)
    seen = Joined(text, unseen)
    return [span._replace(start=seen.start(span.start), end=seen.end(span.end)) for span in _scan(seen.text)]


def scan_numbers(text: str) -> list[Span]:
    """Return what `scan` finds in a `text` that is known to have no secret and no invisible character in it.

    >>> [span.name for span in scan_numbers("call +49 30 901820")]
    ['phone number']
    """
    return without_overlaps(_numbers(text))


def _scan(text: str) -> list[Span]:
    spans = _spans(text)
    return without_overlaps(spans if text.isprintable() else [*split_keys.find(text), *spans])


def _spans(text: str) -> Iterator[Span]:
    """All that is found in a text, the surest kinds first: a card number may look like a phone number too."""
    yield from secrets.find(text)
    yield from _numbers(text)


def _numbers(text: str) -> Iterator[Span]:
    """Yield all that `_spans` does but secrets, e-mail addresses among it."""
    digits = sum(map(text.count, "0123456789"))
    if digits < 5 and not text.isascii():  # five or more are as good as one another
        digits = len(_DIGIT.findall(text))
    windows = _windows(text, digits) if digits >= 3 else []
    for start, end in windows:
        yield from identifiers.find(text, start, end)
    if "@" in text:
        for match in EMAIL.finditer(text):
            if match[0].startswith("git@"):  # the address of a repository
                continue
            kind = "documentation_addresses" if RESERVED.search(match[0]) else "email_addresses"
            yield Span(*match.span(), kind, "e-mail address")
    for start, end in windows:
        yield from phone_numbers.find(text, start, end)
    if digits >= 4 and _DOTTED.search(text):
        yield from _ipv4(text)
    if digits >= 4 and text.count(":") > 1:
        for match in IPV6.finditer(text):
            if _is_public(match[0].rstrip(":")):
                yield Span(*match.span(), "ip_addresses", "IP address")


def _windows(text: str, digits: int) -> list[tuple[int, int]]:
    """The parts of `text` with numbers in them, from and to white space if there is some near."""
    windows: list[tuple[int, int]] = []
    matches = [*_DIGITS.finditer(text), *_LETTERED.finditer(text)] if digits >= 5 else []
    if any(map(text.lower().__contains__, PASSPORTS)):
        matches += _PASSPORT.finditer(text)  # its number may have few digits
    for match in matches:
        start, end = max(0, match.start() - AROUND), match.end() + LONGEST
        space = _SPACE.search(text, end, end + LONGEST)
        windows.append((start, space.start() if space else min(end, len(text))))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(windows):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _ipv4(text: str) -> Iterator[Span]:
    for match in IPV4.finditer(text):
        before = text[max(0, match.start() - 40) : match.start()]
        small = sum(int(part) < SMALL for part in match[0].split(".")) >= 3
        if VERSION.search(before) or (small and not ADDRESS.search(before)):
            continue
        if match[0] not in PUBLIC and _is_public(match[0]):
            yield Span(*match.span(), "ip_addresses", "IP address")


def _is_public(address: str) -> bool:
    """Whether `address` is one that can belong to someone: not private, and not reserved for documentation."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and not parsed.is_multicast


def mask(finding_id: str) -> Callable[[str], str]:
    """Return a function that replaces what the finding `finding_id` is about in a text by a placeholder.

    >>> mask("email_addresses")("Write to jo@mail.de.")
    'Write to [email].'
    """

    def masked(text: str) -> str:
        return _replaced(text, (span for span in scan(text) if span.finding == finding_id))

    return masked


def without_private(text: str) -> str:
    """Return `text` with all secrets and personal data replaced, since reports are passed on.

    >>> without_private("Call 212-555-2368 or jo@mail.de")
    'Call [phone] or [email]'
    """
    return _replaced(text, scan(text))


def _replaced(text: str, spans: Iterable[Span]) -> str:
    pieces, end = [], 0
    for span in spans:
        pieces += [text[end : span.start], KINDS[span.finding][1]]
        end = span.end
    return "".join([*pieces, text[end:]])


def shown(span: Span, written: str) -> str:
    """Return what a report says of `span`: of an address `written` its first and last two characters, else its name."""
    written = _UNSEEN.sub("", written)
    if span.finding in ("email_addresses", "phone_numbers", "documentation_addresses"):
        return f"{written[0]}…{written[-2:]}"  # enough for its owner to recognise it
    return span.name


def pieces(text: str, found: Iterable[Span] | None = None) -> set[str]:
    """Return the words, in lower case, that the secrets and numbers in `text` fall into.

    A check that looks at single words would show them without what makes them look like a secret. A word that something
    else may be, too, is not among them. `found` is what `scan` returns for `text`, if it is known.
    """
    found = scan(text) if found is None else found
    spans = [span for span in found if span.finding not in ("email_addresses", "documentation_addresses")]
    secret = [text[span.start : span.end] for span in spans]
    words = {word for each in secret for form in (each, _UNSEEN.sub("", each)) for word in _PIECE.findall(form)}
    return {word.lower() for word in words if split_keys.is_random(word)}
