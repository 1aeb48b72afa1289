"""Labels, texts and answers of files: one a row, null is missing, and no list is written as in Python."""

import datetime
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftlab.data import sources, streams, tasks, values
from ftlab.data.audit import audit
from ftlab.errors import BadInput

COUNT = 12
CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
TURNS = [*CHAT, *CHAT]


def write(path, **columns) -> str:
    """A file of these columns, each a list or one value for all rows."""
    count = max([len(column) for column in columns.values() if isinstance(column, Each)], default=COUNT)
    rows = [
        {name: column[row] if isinstance(column, Each) else column for name, column in columns.items()}
        for row in range(count)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class Each(list):
    """A value for each row."""


def refusal(look, *arguments, **options) -> str:
    with pytest.raises(BadInput) as raised:
        look(*arguments, **options)
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)
    return str(raised.value)


def there(column) -> list:
    """The values of a column, None where one is missing."""
    return [None if pd.isna(value) else value for value in column]


both = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
texts = Each(f"film number {row}" for row in range(COUNT))


# --- labels --------------------------------------------------------------------------------------------------------
@both
@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (
            ["billing", "delivery"],
            "the row own{0}-00003 has a list of 2 labels (billing, delivery); the lessons do no ",
        ),
        ([], "the row own{0}-00003 has a list of 0 labels (none); the lessons do no multi-label classification"),
        ([0, 2], "has a list of 2 labels (0, 2)"),
    ],
)
def test_several_labels_a_row_are_refused_and_told_what_does_them(tmp_path, suffix, odd, said):
    one = [odd[0]] if odd else ["other"]
    labels = Each([one] * COUNT)
    labels[3] = odd
    file = write(tmp_path / f"own{suffix}", text=texts, label=labels)
    for look in (sources.read, sources.load, sources.check):
        answer = refusal(look, file)
        assert said.format(suffix) in answer
        assert 'problem_type="multi_label_classification", whose loss is binary cross-entropy' in answer


@both
@pytest.mark.parametrize("label", [["good"], {"name": "good"}], ids=["list of one", "object"])
def test_a_label_in_a_list_or_an_object_is_refused_with_the_way_out(tmp_path, suffix, label):
    answer = refusal(sources.read, write(tmp_path / f"own{suffix}", text=texts, label=label))
    assert f"the label of the row own{suffix}-00000 is {'a list' if isinstance(label, list) else 'an object'}" in answer
    assert ("write the label itself" in answer) == isinstance(label, list)


def test_labels_in_bytes_are_refused(tmp_path):
    assert "is bytes (b'good')" in refusal(sources.read, write(tmp_path / "own.parquet", text=texts, label=b"good"))


def test_a_label_that_only_looks_like_a_list_is_a_text(tmp_path):
    labels = Each(["['a', 'b']", "[]"] * (COUNT // 2))
    assert sources.read(write(tmp_path / "own.jsonl", text=texts, label=labels))["label"].tolist() == labels


def test_a_table_of_ones_own_with_lists_as_labels_is_refused_by_the_audit():
    frame = pd.DataFrame({"id": range(4), "text": list("abcd"), "label": [["x"], ["y"], ["x", "y"], ["x"]]})
    assert "the row 2 has a list of 2 labels (x, y)" in refusal(audit, frame)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, None, 0], ["0", "1"]),
        ([2**53 + 1, None, 2**53], [str(2**53), str(2**53 + 1)]),  # equal as floats
        ([1.0, 2, 1], ["1", "2"]),
        ([1, 1.0, 2.5], ["1", "2.5"]),
        ([True, None, False], ["False", "True"]),
        ([datetime.date(2024, 1, 2), None, datetime.date(2024, 1, 3)], ["2024-01-02", "2024-01-03"]),
    ],
)
def test_labels_that_are_no_strings_are_what_the_file_says_beside_a_gap(tmp_path, labels, names):
    frame = pd.DataFrame({"text": (texts * 2)[:12], "label": pd.Series(labels * 4, dtype=object)})
    if all(isinstance(one, (int, float)) or one is None for one in labels):
        file = write(tmp_path / "own.jsonl", text=texts, label=Each(labels * 4))
    else:
        file = str(tmp_path / "own.parquet")
        frame.to_parquet(file)
    read = sources.read(file)["label"]
    assert sorted(read.dropna().unique()) == names
    assert read.isna().tolist() == [one is None for one in labels] * 4


