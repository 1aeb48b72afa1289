"""What does not fit is refused in one sentence, by each process, and told by one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ftlab.course import profiles, trainings
from ftlab.course.lesson import slug_of
from ftlab.errors import BadInput
from ftlab.models import devices, processes
from ftlab.training import checkpoints
from tests.command_line import ftlab
from tests.distributed.ranks import Ranks

CPU = {"ACCELERATE_USE_CPU": "true"}
SMOKE = ("--profile", "smoke")


@pytest.fixture
def as_one_of(monkeypatch):
    """Be a process of so many, on a machine without GPUs; no other is there."""

    def be(count: int, *, index: int = 0, here: int | None = None, on_cpu: bool = False) -> None:
        for name, value in {
            "RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": here or count,
            "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": str(on_cpu),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, str(value))

    return be


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")  # as a cluster's own job may set it
    assert (processes.count(), processes.index(), processes.is_main()) == (1, 0, True)


def test_gpus_that_are_not_there_are_refused(as_one_of, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    as_one_of(8)
    with pytest.raises(BadInput, match="8 processes on this machine, one for each GPU, and it has none; start as many"):
        processes.join()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(BadInput, match="it has 2; start as many"):
        processes.join()


def test_a_step_that_cannot_be_shared_is_refused(as_one_of):
    as_one_of(3)
    assert processes.share_of_step(9) == (3, 1)
    sentence = (
        r"a step has 16 rows \(batch_size 16\), and 3 processes cannot share them .* for example 15: set batch_size"
    )
    with pytest.raises(BadInput, match=sentence):
        processes.share_of_step(16)
    with pytest.raises(BadInput, match=r"a step has 4 rows \(batch_size 2 x accumulation 2\).* for example 3"):
        processes.share_of_step(2, accumulation=2)


@pytest.mark.parametrize(("count", "own"), [(1, (4, 2)), (2, (4, 1)), (4, (2, 1)), (8, (1, 1))])
def test_a_step_has_the_same_rows_in_any_number_of_processes(count, own, as_one_of):
    as_one_of(count)
    assert processes.share_of_step(4, accumulation=2) == own


@pytest.mark.parametrize("what", trainings.LESSONS)
def test_each_training_can_be_shared_by_eight_gpus(what, as_one_of):
    """As the page shows it: `accelerate launch --config_file configs/accelerate/eight_gpus_ddp.yaml`."""
    budget = profiles.resolve(slug_of(trainings.LESSONS[what]), "gpu")
    as_one_of(8)
    assert processes.share_of_step(budget.batch_size, budget.settings.get("accumulation", 1))[0] >= 1


def test_a_process_that_trains_alone_has_one_gpu(as_one_of, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    devices.use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    as_one_of(2)
    devices.use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_another_fsdp_than_that_of_the_configuration_is_refused(as_one_of, monkeypatch):
    as_one_of(2, on_cpu=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for version, form in (("1", "SHARDED_STATE_DICT"), ("2", "FULL_STATE_DICT")):
        monkeypatch.setenv("FSDP_VERSION", version)
        monkeypatch.setenv("FSDP_STATE_DICT_TYPE", form)
        with pytest.raises(BadInput, match="expected fsdp_version: 2 and fsdp_state_dict_type: SHARDED_STATE_DICT"):
            trainings._require("lora", {}, trainings.Options(), None)


def test_more_processes_than_rows_are_refused(as_one_of):
    as_one_of(64)
    with pytest.raises(BadInput, match="there are 40 training rows for 64 processes"):
        trainings._require_rows(40, 64)


def test_rows_are_shared_without_loss(as_one_of):
    rows = [f"row {number}" for number in range(11)]
    parts = []
    for index in range(4):
        as_one_of(4, index=index)
        parts.append([rows[place] for place in processes.share(rows)])
    assert processes.joined(parts) == rows


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("classify", "--stream"), "--stream reads a file of yours"),
        (("classify", "--stream", "--data", "imdb"), "the rows are 'imdb'"),
        (("classify", "--stream", "--data", "someone/reviews"), "whose rows it can count for the schedule"),
        (("classify", "--stream", "--data", "-"), "stdin can be read only once"),
        (("classify", "--stream", "--data", "missing.csv"), "missing.csv"),
        (("classify", "--stream", "--data", "rows.csv", "-p", "rows", "100"), "does not take rows; leave it out"),
        (("lora", "--stream", "--data", "rows.jsonl"), "--stream is for `ftlab train classify`"),
        (("classify", "--data", "a.csv", "-p", "dataset", "b.csv"), "give the rows once"),
        (("classify", "--data", "missing.csv"), "missing.csv"),
        (("classify", "--resume"), "name that folder with --out"),
        (("classify", "--max-steps", "0"), "'0' is no number of steps"),
        (("classify", "--report-to", "nowhere"), "invalid choice"),
        (("sing",), "invalid choice: 'sing'"),
        (("lora", "-p", "dataset", "imdb"), "no parameter 'dataset'"),
        (("classify", "-p", "model", "no-model"), "no-model"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, lines = ftlab(capsys, "train", *arguments, *SMOKE)
    assert (code, out, len(lines)) == (2, "", 1)
    assert sentence in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_report_without_its_package_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainings, "find_spec", lambda name: None)
    code, _, (line,) = ftlab(capsys, "train", "lora", "--report-to", "wandb", *SMOKE)
    assert code == 2
    assert "needs the package wandb, which is not installed; install it (pip install wandb), or leave the" in line


def test_the_checkpoint_of_another_model_is_refused(capsys, tmp_path):
    folder = tmp_path / "out" / "02_text_classification.checkpoints"
    folder.mkdir(parents=True)
    (folder / checkpoints.IDENTITY).write_text(json.dumps({"model": "another one"}), encoding="utf-8")
    code, _, lines = ftlab(capsys, "train", "classify", "--resume", "--out", tmp_path / "out", *SMOKE)
    assert code == 2
    assert len(lines) == 1
    assert "were made with model another one, and this training has model tiny-distilbert" in lines[0]


def test_a_checkpoint_within_a_later_epoch_is_refused(tmp_path):
    def state(epoch: float) -> Path:
        (tmp_path / "trainer_state.json").write_text(
            json.dumps({"epoch": epoch, "global_step": 15, "max_steps": 30}), encoding="utf-8"
        )
        return tmp_path

    for fine in (0.4, 1.0, 2.0, 3.0000000001):
        checkpoints._require_its_order(state(fine))
    with pytest.raises(BadInput, match="was written within epoch 2, whose order of rows cannot be drawn again; take"):
        checkpoints._require_its_order(state(1.5))


def test_a_process_without_the_data_says_so_for_all(tmp_path, reviews_csv):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "rows.csv").write_bytes(reviews_csv.read_bytes())
    command = [
        "train",
        "classify",
        *SMOKE,
        "--data",
        "rows.csv",
        "-p",
        "text_column",
        "body",
        "-p",
        "label_column",
        "verdict",
    ]
    with Ranks(tmp_path) as warm:
        main, other = warm.run(command, environment=CPU, folders=[here, there])
    assert (main.code, other.code) == (2, 2)
    assert not other.problems
    assert len(main.problems) == 1
    assert main.problems[0].startswith("process 1 of 2: ")
    assert "rows.csv" in main.problems[0]
    assert not list(there.iterdir())
    assert [path.name for path in here.iterdir()] == ["rows.csv"]
