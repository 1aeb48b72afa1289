import copy
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import nbformat
import pytest

from ftlab import files
from ftlab.course import notebooks, refresh, runner
from ftlab.errors import BadInput, ClaimFailed, LessonFailed

METADATA = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one lesson, "01_data_audit", whose last cell is given. It trains nothing, so a kernel starts fast."""

    def make(last_cell: str):
        folder = tmp_path / "notebooks"
        folder.mkdir(exist_ok=True)
        begin = (
            "from ftlab.course import begin\nlesson = begin(NAME, profile=profile, seed=seed, max_length=max_length)"
        )
        parameters = nbformat.v4.new_code_cell(
            "NAME = '01_data_audit'\nprofile: str = 'smoke'\nseed: int = 0\nmax_length: int = None"
        )
        parameters.metadata.tags = ["parameters"]
        cells = [nbformat.v4.new_markdown_cell("# A lesson"), parameters]
        cells += [nbformat.v4.new_code_cell(source) for source in (begin, last_cell)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=METADATA), folder / "01_data_audit.ipynb")
        monkeypatch.setattr(notebooks, "notebooks_folder", lambda: folder)
        return tmp_path / "out"

    return make


def test_a_run_leaves_the_executed_notebook_metrics_and_record(course):
    out = course("lesson.measure(value=2)\nlesson.finish(f'max_length {lesson.budget.max_length}')")
    folder, (result,) = runner.run(["01"], profile="smoke", parameters={"max_length": "30", "seed": 4}, out=out)
    assert result.headline == "max_length 30"
    executed = nbformat.read(result.notebook, as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    metrics = json.loads((folder / "01_data_audit" / "metrics.json").read_text(encoding="utf-8"))
    record = json.loads((folder / "01_data_audit" / "record.json").read_text(encoding="utf-8"))
    assert (metrics["seed"], metrics["metrics"]) == (4, {"value": 2})
    assert record["wall_seconds"] >= record["seconds"] >= 0
    assert record["set_by_hand"] == {"max_length": 30}


def test_a_contradicted_claim_ends_the_run_and_keeps_the_notebook(course):
    out = course("lesson.claim('one is two', 1, at_least=2, always=True)")
    with pytest.raises(ClaimFailed, match="one is two: at least 2, and measured was 1"):
        runner.run(["01"], profile="smoke", out=out)
    assert (out / "01_data_audit.failed.ipynb").is_file()
    assert not (out / "01_data_audit").exists()
    assert claims(out) == [("one is two", "1.0", "False", "always")]
    course("lesson.claim('one is one', 1, at_least=1)\nlesson.finish('x')")
    runner.run(["01"], profile="smoke", out=out)
    assert claims(out) == [("one is one", "1.0", "True", "reported")]
    left = {"01_data_audit", "01_data_audit.failed.ipynb", "claims.csv"}
    assert {path.name for path in out.iterdir()} == left


def claims(out):
    with (out / "claims.csv").open(encoding="utf-8-sig", newline="") as file:
        return [tuple(row[name] for name in ("claim", "measured", "holds", "standing")) for row in csv.DictReader(file)]


def test_a_failed_run_s_claims_that_cannot_be_removed_leave_a_good_run_good(course, monkeypatch):
    """As on Windows, where somebody has the file open."""
    out = course("pass")
    claim = {"claim": "one is one: at least 1", "value": 1.0, "true": True, "held": False}
    metrics = {
        "lesson": "01_data_audit", "profile": "smoke", "seed": 0, "budget": {}, "claims": [claim],
        "headline": "good",
    }  # fmt: skip
    record = {
        "set_by_hand": {}, "started": "2026-01-03T03:04:05+00:00", "versions": {}, "peak_memory_mb": 1,
        "hardware": {"gpu": None, "processor": "a CPU", "cores": 2},
    }  # fmt: skip
    out.mkdir()
    failed = out / "01_data_audit.failed.json"
    broken = {"claims": [claim | {"value": 0.0, "true": False}], "started": "2026-01-02T03:04:05+00:00"}
    files.write_json(failed, metrics | record | broken)
    remove = files.remove

    def good(lesson, notebook, parameters, *, settings, **others):
        files.write_json(Path(settings["FTLAB_RUN_FOLDER"]) / "metrics.json", metrics)
        files.write_json(Path(settings["FTLAB_RUN_FOLDER"]) / "record.json", record)

    def locked(path):
        if path == failed:
            raise PermissionError(13, "the file is used by another process", str(path))
        remove(path)

    monkeypatch.setattr(runner, "execute", good)
    monkeypatch.setattr(files, "remove", locked)
    _, (result,) = runner.run(["01"], profile="smoke", out=out)
    assert result.headline == "good"
    assert failed.is_file()
    assert claims(out) == [("one is one", "1.0", "True", "reported")]


def test_a_table_of_somebody_else_is_not_overwritten(course, tmp_path):
    out = course("pass")
    out.mkdir()
    (out / "claims.csv").write_text("policy,amount\n1,200\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"claims\.csv was not written by ftlab run.* with --out"):
        runner.run(["01"], profile="smoke", out=out)
    assert (out / "claims.csv").read_text(encoding="utf-8") == "policy,amount\n1,200\n"
    assert [path.name for path in out.iterdir()] == ["claims.csv"]


def test_outputs_and_claims_are_stored_together(course, tmp_path, monkeypatch):
    course("pass")
    folder = tmp_path / "notebooks"
    (run := tmp_path / "run").mkdir()
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("2")])
    nbformat.write(executed, run / "executed.ipynb")
    result = runner.Result("01_data_audit", 1.0, 1, "done", {}, run / "executed.ipynb")
    monkeypatch.setattr(refresh, "notebooks_folder", lambda: folder)
    monkeypatch.setattr(refresh, "run", lambda wanted: (run, [result]))
    before = everything(folder)
    with pytest.raises(BadInput, match="has no lesson that ran"):  # it is the run's own claims that are stored
        refresh.refresh(["01"])
    assert everything(folder) == before
    entry = {"claim": "one is one: at least 1", "value": 1.0, "true": True, "held": True, "standing": "enforced"}
    metrics = {
        "lesson": "01_data_audit", "profile": "cpu", "seed": 0, "budget": {}, "claims": [entry],
    }  # fmt: skip
    record = {
        "set_by_hand": {}, "started": "2026-01-02T03:04:05+00:00", "versions": {},
        "hardware": {"gpu": None, "processor": "a CPU", "cores": 2},
    }  # fmt: skip
    (run / "01_data_audit").mkdir()
    broken = metrics | {"claims": [entry | {"value": 0.0, "true": False}]}
    files.write_json(run / "01_data_audit" / "metrics.json", broken)
    files.write_json(run / "01_data_audit" / "record.json", record)
    with pytest.raises(BadInput, match="1 of them broke the bound"):
        refresh.refresh(["01"])
    assert everything(folder) == before
    assert not (tmp_path / "benchmarks").exists()
    files.write_json(run / "01_data_audit" / "metrics.json", metrics)
    refresh.refresh(["01"])
    stored = json.loads((tmp_path / "benchmarks" / "claims" / "cpu.json").read_text(encoding="utf-8"))
    assert [each["claims"] for each in stored["lessons"]] == [[entry]]
    assert nbformat.read(folder / "01_data_audit.ipynb", as_version=4).cells[0].source == "2"


def test_what_an_earlier_run_left_is_replaced_by_a_good_run_alone(course):
    out = course("lesson.finish('first')")
    runner.run(["01"], profile="smoke", out=out)
    done = out / "01_data_audit" / "metrics.json"
    course("1 / 0")
    with pytest.raises(LessonFailed):
        runner.run(["01"], profile="smoke", out=out)
    assert json.loads(done.read_text(encoding="utf-8"))["headline"] == "first"
    course("lesson.finish('second')")
    runner.run(["01"], profile="smoke", out=out)
    assert json.loads(done.read_text(encoding="utf-8"))["headline"] == "second"


def test_a_full_disk_inside_a_lesson_is_one_sentence_and_leaves_nothing(course):
    out = course("from safetensors import SafetensorError\nraise SafetensorError('I/O error: No space left on device')")
    with pytest.raises(BadInput, match="the disk is full"):
        runner.run(["01"], profile="smoke", out=out)
    assert not out.exists()


def test_a_killed_kernel_is_told_with_a_remedy(course):
    out = course("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(LessonFailed, match="want of memory; close something, or ask for less"):
        runner.run(["01"], profile="smoke", out=out)


def test_the_environment_is_put_back(course, monkeypatch):
    monkeypatch.setenv("FTLAB_RUN_FOLDER", "before")
    monkeypatch.delenv("FTLAB_HEADLESS")
    runner.run(["01"], profile="smoke", out=course("lesson.finish('x')"))
    assert os.environ["FTLAB_RUN_FOLDER"] == "before"
    assert "FTLAB_HEADLESS" not in os.environ


def test_an_error_in_a_lesson_is_told_in_one_sentence(course):
    out = course("1 / 0")
    with pytest.raises(LessonFailed, match="stopped with ZeroDivisionError: division by zero") as raised:
        runner.run(["01"], profile="smoke", out=out)
    assert "\n" not in str(raised.value)


def test_a_wrong_question_noticed_inside_a_lesson_leaves_nothing(course):
    out = course(
        "from ftlab.data.sources import load\nfrom ftlab.data.splits import split\n"
        "split(load('mini_reviews'), rows=9999, validation_rows=10, test_rows=10)"
    )
    with pytest.raises(BadInput, match="rows 120, validation_rows 40 and test_rows 40 would do"):
        runner.run(["01"], profile="smoke", out=out)
    assert not out.exists()


def test_a_parameter_that_the_notebook_does_not_take_is_refused_before_anything_is_written(course):
    out = course("pass")
    with pytest.raises(BadInput, match="has no parameter 'epoch'; it has NAME, profile, seed, max_length"):
        runner.run(["01"], profile="smoke", parameters={"epoch": 3}, out=out)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(course, tmp_path):
    course("pass")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match="cannot be written"):
        runner.run(["01"], profile="smoke", out=tmp_path / "file" / "out")


def everything(folder):
    """Each path, and what is in its file; not of a lock, which Windows lets nobody read while it is held."""
    return {
        path: path.read_bytes() if path.is_file() and path.name != runner.LOCK else None for path in folder.rglob("*")
    }


def test_a_second_run_into_a_folder_is_refused_in_one_sentence_and_touches_nothing(course):
    out = course("lesson.finish('x')")
    (out / ".partial-1").mkdir(parents=True)
    (out / ".partial-1" / "half").write_text("of the first run", encoding="utf-8")
    first = files.acquire_lock(out / runner.LOCK)
    before = everything(out)
    with pytest.raises(
        BadInput,
        match=rf"a run is going on in {re.escape(str(out))} \(process {os.getpid()}\); .* choose another folder",
    ):
        runner.run(["01"], profile="smoke", out=out)
    assert everything(out) == before
    files.release_lock(first)
    runner.run(["01"], profile="smoke", out=out)
    assert sorted(path.name for path in out.iterdir()) == ["01_data_audit"]


RUN_AND_WAIT = """
import os, sys
from pathlib import Path
from ftlab.course import notebooks, runner