# --- ClassLabel ----------------------------------------------------------------------------------------------------
NAMES = ["bad", "mixed", "good"]


def class_label(path, ids, names=NAMES, kind=None) -> str:
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"text": texts[: len(ids)], "label": pa.array(ids, kind)})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8()])
def test_the_names_of_a_class_label_are_the_labels(tmp_path, kind):
    ids = [0, 1, 2, 2, None, -1, 1, 0]
    read = sources.read(class_label(tmp_path / "own.parquet", ids, kind=kind))
    assert there(read["label"]) == ["bad", "mixed", "good", "good", None, None, "mixed", "bad"]
    loaded = sources.load(str(tmp_path / "own.parquet"), drop_incomplete=True)["train"]
    assert {NAMES[id] for id in ids if id is not None and id >= 0} == set(loaded.features["label"].names)


def test_a_class_label_as_datasets_itself_writes_it(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})
    Dataset.from_dict({"text": list(texts), "label": [0, 1, 2, 1] * 3}, features=features).to_parquet(
        tmp_path / "own.parquet"
    )
    assert sources.read(str(tmp_path / "own.parquet"))["label"].tolist() == ["bad", "mixed", "good", "mixed"] * 3


def test_a_test_file_is_judged_by_names_as_well(tmp_path):
    train = class_label(tmp_path / "train.parquet", [0, 1, 2] * 4)
    (tmp_path / "test.csv").write_text("text,label\na,good\nb,bad\n", encoding="utf-8")
    other_order = class_label(tmp_path / "other.parquet", [0, 1, 2], names=["good", "bad", "mixed"])
    for test, wanted in ((str(tmp_path / "test.csv"), ["bad", "good"]), (other_order, ["bad", "good", "mixed"])):
        frame = sources.as_frame(sources.load(train, test_dataset=test)["test"])
        assert sorted(frame["label"]) == wanted
    (tmp_path / "ids.csv").write_text("text,label\na,0\n", encoding="utf-8")
    said = refusal(sources.load, train, test_dataset=str(tmp_path / "ids.csv"))
    assert "has the label '0', which no training row has; they have bad, good, mixed" in said


@pytest.mark.parametrize("id", [3, -2])
def test_an_id_without_a_name_is_refused_with_its_row(tmp_path, id):
    said = refusal(sources.read, class_label(tmp_path / "own.parquet", [0, 1, id]))
    assert f"column 'label', row 3: the label {id} has no name; the file names 0 to 2 (bad, mixed, good)" in said


@pytest.mark.parametrize("metadata", [b"", b"{}", b"[1]", b'{"info": null}', b'{"info": {"features": {"label": 1}}}'])
def test_metadata_that_names_nothing_changes_nothing(tmp_path, metadata):
    table = pa.table({"text": list(texts), "label": [0, 1] * 6}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "own.parquet")
    assert sources.read(str(tmp_path / "own.parquet"))["label"].tolist() == ["0", "1"] * 6


# --- Parquet -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_any_kind_of_a_parquet_are_texts(tmp_path, kind):
    column = pa.array(["a film", None, "nan", ""], pa.string())
    pq.write_table(pa.table({"text": column.cast(kind), "label": ["x", "y"] * 2}), tmp_path / "own.parquet")
    assert there(sources.read(str(tmp_path / "own.parquet"))["text"]) == ["a film", None, "nan", ""]


