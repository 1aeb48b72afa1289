"""The benchmark of a first run reads what a run leaves behind, whatever it prints."""

import json
import os
import sys
import time

import pytest

from ftlab.data.assets import ASSETS
from tests import modules


@pytest.fixture(scope="module")
def first_run(repository):
    return modules.load(repository / "benchmarks" / "first_run.py")


@pytest.fixture
def clone(tmp_path):
    """What `make run` leaves: a set-up of 60 s, a fetch of 20 s, and two lessons of 40 and 100 s."""
    began = time.time() - 1000

    def write(path, text, at):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (began + at, began + at))

    write(tmp_path / ".venv" / "ready", "", 60)
    for name, seconds, end in (("00_start_here", 40.0, 120), ("01_data_audit", 100.0, 220)):
        folder = tmp_path / "runs" / "20260101-000000-cpu" / name
        written = {"headline": f"{name} is done", "metrics": {"accuracy": 0.8}, "claims": [], "budget": {}}
        write(folder / "metrics.json", json.dumps(written), end)
        write(
            folder / "record.json",
            json.dumps({"lesson": name, "wall_seconds": seconds, "peak_memory_mb": 1500, "started": ""}),
            end,
        )
    return tmp_path, began


def test_phases_are_read_from_what_a_run_leaves(first_run, clone):
    assert first_run.phases(*clone, []) == {
        "set_up_seconds": pytest.approx(60, abs=0.2),
        "fetch_seconds": pytest.approx(20, abs=0.2),
        "first_success_seconds": pytest.approx(120, abs=0.2),
    }


def test_without_a_stamp_the_set_up_ends_at_the_first_download(first_run, clone):
    folder, began = clone
    (folder / ".venv" / "ready").unlink()
    found = first_run.phases(folder, began, [(0.1, "ftlab: setting up\n"), (70.0, "ftlab: downloading minilm\n")])
    assert found["set_up_seconds"] == 70
    assert first_run.phases(folder, began, [])["set_up_seconds"] == pytest.approx(80, abs=0.2)


def test_a_run_without_lessons_is_an_error(first_run, tmp_path):
    with pytest.raises(RuntimeError, match="no lesson"):
        first_run.phases(tmp_path, time.time(), [])


def test_what_the_lessons_measured_is_stored_beside_what_they_took(first_run, clone):
    found = first_run.lessons(clone[0])
    assert list(found) == ["00_start_here", "01_data_audit"]
    assert found["01_data_audit"] == {
        "seconds": 100.0,
        "peak_memory_mb": 1500,
        "headline": "01_data_audit is done",
        "metrics": {"accuracy": 0.8},
        "claims": [],
    }


@pytest.mark.parametrize(
    ("lines", "mb"),
    [
        (["ftlab: setting up .venv, once; 2,400 MB are free"], None),
        (["ftlab: setting up .venv", "ftlab: 128 packages: 515 MB to download; unpacked about 2,300 MB"], 515),
        (["ftlab: 150 packages: at least 12.3 GB to download (sizes unknown: 3); unpacked about 40 GB"], 12300),
        (["ftlab: 182 packages: 515 MB (300 MB of it from this disk); unpacked they take about 2,318 MB"], 515),
        (["ftlab: 150 packages: about 3,500 MB to download, an estimate"], 3500),
        (["ftlab: downloading minilm", "ftlab: 84 MB to download"], None),
        (["ftlab: running 01_data_audit", "ftlab: 9 MB to download"], None),
        (["ftlab: 01_data_audit · rows", "ftlab: 9 MB to download"], None),
    ],
)
def test_the_announced_download_is_that_of_the_set_up(first_run, lines, mb):
    assert first_run.announced_mb(list(enumerate(lines))) == mb


def test_only_the_packages_in_the_cache_count_as_fetched(first_run, tmp_path):
    assert first_run.fetched_mb(tmp_path) == 0
    (tmp_path / "assets" / ASSETS["minilm"].folder.name).mkdir(parents=True)
    assert first_run.fetched_mb(tmp_path) == ASSETS["minilm"].download_mb


