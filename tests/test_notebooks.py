"""The rules that stored notebooks keep: run once, in order, quiet, verified, and honest in their prose."""

import ast
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from ftlab.course import notebooks, profiles, runner
from ftlab.data import sources

IGNORED = "nbval-ignore-output"
LESSONS = notebooks.lessons()


@pytest.fixture(params=LESSONS, ids=lambda lesson: lesson.name)
def lesson(request):
    return request.param


@pytest.fixture
def notebook(lesson):
    return nbformat.read(lesson.path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def is_definition(source: str) -> bool:
    """Whether a cell only imports, defines and assigns, so that it has nothing to show."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    body = ast.parse(source).body
    return all(isinstance(node, kinds) or _is_setting(node) for node in body)


def _is_setting(node: ast.stmt) -> bool:
    """`set_seed(...)`, `lesson.used(...)` and `lesson.measure(...)` show nothing by design."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return ast.unparse(node.value.func) in ("set_seed", "lesson.used", "lesson.measure", "trainer.save_model")


def test_every_cell_was_run_once_and_in_order(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))


def test_a_compared_cell_has_output_or_is_a_definition(notebook):
    for cell in code(notebook):
        if IGNORED not in tags(cell):
            assert cell.outputs or is_definition(cell.source), cell.source


def test_few_cells_are_ignored_and_each_says_why(notebook):
    ignored = [cell for cell in code(notebook) if IGNORED in tags(cell)]
    assert len(ignored) / len(code(notebook)) <= 0.25
    for cell in ignored:
        assert len(cell.metadata.get("ftlab", {}).get("ignored_because", "")) > 10, cell.source


def test_no_comment_overrules_a_tag_and_no_cell_is_skipped(notebook):
    for cell in code(notebook):
        assert not re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)", cell.source, re.IGNORECASE)
        assert not {"nbval-skip", "raises-exception"} & set(tags(cell))


def test_the_test_split_is_opened_through_the_lesson_which_records_it(notebook):
    for cell in code(notebook):
        assert not re.search(r"(?<!\blesson)\.open_test\(", cell.source), cell.source


