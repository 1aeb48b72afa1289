"""One process with a batch of 16 and two with 8 each make the same training: losses, gradients, weights, answers."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from transformers import BertConfig, BertModel

from ftlab.errors import BadInput
from ftlab.merging.certificate import merge_with_certificate
from ftlab.models import loading
from ftlab.training import checkpoints
from tests.distributed.ranks import FSDP, Ranks

LESSONS = {
    "stream": "stream/02_text_classification",
    "classify": "02_text_classification",
    "instruct": "04_gpt2_instruction_tuning",
    "lora": "05_lora_phi2",
}
SAVED = {"stream": "model/model", "classify": "model/model", "instruct": "model/model", "lora": "adapter/adapter_model"}
TABLE = {"stream": "predictions.csv", "classify": "predictions.csv", "instruct": "answers.csv", "lora": "answers.csv"}
CPU = {"ACCELERATE_USE_CPU": "true"}
# Of rounding alone. In a step of Adam a weight whose gradient is nearly 0 magnifies it.
SAME = 1e-5
WEIGHTS = 1e-4


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def ranks(place):
    with Ranks(place) as warm:
        yield warm


@pytest.fixture(scope="module")
def without_dropout(place) -> Path:
    """The tiny DistilBERT without dropout, which each process would draw for itself."""
    folder = place / "tiny-distilbert"
    shutil.copytree(loading.folder("tiny-distilbert"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {name: 0.0 for name in config if "dropout" in name}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bert(place) -> Path:
    """A tiny BERT without dropout: of its layers that are not split, one holds the embeddings."""
    config = BertConfig(
        vocab_size=600, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(place / "tiny-bert")
    loading.tokenizer("tiny-distilbert").save_pretrained(place / "tiny-bert")
    return place / "tiny-bert"


@pytest.fixture(scope="module")
def many_reviews(place) -> Path:
    """A file of 640 rows, which is streamed."""
    table = pd.DataFrame(
        {"text": [f"review {number} of many {'good' if number % 3 else 'bad'} ones" for number in range(640)]}
    )
    table["label"] = ["bad" if number % 3 == 0 else "good" for number in range(640)]
    table.to_csv(place / "many.csv", index=False)
    return place / "many.csv"


@pytest.fixture(scope="module")
def commands(without_dropout, bert, many_reviews):
    def of(out: Path, *, whats=LESSONS, resume: bool = False) -> list[list[str]]:
        """The trainings. The last step of the classifier has one row, so one process has none."""
        of_classifier = ["classify", "-p", "model", without_dropout]
        each = {
            "stream": ["classify", "-p", "model", bert, "--stream", "--data", many_reviews, "--max-steps", "30"],
            "classify": [*of_classifier, "-p", "rows", "65", "-p", "epochs", "4", "-p", "patience", "9"],
            "instruct": ["instruct"],
            "lora": ["lora", "-p", "rows", "19", "-p", "batch_size", "4", "-p", "accumulation", "2"],
        }
        common = ["--profile", "smoke", "--json", *(["--resume"] if resume else [])]
        return [["train", *each[what], *common, "--out", (out / LESSONS[what]).parent] for what in whats]

    return of


@pytest.fixture(scope="module")
def one(ranks, commands, place) -> Path:
    (ended,) = ranks.run(*commands(place / "one"), processes=1, environment=CPU)
    assert ended.code == 0, ended.err
    return place / "one"


@pytest.fixture(scope="module", params=["DDP", "FSDP"])
def two(request, ranks, commands, place) -> Path:
    out = place / request.param
    ended = ranks.run(*commands(out), environment=CPU | (FSDP if request.param == "FSDP" else {}))
    assert [each.code for each in ended] == [0, 0], ended[0].err + ended[1].err
    assert not ended[1].out
    assert not ended[1].problems
    assert [json.loads(line)["processes"] for line in ended[0].out.splitlines() if line.startswith("{")] == [2] * len(
        LESSONS
    )
    return out


def history(out: Path, what: str, name: str) -> list[float]:
    log = json.loads((out / LESSONS[what] / "history.json").read_text(encoding="utf-8"))
    return [entry[name] for entry in log if name in entry]


def weights(out: Path, what: str) -> dict[str, np.ndarray]:
    return load_file(out / LESSONS[what] / f"{SAVED[what]}.safetensors")


def require_equal(one: Path, other: Path, what: str, names=("loss", "grad_norm", "eval_loss")) -> None:
    for name in names:
        np.testing.assert_allclose(history(one, what, name), history(other, what, name), rtol=SAME, err_msg=name)
    ours, theirs = weights(one, what), weights(other, what)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=WEIGHTS, err_msg=name)


@pytest.mark.parametrize("what", LESSONS)
def test_two_processes_train_as_one_does(one, two, what):
    assert history(one, what, "loss")
    require_equal(one, two, what)


@pytest.mark.parametrize("what", LESSONS)
def test_each_row_is_judged_once(one, two, what):
    alone, shared = (pd.read_csv(out / LESSONS[what] / TABLE[what]) for out in (one, two))
    assert shared["id"].is_unique
    assert list(shared["id"]) == list(alone["id"])
    metrics = [
        json.loads((out / LESSONS[what] / "metrics.json").read_text(encoding="utf-8"))["metrics"] for out in (one, two)
    ]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-3)


def test_the_folder_is_that_of_the_lesson(two):
    for what, lesson in LESSONS.items():
        folder = two / lesson
        saved = folder / SAVED[what].split("/")[0]
        assert saved.is_dir()
        assert (folder / "record.json").is_file()
        assert not list(two.glob("**/*.checkpoints"))
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        assert record["test_split_opened"]
        assert record["processes"] == 2
    assert "## Results" in (two / LESSONS["classify"] / "model" / "README.md").read_text(encoding="utf-8")


def test_the_adapter_of_a_sharded_training_merges_with_a_certificate(two, tmp_path):
    base = loading.folder("tiny-llama")
    merge_with_certificate(base, two / LESSONS["lora"] / "adapter", tmp_path / "merged", ["Write a list."])  # or raises
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_a_training_whose_process_is_killed_goes_on_with_two_or_with_one(one, ranks, commands, place):
    """One of two is killed in the second epoch, or while it saves; both ways on lead to the same end."""
    whats, out = ["classify"], place / "killed"
    killed = ranks.run(
        *commands(out, whats=whats), environment=CPU,
        kill_when=str(out / "*.checkpoints" / "checkpoint-10"),
    )  # fmt: skip
    assert killed[1].code == -9
    assert killed[0].code != 0
    assert not (out / LESSONS["classify"]).exists()
    shutil.copytree(out, place / "killed-2")
    for resumed, processes in ((out, 2), (place / "killed-2", 1)):
        ended = ranks.run(*commands(resumed, whats=whats, resume=True), processes=processes, environment=CPU)
        assert not any(each.code for each in ended), ended[0].err
        # The loss in the log is the mean since the last entry, or since the training went on.
        require_equal(one, resumed, "classify", names=("grad_norm", "eval_loss"))


def test_a_sharded_checkpoint_that_names_code_is_refused(ranks, commands, place):
    """In its table of contents, or in what is no tensor."""
    out = place / "shards"
    ranks.run(
        *commands(out, whats=["classify"]), environment=CPU | FSDP,
        kill_when=str(out / "*.checkpoints" / "checkpoint-10"),
    )  # fmt: skip
    (checkpoint,) = out.glob("*.checkpoints/checkpoint-5")
    checkpoints._require_no_code(checkpoint)
    contents = checkpoint / "optimizer_0" / ".metadata"
    whole = contents.read_bytes()
    contents.write_bytes(b"c__builtin__\nprint\n(S'run'\ntR.")
    with pytest.raises(BadInput, match="would run code when it is opened"):
        checkpoints._require_no_code(checkpoint)
    contents.write_bytes(whole)
    _plant(contents)
    with pytest.raises(BadInput, match=r"would run code when it is opened \(builtins.print"):
        checkpoints._require_no_code(checkpoint)


def _plant(contents: Path) -> None:
    """Let what is no tensor in the checkpoint be an object that names code, at the end of its shard."""
    metadata = pickle.loads(contents.read_bytes())
    index, stored = next(
        (index, stored)
        for index, stored in metadata.storage_data.items()
        if isinstance(metadata.state_dict_metadata[index.fqn], BytesStorageMetadata)
    )
    written = io.BytesIO()
    torch.save(print, written)
    shard = contents.parent / stored.relative_path
    place, data = shard.stat().st_size, written.getvalue()
    with shard.open("ab") as file:
        file.write(data)
    metadata.storage_data[index] = dataclasses.replace(stored, offset=place, length=len(data))
    contents.write_bytes(pickle.dumps(metadata))
