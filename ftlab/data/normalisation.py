"""The one normal form in which texts are compared, so that a disguised copy is found; never for training.

It goes on from `words.normalise` (NFKC, case, white space) in named steps: HTML entities and tags, invisible
characters, accents, look-alike letters, and the spaces left out. Each step only joins texts that a reader would call
the same, so short texts keep their accents and spaces: "schon" and "schön", "may be" and "maybe" are different words.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib import resources

from ftlab.data.words import normalise

SHORT = 20  # characters: up to here an accent or a space can be all that tells two texts apart
NAMES_WITHIN = 400  # characters: in a longer text, other names leave most of the words alike
NUMBER, NAME = "\ue001", "\ue000"  # what stands for a number and for a name in a template
ENTITY = re.compile(r"&(?:[a-z][a-z0-9]{1,8}|#\d{2,6}|#x[0-9a-f]{2,5});", re.I)
LAYOUT = ("br", "p", "div", "hr")  # these break lines; the other tags come in pairs
FORMATTING = (
    "a abbr b big blockquote body center cite code dd del dl dt em font h1 h2 h3 h4 h5 h6 head html i ins li ol pre s "
    "section small span strike strong sub sup table tbody td th thead tr tt u ul"
)
TAG = re.compile(
    rf"<(?:!--[^<>]{{0,300}}--|/?({'|'.join(LAYOUT)}|{FORMATTING.replace(' ', '|')})(?:\s[^<>]{{0,300}})?/?)>"
)
NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
LATIN = re.compile("[A-Za-z]")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
DIGITS = re.compile(r"\d+(?:[.,:/-]\d+)*")
# The Latin, Greek and Cyrillic capitals of most texts: patterns have no class of capitals.
OTHER_CAPITALS = (
    "\u00c0-\u00d6\u00d8-\u00de\u010c\u0110\u0130\u0141\u015a\u015e\u0160\u017b\u017d\u0391-\u03a9\u0410-\u042f"
)
CAPITAL = f"[A-Z{OTHER_CAPITALS}]"
CAPITALISED = rf"{CAPITAL}[\w'\u2019-]+"
# In the middle of a sentence one capitalised word is a name, at its beginning two are.
NAMES = re.compile(rf"(?<=[\w,;] ){CAPITALISED}(?: {CAPITALISED})*|{CAPITALISED}(?: {CAPITALISED})+")
# Letters, marks and symbols of which nothing, or no more than a longer line, is seen: fillers, selectors, the blank of
# Braille, the Arabic tatweel.
BLANK = re.compile(
    "[\u034f\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
ACCENTS = range(0x0300, 0x0370)
# What tells two texts with the same words apart: emoticons, a sign before a number, operators, and signs after a letter
# as in "C#". A dash between words and a hyphen do not.
SIGN = re.compile(
    r"[:;=]['^-]?[()\[\]|/]|<3\b|(?<![\w.)\]])-(?=[\d.])|(?<=\b\w) - (?=\w\b)|(?<=\w)#(?!\w)|[!<>=]=|[=<>%$+^~\u2212]"
    r"|(?<=[\w)])(?:[*/|&]| [*/|&] )(?=[\w(])|(?<![\w!])!(?=\w)"
)
ANY_SIGN = re.compile(
    SIGN.pattern
    + r"|(?<=\d)['\"]|(?<!\w)-|-(?!\w)"
    + r"|[^\w\s.,;!'\"\u2013\u2014\u2018-\u201f\u2026\u00ab\u00bb\u3001\u3002\u060c\u061b\u0964-]"
)
MARKS = "\u00a9\u00ae\u2122"  # symbols that tell nothing
OWN_LETTERS = (
    "\u0439\u0457\u045e\u0453\u045c\u0419\u0407\u040e\u0403\u040c"  # Cyrillic letters with a mark that is no accent
)
ACCENTED = ("LATIN", "GREEK", "CYRILLIC")  # in other scripts marks are vowels


def skeleton(text: str) -> str:
    """Return `text` without all that a disguise changes; equal skeletons mean the same text.

    >>> skeleton("Th\\u0435 b\\u200best f\\u00edlm &amp; the <b>best</b> cast")
    'thebestfilm&thebestcast'
    >>> skeleton("great :)") == skeleton("great :(")
    False
    """
    return skeleton_of(normal(text))


def normal(text: str, normalised: str | None = None) -> str:
    """Return `text` as `normalise` does; in a text with Latin letters, a capital that looks Latin is made Latin first.

    Later it could not be told: the Greek letter that looks like "N" has a small letter that looks like "v". A word with
    letters that do not look Latin stays. `normalised` is what `normalise` returns for `text`, if it is known.

    >>> normal("\\u039d\\u03bft good")[0], normal("\\u039d\\u03b1\\u03c0 good")[0] == "\\u03bd"
    ('n', True)
    """
    if text.isascii() or not (odd := _odd_capitals().keys() & set(text)) or not LATIN.search(text):
        return normalise(text) if normalised is None else normalised
    table = str.maketrans({letter: _odd_capitals()[letter] for letter in odd})
    likes = _confusables()

    def latin(word: re.Match[str]) -> str:
        looks = all(letter.isascii() or letter in likes for letter in word[0])
        return word[0].translate(table) if looks else word[0]

    return normalise(re.sub(r"\w+", latin, text))


def skeleton_of(normal: str) -> str:
    """Return the skeleton of a text that `normal` has returned."""
    close = _close(normal)
    return close if len(close) > SHORT else _short(normal)


def accented_skeleton_of(normal: str) -> str:
    """Return the skeleton of a text that `normal` has returned, but with its accents.

    >>> accented_skeleton_of("il a p\u00each\u00e9 toute la longue nuit")
    'ilap\u00each\u00e9toutelalonguenuit'
    """
    if is_plain(normal):
        return skeleton_of(normal)
    close = _applied(normal, tuple(step for step in STEPS if step != "accents"))
    return close if len(close) > SHORT else _short(normal)


def _short(normal: str) -> str:
    """Return the skeleton of a short text; without Latin letters, those that look Latin are a word of their own."""
    if is_plain(normal):
        return normal
    steps = ("entities", "tags", "invisible", "homoglyphs") if LATIN.search(normal) else ("invisible",)
    return _applied(normal, steps)


def _close(normal: str) -> str:
    return normal.replace(" ", "") if is_plain(normal) else _applied(normal, tuple(STEPS))


def comparable(text: str) -> str:
    """Return `text` as `skeleton` does, but with single spaces between the words.

    >>> comparable("Caf\\u00e9 &amp; b\\u0430r<br />")
    'cafe & bar'
    """
    said = normal(text)
    return said if is_plain(said) else _applied(said, ("entities", "tags", "invisible", "accents", "homoglyphs"))


def undisguised(word: str) -> str:
    """Return a `word`, such as a label, without entities, invisible characters, look-alike letters and spaces.

    >>> undisguised("g\\u043eod\\ufeff"), undisguised("Very Good"), undisguised("C++")
    ('good', 'verygood', 'c++')
    """
    return _applied(normal(word), ("entities", "invisible", "homoglyphs", "spaces"))


def visible(word: str) -> str:
    """Return a `word`, such as a label, without entities, invisible characters and white space; its letters stay.

    >>> visible(" g&#111;od\\ufeff \u00c4")
    'good\u00c4'
    """
    for _ in range(3):
        word = ENTITY.sub(lambda match: html.unescape(match[0]), word)
    return "".join(_applied(word, ("invisible",)).split())


def latin(word: str) -> str:
    """Return a `word` in small letters, the Latin ones in place of those that look like them.

    >>> latin("G\u041e\u043ed")
    'good'
    """
    table = _confusables()
    return "".join(table.get(letter) or _look_alikes().get(letter.lower(), letter) for letter in word).lower()


def mixes_scripts(word: str) -> bool:
    """Return whether a `word` has Latin letters beside letters of another script that look Latin.

    >>> mixes_scripts("g\u043eod"), mixes_scripts("\u043d\u043e"), mixes_scripts("s\u0131n\u0131f")
    (True, False, False)
    """
    if word.isascii() or not LATIN.search(word):
        return False
    return any(letter in _confusables() and not unicodedata.name(letter, "").startswith("LATIN") for letter in word)


def without_accents(text: str) -> str:
    """Return `text` without accents, in scripts where they are no vowels.

    >>> without_accents("caf\\u00e9")
    'cafe'
    """
    return text if text.isascii() else NOT_ASCII.sub(lambda match: match[0].translate(_table(("accents",))), text)


def accents_of(text: str) -> int:
    """Return how many characters of `text` have an accent.

    >>> accents_of("caf\u00e9")
    1
    """
    if text.isascii():
        return 0
    return sum(_without_accents(character) != character for part in NOT_ASCII.findall(text) for character in part)


def disguised(text: str) -> tuple[int, int]:
    """Return how much of `text` is disguised, to compare it with a copy: less is closer to the text that was written.

    Accents do not count, since words may have them.

    >>> disguised("g\u043eod") > disguised("good"), disguised("\u043d\u043e") > disguised("no")
    (True, False)
    """
    if is_plain(text):
        return 0, -text.count(" ")
    likes = _confusables()
    foreign = sum(letter in likes for part in NOT_ASCII.findall(text) for letter in part)
    hidden = sum(not _table(("invisible",))[ord(letter)] for part in NOT_ASCII.findall(text) for letter in part)
    small = text.lower()
    marked = len(ENTITY.findall(small)) + len(TAG.findall(small)) + len(CONTROL.findall(text))
    # In a text of another script, the Latin letters are the disguise.
    return hidden + marked + min(foreign, len(LATIN.findall(text))), -text.count(" ")


def signs(text: str, *, short: bool = False) -> str:
    """Return what tells `text` from another one with the same words: accents, emoji, signs of numbers, operators.

    In a `short` text all punctuation tells but stops, commas and quotation marks.

    >>> signs("It is -5 degrees, or so."), signs("great :("), signs("C#"), signs("well-made, so", short=True)
    ('-', ':(', '#', '')
    """
    said = _applied(normal(text), ("entities", "tags", "invisible", "homoglyphs"))
    found = [match[0].strip() for match in (ANY_SIGN if short else SIGN).finditer(said)]
    if not said.isascii():
        other = NOT_ASCII.findall(said)
        found += [sign for part in other for sign in part if unicodedata.category(sign)[0] == "S" and sign not in MARKS]
        found += [sign for part in other for sign in part if _without_accents(sign) != sign]
    return " ".join(found)


def is_plain(text: str) -> bool:
    """Return whether only spaces are left to take out of `text`: it has no entity, tag, accent or control character."""
    if not text.isascii() or "&" in text or "<" in text:
        return False
    return text.isprintable() or CONTROL.search(text) is None


def template(text: str) -> str:
    """Return the skeleton of `text` with a class in place of each number, and of each name if the text is short.

    A name is one capitalised word or more in the middle of a sentence.

    >>> one, other = "Dear Ann Lee, you owe 20.50 by 1 May.", "Dear Bob, you owe 7 by 30 June."
    >>> template(one) == template(other)
    True
    """
    return numbers_as_class(_close(normal(names_as_class(text))))


def numbers_as_class(skeleton: str) -> str:
    """Return `skeleton` with one class in place of each number.

    >>> numbers_as_class("paid1,200.50on3/4")
    'paid\ue001on\ue001'
    """
    return DIGITS.sub(NUMBER, skeleton) if has_digit(skeleton) else skeleton


def names_as_class(text: str) -> str:
    """Return `text` with one class in place of each name; a text over NAMES_WITHIN characters stays as it is."""
    return text if len(text) > NAMES_WITHIN else NAMES.sub(NAME, text)


def has_digit(text: str) -> bool:
    """Return whether `text` has a digit. Ten searches for one character are quicker than a pattern."""
    return any(digit in text for digit in "0123456789") or (not text.isascii() and re.search(r"\d", text) is not None)


def disguises(text: str, other: str) -> list[str]:
    """Return which steps make `text` and `other` equal, in words; none if they are not equal after all.

    >>> disguises("A good film, and a long one", "A g\\u043e\\u043ed film, and along one")
    ['look-alike letters', 'spaces']
    """
    one, two = normal(text), normal(other)
    if text == other or skeleton_of(one) != skeleton_of(two):
        return []
    if one == two:
        return ["case, width or white space"]

    def differ_without(step: str) -> bool:
        kept = tuple(name for name in STEPS if name != step)
        return _applied(one, kept) != _applied(two, kept)

    needed = [said for step, said in STEPS.items() if differ_without(step)]
    return needed or ["several of these at once: " + ", ".join(STEPS.values())]


STEPS = {
    "entities": "HTML entities",
    "tags": "HTML tags",
    "invisible": "invisible characters",
    "accents": "accents",
    "homoglyphs": "look-alike letters",
    "spaces": "spaces",
}


def _applied(text: str, steps: tuple[str, ...]) -> str:
    """Apply `steps` to `text`, which is in the form of `normalise`."""
    if "entities" in steps and "&" in text:
        for _ in range(3):  # some are encoded twice
            text = ENTITY.sub(lambda match: html.unescape(match[0]), text)
        text = normalise(text)
    if "tags" in steps and "<" in text:
        text = _without_tags(text)
    if not text.isascii():
        table = _table(tuple(step for step in ("invisible", "accents", "homoglyphs") if step in steps))
        text = NOT_ASCII.sub(lambda match: match[0].translate(table), text)
    if "invisible" in steps and not text.isprintable():
        text = CONTROL.sub("", text)
    if "spaces" in steps:
        return text.replace(" ", "")
    return " ".join(text.split()) if "  " in text or text[:1] == " " or text[-1:] == " " else text


def _without_tags(text: str) -> str:
    if "'<br" not in text and '"<br' not in text:  # the most frequent tag by far: this is quicker than the pattern
        for line_break in ("<br />", "<br/>", "<br>"):
            text = text.replace(line_break, " ")
    return TAG.sub(_untagged(text), text) if "<" in text else text


def _untagged(text: str) -> Callable[[re.Match[str]], str]:
    """Return what replaces a tag of `text`.

    One that is only opened is kept, since the text may be about it; so is one in quotes of its own, as in a program.
    """

    @cache
    def paired(name: str) -> bool:
        return f"</{name}" in text and f"<{name}" in text

    def replace(tag: re.Match[str]) -> str:
        around = text[tag.start() - 1 : tag.start()] + text[tag.end() : tag.end() + 1]
        if around in ("''", '""'):
            return tag[0]
        return " " if tag[1] is None or tag[1] in LAYOUT or paired(tag[1]) else tag[0]

    return replace


class _Steps(dict[int, str]):
    """A table for `str.translate` that works each character out when it is first met."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        super().__init__()
        self.steps = steps

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if "invisible" in self.steps and (unicodedata.category(character) in ("Cf", "Cc") or BLANK.match(character)):
            character = ""
        if "accents" in self.steps:
            character = _without_accents(character)
        if "homoglyphs" in self.steps:
            character = "".join(_look_alikes().get(each, each) for each in character)
        self[code] = character
        return character


