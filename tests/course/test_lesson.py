import json
import os
import subprocess
import sys
import threading

import pytest
import torch

from ftlab.course import begin
from ftlab.course import lesson as lesson_module
from ftlab.data import sources
from ftlab.data.splits import split
from ftlab.errors import BadInput, ClaimFailed, CourseError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_RUN_FOLDER", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def held(folder, monkeypatch):
    """A lesson that is held to its claims, without real weights."""
    from ftlab.course.lesson import Lesson

    monkeypatch.setattr(Lesson, "held_to_its_claims", True)
    return begin("02_text_classification", profile="smoke")


def test_a_claim_prints_its_bound_and_not_its_value(held, capsys):
    held.claim("gain over TF-IDF", 0.0917, at_least=0.05)
    assert capsys.readouterr().out == "✓ gain over TF-IDF: at least 0.05\n"


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0.04, {"at_least": 0.05}),
        (0.2, {"at_most": 0.1}),
        (float("nan"), {"at_least": 0.0}),
        (float("nan"), {"at_most": 0.0}),
        (float("inf"), {"at_least": 0.0}),
        (float("-inf"), {"at_most": 0.0}),
        (3, {"at_least": 1, "at_most": 2}),
    ],
)
def test_a_false_claim_raises_with_the_bound_and_the_value(held, value, bounds):
    with pytest.raises(ClaimFailed, match=f"gain.* and measured was {value:g}"):
        held.claim("gain", value, **bounds)


def test_a_claim_may_touch_its_bound(held):
    held.claim("gain", 0.05, at_least=0.05, at_most=0.05)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({}, "'gain' has no bound; give at_least, at_most or both"),
        ({"at_least": float("nan")}, "at least nan; expected a finite number"),
        ({"at_least": float("-inf")}, "at least -inf; expected a finite number"),
        ({"at_most": float("inf")}, "at most inf; expected a finite number"),
        ({"at_least": 2, "at_most": 1}, "at_least 2 above at_most 1; no value keeps both"),
    ],
)
def test_a_bound_that_nothing_or_everything_keeps_is_refused(held, bounds, said):
    with pytest.raises(BadInput, match=said):
        held.claim("gain", 0.0, **bounds)
    assert held.claims().empty


def test_a_claim_again_replaces_the_first_in_a_notebook_and_is_refused_in_a_run_from_start_to_end(held, tmp_path):
    held.claim("gain", 0.1, at_least=0.05)
    held.claim("gain", 0.3, at_least=0.2)
    assert held.claims()["measured"].to_dict() == {"gain": "0.3"}
    held.folder = tmp_path / ".partial-1"  # as the runner names it
    with pytest.raises(BadInput, match="the lesson claims 'gain' twice; give each claim a text of its own"):
        held.claim("gain", 0.4, at_least=0.2)


def test_smoke_and_parameters_of_your_own_are_not_held_to_claims_but_told(folder, capsys):
    lesson = begin("02_text_classification", profile="smoke")
    lesson.claim("gain", -1, at_least=0.05)
    assert "not promised for this run" in capsys.readouterr().out
    with pytest.raises(ClaimFailed):
        lesson.claim("texts in both", 1, at_most=0, always=True)
    assert not begin("02_text_classification", profile="cpu", dataset="mini_reviews").held_to_its_claims
    assert begin("02_text_classification", profile="cpu").held_to_its_claims
    assert not begin("02_text_classification", profile="cpu", seed=1).held_to_its_claims


def test_a_finished_lesson_leaves_metrics_that_are_equal_for_equal_runs(folder):
    written = []
    for _ in range(2):
        lesson = begin("02_text_classification", profile="smoke")
        splits = split(sources.load("mini_reviews"), rows=20, validation_rows=10, test_rows=10)
        lesson.used(train=splits.train, test=lesson.open_test(splits, "judge"))
        lesson.measure(accuracy=0.75)
        lesson.finish("accuracy 0.75")
        written.append((folder / "metrics.json").read_bytes())
    assert written[0] == written[1]
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert record["test_split_opened"] == ["judge"]
    assert record["data"]["train"]["rows"] == 20
    assert record["data"]["train"]["origin"]["origin"] == "shipped with ftlab"
    assert record["peak_memory_mb"] > 50
    assert record["versions"]["torch"]
    assert len(record["model"]["weights_sha256"]) == 64


def test_checkpoints_outlive_a_finish_that_cannot_write(folder):
    lesson = begin("02_text_classification", profile="smoke")
    lesson.checkpoints.mkdir()
    (folder / "record.json").mkdir()  # where a file is to be written
    with pytest.raises(CourseError, match=r"record\.json is a folder"):
        lesson.finish("x")
    assert lesson.checkpoints.is_dir()
    (folder / "record.json").rmdir()
    lesson.finish("x")
    assert not lesson.checkpoints.exists()


