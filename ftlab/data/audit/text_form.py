"""The form of texts: how they begin and end, case, spaces, emoji, script, quotes, markup. Not what they say.

Each feature has a short value for each text, such as "all capitals" for the case. A label that can be told from such a
value is given away by how the rows were collected, unless users write the same way.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.normalisation import ENTITY

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from ftlab.data.words import Words

OF_TEXTS = (
    "first character", "final character", "case", "space around the text", "spaces within the text", "emoji", "script",
    "digits", "quotation marks", "apostrophes", "dashes", "markup", "line ends", "links",
)  # fmt: skip
READ = 1000  # characters of the beginning, from which all but markup, emoji and links is read
CAPITALS, LETTERS, DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", re.compile(r"[^\W\d_]"), re.compile(r"\d")
# Signs, the unusual one first: a text with several of a kind has the form of the first.
SPACES = {"\t": "tabs", "\u00a0": "no-break spaces", "  ": "doubled", " .": "before full stops", " ,": "before commas"}
QUOTES = {"\u201e": "low", "\u201c": "curly", "\u00ab": "angle", "\u300c": "corner", "``": "grave", '"': "straight"}
APOSTROPHES = {"\u2019": "curly", "`": "grave", "'": "straight"}
DASHES = {"\u2014": "em dash", "\u2013": "en dash", "--": "two hyphens"}
LINE_ENDS = {"\r\n": "carriage return, line feed", "\n\n": "blank lines", "\n": "line feed", "\r": "carriage return"}
LINKS = {"http://": "URL", "https://": "URL", "www.": "URL"}
MENTION = re.compile(r"(?:^|\s)([@#])\w")
TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
MARKDOWN = re.compile(r"\*\*|```|^#{1,6} |^[-*] ", re.MULTILINE)
EMOJI = re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]")
# Frequent words that only one of these languages has.
FUNCTION_WORDS = {
    "English": "the and of this with for are it that you",
    "German": "der und das nicht ist ein ich auch mit zu",
    "French": "les et est une pas dans pour je avec sur",
    "Spanish": "el los las y con por más pero muy es",
    "Italian": "il di che non è gli della sono anche per",
    "Portuguese": "não um uma os em mais muito ao você com",
    "Dutch": "het een van niet ik zijn voor maar ook dat",
    "Swedish": "och att är inte jag på som för det av",
    "Polish": "nie się jest że jak czy tylko tak dla są",
    "Turkish": "ve bir bu için çok ile değil ama daha gibi",
}
FEWEST_FUNCTION_WORDS = 2  # of the language that a text is taken to be in


def describe(texts: Sequence[str], words: Words, counts: csr_matrix, rows: np.ndarray) -> pd.DataFrame:
    """Return the form of each text.

    Args:
        texts: some of the texts of `words`.
        words: the words of all texts, without punctuation and case.
        counts: (texts, vocabulary) how often each word is in each text of `words`.
        rows: (len(texts),) the positions of `texts` in `words`.

    Returns:
        One line for each text and one column for each feature, in words.
    """
    form = pd.DataFrame([_form(text) for text in texts], columns=[*OF_TEXTS], dtype=object)
    vocabulary = np.array([*words.vocabulary, "no word"], dtype=object)
    starts, ends = words.starts[rows], words.starts[rows + 1]
    ids = np.append(words.ids, 0)
    form["first word"] = vocabulary[np.where(ends > starts, ids[starts], -1)]
    form["last word"] = vocabulary[np.where(ends > starts, ids[ends - 1], -1)]
    form["language"] = _language(words.vocabulary, counts[rows])
    return form


def _form(text: str) -> tuple[str, ...]:
    stripped = text.strip()
    head = stripped[:READ]
    return (
        _kind(stripped[:1]),
        _kind(stripped[-1:]),
        _case(head),
        _around(text, stripped),
        _first_of(SPACES, head, "single"),
        "none" if text.isascii() else _emoji(text),
        "Latin" if head.isascii() else _script(head),
        _digits(head),
        _first_of(QUOTES, head, "none"),
        _first_of(APOSTROPHES, head, "none"),
        _first_of(DASHES, head, "none"),
        _markup(text),
        _first_of(LINE_ENDS, head, "none"),
        _links(text),
    )


def _first_of(signs: dict[str, str], text: str, otherwise: str) -> str:
    """The name of the first of `signs` that is in `text`, in the order of `signs`."""
    return next((name for sign, name in signs.items() if sign in text), otherwise)


@cache
def _kind(character: str) -> str:
    """A letter and a digit by their kind, since words are another feature; all else as itself.

    >>> _kind("x"), _kind("7"), _kind("!")
    ('a letter', 'a digit', "'!'")
    """
    if character.isalpha() or unicodedata.category(character or " ")[0] == "M":
        return "a letter"
    return "a digit" if character.isdigit() else ascii(character) if character.isspace() else repr(character)


def _case(head: str) -> str:
    if head.isascii():
        letters, capitals = _count(head, CAPITALS + CAPITALS.lower()), _count(head, CAPITALS)
    else:
        letters, capitals = sum(map(str.isalpha, head)), sum(map(str.isupper, head))
    if not letters or (not capitals and not any(map(str.islower, head))):
        return "no letters with case"
    share = capitals / letters
    if share > 0.9:
        return "all capitals"
    if share > 0.3:
        return "mostly capitals"
    if share > 0.12:
        return "many capitals"
    if not capitals:
        return "no capitals"
    first = LETTERS.search(head)
    return "a small first letter" if first and first[0].islower() else "a capital first letter"


def _count(ascii_text: str, characters: bytes) -> int:
    """How many of these characters are in a text, faster than by a loop."""
    return len(ascii_text) - len(ascii_text.encode().translate(None, characters))


def _around(text: str, stripped: str) -> str:
    if len(text) == len(stripped):
        return "none"
    before, after = not text.startswith(stripped[:1]), not text.endswith(stripped[-1:])
    return "before and after" if before and after else "before" if before else "after"


def _emoji(text: str) -> str:
    found = EMOJI.search(text)
    return found[0] if found else "none"


def _script(head: str) -> str:
    """The script of most letters; accents in Latin script are noted.

    >>> _script("Ωmega"), _script("caf\u00e9"), _script("\u041f\u0440\u0438\u0432\u0435\u0442")
    ('Latin', 'Latin with accents', 'Cyrillic')
    """
    scripts: Counter[str] = Counter()
    accents = False
    for character, count in Counter(head).items():
        if character.isalpha():
            scripts[_script_of(character)] += count
            accents |= not character.isascii()
    script = scripts.most_common(1)[0][0] if scripts else "Latin"
    if scripts["Kana"] and script in ("Kana", "CJK"):
        return "Japanese"
    return "Latin with accents" if script == "Latin" and accents and scripts["Latin"] == scripts.total() else script


@cache
def _script_of(letter: str) -> str:
    """The first word of the letter's Unicode name, as in LATIN SMALL LETTER A."""
    name = unicodedata.name(letter, "unknown").split()[0]
    return {"CJK": "CJK", "HIRAGANA": "Kana", "KATAKANA": "Kana"}.get(name, name.capitalize())


