"""Files that cannot be audited are one sentence that names what is wrong; odd ones that can be, are."""

import json

import pandas as pd
import pytest

from ftlab import cli
from ftlab.data import sources
from ftlab.data.audit import audit
from ftlab.errors import BadInput

from .planted import reviews, table, tokenizer

HEADER = "text,label\n"
FINE = HEADER + "".join(f"review number {row} of a film,{'good' if row % 2 else 'bad'}\n" for row in range(20))


def write(tmp_path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def lines(rows) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def ids(report) -> set[str]:
    return {found.id for found in report.findings}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.csv", "body,label\na,b\n", "no column 'text'; it has body, label"),
        ("other.csv", "text,verdict\na,b\n", "no column 'label'; it has text, verdict"),
        ("other.jsonl", '{"body": "a", "verdict": 1}\n', "no column 'text'; it has body, verdict"),
        ("empty.csv", "", "is empty"),
        ("empty.jsonl", "", "is empty"),
        ("empty.parquet", b"", "is empty"),
        ("lines.csv", "\n\n\n", "cannot be read as csv"),
        ("header.csv", HEADER, "has a header but no rows"),
        ("header.tsv", "text\tlabel\n", "has a header but no rows"),
        ("one.csv", HEADER + "a film,good\n", "has one row"),
        ("unlabelled.csv", HEADER + "a film,\nanother,\n", "none of the 2 rows has a label; is it the right column"),
        ("silent.csv", HEADER + ",good\n ,bad\n", "none of the 2 rows has a text; is it the right column"),
        ("null.jsonl", lines([{"text": "a", "label": None}] * 2), "none of the 2 rows has a label"),
        (
            "ids.csv",
            HEADER + "".join(f"film {row},id-{row}\n" for row in range(20)),
            "20 different labels in 20 rows",
        ),
        ("numbers.csv", HEADER + "1,a\n2.5,b\n", "column 'text', contains numbers, not text .the first is 1."),
        (
            "numbers.jsonl",
            lines([{"text": row, "label": "a"} for row in (7, 8)]),
            r"contains int\w*, not text .the first is 7",
        ),
        ("nested.jsonl", lines([{"text": {"a": 1}, "label": "a"}] * 2), "column 'text', contains dict, not text"),
        (
            "latin.csv",
            (HEADER + "café,good\n").encode("latin-1"),
            r"is not UTF-8 \(line 2 has the byte 0xe9\); save it as UTF-8",
        ),
        ("latin.jsonl", '{"text": "café", "label": "a"}'.encode("latin-1"), "is not UTF-8"),
        ("wide.csv", FINE.encode("utf-16"), "is a binary file; expected text in UTF-8"),
        ("ragged.csv", HEADER + "a,b\nc,d,e,f\n", "cannot be read as csv .*line 3"),
        ("commas.csv", HEADER + "a film, a good one,good\nanother, a bad one,bad\n", "cannot be read as csv"),
        ("quote.csv", HEADER + '"a film,good\nanother,bad\n', "cannot be read as csv"),
        ("broken.jsonl", lines([{"text": "a", "label": "b"}]) + '\n\n{"text": "cut', "line 3: not JSON"),
        ("list.jsonl", lines([{"text": "a", "label": "b"}, ["a", "b"]]), "line 2: expected an object"),
        ("deep.jsonl", "[" * 100_000, "line 1"),
        ("blank.jsonl", "\n\n", "no rows"),
        ("binary.csv", bytes(range(256)) * 10, "is a binary file"),
        ("binary.jsonl", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is a binary file"),
        ("torn.parquet", b"PAR1 and no more", "cannot be read as parquet"),
        ("table.xlsx", b"PK\3\4", "is not a file type"),
        ("table", "text,label\na,b\n", "is not a file type"),
    ],
)
def test_a_file_that_cannot_be_audited_is_one_sentence_that_names_it(tmp_path, name, content, message):
    file = write(tmp_path, name, content)
    with pytest.raises(BadInput, match=message) as raised:
        audit(sources.read(file))
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [1, 2], "label": [0, 1]}, "column 'text', contains int, not text"),
        ({"text": [0.5, 1.5], "label": ["a", "b"]}, "column 'text', contains float, not text"),
        ({"text": [b"a", b"b"], "label": ["a", "b"]}, "column 'text', contains bytes, not text"),
        ({"body": ["a", "b"], "label": ["a", "b"]}, "no column 'text'; it has body, label"),
        ({"text": [], "label": []}, "has a header but no rows"),
    ],
    ids=["integers", "floats", "bytes", "columns", "no rows"],
)
def test_a_parquet_file_without_texts_is_one_sentence_that_names_it(tmp_path, columns, message):
    path = tmp_path / "table.parquet"
    pd.DataFrame(columns).to_parquet(path)
    with pytest.raises(BadInput, match=message) as raised:
        audit(sources.read(str(path)))
    assert "\n" not in str(raised.value)
    assert "table.parquet" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("body,verdict\na,b\n", "test.csv has no column 'text'; it has body, verdict"),
        ("", "test.csv is empty"),
        (HEADER, "test.csv has a header but no rows"),
        (
            HEADER + "a film,good\nanother,ugly\n",
            "the test row test.csv-00001 has the label 'ugly', which no training row",
        ),
        (HEADER + "1,good\n2,bad\n", "test.csv, column 'text', contains numbers, not text"),
    ],
)
def test_test_rows_that_do_not_fit_are_one_line_that_names_them(tmp_path, capsys, content, message):
    train, test = write(tmp_path, "train.csv", FINE), write(tmp_path, "test.csv", content)
    assert cli.main(["audit", train, "--test", test]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert err.startswith("ftlab: ")


def test_strange_test_labels_are_told_with_those_that_are_known():
    with pytest.raises(BadInput, match="has the label 'ugly', which no training row has; they have negative, positive"):
        audit(reviews(), test=table(["a film"], ["ugly"], "t"))


def test_test_rows_without_a_label_are_looked_at_for_leakage():
    assert "leakage" in audit(reviews(), test=table([reviews()["text"][4]], [None], "t"))


def test_a_table_of_other_columns_is_told_with_its_columns():
    with pytest.raises(BadInput, match="the training table lacks the columns label; it has id, text"):
        audit(reviews()[["id", "text"]])
    with pytest.raises(BadInput, match="the test table lacks the columns id; it has text, label"):
        audit(reviews(), test=reviews()[["text", "label"]])


def test_a_table_of_no_rows_or_of_one_is_told_apart():
    with pytest.raises(BadInput, match="the training table has no rows"):
        audit(reviews(0))
    with pytest.raises(BadInput, match="the training table has one row"):
        audit(reviews(1))
    with pytest.raises(BadInput, match="the validation table has no rows"):
        audit(reviews(), validation=reviews(0))


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a", None, "b"]])
def test_an_id_that_names_no_row_or_two_is_one_sentence(ids):
    with pytest.raises(BadInput, match=r"the training table: the id .* is missing or occurs twice"):
        audit(reviews(3).assign(id=ids))


def test_ids_that_are_numbers_name_rows_as_well():
    frame = reviews().assign(id=range(18))
    frame.loc[3, "text"] = None
    assert audit(frame)["missing_text"].rows == ("3",)


@pytest.mark.parametrize("value", [7, 1.5, ["a", "list"], b"bytes"])
def test_a_text_that_is_none_is_told_with_its_row(value):
    frame = reviews()
    frame.at[3, "text"] = value
    with pytest.raises(BadInput, match=r"the training table: the text of row r3 is .*; expected a string") as raised:
        audit(frame)
    assert "\n" not in str(raised.value)


def test_half_a_character_is_told_with_its_row():
    """A text that was cut between the two codes of an emoji, which no file in UTF-8 can hold."""
    frame = reviews()
    frame.loc[3, "text"] = "a good film \ud83d"
    with pytest.raises(BadInput, match="r3"):
        audit(frame)


def test_half_a_character_in_a_file_is_one_sentence(tmp_path):
    rows = [{"text": text, "label": "a"} for text in ("a film", "a good film \ud83d")]
    with pytest.raises(BadInput, match=r"half\.jsonl") as raised:
        audit(sources.read(write(tmp_path, "half.jsonl", lines(rows))))
    assert "\n" not in str(raised.value)


def test_other_columns_of_a_table_are_left_alone():
    frame = reviews().assign(split="mine", row=1, similarity="high")
    report = audit(frame)
    assert ids(report) == {"few_rows"}
    assert report.table.frame["split"].tolist() == ["mine"] * 18


def test_a_table_is_named_by_its_file():
    frame = sources.read("mini_reviews")
    with pytest.raises(BadInput, match=r"^mini_reviews: none of the 200 rows has a label"):
        audit(frame.assign(label=None))


def test_a_folder_and_a_file_that_is_not_there_are_told_apart(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadInput, match=r"folder\.csv is a folder"):
        sources.read(str(tmp_path / "folder.csv"))
    with pytest.raises(BadInput, match=r"there is no file .*nowhere\.csv"):
        sources.read(str(tmp_path / "nowhere.csv"))


def test_instruction_data_in_a_file_that_cannot_be_used_is_one_sentence(tmp_path):
    file = write(tmp_path, "pairs.csv", "instruction,output\na,b\n")
    with pytest.raises(BadInput, match="no column 'input'; it has instruction, output") as raised:
        sources.read_pairs(file, prompt_columns=["instruction", "input"], completion_column="output")
    assert "pairs.csv" in str(raised.value)


# --- odd, and fine ---


def test_one_class_is_a_finding(tmp_path):
    file = write(tmp_path, "one.csv", HEADER + "a film,good\nanother,good\n")
    assert audit(sources.read(file))["one_class"].severity == "error"


@pytest.mark.parametrize(
    ("values", "labels"),
    [([0, 1], ["0", "1"]), ([1.0, 2.0], ["1", "2"]), ([0.5, 1.5], ["0.5", "1.5"]), ([True, False], ["False", "True"])],
    ids=["integers", "whole floats", "floats", "booleans"],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_labels_that_are_no_strings_are_classes(tmp_path, suffix, values, labels):
    path = tmp_path / f"table.{suffix}"
    frame = pd.DataFrame({"text": reviews(40)["text"], "label": values * 20})
    frame.to_parquet(path) if suffix == "parquet" else path.write_text(
        lines(frame.to_dict("records")), encoding="utf-8"
    )
    assert audit(sources.read(str(path))).classes.index.tolist() == labels


def test_whole_numbers_with_a_gap_stay_whole_numbers(tmp_path):
    rows = [{"text": text, "label": None if row == 7 else row % 2} for row, text in enumerate(reviews(40)["text"])]
    report = audit(sources.read(write(tmp_path, "gap.jsonl", lines(rows))))
    assert report.classes.index.tolist() == ["0", "1"]
    assert report["missing_label"].rows == ("gap.jsonl-00007",)


def test_labels_1_and_one_in_quotes_are_a_slip(tmp_path):
    rows = [{"text": text, "label": "1" if row == 7 else row % 2} for row, text in enumerate(reviews(40)["text"])]
    found = audit(sources.read(write(tmp_path, "mixed.jsonl", lines(rows))))["label_slip"]
    assert found.rows == ("mixed.jsonl-00007",)
    assert "1 as str" in found.what


def test_a_categorical_column_of_a_parquet_file_is_audited(tmp_path):
    frame = pd.DataFrame({"text": reviews(40)["text"], "label": reviews(40)["label"]})
    frame.loc[7, "label"] = None
    frame.astype({"label": "category"}).to_parquet(tmp_path / "table.parquet")
    report = audit(sources.read(str(tmp_path / "table.parquet")))
    assert report["missing_label"].rows == ("table.parquet-00007",)


def test_a_byte_order_mark_is_no_part_of_the_rows(tmp_path):
    report = audit(sources.read(write(tmp_path, "bom.csv", FINE.encode("utf-8-sig"))))
    assert report.table.frame["text"][0] == "review number 0 of a film"
    assert "control_characters" not in report
    rows = lines([{"text": text, "label": label} for text, label in zip("abcd", "xyxy", strict=True)])
    assert sources.read(write(tmp_path, "bom.jsonl", rows.encode("utf-8-sig")))["text"].tolist() == list("abcd")


def test_line_ends_of_windows_are_line_ends(tmp_path):
    plain, windows = (
        sources.read(write(tmp_path, f"{name}.csv", content))
        for name, content in (("plain", FINE), ("windows", FINE.replace("\n", "\r\n")))
    )
    assert windows[["text", "label"]].equals(plain[["text", "label"]])


def test_texts_over_several_lines_and_with_commas_are_whole(tmp_path):
    file = write(tmp_path, "quoted.csv", HEADER + '"so, a film\nand a ""good"" one",good\nanother,bad\n')
    assert sources.read(file)["text"].tolist() == ['so, a film\nand a "good" one', "another"]


def test_a_text_of_ten_megabytes_is_audited(tmp_path):
    frame = reviews()[["text", "label"]]
    frame.loc[7, "text"] = "sentences " * 1_000_000
    frame.to_csv(tmp_path / "long.csv", index=False)
    report = audit(sources.read(str(tmp_path / "long.csv")))
    assert report.lengths["characters"].max() == 10_000_000
    assert len(report.html()) < 1_000_000


def test_ten_megabytes_without_a_space_are_audited():
    frame = reviews()
    for text in ("x" * 10_000_000, "<" * 300_000, "@" * 300_000, "0 " * 100_000):
        frame.loc[7, "text"] = text
        assert audit(frame).lengths["characters"].max() == len(text)


def test_texts_of_a_character_or_of_symbols_are_audited():
    frame = reviews()
    frame.loc[[3, 4, 5, 6], "text"] = ["x", "🙂", "…", "\u200b"]
    assert "control_characters" in audit(frame, tokenizer=tokenizer("tiny-gpt2"), max_length=64)


def test_two_rows_are_audited():
    assert ids(audit(table(["a film", "another"], ["good", "bad"]))) == {"tiny_class", "few_rows"}


def test_test_rows_whose_labels_lack_the_decimals_of_training_are_judged_by_the_same_names(tmp_path):
    """Stars: a file with 0.5 has the name 1.0, and one with whole stars alone has 1."""
    for name, stars in (("train", (0.5, 1.0, 2.0, 2.5)), ("test", (1.0, 2.0))):
        rows = [{"text": f"a film of {name} number {n}, quite long", "label": stars[n % len(stars)]} for n in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train, test = (sources.read(str(tmp_path / f"{name}.jsonl")) for name in ("train", "test"))
    assert set(test["label"]) == {"1", "2"}
    assert audit(train, test=test).table.texts["label"].nunique() == 4