def test_a_column_that_pandas_kept_as_an_index_is_a_column(tmp_path):
    frame = pd.DataFrame({"text": texts, "label": ["x", "y"] * 6})
    frame.set_index("text").to_parquet(tmp_path / "own.parquet")
    assert sources.read(str(tmp_path / "own.parquet"))["text"].tolist() == texts
    frame[frame["label"] == "x"].to_parquet(tmp_path / "part.parquet")
    assert sources.read(str(tmp_path / "part.parquet"))["id"].tolist() == [f"part.parquet-0000{n}" for n in range(6)]


def test_a_folder_is_no_column_of_the_parquet_in_it(tmp_path):
    (tmp_path / "label=good").mkdir()
    pq.write_table(pa.table({"text": list(texts)}), tmp_path / "label=good" / "own.parquet")
    assert "has no column 'label'; it has text" in refusal(sources.read, str(tmp_path / "label=good" / "own.parquet"))


# --- texts ---------------------------------------------------------------------------------------------------------
def looks(file, column):
    """Read a column as texts in every way that the package has."""
    yield lambda: sources.read(file, text_column=column)
    yield lambda: sources.read_pairs(file, prompt_columns=["other", column], completion_column="label")
    if file.endswith(".jsonl"):
        yield lambda: list(streams.chunks(file, column))


@both
@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (["a", "b"], "is a list; expected a text, or name another column"),
        ({"body": "a"}, "is an object; expected a text, or name another column"),
        (CHAT, "is a list of turns; a conversation is not read as a text: call its column messages"),
        (SHAREGPT, "is a list of turns; a conversation is not read as a text"),
        (TURNS, "is a list of turns; a conversation is not read as a text"),
    ],
    ids=["list", "object", "messages", "conversations", "turns"],
)
def test_a_text_that_is_a_list_or_an_object_is_refused_in_every_reader(tmp_path, suffix, odd, said):
    file = write(tmp_path / f"own{suffix}", body=odd, other="a", label=Each(["x", "y"] * 6))
    first, *others = (refusal(look) for look in looks(file, "body"))
    assert said in first or (", not text (the first is" in first and "conversations" not in said)
    assert all(said in one for one in others)
    if suffix == ".jsonl":  # one among texts
        file = write(tmp_path / "some.jsonl", body=Each([*texts[:5], odd, *texts[6:]]), other="a", label="x")
        for look in looks(file, "body"):
            assert said in (one := refusal(look))
            assert "row 6" in one


@pytest.mark.parametrize("column", ["instruction", "input"])
@pytest.mark.parametrize("odd", [["a"], {"a": 1}, CHAT])
def test_a_task_s_instruction_or_input_that_is_a_list_is_refused(tmp_path, column, odd):
    rows = {"instruction": texts, "input": "", "output": "b"} | {column: odd}
    for look in (tasks.read, tasks.check):
        assert f"column '{column}', row 1 is a" in refusal(look, write(tmp_path / "own.jsonl", **rows))


@pytest.mark.parametrize("chat", [CHAT, SHAREGPT, TURNS])
def test_a_column_of_conversations_of_another_name_is_told_to_be_called_messages(tmp_path, chat):
    said = refusal(tasks.check, write(tmp_path / "own.jsonl", dialogue=chat, id=1))
    assert "has no column 'instruction'; it has dialogue, id; a conversation is not read as a text: call its" in said
    assert "then rename the columns of the file: a task's are called instruction and output" in said


# --- answers -------------------------------------------------------------------------------------------------------
STRUCTURED = {"thing": "caf\u00e9", "count": 7, "owner": None, "broken": False, "parts": ["a", 'b "c"']}


