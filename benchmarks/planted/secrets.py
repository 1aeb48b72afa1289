"""Planted secrets and personal data, and texts that only look like them.

Keys are drawn anew in the form of their issuers, and numbers are given a correct check digit. Each is planted into a
review, a line of code or a line of a log. Clean rows have numbers that belong to nobody: ISBNs, order numbers, hashes,
UUIDs, commits, dates, prices, versions and placeholders.
"""

from __future__ import annotations

import base64
import json
import string
import uuid
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ftlab.data.audit import audit
from ftlab.data.audit.personal_data import KINDS

SEEDS, ROWS, EACH = range(5), 1500, 30
CORPORA = ("imdb", "rotten_tomatoes")
CHECKED = ("secrets", "bank_accounts", "card_numbers", "national_ids")
LETTERS, DIGITS, UPPER = string.ascii_letters, string.digits, string.ascii_uppercase
PASSWORDS = ['password = "{}"', "PASSWORD={}", "my password is {}", "https://jo:{}@host.net/x", '{{"api_key": "{}"}}']
NAMED = ["passport no. {}", "Passport number: {}", "SSN {}", "tax id {}", "Steuer-ID {}", "BSN: {}", "PESEL {}"]
PHONES = [
    "+44 20 7{d3} {d4}", "(212) 5{d2}-{d4}", "212-6{d2}-{d4}", "+49 30 {d6}", "030 {d6}", "01 4{d1} {d2} {d2} {d2}",
    "+33 6 {d2} {d2} {d2} {d2}", "+91 98{d3} {d5}", "138 {d4} {d4}", "+81-3-3{d3}-{d4}", "090-{d4}-{d4}",
    "8 (495) 1{d2}-{d2}-{d2}", "(11) 9{d4}-{d4}", "tel. 6{d2} {d3} {d3}", "+61 412 {d3} {d3}", "+55 11 9{d4}-{d4}",
]  # fmt: skip
NOTHING = [
    "ISBN 978-0-306-40615-7", "9780306406157", "order {d10}", "order no. 2023-00{d5}", "{uuid}", "commit {hex40}",
    "sha256 {hex64}", "2023-0{n}-1{n} 10:3{n}:11", "$1,{d3}.00", "EUR 12.{d3},90", "1{n}.{n}.{n}", "version 1.2.3.{n}",
    "password: ********", "api_key = YOUR_API_KEY", "192.168.1.{d2}", "127.0.0.1", "192.0.2.{n}", "id={d18}", "sk-...",
    "GET /a/b?x={d10} HTTP/1.1", "1999-2000", "rated {n}/10", "password = getpass()", "step {d6} of {d7}",
    "{d3} {d3} {d3}",
]  # fmt: skip
FRAMES = ["{}", "I wrote {} there.", "x = 1  # {}", "2023-11-29 10:30:11 INFO {}", "({})", '"{}",']


