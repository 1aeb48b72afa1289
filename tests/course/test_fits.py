import dataclasses
import itertools
import json
from pathlib import Path

import psutil
import pytest
import torch

from ftlab.course import fits
from ftlab.course.fits import trainable_here
from ftlab.data import hub
from ftlab.errors import BadInput
from ftlab.memory import dry_run, footprint, meta_models
from tests.nightly import combinations, few_by_day


@pytest.fixture
def no_network(monkeypatch, empty_home):
    def refuse(*args, **options):
        raise AssertionError("nothing is fetched to estimate memory")

    monkeypatch.setattr(hub, "folder", refuse)


@pytest.fixture
def small(tmp_path):
    """A folder with the config of a tiny decoder, and no weights."""
    meta_models.config_of("gpt2").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"n_layer": 1, "n_embd": 48, "n_head": 4}),
        encoding="utf-8",
    )
    return str(tmp_path)


def test_it_needs_no_network_and_no_weights(no_network):
    table = trainable_here(["minilm", "distilbert-base-uncased"], memory_gb=8, gpu_gb=0, batch_size=2, length=32)
    assert list(table.index) == [
        (model, method) for model in ("minilm", "distilbert-base-uncased") for method in footprint.METHODS
    ]
    assert (table["fits"] == "yes").all()
    assert (table["million parameters"].loc["minilm"] == [22.7, 22.9, 22.9]).all()


def test_all_models_of_the_table_have_a_config_in_the_package():
    assert set(fits.MODELS) <= set(meta_models.shipped())


def test_a_line_is_what_the_footprint_predicts(small):
    table = trainable_here(small, memory_gb=8, gpu_gb=0, batch_size=2, length=32)
    for method in footprint.METHODS:
        found = footprint.estimate(small, method=method, batch_size=2, length=32)
        assert table["GB"][small, method] == round(found.total / 1e9, 1)


def test_what_fits_is_compared_at_the_predicted_peak(small):
    peak = footprint.estimate(small, batch_size=2, length=32).total / 1e9
    for free, fit in ((0.999, "no"), (1.001, "tight"), (1.249, "tight"), (1.251, "yes")):
        table = trainable_here(small, memory_gb=peak * free, gpu_gb=0, batch_size=2, length=32)
        assert table["fits"][small, "full"] == fit


def test_more_memory_never_makes_a_training_not_fit(small):
    order = ["no", "tight", "yes"]
    found = [
        trainable_here(small, memory_gb=gb, gpu_gb=0, length=32)["fits"].map(order.index)
        for gb in (0, 0.04, 0.05, 0.06, 0.2, 1, 100)
    ]
    assert all((less <= more).all() for less, more in itertools.pairwise(found))
    assert (found[0].max(), found[-1].min()) == (0, 2)


def test_a_prediction_is_counted_once_and_again_for_another_config(small, monkeypatch):
    first = trainable_here(small, memory_gb=8, gpu_gb=0, length=32)
    with monkeypatch.context() as patched:
        patched.setattr(dry_run, "count_step", None)
        again = trainable_here(small, memory_gb=0, gpu_gb=0, length=32)
    assert (again["fits"] == "no").all()
    assert again.drop(columns="fits").equals(first.drop(columns="fits"))
    path = Path(small) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"n_embd": 96}), encoding="utf-8")
    assert (trainable_here(small, memory_gb=8, gpu_gb=0, length=32)["million parameters"]
            > first["million parameters"]).all()  # fmt: skip


def test_a_folder_may_be_a_path(small):
    given = {"memory_gb": 8, "gpu_gb": 0, "length": 32}
    assert trainable_here(Path(small), **given).equals(trainable_here([small], **given))


def test_a_gpu_keeps_frozen_weights_in_bf16_and_trained_ones_in_fp32(small):
    on_gpu = trainable_here(small, gpu_gb=8, length=32)
    assert on_gpu["weights"].tolist() == ["fp32", "bf16", "4 bits"]
    assert trainable_here(small, gpu_gb=0, length=32)["weights"].tolist() == ["fp32", "fp32", "4 bits"]
    assert on_gpu.columns.name == "4 x 32 tokens on the GPU, 8.0 GB free"


