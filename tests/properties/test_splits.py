"""Splits: disjoint, with groups and copies on one side, each class in its share, and the same from the same seed."""

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ftlab.data import duplicates, group_columns, splits, stratified, subsets
from ftlab.errors import BadInput
from tests import nightly
from tests.properties import refusals, strategies

SLOW = settings(max_examples=nightly.cases(few=12, nightly=1_000))
NAMES = ["bad", "good", "so-so"]


def dataset(texts, labels, groups=None, *, names=NAMES, prefix="r"):
    columns = {"id": [f"{prefix}{n}" for n in range(len(texts))], "text": texts, "label": labels}
    if groups is not None:
        columns["group"] = groups
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=names))


@st.composite
def sources(draw, *, grouped=False):
    """Rows of two or three classes: texts that differ by far, with copies, edited copies and perhaps groups."""
    classes = draw(st.integers(2, 3))
    texts, labels = [], []
    for number in range(draw(st.integers(18, 40))):
        texts.append(
            f"q{number}x w{number}y "
            + " ".join(
                f"{word}{number}" for word in draw(st.lists(st.sampled_from(strategies.WORDS), min_size=3, max_size=6))
            )
        )
        labels.append(number % classes if number < 4 * classes else draw(st.integers(0, classes - 1)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(texts) - 1))
        text = texts[place]
        texts.append(
            draw(
                st.sampled_from(
                    [text, text.upper(), f" {text} ", f"{text}!", f"{text} indeed", text.replace(" ", "\u200b ")]
                )
            )
        )
        labels.append(draw(st.sampled_from([labels[place], 0])))
    groups = None
    if grouped:  # by few authors, which often leave no way to split the rows, or by many
        authors = st.sampled_from([None, *(f"author {n}" for n in range(draw(st.sampled_from([60, 60, 25, 25, 9]))))])
        groups = draw(st.lists(authors, min_size=len(texts), max_size=len(texts)))
    return dataset(texts, labels, groups, names=NAMES[:classes])


def parts_of(found):
    return [found.train, found.validation, found.open_test("to look at its rows")]


def drawn(rows, sizes, seed, **options):
    """The splits, or None if they are refused in one sentence."""
    train, validation, test = sizes
    try:
        return splits.split(
            DatasetDict(train=rows), rows=train, validation_rows=validation, test_rows=test, seed=seed, **options
        )
    except BadInput as problem:
        refusals.require(problem, ";", "ask for")  # what to do
        return None


def require_apart(parts):
    """No row, and no copy or near-duplicate or group of it, is in two parts; checked on the drawn rows alone."""
    ids = [row for part in parts for row in part["id"]]
    assert len(ids) == len({*ids})
    side = np.repeat(range(len(parts)), [len(part) for part in parts])
    numberings = [duplicates.together([text for part in parts for text in part["text"]])]
    if all("group" in part.column_names for part in parts):
        numberings.append(group_columns.numbers(group for part in parts for group in part["group"]))
    for numbering in numberings:
        assert pd.Series(side).groupby(numbering).nunique().max() == 1


# Most fit into the rows; now and then a split is smaller than the number of classes, or all together are too large.
SIZES = st.one_of(
    *[st.tuples(st.one_of(st.none(), st.integers(3, 8)), st.integers(3, 6), st.integers(3, 6))] * 3,
    st.tuples(st.one_of(st.none(), st.integers(2, 20)), st.integers(2, 8), st.integers(2, 8)),
)


@given(sources(), SIZES, st.integers(0, 3), st.booleans())
@SLOW
def test_rows_copies_and_near_duplicates_are_on_one_side_and_the_rest_is_counted(rows, sizes, seed, at_most):
    found = drawn(rows, sizes, seed, at_most=at_most)
    if found is None:
        return
    parts = parts_of(found)
    require_apart(parts)
    for part, size in zip(parts, sizes, strict=True):
        assert size is None or len(part) <= size
        assert {*part["label"]} == {*range(len(rows.features["label"].names))}
        assert len({*map(str.casefold, part["text"])}) == len(part)  # of equal texts one is drawn
    kept = duplicates.distinct(rows["text"], rows["label"])
    assert found.dropped == len(rows) - len(kept)
    assert {row for part in parts for row in part["id"]} <= {rows["id"][place] for place in kept}
    given_rows = dict(zip(rows["id"], zip(rows["text"], rows["label"], strict=True), strict=True))
    assert all(given_rows[row["id"]] == (row["text"], row["label"]) for part in parts for row in part)


@given(sources(grouped=True), SIZES, st.integers(0, 3), st.booleans())
@SLOW
def test_a_group_is_never_on_two_sides(rows, sizes, seed, at_most):
    found = drawn(rows, sizes, seed, at_most=at_most)
    if found is not None:
        require_apart(parts_of(found))


