"""The rows of a classifier against their data set, and against each other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ftlab.data import duplicates, sources
from ftlab.errors import BadInput
from ftlab.exercises import rewording, row_checks
from ftlab.exercises.outcomes import Status

NOTICE = (
    "this message was sent from the form of the help desk please do not answer it directly but use the portal where "
    "all of your requests are kept together with what was said about them so far by our colleagues of the first line"
)
SIZES = {"train": 60, "validation": 10, "test": 20}


def words(seed: int, count: int = 12) -> str:
    """A text that has hardly a word in common with another one."""
    letters = np.random.default_rng(seed).integers(0, 26, (count, 6))
    return " ".join("".join(chr(97 + letter) for letter in word) for word in letters)


def handed_in(rows: pd.DataFrame, dataset: Path | str) -> Any:
    return SimpleNamespace(rows=rows, attempt={"dataset": str(dataset)})


def written(folder: Path, texts: list[str]) -> Path:
    labels = ["a" if number % 2 else "b" for number in range(len(texts))]
    pd.DataFrame({"text": texts, "label": labels}).to_csv(folder / "own.csv", index=False)
    return folder / "own.csv"


def drawn(file: Path, sizes: dict[str, int] = SIZES) -> pd.DataFrame:
    """The first rows of a file, split."""
    there = sources.read(str(file)).head(sum(sizes.values()))
    return there.assign(split=np.repeat([*sizes], [*sizes.values()]))[["id", "split", "text", "label"]]


@pytest.fixture
def no_pairs(monkeypatch):
    monkeypatch.setattr(rewording, "nearest", lambda texts, others: [])


def with_a_notice(folder: Path) -> Path:
    """A file in which nine texts share a long notice; of the drawn rows, one of training and one of test have it."""
    texts = [words(seed) for seed in range(100)]
    for place in (0, 89, *range(91, 98)):
        texts[place] += f" {NOTICE}"
    return written(folder, texts)


@pytest.mark.usefixtures("no_pairs")
def test_a_notice_of_many_texts_makes_no_copies_of_the_few_that_were_drawn(tmp_path):
    file = with_a_notice(tmp_path)
    rows = drawn(file)
    assert row_checks._across(rows, duplicates.together(list(rows["text"]))).sum() == 2
    assert row_checks.leak(handed_in(rows, file)).status == Status.PASS


@pytest.mark.usefixtures("no_pairs")
def test_a_copy_is_one_whatever_texts_are_around_it(tmp_path):
    file = with_a_notice(tmp_path)
    rows = drawn(file)
    rows.loc[89, "text"] = rows.loc[0, "text"]
    found = row_checks.leak(handed_in(rows, file))
    assert found.status == Status.FIX
    assert found.found.startswith("1 rows of validation or test have a copy in another split: own.csv-0")


@pytest.mark.usefixtures("no_pairs")
def test_without_the_data_set_the_drawn_rows_alone_decide(tmp_path):
    file = with_a_notice(tmp_path)
    rows = drawn(file)
    file.unlink()
    with pytest.raises(BadInput):
        sources.read(str(file))
    assert row_checks.leak(handed_in(rows, file)).status == Status.FIX


def relabelled(rows: pd.DataFrame, split: str, count: int) -> pd.DataFrame:
    places = rows.index[rows["split"] == split][:count]
    rows = rows.copy()
    rows.loc[places, "label"] = rows.loc[places, "label"].map({"a": "b", "b": "a"})
    return rows


def test_each_split_is_judged_by_its_own_labels(tmp_path):
    """Eight false labels of twenty test rows are less than a tenth of all ninety rows."""
    file = written(tmp_path, [words(seed) for seed in range(90)])
    rows = drawn(file)
    found = row_checks.source(handed_in(relabelled(rows, "test", 8), file))
    assert found.status == Status.FIX
    assert found.found.startswith("8 of 20 test labels differ; the row own.csv-")
    for split, count in (("test", 2), ("train", 6), ("validation", 1)):
        assert row_checks.source(handed_in(relabelled(rows, split, count), file)).status == Status.PASS


def test_each_split_is_judged_by_its_own_texts(tmp_path):
    file = written(tmp_path, [words(seed) for seed in range(90)])
    rows = drawn(file)
    rows.loc[70:76, "text"] = "quite another text"
    found = row_checks.source(handed_in(rows, file))
    assert found.found.startswith("7 of 20 test texts are others; own.csv-")


def test_one_label_of_a_small_split_may_be_corrected(tmp_path):
    file = written(tmp_path, [words(seed) for seed in range(90)])
    rows = drawn(file, {"train": 75, "validation": 3, "test": 12})
    assert row_checks.source(handed_in(relabelled(rows, "validation", 1), file)).status == Status.PASS
    assert row_checks.source(handed_in(relabelled(rows, "validation", 2), file)).status == Status.FIX


def test_a_test_row_that_is_a_validation_row_in_other_words_is_refused(tmp_path, monkeypatch):
    file = written(tmp_path, [words(seed) for seed in range(90)])
    rows = drawn(file)
    test, validation = rows[rows["split"] == "test"].iloc[4], rows[rows["split"] == "validation"].iloc[2]

    def nearest(texts, others):
        """The one pair is close, whatever the encoder says of it."""
        if test["text"] not in texts or validation["text"] not in others:
            return []
        return [rewording.Pair(texts.index(test["text"]), others.index(validation["text"]), 0.95, 12, 12)]

    monkeypatch.setattr(rewording, "nearest", nearest)
    found = row_checks.leak(handed_in(rows, file))
    assert found.status == Status.FIX
    assert f"{test['id']} (test)" in found.found
    assert f"{validation['id']} (validation)" in found.found
    assert found.advice == f"Leave out the validation rows {validation['id']}."
    monkeypatch.setattr(rewording, "SAME", 0.99)
    assert row_checks.leak(handed_in(rows, file)).status == Status.WARN
