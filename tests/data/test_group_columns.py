import copy
import json

import numpy as np
import pandas as pd
import pytest

from ftlab.data import group_columns, sources
from ftlab.data.audit import audit
from ftlab.errors import BadInput

ROWS = 60
WRITERS = [f"writer {number % 12}" for number in range(ROWS)]


def found(labels=None, **columns) -> group_columns.Candidates:
    ids = pd.Series([f"r{number}" for number in range(ROWS)])
    others = {name: pd.Series(values, dtype=object) for name, values in columns.items()}
    return group_columns.candidates(ids, others, None if labels is None else pd.Series(labels))


def saved(tmp_path, rows=ROWS, **columns):
    frame = pd.DataFrame({"text": [f"film number {n} was fine" for n in range(rows)]})
    frame["label"] = ["good" if n % 2 else "bad" for n in range(rows)]
    path = tmp_path / "rows.csv"
    frame.assign(**columns).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("name", ["author", "User_ID", "patientId", "product", "docid", "Session", "kunden_nr", "urls"])
def test_a_name_tells_that_a_column_has_groups(name):
    assert dict(found(**{name: WRITERS})) == {name: 12}


@pytest.mark.parametrize(
    "groups",
    [
        [5, 5, 6, None],
        [5.0, "5", 6, float("nan")],
        [np.int64(5), np.float64(5), np.int32(6), pd.NA],
        [True, np.bool_(True), False, None],
    ],
)
def test_groups_that_are_numbers_are_groups(groups):
    """So are those of a table that pandas read back from CSV."""
    assert group_columns.numbers(groups).tolist() == [0, 0, 1, 2]


def test_without_a_telling_name_few_values_with_many_rows_may_be_groups():
    assert dict(found(entry=WRITERS)) == {"entry": 12}
    assert found(entry=WRITERS).columns[0].telling is False


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("author", [f"writer {number}" for number in range(ROWS)]),  # an id
        ("author", ["ann"] * ROWS),
        ("author", ["ann", "bob"] * (ROWS // 2)),  # too few for three splits
        ("author", ["ann", "bob", "eve", *[None] * (ROWS - 3)]),
        ("entry", [f"pair {number // 2}" for number in range(ROWS)]),  # two rows each
        ("year", [str(1990 + number % 12) for number in range(ROWS)]),
        ("entry", [str(number % 12) for number in range(ROWS)]),  # numbers
        ("category", [f"kind {number % 12}" for number in range(ROWS)]),
        ("entry", [f"{number % 12} " + "a long text " * 20 for number in range(ROWS)]),
        ("author", [["ann"]] * ROWS),
    ],
)
def test_ids_numbers_texts_and_classes_are_no_groups(name, values):
    assert not found(**{name: values})


def test_the_label_in_other_words_is_no_group():
    labels = [f"l{number % 12 // 3}" for number in range(ROWS)]  # four labels, three values each
    assert not found(labels, entry=WRITERS)
    assert found(labels, author=WRITERS)  # the reviews of an author may all be of one label
    same = [f"person {label}" for label in labels]
    assert not found(labels, author=same)


def test_candidates_are_not_copied_with_a_table_and_their_json_is_short():
    candidates = found(author=WRITERS)
    assert copy.deepcopy(candidates) is candidates
    assert json.dumps(candidates) == '{"author": 12}'


def test_a_file_is_read_with_its_groups_as_text(tmp_path):
    path = saved(tmp_path, author=["007", " ", "7", *["9"] * (ROWS - 3)])
    frame = sources.read(path, group_column="author")
    assert frame["group"].tolist()[:4] == ["007", None, "7", "9"]
    assert frame.attrs["group_column"] == "author"
    assert list(sources.read(path).columns) == ["id", "text", "label"]


def test_loading_keeps_the_groups_and_as_frame_returns_them(tmp_path):
    loaded = sources.load(saved(tmp_path, author=WRITERS), group_column="author")["train"]
    frame = sources.as_frame(loaded).set_index("id")
    assert frame["group"].to_dict() == {f"rows.csv-{n:05d}": WRITERS[n] for n in range(ROWS)}


def test_a_column_that_looks_like_groups_is_kept_beside_the_rows(tmp_path):
    frame = sources.read(saved(tmp_path, author=WRITERS))
    assert dict(frame.attrs["group_candidates"]) == {"author": 12}
    frame.head(30).to_parquet(tmp_path / "part.parquet")  # attrs are saved as JSON


