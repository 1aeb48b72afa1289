import json
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import psutil
import pytest
import torch
from transformers import (
    AutoConfig,
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    T5Config,
)

from ftlab.adapters.targets import PRESETS
from ftlab.data import hub
from ftlab.errors import BadInput
from ftlab.memory import dry_run, footprint, meta_models
from ftlab.models import loading
from tests.nightly import few_by_day

MEASURE = """
import gc, json, sys
import psutil, torch
from transformers import BertConfig, BertForSequenceClassification
from ftlab.memory import footprint

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
@pytest.mark.parametrize("dropout", few_by_day([0.0, 0.1], 0.1))
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


SMOLLM2 = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
)  # fmt: skip
SMALL = LlamaConfig(
    vocab_size=400, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
)  # fmt: skip
WIDE = {"vocab_size": 400, "hidden_size": 64, "num_attention_heads": 4}
PHI = "microsoft/phi-2"


def small(method="full", config=SMALL, **options):
    return footprint.estimate(config, method=method, **{"batch_size": 2, "length": 16, **options})


@pytest.fixture
def no_network(monkeypatch, empty_home):
    """No hub to ask, and nothing in the cache."""

    def refused(*given, **named):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "folder", refused)


@pytest.mark.parametrize(
    ("model", "parameters"), [("distilbert-base-uncased", 66_955_010), ("gpt2", 124_439_808), (PHI, 2_779_683_840)]
)
def test_a_hub_model_is_counted_from_its_config_alone(no_network, model, parameters):
    built = meta_models.build(meta_models.config_of(model), "float32")
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters
    assert all(parameter.is_meta for parameter in built.parameters())


@pytest.mark.parametrize(
    ("model", "pairs"),  # of matrices: for each layer and target (inside + outside) * rank
    [
        (PHI, 32 * 2 * (2560 + 2560)),
        ("gpt2", 12 * (768 + 3 * 768)),  # query, key and value are one matrix
        ("distilbert-base-uncased", 6 * 2 * (768 + 768)),
    ],
)
def test_lora_is_counted_by_formula_and_by_model(no_network, model, pairs):
    built = meta_models.build(meta_models.config_of(model), "float32")
    adapted = meta_models.adapt(built, rank=16)
    trained = {name: parameter.numel() for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    # A classification head is new, and trained whole: in DistilBERT two layers.
    head = 768 * (768 + 1) + 2 * (768 + 1) if model.startswith("distilbert") else 0
    assert sum(trained.values()) == 16 * pairs + head


QUERY_AND_VALUE = {
    "llama": ["q_proj", "v_proj"],
    "phi": ["q_proj", "v_proj"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "gpt2": ["c_attn"],
}


def test_the_presets_are_the_query_and_value_projections():
    assert PRESETS == QUERY_AND_VALUE


@pytest.mark.parametrize(
    ("architecture", "names"),
    {**QUERY_AND_VALUE, "phi3": ["qkv_proj"], "qwen2": ["q_proj", "v_proj"], "electra": ["query", "value"]}.items(),
)
def test_by_default_lora_adapts_queries_and_values_with_or_without_a_preset(architecture, names):
    built = meta_models.build(AutoConfig.for_model(architecture, num_hidden_layers=1), "float32")
    assert meta_models.adapt(built, rank=1).peft_config["default"].target_modules == set(names)


def test_the_configs_of_all_real_models_and_of_a_7b_model_are_part_of_the_package(repository):
    a_7b = "mistral-7b"
    assert set(meta_models.shipped()) == {*loading.HUB_MODELS, *loading.MODEL_ASSETS, a_7b}
    # Embeddings and head; in each layer attention with 8 of 32 heads for keys and values, a gated MLP and two norms.
    assert sum(part.numel() for part in meta_models.build(meta_models.config_of(a_7b), "bfloat16").parameters()) == (
        2 * 32000 * 4096 + 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096) + 4096
    )
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert "memory/configs/*.json" in project["tool"]["setuptools"]["package-data"]["ftlab"]


@pytest.mark.assets
@pytest.mark.parametrize("model", loading.MODEL_ASSETS)
def test_the_shipped_config_is_that_of_the_weights(model):
    of_weights = AutoConfig.from_pretrained(loading.folder(model)).to_dict()
    shipped = meta_models.config_of(model).to_dict()
    different = {name for name in of_weights.keys() | shipped if of_weights.get(name) != shipped.get(name)}
    assert different <= {"_name_or_path", "dtype", "transformers_version"}


@pytest.fixture(scope="module")
def phi():
    """The footprints of phi-2 on a GPU with 4 rows of 512 tokens, by method and checkpointing."""
    return {
        (method, checkpointing): footprint.estimate(
            PHI, method=method, dtype=dtype, batch_size=4, length=512, checkpointing=checkpointing, device="cuda"
        )
        for method, dtype in (("lora", "float16"), ("qlora", "bfloat16"))
        for checkpointing in (False, True)
    }


def test_phi_2_in_8_gb(phi):
    """The weights take 5.6 GB in half precision; the activations fit only if they are computed again."""
    plain = phi["lora", False]
    assert (plain.trainable, plain.parameters) == (5_242_880, 2_784_926_720)
    assert plain.trainable_percent == pytest.approx(0.1883, abs=5e-5)
    assert plain.weights == pytest.approx(2 * 2_779_683_840 + 4 * 5_242_880, rel=1e-6)
    assert plain.total > 15e9
    assert 7e9 < phi["lora", True].total < 8e9
    assert phi["qlora", False].total > 8e9
    assert phi["qlora", True].total < 5e9
    assert phi["qlora", True].weights < 0.35 * phi["lora", True].weights
    # Checkpointing runs a second forward pass and keeps a fraction of the activations.
    assert phi["lora", True].activations < 0.1 * plain.activations
    assert 1.2 < phi["lora", True].flops / plain.flops < 1.6


@pytest.mark.parametrize("method", footprint.METHODS)
def test_the_parts_add_up(method):
    found = small(method)
    table = found.table()
    assert found.total == sum(getattr(found, part) for part in footprint.PARTS)
    assert list(table.index) == [*(part.replace("_", " ") for part in footprint.PARTS), "total"]
    assert table["MB"].iloc[:-1].sum() == pytest.approx(table["MB"]["total"], abs=0.4)
    assert found.table("GB")["GB"]["total"] == round(found.total / 1e9, 2)
    assert found.never_at_once <= 0
    assert min(getattr(found, part) for part in footprint.PARTS if part != "never_at_once") >= 0
    assert found.total >= found.weights + found.optimizer + found.gradients + found.runtime


@pytest.mark.parametrize("method", footprint.METHODS)
@pytest.mark.parametrize("what", ["batch_size", "length", "rank"])
def test_more_takes_more(method, what):
    least = {"batch_size": 2, "length": 16, "rank": 4}
    totals = [small(method, **{**least, what: times * least[what]}).total for times in (1, 2, 4)]
    if what == "rank" and method == "full":
        assert totals[0] == totals[1] == totals[2]
    else:
        assert totals[0] < totals[1] < totals[2]


def test_logits_are_those_of_the_supervised_tokens():
    config = LlamaConfig(**{**SMALL.to_dict(), "vocab_size": 8000})
    whole, half, quarter = (
        small(config=config, length=64, supervised_share=share).logits for share in (1.0, 0.5, 0.25)
    )
    assert whole == pytest.approx(2 * half, rel=0.1)
    assert half == pytest.approx(2 * quarter, rel=0.1)


def test_full_training_holds_sixteen_bytes_for_each_parameter():
    found = small()
    assert found.trainable == found.parameters
    assert (found.gradients, found.optimizer) == (4 * found.parameters, 8 * found.parameters)
    assert small(optimizer="sgd").optimizer == 0
    in_half = small(dtype="bfloat16")
    assert (in_half.gradients, in_half.optimizer) == (2 * found.parameters, 4 * found.parameters)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_lora_s_gradients_and_states_are_those_of_its_own_parameters(method, dtype):
    found = small(method, rank=4, dtype=dtype)
    own = 4 * 2 * ((64 + 64) + (64 + 32))  # rank, layers, query and value; float32 whatever the weights are
    assert found.trainable == own
    assert (found.gradients, found.optimizer) == (4 * own, 8 * own)
    assert found.parameters == small().parameters + own


def test_target_modules_by_name_and_all_of_them():
    one = small("lora", target_modules=["q_proj"], rank=2)
    assert one.trainable == 2 * 2 * (64 + 64)
    every = small("lora", target_modules="all-linear", rank=2)
    assert every.trainable == 2 * 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 160))


def test_four_bits_are_at_most_a_third_of_float32():
    """A fifth of the parameters of SmolLM2 is the embedding, which stays in float32."""
    built = meta_models.build(SMOLLM2, "float32")
    whole = sum(parameter.nbytes for parameter in built.parameters())
    meta_models.quantize(built)
    packed = sum(tensor.nbytes for tensor in (*built.parameters(), *built.buffers()))
    assert whole == 4 * 134_515_008
    assert 0.25 < packed / whole < 0.35
    embedding = 4 * 49152 * 576
    assert 8 * (packed - embedding) / (134_515_008 - 49152 * 576) == pytest.approx(4.13, abs=0.03)  # bits each


def test_an_encoder_gets_a_classification_head_and_a_decoder_its_lm_head():
    encoder = BertConfig(
        vocab_size=400, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4
    )
    assert small(config=encoder).logits < 10_000 < small().logits
    assert meta_models.lm_head(meta_models.build(encoder, "float32")) is None
    assert small("lora", encoder).trainable == 16 * 2 * 2 * (64 + 64) + 2 * (64 + 1)


@pytest.mark.parametrize("model", ["minilm", "distilbert-base-uncased"])
def test_an_encoder_in_4_bits_keeps_a_head_that_trains(no_network, model):
    """transformers would pack the head, too, and PEFT then fails to train it."""
    few, lora = (footprint.estimate(model, method=method, batch_size=2, length=16) for method in ("qlora", "lora"))
    assert (few.trainable, few.parameters) == (lora.trainable, lora.parameters)
    assert (few.gradients, few.optimizer) == (lora.gradients, lora.optimizer)
    built = meta_models.build(meta_models.config_of(model), "float32")
    embeddings = sum(
        part.numel() for name, part in built.base_model.named_parameters() if name.startswith("embeddings.")
    )
    packed = 4 * embeddings + (lora.parameters - embeddings - lora.trainable) / 2 + 4 * lora.trainable
    assert packed < few.weights < 1.1 * packed < lora.weights


def test_padding_costs_a_mask_in_each_layer():
    assert small(length=64).activations - small(length=64, padded=False).activations >= 2 * 4 * 2 * 64 * 64
    assert small(batch_size=1).total == small(batch_size=1, padded=False).total


def test_a_folder_needs_no_weights(tmp_path):
    SMALL.save_pretrained(tmp_path)
    assert footprint.estimate(str(tmp_path), batch_size=2, length=16) == small()


def test_estimating_changes_no_config():
    config = GPT2Config(vocab_size=100, n_embd=32, n_layer=1, n_head=2)
    before = config.to_dict()
    small("qlora", config)
    assert config.to_dict() == before


def test_a_step_is_counted_once_and_again_for_whatever_changes_it(monkeypatch):
    counted = []
    count_step = dry_run.count_step
    monkeypatch.setattr(
        dry_run, "count_step", lambda *given, **named: counted.append(named) or count_step(*given, **named)
    )
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 97}
    config = LlamaConfig(num_hidden_layers=1, **sizes)
    first = footprint.estimate(config, batch_size=2, length=9)
    assert footprint.estimate(LlamaConfig(num_hidden_layers=1, **sizes), batch_size=2, length=9) == first
    assert len(counted) == 1
    config.num_hidden_layers = 2  # the same object, changed
    deeper = footprint.estimate(config, batch_size=2, length=9)
    assert deeper.parameters > first.parameters
    assert footprint.estimate(config, batch_size=2, length=9, padded=False) != deeper
    eager = LlamaConfig(num_hidden_layers=2, **sizes, attn_implementation="eager")
    footprint.estimate(eager, batch_size=2, length=9)
    assert len(counted) == 4


def test_flops_are_about_six_for_each_token_and_parameter_and_four_with_lora():
    config = LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4
    )
    tokens = 2 * 16
    full, lora = (small(method, config, rank=1) for method in ("full", "lora"))
    assert full.flops / (tokens * full.parameters) == pytest.approx(6, rel=0.05)
    assert lora.flops / (tokens * full.parameters) == pytest.approx(4, rel=0.05)
    assert small("qlora", config, rank=1).flops == lora.flops


def test_seconds_are_flops_and_memory_over_the_rates():
    found = small()
    assert footprint.seconds(found, 1e9) == found.flops / 1e9
    assert footprint.seconds(found, 1e9, steps=10) == pytest.approx(10 * found.flops / 1e9)
    with_memory = footprint.seconds(found, 1e9, bytes_per_second=1e8)
    assert with_memory == pytest.approx(found.flops / 1e9 + found.moved / 1e8)


def test_the_rates_of_this_machine():
    assert 1e8 < footprint.matmul_rate("float32") < 1e15
    assert 1e8 < footprint.memory_rate() < 1e14


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "prefix"}, "there is no method 'prefix'; expected one of full, lora, qlora"),
        ({"dtype": "float8"}, "there is no dtype 'float8'; expected one of float32, bfloat16, float16"),
        ({"optimizer": "lion"}, "there is no optimizer 'lion'; expected one of adamw, sgd"),
        ({"device": "tpu"}, "there is no device 'tpu'; expected one of cpu, cuda"),
        ({"batch_size": 0}, "batch_size 0 .* expected 1 or more"),
        ({"length": -3}, "length -3 .* expected 1 or more"),
        ({"rank": 0, "method": "lora"}, "rank 0 .* expected 1 or more"),
        ({"rank": 65, "method": "lora"}, "rank 65 is above the model's width; expected at most 64"),
        ({"length": 129}, "rows of 129 tokens .* 128 positions; expected a length of at most 128"),
        ({"supervised_share": 0.0}, "supervised_share 0 .* more than 0 and at most 1"),
        ({"supervised_share": 1.5}, "supervised_share 1.5 .* more than 0 and at most 1"),
        ({"target_modules": ["Wqkv"], "method": "lora"}, "'Wqkv'.* its linear modules are q_proj, k_proj, v_proj"),
        ({"target_modules": [], "method": "lora"}, "match nothing .* its linear modules are q_proj, k_proj, v_proj"),
        ({"config": "gpt5"}, "there is no model 'gpt5'"),
        ({"config": "someone/else"}, "the config of someone/else is not on this machine; expected one of minilm"),
        ({"config": "./nowhere"}, "the model folder nowhere does not exist"),
        ({"config": T5Config()}, "t5 model is neither a decoder nor an encoder"),
        ({"config": OPTConfig(**WIDE)}, "a step of OPTForCausalLM cannot be counted without its weights"),
        ({"config": BloomConfig(**WIDE)}, "a step of BloomForCausalLM cannot be counted without its weights"),
    ],
)
def test_bad_input_is_one_clear_sentence(no_network, options, said):
    with pytest.raises(BadInput, match=said) as raised:
        small(**options)
    assert "\n" not in str(raised.value)


def test_a_table_in_another_unit_is_refused():
    with pytest.raises(BadInput, match="there is no unit 'TB'; expected one of MB, GB"):
        small().table("TB")
