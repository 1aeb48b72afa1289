import pandas as pd
import pytest

from ftlab.data import normalisation
from ftlab.data.audit import audit, audit_instructions
from ftlab.data.audit.large import audit_file
from ftlab.data.words import Words

from .planted import changed, copied, edited, reviews, table

FOX = (
    "the quick brown fox jumped over the lazy dog near the old river bank today while birds sang loudly above us all "
    "and nobody noticed the quiet rain"
)


def with_words(text: str, words: dict[int, str]) -> str:
    said = text.split()
    for place, word in words.items():
        said[place] = word
    return " ".join(said)


LINK = with_words(FOX, {0: "one", 2: "red", 6: "a"})  # near to FOX and to FAR, which are not near to each other
FAR = with_words(LINK, {14: "yesterday", 18: "softly", 25: "the"})
LIKE_FOX = with_words(FOX, {26: "soft"})


def judging(texts, label="positive", prefix="t") -> pd.DataFrame:
    return table(texts, [label] * len(texts), prefix)


def jaccard(one: str, other: str) -> float:
    words = Words.of([one, other])
    first, second = (set(words.bigrams(row).tolist()) for row in (0, 1))
    return len(first & second) / len(first | second)


# --- copies ---


def test_an_exact_copy_is_listed_with_its_first_and_the_first_is_not():
    frame = copied(copied(reviews(), 15, of=4), 16, of=4)
    found = audit(frame)["exact_duplicates"]
    assert found.rows == ("r15", "r16")
    assert found.evidence["copy_of"].tolist() == ["r4", "r4"]


def test_a_copy_with_other_case_or_white_space_is_counted_apart_from_exact_ones():
    frame = copied(copied(reviews(), 15, of=4), 16, of=4, rewrite=lambda text: f"  {text.upper()} ")
    report = audit(frame)
    assert report["exact_duplicates"].rows == ("r15",)
    assert report["normalised_duplicates"].rows == ("r16",)
    assert report["normalised_duplicates"].evidence["copy_of"].tolist() == ["r4"]


def test_a_near_duplicate_is_found_with_its_first_copy():
    frame = copied(reviews(), 15, of=4, rewrite=edited)
    found = audit(frame)["near_duplicates"]
    assert found.rows == ("r15",)
    assert found.evidence["near"].tolist() == ["r4"]
    assert found.evidence["similarity"].tolist() == [
        pytest.approx(jaccard(frame["text"][4], frame["text"][15]), abs=0.001)
    ]


def test_exact_copies_are_no_near_duplicates():
    assert "near_duplicates" not in audit(copied(reviews(), 15, of=4))
    assert "normalised_duplicates" not in audit(copied(reviews(), 15, of=4))


def test_copies_are_found_on_rows_without_a_label():
    frame = changed(copied(reviews(), 15, of=4), "label", {4: None, 15: None})
    report = audit(frame)
    assert report["exact_duplicates"].rows == ("r15",)
    assert "conflicting_labels" not in report


def test_rows_without_a_text_are_no_copies_of_each_other():
    assert "exact_duplicates" not in audit(changed(reviews(), "text", {3: "", 4: "", 5: None, 6: None}))


def test_texts_without_a_word_are_copies_only_if_they_are_equal():
    frame = changed(reviews(), "text", {3: "!!!", 4: "???", 5: "!!!"})
    report = audit(frame)
    assert report["exact_duplicates"].rows == ("r5",)
    assert "normalised_duplicates" not in report
    assert "near_duplicates" not in report


def test_a_copy_with_other_punctuation_is_a_near_duplicate():
    report = audit(copied(reviews(), 15, of=4, rewrite=lambda text: text.replace(".", "!")))
    assert report["near_duplicates"].rows == ("r15",)
    assert report["near_duplicates"].evidence["similarity"].tolist() == [1.0]


def test_texts_that_differ_only_in_a_smiley_do_not_conflict():
    frame = changed(reviews(), "text", {0: "great :)", 1: "great :("})
    assert "conflicting_labels" not in audit(frame)