def test_a_measurement_that_is_no_number_is_null_in_the_metrics(folder):
    lesson = begin("02_text_classification", profile="smoke")
    lesson.measure(accuracy=float("nan"), nothing=None)
    lesson.finish("x")
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"] == {
        "accuracy": None,
        "nothing": None,
    }
    assert "NaN" not in (folder / "metrics.json").read_text(encoding="utf-8")


BEGUN = """
import os, sys
from ftlab.course import begin

lesson = begin("01_data_audit", profile="smoke")
print("begun", os.getpid(), flush=True)
if sys.stdin.readline() == "finish\\n":
    lesson.finish("x")
    print("finished", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_kernel(folder):
    """Another process that has begun the same lesson in the same folder; its `number` is not that of a launcher."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", BEGUN], **pipes) as process:
        begun, process.number = process.stdout.readline().split()  # `pid` is a launcher's in a venv of Windows
        assert begun == "begun"
        yield process
        process.kill()


def test_a_second_kernel_of_a_lesson_is_refused_until_the_first_one_is_gone(folder, other_kernel, monkeypatch):
    monkeypatch.setattr(lesson_module, "PATIENCE", 0.1)
    with pytest.raises(
        BadInput, match=rf"another kernel \(process {other_kernel.number}\) has begun lesson 01.* shut that"
    ):
        begin("01_data_audit", profile="smoke")
    begin("03_freezing_comparison", profile="smoke")
    other_kernel.kill()
    other_kernel.wait()
    begin("01_data_audit", profile="smoke")
    begin("01_data_audit", profile="smoke")  # and again, as one does in a notebook


def test_a_finished_lesson_lets_another_kernel_run(folder, other_kernel):
    print("finish", file=other_kernel.stdin, flush=True)
    assert other_kernel.stdout.readline() == "finished\n"
    begin("01_data_audit", profile="smoke").finish("x")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["run"]


def test_a_kernel_that_is_just_ending_is_waited_for(folder, other_kernel):
    threading.Timer(0.5, other_kernel.kill).start()
    begin("02_text_classification", profile="smoke")


def test_a_kernel_that_went_offline_says_so_when_a_hub_is_needed(folder):
    begin("02_text_classification", profile="smoke")
    with pytest.raises(BadInput, match="restart the kernel"):
        begin("02_text_classification", profile="gpu")


def test_a_lesson_seeds_the_generators(folder):
    import random

    import numpy as np

    drawn = []
    for _ in range(2):
        begin("02_text_classification", profile="smoke", seed=5)
        drawn.append((random.random(), np.random.random()))
    assert drawn[0] == drawn[1]


