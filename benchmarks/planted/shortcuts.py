"""Labels that the form of the texts gives away, planted into clean reviews and into a table of 200 classes.

A form is put on 90 % of the rows of one class, as a collector of rows would do it, and sometimes on a few others. The
audit should name it and nothing else. On the rows as they are, it should name nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ftlab.data import sources
from ftlab.data.audit import model_checks, text_form
from ftlab.data.audit.table import Table, prepare
from ftlab.data.words import Words

SEEDS = range(5)
EACH = 2  # of the seeds for one form in one corpus, the next form begins with the next seed
ROWS = 400
MARKED = 0.9  # share of the rows of a class that get the form
STRAY = 0.01  # share of all other rows that get it too
CLASSES, OF_EACH = 200, 12
OWN = (
    "tickets",
    "domains",
    "mini_reviews",
    "clinical_notes",
)  # labels that the meaning gives away, and only the meaning
# The form, and the feature that should be named for it.
FORMS: dict[str, tuple[Callable[[str], str], str]] = {
    "no full stop": (lambda text: re.sub(r"\W+$", "", text), "final character"),
    "ends in an ellipsis": (lambda text: re.sub(r"\W+$", "", text) + "\u2026", "final character"),
    "begins with a dash": (lambda text: f"- {text}", "first character"),
    "all capitals": (str.upper, "case"),
    "title case": (str.title, "case"),
    "no capitals": (str.lower, "case"),
    "a leading space": (lambda text: f" {text}", "space around the text"),
    "a trailing line end": (lambda text: f"{text}\n", "space around the text"),
    "doubled spaces": (lambda text: text.replace(" ", "  "), "spaces within the text"),
    "spaces before commas and stops": (
        lambda text: re.sub(r"(?<=\w)([.,])", r" \1", text),
        "spaces within the text",
    ),
    "an emoji": (lambda text: f"{text} \U0001f600", "emoji"),
    "a flag at the beginning": (lambda text: f"\U0001f1e9\U0001f1ea {text}", "emoji"),
    "in quotation marks": (lambda text: f"\u201c{text}\u201d", "quotation marks"),
    "curly apostrophes": (lambda text: f"it\u2019s so: {text}", "apostrophes"),
    "em dashes": (lambda text: text.replace(" and ", " \u2014 and ").replace(" the ", " \u2014 the ", 1), "dashes"),
    "tags": (lambda text: f"<p>{text}</p>", "markup"),
    "Markdown": (lambda text: f"**review** {text}", "markup"),
    "blank lines": (lambda text: f"film\n\n{text}", "line ends"),
    "a link": (lambda text: f"{text} (https://films.example/r)", "links"),
    "a first word": (lambda text: f"re {text}", "first word"),
    "a last word": (lambda text: f"{text} end", "last word"),
    "Cyrillic": (
        lambda text: text.translate(str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстувшхыз")),
        "script",
    ),
    "figures": (lambda text: re.sub(r"\b\w{1,4}\b", "1234", text), "digits"),
}
OF_MANY = ("ends in an ellipsis", "all capitals", "a leading space")
TOUCHED = 0.1  # a feature belongs to a form that changes it in this share of the rows: a tag is a first word, too


def measure(clean_rows: Callable[..., pd.DataFrame], score: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return recall and precision of each form over the seeds, and what is named on rows without one."""
    pools = {corpus: clean_rows(corpus, 5 * ROWS, 0) for corpus in ("imdb", "rotten_tomatoes")}
    corpora = {
        corpus: [pool.sample(ROWS, random_state=seed).reset_index(drop=True) for seed in SEEDS]
        for corpus, pool in pools.items()
    }
    corpora[f"{CLASSES} classes"] = [_many_classes(seed) for seed in SEEDS]
    scores = []
    for corpus, frames in corpora.items():
        for number, (kind, (change, feature)) in enumerate(FORMS.items()):
            texts = pd.concat(frames)["text"]
            if (texts.map(change) == texts).mean() > 0.5 or ("classes" in corpus and kind not in OF_MANY):
                continue  # some reviews have no capitals as they are, so no class can be told by that
            touched = _touched(texts, change)
            seeds = [(number + one) % len(SEEDS) for one in range(EACH)]
            named = [_named(_marked(frames[seed], change, seed)) for seed in seeds]
            right = sum(feature in each for each in named)
            wrong = sum(name not in touched for each in named for name in each)
            scores.append(score(corpus, f"shape_shortcut: {kind}", len(named), right + wrong, right))
    clean = {corpus: [_named(frame) for frame in frames] for corpus, frames in corpora.items()}
    clean |= {corpus: [_named(sources.read(corpus))] for corpus in OWN}
    return {
        "scores": scores,
        "forms_named_on_clean_rows": clean,
        "bars": {
            "given-away labels: recall at least 0.95": all(row["recall"] >= 0.95 for row in scores),
            "given-away labels: precision at least 0.95": all((row["precision"] or 0) >= 0.95 for row in scores),
            "no form is named on clean rows": not any(any(each) for each in clean.values()),
        },
    }


def _touched(texts: pd.Series, change: Callable[[str], str]) -> set[str]:
    """The features that a form changes."""
    before, after = (_described(each.tolist()) for each in (texts, texts.map(change)))
    return {name for name in text_form.FEATURES if (before[name] != after[name]).mean() >= TOUCHED}


def _described(texts: list[str]) -> pd.DataFrame:
    words = Words.of(texts)
    return text_form.describe(texts, words, words.counts(), np.arange(len(texts)))


def _marked(frame: pd.DataFrame, change: Callable[[str], str], seed: int) -> pd.DataFrame:
    """The rows with the form on most of the rows of the first class, and on a few others."""
    rng = np.random.default_rng(seed)
    chosen = rng.random(len(frame)) < np.where(frame["label"] == frame["label"].min(), MARKED, STRAY / CLASSES)
    if frame["label"].nunique() == 2:
        chosen |= rng.random(len(frame)) < STRAY
    return frame.assign(text=frame["text"].where(~chosen, frame["text"].map(change)))


def _many_classes(seed: int) -> pd.DataFrame:
    """Rows of 200 classes: a short review with two words of its class."""
    rng = np.random.default_rng(seed)
    texts = sources.read("rotten_tomatoes")["text"].drop_duplicates().sample(CLASSES * OF_EACH, random_state=seed)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), OF_EACH))
    words = [f"about topic{label}x{rng.integers(5)} and topic{label}y{rng.integers(5)}" for label in labels]
    said = [f"{text} {more}." for text, more in zip(texts, words, strict=True)]
    ids = [f"r{number}" for number in range(len(said))]
    return pd.DataFrame({"id": ids, "text": said, "label": [f"class {label:03}" for label in labels]})


def _named(frame: pd.DataFrame) -> list[str]:
    """The features of the form that the audit names. Its other checks would take most of the time."""
    table = Table(prepare({"training": frame}, ("text", "label"))[1], {}, tqdm(disable=True))
    report = model_checks.check(table)
    if not any(found.id == "shape_shortcut" for found in report.findings):
        return []
    guesses = report.shortcuts["guess by"].str.removesuffix(" alone")
    return [name for name in guesses if name in text_form.FEATURES]