def test_a_chain_of_near_duplicates_is_one_cluster():
    frame = changed(reviews(), "text", {10: FOX, 12: LINK, 14: FAR})
    found = audit(frame)["near_duplicates"]
    assert found.rows == ("r12", "r14")
    assert "clusters: 1" in found.what


def test_the_reported_similarity_is_that_of_the_two_rows():
    frame = changed(reviews(), "text", {10: FOX, 12: LINK, 14: FAR})
    texts = frame.set_index("id")["text"]
    for line in audit(frame)["near_duplicates"].evidence.itertuples():
        assert line.similarity == pytest.approx(jaccard(texts[line.id], texts[line.near]), abs=0.001)


def test_near_duplicates_among_training_rows_do_not_depend_on_the_test_rows():
    """A test row that is near to two training rows does not bring them closer together."""
    frame = changed(reviews(), "text", {10: FOX, 12: LIKE_FOX, 14: FAR})
    alone, judged = audit(frame), audit(frame, test=judging([LINK]))
    assert alone["near_duplicates"].rows == ("r12",)
    assert judged["near_duplicates"].rows == alone["near_duplicates"].rows


# --- conflicting labels ---


def test_equal_texts_with_different_labels_are_an_error_that_names_all_rows():
    frame = copied(copied(reviews(), 15, of=4, label="negative"), 16, of=4, rewrite=str.upper)
    found = audit(frame)["conflicting_labels"]
    assert (found.severity, found.rows) == ("error", ("r4", "r15", "r16"))
    assert found.evidence["label"].tolist() == ["positive", "negative", "positive"]
    assert "texts: 1" in found.what


def test_equal_texts_with_one_label_do_not_conflict():
    assert "conflicting_labels" not in audit(copied(reviews(), 15, of=4))


def test_a_copy_without_a_label_does_not_conflict():
    assert "conflicting_labels" not in audit(changed(copied(reviews(), 15, of=4), "label", {15: None}))


def test_the_rows_of_one_text_stand_together_in_the_evidence_of_a_conflict():
    frame = copied(copied(reviews(), 15, of=4, label="negative"), 16, of=5, label="negative")
    frame = changed(frame, "label", {4: "positive", 5: "positive"})
    assert audit(frame)["conflicting_labels"].evidence["id"].tolist() == ["r4", "r15", "r5", "r16"]


def test_near_duplicates_with_different_labels_are_listed_with_both_labels():
    frame = copied(reviews(), 15, of=4, rewrite=edited, label="negative")
    found = audit(frame)["conflicting_near_labels"]
    first = found.evidence.iloc[0]
    assert set(found.rows) == {"r4", "r15"}
    assert {(first["id"], first["label"]), (first["near"], first["near_label"])} == {
        ("r4", "positive"),
        ("r15", "negative"),
    }


def test_of_near_duplicates_the_ones_with_the_rarer_label_conflict():
    frame = copied(copied(reviews(), 15, of=4, rewrite=edited), 16, of=4, rewrite=lambda text: edited(edited(text)))
    frame = changed(frame, "text", {17: frame["text"][4].replace("Slow", "Long")})
    assert audit(changed(frame, "label", {17: "negative"}))["conflicting_near_labels"].rows == ("r17",)


def test_each_conflict_is_listed_with_a_near_text_that_has_another_label():
    frame = changed(reviews(), "text", {10: FOX, 12: LINK, 14: FAR})
    frame = changed(frame, "label", {10: "positive", 12: "negative", 14: "positive"})
    evidence = audit(frame)["conflicting_near_labels"].evidence
    texts = frame.set_index("id")["text"]
    for line in evidence.itertuples():
        assert line.label != line.near_label
        assert line.similarity == pytest.approx(jaccard(texts[line.id], texts[line.near]), abs=0.001)


def test_near_duplicates_with_one_label_do_not_conflict():
    assert "conflicting_near_labels" not in audit(copied(reviews(), 15, of=4, rewrite=edited))


