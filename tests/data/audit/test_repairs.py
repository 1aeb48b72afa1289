import json

import pandas as pd
import pytest

from ftlab.data import sources
from ftlab.data.audit import audit, audit_instructions, repairs
from ftlab.errors import BadInput

from .planted import EXAMPLES, changed, copied, edited, example, opinions, pairs, report, reviews, table

REPAIRABLE = [
    *repairs.REWRITES, *repairs.DROPS, *repairs.COPIES_IN_TRAINING, repairs.GROUPS_IN_TRAINING, "label_slip",
    "sorted_by_label",
]  # fmt: skip
REST = [finding_id for finding_id in EXAMPLES if finding_id not in REPAIRABLE]


# --- every repair ---


@pytest.mark.parametrize("finding_id", REPAIRABLE)
def test_a_repaired_finding_is_gone_in_the_next_audit(finding_id):
    repaired = report(finding_id).repair(finding_id)
    assert finding_id not in example(finding_id).audit(repaired.rows)


@pytest.mark.parametrize("finding_id", REPAIRABLE)
def test_the_log_has_a_line_for_each_row_that_was_dropped_or_changed(finding_id):
    before = example(finding_id).frame.set_index("id")
    repaired = report(finding_id).repair(finding_id)
    after = repaired.rows.set_index("id")
    log = repaired.log[repaired.log["id"] != "(all)"]
    dropped = set(before.index) - set(after.index)
    altered = {row for row in after.index if not after.loc[row].equals(before.loc[row])}
    assert set(log["id"][log["action"] == "dropped"]) == dropped
    assert set(log["id"][log["action"] == "changed"]) == altered
    assert set(repaired.log["finding"]) == {finding_id}
    assert len(repaired.log) > 0


@pytest.mark.parametrize("finding_id", REPAIRABLE)
def test_only_rows_of_the_finding_are_touched(finding_id):
    repaired = report(finding_id).repair(finding_id)
    touched = set(repaired.log["id"]) - {"(all)"}
    if finding_id in repairs.COPIES_IN_TRAINING:
        assert touched == {"r4"}  # the test row stays; its copy in training is dropped
    elif finding_id == repairs.GROUPS_IN_TRAINING:  # the training rows of the groups of the listed test rows
        assert touched.isdisjoint(report(finding_id)[finding_id].rows)
    else:
        assert touched <= set(report(finding_id)[finding_id].rows)


@pytest.mark.parametrize("finding_id", REPAIRABLE)
def test_a_repair_does_not_change_the_audited_rows(finding_id):
    planted = example(finding_id)
    given, audited = planted.frame.copy(), report(finding_id).table.frame.copy()
    report(finding_id).repair(finding_id)
    pd.testing.assert_frame_equal(planted.frame, given)
    pd.testing.assert_frame_equal(report(finding_id).table.frame, audited)


@pytest.mark.parametrize("finding_id", [each for each in REPAIRABLE if each != "sorted_by_label"])
def test_rows_stay_in_their_order(finding_id):
    order = example(finding_id).frame["id"].tolist()
    kept = report(finding_id).repair(finding_id).rows["id"].tolist()
    assert kept == [row for row in order if row in set(kept)]


@pytest.mark.parametrize("finding_id", REPAIRABLE)
def test_equal_repairs_give_equal_rows(finding_id):
    once, again = (report(finding_id).repair(finding_id, seed=7) for _ in range(2))
    pd.testing.assert_frame_equal(once.rows, again.rows)
    pd.testing.assert_frame_equal(once.log, again.log)


@pytest.mark.parametrize("finding_id", REST)
def test_a_finding_that_cannot_be_repaired_is_refused_with_what_to_do(finding_id):
    found = report(finding_id)[finding_id]
    with pytest.raises(BadInput, match=f"^{finding_id} cannot be repaired row by row") as raised:
        report(finding_id).repair(finding_id)
    assert found.todo in str(raised.value)


@pytest.mark.parametrize("finding_id", EXAMPLES)
def test_the_report_lists_what_can_be_repaired(finding_id):
    assert (finding_id in report(finding_id).repairable) == (finding_id in REPAIRABLE)


def test_a_finding_that_was_not_made_cannot_be_repaired():
    with pytest.raises(BadInput, match="found no 'markup'"):
        report("few_rows").repair("markup")


# --- each kind ---


def test_the_first_of_several_copies_is_kept():
    repaired = report("exact_duplicates").repair("exact_duplicates").rows
    assert "r4" in set(repaired["id"])
    assert "r15" not in set(repaired["id"])