def measure(clean_rows: Callable[..., pd.DataFrame], score: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return recall and precision of each kind over the seeds, and which bars they meet.

    Args:
        clean_rows: of `audit_score`: corpus, rows and seed to reviews without natural defects.
        score: of `audit_score`: corpus, kind, and the numbers planted, found and right to a line of the table.
    """
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    leaks = 0
    for corpus in CORPORA:
        for seed in SEEDS:
            frame, truth, private = plant(clean_rows(corpus, ROWS, seed), seed)
            report = audit(frame)
            for kind, ids in truth.items():
                found = set(report[kind].rows) if kind in report else set()
                counts = (len(ids), len(found), len(found & ids))
                sums[corpus, kind] = [a + b for a, b in zip(sums[corpus, kind], counts, strict=True)]
            shown = report.html() + json.dumps(report.to_dict())
            leaks += sum(value in shown for value in private)
    scores = [score(corpus, kind, *counts) for (corpus, kind), counts in sums.items()]
    return {
        "scores": scores,
        "secrets_shown": leaks,
        "bars": {
            "keys and numbers with a checksum: recall 1": all(
                line["recall"] == 1 for line in scores if line["finding"] in CHECKED
            ),
            "personal data: recall at least 0.95": all(line["recall"] >= 0.95 for line in scores),
            "secrets and personal data: precision at least 0.95": all(
                (line["precision"] or 0) >= 0.95 for line in scores
            ),
            "no secret in a report": leaks == 0,
        },
    }


def plant(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[str, set[str]], list[str]]:
    """Plant each kind into rows of its own, and into others what only looks like one.

    Returns:
        The rows, the ids that each kind of finding should list, and what no report may show.
    """
    rng = np.random.default_rng(seed)
    frame, texts = rows.copy(), rows["text"].tolist()
    spare = iter(rng.permutation(len(frame)))
    truth: defaultdict[str, set[str]] = defaultdict(set)
    private = []

    def put(value: str) -> str:
        place = int(next(spare))
        words = texts[place].split(" ")
        words.insert(int(rng.integers(1, len(words))), FRAMES[int(rng.integers(len(FRAMES)))].format(value))
        texts[place] = " ".join(words)
        return str(frame["id"].iloc[place])

    for kind in KINDS:
        for number in range(EACH):
            value = made(kind, number, rng)
            truth[kind].add(put(value))
            private.append(value)
    for number in range(10 * EACH):
        put(filled(NOTHING[number % len(NOTHING)], rng))
    return frame.assign(text=texts), dict(truth), private


def made(kind: str, number: int, rng: np.random.Generator) -> str:
    """Return a value of `kind`, drawn anew; `number` chooses its form."""
    if kind == "secrets":
        forms = _keys(rng)
        return forms[number % len(forms)]
    if kind == "bank_accounts":
        number_of_bank = drawn(rng, 18, DIGITS)
        check = 98 - int(f"{number_of_bank}131400") % 97  # ISO 13616: DE is 1314
        compact = f"DE{check:02}{number_of_bank}"
        return compact if number % 2 else " ".join(compact[at : at + 4] for at in range(0, 22, 4))
    if kind == "card_numbers":
        return with_check_digit(["4", "51", "34", "6011"][number % 4], 14 if number % 4 == 2 else 15, rng)
    if kind == "national_ids":
        return _person(number, rng)
    if kind == "email_addresses":
        return f"{drawn(rng, 6, LETTERS.lower())}.{drawn(rng, 4, LETTERS.lower())}@mail-{drawn(rng, 3, DIGITS)}.de"
    if kind == "phone_numbers":
        return filled(PHONES[number % len(PHONES)], rng)
    if kind == "ip_addresses":
        if number % 3 == 0:
            return f"2a00:1450:4001:{int(rng.integers(4096)):x}::{int(rng.integers(1, 4096)):x}"
        return ".".join(str(part) for part in (81, int(rng.integers(40, 255)), *rng.integers(33, 255, 2)))
    return [f"{drawn(rng, 6, LETTERS.lower())}@example.com", f"212-555-01{drawn(rng, 2, DIGITS)}"][number % 2]


def _keys(rng: np.random.Generator) -> list[str]:
    """Keys in the forms of their issuers, and passwords."""
    wide = LETTERS + DIGITS
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    body = "\\n".join(drawn(rng, 64, wide + "+/") for _ in range(10))
    password = drawn(rng, 6, LETTERS) + drawn(rng, 3, DIGITS) + "!"
    return [
        "AKIA" + drawn(rng, 16, UPPER + "234567"), "ghp_" + drawn(rng, 36, wide), "AIza" + drawn(rng, 35, wide + "-_"),
        f"github_pat_{drawn(rng, 22, wide)}_{drawn(rng, 59, wide)}", "npm_" + drawn(rng, 36, wide),
        f"sk-{drawn(rng, 20, wide)}T3BlbkFJ{drawn(rng, 20, wide)}", "sk-proj-" + drawn(rng, 150, wide + "-_"),
        f"sk-ant-api03-{drawn(rng, 93, wide + '-_')}AA", "sk_live_" + drawn(rng, 24, wide),
        "hf_" + drawn(rng, 34, LETTERS),
        f"xoxb-{drawn(rng, 12, DIGITS)}-{drawn(rng, 12, DIGITS)}-{drawn(rng, 24, wide)}",
        f"{header}.eyJ{drawn(rng, 30, wide)}.{drawn(rng, 43, wide)}",
        f"-----BEGIN PRIVATE KEY-----\\n{body}\\n-----END PRIVATE KEY-----",
        *(form.format(password) for form in PASSWORDS),
    ]  # fmt: skip


def _person(number: int, rng: np.random.Generator) -> str:
    """A number of a person: with a check digit in a form of its own, or beside a word."""
    if number % 4 == 0:
        return f"{int(rng.integers(100, 600)):03}-{int(rng.integers(10, 99))}-{int(rng.integers(1000, 9999))}"
    if number % 4 == 1:  # Spain: the letter is a remainder
        eight = int(rng.integers(10_000_000, 99_999_999))
        return f"{eight}{'TRWAGMYFPDXBNJZSQVHLCKE'[eight % 23]}"
    if number % 4 == 2:  # Brazil: two check digits, modulo 11
        digits = [int(digit) for digit in drawn(rng, 9, DIGITS)]
        for _ in range(2):
            total = sum(digit * weight for digit, weight in zip(digits, range(len(digits) + 1, 1, -1), strict=True))
            digits.append((10 * total % 11) % 10)
        said = "".join(map(str, digits))
        return f"{said[:3]}.{said[3:6]}.{said[6:9]}-{said[9:]}"
    return NAMED[number % len(NAMED)].format("C" + drawn(rng, 8, DIGITS) if number % 2 else drawn(rng, 9, DIGITS))


def with_check_digit(start: str, length: int, rng: np.random.Generator) -> str:
    """Return a number of `length` digits that begins with `start`, and its check digit (ISO/IEC 7812-1)."""
    digits = start + drawn(rng, length - len(start), DIGITS)
    total = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2]) + sum(map(int, digits[-2::-2]))
    return f"{digits}{-total % 10}"


def filled(form: str, rng: np.random.Generator) -> str:
    """Return `form` with its digits, hexadecimal digits and UUIDs drawn."""
    values = {f"d{count}": drawn(rng, count, "123456789") for count in range(1, 19)}
    values |= {f"hex{count}": drawn(rng, count, "0123456789abcdef") for count in (40, 64)}
    return form.format(**values, n=int(rng.integers(1, 10)), uuid=uuid.UUID(bytes=rng.bytes(16), version=4))


def drawn(rng: np.random.Generator, count: int, of: str) -> str:
    """Return `count` characters of `of`."""
    return "".join(rng.choice([*of], count))