@pytest.mark.parametrize("rewrite", [str, edited])
def test_two_spellings_of_one_label_do_not_conflict(rewrite):
    found = {each.id for each in audit(copied(reviews(), 15, of=4, rewrite=rewrite, label="Positive ")).findings}
    assert "label_slip" in found
    assert not {"conflicting_labels", "conflicting_near_labels"} & found


def test_two_spellings_of_one_label_do_not_conflict_in_a_file_read_in_pieces(tmp_path):
    frame = copied(copied(reviews(40), 15, of=4, label="Positive "), 16, of=5, label="negative")
    frame = changed(frame, "label", {4: "positive", 5: "positive"})
    frame.drop(columns="id").to_csv(tmp_path / "rows.csv", index=False)
    report = audit_file(str(tmp_path / "rows.csv"))
    assert "label_slip" in report
    assert report["conflicting_labels"].rows == ("rows.csv-00005", "rows.csv-00016")


def test_a_conflict_beside_another_spelling_is_listed_with_the_labels_as_they_are_written():
    frame = copied(copied(reviews(), 15, of=4, label="Positive"), 16, of=4, label="negative")
    assert audit(frame)["conflicting_labels"].evidence["label"].tolist() == ["positive", "Positive", "negative"]


def test_of_near_duplicates_two_spellings_of_a_label_outnumber_another_label():
    frame = copied(copied(reviews(), 15, of=4, label="Positive"), 16, of=4, rewrite=edited, label="negative")
    assert audit(frame)["conflicting_near_labels"].rows == ("r16",)


# --- leakage ---


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_training_text_in_a_judging_split_is_leakage(split):
    report = audit(reviews(), **{split: judging(["another thing", reviews()["text"][4].upper()])})
    assert report["leakage"].rows == ("t1",)
    evidence = {"id": "t1", "split": split, "copy_of": "r4", "differs_in": "case, width or white space"}
    assert report["leakage"].evidence.iloc[0].to_dict() == evidence


def test_a_near_copy_of_a_training_text_in_the_test_rows_is_near_leakage():
    report = audit(reviews(), test=judging(["another thing", edited(reviews()["text"][4])]))
    assert report["near_leakage"].rows == ("t1",)
    assert report["near_leakage"].evidence["near"].tolist() == ["r4"]
    assert "leakage" not in report


def test_a_validation_text_in_the_test_rows_is_leakage():
    text = "a text of its own"
    report = audit(reviews(), validation=judging([text], prefix="v"), test=judging([text]))
    assert report["leakage"].rows == ("t0",)
    assert report["leakage"].evidence["copy_of"].tolist() == ["v0"]


def test_a_text_in_all_splits_leaks_from_the_training_rows():
    text = reviews()["text"][4]
    report = audit(reviews(), validation=judging([text], prefix="v"), test=judging([text]))
    assert report["leakage"].evidence["copy_of"].tolist() == ["r4", "r4"]
    assert report["leakage"].what == "a copy of a text from an earlier split in 2 rows of validation and test"


def test_each_copy_in_the_test_rows_leaks():
    text = reviews()["text"][4]
    assert audit(reviews(), test=judging([text, text.lower(), "something else"]))["leakage"].rows == ("t0", "t1")


def test_each_near_copy_in_the_test_rows_leaks():
    text = edited(reviews()["text"][4])
    assert audit(reviews(), test=judging([text, text, "something else"]))["near_leakage"].rows == ("t0", "t1")


def test_copies_within_the_test_rows_are_no_leakage():
    report = audit(reviews(), test=judging(["a text of its own", "a text of its own"]))
    assert "leakage" not in report
    assert "exact_duplicates" not in report


def test_rows_of_two_splits_with_the_same_ids_get_different_ids():
    report = audit(reviews(), test=reviews(5))
    assert report["leakage"].rows == tuple(f"test/r{row}" for row in range(5))
    assert report["leakage"].evidence["copy_of"].tolist() == [f"r{row}" for row in range(5)]


def test_test_rows_of_their_own_do_not_leak():
    report = audit(reviews(18), test=reviews(60).iloc[18:])
    assert "leakage" not in report
    assert "near_leakage" not in report


