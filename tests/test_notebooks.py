"""Stored notebooks keep their rules, and lessons run: whole, twice alike, and with what people bring."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from ftlab.course import notebooks, runner, trainings
from ftlab.data import sources
from ftlab.exercises import manifest
from tests import cells, isolation, notebook_rules, pages
from tests.nightly import NIGHTLY, few_by_day

LESSONS = notebooks.lessons()
REPOSITORY = Path(__file__).resolve().parents[1]
KEPT = [(path, rule) for path in pages.notebooks(REPOSITORY)
        for rule in notebook_rules.rules_of(notebook_rules.kind_of(path))]  # fmt: skip


@functools.cache
def read(path: Path) -> nbformat.NotebookNode:
    """A stored notebook; rules only look at it."""
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=LESSONS, ids=lambda lesson: lesson.name)
def lesson(request):
    return request.param


@pytest.mark.parametrize(
    ("path", "rule"), KEPT, ids=[f"{path.parent.name}/{path.stem}-{rule.__name__}" for path, rule in KEPT]
)
def test_a_stored_notebook_keeps_the_rule(path, rule):
    rule(read(path), path)


def test_every_notebook_is_read():
    kinds = [notebook_rules.kind_of(path) for path in {path for path, _ in KEPT}]
    levels = len(manifest.levels())
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "lesson": len(LESSONS),
        "solution": levels,
        "starter": levels,
    }


LIMITS = {"under a minute": 60, "one to two minutes": 120, "two to three minutes": 180, "about three minutes": 200}


def test_the_header_s_minutes_and_the_readme_s_are_measured_ones(lesson, repository):
    stored = json.loads((repository / "benchmarks" / "results" / "first_run.json").read_text(encoding="utf-8"))
    measured = stored["result"]["lessons"][lesson.name]
    (limit,) = [seconds for words, seconds in LIMITS.items() if words in read(lesson.path).cells[0].source]
    assert measured["seconds"] < limit
    row = f"{measured['seconds'] / 60:.1f} | {measured['peak_memory_mb'] / 1000:.1f} GB |"
    assert row in (repository / "README.md").read_text(encoding="utf-8")


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


@pytest.mark.parametrize(
    ("what", "saved"),
    [("classify", "model/model"), ("instruct", "model/model"), ("lora", "adapter/adapter_model")],
)
def test_the_command_trains_what_the_lesson_trains(what, saved, tmp_path, one_thread):
    lesson = cells.run(trainings.LESSONS[what][:2], tmp_path, {})["folder"]
    done = trainings.train(what, "smoke", {}, trainings.Options(), tmp_path / "out")
    weights = [(folder / f"{saved}.safetensors").read_bytes() for folder in (lesson, done.folder)]
    assert weights[0] == weights[1]
    assert {path.name for path in lesson.iterdir() if path.is_dir()} >= {
        path.name for path in done.folder.iterdir() if path.is_dir()
    }
    ours, theirs = (
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (done.folder, lesson)
    )
    assert ours["budget"] == theirs["budget"]
    assert ours["lesson"] == theirs["lesson"]
    same = ours["metrics"].keys() & theirs["metrics"].keys()
    assert same
    assert {name: ours["metrics"][name] for name in same} == {name: theirs["metrics"][name] for name in same}


# By day nbval runs every lesson on a kernel, and the tests here run them in this process.
@pytest.mark.night
@pytest.mark.slow
@pytest.mark.parametrize("number", [lesson.number for lesson in LESSONS])
def test_the_smoke_profile_runs_every_cell_without_a_download(number, smoke_run):
    _, result = smoke_run(number)
    executed = nbformat.read(result.notebook, as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert result.metrics["profile"] == "smoke"


# By day 02, 04 and 05 are compared with the command, above, and 00 trains as 03 does.
@pytest.mark.slow
@pytest.mark.parametrize("number", few_by_day([lesson.number for lesson in LESSONS], "01", "03", "06"))
def test_two_runs_give_identical_metrics(number, smoke_run, tmp_path, one_thread):
    """The second in this process, after whatever has run here before; the first, too, or at night on its own kernel."""
    first = smoke_run(number)[0] if NIGHTLY else cells.run(number, tmp_path / "first", {})["folder"]
    again = cells.run(number, tmp_path / "again", {})["folder"]
    assert (first / "metrics.json").read_bytes() == (again / "metrics.json").read_bytes()


@pytest.mark.slow
def test_your_own_file_with_gaps_is_audited_and_not_refused(tmp_path, one_thread):
    """Fewer rows than the profile takes, missing texts and labels: what an audit is for."""
    rows = [f"an opinion of film {number},{'good' if number % 2 else 'bad'}" for number in range(60)]
    rows += [",good", "a film without a verdict,"]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    parameters = {"dataset": str(tmp_path / "mine.csv"), "model": "tiny-distilbert", "max_length": 64}
    found = cells.run("01", tmp_path / "out", parameters, profile="cpu")
    assert found["metrics"]["rows"] == 62
    assert "3 findings, 2 of them errors; 60 rows after repair" in found["headline"]


@pytest.mark.slow
def test_your_own_file_with_a_rare_class_trains_with_class_weights(tmp_path, one_thread):
    tickets = sources.read("tickets")[["text", "label"]]
    rare = tickets["label"] == "billing"
    pd.concat([tickets[~rare], tickets[rare].head(12)]).to_csv(tmp_path / "mine.csv", index=False)
    found = cells.run("02", tmp_path / "out", {"dataset": str(tmp_path / "mine.csv")})
    assert "class weights: [" in found["said"]
    card = (found["folder"] / "model" / "README.md").read_text(encoding="utf-8")
    assert "one of 4 labels" in card
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_no_answer_that_is_sure_enough_is_a_result_of_lesson_06(tmp_path, one_thread):
    found = cells.run("06", tmp_path / "out", {"wanted_accuracy": 1.0})  # of a classifier that has learned nothing
    assert found["metrics"]["coverage"] == 0
    assert found["metrics"]["accuracy_of_answered"] is None
    assert "tickets none sure enough" in found["headline"]
    record = json.loads((found["folder"] / "record.json").read_text(encoding="utf-8"))
    assert len(record["test_split_opened"]) == 3


@pytest.mark.slow
def test_notebooks_under_nbval_have_folders_like_those_of_a_run_and_leave_nothing(repository, tmp_path):
    """Each its own, named after it, where the next one finds it; and what a kernel leaves behind goes, too."""
    written = {
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
    for name, sources_ in written.items():
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


@pytest.mark.night
@pytest.mark.slow
def test_a_lesson_runs_with_the_network_cut_off(tmp_path):
    cut_off = ["unshare", "--net", "--map-root-user"]  # not even the loopback
    if not shutil.which("unshare") or subprocess.run([*cut_off, "true"], capture_output=True, check=False).returncode:
        isolation.lacking("may not cut the network off here")
    command = [sys.executable, "-m", "ftlab.cli", "run", "00", "--profile", "smoke", "--out", str(tmp_path / "out")]
    done = subprocess.run([*cut_off, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_ratings_from_a_form_are_read_where_nobody_is_there_to_rate(tmp_path, one_thread):
    folder = cells.run("04", tmp_path / "one", {})["folder"]
    form = pd.read_csv(folder / "ratings.csv", keep_default_na=False)
    form.assign(rating=3).to_csv(tmp_path / "mine.csv", index=False)
    found = cells.run("04", tmp_path / "two", {"ratings": str(tmp_path / "mine.csv")})
    assert "difference 0.000 [-3.368, 3.368]; 2 of 2 repeated answers were rated the same again" in found["said"]


@pytest.mark.slow
def test_your_own_instructions_are_a_task(tmp_path, one_thread):
    rows = [{"instruction": f"Say the word number {place}.", "output": f"word {place}"} for place in range(60)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = cells.run("04", tmp_path / "out", {"task": str(tmp_path / "mine.jsonl")})
    assert found["budget"]["task"].endswith("mine.jsonl")
    assert "tuned_rouge-l" in found["metrics"]
