"""A representative part of a source: in its order, with all classes, the same each time."""

import pandas as pd
import pytest

from ftlab.data import sources, tasks
from ftlab.data.subsets import LEAST, spread


def table(**counts) -> pd.DataFrame:
    """A file that is sorted by its column `kind`."""
    return pd.DataFrame([{"kind": kind, "number": number} for kind, count in counts.items() for number in range(count)])


@pytest.mark.parametrize("most", [0, 40, 41])
def test_nothing_is_left_out_where_all_fits_or_all_is_wanted(most):
    whole = table(a=30, b=10)
    assert spread(whole, most, by="kind").equals(whole)


def test_each_class_keeps_its_share_and_the_file_its_order():
    part = spread(table(a=3000, b=1000), 200, by="kind")
    assert part["kind"].value_counts().to_dict() == {"a": 150, "b": 50}
    assert part.index.is_monotonic_increasing
    assert part["number"].iloc[[0, 149]].tolist() == [0, 2999]  # from its first to its last


def test_a_rare_class_is_there_and_whole_where_it_is_small():
    part = spread(table(a=5000, b=LEAST + 1, c=2), 100, by="kind")
    assert part["kind"].value_counts().to_dict() == {"a": 100, "b": LEAST, "c": 2}


def test_many_classes_are_all_there_though_they_are_more_rows():
    part = spread(table(**{f"class {number}": 100 for number in range(77)}), 200, by="kind")
    assert set(part["kind"].value_counts()) == {LEAST}


def test_rows_without_a_class_are_rows_too():
    rows = pd.DataFrame({"kind": ["a", None] * 100, "number": range(200)})
    assert spread(rows, 20, by="kind")["kind"].isna().sum() == 10


def test_a_part_of_a_source_says_of_how_many_rows_it_is_and_keeps_their_ids():
    whole, part = sources.read("tickets"), sources.read("tickets", most=100)
    assert set(part["label"]) == set(whole["label"])
    assert set(part["id"]) <= set(whole["id"])
    assert part.attrs["provenance"].origin.endswith(f", {len(part)} of its {len(whole)} rows")
    assert whole.attrs["provenance"].origin == "shipped with ftlab"
    loaded = sources.load("tickets", most=100)
    assert sorted(loaded["train"]["id"]) == sorted(part["id"])


def test_a_file_that_judges_is_read_in_part_as_well(reviews_csv):
    loaded = sources.load(
        str(reviews_csv),
        test_dataset=str(reviews_csv),
        text_column="body",
        label_column="verdict",
        most=20,
    )
    assert {name: len(part) for name, part in loaded.items()} == {"train": 20, "test": 20}


def test_a_task_is_read_in_part_with_rows_of_each_kind():
    part = tasks.part("tutor", 200)
    assert 195 <= len(part) <= 200 + 3 * LEAST
    assert part["kind"].value_counts().min() >= LEAST
    assert set(part["kind"]) == set(tasks.read("tutor")["kind"])


def test_rows_that_may_not_be_drawn_are_passed_over_and_no_other_draw_moves():
    sizes = {"rows": 100, "validation_rows": 10, "test_rows": 20}
    before = tasks.load("tutor", **sizes)
    never = [name for name in tasks.read("tutor")["id"] if name not in ids_of(before)][:5]
    assert ids_of(tasks.load("tutor", **sizes, without=never)) == ids_of(before)
    drawn = ids_of(before)[3]
    after = ids_of(tasks.load("tutor", **sizes, without=[drawn]))
    assert drawn not in after
    assert len(set(after) & set(ids_of(before))) >= len(after) - 5


def test_sizes_shrink_to_the_rows_that_may_be_drawn():
    names = tasks.read("summaries")["id"].tolist()
    splits = tasks.load("summaries", rows=None, validation_rows=40, test_rows=90, at_most=True, without=names[50:])
    assert splits.sizes == {"train": 30, "validation": 10, "test": 10}


def ids_of(splits) -> list[str]:
    return [*splits.train["id"], *splits.validation["id"], *splits.open_test("compare draws")["id"]]