def test_a_training_row_without_a_label_leaks_as_well():
    text = reviews()["text"][4]
    report = audit(changed(reviews(), "label", {4: None}), test=judging([text]))
    assert report["leakage"].rows == ("t0",)


def test_a_test_row_without_a_label_leaks_as_well():
    assert audit(reviews(), test=judging([reviews()["text"][4]], label=None))["leakage"].rows == ("t0",)


# --- disguised copies, templates and parts ---

TOLD = "Dear {}, the parcel with your {} books has left our house and will be with you in {} days."


@pytest.mark.parametrize(
    ("rewrite", "said"),
    [
        (lambda text: text.replace("o", "\u043e"), "look-alike letters"),
        (lambda text: text.replace("e", "e\u200b"), "invisible characters"),
        (lambda text: text.upper().replace("A", "\u00c4"), "accents"),
        (lambda text: text.replace(" ", ""), "spaces"),
        (lambda text: f"<p>{text}</p>".replace("a", "&#97;"), "HTML entities, HTML tags"),
    ],
)
def test_a_disguised_copy_is_found_and_its_disguise_is_named(rewrite, said):
    frame = copied(reviews(), 15, of=4, rewrite=rewrite)
    report = audit(frame)
    assert report["disguised_duplicates"].evidence.to_dict("records") == [
        {"id": "r15", "copy_of": "r4", "disguise": said}
    ]
    assert not {"normalised_duplicates", "near_duplicates", "contained_texts", "templates"} & {
        found.id for found in report.findings
    }


def test_a_disguised_copy_with_another_label_is_a_conflict():
    frame = copied(reviews(), 15, of=4, rewrite=lambda text: text.replace("e", "\u0435"), label="negative")
    assert audit(frame)["conflicting_labels"].rows == ("r4", "r15")


def test_a_disguised_copy_in_the_test_rows_is_leakage_and_says_how_it_differs():
    text = reviews()["text"][4].replace("e", "\u0435")
    found = audit(reviews(), test=judging(["something else", text]))["leakage"]
    assert found.evidence.to_dict("records") == [
        {"id": "t1", "split": "test", "copy_of": "r4", "differs_in": "look-alike letters"}
    ]


def test_a_prompt_in_disguise_leaks():
    prompts = reviews(20)["text"]
    frame = pd.DataFrame(
        {"id": [f"p{row}" for row in range(10)], "prompt": prompts[:10], "completion": prompts[10:].to_list()}
    )
    test = pd.DataFrame(
        {"id": ["t0"], "prompt": [prompts[3].replace(" ", "")], "completion": ["Something of its own."]}
    )
    assert audit_instructions(frame, test=test)["leakage"].rows == ("t0",)


def test_texts_of_a_template_are_listed_with_their_cluster_and_are_no_near_duplicates():
    texts = {3: TOLD.format("Ann", 3, 4), 5: TOLD.format("Bob Lee", 12, 9), 7: TOLD.format("Olga", 1, 2)}
    report = audit(changed(reviews(), "text", texts))
    found = report["templates"]
    assert (found.severity, found.rows) == ("info", ("r3", "r5", "r7"))
    assert found.evidence["cluster"].tolist() == [1, 1, 1]
    assert found.evidence["like"].tolist() == ["r5", "r3", "r3"]  # none is like itself
    assert found.evidence["differs_in"].tolist() == ["names and numbers"] * 3
    assert "clusters: 1" in found.what
    assert "near_duplicates" not in report
    assert "conflicting_near_labels" not in report


def test_a_template_on_both_sides_is_near_leakage():
    frame = changed(reviews(), "text", {3: TOLD.format("customer", 3, 4)})
    found = audit(frame, test=judging(["another thing", TOLD.format("customer", 88, 15)]))["near_leakage"]
    assert found.rows == ("t1",)
    assert found.evidence["differs_in"].tolist() == ["numbers"]


