import pandas as pd
import pytest

from ftlab.data import sources
from ftlab.data.audit import audit, first_rows
from ftlab.errors import BadInput
from ftlab.models import loading


def table(texts, labels) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"r{number}" for number in range(len(texts))], "text": texts, "label": labels})


def clean(rows: int = 40) -> pd.DataFrame:
    return table([f"an opinion of film {number}" for number in range(rows)], ["a", "b", "b", "a"] * (rows // 4))


def test_clean_rows_give_no_finding():
    assert audit(clean()).findings == ()
    assert audit(sources.read("mini_reviews")).findings == ()


def test_rows_sorted_by_label_are_an_error_and_shuffled_ones_are_not():
    frame = clean().sort_values("label")
    assert audit(frame)["sorted_by_label"].severity == "error"
    assert "sorted_by_label" not in audit(frame.sample(frac=1, random_state=0))


def test_the_first_rows_of_a_sorted_file_are_one_class():
    counts = first_rows(clean().sort_values("label"), [10, 40])
    assert counts.loc[10].tolist() == [10, 0]
    assert counts.loc[40].tolist() == [20, 20]


def test_exact_and_normalised_duplicates_are_counted_apart_with_their_rows():
    frame = clean()
    frame.loc[5, "text"] = frame.loc[4, "text"]
    frame.loc[5, "label"] = frame.loc[4, "label"]
    frame.loc[8, "text"] = "AN OPINION, of film 7"
    frame.loc[8, "label"] = frame.loc[7, "label"]
    report = audit(frame)
    assert report["duplicate_text"].rows == ("r5",)
    assert report["near_identical_text"].rows == ("r8",)
    assert "conflicting_labels" not in report


def test_equal_texts_with_different_labels_are_an_error_that_names_both_rows():
    frame = clean()
    frame.loc[1, "text"] = frame.loc[0, "text"]
    finding = audit(frame)["conflicting_labels"]
    assert (finding.severity, finding.rows) == ("error", ("r0", "r1"))


def test_missing_and_blank_values_are_errors():
    frame = clean().astype({"text": object, "label": object})
    frame.loc[3, "text"] = None
    frame.loc[4, "text"] = "  "
    frame.loc[6, "label"] = None
    report = audit(frame)
    assert report["missing_text"].rows == ("r3", "r4")
    assert report["missing_label"].rows == ("r6",)


def test_imbalance_warns_above_five_to_one_and_not_at_it():
    texts = [f"film {number}" for number in range(60)]
    assert "imbalance" not in audit(table(texts, (["a"] * 5 + ["b"]) * 10))
    uneven = audit(table([*texts, "one more"], (["a"] * 5 + ["b"]) * 10 + ["a"]))
    assert uneven["imbalance"].severity == "warning"


def test_one_class_is_an_error():
    assert audit(table(["x", "y"], ["a", "a"]))["one_class"].severity == "error"


def test_markup_is_found_and_a_smaller_sign_is_not():
    frame = clean()
    frame.loc[0, "text"] = "good<br /><br />film"
    frame.loc[1, "text"] = "salt &amp; pepper"
    frame.loc[2, "text"] = "3 < 4 and 5 > 2, R&D; fine <sarcasm>"
    frame.loc[3, "text"] = "it&#x27;s &Eacute;lan"
    assert audit(frame)["markup"].rows == ("r0", "r1", "r3")


def test_lengths_are_those_of_the_tokenizer_and_truncation_names_the_rows():
    tokenizer = loading.tokenizer("tiny-distilbert")
    frame = clean()
    frame.loc[7, "text"] = "word " * 100
    report = audit(frame, tokenizer=tokenizer, max_length=64)
    counted = [len(tokenizer(text)["input_ids"]) for text in frame["text"]]
    assert report.lengths["tokens"].tolist() == counted
    assert report["truncation"].rows == ("r7",)


def test_a_report_has_a_face_for_the_terminal_the_notebook_and_programs():
    frame = clean()
    frame.loc[0, "text"] = frame.loc[3, "text"] = "<b>dull</b>"
    report = audit(frame)
    assert "duplicate_text" in str(report)
    assert "&lt;b&gt;" not in str(report)
    assert "markup" in report._repr_html_()
    assert len(repr(report)) < 2000  # a notebook stores it beside the HTML
    with pytest.raises(KeyError, match="duplicate_text, markup"):
        report["leakage"]


def test_a_table_without_rows_or_columns_is_refused():
    with pytest.raises(BadInput, match="lacks the columns label"):
        audit(pd.DataFrame({"id": ["1"], "text": ["a"]}))
    with pytest.raises(BadInput, match="no rows"):
        audit(table([], []))
