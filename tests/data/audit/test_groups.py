import numpy as np
import pandas as pd
import pytest

from ftlab.data import group_columns
from ftlab.data.audit import audit, audit_instructions, groups
from ftlab.errors import BadInput

from .planted import by_authors, example, opinions, pairs, report, reviews


def pointed_out(frame: pd.DataFrame, **columns) -> str:
    """What is said of the columns beside the texts, as `sources.read` would keep them."""
    others = {name: pd.Series(values, dtype=object) for name, values in columns.items()}
    frame = frame.drop(columns="group", errors="ignore")
    frame.attrs["group_candidates"] = group_columns.candidates(frame["id"], others, frame["label"])
    found = audit(frame)
    return found["group_column"].what if "group_column" in found else ""


def test_a_split_by_rows_claims_more_than_one_by_groups():
    price = report("group_column").price("group_column")
    assert price.with_defect > 0.9
    assert price.without < 0.7
    assert price.clear
    assert "the defect inflates the score" in str(price)
    assert "a split by rows claims too much" in report("group_column")["group_column"].what


def test_groups_on_two_sides_are_listed_with_an_earlier_row_and_without_the_name_of_the_group():
    planted = example("group_leakage")
    found = report("group_leakage")["group_leakage"]
    assert found.rows == planted.rows
    assert list(found.evidence.columns) == ["id", "split", "same_group_as"]
    of = planted.frame.set_index("id")["group"]
    leaked = planted.given["test"].set_index("id")["group"][found.evidence["id"]]
    assert (of[found.evidence["same_group_as"]].to_numpy() == leaked.to_numpy()).all()
    assert not any(name in report("group_leakage").html() for name in {*leaked})
    assert report("group_leakage").price("group_leakage").change.value > 0.2


def test_the_training_rows_of_leaked_groups_are_dropped():
    planted = example("group_leakage")
    repaired = report("group_leakage").repair("group_leakage")
    leaked = set(planted.given["test"]["group"].tail(6))
    assert set(planted.frame["group"]) - set(repaired.rows["group"]) == leaked
    assert "group_leakage" not in audit(repaired.rows, **planted.given)


def test_groups_between_validation_and_test_are_not_repaired_in_training():
    frame = by_authors()
    parts = [frame[frame["group"] == "author 0"].iloc[part] for part in (slice(5), slice(5, None))]
    rest = frame[frame["group"] != "author 0"]
    found = audit(rest, validation=parts[0], test=parts[1])
    assert set(found["group_leakage"].rows) == set(parts[1]["id"])
    with pytest.raises(BadInput, match="group_leakage is not between training and another split"):
        found.repair("group_leakage")


def test_a_repair_that_would_leave_no_row_is_refused():
    frame = by_authors()
    found = audit(frame.head(120), test=frame.tail(120))
    with pytest.raises(BadInput, match=r"a repair of group_leakage would drop all 120 training rows; repair less"):
        found.repair("group_leakage")


def test_groups_that_are_apart_are_said_to_be():
    frame = by_authors()
    last = frame["group"].isin(["author 18", "author 19"])
    found = audit(frame[~last], test=frame[last])
    assert "group_leakage" not in found
    assert "none is in two splits" in found["group_column"].what


def test_a_telling_name_is_always_pointed_out_and_another_if_a_split_by_rows_claims_too_much():
    frame = by_authors()
    assert "the column 'author' has 24 groups of 10.0 rows" in pointed_out(frame, author=frame["group"])
    assert "'entry'" in pointed_out(frame, entry=frame["group"])
    drawn = np.random.default_rng(1).permutation(frame["group"])
    assert "'author'" in pointed_out(frame, author=drawn)
    assert pointed_out(frame, entry=drawn) == ""


def test_the_column_that_is_pointed_out_is_the_one_that_is_priced():
    frame = by_authors()
    others = {"entry": pd.Series(np.random.default_rng(1).permutation(frame["group"])), "other": frame["group"]}
    alone = frame.drop(columns="group")
    alone.attrs["group_candidates"] = group_columns.candidates(frame["id"], others, frame["label"])
    found = audit(alone)
    assert "'other'" in found["group_column"].what
    assert "'entry'" not in found["group_column"].what
    assert found.price("group_column").clear


