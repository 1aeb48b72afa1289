import numpy as np
import pandas as pd
import pytest

from ftlab.data.audit import audit, first_rows
from ftlab.data.audit.basics import normalise_label, usual_spellings
from ftlab.errors import BadInput

from .planted import changed, opinions, reviews, table


def test_missing_and_blank_values_are_both_missing():
    frame = changed(changed(reviews(), "text", {3: None, 4: " \t\n"}), "label", {6: np.nan, 7: ""})
    report = audit(frame)
    assert report["missing_text"].rows == ("r3", "r4")
    assert report["missing_label"].rows == ("r6", "r7")


def test_a_row_that_lacks_both_is_listed_twice():
    frame = changed(changed(reviews(), "text", {3: None}), "label", {3: None})
    report = audit(frame)
    assert report["missing_text"].rows == report["missing_label"].rows == ("r3",)


def test_few_rows_are_reported_below_three_hundred():
    assert "few_rows" in audit(opinions(298))
    assert "few_rows" not in audit(opinions(300))


def test_rows_without_a_text_do_not_count_as_rows():
    assert audit(changed(opinions(300), "text", {5: None}))["few_rows"].count == 299


@pytest.mark.parametrize(
    ("slip", "usual"),
    [
        ("Good", "good"),
        (" good", "good"),
        ("go od", "good"),
        ("\uff47\uff4f\uff4f\uff44", "good"),
        ("1.0", "1"),
        ("-1.00", "-1"),
        ("CAFE\u0301", "caf\u00e9"),
        ("g\u043eod", "good"),
        ("go\u200bod", "good"),
        ("\ufeffgood", "good"),
        ("'good'", "good"),
        ("\u201cgood\u201d", "good"),
        ("good.", "good"),
        ("g&#111;od", "good"),
    ],
)
def test_a_slip_is_mapped_to_the_usual_spelling(slip, usual):
    assert usual_spellings(pd.Series([usual, usual, slip, "bad"])) == {slip: usual}


@pytest.mark.parametrize(
    ("slip", "usual"),
    [
        ("caf\u00e9", "cafe"),
        ("sch\u00f6n", "schon"),
        ("Ma\u00dfe", "Masse"),
        ("us", "US"),
        ("\u0441\u043e\u0440", "cop"),
    ],
)
def test_a_spelling_that_may_be_a_word_of_its_own_is_a_slip_only_if_it_is_rare(slip, usual):
    assert usual_spellings(pd.Series([usual] * 10 + [slip, "bad"])) == {slip: usual}
    even = changed(reviews(), "label", {row: (usual, slip)[row % 2] for row in range(18)})
    assert "label_slip" not in audit(even)
    found = audit(even)["similar_labels"]
    assert (found.severity, found.count) == ("warning", 9)
    assert found.what.startswith(f"9 rows: {slip!r} and {usual!r}")


@pytest.mark.parametrize(("one", "other"), [
        ("\u00b2", "2"), ("\u0131", "i"), ("o", "O"), ("\u039f", "\u041e"), ("NN.", "NN"), ("5'", "5''"), ("5'", '5"'),
        ("A'", "A"),
    ],
)  # fmt: skip
def test_labels_of_one_character_and_signs_of_tags_are_neither_slips_nor_similar(one, other):
    report = audit(changed(reviews(), "label", {row: (one, other)[row % 2] for row in range(18)}))
    assert not {"label_slip", "similar_labels"} & {found.id for found in report.findings}


@pytest.mark.parametrize(
    ("dirty", "plain"),
    [("'good'", "good"), ("1.0", "1"), ("pos.", "pos"), ("g\u043eod", "good"), ("very  good", "very good")],
)
def test_of_spellings_that_are_about_as_frequent_the_plain_one_is_usual(dirty, plain):
    assert usual_spellings(pd.Series([dirty] * 10 + [plain] * 9 + ["bad"])) == {dirty: plain}


def test_letters_that_look_the_same_are_told_apart_in_the_message():
    usual, slip = "\u0410\u043d\u043d\u0430", "A\u043d\u043d\u0430"  # with a Latin A
    frame = changed(reviews(), "label", dict.fromkeys(range(18), usual) | {3: slip, 4: "Ben", 5: "Ben", 6: "Ben"})
    found = audit(frame)["label_slip"]
    assert found.what == f"1 row: {slip!r} instead of {usual!r} (look-alike letters: U+0041 for U+0410)"


def test_an_accent_that_is_a_character_of_its_own_is_told_in_the_message():
    usual, slip = "caf\u00e9", "cafe\u0301"
    frame = changed(reviews(), "label", dict.fromkeys(range(18), usual) | {3: slip, 4: "Ben", 5: "Ben", 6: "Ben"})
    told = f"{slip!r} instead of {usual!r} (the accents are characters of their own in one of them)"
    assert audit(frame)["label_slip"].what.endswith(told)


@pytest.mark.parametrize(("one", "other"), [
        ("1", "11"), ("1.5", "15"), ("1.5", "1"), ("-1", "1"), ("good", "goods"), ("1 star", "2 stars"), ("C", "C++"),
        ("+", "-"), (":)", ":("), ("a", "\u00e1"), ("p\u00e9ch\u00e9", "p\u00eache"), ("y", "t"), ("<p>", "<br>"),
    ],
)  # fmt: skip
def test_labels_that_mean_different_things_are_no_slip(one, other):
    assert usual_spellings(pd.Series([one, one, other])) == {}


