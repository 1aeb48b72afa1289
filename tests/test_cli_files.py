"""Files as people hand them in, through the commands: answers stand beside their rows, or one sentence says why not."""

import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ftlab as package
from ftlab import files
from ftlab.commands.run import read_parameters
from ftlab.course import profiles, runner
from ftlab.course.notebooks import lessons
from ftlab.data import streams, tables
from tests.command_line import ftlab

pytestmark = pytest.mark.usefixtures("one_thread")


def strict(text: str):
    """JSON as a reader that knows no NaN takes it."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


# --- predict: rows in, rows out ------------------------------------------------------------------------------------
TEXTS = [
    "a film", "", 'she said "no"', "two\nlines", "tab\there", "a \r return", "nan", "  ", "caf\u00e9 \u2028", "end",
]  # fmt: skip


def give(path: Path) -> list[str]:
    """Write TEXTS into a file of any type that predict takes; the texts as they can stand in it."""
    if path.suffix == ".txt":
        texts = [" ".join(text.split("\n")) for text in TEXTS]
        path.write_bytes("".join(text + "\n" for text in texts).encode())
        return texts
    frame = pd.DataFrame({"text": TEXTS, "note": ['"', "", "a\tb", "c\nd", "e", "f", "g", "h", "\r", ""]}, dtype=object)
    with streams.writer(path) as put:
        put(frame)
    return TEXTS


@pytest.mark.parametrize("out", streams.OUTPUT_TYPES)
@pytest.mark.parametrize("suffix", streams.INPUT_TYPES)
def test_predictions_stand_beside_their_rows_whatever_the_files(capsys, tmp_path, classifier_folder, suffix, out):
    texts = give(tmp_path / f"in{suffix}")
    code, _, _ = ftlab(capsys, "predict", classifier_folder, tmp_path / f"in{suffix}", "--out", tmp_path / f"out{out}")
    assert code == 0
    answers = tables.read_table(tmp_path / f"out{out}", ["text", "prediction"])
    assert answers["text"].fillna("").tolist() == texts
    assert answers["prediction"].isna().tolist() == [not text.strip() for text in texts]
    if suffix != ".txt":
        given = tables.read_table(tmp_path / f"in{suffix}", ["note"])
        assert answers["note"].fillna("").tolist() == given["note"].fillna("").tolist()


def test_the_blank_rows_of_one_column_are_rows(capsys, tmp_path, classifier_folder):
    (tmp_path / "in.csv").write_text("text\na film\n\nanother\n\n\nthe last\n\n", encoding="utf-8")
    code, out, err = ftlab(capsys, "predict", classifier_folder, tmp_path / "in.csv")
    rows = [strict(line) for line in out.splitlines()]
    assert code == 0
    assert [row["text"] for row in rows] == ["a film", None, "another", None, None, "the last", None]
    assert [row["prediction"] is None for row in rows] == [row["text"] is None for row in rows]
    assert err == ["ftlab: 4 of 7 rows have no text, so they get no label"]


def test_a_tsv_with_stray_quotes_keeps_its_rows(capsys, tmp_path, classifier_folder):
    lines = ['"a film\tbad', "plain\tgood", '"another\tbad', 'said "no\tgood']
    (tmp_path / "in.tsv").write_text("\n".join(["text\tlabel", *lines]), encoding="utf-8")
    _, out, _ = ftlab(capsys, "predict", classifier_folder, tmp_path / "in.tsv")
    assert [f"{row['text']}\t{row['label']}" for row in map(strict, out.splitlines())] == lines


def test_lists_in_other_columns_are_json_in_a_csv(capsys, tmp_path, classifier_folder):
    row = {"text": "a film", "tags": ["a", {"b": None}], "n": 7, "seen": True, "score": 0.5, "gap": None}
    (tmp_path / "in.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps({"text": "another"}) + "\n", encoding="utf-8"
    )
    ftlab(capsys, "predict", classifier_folder, tmp_path / "in.jsonl", "--out", tmp_path / "out.csv")
    answers = tables.read_table(tmp_path / "out.csv", []).iloc[0]
    assert answers[["tags", "n", "seen", "score"]].tolist() == ['["a", {"b": null}]', "7", "true", "0.5"]
    assert pd.isna(answers["gap"])


def test_a_nul_character_goes_into_jsonl_alone(capsys, tmp_path, classifier_folder):
    (tmp_path / "in.jsonl").write_text('{"text": "a \\u0000 film"}\n', encoding="utf-8")
    for out in (".csv", ".tsv"):
        code, _, err = ftlab(
            capsys, "predict", classifier_folder, tmp_path / "in.jsonl", "--out", tmp_path / f"out{out}"
        )
        assert code == 2
        assert f"a value has a NUL character in it, which no {out[1:]} can hold; write a .jsonl" in err[-1]
        assert not (tmp_path / f"out{out}").exists()
    assert ftlab(capsys, "predict", classifier_folder, tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")[0] == 0


# --- what to do about a column that is missing ---------------------------------------------------------------------
NAMES = ("text_column", "label_column", "--text", "--label", "--prompt", "--completion", "instruction and output")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["predict", "MODEL", "FILE"], ["--text"]),
        (["generate", "tiny-gpt2", "FILE"], ["--prompt"]),
        (["merge", "tiny-gpt2", "adapter", "out", "--prompts", "FILE"], ["--prompt"]),
        (["audit", "FILE"], ["--text", "--label", "--prompt", "--completion"]),
        (["audit", "FILE", "--prompt", "ask", "--completion", "say"], ["--prompt", "--completion"]),
        (["run", "02", "--profile", "smoke", "-p", "dataset", "FILE"], ["text_column", "label_column"]),
        (["run", "04", "--profile", "smoke", "-p", "task", "FILE"], ["instruction and output"]),
        (["run", "05", "--profile", "smoke", "-p", "task", "FILE"], ["instruction and output"]),
    ],
    ids=lambda value: " ".join(value[:2]) if len(value) > 2 else "",
)
def test_a_missing_column_is_told_in_the_words_of_the_command(capsys, tmp_path, classifier_folder, command, named):
    (tmp_path / "mine.csv").write_text("body,verdict\na,b\n", encoding="utf-8")
    places = {"FILE": tmp_path / "mine.csv", "MODEL": classifier_folder}
    code, out, err = ftlab(capsys, *[places.get(word, word) for word in command])
    assert (code, out, len(err)) == (2, "", 1)
    assert "it has body, verdict; " in err[0]
    assert [name for name in NAMES if name in err[0]] == named


# --- parameters that are text --------------------------------------------------------------------------------------
def parameters(*pairs, text="", file=None) -> dict:
    return read_parameters(Namespace(file=[file] if file else [], yaml=[text] if text else [], parameter=list(pairs)))


NOT_TEXT_IN_YAML = ["1", "007", "0x10", "1_000", "1.0", "1e3", "yes", "No", "true", "2024-01-02", "12:30", ".nan"]


@pytest.mark.parametrize("written", [*NOT_TEXT_IN_YAML, "body", "a b", "caf\u00e9"])
def test_a_name_is_the_text_that_was_written_whatever_yaml_makes_of_it(tmp_path, written):
    (tmp_path / "p.yaml").write_text(f"label_column: {written}\nrows: 30", encoding="utf-8")
    for found in (
        parameters(("label_column", written), ("rows", "30")),
        parameters(text=f"{{label_column: {written}, rows: 30}}"),
        parameters(file=tmp_path / "p.yaml"),
    ):
        assert found == {"label_column": written, "rows": 30}


def test_numbers_truths_and_nothing_stay_what_yaml_makes_of_them():
    found = parameters(("rows", "30"), ("resume", "yes"), ("text_column", "null"), ("text_column", "~"), ("seed", "1"))
    assert found == {"rows": 30, "resume": True, "text_column": None, "seed": 1}
    assert parameters(("text_column", "'1'")) == {"text_column": "1"}
    assert parameters(("dataset", "[draft] x.csv"), ("task", "2024-13-45")) == {
        "dataset": "[draft] x.csv",
        "task": "2024-13-45",
    }
    with pytest.raises(package.errors.BadInput, match=r"--yaml is not YAML .month must be in"):
        parameters(text="rows: 2024-13-45")


@pytest.mark.parametrize(
    "written",
    ["#1.csv", "text #2", "{a: b}", "[a, b]", "a: b", "&x", "*.csv", "!x", "'it's", "- a", "a\nb", "%x", "@x"],
)
def test_text_after_p_is_taken_as_it_is(written):
    assert parameters(("dataset", written), ("text_column", f"{written} ")) == {
        "dataset": written, "text_column": f"{written} "
    }  # fmt: skip


@pytest.mark.parametrize("name", ["dataset", "rows", "resume", "learning_rate"])
@pytest.mark.parametrize("written", ["", " "])
def test_a_value_that_is_empty_is_not_taken_for_the_profile_s_own(name, written):
    with pytest.raises(package.errors.BadInput, match=f"the value of {name} is empty; leave -p {name} out"):
        parameters((name, written))


@pytest.mark.parametrize(
    ("written", "rows"), [("010", 10), ("0100", 100), ("08", 8), ("+010", 10), ("1_000", 1000), ("1:30", None)]
)
def test_a_number_has_base_10(written, rows):
    for found in (parameters(("rows", written)), parameters(text=f"rows: {written}")):
        if rows:
            assert profiles.PARAMETERS["rows"].parse("rows", found["rows"]) == rows
        else:
            with pytest.raises(package.errors.BadInput, match="rows is '1:30'; expected a whole number"):
                profiles.PARAMETERS["rows"].parse("rows", found["rows"])


def test_a_column_called_1_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"film number {row},{'good' if row % 2 else 'bad'}\n" for row in range(80))
    Path("007.csv").write_text("1,yes\n" + rows, encoding="utf-8")
    given = parameters(("dataset", "007.csv"), ("text_column", "1"), ("label_column", "yes"))
    (budget,) = runner.plan(lessons(["02"]), "smoke", given)
    assert budget.columns() == {"text_column": "1", "label_column": "yes"}


def test_a_list_in_place_of_a_name_is_one_sentence(capsys):
    code, _, err = ftlab(capsys, "run", "02", "--profile", "smoke", "-y", "text_column: [a, b]")
    assert code == 2
    assert err == [
        "ftlab: text_column is ['a', 'b']; expected text (the column of your own file that holds the texts); in "
        "quotes, if that is what it is called"
    ]


def test_all_test_rows_of_a_source_without_a_test_split_are_refused_in_a_sentence(tmp_path):
    from ftlab.data import sources, splits

    budget = profiles.resolve("text_classification", "smoke", {"test_rows": 0})
    with pytest.raises(package.errors.BadInput, match=r"test_rows is 0 .all., and this data set has no test split"):
        splits.split(
            sources.load(budget.dataset), rows=budget.rows, validation_rows=10, test_rows=budget.test_rows or None
        )


# --- JSON ----------------------------------------------------------------------------------------------------------
NUMBERS = {
    "nan": float("nan"), "infinite": -np.inf, "float32": np.float32("nan"), "array": np.array([0.5, np.nan]),
    "deep": [{"a": (1, float("inf"))}], np.int64(3): np.int64(4), "fine": 0.5, "text": "NaN",
}  # fmt: skip
AS_JSON = {
    "nan": None, "infinite": None, "float32": None, "array": [0.5, None], "deep": [{"a": [1, None]}], "3": 4,
    "fine": 0.5, "text": "NaN",
}  # fmt: skip


def test_json_has_no_nan_and_no_infinity_in_a_file_on_stdout_or_in_a_line(tmp_path, capsys):
    files.write_json(tmp_path / "numbers.json", NUMBERS)
    assert strict((tmp_path / "numbers.json").read_text(encoding="utf-8")) == AS_JSON
    for ascii_only in (True, False):
        assert strict(files.to_json(NUMBERS, ascii_only=ascii_only)) == AS_JSON
    table = pd.DataFrame({"text": ["a", None], "p": [np.nan, np.inf], "deep": [[np.nan], {"a": -np.inf}]})
    with streams.writer(tmp_path / "rows.jsonl") as put:
        put(table)
    with streams.writer(None) as put:
        put(table)
    for lines in ((tmp_path / "rows.jsonl").read_text(encoding="utf-8"), capsys.readouterr().out):
        first, second = map(strict, lines.splitlines())
        assert first == {"text": "a", "p": None, "deep": [None]}
        assert second == {"text": None, "p": None, "deep": {"a": None}}


def test_what_json_has_nothing_for_is_an_error_and_not_a_guess():
    with pytest.raises(TypeError, match="JSON has nothing for a set"):
        files.to_json({"a": {1}})
    assert files.to_json({"a": Path("b"), "n": np.float32(0.5)}, default=str) == '{"a": "b", "n": 0.5}'


def test_a_line_of_json_is_one_line_for_any_reader():
    text = "a\u2028b\u2029c\x85d\x0be\nf"
    line = files.to_json({"text": text})
    assert len(line.splitlines()) == 1
    assert strict(line) == {"text": text}


def test_doctor_bench_and_a_benchmark_s_figures_are_strict(capsys, monkeypatch):
    from ftlab.course import bench

    monkeypatch.setattr(bench, "run", lambda name, save: {"name": name, "result": {"seconds": float("nan")}})
    for options in ([], ["--json"]):
        _, out, _ = ftlab(capsys, "bench", "anything", *options)
        assert "NaN" not in out
        assert strict(out).get("result", strict(out)) == {"seconds": None}


def test_nothing_but_files_writes_json():
    """json.dumps writes NaN. These use it for hashes, for text alone, and for a model's own config as it came."""
    folder = Path(package.__file__).parent
    uses = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if re.search(r"\bjson\.dumps?\(", path.read_text(encoding="utf-8"))
    }
    assert uses <= {
        "files.py", "data/docstrings.py", "data/sources.py", "data/tasks.py", "data/values.py",
        "adapters/config.py", "freezing/store.py", "merging/merge.py", "models/shards.py",
        "serving/modelfile.py", "training/checkpoints.py",
    }  # fmt: skip
