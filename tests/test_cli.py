import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from ftlab import cli
from ftlab.commands.run import read_parameters
from ftlab.course import runner
from ftlab.data import sources, streams
from tests.nightly import few_by_day


def ftlab(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "17"], "there is no lesson '17'"),
        (["run", "02", "--profile", "cuda"], "there is no profile 'cuda'"),
        (["run", "02", "-p", "dataset", "imbd"], "there is no data set 'imbd'"),
        (["run", "02", "-p", "row", "40"], "has no parameter 'row'"),
        (["run", "03", "-p", "rows", "0"], "rows is 0; expected at least 1"),
        (["run", "02", "-p", "rows", "-1"], "rows is -1; expected at least 1, or 0: all that the other splits leave"),
        (["run", "02", "-p", "rows", "many"], "expected a whole number"),
        (["run", "02", "-p", "learning_rate", "-2e-5"], "expected more than 0"),
        (["run", "02", "--profile", "smoke", "-p", "max_length", "4000"], "positions for at most 128 tokens"),
        (["run", "02", "-y", "rows: [1"], "--yaml is not YAML"),
        (["run", "02", "-y", "400"], "expected 'name: value'"),
        (["run", "02", "-f", "nowhere.yaml"], "the parameter file nowhere.yaml cannot be read"),
        (["run", "02", "-p", "dataset", "nowhere.csv"], "there is no file nowhere.csv"),
        (["run", "02", "-p", "model", "/nowhere/model"], "does not exist"),
        (["run", "02", "-p", "rows"], "expected 2 arguments"),
        (["run", ""], "there is no lesson ''"),
        (["run", "."], "there is no lesson '.'"),
        (["run", "02.bak"], "there is no lesson '02.bak'"),
        (["run", "02", "-p", "dataset", ""], "the value of dataset is empty; leave -p dataset out"),
        (
            ["run", "02", "-p", "text_column", "body"],
            "text_column is 'body', and rotten_tomatoes is a data set of",
        ),
        (["run", "02", "-p", "resume", "true"], "name that folder with --out"),
        (
            ["run", "04", "-p", "ratings", "mine.csv"],
            "ratings is mine.csv, and there is no such path; give",
        ),
        (["run", "04", "-p", "ratings", "~nosuchuser/x"], "~nosuchuser/x cannot be looked at"),
        (["run", "06", "-p", "adapter", "a" * 300], "cannot be looked at"),
        (["run", "01", "--profile", "smoke", "--out", "~nosuchuser/x"], "~nosuchuser/x cannot be looked at"),
        (["train", "instruct", "-p", "replay", "0.5"], "does not take replay, which is for what lesson 04 shows"),
        (
            ["train", "classify", "-p", "resume", "true"],
            "--resume goes on in the folder of a training",
        ),
        (["audit", ""], "the file is empty; give the path of a file"),
        (["audit", "imdb", "--test", ""], "--test is empty; give the path of a file, or leave it out"),
        (["audit", "imdb", "--validation", " "], "--validation is empty"),
        (["audit", "~nosuchuser/x.csv"], "~nosuchuser/x.csv cannot be looked at"),
        (["audit", "a" * 300 + ".csv"], "cannot be looked at"),
        (["audit", "imdb", "--html", "a" * 300], "cannot be looked at"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_question_is_one_line_on_stderr_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = ftlab(capsys, *arguments)
    lines = [line for line in err.splitlines() if not line.endswith("...")]
    assert (code, out) == (2, "")
    assert message in lines[0]
    assert len(lines) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_data_file_that_lacks_the_column_is_told_with_the_columns_it_has(capsys, reviews_csv):
    code, _, err = ftlab(capsys, "run", "02", "--profile", "smoke", "-p", "dataset", str(reviews_csv))
    assert code == 2
    assert "has no column 'text'; it has body, verdict" in err


def test_a_model_folder_with_a_pickle_is_refused(capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    code, _, err = ftlab(capsys, "run", "02", "-p", "model", str(tmp_path))
    assert code == 2
    assert "pickle checkpoint (pytorch_model.bin)" in err


def test_parameters_come_from_a_file_yaml_and_pairs_and_the_later_wins(tmp_path):
    (tmp_path / "p.yaml").write_text("rows: 100\nlearning_rate: 2e-5\n", encoding="utf-8")
    options = cli._parser().parse_args(
        [
            "run",
            "-f",
            str(tmp_path / "p.yaml"),
            "-y",
            "{rows: 200, epochs: 1}",
            "-p",
            "rows",
            "300",
            "-p",
            "dataset",
            "imdb",
        ]
    )
    assert read_parameters(options) == {"rows": 300, "learning_rate": "2e-5", "epochs": 1, "dataset": "imdb"}


def test_doctor_speaks_json_and_nothing_else_on_request(capsys):
    code, out, _ = ftlab(capsys, "doctor", "--json")
    report = json.loads(out)
    assert code == (0 if report["ok"] else 1)
    assert {"name", "ok", "found", "todo"} == set(report["checks"][0])


def test_your_own_file_runs_by_a_relative_path_and_other_columns(reviews_csv):
    """The whole way, as a person types it: YAML values, a file here, results in a folder."""
    command = [sys.executable, "-m", "ftlab.cli", "run", "02", "--profile", "smoke", "--json", "--out", "out"]
    command += ["-p", "dataset", reviews_csv.name, "-y", "{text_column: body, label_column: verdict, rows: 30}"]
    command += ["-y", "learning_rate: 5e-4", "-p", "validation_rows", "12", "-p", "test_rows", "12"]
    done = subprocess.run(command, cwd=reviews_csv.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["lessons"][0]["lesson"] == "02_text_classification"
    budget = json.loads(
        (reviews_csv.parent / "out" / "02_text_classification" / "metrics.json").read_text(encoding="utf-8")
    )["budget"]
    assert (budget["rows"], budget["learning_rate"]) == (30, 5e-4)
    assert (reviews_csv.parent / "out" / "02_text_classification" / "model" / "model.safetensors").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_an_output_that_cannot_be_written_is_one_sentence():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "ftlab.cli", "doctor"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ftlab: the disk is full: the output could not be written")
    assert "Traceback" not in done.stderr


def test_a_gate_that_does_not_pass_is_no_success_where_the_reader_goes_away(tmp_path):
    rows = "".join(f"a film that is seen again,{row % 2}\n" for row in range(4000))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows, encoding="utf-8")
    command = [sys.executable, "-m", "ftlab.cli", "audit", str(tmp_path / "rows.csv"), "--json", "--fail-on", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert b"Error" not in running.stderr.read()
        assert running.wait() == 141


def test_a_home_that_the_shell_has_left_as_it_is_is_found(tmp_path, monkeypatch, reviews_csv):
    """bash and zsh give --out=~/x as it stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "p.yaml").write_text("rows: 30", encoding="utf-8")
    columns = ["--text", "body", "--label", "verdict"]
    assert cli.main(["audit", str(reviews_csv), *columns, "--html=~/r.html"]) == 0
    assert (tmp_path / "me" / "r.html").is_file()
    with runner.folder_of_its_own(Path("~/out"), "smoke") as folder:
        assert folder == tmp_path / "me" / "out"
    assert read_parameters(argparse.Namespace(file=[Path("~/p.yaml")], yaml=[], parameter=[])) == {"rows": 30}
    assert not (tmp_path / "~").exists()


def test_importing_ftlab_loads_no_torch_transformers_or_pandas():
    code = "import sys, ftlab, ftlab.cli; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_planning_a_run_loads_neither_torch_nor_transformers():
    """`ftlab run` starts a kernel for each lesson, and only a kernel needs them."""
    code = "import sys, ftlab.course.runner; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def rows_csv(tmp_path) -> Path:
    """Reviews with an e-mail address and a copy among them: warnings, and no error."""
    rows = sources.read("mini_reviews")[["text", "label"]].values.tolist()
    rows[5][0] += " (write to jo@lighthouse-mail.de)"
    rows[9] = rows[7]
    return write_csv(tmp_path / "rows.csv", ["text", "label"], rows)


def write_csv(path: Path, header, rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_an_audit_is_one_json_object_on_request_and_nothing_else(capsys, rows_csv):
    code, out, _ = ftlab(capsys, "audit", str(rows_csv), "--json")
    report = json.loads(out)
    assert code == 0
    assert len(out.splitlines()) == 1
    assert report["rows"] == 200
    found = {each["id"]: each["rows"] for each in report["findings"]}
    assert found["email_addresses"] == ["rows.csv-00005"]
    assert found["exact_duplicates"] == ["rows.csv-00009"]


def test_an_audit_is_lines_for_a_person_without_it(capsys, rows_csv):
    code, out, _ = ftlab(capsys, "audit", str(rows_csv))
    assert code == 0
    assert out.startswith("200 rows, ")
    assert "[warning] exact_duplicates: " in out


def test_an_audit_in_a_process_of_its_own_keeps_stdout_clean(rows_csv):
    command = [sys.executable, "-m", "ftlab.cli", "audit", rows_csv.name, "--json"]
    done = subprocess.run(command, cwd=rows_csv.parent, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"] == 200


def test_an_audit_as_a_page_is_a_whole_page(capsys, rows_csv, tmp_path):
    page = tmp_path / "new" / "report.html"
    code, out, _ = ftlab(capsys, "audit", str(rows_csv), "--html", str(page))
    assert code == 0
    assert str(page) in out
    said = page.read_text(encoding="utf-8")
    HTMLParser().feed(said)
    assert said.startswith("<!doctype html>")
    assert said.rstrip().endswith("</html>")
    assert f"Audit of {rows_csv}" in said
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_json_stays_one_object_beside_a_page(capsys, rows_csv, tmp_path):
    _, out, _ = ftlab(capsys, "audit", str(rows_csv), "--json", "--html", str(tmp_path / "report.html"))
    assert json.loads(out)["rows"] == 200
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("where", ["rows.csv/report.html", "folder"], ids=["under a file", "on a folder"])
def test_a_page_that_cannot_be_written_leaves_nothing_behind(capsys, rows_csv, tmp_path, where):
    (tmp_path / "folder").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, _, err = ftlab(capsys, "audit", str(rows_csv), "--html", str(tmp_path / where))
    assert code == 2
    assert str(tmp_path / where) in err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", ["--validation", "--test", None])
def test_a_page_never_replaces_rows(capsys, rows_csv, tmp_path, option):
    other = write_csv(tmp_path / "other.csv", ["text", "label"], [["Fine film", "positive"], ["Bad film", "negative"]])
    (tmp_path / "link").symlink_to(other)
    options = [option, str(other)] if option else []
    for page in (other, tmp_path / "link", tmp_path / "new.JSONL") if option else (rows_csv,):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        code, _, err = ftlab(capsys, "audit", str(rows_csv), *options, "--html", str(page))
        assert code == 2
        assert str(page) in err
        assert "report.html" in err
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt", "prompt", "answer", "--completion", "answer"], "'answer' cannot be a part of the prompt"),
        (["--prompt", "prompt", "--completion", "answer", "--label", "l"], "--label a column of rows with labels"),
        (["--prompt", "prompt", "--completion", "answer", "--text", "t"], "--text a column of rows with labels"),
        (["--messages", "--group", "nope"], "has no column 'nope'; it has messages, prompt, answer; name a column"),
    ],
)
def test_columns_that_do_not_go_together_are_refused(capsys, tmp_path, options, said):
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    row = json.dumps({"messages": chat, "prompt": "Why?", "answer": "So."})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n{row}\n", encoding="utf-8")
    code, _, err = ftlab(capsys, "audit", str(tmp_path / "rows.jsonl"), *options)
    assert code == 2
    assert said in err
    assert "a conversation is not read" not in err


@pytest.mark.parametrize("first", ["ghp_37HyVaQXekW9LctXb03rEMU64yTY6BzUZKC9", "call me under +49 30 901820"])
def test_a_message_shows_no_secret_of_the_first_line_of_a_file(capsys, tmp_path, first):
    path = write_csv(tmp_path / "bare.csv", [first, f"and the very same thing once more is {first}"], [["a", "b"]] * 2)
    code, _, err = ftlab(capsys, "audit", str(path))
    assert code == 2
    assert "has no column 'text'" in err
    assert "37Hy" not in err
    assert "9018" not in err


def test_an_older_page_stays_where_an_audit_cannot_be_made(capsys, tmp_path):
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    (tmp_path / "report.html").write_text("older", encoding="utf-8")
    code, _, _ = ftlab(capsys, "audit", str(tmp_path / "empty.csv"), "--html", str(tmp_path / "report.html"))
    assert code == 2
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "older"


@pytest.mark.parametrize(
    ("name", "warning", "error"), [("few", 0, 0), ("rows", 1, 0), ("broken", 1, 1)], ids=["info", "warning", "error"]
)
def test_the_exit_code_is_1_at_the_severity_or_above_and_0_below(capsys, rows_csv, tmp_path, name, warning, error):
    rows = sources.read("mini_reviews")[["text", "label"]].values.tolist()
    write_csv(tmp_path / "few.csv", ["text", "label"], rows)
    write_csv(tmp_path / "broken.csv", ["text", "label"], [["", "positive"], *rows])
    file = str(tmp_path / f"{name}.csv")
    assert ftlab(capsys, "audit", file)[0] == 0
    assert ftlab(capsys, "audit", file, "--fail-on", "warning")[0] == warning
    assert ftlab(capsys, "audit", file, "--fail-on", "error")[0] == error


def test_a_report_is_given_whole_though_it_fails(capsys, rows_csv, tmp_path):
    page = tmp_path / "report.html"
    code, out, _ = ftlab(capsys, "audit", str(rows_csv), "--json", "--html", str(page), "--fail-on", "warning")
    assert code == 1
    assert json.loads(out)["rows"] == 200
    assert page.is_file()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_rows_that_stand_in_both_files_are_found(capsys, rows_csv, tmp_path, split):
    rows = sources.read("mini_reviews")[["text", "label"]].values.tolist()
    other = write_csv(tmp_path / "other.csv", ["text", "label"], [["a text of its own", "positive"], rows[3]])
    _, out, _ = ftlab(capsys, "audit", str(rows_csv), f"--{split}", str(other), "--json")
    found = {each["id"]: each for each in json.loads(out)["findings"]}
    assert found["leakage"]["rows"] == ["other.csv-00001"]
    assert found["leakage"]["evidence"][0]["copy_of"] == "rows.csv-00003"


def test_groups_in_both_files_are_found(capsys, tmp_path):
    reviews = sources.read("mini_reviews")[["text", "label"]].values.tolist()
    rows = [[*row, f"writer {number // 4}"] for number, row in enumerate(reviews)]
    train = write_csv(tmp_path / "train.csv", ["text", "label", "author"], rows[:102])
    test = write_csv(tmp_path / "test.csv", ["text", "label", "author"], rows[102:])
    code, out, _ = ftlab(
        capsys, "audit", str(train), "--test", str(test), "--group", "author", "--json", "--fail-on", "error"
    )
    found = {each["id"]: each for each in json.loads(out)["findings"]}
    assert code == 1
    assert found["group_leakage"]["rows"] == ["test.csv-00000", "test.csv-00001"]
    assert [*found["group_leakage"]["evidence"][0]] == ["id", "split", "same_group_as"]
    assert "writer 25" not in json.dumps(found["group_leakage"])
    assert "the column 'author' has 26 groups" in found["group_column"]["what"]
    code, _, err = ftlab(capsys, "audit", str(train), "--group", "autor")
    assert code == 2
    assert "has no column 'autor'; it has text, label, author; name a column whose rows belong together" in err


def test_other_columns_are_audited_by_name(capsys, reviews_csv):
    code, out, _ = ftlab(capsys, "audit", str(reviews_csv), "--text", "body", "--label", "verdict", "--json")
    assert code == 0
    assert [line["class"] for line in json.loads(out)["classes"]] == ["0", "1"]


def test_a_data_set_of_the_course_is_audited_by_name(capsys):
    _, out, _ = ftlab(capsys, "audit", "mini_reviews", "--json")
    assert [found["id"] for found in json.loads(out)["findings"]] == ["few_rows"]


def test_a_tokenizer_and_a_max_length_say_what_is_cut(capsys, rows_csv):
    _, out, _ = ftlab(capsys, "audit", str(rows_csv), "--tokenizer", "tiny-distilbert", "--max-length", "64", "--json")
    report = json.loads(out)
    assert report["max_length"] == 64
    assert "truncation" in [found["id"] for found in report["findings"]]
    assert 64 in [line["max_length"] for line in report["budgets"]]


def test_a_folder_with_a_tokenizer_and_no_weights_counts_tokens(capsys, rows_csv, tmp_path):
    from ftlab.models import loading, tiny

    folder = tmp_path / "tokenizer"
    loading.tokenizer("tiny-distilbert").save_pretrained(folder)
    command = ["audit", str(rows_csv), "--tokenizer", str(folder), "--max-length", "64", "--json"]
    alone = json.loads(ftlab(capsys, *command)[1])
    shutil.copy(tiny.folder("tiny-distilbert") / "config.json", folder)
    beside_a_config = json.loads(ftlab(capsys, *command)[1])
    assert alone["lengths"] == beside_a_config["lengths"]
    assert alone["budgets"] != beside_a_config["budgets"]  # the width of the layers is known
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    code, _, err = ftlab(capsys, *command)
    assert (code, "has no tokenizer; save it there" in err, len(err.splitlines())) == (2, True, 1)


def test_instruction_data_is_audited_by_its_columns(capsys, tmp_path):
    texts = sources.read("mini_reviews")["text"].tolist()
    rows = [["Say what this is.", text, answer] for text, answer in zip(texts[:20], texts[20:40], strict=True)]
    rows[3][2] = ""
    file = write_csv(tmp_path / "pairs.csv", ["instruction", "input", "output"], rows)
    columns = ["--prompt", "instruction", "input", "--completion", "output"]
    _, out, _ = ftlab(capsys, "audit", str(file), *columns, "--tokenizer", "tiny-gpt2", "--max-length", "32", "--json")
    report = json.loads(out)
    found = {each["id"]: each["rows"] for each in report["findings"]}
    assert found["empty_completion"] == ["pairs.csv-00003"]
    assert "all_masked" in found
    assert [line["class"] for line in report["classes"]] == ["prompt", "completion", "end"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.csv", "--max-length", "64"], "name the tokenizer that counts them with --tokenizer"),
        (["rows.csv", "--tokenizer", "tiny-gpt2", "--max-length", "4"], "--max-length is 4; expected at least 8"),
        (["rows.csv", "--max-length", "many"], "invalid int value: 'many'"),
        (["rows.csv", "--prompt", "text"], "needs both --prompt and --completion"),
        (["rows.csv", "--completion", "text"], "needs both --prompt and --completion"),
        (
            ["rows.csv", "--prompt", "text", "--completion", "reply"],
            "rows.csv has no column 'reply'; it has text, label",
        ),
        (["rows.csv", "--text", "body"], "rows.csv has no column 'body'; it has text, label"),
        (["rows.csv", "--text", "text", "--label", "text"], "are both 'text'"),
        (["rows.csv", "--test", "nowhere.csv"], "there is no file nowhere.csv"),
        (["rows.csv", "--fail-on", "info"], "invalid choice: 'info'"),
        (["rows.csv", "--tokenizer", "/nowhere/model"], "does not exist"),
        (["nowhere.csv"], "there is no file nowhere.csv"),
        (["imbd"], "there is no data set 'imbd'"),
        (["."], "is not a file type that the course reads"),
        ([], "the following arguments are required: file"),
    ],
)
def test_an_audit_that_cannot_be_made_is_one_line_and_exit_code_2(capsys, rows_csv, monkeypatch, arguments, message):
    monkeypatch.chdir(rows_csv.parent)
    code, out, err = ftlab(capsys, "audit", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_data_set_of_the_course_is_no_instruction_data_and_is_told_so(capsys):
    _, _, err = ftlab(capsys, "audit", "mini_reviews", "--prompt", "text", "--completion", "label")
    assert "there is no data set 'mini_reviews'" not in err


ANSWERS = ["prediction", "probability", "p_bad", "p_fine", "p_good"]
MESSAGES = [
    {"id": "007", "text": "a film", "note": "NA"},
    {"id": "1", "text": "", "note": "missing"},
    {"id": "2", "text": 'caf\u00e9 "noir", twice\nover', "note": ""},
    {"id": "3", "text": "  ", "note": "blank"},
    {"id": "4", "text": "two hours that I will never get back", "note": "x"},
    {"id": "4", "text": "a film", "note": "again"},
    {"id": "6", "text": "a very long film " * 60, "note": "None"},
]
TOLD = "ftlab: 2 of 7 rows have no text, so they get no label"


@pytest.fixture
def model(classifier_folder, monkeypatch):
    """A saved classifier; rows come two at a time."""
    import torch

    monkeypatch.setattr(streams, "chunks", partial(streams.chunks, rows=2))
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two threads of a tiny model wait for each other
    yield str(classifier_folder)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected(classifier_folder) -> list[tuple[str, float] | None]:
    """Label and probability for each of MESSAGES; None where there is no text."""
    from ftlab.inference import Classifier

    texts = [row["text"] for row in MESSAGES]
    answers = Classifier(str(classifier_folder))([text for text in texts if text.strip()])
    found = zip(answers["label"], answers["probability"], strict=True)
    return [next(found) if text.strip() else None for text in texts]


def write_rows(path: Path, rows=MESSAGES) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pd.DataFrame(rows).to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    return path


def read_rows(text: str, suffix: str) -> list[dict]:
    if suffix == ".jsonl":
        return [{name: "" if value is None else value for name, value in json.loads(line).items()}
                for line in text.splitlines()]  # fmt: skip
    file = io.StringIO(text, newline="")
    return list(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ","))


def lines_of(err: str) -> list[str]:
    """What was said on stderr, without the lines that a bar would be on a terminal."""
    return [line for line in err.splitlines() if not line.endswith("...")]


def assert_answered(rows: list[dict], expected, kept=MESSAGES) -> None:
    assert [{name: row[name] for name in kept[0]} for row in rows] == kept
    for row, answer in zip(rows, expected, strict=True):
        assert list(row) == [*kept[0], *ANSWERS]
        if answer is None:
            assert [row[name] for name in ANSWERS] == [""] * len(ANSWERS)
            continue
        assert row["prediction"] == answer[0]
        assert float(row["probability"]) == pytest.approx(answer[1], abs=1e-5)
        assert float(row[f"p_{answer[0]}"]) == float(row["probability"])
        assert sum(float(row[name]) for name in ANSWERS[2:]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("out", [None, ".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_each_row_of_a_file_gets_its_label_beside_its_columns(capsys, tmp_path, model, expected, suffix, out):
    file = write_rows(tmp_path / f"rows{suffix}")
    written = tmp_path / f"answers{out}"
    code, said, err = ftlab(capsys, "predict", model, str(file), *(["--out", str(written)] if out else []))
    assert code == 0
    assert lines_of(err) == [TOLD]
    if out:
        assert said.startswith("7 rows: bad ")
        assert said.rstrip().endswith(str(written))
        said = written.read_bytes().decode()
    assert_answered(read_rows(said, out or ".jsonl"), expected)
    assert len({answer[0] for answer in expected if answer}) > 1


def test_texts_come_one_a_line_from_a_file_or_a_pipe(capsys, tmp_path, monkeypatch, model, expected):
    texts = [{"text": row["text"].replace("\n", " ")} for row in MESSAGES]
    lines = "".join(row["text"] + "\n" for row in texts).encode()
    (tmp_path / "texts.txt").write_bytes(lines)
    for arguments in ([str(tmp_path / "texts.txt")], ["-"], []):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="ascii"))
        code, said, err = ftlab(capsys, "predict", model, *arguments)
        assert (code, lines_of(err)) == (0, [TOLD])
        assert_answered(read_rows(said, ".jsonl"), expected, kept=texts)


def test_another_column_may_hold_the_texts(capsys, tmp_path, model, expected):
    renamed = [{"id": row["id"], "body": row["text"], "text": "not this"} for row in MESSAGES]
    file = write_rows(tmp_path / "rows.csv", renamed)
    _, said, _ = ftlab(capsys, "predict", model, str(file), "--text", "body")
    assert_answered(read_rows(said, ".jsonl"), expected, kept=renamed)


def test_nothing_is_said_on_stderr_where_each_row_has_a_text(capsys, tmp_path, model):
    file = write_rows(tmp_path / "rows.csv", [row for row in MESSAGES if row["text"].strip()])
    assert lines_of(ftlab(capsys, "predict", model, str(file))[2]) == []


def test_a_max_length_cuts_the_texts(capsys, tmp_path, model):
    file = write_rows(tmp_path / "rows.csv", [{"text": "a film"}, {"text": "a film and much more of it"}])
    answers = {}
    for length in ("4", "100"):
        rows = read_rows(ftlab(capsys, "predict", model, str(file), "--max-length", length)[1], ".jsonl")
        answers[length] = [row["p_bad"] for row in rows]
    assert answers["4"][0] == pytest.approx(answers["4"][1], abs=1e-6)
    assert answers["100"][0] != pytest.approx(answers["100"][1], abs=1e-3)


def test_predictions_go_to_the_home_folder(capsys, tmp_path, monkeypatch, model, expected):
    """A shell leaves the ~ of --out=~/answers.csv as it is."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(tmp_path)
    write_rows(home / "rows.csv")
    code, _, err = ftlab(capsys, "predict", model, "~/rows.csv", "--out=~/answers.csv")
    assert (code, lines_of(err)) == (0, [TOLD])
    assert_answered(read_rows((home / "answers.csv").read_bytes().decode(), ".csv"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    code, _, err = ftlab(capsys, "predict", model, "~/rows.csv", "--out=~/rows.csv")
    assert code == 2
    assert "is the file that is read" in lines_of(err)[0]


def test_predictions_are_one_json_object_on_request_and_nothing_else(capsys, tmp_path, model, expected):
    file, out = write_rows(tmp_path / "rows.csv"), tmp_path / "new" / "answers.csv"
    code, said, err = ftlab(capsys, "predict", model, str(file), "--out", str(out), "--json")
    labels = [answer[0] for answer in expected if answer]
    counts = {name: labels.count(name) for name in ("bad", "fine", "good")}
    assert (code, len(said.splitlines()), lines_of(err)) == (0, 1, [TOLD])
    assert json.loads(said) == {"rows": 7, "without_text": 2, "labels": counts, "out": str(out)}
    assert_answered(read_rows(out.read_bytes().decode(), ".csv"), expected)


def test_half_precision_answers_all_but_the_same(capsys, monkeypatch, tmp_path, model, expected):
    import torch

    from ftlab.models import devices

    monkeypatch.setattr(devices, "answer_dtype", lambda: torch.bfloat16)
    code, said, err = ftlab(capsys, "predict", model, str(write_rows(tmp_path / "rows.csv")), "--half")
    assert (code, lines_of(err)) == (0, [TOLD])
    sure = [(row["prediction"], row["probability"]) for row in map(json.loads, said.splitlines()) if row["prediction"]]
    plain = [answer for answer in expected if answer]
    clear = [place for place, (_, probability) in enumerate(plain) if probability > 0.55]
    assert clear
    assert [sure[place][0] for place in clear] == [plain[place][0] for place in clear]
    off = [abs(one[1] - other[1]) for one, other in zip(sure, plain, strict=True)]
    assert 1e-6 < max(off) < 0.03


def test_a_machine_without_half_precision_says_that_it_changes_nothing(capsys, monkeypatch, tmp_path, model, expected):
    import torch

    from ftlab.models import devices

    monkeypatch.setattr(devices, "answer_dtype", lambda: torch.float32)
    code, said, err = ftlab(capsys, "predict", model, str(write_rows(tmp_path / "rows.csv")), "--half")
    assert code == 0
    assert lines_of(err) == ["ftlab: half precision is no faster on this machine, so --half changes nothing", TOLD]
    assert_answered(read_rows(said, ".jsonl"), expected)


def test_answers_that_are_not_sure_enough_say_so_and_are_counted(capsys, tmp_path, model, expected):
    file, out = write_rows(tmp_path / "rows.csv"), tmp_path / "answers.csv"
    # Half-way between two answers: a batch of another shape may round the last digit of one otherwise.
    low, high = sorted({round(answer[1], 4) for answer in expected if answer})[:2]
    bound = (low + high) / 2
    options = ["--out", str(out), "--unsure-below", str(bound), "--json"]
    code, said, _ = ftlab(capsys, "predict", model, str(file), *options)
    assert code == 0
    unsure = sum(answer[1] < bound for answer in expected if answer)
    assert json.loads(said)["labels"]["unsure"] == unsure > 0
    written = pd.read_csv(out)["prediction"].dropna().tolist()
    assert written == [name if sure >= bound else "unsure" for name, sure in filter(None, expected)]


@pytest.mark.parametrize("out", [".csv", ".tsv", ".jsonl"])
def test_a_row_broken_later_leaves_no_answers_and_the_older_ones_as_they_were(capsys, tmp_path, model, out):
    file = write_rows(tmp_path / "rows.jsonl")
    file.write_text(file.read_text(encoding="utf-8") + '{"text": ', encoding="utf-8")
    written = tmp_path / "out" / f"answers{out}"
    for older in (None, "older"):
        code, said, err = ftlab(capsys, "predict", model, str(file), "--out", str(written))
        assert (code, said) == (2, "")
        assert lines_of(err) == [f"ftlab: {file}, line 8: not JSON (Expecting value); expected one object a line"]
        assert [path.read_text(encoding="utf-8") for path in written.parent.iterdir()] == ([older] if older else [])
        written.write_text("older", encoding="utf-8")


PREDICT_FILES = {
    "rows.csv": b"text,n\na film,1\nanother,2\n",
    "taken.csv": b"text,prediction\na film,good\n",
    "taken_later.jsonl": b'{"text": "a"}\n{"text": "b"}\n{"text": "c", "p_good": 1}\n',
    "empty.csv": b"",
    "header.csv": b"text,n\n",
    "empty.txt": b"",
    "picture.csv": b"\x89PNG\r\n\0\0",
    "latin.csv": "text,n\na,1\nb,2\ncaf\u00e9,3\n".encode("latin-1"),
    "latin.txt": "a\nb\ncaf\u00e9\n".encode("latin-1"),
    "ragged.csv": b"text,n\na,1\nb,2\nc,3\nd,e,4\n",
    "table.parquet": b"PAR1",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.csv", "--json"], "--json describes what was written to a file; name the file with --out"),
        (
            ["rows.csv", "--text", "body"],
            "rows.csv has no column 'body'; it has text, n; name the column of the texts with --text",
        ),
        (["rows.csv", "--out", "answers.xlsx"], "answers.xlsx is not a file type that can be written; expected one of"),
        (["rows.csv", "--out", "~nosuchuser/a.csv"], "~nosuchuser/a.csv cannot be looked at"),
        (["rows.csv", "--out", "a" * 300 + ".csv"], "cannot be looked at"),
        (["r" * 300 + ".csv", "--out", "a.csv"], "cannot be looked at"),
        (["rows.csv", "--out", "rows.csv/answers.csv"], "rows.csv/answers.csv cannot be written"),
        (["rows.csv", "--max-length", "2"], "max_length is 2, and MODEL takes 3 to 128 tokens"),
        (["rows.csv", "--max-length", "many"], "invalid int value: 'many'"),
        (["nowhere.csv"], "nowhere.csv does not exist; give a .csv, .tsv, .jsonl, .txt file, or - for"),
        (["."], ". is a folder; give a .csv"),
        (["taken.csv", "--out", "a.csv"], "the rows already have a column 'prediction', which ftlab writes"),
        (["taken_later.jsonl", "--out", "a.csv"], "the rows already have a column 'p_good'"),
        (["empty.csv"], "empty.csv is empty; expected at least one text"),
        (["empty.txt"], "empty.txt is empty"),
        (["header.csv"], "header.csv has no rows"),
        (["picture.csv"], "picture.csv is a binary file; expected text in UTF-8 (csv)"),
        (["latin.csv"], "latin.csv is not UTF-8 (line 4 has the byte 0xe9); save it as UTF-8"),
        (["latin.txt", "--out", "a.csv"], "latin.txt is not UTF-8 (line 3 has the byte 0xe9)"),
        (["ragged.csv", "--out", "a.csv"], "ragged.csv cannot be read as csv"),
        (["table.parquet"], "table.parquet is not a file type that is read in pieces"),
        (["rows.csv", "more.csv"], "unrecognized arguments: more.csv"),
    ],
)
def test_predictions_that_cannot_be_made_are_one_line_and_exit_code_2(
    capsys, tmp_path, monkeypatch, model, arguments, message
):
    for name, content in PREDICT_FILES.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    code, out, err = ftlab(capsys, "predict", model, *arguments)
    assert (code, out) == (2, "")
    assert message.replace("MODEL", model) in lines_of(err)[0]
    assert len(lines_of(err)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PREDICT_FILES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "the model folder nowhere does not exist"),
        ("nowhere", "there is no model 'nowhere'"),
        ("tiny-gpt2", "tiny-gpt2 is not a classifier (GPT2LMHeadModel)"),
        (".", ". is no model: it has no config.json"),
    ],
)
def test_a_model_that_cannot_label_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.csv")
    code, out, err = ftlab(capsys, "predict", name, "rows.csv", "--out", "answers.csv")
    assert (code, out, len(lines_of(err))) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_an_empty_pipe_is_told_as_one(capsys, monkeypatch, model):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, out, err = ftlab(capsys, "predict", model)
    assert (code, out) == (2, "")
    assert lines_of(err) == ["ftlab: stdin has no rows; expected at least one text"]


@pytest.mark.parametrize("rows", few_by_day([3, 4000], 4000), ids=["told at the end", "told within"])
def test_a_reader_who_has_seen_enough_ends_it_in_silence(tmp_path, classifier_folder, rows):
    (tmp_path / "texts.txt").write_text("a film\n" * rows, encoding="utf-8")
    command = [sys.executable, "-m", "ftlab.cli", "predict", str(classifier_folder), str(tmp_path / "texts.txt")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as running:
        running.stdout.close()  # before anything is written: how much a pipe would hold differs
        assert lines_of(running.stderr.read()) == []
        assert running.wait() == 141  # as a shell says of any program whose reader went away