print(os.getpid(), flush=True)
notebooks.notebooks_folder = lambda: Path(sys.argv[1])
runner.run(["01"], profile="smoke", out=Path(sys.argv[2]), watch=False)
"""


@pytest.fixture
def temporary(monkeypatch):
    """A temporary folder for what is killed, with a path as short as a kernel's sockets need."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield folder


def test_a_killed_run_is_swept_by_the_next_one_which_brings_back_what_was_there(course, tmp_path, temporary):
    out = course("lesson.finish('first')")
    runner.run(["01"], profile="smoke", out=out)
    course(f"import time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(60)")
    command = [sys.executable, "-c", RUN_AND_WAIT, str(tmp_path / "notebooks"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        number = run.stdout.readline().strip()  # in a venv of Windows `run.pid` is that of a launcher
        while not (tmp_path / "begun").exists():
            assert run.poll() is None
            time.sleep(0.05)
        with pytest.raises(BadInput, match=rf"a run is going on in {re.escape(str(out))} \(process {number}\)"):
            runner.run(["01"], profile="smoke", out=out)
        run.kill()
    assert len(list(out.glob(files.PARTIAL + "*"))) == 1
    (out / "01_data_audit").rename(out / "moved aside")
    (out / (files.ASIDE + "1")).mkdir()  # as it is between the two renames
    (out / "moved aside").rename(out / (files.ASIDE + "1") / "01_data_audit")
    course("1 / 0")
    with pytest.raises(LessonFailed):
        runner.run(["01"], profile="smoke", out=out)
    left = {"01_data_audit", "01_data_audit.failed.ipynb"}
    assert {path.name for path in out.iterdir()} == left
    assert json.loads((out / "01_data_audit" / "metrics.json").read_text(encoding="utf-8"))["headline"] == "first"


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(runner, "datetime", Frozen)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runner._fresh_folder(tmp_path / "runs", "smoke"), range(24)))
    assert len(set(folders)) == 24
    assert all(folder.is_dir() for folder in folders)
    assert "20260102-030405-smoke" in {folder.name for folder in folders}


