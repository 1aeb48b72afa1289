"""Numbers that belong to one person: payment cards, bank accounts, and those that a state gives out.

Where such a number has a check digit, `python-stdnum` (LGPL) checks it. A number whose form is no rarer than that of an
order number counts only beside a word such as "passport", and then without a check digit, too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module

from ftlab.data.audit.spans import Span

# In the groups that are printed on cards, or in one piece that is not part of a URL or a name.
CARD = re.compile(
    r"(?<![A-Za-z\d_.,/-])(?:[2-6]\d{3}([ .\xa0\u2009\u202f-])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?"
    r"|3\d{3}([ .\xa0\u2009\u202f-])\d{6}\2\d{4,5}|[2-6]\d{12,18})"
    r"(?![A-Za-z\d_-]|/(?!\d\d(?!\d)))"  # the date of expiry may follow
)
# After "=" or "#" the number can be any: here it is a card's.
CARD_NAMED = re.compile(
    r"(?:card|karte|carte|carta|tarjeta|cart[aã]o|visa|amex|maestro|\bcc|\bpan)\w{0,12}[\"']?\s?[=#]$", re.IGNORECASE
)
# Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro, Mir (ISO/IEC 7812 registry, as widely
# published).
ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
    r"|(?:50(?:18|20|38)|5893|6304|67(?:59|6[1-3]))\d{9,15}|220[0-4]\d{12}"
)
# In groups of any length, that spaces of all kinds, signs or a line end may separate.
_GAP = r"(?:[ \t\xa0\u2007\u2009\u202f.-]|[ \t]?\r?\n[ \t]{0,4})?"
IBAN = re.compile(
    rf"(?<![A-Za-z0-9])[A-Z]{{2}}{_GAP}\d{_GAP}\d(?:{_GAP}[A-Z0-9]){{11,30}}(?![A-Za-z0-9])", re.IGNORECASE | re.ASCII
)
_GAPS = re.compile(r"[^A-Za-z0-9]+")
# Forms that hardly anything else has; the module of stdnum checks the number where there is one.
_FORMS: tuple[tuple[str, str, str], ...] = (
    ("US social security number", "us.ssn", r"\d{3}-\d{2}-\d{4}"),
    ("UK national insurance number", "",
     r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]"),
    ("Spanish identity number", "es.dni", r"\d{2}(?:\d{6}|\.\d{3}\.\d{3})[ -]?[A-HJ-NP-TV-Z]"),
    ("Spanish identity number", "es.nie", r"[XYZ][ -]?\d{7}[ -]?[A-Z]"),
    ("Italian tax code", "it.codicefiscale", r"[A-Z]{6}\d[\dA-Z][A-EHLMPRST][\dA-Z]{2}[A-Z][\dA-Z]{3}[A-Z]"),
    ("French social security number", "fr.nir", r"[12] ?\d\d ?[0-3]\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d"),
    ("Belgian national number", "be.nn", r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d"),
    ("Finnish identity code", "fi.hetu", r"[0-3]\d[01]\d{3}[-+A-FU-Y]\d{3}[\dA-Y]"),
    ("Swedish identity number", "se.personnummer", r"(?:19|20)?\d{6}[-+]\d{4}"),
    ("Norwegian identity number", "no.fodselsnummer", r"[0-7]\d{5} ?\d{5}"),
    ("Czech or Slovak birth number", "cz.rc", r"\d{6}/\d{3,4}"),
    ("Swiss social insurance number", "ch.ssn", r"756\.?\d{4}\.?\d{4}\.?\d\d"),
    ("Brazilian CPF", "br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d"),
    ("Mexican CURP", "mx.curp", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d"),
    ("Chinese identity number", "cn.ric", r"\d{6}(?:19|20)\d{9}[\dX]"),
    ("Korean resident number", "kr.rrn", r"\d{6}-[0-9]\d{6}"),
    ("South African identity number", "za.idnr", r"\d{6} \d{4} [012]\d\d"),
    ("Thai identity number", "th.pin", r"[1-8]-\d{4}-\d{5}-\d\d-\d"),
)  # fmt: skip
FORMS = tuple(
    (name, module, re.compile(rf"(?<![A-Za-z\d_.,/=#$€£+:-])(?:{form})(?![A-Za-z\d_/-]|[.,]\d)"))
    for name, module, form in _FORMS
)
# The words beside a number that has no form of its own. Any number after them counts.
NAMED = re.compile(
    r"(?P<word>(?<![A-Za-zÀ-ɏа-я])(?:ssn|social security(?: number| no\.?| #)?|social insurance(?: number)?|sin number"
    r"|passport(?: number| no\.?| nr\.?| #)?|tax(?:payer)?[ -]?(?:id(?:entification)?|file|number|no\.)"
    r"(?: number| no\.?)?"
    r"|national id(?:entity)?(?: number| card| no\.?)?|national insurance(?: number)?|nhs(?: number| no\.?| #)?|idnr\.?"
    r"|driver'?s? licen[cs]e(?: number| no\.?)?|driving licen[cs]e(?: number| no\.?)?|id card(?: number| no\.?)?"
    r"|identity card(?: number| no\.?)?|steuer-?(?:nummer|id|nr\.?|identifikationsnummer)|identifikationsnummer"
    r"|(?:sozial|renten)versicherungsnummer|(?:personal)?ausweis(?:nummer|nr\.?)|reisepass(?:nummer|nr\.?)?"
    r"|numéro (?:fiscal|de passeport|de sécurité sociale)|passeport|numéro de sécu|pasaporte|dni|nif|cpf"
    r"|codice fiscale|passaporto|passaporte|bsn|burgerservicenummer|pesel|cnp|jmbg|personnummer"
    r"|aadhaar|aadhar|pan(?: card)?(?: number| no\.?)|curp|cuit|cuil"
    r"|(?-i:PAN|TIN|NIE|NIP|OIB|EGN|CPR|RUT|RG|RFC(?=\W{1,3}[A-Z]{3,4}\d{6}))"
    r"|паспорт|инн|снилс|身份证|身份證|护照|護照"
    r"|マイナンバー|パスポート|旅券|주민등록번호|여권|جواز السفر|رقم الهوية|आधार|पासपोर्ट|หนังสือเดินทาง|บัตรประชาชน)"
    r"(?![a-zà-ɏа-я]))"
    r"(?:(?: number| no\.?| nr\.?| is| ist| est| es|号码|号|番号|номер| №|серия|है|:|：|#|=|-|\"|'|,|\(|\s){0,6})"  # noqa: RUF001
    r"(?-i:(?P<number>(?:[A-Z]{1,5}[ -]?)?\d[\dA-Z]{0,14}(?:[ ./-]\d[\dA-Z]{0,9}){0,5}"
    r"(?:[ -][A-Z](?![\w'’]))?)(?![\dA-Za-z_]))",  # noqa: RUF001
    re.IGNORECASE,
)
# Words that are often something else: their numbers count only with a correct check digit, by one of these modules.
_CHECKED = {
    "nhs": ("gb.nhs",), "idnr": ("de.idnr",), "nif": ("es.nif", "pt.nif", "fr.nif"), "dni": ("es.dni", "ar.dni"),
    "nie": ("es.nie",), "nip": ("pl.nip",), "oib": ("hr.oib",), "egn": ("bg.egn",), "cpr": ("dk.cpr",),
    "rut": ("cl.rut", "uy.rut"), "pan": ("in_.pan",), "rfc": ("mx.rfc",),
}  # fmt: skip
_RG = re.compile(r"\d{1,2}\.\d{3}\.\d{3}-?[\dX]|\d{8}[\dX]")  # Brazil's, without a common check digit
_YEAR = r"(?:19|20)\d\d"
_NO_NUMBER = re.compile(  # years, dates, a year and a count, a round count
    rf"(?:{_YEAR}\D?)+|{_YEAR}[-./ ]\d\d?[-./ ]\d\d?|\d\d?[-./ ]\d\d?[-./ ](?:{_YEAR}|\d\d)|{_YEAR} (?!\d{{6}}$)[\d ]+"
    r"|[1-9]\d{0,2}[ .]?0{3,}|[1-9]\d{0,2}(?:[ .]000)+"
)


def find(text: str, start: int = 0, end: int = sys.maxsize) -> Iterator[Span]:
    """Yield card numbers, bank accounts and the numbers of persons in `text` from `start` to `end`, the surest first.

    >>> [span.name for span in find("pay to DE89 3704 0044 0532 0130 00; passport no. C01X00T47; order 123456789")]
    ['IBAN', 'number after "passport no."']
    """
    place = start
    while match := IBAN.search(text, place, end):
        length = _iban_end(match[0])
        if length:
            yield Span(match.start(), match.start() + length, "bank_accounts", "IBAN")
        place = match.start() + (length or 1)
    for match in CARD.finditer(text, start, end):
        digits = re.sub(r"\D", "", match[0])
        any_number = text[max(0, match.start() - 1) : match.start()] in ("=", "#")
        if any_number and not CARD_NAMED.search(text, max(0, match.start() - 30), match.start()):
            continue
        if ISSUED.fullmatch(digits) and luhn(digits):
            yield Span(*match.span(), "card_numbers", "payment card number")
    for name, module, form in FORMS:
        for match in form.finditer(text, start, end):
            if not module or _is_valid(module, match[0].replace(".", "")):
                yield Span(*match.span(), "national_ids", name)
    for match in NAMED.finditer(text, start, end):
        if _is_named(match["word"], match["number"]):
            yield Span(*match.span("number"), "national_ids", f'number after "{match["word"]}"')


def _is_named(word: str, number: str) -> bool:
    """Whether what follows a word such as "passport" is long enough for a number of a person, and no year or date."""
    digits = [character for character in number if character.isdecimal()]
    if len(set(digits)) < 2 or _NO_NUMBER.fullmatch(number):
        return False
    first = word.lower().split()[0].rstrip(".")
    if first == "rg":
        return _RG.fullmatch(number) is not None
    if first in _CHECKED:
        return any(_is_valid(module, number.replace(".", "")) for module in _CHECKED[first])
    return 6 <= len(digits) <= 18 or (len(digits) >= 3 and len(number) >= 8 and number.isalnum())


def luhn(digits: str) -> bool:
    """Return whether the check digit of `digits` is correct (ISO/IEC 7812-1, annex B).

    >>> luhn("79927398713"), luhn("79927398710")
    (True, False)
    """
    from stdnum import luhn as standard

    return standard.is_valid(digits)


def _iban_end(written: str) -> int:
    """How many characters of `written` are an IBAN: all, or those before a last group, which may be a word; or 0."""
    for end in [len(written), *(gap.start() for gap in reversed([*_GAPS.finditer(written)]))]:
        if _is_iban(_GAPS.sub("", written[:end]).upper()):
            return end
    return 0


def _is_iban(compact: str) -> bool:
    """Whether the check digits (ISO 13616) and the form of the country are right; not whether the bank exists."""
    if len(compact) < 15 or int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 != 1:
        return False
    from stdnum import iban

    return bool(iban.is_valid(compact, check_country=False))


@lru_cache(maxsize=4096)
def _is_valid(module: str, number: str) -> bool:
    return bool(import_module(f"stdnum.{module}").is_valid(number))
