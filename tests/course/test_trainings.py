"""`ftlab train` in one process: what it measures and what it goes on from; tests/distributed has several."""

import contextlib
import json
import math
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import Trainer

from ftlab.course import lesson as lesson_module
from ftlab.course import profiles, trainings
from ftlab.data import streamed
from ftlab.errors import BadInput
from tests.command_line import ftlab

OF_STREAM = {"validation_rows": 40, "test_rows": 40, "max_length": 16, "batch_size": 8}
# Settings of lessons 02, 04 and 05 on which a checkpoint does not depend, or which another part of its identity has.
SAME_CHECKPOINT = {
    *("model", "dataset", "task", "test_dataset", "from_hub", "rows", "source_rows", "validation_rows", "test_rows"),
    *("resume", "max_new_tokens", "passages", "rated_rows", "ratings", "examples", "timed_rows"),  # of what follows
    *("full_learning_rate", "rate_rows", "replay", "replay_text", "reckless_epochs", "reckless_learning_rate"),
}  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    """Train, and return the result."""

    def run(what, *, out="out", resume=False, stream=False, max_steps=2, **parameters):
        options = trainings.Options(max_steps=max_steps, resume=resume, stream=stream)
        return trainings.train(what, "smoke", parameters, options, tmp_path / out)

    return run


@pytest.fixture
def sorted_file(tmp_path) -> str:
    """400 rows of one label, then 40 of another, and 3 of a third at its end."""
    labels = ["good"] * 400 + ["bad"] * 40 + ["odd"] * 6
    rows = pd.DataFrame({"text": [f"review {number} is {label}" for number, label in enumerate(labels)]})
    rows.assign(label=labels, author=[f"author {number // 2}" for number in range(len(rows))]).to_csv(
        tmp_path / "sorted.csv", index=False
    )
    return str(tmp_path / "sorted.csv")


@pytest.mark.parametrize("variant", ["lora", "pissa"])
def test_an_adapter_that_learned_nothing_changes_nothing(trained, variant):
    """PiSSA moves a part of the base into the adapter: with the adapter off there is no base to compare with."""
    metrics = trained("lora", variant=variant, max_steps=1, learning_rate=1e-12).metrics["metrics"]
    assert abs(metrics["loss_change_adapter"]) < 1e-4
    assert math.isclose(metrics["perplexity_over_base_adapter"], 1, abs_tol=1e-4)