def _digits(head: str) -> str:
    digits = _count(head, b"0123456789") if head.isascii() else len(DIGITS.findall(head))
    share = digits / max(1, len(head))
    return "many" if share > 0.2 else "some" if share else "none"


def _markup(text: str) -> str:
    if "<" in text and TAG.search(text):
        return "tags"
    if "&" in text and ENTITY.search(text):
        return "entities"
    return (
        "Markdown"
        if any(sign in text for sign in ("**", "```", "# ", "- ", "* ")) and MARKDOWN.search(text)
        else "none"
    )


def _links(text: str) -> str:
    if (name := _first_of(LINKS, text, "")) or ("@" not in text and "#" not in text):
        return name or "none"
    found = MENTION.search(text)
    return "none" if not found else "a name after @" if found[1] == "@" else "a tag after #"


def _language(vocabulary: list[str], counts: csr_matrix) -> np.ndarray:
    """The language whose function words a text has most of; "unknown" if it has hardly any."""
    number = {word: place for place, word in enumerate(vocabulary)}
    hits = np.stack(
        [
            np.asarray(counts[:, [number[word] for word in words.split() if word in number]].sum(axis=1)).ravel()
            for words in FUNCTION_WORDS.values()
        ]
    )
    names = np.array([*FUNCTION_WORDS, "unknown"], dtype=object)
    return names[np.where(hits.max(axis=0) >= FEWEST_FUNCTION_WORDS, hits.argmax(axis=0), -1)]
