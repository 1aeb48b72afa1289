"""A checkpoint with something planted in it is refused in one sentence, or left aside; no code in it runs."""

import json
import pickle

import numpy as np
import pytest
import torch

from ftlab.errors import BadInput
from ftlab.training.checkpoints import OPTIMIZERS, RNG, SCHEDULER, checkpoint
from tests.hostile.payloads import Bomb, safetensors

IDENTITY = {"model": "tiny"}
TORCH_PARTS = (OPTIMIZERS[0], SCHEDULER, RNG)
WHOLE = safetensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})


@pytest.fixture
def saved(tmp_path):
    """The last of two checkpoints, as Trainer writes them; the test fails if a payload has run at its end."""
    checkpoint(tmp_path / "all", IDENTITY, resume=False)
    for step in (4, 8):
        folder = tmp_path / "all" / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(WHOLE)
        state = {"global_step": step, "max_steps": 12, "stateful_callbacks": {}}
        (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
        torch.save(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).state_dict(), folder / "optimizer.pt")
        torch.save({"last_epoch": 1}, folder / "scheduler.pt")
        torch.save({"numpy": np.random.get_state(), "cpu": torch.get_rng_state()}, folder / "rng_state.pth")
    yield folder
    assert not (tmp_path / "ran").exists()


def resumed(saved):
    return checkpoint(saved.parent, IDENTITY, resume=True)


def test_what_trainer_writes_is_resumed(saved):
    assert resumed(saved) == str(saved)


@pytest.mark.parametrize("part", TORCH_PARTS)
def test_a_part_that_would_run_code_is_named_and_not_opened(saved, part, tmp_path):
    torch.save(Bomb(tmp_path / "ran"), saved / part)
    with pytest.raises(BadInput, match=rf"{part} would run code when it is opened .*pathlib"):
        resumed(saved)
    assert saved.exists()  # it is not deleted either


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin"])
def test_weights_as_a_pickle_are_not_opened(saved, name, tmp_path):
    torch.save(Bomb(tmp_path / "ran"), saved / name)
    with pytest.raises(BadInput, match=f"holds the pickle {name}"):
        resumed(saved)


def test_settings_as_a_pickle_are_not_opened(saved, tmp_path):
    torch.save(Bomb(tmp_path / "ran"), saved / "training_args.bin")
    assert resumed(saved) == str(saved)


@pytest.mark.parametrize("part", [*TORCH_PARTS, "model.safetensors"])
def test_a_plain_pickle_in_the_place_of_a_part_is_left_aside(saved, part, tmp_path):
    (saved / part).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert resumed(saved).endswith("checkpoint-4")


@pytest.mark.parametrize(
    "state", ["[]", "{}", '"x"', "[" * 100_000, '{"global_step": "8", "max_steps": 12}',
              '{"global_step": 1000000000, "max_steps": 12}'],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_a_state_that_is_none_is_left_aside(saved, state):
    (saved / "trainer_state.json").write_text(state, encoding="utf-8")
    assert resumed(saved).endswith("checkpoint-4")
