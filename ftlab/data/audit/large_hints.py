"""Tell quickly which texts of a piece can have noise, personal data or secrets in them: only these are searched.

All texts of the piece are one array of bytes, and numpy looks for what each search needs: a "<" for markup, six digits
close together for a number of a person, a long word for a key. A hint never misses a text in which the search finds
something; that it is given does not mean that there is something.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ftlab.data.audit import identifiers, personal_data, phone_numbers, secrets, split_keys

SPACES, CAPITALS = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f", bytes(range(65, 91))
FOLDED = bytes.maketrans(SPACES + CAPITALS, b" " * len(SPACES) + CAPITALS.lower())
BETWEEN = b"\xff"  # a byte that no text has in UTF-8
MARGIN = 16  # bytes that can be read after each place in a text
GAP, WIDE_GAP = 4, 10  # bytes from one digit to the next: three signs between them, of one byte or of up to three
KEY_LENGTH = 15  # characters without a sign that no key has: the shortest key of `secrets.KEYS` has as many
BEFORE_KEY = 16  # characters of a key before a point or a colon in it

_DIGIT, _CAPITAL, _KEY, _CONTROL, _HIGH, _BREAK, _SIGN = (1 << bit for bit in range(7))
SIGNS = b"<&@J"
_LETTERS = bytes(range(97, 123)) + CAPITALS


def _classes() -> bytes:
    """The classes of each byte, one bit for each."""
    table = bytearray(256)
    for members, bit in (
        (b"0123456789", _DIGIT), (CAPITALS, _CAPITAL), (_LETTERS + b"0123456789_-+/=.%", _KEY),
        (bytes({*range(32), 127} - {*b"\t\n\r"}), _CONTROL), (bytes({*range(32), 127} - {*b"\t"}), _BREAK),
        (SIGNS, _SIGN), (bytes(range(128, 256)), _KEY | _HIGH),
    ):  # fmt: skip
        for byte in members:
            table[byte] |= bit
    return bytes(table)


_CLASSES = _classes()
_STARTS = re.compile(
    b"|".join(re.escape(s.encode()) for keys in secrets.KEYS.values() for ss, _, _ in keys for s in ss)
)
_MIXED = re.compile(rb"[A-Z0-9]")  # a key has digits or both cases
_SIX_DIGITS = re.compile(rb"\d(?:(?:[ .()/-]|\xc2\xa0|\xe2\x80[\x90-\x93]){0,3}\d){5}")
_DOTTED = re.compile(rb"\d\.\d{1,3}\.\d")
_ENTITY = re.compile(rb"&(?:[a-z][a-z0-9]{1,8}|#\d{2,6}|#x[0-9a-f]{2,5});")
# A number of six or seven digits by itself: no letter, sign or digit is near. Only a word near it tells what it is.
_ALONE = re.compile(rb"(?<=[a-z.,:;!?)>\"' ] )\d{6,7}(?=\n|[ .,;:!?)]{1,3}[a-z\n])")


def _for_re2(pattern: str) -> str:
    """Return a pattern for bytes, in the language of RE2, that finds what `pattern` finds and more.

    RE2 does not look around, and knows only the white space of ASCII.
    """
    pattern = re.sub(r"\(\?=(\[[\\\"'`\u201c\u201e]+\])\)", r"\1", pattern)  # the quotation mark before a value
    pattern = re.sub(r"\(\?<?[=!][^()]*\)", "", pattern)
    return pattern.replace(r"\s", r"(?:[\s\x0b\x1c-\x1f]|[\x80-\xff]{1,3})")


NEAR = 300  # characters before and after a number that tell what it is
# What tells that a short number near it is one of a person.
_TOLD = "(?is)" + "|".join(
    map(_for_re2, (identifiers.NAMED.pattern, phone_numbers.BESIDE.pattern.removesuffix("$") + r"[(+]{0,2}\d"))
)
# Without one of these, no value is assigned to a name, no private key begins, and no passport is named.
_ASSIGNED = "(?is)" + "|".join(
    [_for_re2(secrets.NAMED.replace("(?=[A-Z][a-z])", "")), "aws.{0,30}(?:secret|key)", "contrase", "authorization"]
    + [re.escape(word) for word in (*secrets.IN_COMMANDS, *personal_data.PASSPORTS, "private key")]
)
_PASSPORTS = tuple(word.encode() for word in personal_data.PASSPORTS)
_DIGITS = tuple(str(digit).encode() for digit in range(10))


class Bytes:
    """The texts of a piece as bytes, with a line end before, between and after them, and MARGIN zeros at the end.

    Attributes:
        encoded: the bytes of each text.
        raw: all these bytes.
        starts: (rows + 1,) where each text starts in `raw`; the last entry is where one more would.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        self.encoded = [text.encode(errors="surrogatepass") if text else b"" for text in texts]
        self.raw = b"\n".join([b"", *self.encoded, bytes(MARGIN)])
        lengths = np.fromiter(map(len, self.encoded), dtype=np.int64, count=len(self.encoded))
        self.starts = np.append(0, np.cumsum(lengths + 1)) + 1

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def values(self) -> np.ndarray:
        """`raw` as numbers."""
        return np.frombuffer(self.raw, dtype=np.uint8)

    @cached_property
    def classes(self) -> np.ndarray:
        """The classes of each byte."""
        return np.frombuffer(self.raw.translate(_CLASSES), dtype=np.uint8)

    @cached_property
    def folded(self) -> bytes:
        """`raw` with small letters, a space for each white space (of ASCII), and BETWEEN before and after each text."""
        return BETWEEN.join([b"", *self.encoded, bytes(MARGIN)]).translate(FOLDED)

    @cached_property
    def _rare(self) -> np.ndarray:
        """The places of digits, SIGNS, line ends, and characters that do not show or are not of ASCII: mostly few."""
        return np.flatnonzero((self.classes & (_DIGIT | _BREAK | _HIGH | _SIGN)) != 0)

    def _of_class(self, bit: int) -> np.ndarray:
        return self._rare[(self.classes[self._rare] & bit) != 0]

    @cached_property
    def digits(self) -> np.ndarray:
        """The places of the digits (of ASCII)."""
        return self._of_class(_DIGIT)

    @cached_property
    def not_ascii(self) -> np.ndarray:
        """Which rows have a character that is not of ASCII."""
        return self.rows(self._of_class(_HIGH))

    @cached_property
    def letters(self) -> np.ndarray:
        """The places where a character begins that is not of ASCII."""
        places = self._of_class(_HIGH)
        return places[self.values[places] >= 0xC0]

    @cached_property
    def with_control(self) -> np.ndarray:
        """Which rows have a control character of ASCII other than tab and line end."""
        return self.rows(self._of_class(_CONTROL))

    @cached_property
    def with_spaces(self) -> np.ndarray:
        """Which rows have white space (of ASCII) more than once between two words, or before or after them."""
        folded = np.frombuffer(self.folded, dtype=np.uint8)
        found = (folded[self.starts[:-1]] == ord(" ")) | (folded[self.starts[1:] - 2] == ord(" "))
        two = int.from_bytes(b"  ", "little")
        for start in (0, 1):  # two bytes at a time
            pairs = folded[start : start + (len(folded) - start) // 2 * 2].view(np.uint16)
            found |= self.rows(2 * np.flatnonzero(pairs == two) + start)
        return found

    def row_of(self, places: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return the row in which each of these `places` of `raw` is."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def rows(self, places: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return which rows have one of these `places` of `raw`."""
        found = np.zeros(len(self), dtype=bool)
        if len(places):
            rows = self.row_of(places)
            found[rows[(rows >= 0) & (rows < len(self))]] = True
        return found

    def places_of(self, sign: bytes) -> np.ndarray:
        """Return the places of `sign`, one of SIGNS."""
        return self._rare[self.values[self._rare] == sign[0]]

    def having(self, sign: bytes) -> np.ndarray:
        """Return which rows have `sign`, one of SIGNS."""
        return self.rows(self.places_of(sign))

    @cached_property
    def breaks(self) -> np.ndarray:
        """The places of line ends and control characters in the texts."""
        places = self._of_class(_BREAK)
        return places[~np.isin(places, self.starts - 1) & (places < self.starts[-1])]

    @cached_property
    def with_entities(self) -> np.ndarray:
        """Which rows have what looks like an HTML entity."""
        return self.rows([at for at in self.places_of(b"&").tolist() if _ENTITY.match(self.folded, at)])

    def matching(self, pattern: str, where: np.ndarray | None = None) -> np.ndarray:
        """Return which rows have the `pattern` in `raw`, in the language of RE2, which reads each byte once.

        Only the rows are read that are `where`.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        buffers = [None, pa.py_buffer(self.starts), pa.py_buffer(self.raw)]
        rows = pa.Array.from_buffers(pa.large_binary(), len(self), buffers)
        if where is None:
            return np.array(pc.match_substring_regex(rows, pattern))
        found = where.copy()
        found[where] = pc.match_substring_regex(rows.filter(pa.array(where)), pattern)
        return found

    def part(self, row: int) -> bytes:
        """Return the text of `row` in `folded`."""
        return self.folded[self.starts[row] : self.starts[row + 1] - 1]


def noise(piece: Bytes) -> dict[str, np.ndarray]:
    """Return for each kind of noise of `text_noise.FINDERS` which rows of `piece` can have it."""
    return {
        "markup": piece.having(b"<"),
        "entities": piece.with_entities,
        "mojibake": piece.not_ascii,
        "control_characters": piece.not_ascii | piece.with_control,
    }


def private(piece: Bytes, texts: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the `texts`, which `piece` was made of, can have something that `personal_data.scan` finds.

    Of the second rows, only what is near their digits can.
    """
    found = (
        _foreign(piece)
        | piece.having(b"@")
        | _tokens(piece)
        | _keys(piece)
        | _split(piece, texts)
        | _named(piece, texts)
    )
    return found, _numbers(piece) & ~found


def near_digits(piece: Bytes, row: int, text: str) -> slice:
    """Return the part of the `text` of `row` of `piece` that has all its digits and what is near them."""
    if not text.isascii():
        return slice(0, len(text))
    first, after = np.searchsorted(piece.digits, piece.starts[row : row + 2])
    start = piece.starts[row]
    low, high = (int(piece.digits[at] - start) for at in (first, after - 1))
    return slice(max(0, low - NEAR), high + NEAR)


def _foreign(piece: Bytes) -> np.ndarray:
    """Rows with other characters than the letters and signs of Western Europe: they may write words and digits.

    Invisible characters, which may stand in a key, are among the others.
    """
    places = piece.letters
    first, second, third = (piece.values[places + step] for step in range(3))
    western = (first == 0xC3) | ((first == 0xC2) & (second != 0x85) & (second != 0xAD))
    western |= (first == 0xE2) & (second == 0x80) & (third >= 0x90) & (third < 0xA8)  # U+2010 to U+2027
    return piece.rows(places[~western])


def _keys(piece: Bytes) -> np.ndarray:
    """Rows with a long run of the characters of keys that has the beginning of a key in it or just before it."""
    # A run of 15 has eight bytes in it that begin at a multiple of eight: these are looked for as one number.
    eights = piece.classes[: len(piece.classes) // 8 * 8].view(np.uint64)
    members = np.frombuffer(bytes([_KEY] * 8), dtype=np.uint64)[0]
    full = np.flatnonzero((eights & members) == members)
    apart = np.diff(full) > 1
    starts, ends = 8 * full[np.append(True, apart)[: len(full)]], 8 * full[np.append(apart, True)[: len(full)]] + 8
    for _ in range(7):
        starts -= (piece.classes[starts - 1] & _KEY) > 0
        ends += (piece.classes[ends] & _KEY) > 0
    long = ends - starts >= KEY_LENGTH
    raw = piece.raw
    found = [start for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True)
             if _MIXED.search(raw, start, end) and _STARTS.search(raw, max(0, start - BEFORE_KEY), end)]  # fmt: skip
    return piece.rows(found)


def _split(piece: Bytes, texts: Sequence[str | None]) -> np.ndarray:
    """Rows with a key that goes over the end of a line."""
    values, breaks = piece.values, piece.breaks
    before, after = breaks - 1, breaks + 1
    goes_on = ((piece.classes[before] & _KEY) > 0) | (values[before] == ord("\\"))
    goes_on &= ((piece.classes[after] & _KEY) > 0) | np.isin(values[after], [*b" \t\n>"])
    found = piece.rows(breaks[goes_on])
    for row in np.flatnonzero(found).tolist():
        found[row] = next(split_keys.find(texts[row] or ""), None) is not None
    return found


def _tokens(piece: Bytes) -> np.ndarray:
    """Rows with the beginning "eyJ" of a JSON web token; of the three letters "J" is by far the rarest."""
    places = piece.places_of(b"J")
    return piece.rows(places[(piece.values[places - 1] == ord("y")) & (piece.values[places - 2] == ord("e"))])


def _named(piece: Bytes, texts: Sequence[str | None]) -> np.ndarray:
    """Rows with a value after a word such as "password", with a private key, or with a word for a passport."""
    found = piece.matching(_ASSIGNED)
    for row in np.flatnonzero(found).tolist():
        part = piece.part(row)
        found[row] = (
            b"private key" in part
            or (any(map(part.__contains__, _PASSPORTS)) and sum(map(part.count, _DIGITS)) >= 3)
            or next(secrets.assigned(texts[row] or ""), None) is not None
        )
    return found


def _numbers(piece: Bytes) -> np.ndarray:
    """Rows with six digits close together, with a number that has letters in it, or with an IP address."""
    places, raw, values = piece.digits, piece.raw, piece.values
    near = np.diff(places) <= (WIDE_GAP if piece.not_ascii.any() else GAP)
    five = near[: max(0, len(near) - 4)].copy()
    for step in range(1, 5):
        five &= near[step : step + len(five)]
    close = np.array([at for at in places[: len(five)][five].tolist() if _SIX_DIGITS.match(raw, at)], dtype=np.int64)
    alone = np.array([_ALONE.match(raw, at) is not None for at in close.tolist()], dtype=bool)
    only = piece.rows(close[alone]) & ~piece.rows(close[~alone]) & ~piece.not_ascii
    hinted = piece.rows(close) & (~only | piece.matching(_TOLD, only))
    found = [at for at in places[values[places + 1] == ord(".")].tolist() if _DOTTED.match(raw, at)]
    lettered = places[piece.classes[places + 1] & _CAPITAL > 0]
    for step in (2, 3, 4):
        lettered = lettered[piece.classes[lettered + step] & (_CAPITAL | _DIGIT) > 0]
    colon = places[((values[places] == ord("2")) | (values[places] == ord("3"))) & (values[places + 4] == ord(":"))]
    return hinted | piece.rows(np.concatenate([np.array(found, dtype=np.int64), lettered, colon]))
