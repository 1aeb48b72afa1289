"""Copies that are disguised, cut, wrapped in a page or filled into a template, planted into clean reviews.

Each copy has a source of its own among the training rows, and is planted once in training and once, of another source,
in the test rows, where it is leakage.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ftlab.data.audit import AuditReport, audit

SEEDS = range(5)
ROWS = 2000
EACH = 20  # copies of each kind and seed, in training and in the test rows
CLUSTERS, OF_CLUSTER = 4, 5  # templates of each kind, and the rows of each
CYRILLIC = str.maketrans(
    "aceopxyiACEOPXBHKMT",
    "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0456\u0410\u0421\u0415\u041e\u0420\u0425\u0412\u041d\u041a\u041c\u0422",
)
GREEK = str.maketrans(
    "oivAEZHIKMNOPTYX",
    "\u03bf\u03b9\u03bd\u0391\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
)
ACCENTS = str.maketrans("aeioucnAEIOUCN", "áèîöüçñÁÈÎÖÜÇÑ")
ENTITIES = {'"': "&quot;", "'": "&#39;", "a": "&#97;", "E": "&#x45;", "é": "&eacute;"}
NUMBERS = ["in {} of {} scenes", "({} out of {} stars)", "seen {} times in {} weeks"]
NAMES = [
    "Maria Lopez", "Tom", "Ann Lee", "Yusuf Demir", "Olga", "Wei Chen",
    "Kofi Mensah", "Ingrid", "Paul Weber", "Aiko Tanaka",
]  # fmt: skip
LETTERS = [
    "Dear {}, your order of {} has been sent and will reach you soon: ",
    "The report was written by {} and read by {}: ",
    "Yesterday evening {} went to the cinema with {} and wrote: ",
]  # fmt: skip
PAGE_BEHIND = (
    "This review was collected for research and may not be sold. All rights are reserved by the owners of the site. "
    "Read more reviews like this one, rate the films that you have seen and write your own on our pages today."
)
PAGE_BEFORE = (
    "You are reading an archived copy of a page that has been moved. Some pictures and links may be missing. "
    "Members of the club can log in above to add a comment. What one of our readers said about the film:"
)
COPIES = ("exact_duplicates", "normalised_duplicates", "disguised_duplicates", "near_duplicates", "contained_texts")
LEAKS = ("leakage", "near_leakage")
# Words of a source, so that the part has 8 (12 if it is edited): of shorter texts an idiom would be enough.
FEWEST_WORDS = {"first half": 20, "inner half": 20, "last half, edited": 24}
WORD = re.compile(r"\w+")
# The finding that should name each kind in training. A page is taken out, so its copies differ in nothing else.
NAMED_BY = {
    "zero width": ("disguised_duplicates",),
    "ten homoglyphs": ("disguised_duplicates",),
    "all homoglyphs": ("disguised_duplicates",),
    "case and accents": ("disguised_duplicates",),
    "some spaces left out": ("disguised_duplicates",),
    "all spaces left out": ("disguised_duplicates",),
    "entities": ("disguised_duplicates",),
    "tags": ("disguised_duplicates",),
    "several disguises": ("disguised_duplicates",),
    "numbers changed": ("templates",),
    "first half": ("contained_texts",),
    "inner half": ("contained_texts",),
    "last half, edited": ("contained_texts",),
    "page behind": COPIES,
    "page before": COPIES,
    "page behind, disguised": COPIES,
    "typing errors": COPIES,
}


def measure(clean_rows: Callable[..., pd.DataFrame], score: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return recall and precision for each kind of copy and each finding, over the seeds.

    Args:
        clean_rows: (corpus, rows, seed) -> reviews without natural defects.
        score: (corpus, kind, planted, found, right) -> a line of the table of scores.

    Returns:
        "scores": one line for each kind and place (its recall; found and right are equal) and one for each finding
        (its precision); "bars".
    """
    scores = []
    for corpus in ("imdb", "rotten_tomatoes"):
        sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for seed in SEEDS:
            train, test, planted = plant(clean_rows(corpus, ROWS, seed), seed)
            for kind, counts in _counts(audit(train, test=test), planted).items():
                sums[kind] = [a + b for a, b in zip(sums[kind], counts, strict=True)]
        scores += [score(corpus, kind, *counts) for kind, counts in sums.items()]
    return {"scores": scores, "bars": _bars(scores)}


