"""What an audit of a file larger than memory keeps of each row: hashes, a length, and what a search found in its text.

Hashes have 64 bits. Among two million rows, two different texts have the same hash with a probability of one in ten
million (the square of the rows over 2**65).
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
import pandas as pd

from ftlab.data import normalisation
from ftlab.data.audit import large_hints, personal_data, text_noise
from ftlab.data.words import normalise

NOISE = ("markup", "entities", "mojibake", "control_characters")
KEPT = 1000  # rows that a finding names; all are counted
SHOWN = 8  # of them, with their texts
EXCERPT = 2000  # characters of such a text
ASCII = bytes(range(128))
# Code points of which none joins the character before it, unless it has a combining class.
APART = (range(0x80, 0x590), range(0x1E00, 0xA000))


@dataclass
class Found:
    """What one search found: in how many rows, and for the first of them what, and their texts."""

    count: int = 0
    rows: list[int] = field(default_factory=list)
    matches: list[str] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)

    def extend(self, later: Found, begins: int) -> None:
        """Add what was found in the next piece, `later`, whose first row is the row `begins` of the file."""
        self.count += later.count
        room = KEPT - len(self.rows)
        self.rows += [begins + row for row in later.rows[:room]]
        self.matches += later.matches[:room]
        for row, text in later.texts.items():
            if len(self.texts) < SHOWN:
                self.texts[begins + row] = text


@dataclass
class Measured:
    """A piece of a file without its texts. The arrays have one entry for each row, 0 for a hash of a blank text.

    Attributes:
        exact: the hash of the text as it is.
        normal: the hash of the text in the form of `words.normalise`.
        skeleton: the hash of the text's skeleton with its accents (`normalisation.accented_skeleton_of`).
        inputs: the hash of the input's skeleton; of rows with labels the text is the input.
        characters: of the text; -1 if it is blank.
        found: of each search for noise, personal data and secrets.
    """

    exact: np.ndarray
    normal: np.ndarray
    skeleton: np.ndarray
    inputs: np.ndarray
    characters: np.ndarray
    found: dict[str, Found]

    def __len__(self) -> int:
        return len(self.exact)


def measure(texts: Sequence[str | None], inputs: Sequence[str] | None, search: bool) -> Measured:
    """Return what is kept of the rows with these `texts`.

    Args:
        texts: None where one is missing.
        inputs: the part of each text that a model gets as input; None if that is the text.
        search: whether to search the texts for noise, personal data and secrets.
    """
    piece = large_hints.Bytes(texts)
    exact, normal, skeleton = _hashes(texts, piece)
    read = skeleton if inputs is None else _hashes(inputs, large_hints.Bytes(inputs))[2]
    characters = np.fromiter((len(text) if text else 0 for text in texts), dtype=np.int32, count=len(texts))
    characters[exact == 0] = -1
    return Measured(exact, normal, skeleton, read, characters, found=_search(texts, piece) if search else {})


def hashes_of(texts: Sequence[bytes]) -> np.ndarray:
    """Return 64 bits of the hash (SipHash) of each of `texts`; 0 for an empty one."""
    if not texts:
        return np.zeros(0, dtype=np.uint64)
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    hashes = pd.util.hash_array(array, categorize=False)
    hashes[array == b""] = 0
    return hashes


def forms_of(text: str) -> tuple[bytes, bytes, bytes]:
    """Return `text` as it is, in the form of `normalise`, and its accented skeleton; of a blank one nothing."""
    normal = normalise(text)
    if not normal:
        return b"", b"", b""
    forms = (text, normal, normalisation.accented_skeleton_of(normalisation.normal(text, normal)))
    one, two, three = (form.encode(errors="surrogatepass") for form in forms)
    return one, two, three


def _hashes(texts: Sequence[str | None], piece: large_hints.Bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hashes of each text in its three forms (see `forms_of`).

    Most texts have no entities; their forms are made from the bytes of the whole piece at once, and those of characters
    that are not of ASCII are then replaced.
    """
    exact = [*piece.encoded]
    # HTML's line break is by far the most frequent tag. To split and join is quicker than to replace.
    without_spaces = b"".join(piece.folded.split(b"<br />")).translate(None, b" ")
    normal, close = (each.split(large_hints.BETWEEN)[1:-1] for each in (piece.folded, without_spaces))
    odd = piece.with_control | piece.with_entities
    for row in np.flatnonzero(piece.with_spaces).tolist():
        normal[row] = _with_single_spaces(normal[row])
        if not normal[row]:
            exact[row] = b""
    for row, text in enumerate(close):
        if b"<" in text:
            text = normal[row]
            for line_break in (b"<br />", b"<br/>", b"<br>"):
                text = text.replace(line_break, b" ")
            close[row] = text.translate(None, b" ")
            odd[row] |= b"<" in text
    longest = np.where(piece.not_ascii, 4, 1) * normalisation.SHORT  # of a short text, in bytes
    odd |= np.fromiter(map(len, close), dtype=np.int64, count=len(close)) <= longest
    for row in np.flatnonzero(piece.not_ascii & ~odd).tolist():
        replaced = [_alone(character) for character in {*exact[row].translate(None, ASCII).decode(errors="replace")}]
        if None in replaced:
            odd[row] = True
            continue
        for written, as_normal, as_close in filter(None, replaced):
            normal[row] = normal[row].replace(written, as_normal)
            close[row] = close[row].replace(written, as_close)
    for row in np.flatnonzero(odd).tolist():
        exact[row], normal[row], close[row] = forms_of(texts[row] or "")
    return hashes_of(exact), hashes_of(normal), hashes_of(close)


