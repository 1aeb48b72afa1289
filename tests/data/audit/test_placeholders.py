"""Words in place of a missing value: found where nobody would write them, and left alone where they may be meant."""

import pandas as pd
import pytest

from ftlab.data import sources
from ftlab.data.audit import audit, audit_instructions

from .planted import changed, pairs, parted, reviews


def listed(report) -> tuple[str, ...]:
    return report["placeholder_texts"].rows if "placeholder_texts" in report else ()


def with_inputs(values: dict[int, str]) -> pd.DataFrame:
    frame = changed(parted(pairs()), "input", values)
    return frame.assign(prompt=sources.joined([frame["instruction"], frame["input"]], frame.index))


@pytest.mark.parametrize("word", ["nan", "NaN", " NAN ", "<NA>", "#N/A", "NaT"])
def test_a_word_that_only_software_writes_is_found_in_one_row(word):
    assert listed(audit_instructions(with_inputs({4: word}))) == ("r4",)
    assert listed(audit(changed(reviews(), "text", {5: word}))) == ("r5",)


@pytest.mark.parametrize("word", ["None", "null", "N/A", "undefined", "-", "\u2014", "NA"])
def test_a_word_that_people_write_too_is_found_if_it_repeats(word):
    assert listed(audit_instructions(with_inputs({4: word}))) == ()
    assert listed(audit_instructions(with_inputs({4: word, 6: word}))) == ("r4", "r6")
    assert listed(audit(changed(reviews(), "text", {5: word, 7: word}))) == ("r5", "r7")


@pytest.mark.parametrize(
    "text", ["nanotube", "None of them", "a nan", "nan nan", "-1", "N/A?", "Nat", "nil desperandum"]
)
def test_a_text_that_contains_such_a_word_among_others_is_a_text(text):
    assert listed(audit(changed(reviews(), "text", {5: text, 7: text}))) == ()
    assert listed(audit_instructions(with_inputs({4: text, 6: text}))) == ()


def test_none_is_a_placeholder_only_if_nearly_all_answers_differ():
    classes = pairs().assign(completion=["yes", "no", "None", "None"] * 5)
    assert listed(audit_instructions(classes)) == ()
    assert listed(audit_instructions(changed(pairs(), "completion", {4: "None"}))) == ()
    assert listed(audit_instructions(changed(pairs(), "completion", {4: "None", 6: "none"}))) == ("r4", "r6")
    # No class is called so.
    missing = pairs().assign(completion=["yes", "no", "nan", "nan"] * 5)
    assert listed(audit_instructions(missing)) == tuple(f"r{row}" for row in range(20) if row % 4 > 1)


def test_none_may_be_a_label_and_nan_is_not():
    labels = reviews()["label"].tolist()
    assert listed(audit(reviews().assign(label=["none", *labels[1:9], "none", *labels[10:]]))) == ()
    assert listed(audit(reviews().assign(label=["nan", *labels[1:9], "nan", *labels[10:]]))) == ("r0", "r9")


def test_each_column_that_a_prompt_is_joined_from_is_checked(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"question {row},title {row},{'nan' if row % 2 else f'body {row}'},answer {row}" for row in range(20)]
    path.write_text("\n".join(["q,title,body,a", *rows]), encoding="utf-8")
    for columns in (["q", "title", "body"], ["q", "body"]):
        frame = sources.read_pairs(str(path), prompt_columns=columns, completion_column="a")
        report = audit_instructions(frame)
        assert listed(report) == tuple(f"pairs.csv-{row:05d}" for row in range(1, 20, 2))
        assert "'nan' as input in 10" in report["placeholder_texts"].what
    # A prompt that comes whole is looked at line by line too; a text with a label is not.
    assert listed(audit_instructions(changed(pairs(), "prompt", {5: "Say it.\nnan"}))) == ("r5",)
    assert listed(audit(changed(reviews(), "text", {5: "a column of\nnan\nin it"}))) == ()


@pytest.mark.parametrize("word", ["NULL", "null", "N/A", "undefined", " NA "])
def test_a_class_that_is_called_like_a_missing_value_is_asked_about(word):
    frame = changed(reviews(), "label", {5: word, 7: word})
    found = audit(frame)["placeholder_labels"]
    assert (found.severity, found.rows) == ("info", ("r5", "r7"))
    assert found.what == f"a label that may stand for a missing one in 2 rows: {word!r}"
    assert listed(audit(frame)) == ()


@pytest.mark.parametrize("word", ["none", "-", "nil", "nullable"])
def test_a_class_of_another_name_is_not(word):
    assert "placeholder_labels" not in audit(changed(reviews(), "label", {5: word, 7: word}))


def test_an_answer_called_null_is_not_taken_for_a_label():
    assert "placeholder_labels" not in audit_instructions(changed(pairs(), "completion", {4: "NULL", 6: "NULL"}))
