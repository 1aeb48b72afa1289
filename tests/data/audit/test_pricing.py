import dataclasses

import numpy as np
import pandas as pd
import pytest

from ftlab.data.audit import ablations, audit, audit_instructions, pricing
from ftlab.errors import BadInput
from ftlab.intervals import Interval, paired
from tests.nightly import few_by_day

from .planted import (
    EXAMPLES,
    PLAIN,
    changed,
    copied,
    edited,
    example,
    opinions,
    pairs,
    report,
    reviews,
    table,
    tokenizer,
)

PRICED = [
    "exact_duplicates", "normalised_duplicates", "near_duplicates", "leakage", "near_leakage", "group_leakage",
    "group_column", "conflicting_labels", "conflicting_near_labels", "likely_label_errors", "sorted_by_label",
    "truncation", "token_shortcut", "length_shortcut",
    "shape_shortcut", "imbalance", "disguised_duplicates", "templates", "contained_texts",
    "markup", "entities", "mojibake", "control_characters", "email_addresses", "phone_numbers", "card_numbers",
    "bank_accounts", "national_ids", "ip_addresses", "secrets", "documentation_addresses",
    "boilerplate",
]  # fmt: skip
FREE = [finding_id for finding_id in EXAMPLES if finding_id not in PRICED]


