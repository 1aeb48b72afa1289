import csv
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ftlab import cli
from ftlab.data import sources


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
        (["run", "02", "-p", "rows", "0"], "rows is 0; expected at least 1"),
        (["run", "02", "-p", "rows", "many"], "expected a whole number"),
        (["run", "02", "-p", "learning_rate", "-2e-5"], "expected more than 0"),
        (["run", "02", "--profile", "smoke", "-p", "max_length", "4000"], "positions for at most 128 tokens"),
        (["run", "02", "-y", "rows: [1"], "--yaml is not YAML"),
        (["run", "02", "-y", "400"], "expected 'name: value'"),
        (["run", "02", "-f", "nowhere.yaml"], "the parameter file nowhere.yaml cannot be read"),
        (["run", "02", "-p", "dataset", "nowhere.csv"], "there is no file nowhere.csv"),
        (["run", "02", "-p", "model", "/nowhere/model"], "does not exist"),
        (["run", "02", "-p", "rows"], "expected 2 arguments"),
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
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    code, _, err = ftlab(capsys, "run", "02", "-p", "model", str(tmp_path))
    assert code == 2
    assert "pickle checkpoint (pytorch_model.bin)" in err


def test_parameters_come_from_a_file_yaml_and_pairs_and_the_later_wins(tmp_path):
    (tmp_path / "p.yaml").write_text("rows: 100\nlearning_rate: 2e-5\n")
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
    assert cli._parameters(options) == {"rows": 300, "learning_rate": "2e-5", "epochs": 1, "dataset": "imdb"}


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
    budget = json.loads((reviews_csv.parent / "out" / "02_text_classification" / "metrics.json").read_text())["budget"]
    assert (budget["rows"], budget["learning_rate"]) == (30, 5e-4)
    assert (reviews_csv.parent / "out" / "02_text_classification" / "model" / "model.safetensors").is_file()


def test_importing_ftlab_loads_no_torch_transformers_or_pandas():
    code = "import sys, ftlab, ftlab.cli; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def rows_csv(tmp_path) -> Path:
    """Reviews with an e-mail address and a copy among them: warnings, and no error."""
    rows = sources.read("mini_reviews")[["text", "label"]].values.tolist()
    rows[5][0] += " (write to jo@example.com)"
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


def test_an_older_page_stays_where_an_audit_cannot_be_made(capsys, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "report.html").write_text("older")
    code, _, _ = ftlab(capsys, "audit", str(tmp_path / "empty.csv"), "--html", str(tmp_path / "report.html"))
    assert code == 2
    assert (tmp_path / "report.html").read_text() == "older"


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