def _with_single_spaces(text: bytes) -> bytes:
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.strip(b" ")


@cache
def _alone(character: str) -> tuple[bytes, bytes, bytes] | None:
    """A character, and what stands for it in the form of `normalise` and in the skeleton of a long text.

    None if that depends on the characters around it.
    """
    normal = normalise(f"a{character}b")[1:-1]
    if (
        not any(ord(character) in some for some in APART)
        or any(map(unicodedata.combining, normal))
        or any(sign in normal for sign in " &<")
        or normalisation.normal(f"a{character}b")[1:-1] != normal  # a capital that looks Latin
    ):
        return None
    around = "a" * normalisation.SHORT
    close = normalisation.accented_skeleton_of(f"{around}{normal}{around}")[len(around) : -len(around)]
    return character.encode(), normal.encode(), close.encode()


def excerpt(text: str, at: int = 0) -> str:
    """Return the part of `text` around the position `at`, without personal data and secrets.

    >>> excerpt("Write to jo@mail.de now.")
    'Write to [email] now.'
    """
    start = max(0, at - EXCERPT // 4)
    low, high = (
        max(0, start - EXCERPT),
        start + 2 * EXCERPT,
    )  # more than is returned: half a key is not told from a word
    read = text[low:high]
    place, end = start - low, start - low + EXCERPT
    pieces = []
    for span in personal_data.scan(read):
        if place < span.end and span.start < end:
            pieces += [read[place : span.start], personal_data.KINDS[span.finding][1]]
            place = span.end
    return "".join([*pieces, read[place:end]])


def _search(texts: Sequence[str | None], piece: large_hints.Bytes) -> dict[str, Found]:
    found: dict[str, Found] = defaultdict(Found)
    for name, hinted in large_hints.noise(piece).items():
        for row in np.flatnonzero(hinted).tolist():
            text = texts[row] or ""
            if match := text_noise.FINDERS[name](text):
                _keep(found[name], row, text, match)
    private, numbers = large_hints.private(piece, texts)
    for row in np.flatnonzero(private | numbers).tolist():
        text, seen = texts[row] or "", set()
        if numbers[row]:
            part = large_hints.near_digits(piece, row, text)
            spans = personal_data.scan_numbers(text[part])
        else:
            part, spans = slice(0, len(text)), personal_data.scan(text)
        for span in spans:
            if span.finding not in seen:
                seen.add(span.finding)
                start = part.start + span.start
                shown = personal_data.shown(span, text[start : part.start + span.end])
                _keep(found[span.finding], row, text, shown, start)
    for name in NOISE:
        if name in found:
            found[name].matches = [*map(_shown, found[name].matches)]
    return dict(found)


@lru_cache(maxsize=4096)
def _shown(match: str) -> str:
    return text_noise.with_code_points(personal_data.without_private(match))


def _keep(found: Found, row: int, text: str, shown: str, at: int | None = None) -> None:
    found.count += 1
    if len(found.rows) < KEPT:
        found.rows.append(row)
        found.matches.append(shown)
    if len(found.texts) < SHOWN:
        found.texts[row] = excerpt(text, text.find(shown) if at is None else at)