def test_a_part_of_a_text_is_listed_with_the_whole():
    whole = " ".join(reviews(80)["text"][30:33])
    words = whole.split()
    half = " ".join(words[len(words) // 4 : len(words) * 3 // 4])
    report = audit(changed(reviews(), "text", {5: half, 6: whole}))
    found = report["contained_texts"]
    assert found.rows == ("r5",)
    assert found.evidence["part_of"].tolist() == ["r6"]
    assert found.evidence["of_the_whole"].tolist() == [pytest.approx(0.5, abs=0.05)]
    assert "near_duplicates" not in report


def test_a_part_of_a_training_text_in_the_test_rows_is_near_leakage():
    whole = " ".join(reviews(80)["text"][30:33])
    frame = changed(reviews(), "text", {6: whole})
    found = audit(frame, test=judging(["another thing", whole[: len(whole) * 6 // 10]]))["near_leakage"]
    assert found.rows == ("t1",)
    assert "of the other text" in found.evidence["differs_in"][0]


def growing(chats: int = 8, turns: int = 4) -> pd.DataFrame:
    """Chats as pairs: each prompt has the earlier turns."""
    texts = iter(reviews(2 * chats * turns)["text"])
    rows = []
    for chat in range(chats):
        history = ""
        for turn in range(turns):
            prompt, answer = history + next(texts), next(texts)
            rows.append((f"chat{chat}-{turn}", prompt, answer))
            history = f"{prompt}\n{answer}\n"
    return pd.DataFrame(rows, columns=["id", "prompt", "completion"])


def test_pairs_of_a_growing_dialogue_are_no_near_duplicates_and_no_parts():
    frame = growing()
    report = audit_instructions(frame)
    found = report["growing_dialogues"]
    assert found.severity == "info"
    assert found.count == 24
    assert found.evidence.iloc[2].to_dict() == {"id": "chat0-3", "goes_on_with": "chat0-2", "dialogue": 1}
    assert found.evidence["dialogue"].max() == 8
    assert not {"near_duplicates", "contained_texts", "growing_dialogues"} & {*report.repairable}


def test_a_training_pair_that_goes_on_with_a_test_row_is_leakage_and_no_growing_dialogue():
    frame = growing(4)
    report = audit_instructions(frame[1:].reset_index(drop=True), test=frame[:1])
    assert "chat0-1" not in report["growing_dialogues"].rows
    assert {"chat0-2", "chat0-3"} < {*report["growing_dialogues"].rows}
    assert "chat0-0" in report["near_leakage"].rows


def test_an_edited_copy_of_a_dialogue_is_a_near_duplicate_of_it():
    frame = growing(4)
    again = frame[frame["id"].str.startswith("chat1")].assign(
        id=lambda rows: "again-" + rows["id"], prompt=lambda rows: "Well, " + rows["prompt"]
    )
    found = audit_instructions(pd.concat([frame, again], ignore_index=True))["near_duplicates"]
    assert {row.rpartition("-")[0] for row in found.rows} == {"again-chat1"}


@pytest.mark.parametrize(("one", "other"), [
    ("great film \U0001f44d", "great film \U0001f44e"), ("C++", "C#"), ("-37", "37"), ("great", "great!"),
    ("I would go there again, and I would take them all", "I would go there again? And I would take them all"),
])  # fmt: skip
def test_short_texts_that_differ_in_punctuation_do_not_conflict(one, other):
    frame = changed(changed(reviews(), "text", {0: one, 1: other}), "label", {0: "positive", 1: "negative"})
    assert not {"conflicting_labels", "conflicting_near_labels"} & {found.id for found in audit(frame).findings}


def test_a_copy_without_accents_and_with_another_label_is_no_more_than_a_near_conflict():
    text = "Sch\u00f6ne Musik, gro\u00dfe Bilder und sehr viele fr\u00f6hliche Leute auf der B\u00fchne"
    frame = changed(reviews(), "text", {3: text, 5: normalisation.without_accents(text)})
    report = audit(changed(frame, "label", {3: "positive", 5: "negative"}))
    assert "conflicting_labels" not in report
    assert set(report["conflicting_near_labels"].rows) == {"r3", "r5"}
    assert report["disguised_duplicates"].rows == ("r5",)
