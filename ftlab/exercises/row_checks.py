"""Checks of the rows of a classifier: enough of them, with the data set's own labels, and none in two splits."""

from __future__ import annotations

from collections.abc import Collection
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
MOST_RELABELLED = 0.1  # share of the rows of a split whose label a person may have corrected; one row in any case
LOADED = 5_000  # rows of each split of the data set, among which the notebooks look for copies
ROWS = "rows.jsonl"
SAME_WORDS = 0.5  # Jaccard similarity of the words of a text, below which it is another one, and no edited one
# Rows that judge, and the split whose texts they may not hold in other words.
HELD_OUT = ((("validation", "test"), "train"), (("test",), "validation"))
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
    if (found := _most(known, other)) is not None:
        place, share = found
        line = known.iloc[place]
        return fix(
            "the labels that the data set has for these ids",
            f"{share} labels differ; the row {line['id']} is {quoted(line['label'])} here and {quoted(there[place])} "
            "there", ROWS, advice="Texts and labels have lost each other on the way.",
        )  # fmt: skip
    edited = np.array([_overlap(one, two) < SAME_WORDS for one, two in zip(known["text"], texts, strict=True)])
    if (found := _most(known, edited)) is not None:
        place, share = found
        line = known.iloc[place]
        return fix(
            "the texts that the data set has for these ids",
            f"{share} texts are others; {line['id']} has {quoted(line['text'])}",
            ROWS, advice="Texts and ids have lost each other on the way.",
        )  # fmt: skip
    corrected = f"; {int(other.sum())} differ, as if corrected by hand" if other.any() else ""
    return passed(f"the labels of {len(known):,} rows are those of {about['dataset']}{corrected}", ROWS)


def _most(rows: pd.DataFrame, changed: np.ndarray) -> tuple[int, str] | None:
    """Return where too many of `rows` are `changed`: the position of one, and how many they are of which split.

    Each split counts alone: the test rows are few beside those of training, and judge all the same. None if there are
    no more in any split than a person may have corrected.
    """
    splits = rows["split"].to_numpy()
    worst = max({*splits}, key=lambda split: (changed[splits == split].mean(), split))
    there = changed & (splits == worst)
    count, size = int(there.sum()), int((splits == worst).sum())
    if count <= max(1, MOST_RELABELLED * size):
        return None
    return int(there.argmax()), f"{count:,} of {size:,} {worst}"


def _overlap(first: str, second: str) -> float:
    """Return the Jaccard similarity of the words of two texts; 1 if both have none."""
    one, other = ({*normalise(str(text)).split()} for text in (first, second))
    return len(one & other) / len(one | other) if one | other else 1.0


def _read_again(about: dict[str, Any], most: int = 0) -> list[pd.DataFrame]:
    """Return the rows of each split of the data set; about `most` of each, 0 for all. Raises CourseError."""
    columns = {name: about[name] for name in ("text_column", "label_column") if about.get(name)}
    names = sources.splits_of(about["dataset"], **columns)
    return [sources.read(about["dataset"], split=split, most=most, **columns) for split in names]


def leak(work: HandedIn) -> Answer:
    """Check that no text is in two splits: equal, a near-duplicate or, by its meaning, a paraphrase.

    `work` is what was handed in.
    """
    rows = work.rows.reset_index(drop=True)
    clusters = _clusters(work, rows)
    across = _across(rows, clusters)
    if across.any():
        where = rows[across].groupby(clusters[across])
        copies = [_pair(group.iloc[0], group[group["split"] != group["split"].iloc[0]].iloc[0]) for _, group in where]
        leaked = rows[across & (rows["split"] != "train")]["id"].nunique()
        return fix(
            "no text in two splits", f"{leaked:,} rows of validation or test have a copy in another split: {copies[0]}",
            ROWS, advice=_without(rows, across),
        )  # fmt: skip
    try:
        pairs = [pair for held, against in HELD_OUT for pair in _reworded(rows, held, against)]
    except AssetError as problem:
        return unchecked(f"rewordings cannot be looked for: {problem}")
    pairs.sort(key=lambda pair: -pair[0].cosine)
    if same := [(held, other) for one, held, other in pairs if one.same]:
        told = f"{len({held['id'] for held, _ in same})} held-out rows are rows of another split in other words"
        copied = rows.index.isin([other.name for _, other in same])
        return fix("no text in two splits", f"{told}: {_pair(*same[0])}", ROWS, advice=_without(rows, copied))
    if alike := [_pair(held, other) for one, held, other in pairs if one.alike]:
        return warn(
            "no text in two splits", f"{len(alike)} pairs are close in meaning, read them: {'; '.join(alike[:NAMED])}",
            ROWS,
        )  # fmt: skip
    return passed(f"{len(rows):,} texts, none in two splits", ROWS)


def _clusters(work: HandedIn, rows: pd.DataFrame) -> np.ndarray:
    """Return a cluster number for each of `rows`: equal for copies.

    A notice that several texts end with is left out only if enough texts have it, and the notebook sees more texts than
    it draws. So rows of two splits are copies if they are that among the drawn rows and among all texts.
    """
    clusters = duplicates.together(list(rows["text"]))
    if not _across(rows, clusters).any():
        return clusters
    try:
        there = sources.complete(pd.concat(_read_again(work.attempt, LOADED)))
    except CourseError:
        return clusters
    others = there[~there["id"].isin(rows["id"])]["text"].astype(str)
    wider = duplicates.together([*rows["text"], *others])[: len(rows)]
    return np.unique(np.stack((clusters, wider)), axis=1, return_inverse=True)[1].ravel()


def _across(rows: pd.DataFrame, clusters: np.ndarray) -> pd.Series:
    """Return for each of `rows` whether its cluster is in several splits."""
    return rows.assign(cluster=clusters).groupby("cluster")["split"].transform("nunique") > 1


def _reworded(
    rows: pd.DataFrame, held_out: Collection[str], against: str
) -> list[tuple[rewording.Pair, pd.Series, pd.Series]]:
    """Return pairs of a row of the splits `held_out` and one of the split `against` that are close in meaning."""
    held, others = rows[rows["split"].isin(held_out)], rows[rows["split"] == against]
    pairs = rewording.nearest(list(held["text"]), list(others["text"]))
    return [(one, held.iloc[one.first], others.iloc[one.second]) for one in pairs]


def _pair(first: pd.Series, second: pd.Series) -> str:
    """Return two rows as a part of a sentence, with their splits and the beginning of their texts."""
    return " and ".join(f"{row['id']} ({row['split']}), {quoted(row['text'])}" for row in (first, second))


def _without(rows: pd.DataFrame, copied: pd.Series | np.ndarray) -> str:
    """Return which of the `copied` rows to leave out: those of training; if none is, those of validation."""
    for split in ("train", "validation"):
        ids = list(rows[copied & (rows["split"] == split)]["id"].unique())
        if ids:
            more = f", ... ({len(ids)} in all)" if len(ids) > LISTED else ""
            return f"Leave out the {split} rows {', '.join(ids[:LISTED])}{more}."
    return ""