def test_no_cell_ends_in_an_error_or_speaks_on_stderr(notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert "Warning" not in text
            assert "%|" not in text  # a progress bar's last breath


def test_stored_outputs_are_free_of_machine_noise(notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", "ftlab"}
    outputs = str([cell.get("outputs") for cell in notebook.cells])
    assert not re.search(r"/(tmp|home|root|Users|work)/| at 0x[0-9a-f]+|\d/\d+ \d\d:\d\d", outputs)
    assert len(nbformat.writes(notebook)) < 1_000_000


def test_the_first_code_cell_holds_the_annotated_parameters(lesson, notebook):
    first, second = code(notebook)[:2]
    assert "parameters" in tags(first)
    declared = {node.target.id: node for node in ast.parse(first.source).body if isinstance(node, ast.AnnAssign)}
    known = {"profile", "seed", *profiles.COLUMNS, *profiles.table()[lesson.slug]["cpu"]}
    assert list(declared)[:2] == ["profile", "seed"]
    assert set(declared) <= known
    for name, node in declared.items():
        assert ast.literal_eval(node.value) == {"profile": "cpu", "seed": 0}.get(name)
    assert f'begin("{lesson.name}", globals())' in second.source  # each of them reaches the lesson


def test_the_header_says_minutes_needs_and_questions(notebook):
    header = notebook.cells[0].source
    assert header.startswith("# Lesson ")
    assert all(f"**{word}**" in header for word in ("Takes", "Needs", "You can answer afterwards"))


LIMITS = {"under a minute": 60, "one to two minutes": 120, "two to three minutes": 180, "about three minutes": 200}


def test_the_header_s_minutes_and_the_readme_s_are_measured_ones(lesson, notebook, repository):
    stored = json.loads((repository / "benchmarks" / "results" / "first_run.json").read_text())
    measured = stored["result"]["lessons"][lesson.name]
    (limit,) = [seconds for words, seconds in LIMITS.items() if words in notebook.cells[0].source]
    assert measured["seconds"] < limit
    row = f"{measured['seconds'] / 60:.1f} | {measured['peak_memory_mb'] / 1000:.1f} GB |"
    assert row in (repository / "README.md").read_text()


def test_each_code_cell_is_short_and_every_section_has_a_sentence(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= 25, cell.source
    assert statistics.median(len(cell.source.splitlines()) for cell in code(notebook)) < 12
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.fullmatch(r"#+ .*", cell.source.strip()), f"a heading alone: {cell.source}"


def test_every_figure_has_an_alternative_text(notebook):
    figures = 0
    for cell in code(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                figures += 1
                assert len(output.metadata["image/png"]["alt"]) > 20
    assert figures >= 2


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def test_prose_holds_no_measured_number(notebook, repository):
    """A number in prose stands in a cell of code, in the profiles, beside its source, or is not there."""
    inputs = " ".join(cell.source for cell in code(notebook))
    inputs += (repository / "ftlab" / "course" / "profiles.toml").read_text()
    allowed = {number.replace(",", "") for number in NUMBER.findall(inputs)}
    for cell in notebook.cells[1:]:
        if cell.cell_type != "markdown":
            continue
        for line in cell.source.splitlines():
            if "](http" in line or re.match(r"\d+\. ", line):
                continue  # a cited figure, or the number of a point in a list
            plain = re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|^#.*$", "", line)
            for number in NUMBER.findall(plain):
                assert number.replace(",", "") in allowed, f"{number!r} in: {line}"


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """The folder of a lesson's smoke run and its result; each lesson is run once for all tests here."""

    @functools.cache
    def run(number: str):
        folder, (result,) = runner.run(
            [number], profile="smoke", out=tmp_path_factory.mktemp("smoke") / number, watch=False
        )
        return folder / result.lesson, result

    return run


def test_the_smoke_profile_runs_every_cell_without_a_download(lesson, smoke_run):
    _, result = smoke_run(lesson.number)
    executed = nbformat.read(result.notebook, as_version=4)
    assert all(cell.execution_count for cell in code(executed))
    assert result.metrics["profile"] == "smoke"


def test_two_runs_give_identical_metrics(lesson, smoke_run, tmp_path):
    folder, _ = smoke_run(lesson.number)
    again, _ = runner.run([lesson.number], profile="smoke", out=tmp_path / "again", watch=False)
    assert (folder / "metrics.json").read_bytes() == (again / lesson.name / "metrics.json").read_bytes()


def test_your_own_file_with_gaps_is_audited_and_not_refused(tmp_path):
    """Fewer rows than the profile takes, missing texts and labels: what an audit is for."""
    rows = [f"an opinion of film {number},{'good' if number % 2 else 'bad'}" for number in range(60)]
    rows += [",good", "a film without a verdict,"]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]))
    parameters = {"dataset": str(tmp_path / "mine.csv"), "model": "tiny-distilbert", "max_length": 64}
    _, (result,) = runner.run(["01"], profile="cpu", parameters=parameters, out=tmp_path / "out", watch=False)
    assert result.metrics["metrics"]["rows"] == 62
    assert "3 findings, 2 of them errors; 60 rows after repair" in result.headline


def test_your_own_file_with_a_rare_class_trains_with_class_weights(tmp_path):
    tickets = sources.read("tickets")[["text", "label"]]
    rare = tickets["label"] == "billing"
    pd.concat([tickets[~rare], tickets[rare].head(12)]).to_csv(tmp_path / "mine.csv", index=False)
    parameters = {"dataset": str(tmp_path / "mine.csv")}
    folder, (result,) = runner.run(["02"], profile="smoke", parameters=parameters, out=tmp_path / "out", watch=False)
    said = str([cell.get("outputs") for cell in nbformat.read(result.notebook, as_version=4).cells])
    assert "class weights: [" in said
    card = (folder / "02_text_classification" / "model" / "README.md").read_text(encoding="utf-8")
    assert "one of 4 labels" in card
    assert str(tmp_path) not in card


def test_no_answer_that_is_sure_enough_is_a_result_of_lesson_06(tmp_path):
    parameters = {"wanted_accuracy": 1.0}  # of a classifier that has learned nothing
    folder, (result,) = runner.run(["06"], profile="smoke", parameters=parameters, out=tmp_path / "out", watch=False)
    assert result.metrics["metrics"]["coverage"] == 0
    assert result.metrics["metrics"]["accuracy_of_answered"] is None
    assert "tickets none sure enough" in result.headline
    record = json.loads((folder / "06_merge_and_inference" / "record.json").read_text())
    assert len(record["test_split_opened"]) == 3


def test_notebooks_under_nbval_have_folders_like_those_of_a_run_and_leave_nothing(repository, tmp_path):
    """Each its own, named after it, where the next one finds it; and what a kernel leaves behind goes, too."""
    cells = {
        "05_lora_phi2": [
            "import os, tempfile\nfrom pathlib import Path\nfolder = Path(os.environ['FTLAB_RUN_FOLDER'])",
            "(folder / 'adapter').mkdir(parents=True)\n(folder.parent / '05_lora_phi2.checkpoints').mkdir()",
            "left = tempfile.mkdtemp()\nprint(folder.name)",
        ],
        "06_merge_and_inference": [
            "import os\nfrom pathlib import Path\nfolder = Path(os.environ['FTLAB_RUN_FOLDER'])",
            "print(folder.name, (folder.parent / '05_lora_phi2' / 'adapter').is_dir(), folder.exists())",
        ],
    }
    printed = {"05_lora_phi2": "05_lora_phi2\n", "06_merge_and_inference": "06_merge_and_inference True False\n"}
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "shared").mkdir()
    shutil.copy(repository / "conftest.py", tmp_path)
    for name, sources_ in cells.items():
        made = [
            nbformat.v4.new_code_cell(source, execution_count=place) for place, source in enumerate(sources_, start=1)
        ]
        made[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed[name])]
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), tmp_path / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    done = subprocess.run(
        [*command, "notebooks"], cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path / "shared")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to cut the network off")
