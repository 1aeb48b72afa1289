import json
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from ftlab.models import footprint, loading

MEASURE = """
import gc, json, sys
import psutil, torch
from transformers import BertConfig, BertForSequenceClassification
from ftlab.models import footprint

torch.set_num_threads(1)
batch_size, length, dropout = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

def train(batch_size, length, **shape):
    model = BertForSequenceClassification(BertConfig(attention_probs_dropout_prob=dropout, **shape)).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        ids = torch.randint(5, 90, (batch_size, length))
        loss = model(ids, attention_mask=torch.ones_like(ids), labels=torch.zeros(batch_size, dtype=torch.long)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return footprint.training_memory(model, batch_size=batch_size, length=length)

tiny = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=99)
train(2, 8, **tiny)  # so that what the libraries themselves take is not counted
gc.collect()
before = psutil.Process().memory_info().rss
open("/proc/self/clear_refs", "w").write("5")
small = dict(hidden_size=192, num_hidden_layers=4, num_attention_heads=6, intermediate_size=768, vocab_size=8000)
estimate = train(batch_size, length, **small)
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([estimate, peak - before]))
"""


def shape(**options):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    return BertForSequenceClassification(BertConfig(vocab_size=500, **{**sizes, **options}))


def memory(model, batch_size=8, length=64):
    return footprint.training_memory(model, batch_size=batch_size, length=length)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's peak can be reset only on Linux")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_estimate_is_near_what_a_training_takes(repository, dropout):
    command = [sys.executable, "-c", MEASURE, "16", "256", str(dropout)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    estimate, measured = json.loads(done.stdout)
    assert 0.85 < estimate / measured < 1.5, f"{estimate / 1e6:.0f} MB expected, {measured / 1e6:.0f} MB measured"


def test_weights_that_are_trained_cost_gradients_and_two_states_of_the_optimizer():
    model = shape()
    weights = sum(parameter.numel() for parameter in model.parameters())
    all_trained = memory(model)
    for parameter in model.bert.parameters():
        parameter.requires_grad = False
    frozen = sum(parameter.numel() for parameter in model.bert.parameters())
    assert all_trained - memory(model) == 12 * frozen
    assert memory(model, 1, 1) - 16 * (weights - frozen) - 4 * frozen < 100_000  # one token leaves next to nothing


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_grow_with_the_rows(dropout):
    model = shape(attention_probs_dropout_prob=dropout)
    one, two, three = (memory(model, batch_size=rows) for rows in (8, 16, 24))
    assert two - one == three - two > 0


def test_only_attention_dropout_makes_memory_grow_with_the_square_of_the_length():
    def growth(dropout):
        model = shape(attention_probs_dropout_prob=dropout)
        one, two, three = (memory(model, length=tokens) for tokens in (64, 128, 192))
        return (three - two) - (two - one)

    assert growth(0.0) == 0
    assert growth(0.1) == 2 * footprint.BYTES_PER_ATTENTION_WEIGHT * 8 * 64**2 * 4 * 2


@pytest.mark.parametrize(
    ("name", "option"),
    [("tiny-distilbert", "attention_dropout"), ("tiny-gpt2", "attn_pdrop"), ("tiny-phi", "attention_dropout")],
)
def test_each_architecture_s_names_are_understood(name, option):
    load = loading.causal_lm if name != "tiny-distilbert" else lambda name, **more: loading.encoder(name, ["a"], **more)
    with_dropout, without = load(name, **{option: 0.1}), load(name, **{option: 0.0})
    assert memory(with_dropout) > memory(without) > 0


def test_on_a_gpu_a_fused_kernel_keeps_no_attention_matrix():
    def on(device, dropout):
        model = shape(attention_probs_dropout_prob=dropout)
        return SimpleNamespace(parameters=model.parameters, config=model.config, device=torch.device(device))

    assert memory(on("cuda", 0.1)) == memory(on("cuda", 0.0)) < memory(on("cpu", 0.0)) < memory(on("cpu", 0.1))
    assert memory(on("mps", 0.1)) == memory(on("cpu", 0.1))


def test_free_memory_is_the_gpu_s_own_or_what_the_machine_has_available(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123, free=7, total=10**9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (456, 10**9))
    assert footprint.free_memory(torch.device("cpu")) == 123
    assert footprint.free_memory(torch.device("mps")) == 123
    assert footprint.free_memory(torch.device("cuda", 0)) == 456