@both
def test_answers_that_are_objects_are_json_and_say_so(tmp_path, suffix):
    file = write(tmp_path / f"own{suffix}", instruction=texts, input="", output=STRUCTURED)
    as_json = '{"thing": "caf\u00e9", "count": 7, "owner": null, "broken": false, "parts": ["a", "b \\"c\\""]}'
    note = f"own{suffix}, column 'output': 12 of 12 are lists or objects, and are read as JSON text"
    assert set(tasks.read(file)["output"]) == {as_json}
    pairs = sources.read_pairs(file, prompt_columns=["instruction"], completion_column="output")
    assert set(pairs["completion"]) == {as_json}
    assert pairs.attrs["provenance"].note == note
    splits = tasks.load(file, rows=6, validation_rows=3, test_rows=3)
    assert sources.provenance(splits.train).note == note


def test_the_note_is_printed_once_and_stands_in_the_record(tmp_path, capsys):
    from ftlab.course import lesson as lessons
    from ftlab.course import profiles

    file = write(tmp_path / "own.jsonl", instruction=texts, output=["a", "b"])
    splits = tasks.load(file, rows=6, validation_rows=3, test_rows=3)
    budget = profiles.resolve("gpt2_instruction_tuning", "smoke", {"task": file})
    lesson = lessons.Lesson("04_gpt2_instruction_tuning", budget, tmp_path)
    lesson.used(train=splits.train, validation=splits.validation)
    note = "own.jsonl, column 'output': 12 of 12 are lists or objects, and are read as JSON text"
    assert capsys.readouterr().out == note + "\n"
    assert lesson.data["train"]["origin"]["note"] == note


def test_answers_that_are_texts_need_no_note(tmp_path):
    file = write(tmp_path / "own.jsonl", instruction=texts, output=Each([7, "[1, 2]", True] * 4))
    assert tasks.read(file)["output"].tolist() == ["7", "[1, 2]", "true"] * 4
    assert tasks.read(file).attrs["note"] == ""


@pytest.mark.parametrize(
    ("outputs", "read"),
    [
        ([7, 8, 9], ["7", "8", "9"]),
        ([7, "eight", 9.0], ["7", "eight", "9"]),
        ([0.5, 1.0, 2], ["0.5", "1", "2"]),
        ([0.5, 1.0, 2.5], ["0.5", "1.0", "2.5"]),
        ([10**20, 2**53 + 1, -1], ["100000000000000000000", "9007199254740993", "-1"]),
        ([True, False, "True"], ["true", "false", "True"]),
    ],
)
def test_numbers_and_truths_among_answers_are_as_the_file_has_them(tmp_path, outputs, read):
    file = write(tmp_path / "own.jsonl", instruction=Each(texts[:3]), output=Each(outputs))
    assert tasks.read(file)["output"].tolist() == read
    assert (
        sources.read_pairs(file, prompt_columns=["instruction"], completion_column="output")["completion"].tolist()
        == read
    )


def test_answers_that_are_conversations_or_bytes_are_refused(tmp_path):
    chat = write(tmp_path / "chat.jsonl", instruction=texts, output=CHAT)
    said = refusal(tasks.check, chat)
    assert "column 'output', row 1 is a list of turns; a conversation is not read as a text" in said
    raw = write(tmp_path / "raw.parquet", instruction=texts, output=b"a")
    assert "column 'output', row 1 is bytes; expected a text" in refusal(tasks.check, raw)