def test_a_lesson_runs_with_the_network_cut_off(tmp_path):
    cut_off = ["unshare", "--net", "--map-root-user"]  # not even the loopback
    if subprocess.run([*cut_off, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not cut the network off here")
    command = [sys.executable, "-m", "ftlab.cli", "run", "02", "--profile", "smoke", "--out", str(tmp_path / "out")]
    done = subprocess.run([*cut_off, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ratings_from_a_form_are_read_where_nobody_is_there_to_rate(smoke_run, tmp_path):
    folder, _ = smoke_run("04")
    form = pd.read_csv(folder / "ratings.csv", keep_default_na=False)
    form.assign(rating=3).to_csv(tmp_path / "mine.csv", index=False)
    parameters = {"ratings": str(tmp_path / "mine.csv")}
    _, (result,) = runner.run(["04"], profile="smoke", parameters=parameters, out=tmp_path / "two", watch=False)
    said = str([cell.get("outputs") for cell in nbformat.read(result.notebook, as_version=4).cells])
    assert "difference 0.000 [-3.368, 3.368]; 2 of 2 repeated answers were rated the same again" in said


def test_your_own_instructions_are_a_task(tmp_path):
    rows = [{"instruction": f"Say the word number {place}.", "output": f"word {place}"} for place in range(60)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parameters = {"task": str(tmp_path / "mine.jsonl")}
    _, (result,) = runner.run(["04"], profile="smoke", parameters=parameters, out=tmp_path / "out", watch=False)
    assert result.metrics["budget"]["task"].endswith("mine.jsonl")
    assert "tuned_rouge-l" in result.metrics["metrics"]
