"""The quick hints of what a text can have in it: they may be given in vain, but miss nothing."""

import random
import runpy
import time
from pathlib import Path

import numpy as np
import pytest

from ftlab.data.audit import large_hints, large_rows, personal_data, secrets, text_noise

PLANTED = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "planted" / "secrets.py"))
AROUND = [
    "a quiet film about a river", "Das ist ja sch\u00f6n, sagt Mutter", "\u2014 said \u201cJo\u201d\u2026 1998, 7/10",
    "\u044d\u0442\u043e \u0444\u0438\u043b\u044c\u043c", "x = [1, 2]\n\tif y: return", "",
]  # fmt: skip
PIECES = [
    "pass: x7yz!Q", "the password is hunter2!", "I pass. The secret is Abc123xy", "mot de passe : s3cret99",
    "contrase\u00f1a: s3cret99", "\u5bc6\u7801\uff1as3cret99", "Authorization: Bearer abc123DEF456ghi", "10.20.30.40",
    "2a00:1450:4001:81b::200e", "see 81.2.69.142.", "1 2 3 4 5 6 7", "passport no. C01X00T47", "Ausweis L01X00T47",
    "pasaporte AB123456 class",
    "\u0660\u0661\u0662\u0663\u0664\u0665\u0666", "4111\u00a01111\u00a01111\u00a01111",
    "+49\u201030\u2010901820",
    "ghp_aB3dE5gH7jK9mN1p\nQ2rS4tU6vW8xY0zA1bC3", "ghp_aB3dE5gH7j=\r\n> K9mN1pQ2rS4tU6vW8xY0zA1bC3",
    "gh\u200bp_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3",
    "AB12CD34E", "<b>", "<br />", "<BR>", "&amp;", "&AMP;", "\x00", "\u200b", "\u00c3\u00a9", "jo@mail.de", "http://a:b1cd9x@h.de",
    "0176 1234567", "seen 123456 times", "passport 123456", "call 1234567 now", "is 654321, tax id 12345 67",
    "12345A", "R$ 1.2.3", "<", "&", "\x1d", "  ", "\n",
]  # fmt: skip


OTHER = (
    "\u00e9\u00c9\u00df\u0130\u0131\u00bd\u00b4\u0085\u0096\u00a0\u00ad\u00b5\u017f\u01c4\u0301\u0345\u0391\u039d\u03a3\u03c2\u0410\u0430\u0439\u0451\u05d0"
    "\u0905\u0e01\u1100\u1161\u1e9e\u1fb3\u2003\u200b\u2019\u2026\u2028\u2044\u20d0\u212a\u2126\u2160\u2260\u226e\u3000\u3042\u3099\u4e2d\uac00\uff21\uff06\U0001f600"
)


def texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    parts = [*PIECES, *AROUND, " ", ", ", "-", "_", ".", ":", "=", "7", "A", "\u00e9", "\u212a"]
    return ["".join(draw.choices(parts, k=draw.randrange(6))) for _ in range(count)]


def missed(rows: list[str | None]) -> list[str]:
    """The rows in which a search finds what no hint was given for."""
    piece = large_hints.Bytes(rows)
    (private, numbers), noise = large_hints.private(piece, rows), large_hints.noise(piece)
    found = []
    for row, text in enumerate(rows):
        if text and not private[row]:
            read = text[large_hints.near_digits(piece, row, text)] if numbers[row] else ""
            if [s[2:] for s in personal_data.scan(text)] != [s[2:] for s in personal_data.scan(read)]:
                found.append(text)
        found += [f"{name}: {text}" for name, hint in noise.items()
                  if text and not hint[row] and text_noise.FINDERS[name](text)]  # fmt: skip
    return found


def test_no_hint_misses_what_a_search_finds_in_pieces_of_all_kinds() -> None:
    for seed in range(3):
        assert missed(texts(seed, 3000)) == []


@pytest.mark.parametrize("kind", [*personal_data.KINDS])
def test_no_hint_misses_a_planted_secret_or_number(kind: str) -> None:
    draw = np.random.default_rng(0)
    values = [PLANTED["made"](kind, number, draw) for number in range(120)]
    rows = [frame.format(value) for number, value in enumerate(values) for frame in PLANTED["FRAMES"][: 1 + number % 6]]
    rows = [f"{AROUND[number % 6]} {row} {AROUND[number % 5]}" for number, row in enumerate(rows)]
    assert sum(bool(personal_data.scan(row)) for row in rows) > 0.9 * len(rows)
    assert missed(rows) == []


def test_every_form_of_a_key_has_a_beginning_that_the_hint_knows() -> None:
    draw = random.Random(0)
    letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    for keys in secrets.KEYS.values():
        for starts, name, _ in keys:
            key = f"{starts[0]}{''.join(draw.choices(letters, k=40))}"
            rows = [f"the key is {'12345678' if name.startswith('Telegram') else ''}{key}, he said"]
            assert large_hints.private(large_hints.Bytes(rows), rows)[0][0], name


def test_ordinary_prose_has_no_hint() -> None:
    rows = [
        "In 1998 it was a secret: his key moment of the 3rd act, at 10:30 pm, passed by. (7/10)",
        "A well-known actor's so-called come-back ... and a token woman, for $12.50.",
        "Ein sch\u00f6ner Film \u00fcber 20 Jahre in K\u00f6ln \u2013 \u201esehr gut\u201c, sagt sie.",
    ]
    assert not np.any(large_hints.private(large_hints.Bytes(rows), rows))


def test_a_piece_has_the_hashes_of_its_texts_alone() -> None:
    rows = [*texts(5, 500), None, " ", *texts(6, 500)]
    long = "a long and quiet film by the river"
    rows += [f"{long} {character}a{character} {character}" for character in OTHER]
    together = large_rows.measure(rows, None, search=True)
    alone = [large_rows.measure([row], None, search=False) for row in rows]
    for name in ("exact", "normal", "skeleton", "characters"):
        assert getattr(together, name).tolist() == [int(getattr(each, name)[0]) for each in alone], name
    wanted = [large_rows.hashes_of(large_rows.forms_of(row or "")).tolist() for row in rows]
    assert np.stack([together.exact, together.normal, together.skeleton], axis=1).tolist() == wanted


@pytest.mark.parametrize(
    "text", ["<" * 300_000, "pass" * 75_000, "eyJ" * 90_000, "7 " * 40_000, "&" * 300_000, "<s>" * 90_000]
)
@pytest.mark.clock
def test_a_hostile_text_takes_no_time(text: str) -> None:
    began = time.process_time()
    large_rows.measure([text], None, search=True)
    assert time.process_time() - began < 3