def senseless(rows: int = 100, seed: int = 0) -> pd.DataFrame:
    """Rows with random labels: a model can only know a label if it has seen the row."""
    texts = [text for text in reviews(200)["text"] if len(text.split()) >= 12]
    return table(texts[:rows], np.random.default_rng(seed).permutation(["a", "b"] * (rows // 2)))


def again(frame: pd.DataFrame, rewrite=str) -> pd.DataFrame:
    """The rows, and a rewritten copy of each, shuffled."""
    twice = pd.concat([frame, frame.assign(id="again-" + frame["id"], text=frame["text"].map(rewrite))])
    return twice.sample(frac=1, random_state=0).reset_index(drop=True)


def of_test(frame: pd.DataFrame, rewrite=str) -> pd.DataFrame:
    return frame.assign(id="t-" + frame["id"], text=frame["text"].map(rewrite))


# --- every price ---


@pytest.mark.parametrize("finding_id", PRICED)
def test_a_price_is_the_difference_of_two_scores_within_its_interval(finding_id):
    price = report(finding_id).price(finding_id)
    assert 0 <= price.with_defect <= 1
    assert 0 <= price.without <= 1
    assert price.change.value == pytest.approx(price.with_defect - price.without)
    assert price.change.low <= price.change.value <= price.change.high
    assert price.finding == finding_id
    assert price.rows > 0


@pytest.mark.parametrize("finding_id", FREE)
def test_a_finding_without_a_price_is_refused_with_the_findings_that_have_one(finding_id):
    with pytest.raises(BadInput, match=f"^{finding_id} has no price") as raised:
        report(finding_id).price(finding_id)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_the_report_lists_what_can_be_priced(finding_id):
    assert (finding_id in report(finding_id).priceable) == (finding_id in PRICED)


def test_findings_of_instruction_data_have_no_price():
    report = audit_instructions(changed(pairs(), "prompt", {5: "a <b>bold</b> prompt"}))
    assert report.priceable == ()
    with pytest.raises(BadInput, match=r"markup has no price: .*; those with one: none"):
        report.price("markup")


def test_a_finding_that_was_not_made_has_no_price():
    with pytest.raises(BadInput, match="found no 'leakage'"):
        report("few_rows").price("leakage")


def test_findings_have_no_price_when_a_class_has_few_rows():
    frame = table([f"{text} <b>" for text in opinions(40)["text"]], ["a"] * 36 + ["b"] * 4)
    assert audit(frame).priceable == ()
    with pytest.raises(BadInput, match="markup has no price"):
        audit(frame).price("markup")


def test_equal_seeds_give_equal_prices():
    once, again = (example("exact_duplicates").audit().price("exact_duplicates", seed=seed) for seed in (3, 3))
    assert once == again


def test_the_order_of_pricing_does_not_change_the_prices():
    frame = changed(copied(opinions(), 15, of=4), "text", {7: "a <b>bold</b> film"})
    one, other = audit(frame), audit(frame)
    prices = {finding_id: one.price(finding_id) for finding_id in ("markup", "exact_duplicates")}
    assert prices == {finding_id: other.price(finding_id) for finding_id in ("exact_duplicates", "markup")}


def test_pricing_does_not_change_the_rows_or_the_report():
    planted = example("markup")
    frame, report = planted.frame.copy(), planted.audit()
    before = report.to_dict()
    report.price("markup")
    pd.testing.assert_frame_equal(planted.frame, frame)
    assert report.to_dict() == before


def test_a_price_prints_scores_rows_and_verdict():
    price = audit(senseless(), test=of_test(senseless().head(60))).price("leakage")
    lines = str(price).splitlines()
    assert lines[0].startswith("leakage: ")
    assert f"accuracy {price.with_defect:.3f} with it and {price.without:.3f} without, on 60 rows" in lines[1]
    assert lines[2].endswith("the defect inflates the score")
    assert "on the 60 affected rows alone" in lines[3]


# --- uncertainty ---


@pytest.mark.parametrize("finding_id", few_by_day(PRICED, *PRICED[::4]))
def test_the_interval_of_a_price_is_over_clusters_of_copies_and_not_over_rows(finding_id):
    found = report(finding_id)
    rows = ablations.select_rows(found.table, 0)
    judged = ablations.EXPERIMENTS[finding_id][1](found, rows, found[finding_id])
    assert len(judged.clusters) == len(judged.before) == len(judged.after)
    if judged.weight is None:
        compared = paired(judged.before, judged.after, groups=judged.clusters)
        assert found.price(finding_id).change == compared.difference


def test_copies_of_rows_do_not_narrow_the_interval_of_a_price():
    """Forty texts, five times each: two hundred rows with the information of forty."""
    frame = opinions().head(40)
    five = pd.concat([frame.assign(id=f"{copy}-" + frame["id"]) for copy in range(5)], ignore_index=True)
    price = audit(five).price("exact_duplicates")
    rows = ablations.select_rows(audit(five).table, 0)
    judged = ablations.EXPERIMENTS["exact_duplicates"][1](audit(five), rows, audit(five)["exact_duplicates"])
    assert price.rows == 200
    assert len(np.unique(judged.clusters)) == frame["text"].nunique()
    as_rows = paired(judged.before, judged.after).difference
    assert price.change.high - price.change.low > 1.3 * (as_rows.high - as_rows.low)


def test_clear_is_corrected_for_all_findings_that_can_be_priced(monkeypatch):
    frame = senseless()
    found = audit(frame, test=of_test(frame.head(10)))
    alone = found.price("leakage")
    assert alone.clear
    monkeypatch.setattr(pricing, "priceable", lambda report: ("leakage",) * 10_000)
    among_many = found.price("leakage")
    assert not among_many.clear
    assert among_many.change == alone.change


def test_a_price_says_why_a_change_is_not_clear_although_its_interval_excludes_zero(monkeypatch):
    frame = senseless()
    found = audit(frame, test=of_test(frame.head(10)))
    monkeypatch.setattr(pricing, "priceable", lambda report: ("leakage",) * 10_000)
    price = found.price("leakage")
    assert price.change.low > 0
    assert "no clear change (the interval excludes 0, but one of 10,000 prices may do so by chance)" in str(price)
    alone = dataclasses.replace(price, priceable=1)
    assert "too few rows changed for a test to agree" in str(alone)
    assert str(dataclasses.replace(price, change=Interval(0.1, -0.1, 0.3))).splitlines()[2].endswith("no clear change")


# --- the direction of each defect ---


def test_leakage_inflates_the_score():
    price = audit(senseless(), test=of_test(senseless().head(60))).price("leakage")
    assert price.clear
    assert price.change.low > 0


def test_near_leakage_inflates_the_score():
    price = audit(senseless(), test=of_test(senseless().head(60), edited)).price("near_leakage")
    assert price.clear
    assert price.change.low > 0


def test_leakage_inflates_the_score_of_the_leaked_rows_alone():
    frame = senseless(120)
    price = audit(frame.head(80), test=of_test(frame.iloc[40:])).price("leakage")
    count, with_defect, without = price.affected
    assert (price.rows, count) == (80, 40)
    assert with_defect > without
    assert 0 < price.change.value < with_defect - without


@pytest.mark.parametrize(
    ("finding_id", "rewrite"),
    [("exact_duplicates", str), ("normalised_duplicates", str.upper), ("near_duplicates", edited)],
)
def test_copies_inflate_the_score_of_a_random_split(finding_id, rewrite):
    price = audit(again(senseless(), rewrite)).price(finding_id)
    assert price.clear
    assert price.change.low > 0
    assert price.affected[0] == 200


def test_a_word_that_gives_the_label_away_inflates_the_score():
    frame = senseless()
    marked = frame["label"] == "a"
    frame.loc[marked, "text"] += " starfive"
    price = audit(frame).price("token_shortcut")
    assert price.clear
    assert price.change.low > 0.2


def test_a_verdict_that_is_cut_off_lowers_the_score():
    rng = np.random.default_rng(0)
    frame = opinions()
    frame["text"] = [" ".join(rng.choice(PLAIN, 40)) + " " + text for text in frame["text"]]
    price = audit(frame, tokenizer=tokenizer("tiny-distilbert"), max_length=32).price("truncation")
    assert price.clear
    assert price.change.high < -0.2
    assert "lowers the score" in str(price)


def test_the_top_of_a_sorted_file_lowers_the_score():
    price = audit(opinions().sort_values("label", kind="stable")).price("sorted_by_label")
    assert price.clear
    assert price.change.high < 0


def test_a_defect_of_a_single_row_has_no_clear_price():
    price = audit(changed(opinions(), "text", {5: "a <b>bold</b> film"})).price("markup")
    assert not price.clear
    assert "no clear change" in str(price)


def test_imbalance_is_priced_in_macro_recall():
    frame = opinions(400)
    rare = frame.index[frame["label"] == "good"][20:]
    price = audit(frame.drop(rare)).price("imbalance")
    assert price.score == "macro recall"
    assert price.change.value < 0
    assert price.affected[0] == 20


def test_conflicting_rows_are_judged_but_not_trained_on():
    frame = opinions()
    for row in range(0, 40, 2):
        frame = copied(frame, row, of=row + 1, label="good" if frame["label"][row + 1] == "bad" else "bad")
    price = audit(frame).price("conflicting_labels")
    assert price.rows == 200
    assert price.without >= price.with_defect


# --- too few rows to judge or train on ---


def test_leakage_has_no_price_if_all_training_rows_leak():
    """The same file is given as training and as test rows."""
    with pytest.raises(BadInput, match="leakage"):
        audit(reviews(), test=of_test(reviews())).price("leakage")


def test_leakage_has_no_price_if_no_test_row_has_a_label():
    with pytest.raises(BadInput, match="leakage"):
        audit(reviews(20), test=of_test(reviews(10)).assign(label=None)).price("leakage")


def test_copies_have_no_price_if_all_rows_are_copies():
    frame = table(["the very same text of more than eight words in each row"] * 40, ["a", "b"] * 20)
    with pytest.raises(BadInput, match="exact_duplicates"):
        audit(frame).price("exact_duplicates")


def test_conflicts_have_no_price_if_all_rows_conflict():
    one = reviews(40).assign(label=["a", "b"] * 20)
    other = one.assign(id="again-" + one["id"], label=["b", "a"] * 20)
    with pytest.raises(BadInput, match="conflicting_labels"):
        audit(pd.concat([one, other])).price("conflicting_labels")


def test_a_large_set_is_priced_on_a_part_that_has_all_classes(monkeypatch):
    monkeypatch.setattr(ablations, "MOST_ROWS", 60)
    rare = dict.fromkeys(range(0, 60, 10), "mixed")
    frame = changed(changed(opinions(), "label", rare), "text", {5: "a <b>bold</b> film"})
    price = audit(frame).price("markup")
    assert 60 <= price.rows <= 70