def test_three_groups_and_many_classes_are_judged():
    frame = opinions(200).assign(group=[f"g{number % 3}" for number in range(200)])
    assert "3 groups of 66.7 rows" in audit(frame)["group_column"].what
    frame["label"] = [f"class {number % 40}" for number in range(200)]
    assert "a simple model is right" in audit(frame)["group_column"].what


def test_groups_of_too_few_rows_are_found_without_a_price():
    frame = reviews(8).assign(group=[f"g{number // 2}" for number in range(8)])
    found = audit(frame)
    assert "4 groups of 2.0 rows on average, the largest of 2" in found["group_column"].what
    assert "group_column" not in found.priceable


def test_groups_of_pairs_are_looked_at_without_a_model():
    frame = pairs(20).assign(group=[f"g{number // 4}" for number in range(20)])
    found = audit_instructions(frame.head(10), test=frame.tail(10))
    assert found["group_leakage"].rows == ("r10", "r11")
    assert "3 groups of 3.3 rows" in found["group_column"].what  # of the training rows
    assert "lesson" not in found["group_column"].todo


def test_training_rows_alone_are_counted():
    frame = by_authors()
    last = frame["group"].isin(["author 18", "author 19"])
    found = audit(frame[~last], test=frame[last])["group_column"]
    assert found.count == (~last).sum()
    assert "has 22 groups" in found.what


def test_a_group_that_is_the_label_is_not_judged_and_the_price_says_why():
    frame = opinions(100)
    found = audit(frame.assign(group=frame["label"]))
    why = "no two labels have several groups and 5 rows each, so no split by groups can be judged"
    assert found["group_column"].what.endswith(f": {why}")
    with pytest.raises(BadInput, match=f"group_column has no price: {why}; those with one"):
        found.price("group_column")


def test_rows_of_a_label_that_one_group_has_alone_are_left_out():
    frame = opinions(150)
    groups_of = frame["label"] + [f" {number % 4}" for number in range(150)]
    frame.loc[frame.index < 30, "label"] = "third"
    alone = audit(frame.assign(group=groups_of.where(frame["label"] != "third", "one")))
    assert alone.price("group_column").rows == 120


def test_a_model_that_knows_nothing_is_not_quoted_as_if_it_did():
    frame = reviews(200).assign(group=[f"g{number // 10}" for number in range(200)])
    frame["label"] = np.random.default_rng(0).permutation(["a", "b"] * 100)
    said = audit(frame)["group_column"].what
    assert "no better than by the most frequent label (50.0%): it cannot tell what a split by rows claims" in said
    assert "each group stays" not in said


def test_a_difference_that_chance_explains_is_called_none():
    frame = opinions().assign(group=[f"g{number // 10}" for number in range(200)])
    assert audit(frame)["group_column"].what.endswith("if each group stays on one side: no clear difference")


def test_the_next_step_is_one_that_is_left_to_do():
    frame = by_authors()
    named = audit(frame)["group_column"]
    assert named.todo.endswith("keep each on one side of the split: group_column in a lesson does so")
    frame.attrs["group_candidates"] = group_columns.candidates(frame["id"], {"author": frame["group"]}, frame["label"])
    found = audit(frame.drop(columns="group"))["group_column"]
    assert found.todo.endswith("does so, and --group in an audit shows which are in two splits")


@pytest.mark.parametrize(
    ("values", "message"),
    [("x", "all 18 rows have the same group"), (range(18), "each of the 18 rows"), (None, "none of the 18 rows")],
)
def test_groups_that_keep_nothing_together_are_refused(values, message):
    with pytest.raises(BadInput, match=message):
        audit(reviews().assign(group=values))


def test_groups_are_needed_in_every_table():
    frame = by_authors()
    with pytest.raises(BadInput, match="the training rows have a column 'group', and the test rows have none"):
        audit(frame, test=frame.drop(columns="group"))


def test_a_large_set_is_judged_in_whole_groups():
    of = np.arange(10_000) // 10
    part = groups._part(np.arange(10_000), of, 500, seed=0)
    assert 500 <= len(part) <= 510
    assert set(np.bincount(of[part])) == {0, 10}
    giant = groups._part(np.arange(10_000), np.arange(10_000) // 9_000, 500, seed=0)
    assert len(giant) == 1000
