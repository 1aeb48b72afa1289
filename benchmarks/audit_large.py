"""Seconds and peak memory of `ftlab audit` on a file larger than memory, against the seconds of reading the file.

The file has two million rows of about 1 kB (2 GB) in a temporary folder: pieces of IMDB's reviews that begin at random
words. Known defects are planted in it, so that the figures are those of an audit that finds something. Each measurement
runs in a process of its own.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROWS, CHARACTERS, WORDS = 2_000_000, 1000, 200
PLANTED = 500  # of each kind
KINDS = ("exact_duplicates", "normalised_duplicates", "disguised_duplicates", "conflicting_labels", "secrets")
SPLITS = ("train.csv", "test.csv")
LEAKED = 300
TIMES = 3  # the seconds of reading that an audit may take


def measure() -> dict[str, Any]:
    """Return seconds and peak memory (GB) of reading and of the audit, what it found, and which bars they meet."""
    from ftlab.course.bench import alone  # not above: the audit's processes import this file, but never measure

    with tempfile.TemporaryDirectory() as folder:
        made = alone(__file__, "make", folder)
        read, audit = alone(__file__, "read", folder), alone(__file__, "audit", folder)
        huge, classes = alone(__file__, "huge", folder), alone(__file__, "classes")
    times = round(audit["seconds"] / read["seconds"], 2)
    found = audit["found"]
    return {
        "file": made, "reading": read, "audit": audit, "times_of_reading": times, "one_text_of_50_mb": huge,
        "two_hundred_classes": classes,
        "bars": {
            "2 GB within 4 GB of memory": audit["peak_gb"] < 4,
            f"at most {TIMES} times the seconds of reading": times <= TIMES,
            "every planted copy, conflict, key and leaked row is counted": all(
                found[kind] >= count for kind, count in made["planted"].items()
            ),
            "one text of 50 MB in under a minute": huge["seconds"] < 60,
            "200 classes in under a minute": classes["seconds"] < 60,
        },
    }  # fmt: skip


def _make(folder: str) -> dict[str, Any]:
    began = time.monotonic()
    draw = np.random.default_rng(0)
    words = _words()
    planted = dict.fromkeys(KINDS, PLANTED) | {"leakage": LEAKED}
    copies: list[list[str]] = []
    with (Path(folder) / SPLITS[0]).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row, text in enumerate(_texts(words, draw, ROWS - PLANTED * len(KINDS))):
            label = "positive" if row % 7 < 4 else "negative"
            writer.writerow([text, label])
            if row % 700 == 0 and len(copies) < PLANTED * len(KINDS):
                copies.append([text, label])
        for number, (text, label) in enumerate(copies):
            writer.writerow(_spoilt(KINDS[number // PLANTED], text, label, draw))
    with (Path(folder) / SPLITS[1]).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["text", "label"], *copies[:LEAKED]])
        writer.writerows([text, "positive"] for text in _texts(words, draw, 1000))
    size = (Path(folder) / SPLITS[0]).stat().st_size
    return {"rows": ROWS, "gb": round(size / 1e9, 2), "planted": planted, "seconds": time.monotonic() - began}


def _words() -> np.ndarray:
    from ftlab.data import sources

    return np.array([word for text in sources.read("imdb")["text"] for word in text.split()], dtype=object)


def _texts(words: np.ndarray, draw: np.random.Generator, count: int) -> Iterator[str]:
    """Yield texts that differ: windows of the reviews, each with a number of its own."""
    for number, start in enumerate(draw.integers(0, len(words) - WORDS, count)):
        text = " ".join(words[start : start + WORDS].tolist())[: CHARACTERS - 10]
        yield f"{text} {draw.integers(10**6):x}{number % 10}"


def _spoilt(kind: str, text: str, label: str, draw: np.random.Generator) -> list[str]:
    if kind == "normalised_duplicates":
        return [text.upper(), label]
    if kind == "disguised_duplicates":
        return [text.replace("a", "\u0430").replace("o", "\u200bo"), label]
    if kind == "conflicting_labels":
        return [text, "negative" if label == "positive" else "positive"]
    if kind == "secrets":
        letters = np.array(list("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"))
        return [f"{text} ghp_{''.join(draw.choice(letters, 36))}", label]
    return [text, label]


def _read(folder: str) -> dict[str, Any]:
    """Read the file in tables of 4,096 rows, and do nothing with them."""
    from ftlab.data import tables

    began = time.monotonic()
    rows = sum(len(table) for table in tables.csv_chunks(Path(folder) / SPLITS[0], 4096))
    return {"rows": rows, "seconds": time.monotonic() - began}


def _audit(folder: str) -> dict[str, Any]:
    from ftlab.data.audit import large

    train, test = (str(Path(folder) / name) for name in SPLITS)
    began = time.monotonic()
    report = large.audit_file(train, test=test, processes=2)
    seconds = time.monotonic() - began
    return {"rows": report.rows, "seconds": seconds, "found": {found.id: found.count for found in report.findings}}


def _huge(folder: str) -> dict[str, Any]:
    """An ordinary audit of 500 rows, one of which is a text of 50 MB."""
    import pandas as pd

    from ftlab.data import sources
    from ftlab.data.audit import audit

    frame = sources.read("imdb", most=500)[["text", "label"]]
    words = " ".join(frame["text"])
    frame.loc[frame.index[7], "text"] = words * (50_000_000 // len(words) + 1)
    path = Path(folder) / "huge.csv"
    frame.to_csv(path, index=False)
    began = time.monotonic()
    report = audit(sources.read(str(path)))
    longest = int(pd.Series(report.lengths["characters"]).max())
    return {"rows": report.rows, "characters": longest, "seconds": time.monotonic() - began}


def _classes() -> dict[str, Any]:
    """An ordinary audit of IMDB's first 10,000 reviews, with 200 labels that have nothing to do with them."""
    from ftlab.data import sources
    from ftlab.data.audit import audit

    frame = sources.read("imdb", most=10_000)
    frame["label"] = [f"class {number}" for number in np.random.default_rng(0).integers(0, 200, len(frame))]
    began = time.monotonic()
    report = audit(frame)
    return {"rows": report.rows, "classes": len(report.classes), "seconds": time.monotonic() - began}


def _peak_gb() -> float:
    """The peak memory of this process and, as a bound, of two like the largest of its children."""
    here, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round((here + 2 * child) / 1e6, 2)


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    what, *given = sys.argv[1:]
    measured = {"make": _make, "read": _read, "audit": _audit, "huge": _huge, "classes": _classes}[what](*given)
    measured["seconds"] = round(measured["seconds"], 2)
    print(json.dumps({**measured, "peak_gb": _peak_gb()}))
