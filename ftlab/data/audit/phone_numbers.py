"""Phone numbers in a text, by the numbering plans of all countries (Google's libphonenumber, in `phonenumbers`).

A number with a country code is clear. A national one counts in the form that its country writes, or beside a word such
as "phone": digits in groups can also be an order number, a price or a date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from ftlab.data.audit.spans import Span

CANDIDATE = re.compile(
    r"(?<![A-Za-z\d_.,$€£¥+=#@/-])(?<!ISBN )(?:\+|\(?\+?(?=\d))\d?[\d(][\d .()/\xa0\u2010\u2011\u2013-]{4,24}\d"
    r"(?![A-Za-z\d_-]|[.,:]\d)"
)
# National forms: North America, a trunk prefix 0 and groups, Russia, Brazil, mobile numbers in China, France and Spain.
NORTH_AMERICAN = re.compile(r"(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}")
WITH_TRUNK = re.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ ./-]{1,3}\d{1,8}){1,5}")
NATIONAL = (
    (re.compile(r"8[ -]?\(?\d{3}\)?[ -]?\d{3}-\d{2}-\d{2}"), "RU"),
    (re.compile(r"\(\d{2}\) ?9?\d{4}-\d{4}"), "BR"),
    (re.compile(r"1[3-9]\d[ -]\d{4}[ -]\d{4}"), "CN"),
    (re.compile(r"[67]\d{2} \d{2} \d{2} \d{2}"), "ES"),
)
_WITH_TRUNK = (
    "GB DE FR IT AU NL BE CH AT SE IE NZ ZA IN ID MY PH TH VN JP KR CN TW TR IL EG NG KE UA RO BG RS HR SI SK FI AR PK "
    "BD IR SA AE MA DZ GH LK"
)
_OTHERS = "US RU BR MX ES PT PL CZ DK NO GR HU CO CL PE SG HK LT LV EE IS"
TRUNK_COUNTRIES = _WITH_TRUNK.split()
COUNTRIES = [*TRUNK_COUNTRIES, *_OTHERS.split()]
BESIDE = re.compile(
    r"(?:\b(?:tel|phone|telephone|mobile|mob|cell|fax|call|whatsapp|handy|telefon|telefono|teléfono|téléphone|tél|"
    r"portable|celular|telefone|móvil|numer|тел|телефон|моб)\b|☎|📞|电话|電話|手机|携帯|전화|هاتف|جوال|फ़ोन|मोबाइल|फोन|โทร)"
    r"(?:[^\w\n+(]|\b(?:numbers?|no|nr|num|nummer|número|numero|numéro|номер|is|ist|est|es|at|on|me|us|him|her|now|under"
    r"|unter|to|or|and|direct|home|work|office)\b|号码|號碼|号|番号|是|は|رقم|नंबर){0,20}$",
    re.IGNORECASE,
)
# A unit, or what is counted, after the number.
UNIT = re.compile(
    r"\s?(?:mAh|[mk]?Wh?|Hz|[kMG]Hz|[kMGT]i?B|px|dpi|fps|[ckmµ]?m[²³23]?|ft|[km]?g|lbs?|ml|h|hrs?|hours|Uhr|min|sec|ms|rpm|°|%"
    r"|[€$£¥₹]|EUR|USD|GBP|CHF|JPY|CNY|INR|dollars|euros|pounds|yen|rupees|views|units|people|persons|users|times"
    r"|votes|points|files|rows|pieces|copies|items|words|pages|miles|years|days)(?![A-Za-z])"
)
# What the digits are instead, if it stands before them.
OTHERWISE = re.compile(
    r"\b(?:order|invoice|part|article|artikel|serial|model|tracking|ticket|case|sku|isbn|issn|ean|gtin|doi|lottery|lotto|rgb"
    r"|scores?|temperatures?|bestellung|rechnung|rechnungsnummer|bestellnummer|commande|facture)"
    r"(?: (?:numbers?|no|nr|id)\W{0,3}|[ #]{0,3})$",
    re.IGNORECASE,
)
_RESOLUTION = re.compile(
    r"(?:640|720|800|1024|1280|1366|1440|1600|1920|2560|3840)\D(?:480|600|720|768|800|900|1050|1080|1200|1440|1600|2160)\b"
)
_TIME = re.compile(r"(?:[01]\d|2[0-4])[0-5][05]")
LARGEST_OF_A_LOTTERY = 50
# Reserved for fiction: 555-0100 to 555-0199 in every area code (North American Numbering Plan).
FICTION = re.compile(r"(?:1?[2-9]\d{2})55501\d{2}")
_DECIMAL = re.compile(r"\+?\d+[./]\d{1,3}")
_YEAR = r"(?:19|20)\d\d"
_DATE = re.compile(rf"{_YEAR}[-–/ ]{_YEAR}|{_YEAR}[-./ ]\d\d?[-./ ]\d\d?|\d\d?[-./ ]\d\d?[-./ ]{_YEAR}")  # noqa: RUF001
_DAY, _MONTH = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
# Dates among the digits; two digits of a year only where the groups do not go on.
_DATES = re.compile(
    rf"(?<!\d)(?:{_YEAR}(?P<a>[-./ ]){_MONTH}(?P=a){_DAY}|{_DAY}(?P<b>[-./ ]|\. ){_MONTH}(?P=b){_YEAR}"
    rf"|(?<![-./]){_DAY}(?P<c>[-./]){_MONTH}(?P=c)\d\d(?!(?P=c)\d))(?!\d)"
)
_LAST = re.compile(r"[./()\xa0-]*[ /()\xa0][ ./()\xa0-]*\d+$")  # what signs alone join is one number
_EDGES = " ./\xa0\u2010\u2011\u2013-"
_GROUPS = re.compile(r"\d+")


def find(text: str, start: int = 0, end: int = sys.maxsize) -> Iterator[Span]:
    """Yield the phone numbers in `text` from `start` to `end`; those that nobody has are "documentation_addresses".

    >>> [span.finding for span in find("call +44 20 7946 0958 or 212-555-0187, ISBN 978-0306406157, 1999-2000")]
    ['phone_numbers', 'documentation_addresses']
    """
    for match in CANDIDATE.finditer(text, start, end):
        beside = BESIDE.search(text, max(0, match.start() - 40), match.start()) is not None
        if not beside and match[0][0] != "+" and OTHERWISE.search(text, max(0, match.start() - 40), match.start()):
            continue
        for at, piece in _between_dates(match[0]):
            around = piece.startswith("(") and piece.count("(") > piece.count(")")  # a bracket around the number
            if written := _number_in(piece[around:], beside and at == 0):
                place = match.start() + at + around
                if UNIT.match(text, place + len(written)):
                    continue
                digits = re.sub(r"\D", "", written)
                kind = "documentation_addresses" if FICTION.fullmatch(digits) else "phone_numbers"
                yield Span(place, place + len(written), kind, "phone number")


def _between_dates(written: str) -> Iterator[tuple[int, str]]:
    """Yield place and text of what is left of `written` without the dates in it."""
    start = 0
    for date in _DATES.finditer(written):
        yield from _stripped(written, start, date.start())
        start = date.end()
    yield from _stripped(written, start, len(written))


def _stripped(written: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    piece = written[start:end]
    left = piece.lstrip(_EDGES)
    if left:
        yield start + len(piece) - len(left), left.rstrip(_EDGES + "(")


def _number_in(written: str, beside: bool) -> str:
    """The number that `written` is, or that it begins with if another number or a year follows; or nothing."""
    while not _is_number(written, beside):
        shorter = _LAST.sub("", written)
        if shorter == written:
            return ""
        written = shorter
    return written


@lru_cache(maxsize=4096)
def _is_number(written: str, beside: bool) -> bool:
    digits = re.sub(r"\D", "", written)
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3:
        return False
    if _DECIMAL.fullmatch(written) or _DATE.fullmatch(written):
        return False
    if not written.lstrip("(").startswith("+") and _is_list(_GROUPS.findall(written), written, beside):
        return False
    if written.lstrip("(").startswith("+"):
        return len(digits) >= 9 and _is_valid(written, None)
    if written.startswith("00") and len(digits) >= 11 and _is_valid("+" + written[2:].lstrip(), None):
        return True
    if NORTH_AMERICAN.fullmatch(written):
        return True
    if WITH_TRUNK.fullmatch(written) and any(_is_valid(written, region) for region in TRUNK_COUNTRIES):
        return len(digits) >= 9
    if any(form.fullmatch(written) and _is_valid(written, region) for form, region in NATIONAL):
        return True
    return beside and any(_is_valid(written, region) for region in COUNTRIES)


def _is_list(groups: list[str], written: str, beside: bool) -> bool:
    """Whether `groups` are numbers of their own: years, times, sizes, or a list that rises or falls."""
    if re.fullmatch(r"\d{5}-\d{4}", written) and not beside:  # a ZIP code
        return True
    years = sum(re.fullmatch(_YEAR, group) is not None for group in groups)
    if years >= 2 or all(map(_TIME.fullmatch, groups)) or _RESOLUTION.match(written):
        return True
    if len(groups) < 3:
        return False
    if all(group.endswith("00") for group in groups):
        return True
    if len(set(map(len, groups))) > 1:
        return False
    numbers = [int(group) for group in groups]
    steps = {after - before for before, after in pairwise(numbers)}
    width = len(groups[0])
    if beside:
        return width == 1 and len(steps) == 1
    if all(group.startswith("0") for group in groups) or len(steps) == 1 or (width == 2 and len(groups) > 5):
        return True
    one_way = min(steps) > 0 or max(steps) < 0
    return one_way and (width > 2 or max(numbers) < LARGEST_OF_A_LOTTERY)


def _is_valid(written: str, region: str | None) -> bool:
    import phonenumbers

    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return False
    if region is not None:
        return phonenumbers.is_valid_number_for_region(number, region)
    # Numbers that no one has yet are written in groups, too: an area code 555 in a film.
    grouped = len(_GROUPS.findall(written)) >= 3
    return phonenumbers.is_valid_number(number) or (grouped and phonenumbers.is_possible_number(number))