@pytest.mark.parametrize(
    ("labels", "slips"),
    [
        (["True", "True", "False", "1"], {"1": "True"}),
        (["yes", "yes", "no", "y"], {"y": "yes"}),
        (["yes", "yes", "no", "no", "y", "maybe"], {"y": "yes"}),
        (["0", "0", "1", "1", "false"], {"false": "0"}),
        (["1", "2", "3", "true"], {}),
        (["t", "f", "n"], {}),
        (["x", "y", "z", "yes", "no"], {}),
        (["true", "1"], {}),
    ],
)
def test_other_names_of_yes_and_no_are_slips_where_all_labels_are_such_names(labels, slips):
    assert usual_spellings(pd.Series(labels)) == slips


def test_the_spelling_of_most_rows_is_the_usual_one():
    labels = pd.Series(["Good"] * 3 + ["good"] * 2 + ["GOOD"] + ["bad"])
    assert usual_spellings(labels) == {"good": "Good", "GOOD": "Good"}


def test_usual_spellings_are_no_slips_themselves():
    labels = pd.Series(["Good", "good", "GOOD", " good", "1", "1.0", 1, 1.0, "bad", None])
    slips = usual_spellings(labels)
    assert not set(slips) & set(slips.values())
    assert all(normalise_label(slip) == normalise_label(usual) for slip, usual in slips.items())


def test_labels_all_written_in_one_way_have_no_slips():
    assert usual_spellings(reviews()["label"]) == {}
    assert usual_spellings(pd.Series([], dtype=object)) == {}


def test_each_slip_is_shown_with_the_usual_spelling():
    report = audit(changed(reviews(), "label", {5: "Positive", 6: "NEGATIVE"}))
    assert report["label_slip"].what == "2 rows: 'Positive' instead of 'positive', 'NEGATIVE' instead of 'negative'"
    assert report["label_slip"].evidence["usual"].tolist() == ["positive", "negative"]


def test_labels_of_two_types_are_audited():
    frame = changed(reviews(), "label", {row: row % 2 for row in range(17)} | {17: "1"})
    found = audit(frame)["label_slip"]
    assert found.rows == ("r17",)
    assert "(" not in found.what  # both look the same and have the same letters


def test_labels_of_a_categorical_column_are_audited_where_one_is_missing():
    frame = changed(reviews(), "label", {5: None})
    frame["label"] = frame["label"].astype("category")
    assert audit(frame)["missing_label"].rows == ("r5",)


def test_a_category_that_no_row_has_is_no_class():
    frame = reviews()
    frame["label"] = pd.Categorical(frame["label"], categories=["negative", "neutral", "positive"])
    assert [found.id for found in audit(frame).findings] == ["few_rows"]


def test_one_class_is_reported_with_its_name():
    found = audit(table(["x y", "y z"], ["good", "good"]))["one_class"]
    assert (found.severity, found.what) == ("error", "all 2 rows have the label 'good'")


def test_rows_that_all_lack_a_text_or_a_label_are_refused():
    with pytest.raises(BadInput, match="no row has both a text and a label"):
        audit(table(["x y", None], [None, "good"]))


def test_a_class_of_two_rows_is_too_small_and_one_of_three_is_not():
    assert audit(changed(reviews(), "label", {5: "mixed", 9: "mixed"}))["tiny_class"].rows == ("r5", "r9")
    assert "tiny_class" not in audit(changed(reviews(), "label", {5: "mixed", 9: "mixed", 12: "mixed"}))


def test_rows_without_a_text_do_not_fill_a_class():
    frame = changed(reviews(), "label", {5: "mixed", 9: "mixed", 12: "mixed"})
    assert audit(changed(frame, "text", {5: " "}))["tiny_class"].rows == ("r9", "r12")


def test_imbalance_warns_only_above_five_to_one():
    texts = [f"film {number}" for number in range(60)]
    assert "imbalance" not in audit(table(texts, (["a"] * 5 + ["b"]) * 10))
    uneven = audit(table([*texts, "one more"], (["a"] * 5 + ["b"]) * 10 + ["a"]))
    assert uneven["imbalance"].what == "a has 5.1 times as many rows as b"


def test_rows_sorted_by_label_are_an_error_and_shuffled_ones_are_not():
    frame = reviews(200).sort_values("label", kind="stable")
    assert audit(frame)["sorted_by_label"].severity == "error"
    assert "the label changes once" in audit(frame)["sorted_by_label"].what
    assert "sorted_by_label" not in audit(frame.sample(frac=1, random_state=0))


def test_rows_in_long_blocks_of_a_label_are_sorted_too():
    frame = reviews(200).assign(label=(["a"] * 10 + ["b"] * 10) * 10)
    assert "the first 10 rows are all a" in audit(frame)["sorted_by_label"].what
    assert "sorted_by_label" not in audit(reviews(200).assign(label=["a", "b"] * 100))


def test_a_handful_of_rows_has_no_order():
    for rows, found in ((40, True), (10, False)):
        frame = reviews(rows).assign(label=["a"] * (rows // 2) + ["b"] * (rows // 2))
        assert ("sorted_by_label" in audit(frame)) == found


@pytest.mark.parametrize("seed", range(8))
def test_shuffled_rows_are_not_reported_as_sorted(seed):
    labels = np.random.default_rng(seed).permutation(["a"] * 30 + ["b"] * 6)
    assert "sorted_by_label" not in audit(table([f"film {row}" for row in range(36)], labels))


def test_a_small_class_at_the_end_is_not_sorted():
    frame = reviews(200).assign(label=["a"] * 190 + ["b", "a"] * 5)
    assert "sorted_by_label" not in audit(frame)


def test_the_first_rows_of_a_sorted_file_are_one_class():
    counts = first_rows(reviews(200).sort_values("label"), [10, 150, 200])
    assert counts["negative"].tolist() == [10, 100, 100]
    assert counts["positive"].tolist() == [0, 50, 100]


def test_the_first_rows_of_a_short_file_are_all_of_them():
    assert first_rows(reviews(10), [500]).loc[500].sum() == 10