def test_a_lesson_that_never_finishes_is_told_and_keeps_its_notebook(course):
    out = course("pass")
    with pytest.raises(LessonFailed, match=r"without `lesson.finish\(...\)`.* the notebook is 01_data_au"):
        runner.run(["01"], profile="smoke", out=out)
    assert [path.name for path in out.iterdir()] == ["01_data_audit.failed.ipynb"]


def test_checkpoints_stay_until_the_results_stand_under_their_name(course, monkeypatch):
    out = course("lesson.checkpoints.mkdir()\nlesson.finish('x')")
    write_json = files.write_json

    def full(path, value):
        if path.name == "record.json":
            raise BadInput("the disk is full")
        write_json(path, value)

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(BadInput):
        runner.run(["01"], profile="smoke", out=out)
    assert [path.name for path in out.iterdir()] == ["01_data_audit.checkpoints"]
    monkeypatch.undo()
    course("lesson.finish('x')")
    runner.run(["01"], profile="smoke", out=out)
    assert [path.name for path in out.iterdir()] == ["01_data_audit"]


def test_the_notebooks_are_stored_by_one_process_at_a_time(course, tmp_path, monkeypatch):
    course("lesson.finish('x')")
    monkeypatch.setattr(refresh, "notebooks_folder", lambda: tmp_path / "notebooks")
    lock = files.acquire_lock(tmp_path / "notebooks" / runner.LOCK)
    before = everything(tmp_path)
    with pytest.raises(BadInput, match=rf"are being stored anew \(process {os.getpid()}\); wait until"):
        refresh.refresh(["01"])
    assert everything(tmp_path) == before
    files.release_lock(lock)