@cache
def _table(steps: tuple[str, ...]) -> _Steps:
    return _Steps(steps)


def _without_accents(character: str) -> str:
    if character in OWN_LETTERS:
        return character
    apart = unicodedata.normalize("NFD", character)
    if len(apart) > 1 and not unicodedata.name(apart[0], "").startswith(ACCENTED):
        return character
    return "".join(each for each in apart if ord(each) not in ACCENTS)


@cache
def _look_alikes() -> dict[str, str]:
    """Return the small ASCII letter that each small letter looks like, or that its capital looks like."""
    table = _confusables()
    of_capitals = {letter.casefold(): like.lower() for letter, like in table.items() if letter.isupper()}
    return of_capitals | {letter: like.lower() for letter, like in table.items() if not letter.isupper()}


@cache
def _odd_capitals() -> dict[str, str]:
    """Return the ASCII letter that each capital looks like whose small letter looks like another one."""
    small = _look_alikes()
    table = {letter: like for letter, like in _confusables().items() if letter.isupper()}
    return {letter: like for letter, like in table.items() if small[letter.casefold()] != like.lower()}


@cache
def _confusables() -> dict[str, str]:
    """Return the ASCII letter that each other letter looks like (Unicode's table, Technical Standard 39)."""
    path = resources.files("confusable_homoglyphs") / "confusables.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for letter, entries in table.items():
        likes = [entry["c"] for entry in entries if entry["c"].isascii() and entry["c"].isalpha()]
        if likes and len(likes[0]) == 1 and letter.isalpha() and not letter.isascii():
            # In the table the capital "I" of each script looks like a small "l".
            found[letter] = "I" if letter.isupper() and likes[0] == "l" else likes[0]
    return found
