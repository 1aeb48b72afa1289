"""Checks of the rows of a classifier: enough of them, with the data set's own labels, and none in two splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ftlab.data import duplicates, sources
from ftlab.data.words import normalise
from ftlab.errors import AssetError, CourseError
from ftlab.exercises import rewording
from ftlab.exercises.checks import fix, passed, unchecked, warn
from ftlab.exercises.handed_in import SPLITS, HandedIn
from ftlab.exercises.outcomes import Answer
from ftlab.wording import quoted, some

FEWEST_TRAIN, FEWEST_TEST = 30, 10
NARROW_TEST = 50  # test rows below which the interval of an accuracy is wider than 25 points
MOST_RELABELLED = 0.1  # share of the rows whose label a person may have corrected
ROWS = "rows.jsonl"
SAME_WORDS = 0.5  # Jaccard similarity of the words of a text, below which it is another one, and no edited one
NAMED, LISTED = 3, 40  # pairs of rows, and ids, that a sentence names


def enough(work: HandedIn) -> Answer:
    """Check that there are rows enough to learn from and to judge by, and that each class is in the test rows.

    `work` is what was handed in.
    """
    sizes = {split: len(work.part(split)) for split in SPLITS}
    found = ", ".join(f"{count:,} {split} rows" for split, count in sizes.items()) + f", {len(work.labels)} classes"
    if sizes["train"] < FEWEST_TRAIN:
        return fix(f"at least {FEWEST_TRAIN} training rows", found, ROWS)
    if sizes["test"] < FEWEST_TEST:
        return fix(f"at least {FEWEST_TEST} test rows", found, ROWS)
    if sizes["validation"] < 1:
        return fix("validation rows, which choose", found, ROWS)
    if len(work.labels) < 2:
        return fix("at least 2 classes", found, ROWS)
    for split in ("train", "test"):
        if lacking := sorted({*work.labels} - {*work.part(split)["label"]}):
            return fix("each class among the training and the test rows", f"no {split} row of {some(lacking)}", ROWS)
    if sizes["test"] < NARROW_TEST:
        return warn(f"{NARROW_TEST} test rows or more, for an interval that is not wide", found, ROWS)
    return passed(found, ROWS)


def source(work: HandedIn) -> Answer:
    """Check the labels of the rows against the data set, read again. `work` is what was handed in."""
    about, rows = work.attempt, work.rows
    try:
        frames = _read_again(about)
    except CourseError as problem:
        return unchecked(f"the data set cannot be read again: {problem}", advice="Make it readable, and check again.")
    frame = pd.concat(frames).drop_duplicates("id").set_index("id")
    known = rows[rows["id"].isin(frame.index)]
    if len(known) < len(rows):
        strange = rows[~rows["id"].isin(frame.index)]["id"]
        return fix(
            f"rows of {about['dataset']}, by their ids", f"{len(strange):,} ids that it does not have: {some(strange)}",
            ROWS, advice="Load the data set again, and keep its column id.",
        )  # fmt: skip
    there, texts = (frame.loc[known["id"], column].to_numpy() for column in ("label", "text"))
    other = known["label"].to_numpy() != there
    if other.mean() > MOST_RELABELLED:
        place = int(other.argmax())
        line = known.iloc[place]
        return fix(
            "the labels that the data set has for these ids",
            f"{int(other.sum()):,} of {len(known):,} labels differ; the row {line['id']} is {quoted(line['label'])} "
            f"here and {quoted(there[place])} there", ROWS, advice="Texts and labels have lost each other on the way.",
        )  # fmt: skip
    edited = np.array([_overlap(one, two) < SAME_WORDS for one, two in zip(known["text"], texts, strict=True)])
    if edited.mean() > MOST_RELABELLED:
        line = known.iloc[int(edited.argmax())]
        return fix(
            "the texts that the data set has for these ids",
            f"{int(edited.sum()):,} of {len(known):,} texts are others; {line['id']} has {quoted(line['text'])}",
            ROWS, advice="Texts and ids have lost each other on the way.",
        )  # fmt: skip
    corrected = f"; {int(other.sum())} differ, as if corrected by hand" if other.any() else ""
    return passed(f"the labels of {len(known):,} rows are those of {about['dataset']}{corrected}", ROWS)


def _overlap(first: str, second: str) -> float:
    """Return the Jaccard similarity of the words of two texts; 1 if both have none."""
    one, other = ({*normalise(str(text)).split()} for text in (first, second))
    return len(one & other) / len(one | other) if one | other else 1.0


def _read_again(about: dict[str, Any]) -> list[pd.DataFrame]:
    columns = {name: about[name] for name in ("text_column", "label_column") if about.get(name)}
    names = sources.splits_of(about["dataset"], **columns)
    return [sources.read(about["dataset"], split=split, **columns) for split in names]


def leak(work: HandedIn) -> Answer:
    """Check that no text is in two splits: equal, a near-duplicate or, by its meaning, a paraphrase.

    `work` is what was handed in.
    """
    rows = work.rows.reset_index(drop=True)
    clusters = duplicates.together(list(rows["text"]))
    across = rows.assign(cluster=clusters).groupby("cluster")["split"].transform("nunique") > 1
    if across.any():
        where = rows[across].groupby(clusters[across])
        copies = [_pair(group.iloc[0], group[group["split"] != group["split"].iloc[0]].iloc[0]) for _, group in where]
        leaked = rows[across & (rows["split"] != "train")]["id"].nunique()
        return fix(
            "no text in two splits", f"{leaked:,} rows of validation or test have a copy in another split: {copies[0]}",
            ROWS, advice=_without(rows, across),
        )  # fmt: skip
    train, others = rows[rows["split"] == "train"], rows[rows["split"] != "train"]
    try:
        pairs = rewording.nearest(list(others["text"]), list(train["text"]))
    except AssetError as problem:
        return unchecked(f"rewordings cannot be looked for: {problem}")
    if same := [(others.iloc[one.first], train.iloc[one.second]) for one in pairs if one.same]:
        told = f"{len({held['id'] for held, _ in same})} held-out rows are training rows in other words"
        copied = rows["id"].isin([trained["id"] for _, trained in same])
        return fix("no text in two splits", f"{told}: {_pair(*same[0])}", ROWS, advice=_without(rows, copied))
    if alike := [_pair(others.iloc[one.first], train.iloc[one.second]) for one in pairs if one.alike]:
        return warn(
            "no text in two splits", f"{len(alike)} pairs are close in meaning, read them: {'; '.join(alike[:NAMED])}",
            ROWS,
        )  # fmt: skip
    return passed(f"{len(rows):,} texts, none in two splits", ROWS)


def _pair(first: pd.Series, second: pd.Series) -> str:
    """Return two rows as a part of a sentence, with their splits and the beginning of their texts."""
    return " and ".join(f"{row['id']} ({row['split']}), {quoted(row['text'])}" for row in (first, second))


def _without(rows: pd.DataFrame, copied: pd.Series) -> str:
    """Return which of the `copied` rows to leave out: those of training; if none is, those of validation."""
    for split in ("train", "validation"):
        ids = list(rows[copied & (rows["split"] == split)]["id"].unique())
        if ids:
            more = f", ... ({len(ids)} in all)" if len(ids) > LISTED else ""
            return f"Leave out the {split} rows {', '.join(ids[:LISTED])}{more}."
    return ""
