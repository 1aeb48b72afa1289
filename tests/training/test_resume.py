"""A training that was killed and resumed ends with the same weights as an uninterrupted one."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from transformers import TrainerCallback

from ftlab import files
from ftlab.errors import BadInput
from ftlab.training import checkpoints as checkpoints_module
from ftlab.training.checkpoints import checkpoint
from tests.training import resumable
from tests.training.resumable import IDENTITY, STEPS


class Cut(TrainerCallback):
    """An interrupt where `when(state, control)` says so: after a step, or after a checkpoint was saved."""

    def __init__(self, event, when):
        setattr(self, event, lambda args, state, control, **more: self.interrupt(when(state, control)))

    def interrupt(self, now):
        if now:
            raise KeyboardInterrupt


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def weights(folder, step):
    return (folder / f"checkpoint-{step}" / "model.safetensors").read_bytes()


def losses(trainer):
    return [(line["step"], line["eval_loss"]) for line in trainer.state.log_history if "eval_loss" in line]


@pytest.fixture(scope="module")
def killed(tmp_path_factory, repository):
    """Two folders, each left by a process that was killed while it trained in it."""
    root = tmp_path_factory.mktemp("killed")
    processes = {
        how: subprocess.Popen(
            [sys.executable, "-m", "tests.training.resumable", root / how.replace(" ", "-"), how],
            cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for how in ("middle of an epoch", "half a checkpoint")
    }  # fmt: skip
    for process in processes.values():
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, said
    return {how: root / how.replace(" ", "-") for how in processes}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted") / "checkpoints"
    return folder, resumable.train(folder)


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("middle of an epoch", [f"checkpoint-{STEPS}"]),
        ("half a checkpoint", [f"checkpoint-{2 * STEPS}", f"checkpoint-{STEPS}"]),
    ],
)
def test_a_killed_training_ends_with_the_same_weights_bit_for_bit(killed, uninterrupted, how, left):
    folder, (whole_folder, whole) = killed[how], uninterrupted
    assert checkpoints(folder) == sorted(left)
    trainer = resumable.train(folder, resume=True)
    assert trainer.state.log_history[0] == whole.state.log_history[0]  # of the first epoch, trained before the kill
    assert losses(trainer) == losses(whole)
    assert weights(folder, 3 * STEPS) == weights(whole_folder, 3 * STEPS)
    trained = trainer.model.state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in whole.model.state_dict().items())


def test_going_on_trains_only_what_was_missing(tmp_path):
    trained = []

    class Counter(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            trained.append(state.global_step)

    cut = Cut("on_step_end", lambda state, control: state.global_step == 2 * STEPS + 3)
    with pytest.raises(KeyboardInterrupt):
        resumable.train(tmp_path / "checkpoints", callbacks=[cut])
    resumable.train(tmp_path / "checkpoints", resume=True, callbacks=[Counter()])
    assert trained == list(range(2 * STEPS + 1, 3 * STEPS + 1))


def test_patience_goes_on_where_it_was(tmp_path):
    scores = {"scores": (0.6, 0.4, 0.5, 0.7), "patience": 2}  # it ends after the third epoch
    cut = Cut("on_step_end", lambda state, control: state.global_step == 2 * STEPS + 3)
    with pytest.raises(KeyboardInterrupt):
        resumable.train(tmp_path / "checkpoints", **scores, callbacks=[cut])
    assert checkpoints(tmp_path / "checkpoints") == [f"checkpoint-{2 * STEPS}", f"checkpoint-{STEPS}"]
    trainer = resumable.train(tmp_path / "checkpoints", resume=True, **scores)
    assert trainer.state.global_step == 3 * STEPS
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{STEPS}")


def test_a_training_that_patience_had_ended_does_not_go_on_to_another_end(tmp_path):
    scores = {"scores": (0.5, 0.6, 0.4, 0.7), "patience": 1}  # the fourth epoch would be the best
    whole = resumable.train(tmp_path / "whole", **scores)
    cut = Cut("on_save", lambda state, control: control.should_training_stop)
    with pytest.raises(KeyboardInterrupt):
        resumable.train(tmp_path / "cut", **scores, callbacks=[cut])
    assert checkpoints(tmp_path / "cut") == [f"checkpoint-{2 * STEPS}", f"checkpoint-{3 * STEPS}"]
    trainer = resumable.train(tmp_path / "cut", resume=True, **scores)
    assert trainer.state.global_step == whole.state.global_step == 3 * STEPS
    assert weights(tmp_path / "cut", 2 * STEPS) == weights(tmp_path / "whole", 2 * STEPS)


def written(folder, step, *, max_steps=100, stopped=False):
    """Write the files of one of Trainer's checkpoints, without content."""
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.zeros(4)}, path / "model.safetensors")
    for part in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step}, path / part)
    state = {"global_step": step, "max_steps": max_steps}
    state["stateful_callbacks"] = {"TrainerControl": {"args": {"should_training_stop": stopped}, "attributes": {}}}
    (path / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    """Return a folder in which a training of IDENTITY began."""
    assert checkpoint(tmp_path / "checkpoints", IDENTITY, resume=False) is None
    return tmp_path / "checkpoints"


def test_the_last_checkpoint_is_the_one_with_the_most_steps(folder):
    for step in (10, 9, 100):
        written(folder, step, max_steps=200)
    assert checkpoint(folder, IDENTITY, resume=True) == str(folder / "checkpoint-100")
    assert len(checkpoints(folder)) == 3


@pytest.mark.parametrize("how", ["missing", "half", "empty"])
@pytest.mark.parametrize(
    "part", ["trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
def test_a_checkpoint_with_a_part_that_is_not_whole_is_removed_and_the_one_before_it_used(folder, part, how):
    written(folder, 9)
    file = written(folder, 10) / part
    whole = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(whole[: len(whole) // 2] if how == "half" else b"")
    assert checkpoint(folder, IDENTITY, resume=True) == str(folder / "checkpoint-9")
    assert checkpoints(folder) == ["checkpoint-9"]


def test_with_no_whole_checkpoint_training_starts_anew(folder):
    (written(folder, 9) / "optimizer.pt").unlink()
    assert checkpoint(folder, IDENTITY, resume=True) is None
    assert checkpoints(folder) == []
    assert checkpoint(folder, IDENTITY, resume=True) is None  # it began, but saved nothing


def test_a_training_that_came_to_its_last_step_needs_no_step_more(folder):
    written(folder, 100, stopped=True)
    assert checkpoint(folder, IDENTITY, resume=True) == str(folder / "checkpoint-100")


def test_resume_with_nothing_there_starts_anew_and_can_be_gone_on_from(tmp_path):
    assert checkpoint(tmp_path / "new", IDENTITY, resume=True) is None
    written(tmp_path / "new", 5)
    assert checkpoint(tmp_path / "new", IDENTITY, resume=True) == str(tmp_path / "new" / "checkpoint-5")


def test_what_a_process_left_that_was_killed_while_it_noted_the_settings_is_swept(tmp_path):
    checkpoint(tmp_path, IDENTITY, resume=False)
    (tmp_path / f"{files.LOCK}{'0' * 12}").touch()
    assert checkpoint(tmp_path, IDENTITY, resume=True) is None
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints_module.IDENTITY]


def test_without_resume_old_checkpoints_are_removed_whatever_they_were_made_with(folder):
    written(folder, 5)
    assert checkpoint(folder, {**IDENTITY, "model": "another"}, resume=False) is None
    assert checkpoints(folder) == []
    with pytest.raises(BadInput):
        checkpoint(folder, IDENTITY, resume=True)


@pytest.mark.parametrize(
    "name", ["checkpoint-final", "checkpoint-", "checkpoint-9-old", "checkpoint-\u0661", "checkpoints"]
)
def test_folders_with_other_names_are_left_alone(folder, name):
    (folder / name).mkdir()
    (folder / "checkpoint-77").write_text("a file", encoding="utf-8")
    written(folder, 9)
    assert checkpoint(folder, IDENTITY, resume=True) == str(folder / "checkpoint-9")
    assert (folder / name).is_dir()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("model", "tiny-bert"),
        ("labels", ["negative", "neutral", "positive"]),
        ("labels", ["positive", "negative"]),
        ("rows", "tickets"),
        ("seed", 1),
    ],
)
def test_checkpoints_of_another_training_are_refused_with_both_values(folder, what, value):
    written(folder, 9)
    with pytest.raises(BadInput) as raised:
        checkpoint(folder, {**IDENTITY, what: value}, resume=True)
    message = str(raised.value)
    for values in (IDENTITY[what], value):
        assert f"{what} {', '.join(values) if isinstance(values, list) else values}" in message
    assert str(folder) in message
    assert "without resume" in message
    assert "\n" not in message
    assert checkpoints(folder) == ["checkpoint-9"]  # a refusal removes nothing


def test_a_setting_that_is_new_or_gone_is_another_training(folder):
    for identity in ({**IDENTITY, "patience": 2}, {"model": "tiny-distilbert"}):
        with pytest.raises(BadInput, match="None"):
            checkpoint(folder, identity, resume=True)


def test_what_json_cannot_tell_apart_is_the_same_training(tmp_path):
    checkpoint(tmp_path / "new", {"labels": ("no", "yes"), "learning_rate": 2e-5}, resume=False)
    assert checkpoint(tmp_path / "new", {"labels": ["no", "yes"], "learning_rate": 0.00002}, resume=True) is None


def test_long_values_are_cut_to_where_they_differ(tmp_path):
    labels = [f"label number {number}" for number in range(40)]
    checkpoint(tmp_path / "new", {"labels": labels}, resume=False)
    with pytest.raises(BadInput) as raised:
        checkpoint(tmp_path / "new", {"labels": [*labels[:-1], "another"]}, resume=True)
    assert "label number 39" in str(raised.value)
    assert "another" in str(raised.value)
    assert "label number 0," not in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "7"])
def test_checkpoints_that_do_not_say_what_they_were_made_with_are_refused_and_kept(folder, content):
    written(folder, 9)
    (folder / "identity.json").unlink()
    if content is not None:
        (folder / "identity.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=r"cannot be read from identity\.json.*without resume") as raised:
        checkpoint(folder, IDENTITY, resume=True)
    assert "\n" not in str(raised.value)
    assert checkpoints(folder) == ["checkpoint-9"]


def test_checkpoints_whose_removal_was_cut_off_can_be_gone_on_from(folder, monkeypatch):
    """What says of which training they are goes last, wherever a kill comes."""
    for step in (10, 20):
        written(folder, step, max_steps=200)
    remove, left = files.remove, []

    def one_alone(path):
        left.append(path)
        if len(left) > 1:
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(files, "remove", one_alone)
    with pytest.raises(KeyboardInterrupt):
        checkpoints_module.remove(folder)
    monkeypatch.undo()
    assert len(checkpoints(folder)) == 1
    checkpoint(folder, IDENTITY, resume=True)
    checkpoints_module.remove(folder)
    assert not folder.exists()
