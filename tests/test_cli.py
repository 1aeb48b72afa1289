import json
import subprocess
import sys

import pytest

from ftlab import cli


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