def test_a_mistake_in_a_notebook_shows_one_line_and_no_traceback(folder):
    with pytest.raises(BadInput) as raised:
        begin("02_text_classification", profile="cuda")
    assert raised.value._render_traceback_() == ["BadInput: there is no profile 'cuda'; there are smoke, cpu, gpu"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("FTLAB_RUN_FOLDER", str(tmp_path / "file" / "run"))
    with pytest.raises(BadInput, match="cannot be written"):
        begin("02_text_classification", profile="smoke")


SPARED = """
import gc
from ftlab.course import begin

frozen = []
for _ in range(2):
    begin("03_freezing_comparison", profile="smoke")
    assert gc.isenabled()
    frozen.append(gc.get_freeze_count())
print(*frozen)
"""


def test_the_garbage_collector_is_spared_the_imports_once_and_never_a_lesson_s_models(tmp_path):
    done = subprocess.run([sys.executable, "-c", SPARED], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    first, again = map(int, done.stdout.split())
    assert first > 100_000
    assert again <= first  # what a lesson made before it was begun again can still go


@pytest.mark.parametrize("computed_in", [None, "fp32", torch.float32])
def test_a_claim_in_full_precision_is_held(held, computed_in):
    with pytest.raises(ClaimFailed):
        held.claim("answers that differ", 2, at_most=0, always=True, computed_in=computed_in)


@pytest.mark.parametrize("computed_in", ["bf16", torch.bfloat16, torch.float16])
def test_in_half_precision_what_is_promised_in_fp32_is_reported_and_the_line_says_so(held, computed_in, capsys):
    name = str(computed_in).removeprefix("torch.")
    held.claim("answers that differ", 2, at_most=0, always=True, computed_in=computed_in)
    held.claim("other answers that differ", 0, at_most=0, always=True, computed_in=computed_in)
    false, true = capsys.readouterr().out.splitlines()
    assert false == f"✗ answers that differ: at most 0 (not so in {name}, and promised in fp32 alone)"
    assert true == f"✓ other answers that differ: at most 0 (in {name}, where it is not promised)"
    assert [claim["held"] for claim in held._claims] == [False, False]


def test_smoke_computes_on_one_thread_and_no_other_profile_does(tmp_path):
    """In processes of their own: it is for the rest of the process."""
    code = """
import sys, torch, os
from threadpoolctl import threadpool_info
torch.set_num_threads(2)
from ftlab.course import lesson
lesson.begin("01_data_audit", profile="smoke") if sys.argv[1] == "smoke" else None
import numpy
print(torch.get_num_threads(), max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "FTLAB_RUN_FOLDER": str(tmp_path / "run")}
    environment.pop("OMP_NUM_THREADS", None)
    for profile, threads in (("smoke", "1 1"), ("none", "2 2")):
        done = subprocess.run(
            [sys.executable, "-c", code, profile], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == threads


def test_a_lesson_takes_its_parameters_from_the_variables_of_its_notebook(folder):
    variables = {
        "profile": "smoke", "seed": 3, "rows": 40, "epochs": None, "helper": object(),
        "weight_decay": "of a later cell",
        "__annotations__": {"profile": str, "seed": int, "rows": int, "epochs": float},
    }  # fmt: skip
    budget = begin("02_text_classification", variables).budget
    assert (budget.profile, budget.seed, budget.overrides) == ("smoke", 3, {"rows": 40})


def test_a_parameter_that_a_later_cell_has_overwritten_is_told_from_a_value(folder):
    variables = {"profile": "smoke", "model": torch.nn.Linear(1, 1)}
    with pytest.raises(
        BadInput, match=r"^model is an object of class Linear .* run the cell with the parameters again"
    ):
        begin("02_text_classification", variables)


def test_the_claims_stand_in_a_table_with_what_was_measured(held):
    held.claim("gain", 0.0917, at_least=0.05)
    held.claim("seconds as a share", 0.41, at_most=0.5, stored=True)
    table = held.claims()
    assert table.loc["gain"].to_dict() == {
        "bound": "at least 0.05", "measured": "0.0917", "holds": True, "from": "this run",
    }  # fmt: skip
    assert table.loc["seconds as a share", "from"] == "stored benchmark"


def test_a_claim_on_a_stored_value_has_no_tick(held, capsys):
    held.claim("gain", 0.0917, at_least=0.05, stored=True)
    assert capsys.readouterr().out == "from the stored benchmark: gain: at least 0.05\n"
    with pytest.raises(ClaimFailed, match=r"measured was 0\.01"):
        held.claim("gain", 0.01, at_least=0.05, stored=True)


def test_a_checkpoint_is_for_the_rows_and_the_settings_that_wrote_it(folder):
    rows = split(sources.load("mini_reviews"), rows=30, validation_rows=8, test_rows=8)

    def checkpoint(train, **options):
        lesson = begin("02_text_classification", profile="smoke", **options)
        lesson.used(train=train)
        return lesson.checkpoint(labels=["negative", "positive"])

    assert checkpoint(rows.train) is None
    assert checkpoint(rows.train, resume=True) is None
    with pytest.raises(BadInput, match="were made with train rows"):
        checkpoint(rows.train.select(range(9)), resume=True)
    with pytest.raises(BadInput, match="were made with learning_rate"):
        checkpoint(rows.train, resume=True, learning_rate=1e-5)


@pytest.mark.parametrize(
    ("other", "is_like"),
    [({}, True), ({"seed": 1}, False), ({"rank": 2}, False), ({"learning_rate": 1e-5}, True)],
)
def test_what_another_lesson_left_is_taken_of_a_run_like_this_one_alone(folder, monkeypatch, other, is_like):
    """With another seed, rows that judge here may have been trained on there."""
    monkeypatch.setenv("FTLAB_RUN_FOLDER", str(folder / "05_lora_phi2"))
    begin("05_lora_phi2", profile="smoke", **{"rank": 4, **other}).finish("done")
    monkeypatch.setenv("FTLAB_RUN_FOLDER", str(folder / "06_merge_and_inference"))
    lesson = begin("06_merge_and_inference", profile="smoke", rank=4)
    assert lesson.left_by("05_lora_phi2", "model", "task", "rank") == (folder / "05_lora_phi2" if is_like else None)


def test_what_was_never_finished_is_not_taken(folder, monkeypatch):
    monkeypatch.setenv("FTLAB_RUN_FOLDER", str(folder / "06_merge_and_inference"))
    lesson = begin("06_merge_and_inference", profile="smoke")
    assert lesson.left_by("05_lora_phi2", "model") is None
    (folder / "05_lora_phi2").mkdir()
    (folder / "05_lora_phi2" / "metrics.json").write_text('{"profile": ', encoding="utf-8")
    assert lesson.left_by("05_lora_phi2", "model") is None
