"""Audits of files that are read in pieces."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ftlab import cli
from ftlab.data import normalisation, sources, tables
from ftlab.data.audit import audit, audit_instructions, large_files, large_rows, large_scan
from ftlab.data.audit.large import audit_file, is_large
from ftlab.data.audit.large_scan import Columns
from ftlab.data.words import normalise
from ftlab.errors import BadInput

KEY = "ghp_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3"
WORDS = ["river", "stone", "cloud", "paper", "garden", "window", "candle", "mirror", "bridge", "forest", "ladder"]


def rows(count: int = 300, seed: int = 0) -> pd.DataFrame:
    draw = random.Random(seed)
    texts = [f"{' '.join(draw.choices(WORDS, k=12))} and the number {number}" for number in range(count)]
    return pd.DataFrame({"text": texts, "label": [draw.choice(["good", "bad"]) for _ in texts]})


def planted() -> pd.DataFrame:
    frame = rows()
    frame.loc[10, "text"] = frame.loc[5, "text"]
    frame.loc[10, "label"] = frame.loc[5, "label"] = "good"
    frame.loc[20, "text"] = frame.loc[6, "text"].upper()
    frame.loc[20, "label"] = frame.loc[6, "label"]
    frame.loc[30, "text"] = frame.loc[7, "text"].replace("e", "\u0435")
    frame.loc[30, "label"] = frame.loc[7, "label"]
    frame.loc[40, "text"], frame.loc[40, "label"] = frame.loc[8, "text"], "bad"
    frame.loc[8, "label"] = "good"
    frame.loc[50, "text"] = f"<b>write</b> to jo.doe@mail.de, the key is {KEY}"
    frame.loc[60, "text"] = "  "
    frame.loc[70, "label"] = None
    frame.loc[80, "label"] = "Good "
    return frame


def write(frame: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".jsonl":
        records = frame.astype(object).where(frame.notna(), None).to_dict("records")
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "ROWS", 37)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_file_read_in_pieces_has_the_findings_of_one_in_memory(tmp_path: Path, suffix: str) -> None:
    path = write(planted(), tmp_path / f"rows{suffix}")
    test = write(planted().iloc[[5, 6, 7, 100]].dropna(), tmp_path / f"test{suffix}")
    in_pieces, in_memory = audit_file(path, test=test), audit(sources.read(path), test=sources.read(test))
    for finding_id in (
        "missing_text", "missing_label", "label_slip", "exact_duplicates", "normalised_duplicates",
        "disguised_duplicates", "conflicting_labels", "leakage", "markup", "email_addresses", "secrets",
    ):  # fmt: skip
        assert set(in_pieces[finding_id].rows) == set(in_memory[finding_id].rows), finding_id
        assert in_pieces[finding_id].count == in_memory[finding_id].count
    conflicts = [report["conflicting_labels"].evidence[["id", "label"]] for report in (in_pieces, in_memory)]
    assert set(conflicts[0].itertuples(index=False)) == set(conflicts[1].itertuples(index=False))
    assert in_pieces.classes["rows"].to_dict() == in_memory.classes["rows"].to_dict()
    assert in_pieces.rows == in_memory.rows


def test_pairs_read_in_pieces_have_the_findings_of_those_in_memory(tmp_path: Path) -> None:
    frame = pd.DataFrame({"q": rows()["text"], "a": [f"It is {number} at the river." for number in range(300)]})
    frame.loc[[12, 13], "q"] = ""
    frame.loc[[20, 21, 22], "a"] = [None, "", "  "]
    frame.loc[40] = frame.loc[5]
    frame.loc[41, "q"] = frame.loc[6, "q"]
    path, columns = write(frame, tmp_path / "pairs.jsonl"), {"prompt_columns": ["q"], "completion_column": "a"}
    in_pieces, in_memory = audit_file(path, **columns), audit_instructions(sources.read_pairs(path, **columns))
    for finding_id in ("missing_prompt", "empty_completion", "exact_duplicates", "duplicate_prompts"):
        assert set(in_pieces[finding_id].rows) == set(in_memory[finding_id].rows), finding_id
        assert in_pieces[finding_id].what == in_memory[finding_id].what


@pytest.mark.parametrize("labels", [["zebra", "ant"], [2, 1]])
def test_a_conflict_has_the_labels_of_its_rows_whatever_label_comes_first(tmp_path: Path, labels: list[object]) -> None:
    frame = rows(100).assign(label=pd.Series([labels[number % 2] for number in range(100)], dtype=object))
    frame.loc[11, "text"] = frame.loc[4, "text"]
    found = audit_file(write(frame, tmp_path / "rows.jsonl"))["conflicting_labels"].evidence
    assert found[["id", "label"]].to_numpy().tolist() == [
        ["rows.jsonl-00004", str(labels[0])], ["rows.jsonl-00011", str(labels[1])],
    ]  # fmt: skip


def test_no_finding_is_reported_twice(tmp_path: Path) -> None:
    frame = planted().replace({"label": {"bad": "Masse", "good": "Ma\u00dfe"}})
    frame.loc[100:150, "label"] = "N/A"
    frame.loc[200:210, "text"] = "N/A"
    for sample in (5000, 200):
        found = [each.id for each in audit_file(write(frame, tmp_path / "rows.csv"), sample=sample).findings]
        assert {"similar_labels", "placeholder_labels", "placeholder_texts"} <= {*found}
        assert len(found) == len({*found})


def test_a_long_answer_is_drawn_whole(tmp_path: Path) -> None:
    """Cut after some characters, it would seem to end in the middle, and its JSON would be broken."""
    prose = "The river is wide, and " * 2000 + "it ends here."
    answers = [json.dumps({"order": "river " * 9000, "item": number}) for number in range(40)]
    frame = pd.DataFrame({"q": rows(80)["text"], "a": [*answers, *[prose] * 40]})
    columns = {"prompt_columns": ["q"], "completion_column": "a"}
    found = {each.id for each in audit_file(write(frame, tmp_path / "pairs.jsonl"), **columns).findings}
    assert not found & {"cut_off_answer", "broken_format"}


def test_of_long_texts_fewer_rows_are_drawn_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rows(2000)
    frame.loc[::50, "text"] += " stone" * 2000
    path = Path(write(frame, tmp_path / "rows.csv"))
    monkeypatch.setattr(large_scan, "SAMPLED_CHARACTERS", 200_000)
    monkeypatch.setattr(large_scan, "FEWEST_SAMPLED", 50)
    drawn = [
        large_scan.scan(path, Columns(), processes=0, advice="", done=lambda read: None, sample=1000, seed=seed).sample
        for seed in range(12)
    ]
    for sample in drawn:
        assert len(sample) >= 50
        assert sample["text"].str.len().sum() <= 200_000 or len(sample) == 50
        assert set(sample["text"]) <= set(frame["text"])
    every = pd.concat(drawn)
    assert 0.01 < (every["text"].str.len() > 2000).mean() < 0.04  # as in the file, where it is 0.02
    places = every["id"].str.rpartition("-")[2].astype(int)
    assert 800 < places.mean() < 1200


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"role": "user", "content": "x"}], "column 'a', row 51 is a list of turns; a conversation is not read"),
        (b"x", "column 'a', row 51 is bytes; expected a text"),
    ],
)
def test_an_answer_that_is_no_answer_is_refused_as_in_a_small_file(tmp_path: Path, value: object, message: str) -> None:
    answers = pd.Series([value if number == 50 or type(value) is bytes else "So." for number in range(100)])
    frame = pd.DataFrame({"q": rows(100)["text"], "a": answers})
    if type(value) is bytes:
        frame, message = frame.head(20), message.replace("51", "1")
    path = write(frame, tmp_path / ("rows.parquet" if type(value) is bytes else "rows.jsonl"))
    columns = {"prompt_columns": ["q"], "completion_column": "a"}
    for look in (audit_file, sources.read_pairs):
        with pytest.raises(BadInput) as raised:
            look(path, **columns)
        assert message in str(raised.value)


def test_answers_that_are_objects_are_json_and_a_note_says_so(tmp_path: Path) -> None:
    frame = pd.DataFrame({"q": rows(100)["text"], "a": [{"order": number} for number in range(100)]})
    frame.loc[3, "a"] = "none"
    path, columns = write(frame, tmp_path / "rows.jsonl"), {"prompt_columns": ["q"], "completion_column": "a"}
    note = sources.read_pairs(path, **columns).attrs["provenance"].note
    assert note.startswith("rows.jsonl, column 'a': 99 of 100 are lists or objects")
    assert note in audit_file(path, **columns).notes


def test_a_refusal_names_the_row_wherever_its_piece_begins(tmp_path: Path) -> None:
    records = rows(100).to_dict("records")
    records[50]["label"] = ["a", "b"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    for look in (audit_file, sources.read):
        with pytest.raises(BadInput, match=r"the row rows\.jsonl-00050 has a list of 2 labels"):
            look(str(path))


def test_a_label_without_a_name_is_refused_with_its_row_in_the_file(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    frame = rows(600).assign(label=[number % 2 for number in range(600)])
    table = Dataset.from_pandas(frame, features=features, preserve_index=False).data.table
    places = table.column_names.index("label")
    labels = [5 if row == 555 else label for row, label in enumerate(frame["label"])]
    table = table.set_column(places, table.schema.field("label"), [pa.array(labels, pa.int64())])
    pq.write_table(table, tmp_path / "rows.parquet")
    for look in (audit_file, sources.read):
        with pytest.raises(BadInput, match="row 556: the label 5 has no name"):
            look(str(tmp_path / "rows.parquet"))


def test_the_hashes_of_ascii_are_those_of_the_normal_forms() -> None:
    draw = random.Random(0)
    ascii_only = [chr(code) for code in range(128)] + list("   \n\n &<>br;/")
    for number in range(4000):
        letters = ascii_only if number % 2 else [*ascii_only, *"\u00e9\u0430\u200b\ufeff\u4e2d"]
        text = "".join(draw.choices(letters, k=draw.choice([0, 1, 6, 25, 60])))
        normal = normalise(text)
        close = normalisation.accented_skeleton_of(normalisation.normal(text))
        forms = (text, normal, close) if normal else ("", "", "")
        wanted = large_rows.hashes_of([form.encode() for form in forms])
        texts = ["a stone", None, text, "", " a river"]
        measured = large_rows.measure(texts, None, search=False)
        assert [measured.exact[2], measured.normal[2], measured.skeleton[2]] == wanted.tolist(), repr(text)
        assert measured.characters.tolist() == [7, -1, len(text) if normal else -1, -1, 8]


def test_no_face_shows_a_secret(tmp_path: Path) -> None:
    report = audit_file(write(planted(), tmp_path / "rows.csv"))
    faces = str(report) + report.html() + json.dumps(report.to_dict()) + repr(report)
    assert KEY not in faces
    assert "jo.doe" not in faces
    assert "[secret]" in report.html()


def test_an_excerpt_that_begins_in_a_secret_does_not_show_its_end() -> None:
    text = "word " * 200 + KEY + " word" * 1000
    for at in range(1000, 1600, 7):
        assert KEY[-12:] not in large_rows.excerpt(text, at)


def test_what_a_sample_tells_has_its_error(tmp_path: Path) -> None:
    frame = rows(400)
    frame.loc[frame.index % 4 == 0, "text"] += "\nThis page was printed by the garden office"
    report = audit_file(write(frame, tmp_path / "rows.jsonl"), sample=200)
    assert "; in 200 of 400 rows drawn at random: 2" in report["boilerplate"].what
    assert any("near-duplicates" in said and "need all rows" in said for said in report.skipped)
    assert any(said.startswith("columns that look like groups") for said in report.skipped)
    assert any(said.startswith("secrets and personal data in labels") for said in report.skipped)


def test_the_sample_is_random_and_the_same_each_time(tmp_path: Path) -> None:
    path = Path(write(rows(2000), tmp_path / "rows.csv"))
    arguments = {"processes": 0, "advice": "", "done": lambda read: None, "sample": 100}
    first, again, other = (
        large_scan.scan(path, Columns(), seed=seed, **arguments).sample["id"].tolist() for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len(first) == 100
    assert first == sorted(first)
    places = [int(row.rpartition("-")[2]) for row in first + other]
    assert 800 < np.mean(places) < 1200


def test_other_processes_find_the_same(tmp_path: Path) -> None:
    path = write(planted(), tmp_path / "rows.csv")
    assert str(audit_file(path, processes=1)) == str(audit_file(path))


def test_the_bar_reaches_the_size_of_the_file(tmp_path: Path) -> None:
    for suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        path = Path(write(rows(200), tmp_path / f"rows{suffix}"))
        steps: list[int] = []
        assert sum(len(piece["text"]) for piece in large_files.pieces(path, ["text"], done=steps.append)) == 200
        assert len(steps) > 4
        assert 0.3 * large_files.size(path) < sum(steps) <= large_files.size(path)


def test_a_piece_of_long_texts_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "CHARACTERS", 500)
    path = Path(write(rows(100), tmp_path / "rows.csv"))
    assert max(len(piece["text"]) for piece in large_files.pieces(path, ["text"])) < 12


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, suffix: str) -> None:
    path = Path(write(rows(200), tmp_path / f"rows{suffix}"))
    reading = large_files.pieces(path, ["text", "label"])
    next(reading)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadInput, match=r"changed while it was read \(.* bytes before, .* after\); wait until nothing"):
        list(reading)


def test_a_file_that_changes_while_it_is_read_into_memory_is_refused(tmp_path: Path) -> None:
    path = Path(write(rows(20), tmp_path / "rows.csv"))

    def read(change: Callable[[], object]) -> None:
        with tables.explained(path):
            change()

    with pytest.raises(BadInput, match="changed while it was read"):
        read(lambda: path.write_text("text,label\nnew,x\n", encoding="utf-8"))
    with pytest.raises(BadInput, match=r"changed while it was read \(it is gone\)"):
        read(path.unlink)


def test_groups_on_two_sides_are_found(tmp_path: Path) -> None:
    frame = rows().assign(author=[f"a{number % 30}" for number in range(300)])
    test = rows(20, seed=1).assign(author=["a3"] * 5 + ["b"] * 15)
    train, test_file = write(frame, tmp_path / "rows.csv"), write(test, tmp_path / "test.csv")
    found = audit_file(train, test=test_file, group_column="author")["group_leakage"]
    assert found.count == 5
    assert found.what.endswith("groups: 1 of 2")
    with pytest.raises(BadInput, match="each of the 300 rows with a value has one of its own"):
        audit_file(write(frame.assign(author=range(300)), tmp_path / "ids.csv"), group_column="author")
    with pytest.raises(BadInput, match="has no column 'writer'"):
        audit_file(train, group_column="writer")
    with pytest.raises(BadInput, match="the column 'label' has the texts or the labels, so it cannot be of groups"):
        audit_file(train, group_column="label")
    with pytest.raises(BadInput, match="column 'author', row 1 is a list"):
        audit_file(write(frame.assign(author=[["a"]] * 300), tmp_path / "lists.jsonl"), group_column="author")


def test_a_group_is_known_by_its_number_and_a_word_for_nothing_is_no_group(tmp_path: Path) -> None:
    """Beside a missing value, pandas writes whole numbers with .0."""
    groups = [str(number % 30) if number % 3 else "nan" for number in range(300)]
    train = write(rows().assign(author=groups), tmp_path / "rows.csv")
    test = rows(20, seed=1).assign(author=["4.0"] * 5 + ["NaN", "None", "NULL", "NA", "n/a"] + ["99.0"] * 10)
    test_file = write(test, tmp_path / "test.csv")
    found = audit_file(train, test=test_file, group_column="author")["group_leakage"]
    known = {"group_column": "author"}
    in_memory = audit(sources.read(train, **known), test=sources.read(test_file, **known, judging=True))
    assert found.rows == in_memory["group_leakage"].rows == tuple(f"test.csv-{number:05d}" for number in range(5))


def test_instruction_data_is_read_in_pieces(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"question": rows()["text"], "answer": [f"It is {number} at the river." for number in range(300)]}
    )
    frame.loc[10] = frame.loc[5]
    frame.loc[11, "question"] = frame.loc[6, "question"]
    frame.loc[12, "question"] = ""
    path = write(frame, tmp_path / "pairs.jsonl")
    test = write(frame.iloc[[20]], tmp_path / "test.jsonl")
    report = audit_file(path, test=test, prompt_columns=["question"], completion_column="answer")
    assert report["exact_duplicates"].rows == ("pairs.jsonl-00010",)
    assert report["duplicate_prompts"].rows == ("pairs.jsonl-00011",)
    assert report["missing_prompt"].rows == ("pairs.jsonl-00012",)
    assert report["leakage"].count == 1


def test_a_large_file_has_no_price_and_no_repair(tmp_path: Path) -> None:
    report = audit_file(write(planted(), tmp_path / "rows.csv"))
    assert report.priceable == report.repairable == ()
    for refused in (lambda: report.price("exact_duplicates"), lambda: report.repair("exact_duplicates")):
        with pytest.raises(BadInput, match=r"needs all 300 rows in memory.*write a part of it"):
            refused()


def test_labels_of_two_types_are_a_slip(tmp_path: Path) -> None:
    frame = rows(100).assign(label=pd.Series([number % 2 for number in range(100)], dtype=object))
    frame.loc[10, "label"] = "1"
    report = audit_file(write(frame, tmp_path / "rows.jsonl"))
    assert report["label_slip"].rows == ("rows.jsonl-00010",)
    assert report.classes["rows"].to_dict() == {"0": 49, "1": 51}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", ["a", "b"], "has a list of 2 labels"),
        ("text", {"a": 1}, "row 51: 'text'|row 51 is an object"),
        ("text", [{"role": "user", "content": "x"}], "row 51 is a list of turns"),
    ],
)
def test_a_value_that_is_no_text_is_refused_with_its_row(
    tmp_path: Path, column: str, value: object, message: str
) -> None:
    records = rows(100).to_dict("records")
    records[50][column] = value
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        audit_file(str(path))


def test_wrong_columns_are_refused(tmp_path: Path) -> None:
    path = write(rows(100).assign(number=range(100)), tmp_path / "rows.csv")
    with pytest.raises(BadInput, match="has no column 'sentence'; it has text, label, number"):
        audit_file(path, text_column="sentence")
    with pytest.raises(BadInput, match="contains numbers, not text"):
        audit_file(path, text_column="number")
    with pytest.raises(BadInput, match="100 different labels in 100 rows, too many for classes"):
        audit_file(path, label_column="number")
    with pytest.raises(BadInput, match=r"test row test\.csv-00000 has the label 'new'"):
        audit_file(path, test=write(rows(5).assign(label="new"), tmp_path / "test.csv"))


def test_the_command_reads_large_files_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(planted(), tmp_path / "rows.csv")
    assert not is_large([path, "imdb"])
    monkeypatch.setattr(large_files, "LARGE", 1000)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert is_large([path])
    assert cli.main(["audit", path, "--fail-on", "error"]) == 1
    assert "read in pieces" in capsys.readouterr().out
    assert cli.main(["audit", path, "--messages"]) == 2
    assert "conversations of that size are not audited" in capsys.readouterr().err
    assert cli.main(["audit", path, "--test", "imdb"]) == 2
    assert "only files are read" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    path = write(planted(), tmp_path / "rows.csv")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ftlab.cli", "audit", path, "--json"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ftlab: the disk is full: the output could not be")