def test_by_default_it_asks_this_machine(small, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    name = trainable_here(small, length=32).columns.name
    assert name.startswith("4 x 32 tokens on the CPU, ")
    assert float(name.split(", ")[1].split()[0]) == pytest.approx(psutil.virtual_memory().available / 1e9, rel=0.3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(footprint, "free_memory", lambda device: 24_000_000_000)
    assert trainable_here(small, length=32).columns.name == "4 x 32 tokens on the GPU, 24.0 GB free"


def test_a_7b_model_on_gpus(no_network):
    """Tutorial A: LoRA of 7B on 8 to 16 GB. In half precision 16 free GB just hold it; 8 GB need 4 bits."""
    table = trainable_here([fits.A_7B], gpu_gb=16)
    assert table["fits"].tolist() == ["no", "tight", "yes"]
    assert 14.5 < table["GB"][fits.A_7B, "lora"] < 16
    assert 4.5 < table["GB"][fits.A_7B, "qlora"] < 8
    assert table["published"][fits.A_7B, "lora"] == "8 to 16 GB (tutorial A)"


@pytest.mark.parametrize(
    ("model", "device", "method"),
    few_by_day(
        combinations(["gpt2", "smollm2", "microsoft/phi-2", fits.A_7B], ["cpu", "cuda"], ["lora", "qlora"]),
        ("smollm2", "cuda", "lora"), ("microsoft/phi-2", "cpu", "lora"), (fits.A_7B, "cuda", "qlora"),
    ),
)  # fmt: skip
def test_a_deep_model_counted_by_layers_is_the_same_as_counted_whole(model, device, method):
    dtype = {"cpu": "float32", "cuda": "bfloat16"}[device]
    config = meta_models.config_of(model)
    config.num_hidden_layers = fits.DEEP
    large = model in ("microsoft/phi-2", fits.A_7B)
    for batch_size, length in ((4, 256), (8, 1024)) if large else ((4, 256),):
        settings = {"batch_size": batch_size, "length": length, "method": method, "device": device, "dtype": dtype,
                    "checkpointing": large}  # fmt: skip
        whole = footprint.estimate(config, **settings)
        found = fits.by_layers(config, **settings)
        for part in dataclasses.fields(whole):
            # the allocator's gaps are rounded to whole bytes in each count
            assert getattr(found, part.name) == pytest.approx(getattr(whole, part.name), rel=0, abs=16), part.name


@pytest.mark.parametrize(("layers", "length"), [(2, 1024), (fits.DEEP, 16)], ids=["shallow", "tiny batch"])
def test_a_shallow_model_and_a_tiny_batch_are_counted_whole(layers, length):
    config = meta_models.config_of(fits.A_7B)
    config.num_hidden_layers = layers
    settings = {"batch_size": 1, "length": length, "method": "lora", "checkpointing": True}
    assert fits.by_layers(config, **settings) == footprint.estimate(config, **settings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"models": []}, "models is empty; expected names out of minilm, .*leave it out to get all"),
        ({"models": None}, "models is None; expected names out of minilm, .*leave it out to get all"),
        ({"models": 3}, "models is 3; expected names"),
        ({"models": ["gpt2", 3]}, "models contains 3; expected names out of minilm, "),
        ({"models": [None]}, "models contains None; expected names"),
        ({"models": ["gpt5"]}, "there is no model 'gpt5'; expected names out of .*, mistral-7b, or folders with"),
        ({"models": "a\0b"}, "there is no model .*; expected names"),
        ({"memory_gb": -1}, "memory_gb is -1; expected a number of GB"),
        ({"memory_gb": 16384}, "memory_gb is 16384; .*write 8 for 8192 MB"),
        ({"gpu_gb": "8"}, "gpu_gb is '8'; expected a number of GB .*give 0 for no GPU"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number, 1 or more"),
        ({"batch_size": 2.5}, "batch_size is 2.5; expected a whole number"),
        ({"length": True}, "length is True; expected a whole number"),
        ({"models": ["minilm"], "length": 513}, "rows of 513 tokens do not fit a bert model with 512 positions"),
    ],
    ids=str,
)
def test_an_impossible_value_is_refused_in_one_sentence(given, said):
    with pytest.raises(BadInput, match=said) as raised:
        trainable_here(**given)
    assert "\n" not in str(raised.value)