@pytest.mark.parametrize(
    "name", ["02", "2", "02_text_classification", "text_classification", "notebooks/02_text_classification.ipynb"]
)
def test_a_lesson_is_found_by_number_name_or_path(name):
    assert [lesson.name for lesson in notebooks.lessons([name])] == ["02_text_classification"]


def test_lessons_run_in_the_order_of_the_course():
    assert [lesson.number for lesson in notebooks.lessons(["02", "01"])] == ["01", "02"]
    with pytest.raises(BadInput, match="there is no lesson '17'; there are 00_start_here, 01_data_audit"):
        notebooks.lessons(["17"])


def test_papermill_reads_the_types_of_every_parameter():
    from papermill import inspect_notebook

    for lesson in notebooks.lessons():
        types = {name: entry["inferred_type_name"] for name, entry in inspect_notebook(lesson.path).items()}
        assert list(types)[:2] == ["profile", "seed"]
        assert all(kind in ("str", "int") or kind.startswith("Optional[") for kind in types.values()), types


def test_stripping_takes_addresses_and_times_out_of_outputs():
    cell = nbformat.v4.new_code_cell("table")
    table = {"text/plain": "<Styler at 0x7f1bc6>", "text/html": "[189/189 01:49, Epoch 3/3]"}
    cell.outputs = [nbformat.v4.new_output("display_data", table)]
    (kept,) = refresh.strip_noise(nbformat.v4.new_notebook(cells=[cell])).cells
    assert kept.outputs[0].data == {"text/plain": "<Styler>", "text/html": "[189/189, Epoch 3/3]"}


def test_stripping_takes_the_noise_and_leaves_the_outputs():
    notebook = nbformat.v4.new_notebook(
        metadata={"papermill": {"duration": 3}, "language_info": {"name": "python", "version": "3.11.7"}}
    )
    cell = nbformat.v4.new_code_cell(
        "1 + 1",
        execution_count=7,
        outputs=[nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=7)],
    )
    cell.metadata = nbformat.from_dict({"tags": ["keep"], "execution": {"iopub.execute_input": "now"}, "papermill": {}})
    injected = nbformat.v4.new_code_cell("rows = 3", metadata={"tags": ["injected-parameters"]})
    notebook.cells = [injected, cell]
    before = copy.deepcopy(notebook)
    clean = refresh.strip_noise(notebook)
    assert notebook == before
    (kept,) = clean.cells
    assert kept.metadata == {"tags": ["keep"]}
    assert (kept.execution_count, kept.outputs[0].execution_count) == (1, 1)
    assert kept.outputs[0].data == {"text/plain": "2"}
    assert "papermill" not in clean.metadata
    assert clean.metadata.language_info == {"name": "python"}