@pytest.mark.parametrize(
    ("columns", "group", "message"),
    [
        ({}, "author", "has no column 'author'; it has text, label; name a column whose rows belong together"),
        ({"author": ["ann"] * ROWS}, "author", "column 'author': all 60 rows have the same group"),
        ({"author": range(ROWS)}, "author", "column 'author': each of the 60 rows with a value has one of its own"),
        ({"author": ""}, "author", "column 'author': none of the 60 rows has a group"),
        ({}, "text", "the column 'text' has the texts or the labels"),
        ({}, "label", "the column 'label' has the texts or the labels"),
    ],
)
def test_a_column_that_cannot_be_of_groups_is_refused(tmp_path, columns, group, message):
    path = saved(tmp_path, **columns)
    for look in (sources.read, sources.load, sources.check):
        with pytest.raises(BadInput, match=message):
            look(path, group_column=group)


def test_rows_that_judge_may_be_of_one_group(tmp_path):
    path = saved(tmp_path, author="ann")
    assert set(sources.read(path, group_column="author", judging=True)["group"]) == {"ann"}


def test_a_value_a_row_is_refused_by_the_whole_file_and_not_by_a_part(tmp_path):
    path = saved(tmp_path, rows=200, author=[f"writer {number // 2}" for number in range(200)])
    assert len(sources.read(path, group_column="author", most=20)) == 20


@pytest.mark.parametrize("look", [sources.read, sources.load, sources.check])
def test_a_data_set_of_the_course_has_no_groups(look):
    with pytest.raises(BadInput, match="tickets is a data set of the course, and its rows have no groups"):
        look("tickets", group_column="author")


def test_pairs_and_conversations_are_read_with_groups(tmp_path):
    rows = [{"prompt": f"question {n}", "answer": "so", "doc": n // 2} for n in range(4)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    read = sources.read_pairs(
        str(tmp_path / "pairs.jsonl"), prompt_columns=["prompt"], completion_column="answer", group_column="doc"
    )
    assert read["group"].tolist() == ["0", "0", "1", "1"]
    turns = [{"role": "user", "content": "how?"}, {"role": "assistant", "content": "so."}]
    chats = [{"messages": turns, "doc": n // 2} for n in range(4)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)), encoding="utf-8")
    assert (
        sources.read_conversations(str(tmp_path / "chats.jsonl"), group_column="doc")["group"].tolist()[2:] == ["1"] * 2
    )
    with pytest.raises(BadInput, match="has the texts or the labels"):
        sources.read_conversations(str(tmp_path / "chats.jsonl"), group_column="messages")


def test_groups_are_equal_after_normalising_and_a_missing_one_stands_alone():
    groups = group_columns.numbers(["Ann", "ANN ", None, float("nan"), "", "bob"])
    assert groups.tolist() == [0, 0, 1, 2, 3, 4]
    assert group_columns.chained(groups, np.array([0, 1, 1, 2, 3, 3])).tolist() == [0, 0, 0, 1, 2, 2]


def test_a_whole_number_is_one_group_with_and_without_its_decimal_places():
    """Beside a missing value, pandas writes 12 as 12.0."""
    assert group_columns.numbers(["12", "12.0", " 12.00", "-3", "-3.0"]).tolist() == [0, 0, 0, 1, 1]
    assert group_columns.numbers(["1.2.0", "1.2", "v2.0", "v2", "12.5", "12.05", "10"]).tolist() == [*range(7)]
    with pytest.raises(BadInput, match="all 3 rows have the same group"):
        group_columns.require(pd.Series(["7", "7.0", "7"]), "rows")


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NULL", "NA", " n/a ", "<NA>", "#N/A"])
def test_a_word_for_a_missing_value_is_no_group(tmp_path, word):
    assert group_columns.numbers([word, "ann", word, "nano"]).tolist() == [0, 1, 2, 3]
    authors = [word if number % 2 else f"writer {number % 12}" for number in range(ROWS)]
    path = saved(tmp_path, author=authors)
    assert sources.read(path, group_column="author")["group"].tolist()[:3] == ["writer 0", None, "writer 2"]
    assert dict(found(author=authors)) == {"author": 6}
    assert audit(sources.read(path, group_column="author"))["group_column"].what.startswith(
        "the column 'author' has 6 groups of 5.0 rows on average, the largest of 5, 30 rows have none"
    )
    with pytest.raises(BadInput, match="none of the 60 rows has a group"):
        sources.read(saved(tmp_path, author=word), group_column="author")
