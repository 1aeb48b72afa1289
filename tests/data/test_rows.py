"""The course's own small data sets: their cards are true, and only the meaning of a text predicts its label."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from ftlab.data import sources
from ftlab.data.audit import audit

SETS = {
    "tickets": (480, 110, 4),
    "domains": (360, 110, 3),
    "clinical_notes": (360, 110, 3),
}  # at least so many rows, rows a class, classes
REPEATS = {"exact_duplicates", "normalised_duplicates", "near_duplicates", "conflicting_labels",
           "conflicting_near_labels"}  # fmt: skip
WORD = re.compile(r"[\w']+")
PRIVATE = {
    "e-mail address": re.compile(r"\S@\S"),
    "URL": re.compile(r"https?:|www\.|\b\w+\.(com|org|net|io|co|de|uk|eu)\b", re.IGNORECASE),
    "phone number": re.compile(r"(?:\d[\s().+/-]{0,2}){9,}"),  # a date has eight digits
}


@pytest.fixture(scope="module", params=SETS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def frame(name) -> pd.DataFrame:
    return sources.read(name)


@pytest.fixture(scope="module")
def card(name) -> str:
    return (sources.ROWS / f"{name}.md").read_text(encoding="utf-8")


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def test_there_are_enough_rows_of_each_class(name, frame):
    rows, of_a_class, classes = SETS[name]
    counts = frame["label"].value_counts()
    assert len(frame) >= rows
    assert set(counts.index) == set(sources.SOURCES[name].label_names)
    assert len(counts) == classes
    assert counts.min() >= of_a_class
    assert counts.max() <= 1.2 * counts.min()


def test_the_course_s_own_audit_finds_no_error_and_no_text_twice(frame):
    report = audit(frame)
    assert report.at_least("error") == []
    assert REPEATS.isdisjoint(found.id for found in report.findings)
    assert {found.id for found in report.findings} <= {"likely_label_errors"}  # hard on purpose, as the card says


def test_the_texts_are_written_one_by_one_and_not_from_a_template(frame):
    """The share of different word trigrams, within texts, over the whole set; a template brings it down."""
    trigrams = Counter()
    for text in map(words, frame["text"]):
        trigrams.update(zip(text, text[1:], text[2:], strict=False))
    assert len(trigrams) / trigrams.total() > 0.9
    openings = Counter(" ".join(words(text)[:3]) for text in frame["text"])
    assert openings.most_common(1)[0][1] <= 0.02 * len(frame)


def test_each_text_is_one_line_of_clean_text(frame):
    for text in frame["text"]:
        assert text == text.strip()
        assert len(text.splitlines()) == 1
        assert text.isprintable()
        assert "  " not in text
        assert len(words(text)) >= 4


@pytest.mark.parametrize("what", PRIVATE)
def test_no_text_leads_to_a_person(frame, what):
    assert [text for text in frame["text"] if PRIVATE[what].search(text)] == []


def test_the_patterns_find_what_they_are_for():
    found = {
        "e-mail address": ["write to jo@example.com", "jo.b@mail.example.org,"],
        "URL": ["see https://example.test/a", "at www.example.test", "on example.com now"],
        "phone number": ["call +44 20 7946 0958", "(555) 010-9999", "0301234567"],
    }
    for what, texts in found.items():
        assert all(PRIVATE[what].search(text) for text in texts)


def test_length_alone_tells_no_label(frame):
    """A decision tree on the numbers of words and characters is no better than guessing, by cross-validation."""
    lengths = np.array([[len(words(text)), len(text)] for text in frame["text"]])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    guessed = cross_val_predict(DecisionTreeClassifier(max_depth=3, random_state=0), lengths, frame["label"], cv=folds)
    share_of_most = frame["label"].value_counts(normalize=True).max()
    assert (guessed == frame["label"]).mean() < share_of_most + 0.08


def test_place_in_the_file_tells_no_label(frame):
    counts = [
        quarter["label"].value_counts(normalize=True)
        for _, quarter in frame.groupby(frame.index // (len(frame) // 4 + 1))
    ]
    assert len(counts) == 4
    assert all(shares.max() < 0.5 for shares in counts)
    runs = (frame["label"] != frame["label"].shift()).cumsum().value_counts()
    assert runs.max() <= 10


def test_the_card_counts_what_the_file_holds(name, frame, card):
    counts = frame["label"].value_counts()
    lengths = [len(text.split()) for text in frame["text"]]
    assert card.startswith(f"# {name}: {len(frame)} ")
    assert counts.nunique() == 1
    assert f"{counts.iloc[0]} rows of each label" in card
    shortest, longest, mean = map(int, re.search(r"from (\d+) to about (\d+) words, (\d+) on average", card).groups())
    assert shortest == min(lengths)
    assert longest == pytest.approx(max(lengths), rel=0.05)
    assert mean == pytest.approx(np.mean(lengths), abs=0.5)
    for label in counts.index:
        assert f"- `{label}`: " in card


@pytest.mark.parametrize(
    "says",
    [
        "**What it is for.** ",
        "**Who wrote it.** ",
        "with the help of a language model",
        "**How labels were decided.** ",
        "**Known limits.**",
        "nobody labelled the rows a second time",
        "**Licence.** Apache-2.0",
    ],
)
def test_the_card_says_who_wrote_it_for_what_and_what_it_is_not_good_for(card, says):
    assert says in " ".join(card.split())


def test_the_licence_of_the_card_is_that_of_the_rows(name, frame):
    assert sources.SOURCES[name].licence == frame.attrs["provenance"].licence == "Apache-2.0"


def test_reading_gives_the_labels_in_the_order_of_the_course(name, frame):
    loaded = sources.load(name)["train"]
    assert tuple(loaded.features["label"].names) == sources.SOURCES[name].label_names
    assert sorted(loaded["id"]) == frame["id"].tolist()
    assert frame["id"].iloc[0] == f"{name}-00000"