def test_all_conflicting_rows_are_dropped():
    repaired = report("conflicting_labels").repair("conflicting_labels").rows
    assert not {"r4", "r15"} & set(repaired["id"])


def test_a_label_slip_gets_the_most_frequent_spelling():
    repaired = report("label_slip").repair("label_slip")
    assert set(repaired.rows["label"]) == {"positive", "negative"}
    assert repaired.log[["id", "from", "to"]].values.tolist() == [
        ["r5", "Positive", "positive"],
        ["r6", "negative ", "negative"],
    ]


def test_labels_of_two_types_in_a_file_are_one_after_repair(tmp_path):
    texts = enumerate(reviews()["text"])
    lines = [json.dumps({"text": text, "label": "1" if row == 7 else row % 2}) for row, text in texts]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines), encoding="utf-8")
    report = audit(sources.read(str(tmp_path / "mixed.jsonl")))
    assert report["label_slip"].rows == ("mixed.jsonl-00007",)
    assert "label_slip" not in audit(report.repair("label_slip").rows)


def test_the_log_has_a_changed_text_before_and_after():
    planted = example("entities")
    repaired = report("entities").repair("entities")
    before, after = planted.frame["text"][5], repaired.rows["text"][5]
    assert repaired.log.values.tolist() == [["r5", "entities", "changed", before, after]]
    assert after == "A film about a lighthouse & a storm's end and its keeper."


def test_sorted_rows_are_shuffled_and_none_is_lost():
    planted = example("sorted_by_label")
    rows = report("sorted_by_label").repair("sorted_by_label", seed=1).rows
    assert sorted(rows["id"]) == sorted(planted.frame["id"])
    assert rows["id"].tolist() != report("sorted_by_label").repair("sorted_by_label", seed=2).rows["id"].tolist()


def test_both_parts_of_instruction_data_are_repaired():
    frame = changed(changed(pairs(), "prompt", {3: "a <b>bold</b> one"}), "completion", {3: "<i>so</i> so"})
    repaired = audit_instructions(frame).repair("markup")
    assert repaired.rows.loc[3, ["prompt", "completion"]].tolist() == ["a bold one", "so so"]
    assert len(repaired.log) == 2


def test_several_findings_are_repaired_at_once():
    frame = copied(reviews(), 15, of=4)
    frame = changed(frame, "text", {5: None, 6: "so<br>good &amp; bad", 7: "ask jo@lighthouse-mail.de"})
    report = audit(frame)
    wanted = ["email_addresses", "markup", "entities", "missing_text", "exact_duplicates"]
    repaired = report.repair(wanted)
    assert set(repaired.log["finding"]) == set(wanted)
    assert not {found.id for found in audit(repaired.rows).findings} & set(wanted)


@pytest.mark.parametrize("order", [["entities", "markup"], ["markup", "entities"]])
def test_the_order_in_which_findings_are_named_does_not_matter(order):
    frame = changed(reviews(), "text", {6: "so<br>good &lt;b&gt;film&lt;/b&gt;"})
    assert audit(frame).repair(order).rows["text"][6] == "so good <b>film</b>"  # an escaped tag is text


def test_a_finding_that_is_named_twice_is_repaired_once():
    once, twice = (report("exact_duplicates").repair(["exact_duplicates"] * times) for times in (1, 2))
    pd.testing.assert_frame_equal(once.log, twice.log)


def test_without_named_findings_nothing_is_repaired():
    repaired = report("exact_duplicates").repair([])
    pd.testing.assert_frame_equal(repaired.rows, example("exact_duplicates").frame, check_dtype=False)
    assert repaired.log.empty


def test_a_repair_is_summed_up():
    assert repr(report("exact_duplicates").repair("exact_duplicates")) == (
        "17 rows after repair\nexact_duplicates: 1 dropped"
    )