@pytest.mark.parametrize("groups", [None, "author"])
def test_a_stream_whose_head_has_one_label_is_trained_with_class_weights(
    trained, sorted_file, groups, monkeypatch, capsys
):
    monkeypatch.setattr(trainings, "HELD", 60)
    weights = []
    balanced = lesson_module.checkpoints.checkpoint

    def noted(folder, identity, **options):
        weights.append(identity["class_weights"])
        return balanced(folder, identity, **options)

    monkeypatch.setattr(lesson_module.checkpoints, "checkpoint", noted)
    columns = {"group_column": groups} if groups else {}
    done = trained("classify", dataset=sorted_file, stream=True, **OF_STREAM, **columns)
    assert max(weights[0]) > 10 * min(weights[0])
    card = (done.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert ("Rows of a group stand in one split" if groups else "Copies of a text stand in one split") in card
    assert "no near-copy" not in card


def test_the_card_of_a_stream_that_memory_would_hold_promises_no_more(trained, sorted_file):
    done = trained("classify", dataset=sorted_file, stream=True, **OF_STREAM)
    card = (done.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "nobody looked for near-copies" in card
    assert "no near-copy of one stands" not in card


@pytest.mark.parametrize("name", trainings.NOT_STREAMED)
def test_a_parameter_that_a_stream_would_ignore_is_refused(sorted_file, name):
    value = sorted_file if name == "test_dataset" else 5
    given = {"dataset": sorted_file, name: value}
    with pytest.raises(BadInput, match=rf"does not take {name}; leave it out"):
        trainings.train("classify", "smoke", given, trainings.Options(stream=True), None)


@pytest.mark.parametrize("what", trainings.LESSONS)
def test_a_parameter_is_used_or_refused(what):
    """Those of the bounds of claims aside: a training makes none."""
    source = Path(trainings.__file__).read_text(encoding="utf-8")
    used = set(re.findall(r"budget\.(\w+)", source)) | {"text_column", "label_column", "group_column", "resume"}
    names = {
        name for name in profiles.names(trainings.LESSONS[what][3:]) if not name.startswith(("at_least", "at_most"))
    }
    shown = set(trainings.SHOWN_ONLY[what])
    assert shown <= names
    assert not shown & used
    assert names - shown <= used
    for name in (*shown, "resume"):
        with pytest.raises(BadInput, match=f"{name}.*(leave it out, or run the lesson|give it as an option)"):
            trainings.train(what, "smoke", {name: 1}, trainings.Options(), None)


@pytest.mark.parametrize("strategy", ["FSDP", "DEEPSPEED"])
def test_weights_of_4_bits_are_not_sharded(trained, monkeypatch, strategy):
    monkeypatch.setenv(f"ACCELERATE_USE_{strategy}", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
    with pytest.raises(BadInput, match="each GPU would hold all of them; take configs"):
        trained("lora", quantize=True)


def test_each_setting_of_a_training_belongs_to_its_checkpoints_or_changes_nothing():
    settings = {name for slug in trainings.LESSONS.values() for name in profiles.table()[slug[3:]]["smoke"]}
    settings = {name for name in settings if not name.startswith(("at_least", "at_most"))}
    assert settings == (SAME_CHECKPOINT | {*lesson_module.TRAINING}) & settings


@pytest.mark.parametrize("what", ["instruct", "lora"])
def test_a_checkpoint_of_another_format_is_refused(trained, tmp_path, monkeypatch, what):
    def cut_off(self, *given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", cut_off)
    with contextlib.suppress(KeyboardInterrupt):
        trained(what, template="alpaca", max_length=256)
    with pytest.raises(BadInput, match="were made with template alpaca, and this training has template chat"):
        trained(what, template="chat", max_length=256, resume=True)


def test_resume_says_where_the_training_goes_on(trained, capsys):
    trained("classify", resume=True)
    assert "the training begins anew: there is no checkpoint of it" in capsys.readouterr().out


def test_a_training_that_runs_out_of_memory_is_one_sentence(trained, monkeypatch):
    def too_much(self, *given, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(Trainer, "train", too_much)
    with pytest.raises(BadInput, match=r"ran out of memory with 8 rows of up to \d+ tokens at a time; use a smaller"):
        trained("instruct", batch_size=8)


def test_a_note_on_the_rows_does_not_stand_in_the_json(capsys, tmp_path):
    rows = [
        {"instruction": f"Question {number}?", "input": "", "output": ["one", str(number), "three " * 9]}
        for number in range(80)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["instruct", "--data", tmp_path / "pairs.jsonl", "--max-steps", "1", "--out", tmp_path / "out"]
    code, out, lines = ftlab(capsys, "train", *arguments, "--profile", "smoke", "--json")
    assert code == 0
    assert json.loads(out)["processes"] == 1
    assert any("read as JSON text" in line for line in lines)


@pytest.mark.parametrize(("given", "sentence"), [("n", "resume"), ("nope", "resume")])
def test_a_resume_that_is_no_yes_or_no_is_refused(capsys, given, sentence):
    code, out, (line,) = ftlab(capsys, "train", "classify", "--profile", "smoke", "-p", "resume", given)
    assert (code, out) == (2, "")
    assert sentence in line


def test_a_copy_of_the_file_on_another_machine_is_the_same_file(sorted_file, tmp_path):
    found = streamed.survey(sorted_file, validation_rows=20, test_rows=20)
    os.utime(sorted_file, (1, 1))
    with pytest.raises(BadInput, match="changed after its rows were counted"):
        next(found.train_rows(0, 0))
    assert next(found.on_this_machine().train_rows(0, 0))["text"]
    with Path(sorted_file).open("a", encoding="utf-8") as file:
        file.write("one more,good,somebody\n")
    with pytest.raises(BadInput, match="changed after its rows were counted"):
        next(found.on_this_machine().train_rows(0, 0))