def plant(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Plant copies of each kind into clean reviews.

    Returns:
        Training rows, test rows, and the planted ones: kind, id, source (the id of its training row) and place.
    """
    rng = np.random.default_rng(seed)
    train, test = rows.iloc[: ROWS * 4 // 5].copy(), rows.iloc[ROWS * 4 // 5 :].copy()
    text_of = train.set_index("id")["text"].to_dict()
    spare = iter(rng.permutation(train["id"]))
    planted: list[dict[str, str]] = []
    more: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    labels = train.set_index("id")["label"].to_dict()

    def add(kind: str, place: str, source: str, text: str) -> None:
        row = f"{kind}-{place}-{len(planted)}"
        more[place].append({"id": row, "text": text, "label": labels[source]})
        planted.append({"kind": kind, "id": row, "source": source, "place": place})

    for place in ("train", "test"):
        for kind in NAMED_BY:
            for _ in range(EACH):
                fewest = FEWEST_WORDS.get(kind, 0)
                source = next(row for row in spare if len(WORD.findall(text_of[row])) >= fewest)
                if kind == "numbers changed":  # many reviews have no number, so the source gets some too
                    form = NUMBERS[int(rng.integers(len(NUMBERS)))]
                    plain = text_of[source]
                    text_of[source] = _with_numbers(plain, form, rng, low=1)
                    add(kind, place, source, _with_numbers(plain, form, rng, low=50))
                else:
                    add(kind, place, source, _copy(kind, text_of[source], rng))
    for kind in ("template with names", "template with names and numbers"):
        for number in range(CLUSTERS):
            source = next(spare)
            body = " ".join(text_of[source].split()[:25])
            letter = LETTERS[number % len(LETTERS)] + body + (" No. {}." if "numbers" in kind else "")
            for _ in range(OF_CLUSTER):
                names = rng.permutation(NAMES)[:2]
                add(kind, "train", source, letter.format(*names, rng.integers(100, 10_000)))
    train["text"] = train["id"].map(text_of)
    columns = ["id", "text", "label"]
    return (
        pd.concat([train, pd.DataFrame(more["train"])], ignore_index=True)[columns],
        pd.concat([test, pd.DataFrame(more["test"])], ignore_index=True)[columns],
        pd.DataFrame(planted),
    )


def _with_numbers(text: str, form: str, rng: np.random.Generator, *, low: int) -> str:
    words = text.split(" ")
    middle = len(words) // 2
    return " ".join([*words[:middle], form.format(*rng.integers(low, low + 49, 2)), *words[middle:]])


def _copy(kind: str, text: str, rng: np.random.Generator) -> str:
    """Return a copy of `text` of this kind."""
    words = text.split(" ")
    half = -(-len(words) // 2)
    quarter = len(words) // 4
    match kind:
        case "zero width":
            return "".join(
                letter + str(rng.choice([*"\u200b\u200c\u2060\ufeff\u00ad"])) * (rng.random() < 0.2) for letter in text
            )
        case "ten homoglyphs":
            places = [place for place, letter in enumerate(text) if letter.translate(CYRILLIC) != letter]
            chosen = set(rng.choice(places, min(10, len(places)), replace=False).tolist())
            return "".join(letter.translate(CYRILLIC) if at in chosen else letter for at, letter in enumerate(text))
        case "all homoglyphs":
            return text.translate(CYRILLIC if rng.random() < 0.5 else GREEK)
        case "case and accents":
            return "".join(letter.translate(ACCENTS) if rng.random() < 0.3 else letter for letter in text).upper()
        case "some spaces left out":
            return "".join(word + " " * (rng.random() < 0.7) for word in words)
        case "all spaces left out":
            return "".join(words)
        case "entities":
            return "".join(ENTITIES.get(letter, letter) if rng.random() < 0.5 else letter for letter in text)
        case "tags":
            first, second, last = (" ".join(part) for part in (words[:quarter], words[quarter:half], words[half:]))
            return f"<p>{first} <b>{second}</b><br /> {last}</p>"
        case "several disguises":
            return _copy(
                "zero width", _copy("ten homoglyphs", _copy("some spaces left out", text, rng), rng), rng
            ).title()
        case "first half":
            return " ".join(words[:half])
        case "inner half":
            return " ".join(words[quarter : quarter + half])
        case "last half, edited":
            part = words[-(half + quarter // 2) :]
            for place in rng.choice(len(part), len(part) // 12, replace=False):
                part[place] = "another"
            return " ".join(part)
        case "page behind":
            return f"{text} {PAGE_BEHIND}"
        case "page before":
            return f"{PAGE_BEFORE} {text}"
        case "page behind, disguised":
            return _copy("ten homoglyphs", f"{text} {PAGE_BEHIND}", rng)
        case "typing errors":
            long = [place for place, word in enumerate(words) if len(word) > 2]
            for place in rng.choice(long, max(1, len(words) // 10), replace=False):
                words[place] = _mistyped(words[place], rng)
            return " ".join(words)
    raise ValueError(kind)


def _mistyped(word: str, rng: np.random.Generator) -> str:
    """Return `word` without a letter, or with two letters in the wrong order."""
    at = int(rng.integers(len(word) - 1))
    return word[:at] + (word[at + 1 :] if rng.random() < 0.5 else word[at + 1] + word[at] + word[at + 2 :])


def _counts(report: AuditReport, planted: pd.DataFrame) -> dict[str, tuple[int, int, int]]:
    """Return (planted, found, right) for each kind and place, and for each finding."""
    found = {
        each: set(report[each].rows) if each in report else set()
        for each in (*COPIES, *LEAKS, "templates", "boilerplate")
    }
    counts: dict[str, tuple[int, int, int]] = {}
    for (kind, place), rows in planted.groupby(["kind", "place"], sort=False):
        ids = set(rows["id"])
        if place == "test":
            by: tuple[str, ...] = LEAKS
        else:
            by = NAMED_BY.get(kind, ("templates", "near_duplicates"))
        listed = ids & set().union(*(found[each] for each in by))
        counts[f"{kind}, {place}"] = (len(ids), len(listed), len(listed))
    train, test = planted[planted["place"] == "train"], planted[planted["place"] == "test"]

    def ids_of(*kinds: str) -> set[str]:
        return set(train["id"][train["kind"].isin(kinds)])

    # For each finding the rows that it should list, and those that it may list beside them.
    expected = {
        "copies": ((*COPIES, "templates"), set(train["id"]), set(train["source"])),
        "leaks": (LEAKS, set(test["id"]), set()),
        "boilerplate": (("boilerplate",), ids_of("page behind", "page before"), ids_of("page behind, disguised")),
    }
    for name, (by, ids, beside) in expected.items():
        listed = set().union(*(found[each] for each in by)) - (beside - ids)
        counts[f"all {name}"] = (len(ids), len(listed), len(listed & ids))
    return counts


def _bars(scores: list[dict[str, Any]]) -> dict[str, bool]:
    kinds = [row for row in scores if not row["finding"].startswith("all ")]
    whole = [row for row in scores if row["finding"].startswith("all ")]
    return {
        "each disguise, part and page: recall at least 0.95": all(row["recall"] >= 0.95 for row in kinds),
        "copies, leaks and boilerplate: precision at least 0.95": all((row["precision"] or 0) >= 0.95 for row in whole),
    }