@given(sources(), SIZES, st.integers(0, 3))
@SLOW
def test_the_same_seed_draws_the_same_rows_and_the_number_of_training_rows_changes_no_other_split(rows, sizes, seed):
    found, again = drawn(rows, sizes, seed), drawn(rows, sizes, seed)
    assert (found is None) == (again is None)
    if found is None:
        return
    assert [list(part["id"]) for part in parts_of(found)] == [list(part["id"]) for part in parts_of(again)]
    fewer = drawn(rows, (3, *sizes[1:]), seed)
    if fewer is not None:
        ids = [[list(part["id"]) for part in parts_of(one)[1:]] for one in (found, fewer)]
        assert ids[0] == ids[1]


@given(sources(grouped=True), st.integers(0, 3), st.integers(2, 6))
@SLOW
def test_training_rows_like_the_source_s_own_test_rows_are_left_out(rows, seed, size):
    places = np.random.default_rng(seed).permutation(len(rows))
    judging = rows.select(places[: len(rows) // 3])
    try:
        found = splits.split(
            DatasetDict(train=rows.select(places[len(rows) // 3 :]), test=judging),
            rows=None,
            validation_rows=size,
            test_rows=None,
            seed=seed,
            at_most=True,
        )
    except BadInput as problem:
        refusals.require(problem)
        return
    train, validation, test = parts_of(found)
    assert {*test["id"]} == {judging["id"][place] for place in duplicates.distinct(judging["text"], judging["label"])}
    require_apart([train, validation])
    for part in (train, validation):
        require_apart([part, test])
    left = found.dropped + sum(found.sizes.values())
    assert left <= len(rows)


@given(st.lists(st.integers(3, 40), min_size=2, max_size=5), st.integers(1, 60), st.integers(0, 2))
def test_shares_are_within_one_row_of_the_proportion_where_each_class_has_room(left, size, keep):
    left = np.array(left)
    assume(len(left) <= size <= (left - keep).sum() and (left - keep >= 1).all())
    take = stratified.shares(left, size, keep)
    assert take.sum() == size
    assert (take >= 1).all()
    assert (take <= left - keep).all()
    exact = left * size / left.sum()
    if (exact >= 1).all() and (exact <= left - keep).all():  # else a class gets its one row, or all that it has
        assert (np.abs(take - exact) < 1).all()
    assert (np.diff(take[np.argsort(left, kind="stable")]) >= -1).all()


@given(st.lists(st.integers(0, 2), min_size=12, max_size=60), st.integers(0, 5), st.booleans())
@SLOW
def test_of_texts_that_differ_each_class_of_a_split_is_within_one_row_of_its_share(labels, seed, at_most):
    labels = [*range(3)] * 3 + labels
    rows = dataset([f"q{n}x w{n}y e{n}z r{n}t" for n in range(len(labels))], labels)
    found = drawn(rows, (None, 4, 5), seed, at_most=at_most)
    assert found is not None
    parts = parts_of(found)
    assert [len(part) for part in parts] == [len(rows) - 9, 4, 5]  # disjoint and complete
    assert sorted(row for part in parts for row in part["id"]) == sorted(rows["id"])
    counts = np.bincount(labels, minlength=3)
    got, exact = np.bincount(parts[2]["label"], minlength=3), counts * 5 / counts.sum()
    assert (np.abs(got - exact) < 1).all() or (exact < 1).any()


@given(st.lists(st.integers(0, 2), min_size=3, max_size=40), st.data())
@SLOW
def test_a_part_of_a_split_is_its_first_rows_with_each_class_in_its_share(labels, data):
    rows = dataset([f"text {n}" for n in range(len(labels))], labels)
    wanted = data.draw(st.integers(0, len(labels) + 2))
    if not len({*labels}) <= wanted <= len(labels):
        with pytest.raises(BadInput, match="is asked for"):
            splits.part(rows, wanted)
        return
    found = splits.part(rows, wanted)
    assert len(found) == wanted
    assert {*found["label"]} == {*labels}
    assert [int(row[1:]) for row in found["id"]] == sorted(int(row[1:]) for row in found["id"])
    for label in {*labels}:
        mine = [row for row, one in zip(rows["id"], labels, strict=True) if one == label]
        chosen = [row for row, one in zip(found["id"], found["label"], strict=True) if one == label]
        assert chosen == mine[: len(chosen)]


@given(sources(), st.lists(st.integers(3, 6), min_size=2, max_size=3), st.integers(0, 3))
@SLOW
def test_disjoint_parts_share_no_row_and_no_near_duplicate(rows, sizes, seed):
    try:
        parts = splits.disjoint(rows, sizes, seed=seed)
    except BadInput as problem:
        refusals.require(problem)
        return
    require_apart(parts)
    assert all(len(part) <= size for part, size in zip(parts, sizes, strict=True))


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=60), st.integers(0, 40))
def test_a_spread_part_has_each_class_and_the_order_of_the_table(labels, most):
    table = pd.DataFrame({"label": pd.Series(labels, dtype=object), "n": range(len(labels))})
    found = subsets.spread(table, most, by="label")
    assert found["n"].is_monotonic_increasing
    assert not found["n"].duplicated().any()
    if not most or len(table) <= most:
        assert len(found) == len(table)
        return
    there = table["label"].fillna("").value_counts()
    got = found["label"].fillna("").value_counts()
    assert (got.reindex(there.index, fill_value=0) >= there.clip(upper=subsets.LEAST)).all()
    assert len(found) <= most + len(there) * (subsets.LEAST + 1)


# --- copies ---


def disguised(text):
    """Signs are no disguise ("*good*"): in a short text they may be the only difference, as in "great :)"."""
    return [
        text,
        text.upper(),
        f"  {text}\n",
        text.replace(" ", "  "),
        text.replace("o", "\u043e"),
        f"\u200b{text}",
        f"<b>{text}</b>",
    ]


@given(st.lists(strategies.texts, min_size=1, max_size=8), st.data())
def test_the_numbers_of_copies_do_not_depend_on_the_order(texts, data):
    order = data.draw(st.permutations(range(len(texts))))
    for number in (duplicates.same, duplicates.copies):
        found, other = number(texts), number([texts[place] for place in order])
        assert len(found) == len(texts)
        pairs = {(one, two) for one in range(len(texts)) for two in range(len(texts)) if found[one] == found[two]}
        moved = {
            (order[one], order[two])
            for one in range(len(texts))
            for two in range(len(texts))
            if other[one] == other[two]
        }
        assert pairs == moved
        assert all(
            found[one] == found[two]
            for one in range(len(texts))
            for two in range(len(texts))
            if texts[one] == texts[two]
        )


@given(strategies.plain.filter(lambda text: len(text.split()) > 3), st.data())
def test_a_disguised_copy_is_a_copy(text, data):
    other = data.draw(st.sampled_from(disguised(text)))
    texts = ["something else altogether", text, other]
    assert duplicates.copies(texts)[1] == duplicates.copies(texts)[2]
    assert duplicates.together(texts)[1] == duplicates.together(texts)[2]


@given(st.lists(strategies.texts, max_size=8), st.data())
def test_distinct_rows_are_the_first_of_equals_without_contradictions_by_a_slow_reference(texts, data):
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(texts), max_size=len(texts)))
    same = duplicates.same(texts).tolist()
    firsts = [place for place in range(len(texts)) if same.index(same[place]) == place]
    agreed = [
        place
        for place in firsts
        if len({labels[other] for other in range(len(texts)) if same[other] == same[place]}) == 1
    ]
    assert duplicates.distinct(texts).tolist() == firsts
    assert duplicates.distinct(texts, labels).tolist() == agreed


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_clusters_are_the_chains_of_pairs_by_a_slow_reference(pairs):
    found = duplicates.clusters(
        10, np.array([p[0] for p in pairs], dtype=int), np.array([p[1] for p in pairs], dtype=int)
    )
    reach = [{n} for n in range(10)]
    for _ in range(10):
        for one, two in pairs:
            together = reach[one] | reach[two]
            for member in together:
                reach[member] = together
    assert all((found[one] == found[two]) == (two in reach[one]) for one in range(10) for two in range(10))


# --- groups ---


@given(
    st.lists(
        st.one_of(st.none(), st.sampled_from(["Ann", "ann ", "BOB", "bob", "", " ", "\u00fc"]), strategies.texts),
        max_size=12,
    )
)
def test_equal_groups_have_equal_numbers_and_a_missing_one_is_its_own(groups):
    found = group_columns.numbers(groups)
    for one, first in enumerate(groups):
        for two, second in enumerate(groups):
            if one != two and not (group_columns.key(first) and group_columns.key(second)):  # blank, or "NULL"
                assert found[one] != found[two]
            elif first == second:
                assert found[one] == found[two]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=10), st.data())
def test_chained_numbers_are_those_of_the_finest_common_coarsening(first, data):
    second = data.draw(st.lists(st.integers(0, 4), min_size=len(first), max_size=len(first)))
    found = group_columns.chained(np.array(first), np.array(second))
    links = [
        (one, two)
        for one in range(len(first))
        for two in range(len(first))
        if first[one] == first[two] or second[one] == second[two]
    ]
    wanted = duplicates.clusters(len(first), *np.array(links).T)
    assert len({*zip(found, wanted, strict=True)}) == len({*found}) == len({*wanted})


TWO_ROWS = dataset(["a", "b"], [0, 1])


@given(strategies.texts)
@example(" ")
@example("\u200b")
def test_the_sealed_test_split_is_opened_with_a_reason_and_each_is_recorded(why):
    sealed = splits.Splits(TWO_ROWS, TWO_ROWS, TWO_ROWS, 0)
    assert sealed.sizes["test"] == 2
    assert "_test" not in repr(sealed)
    if not why.strip():
        with pytest.raises(BadInput, match="with a reason"):
            sealed.open_test(why)
        assert sealed.openings == []
        return
    sealed.open_test(why)
    sealed.check_test(lambda test: None)
    assert sealed.openings == [why]