def test_a_row_that_is_dropped_for_two_reasons_is_dropped_once():
    frame = changed(copied(reviews(), 15, of=4), "label", {15: None})
    repaired = audit(frame).repair(["missing_label", "exact_duplicates"])
    assert repaired.log["id"].tolist() == ["r15"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_repaired_rows_can_be_written_and_read_again(tmp_path, suffix):
    path = tmp_path / f"repaired.{suffix}"
    frame = sources.read("mini_reviews").head(18)
    frame.loc[5, "text"] = "so<br>good"
    rows = audit(frame).repair("markup").rows
    if suffix == "parquet":
        rows.to_parquet(path)
    elif suffix == "jsonl":
        rows.to_json(path, orient="records", lines=True)
    else:
        rows.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    assert sources.read(str(path))["text"].tolist() == rows["text"].tolist()


# --- copies of copies ---


def test_a_text_in_several_spellings_is_kept_once():
    frame = copied(copied(reviews(), 15, of=4, rewrite=str.upper), 16, of=4, rewrite=str.upper)
    assert "normalised_duplicates" not in audit(audit(frame).repair("normalised_duplicates").rows)


def test_copies_of_a_near_duplicate_are_dropped_with_it():
    frame = copied(copied(reviews(), 15, of=4, rewrite=edited), 16, of=4, rewrite=edited)
    assert "near_duplicates" not in audit(audit(frame).repair("near_duplicates").rows)


def test_copies_of_conflicting_near_duplicates_are_dropped_with_them():
    frame = copied(copied(reviews(), 15, of=4, rewrite=edited, label="negative"), 16, of=4)
    frame = copied(frame, 17, of=15)
    assert "conflicting_near_labels" not in audit(audit(frame).repair("conflicting_near_labels").rows)


def test_each_prompt_is_kept_once_though_its_answers_are_copies():
    frame = changed(pairs(), "prompt", {6: pairs()["prompt"][5], 7: pairs()["prompt"][5]})
    frame = changed(frame, "completion", {7: frame["completion"][6]})
    repaired = audit_instructions(frame).repair("duplicate_prompts")
    assert "duplicate_prompts" not in audit_instructions(repaired.rows)


SPOILT = {"refusal": "I'm sorry, but I can't help with that.", "empty_completion": " "}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("finding_id", SPOILT)
def test_a_prompt_is_kept_with_its_next_answer_if_the_first_is_dropped(finding_id, order):
    frame = changed(pairs(), "prompt", dict.fromkeys((6, 7), pairs()["prompt"][5]))
    report = audit_instructions(changed(frame, "completion", {5: SPOILT[finding_id]}))
    left = report.repair([finding_id, "duplicate_prompts"][::order]).rows
    assert {"r5", "r6", "r7"} & set(left["id"]) == {"r6"}
    assert "duplicate_prompts" not in audit_instructions(left)


def test_a_repair_that_leaves_no_prompt_to_compare_is_refused_as_one_that_drops_all_rows():
    said = [f"I'm sorry, but I can't help with {what}." for what in ("that", "this", "that")]
    frame = pairs(3).assign(completion=said)
    frame = changed(frame, "prompt", {1: frame["prompt"][0]})
    with pytest.raises(BadInput, match="would drop all 3 training rows"):
        audit_instructions(frame).repair(["refusal", "duplicate_prompts"])


def test_a_prompt_is_dropped_if_the_row_before_it_stays_though_the_first_is_dropped():
    frame = pairs().assign(group=["an author" if row in (5, 9) else None for row in range(20)])
    frame = changed(frame, "prompt", dict.fromkeys((6, 7), frame["prompt"][5]))
    frame = changed(frame, "completion", {6: frame["completion"][5]})  # as long as r5 is there, r6 repeats its answer
    test = pairs(40).tail(1).assign(group="an author")
    repaired = audit_instructions(frame, test=test).repair(["group_leakage", "duplicate_prompts"]).rows
    assert {"r5", "r6", "r7"} & set(repaired["id"]) == {"r6"}


def test_all_training_copies_of_a_leaked_row_are_dropped():
    frame = copied(copied(reviews(), 15, of=4), 16, of=4, rewrite=str.upper)
    test = table([reviews()["text"][4]], ["positive"], "t")
    repaired = audit(frame, test=test).repair("leakage")
    assert set(repaired.log["id"]) == {"r4", "r15", "r16"}
    assert "leakage" not in audit(repaired.rows, test=test)


def test_leakage_between_validation_and_test_cannot_be_repaired_in_the_training_rows():
    validation, test = (table(["a text of its own"], ["positive"], prefix) for prefix in "vt")
    with pytest.raises(BadInput, match="leakage is not between training and another split"):
        audit(reviews(), validation=validation, test=test).repair("leakage")


def test_a_class_that_is_spelt_right_again_is_not_dropped_as_tiny():
    frame = changed(reviews(), "label", {4: "Positive"})
    repaired = audit(frame).repair(["tiny_class", "label_slip"])
    assert len(repaired.rows) == 18
    assert set(repaired.rows["label"]) == {"positive", "negative"}


def test_of_conflicting_rows_those_with_another_spelling_of_one_label_are_kept():
    frame = copied(copied(reviews(), 15, of=4, label="Positive "), 16, of=5, label="negative")
    frame = changed(frame, "label", {4: "positive", 5: "positive"})
    repaired = audit(frame).repair(["label_slip", "conflicting_labels"])
    assert repaired.log[["id", "action"]].values.tolist() == [["r15", "changed"], ["r5", "dropped"], ["r16", "dropped"]]
    assert set(repaired.rows["label"]) == {"positive", "negative"}


SLIPS = [row for row, label in enumerate(opinions(400)["label"]) if label == "good" and row > 200][:12]


def test_a_row_that_was_doubted_for_the_spelling_of_its_label_is_kept():
    report = audit(changed(opinions(400), "label", dict.fromkeys(SLIPS, "Good")))
    assert set(report["likely_label_errors"].rows) == {f"r{row}" for row in SLIPS}
    repaired = report.repair(["label_slip", "likely_label_errors"])
    assert repr(repaired) == "400 rows after repair\nlabel_slip: 12 changed"


def test_a_row_with_a_wrong_label_is_dropped_beside_labels_in_another_spelling():
    wrong = {row: {"good": "bad", "bad": "good"}[opinions(400)["label"][row]] for row in range(10, 18)}
    report = audit(changed(opinions(400), "label", {**wrong, **dict.fromkeys(SLIPS, "Good")}))
    wanted = ["likely_label_errors", "label_slip"]
    log = report.repair(wanted).log
    assert set(log["id"][log["action"] == "dropped"]) == {f"r{row}" for row in wrong}
    pd.testing.assert_frame_equal(log, report.repair(wanted[::-1]).log)


def test_a_line_that_prompts_share_is_not_removed_as_boilerplate():
    frame = pairs()
    frame["prompt"] = "Say in one word what this review thinks.\n" + frame["prompt"]
    frame["completion"] = frame["completion"] + "\nThis is all that I have to say."
    repaired = audit_instructions(frame).repair("boilerplate").rows
    assert repaired["prompt"].tolist() == frame["prompt"].tolist()
    assert repaired["completion"].tolist() == pairs()["completion"].tolist()


def test_rows_of_other_files_with_the_same_name_are_told_apart(tmp_path):
    """An id has the file and the number of its row, and train/rows.csv is not test/rows.csv."""
    frame = reviews(30)[["text", "label"]]
    parts = {"train": frame.iloc[:18], "test": pd.concat([frame.iloc[18:25], frame.iloc[[15]], frame.iloc[25:]])}
    for folder, part in parts.items():
        (tmp_path / folder).mkdir()
        part.to_csv(tmp_path / folder / "rows.csv", index=False)
    train, test = (sources.read(str(tmp_path / folder / "rows.csv")) for folder in parts)
    repaired = audit(train, test=test).repair("leakage")
    assert repaired.log["id"].tolist() == [train["id"][15]]


def test_a_tokenizer_without_an_end_token_costs_no_rows():
    """The tokenizer is at fault, so dropping rows would not help."""
    with pytest.raises(BadInput, match="no_eos cannot be repaired"):
        report("no_eos").repair("no_eos")


def test_the_plain_copy_of_a_disguised_text_is_kept():
    frame = copied(reviews(), 15, of=4)
    frame = changed(frame, "text", {4: frame["text"][4].replace("e", "\u0435")})
    report = audit(frame)
    assert report["disguised_duplicates"].evidence[["id", "copy_of"]].values.tolist() == [["r4", "r15"]]
    repaired = report.repair("disguised_duplicates").rows
    assert repaired["text"].str.isascii().all()
    assert "r15" in set(repaired["id"])


WHOLE = " ".join(reviews(80)["text"][30:33])
HALF = " ".join(WHOLE.split()[: len(WHOLE.split()) * 6 // 10])


@pytest.mark.parametrize("order", [1, -1])
def test_a_part_of_a_text_stays_if_the_text_is_dropped(order):
    frame = changed(reviews(), "text", {5: WHOLE, 6: WHOLE, 7: HALF})
    frame = changed(frame, "label", {5: "positive", 6: "negative", 7: "positive"})
    report = audit(frame)
    left = report.repair(["conflicting_labels", "contained_texts"][::order]).rows["id"]
    assert {"r5", "r6", "r7"} & set(left) == {"r7"}
    assert "r7" not in set(report.repair("contained_texts").rows["id"])


def test_a_near_duplicate_stays_if_its_source_is_dropped():
    frame = copied(copied(reviews(), 15, of=4, rewrite=edited), 16, of=4)
    frame = changed(frame, "label", {4: "positive", 15: "positive", 16: "negative"})
    left = audit(frame).repair(["near_duplicates", "conflicting_labels"]).rows["id"]
    assert {"r4", "r15", "r16"} & set(left) == {"r15"}