def _with_makefile(folder, *lines):
    (folder / "Makefile").write_text("run:\n" + "".join(f"\t@{line}\n" for line in lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("says", ["running 01_data_audit", "01_data_audit · What is wrong with these rows?"])
def test_a_run_is_stopped_when_its_first_lesson_begins(first_run, tmp_path, says):
    folder = _with_makefile(tmp_path, 'echo "ftlab: this takes about 16 minutes"', f'echo "ftlab: {says}"', "sleep 60")
    said, seconds = first_run.make_run(folder, dict(os.environ), until=first_run.LESSON_BEGINS)
    assert [line for _, line in said] == ["ftlab: this takes about 16 minutes\n", f"ftlab: {says}\n"]
    assert seconds < 30


def test_a_run_that_fails_says_its_last_line(first_run, tmp_path):
    folder = _with_makefile(tmp_path, 'echo "ftlab: pip could not set up .venv" >&2', "exit 3")
    with pytest.raises(RuntimeError, match=r"make run exited with 2: ftlab: pip could not set up \.venv"):
        first_run.make_run(folder, dict(os.environ))


def test_a_run_that_never_begins_a_lesson_is_an_error(first_run, tmp_path):
    folder = _with_makefile(tmp_path, 'echo "ftlab: nothing to do"')
    with pytest.raises(RuntimeError, match="without a line like"):
        first_run.make_run(folder, dict(os.environ), until=first_run.LESSON_BEGINS)


def test_a_first_run_is_measured_from_end_to_end(first_run, tmp_path, monkeypatch):
    """With a Makefile that plays a newcomer's: set-up, fetch, one lesson; and nothing of it in the repository."""
    written = {"headline": "done", "metrics": {"accuracy": 0.8}, "claims": []}
    record = {"lesson": "00_start_here", "wall_seconds": 0.1, "peak_memory_mb": 1500}
    repository = tmp_path / "repository"
    (repository / "runs" / "old" / "09_old").mkdir(parents=True)
    (repository / "runs" / "old" / "09_old" / "record.json").write_text("{}", encoding="utf-8")
    lesson = "runs/new/00_start_here"
    (repository / ".cache").mkdir()
    for name in ("PYTHON", "TORCH", "FTLAB_TORCH_INDEX"):
        monkeypatch.setenv(name, "of the one who measures")
    _with_makefile(
        repository,
        'test -z "$$PYTHON$$TORCH$$FTLAB_TORCH_INDEX"',
        "test ! -e .cache",
        'echo "ftlab: 3 packages: 515 MB to download"',
        f"mkdir -p .venv/bin {lesson} $$FTLAB_HOME/assets/{ASSETS['minilm'].folder.name}",
        f"ln -sf {sys.executable} .venv/bin/python && touch .venv/ready",
        'echo "ftlab: downloading minilm" >&2',
        'echo "ftlab: running 00_start_here" >&2',
        "sleep 0.3",
        f"echo '{json.dumps(written)}' > {lesson}/metrics.json && echo '{json.dumps(record)}' > {lesson}/record.json",
    )
    monkeypatch.setattr(first_run, "REPOSITORY", repository)
    monkeypatch.setattr(first_run, "_import_seconds", lambda clone: 0.02)
    monkeypatch.setattr("ftlab.memory.footprint.matmul_rate", lambda: 1.5e11)
    found = first_run.measure()
    assert list(found["lessons"]) == ["00_start_here"]
    assert found["lessons"]["00_start_here"]["metrics"] == {"accuracy": 0.8}
    assert (found["set_up_mb"], found["fetch_mb"]) == (515, ASSETS["minilm"].download_mb)
    assert found["matmul_flops_per_second"] == 1.5e11
    assert 0 <= found["set_up_seconds"] <= found["first_success_seconds"] <= found["make_run_seconds"] + 0.2
    assert json.loads(json.dumps(found)) == found