# --- nothing, and the word nan -------------------------------------------------------------------------------------
WORDS = ["nan", "NaN", "None", "null", "NA", "<NA>"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv", ".tsv"])
def test_the_word_nan_is_a_text_and_a_null_is_nothing_in_every_reader(tmp_path, suffix):
    inputs = [*WORDS, None] * 2
    rows = pd.DataFrame({"instruction": [f"ask {row}" for row in range(14)], "input": inputs, "output": inputs[::-1]})
    rows["output"] = rows["output"].fillna("none")
    file = tmp_path / f"own{suffix}"
    if suffix == ".jsonl":
        file.write_text(
            "".join(json.dumps(row) + "\n" for row in rows.astype(object).where(rows.notna(), None).to_dict("records")),
            encoding="utf-8",
        )
    elif suffix == ".parquet":
        pq.write_table(
            pa.table({name: rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in rows}), file
        )
    else:
        rows.to_csv(file, index=False, sep="\t" if suffix == ".tsv" else ",")
    expected = [value or "" for value in inputs]
    assert tasks.read(str(file))["input"].tolist() == expected
    assert sources.read(str(file), text_column="input", label_column="output")["text"].fillna("").tolist() == expected
    prompts = sources.read_pairs(str(file), prompt_columns=["input"], completion_column="output")["prompt"]
    assert prompts.tolist() == expected
    if suffix != ".parquet":
        found = [text for part in streams.chunks(str(file), "input", rows=3) for text in streams.texts(part, "input")]
        assert found == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), ("", ""), (None, None), (float("nan"), None), (pd.NA, None), (pd.NaT, None), (7, "7"), (0.5, "0.5"),
        (True, "true"), ([1, None], "[1, null]"), ([float("nan")], "[null]"), ({"a": True}, '{"a": true}'),
        (datetime.date(2024, 1, 2), "2024-01-02"), ({"on": datetime.date(2024, 1, 2)}, '{"on": "2024-01-02"}'),
    ],
)  # fmt: skip
def test_a_value_as_text_is_what_json_has_for_it(value, text):
    assert values.text_of(value) == text


def test_a_time_beyond_the_year_9999_in_a_parquet_is_one_sentence(tmp_path):
    far = pa.array([1 << 60] * COUNT, pa.timestamp("us"))
    table = pa.table({"text": ["a film"] * COUNT, "label": ["a", "b"] * (COUNT // 2), "seen": far})
    pq.write_table(table, tmp_path / "far.parquet")
    assert "far.parquet cannot be read as parquet (" in refusal(sources.read, str(tmp_path / "far.parquet"))


def labelled(path, *labels) -> str:
    return write(path, text=Each(f"film {row}" for row in range(len(labels))), label=Each(labels))


def test_a_whole_label_of_a_test_file_is_the_one_of_training_whatever_stands_beside_it(tmp_path):
    train = labelled(tmp_path / "train.jsonl", *[0.5, 1.0, 1.5] * 4)
    loaded = sources.load(train, test_dataset=labelled(tmp_path / "test.jsonl", 1.0, 1.0, 1.0))
    assert loaded["test"].features["label"].int2str(loaded["test"]["label"][:]) == ["1.0"] * 3
    with pytest.raises(BadInput, match="has the label '2', which no training row has"):
        sources.load(train, test_dataset=labelled(tmp_path / "other.jsonl", 2.0, 1.0))
    versions = labelled(tmp_path / "versions.jsonl", *["v1.0", "v2.0"] * 4)
    with pytest.raises(BadInput, match="has the label 'v1', which no training row has"):
        sources.load(versions, test_dataset=labelled(tmp_path / "v1.jsonl", "v1"))


@pytest.mark.parametrize("labels", [["a", "a"], ["a", "b"]])
def test_a_check_takes_the_test_files_that_load_takes(tmp_path, labels):
    """Of one label, or with as many labels as rows."""
    train, test = labelled(tmp_path / "train.jsonl", *"abababab"), labelled(tmp_path / "test.jsonl", *labels)
    sources.check(test, judging=True)
    assert sources.load(train, test_dataset=test)["test"].num_rows == 2
    with pytest.raises(BadInput):
        sources.check(test)


@pytest.mark.parametrize(
    ("labels", "names"), [([0, 1], ["0", "1"]), ([1.0, 0.0], ["0", "1"]), ([True, False], ["False", "True"])]
)
def test_labels_of_a_table_of_ones_own_may_be_numbers(labels, names):
    frame = pd.DataFrame({"id": list("abcd"), "text": list("wxyz"), "label": labels * 2})
    rows = sources.as_dataset_dict(frame)["train"]
    assert rows.features["label"].names == names
