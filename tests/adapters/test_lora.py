import copy
import json
import math
import sys
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from ftlab.adapters import config as adapter_config
from ftlab.adapters import lora as adapters
from ftlab.adapters import quantized
from ftlab.data import chat
from ftlab.errors import BadInput, CourseError
from ftlab.freezing import plans
from ftlab.models import loading
from tests.models import tiny_classifiers
from tests.models.saved_models import save

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, DEPTH = tiny_classifiers.WIDTH, tiny_classifiers.DEPTH
LANGUAGE_MODELS = {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM, "phi": PhiForCausalLM}
CLASSIFIERS = ("distilbert", "bert", "roberta")
NAMES = (*LANGUAGE_MODELS, *CLASSIFIERS)
EXACT = ("lora", "rslora", "dora")  # those that start with B = 0
BASE = "tiny-gpt2"


def build(name, **options):
    """A tiny model of the real class: a language model where the architecture is one, else a classifier."""
    if name not in LANGUAGE_MODELS:
        return tiny_classifiers.build(name, **options)
    _, config, sizes = tiny_classifiers.KINDS[name]
    torch.manual_seed(0)
    return LANGUAGE_MODELS[name](config(**{**tiny_classifiers.SHARED, **sizes, **options}))


def lora(**options):
    return LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options})


def wrapped(name, **options):
    """A tiny model wrapped by its preset, and what was resolved before."""
    model = build(name)
    config = adapters.config(model, **{"rank": 4, "alpha": 8, **options})
    targets = adapters.resolve(model, config)
    return get_peft_model(model, targets.config), targets


def a_batch():
    generator = torch.Generator().manual_seed(0)
    return {"input_ids": torch.randint(3, 600, (4, 8), generator=generator), "attention_mask": torch.ones(4, 8)}


def stir(peft_model):
    """Adapters as training leaves them: nothing is 0 any more."""
    generator = torch.Generator().manual_seed(1)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) / 10
    return peft_model


def logits(model):
    with torch.no_grad():
        return model.eval()(**a_batch()).logits


def assert_one_sentence(raised, *shown):
    message = str(raised.value)
    assert "\n" not in message
    for words in shown:
        assert words in message


# Real architectures, counted without weights


@pytest.mark.parametrize(
    ("model", "config", "base", "options", "adapter", "kept"),
    [
        (
            PhiForCausalLM,
            PhiConfig(
                vocab_size=51200, hidden_size=2560, intermediate_size=10240, num_hidden_layers=32,
                num_attention_heads=32,
            ),
            2_779_683_840, {"rank": 16}, 32 * 2 * 16 * (2560 + 2560), 0,
        ),
        (GPT2LMHeadModel, GPT2Config(), 124_439_808, {"rank": 8}, 12 * 8 * (768 + 3 * 768), 0),
        (
            GPT2LMHeadModel, GPT2Config(), 124_439_808, {"rank": 8, "target_modules": "all-linear"},
            12 * 8 * ((768 + 2304) + (768 + 768) + (768 + 3072) + (3072 + 768)), 0,
        ),
        (
            DistilBertForSequenceClassification, DistilBertConfig(), 66_955_010, {"rank": 8},
            6 * 2 * 8 * (768 + 768), 768**2 + 768 + 2 * 768 + 2,
        ),
    ],
    ids=["phi-2", "GPT-2", "GPT-2, all linear", "DistilBERT"],
)  # fmt: skip
def test_the_counts_of_real_models_are_those_of_the_formula(model, config, base, options, adapter, kept):
    with torch.device("meta"):
        made = model(config)
    targets = adapters.resolve(made, adapters.config(made, alpha=16, **options))
    assert (targets.base, targets.adapter, targets.kept) == (base, adapter, kept)
    assert targets.total == base + adapter + kept
    peft_model = get_peft_model(made, targets.config)
    adapters.require_counts(peft_model, targets)
    assert peft_model.get_nb_trainable_parameters() == (targets.trainable, targets.total)


def test_the_count_of_phi_2_is_the_one_that_is_published():
    shape = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32}
    with torch.device("meta"):
        model = PhiForCausalLM(PhiConfig(vocab_size=51200, **shape))
    targets = adapters.resolve(model, lora(r=16))
    assert targets.trainable == 5_242_880
    assert str(targets) == (
        "64 modules of PhiForCausalLM (q_proj, v_proj): 5,242,880 of 2,784,926,720 parameters train (0.1883%)"
    )


@pytest.mark.parametrize(
    ("model", "config", "trained"),
    [
        (GPT2LMHeadModel, GPT2Config(), 294_912),
        (DistilBertForSequenceClassification, DistilBertConfig(), 147_456 + 592_130),
    ],
    ids=["GPT-2", "DistilBERT"],
)
def test_the_other_counts_too(model, config, trained):
    with torch.device("meta"):
        made = model(config)
    assert adapters.resolve(made, adapters.config(made, rank=8, alpha=16)).trainable == trained


# What is matched


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_takes_the_query_and_value_projections_of_every_layer(name):
    targets = wrapped(name)[1]
    endings = {module.name.rpartition(".")[2] for module in targets.modules}
    assert endings == set(adapters.PRESETS[name])
    assert len(targets.modules) == DEPTH * len(endings)
    kind = "Conv1D" if name == "gpt2" else "Linear"
    assert {(module.kind, module.in_features) for module in targets.modules} == {(kind, WIDTH)}
    assert {module.out_features for module in targets.modules} == {3 * WIDTH if name == "gpt2" else WIDTH}


def test_the_presets_are_of_architectures_that_are_tested():
    assert set(adapters.PRESETS) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("phi", {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}),
        ("distilbert", {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}),
        ("bert", {"query", "key", "value", "dense"}),
        ("roberta", {"query", "key", "value", "dense"}),
    ],
)
def test_all_linear_takes_every_linear_layer_but_the_head(name, endings):
    peft_model, targets = wrapped(name, target_modules="all-linear")
    assert {module.name.rpartition(".")[2] for module in targets.modules} == endings
    adapters.require_counts(peft_model, targets)
    assert not any(part in module.name for module in targets.modules for part in ("lm_head", "classifier"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": ["self_attn.q_proj", "fc1"]},
        {"target_modules": r".*layers\.[01]\.self_attn\.(q|v)_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "exclude_modules": ["fc1", "fc2"]},
        {"target_modules": "all-linear", "exclude_modules": r".*\.0\..*"},
        {"layers_to_transform": [0, 2]},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": None},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
        {"target_modules": ["lm_head", "q_proj"]},
        {"rank_pattern": {"v_proj": 2, r"layers\.0\.self_attn\.q_proj": 7}},
        {"use_rslora": True, "rank_pattern": {"v_proj": 9}, "alpha_pattern": {"q_proj": 3}},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["lm_head"], "bias": "all"},
        {"modules_to_save": ["mlp"], "bias": "all", "target_modules": "all-linear"},
        {"target_modules": [f"model.layers.{n}.{m}" for n in range(3) for m in ("mlp.fc1", "mlp.fc2", "self_attn.dense",
         "self_attn.q_proj", "self_attn.v_proj", "self_attn.k_proj")] + ["lm_head"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_resolved_is_what_peft_wraps(options):
    model = build("phi")
    config = lora(**options)
    before = copy.deepcopy(config)
    targets = adapters.resolve(model, config)
    assert config == before
    peft_model = get_peft_model(model, targets.config)
    assert [module.name for module in targets.modules] == peft_model.base_model.targeted_module_names
    for module in targets.modules:
        layer = peft_model.base_model.model.get_submodule(module.name)
        assert (layer.r["default"], layer.scaling["default"]) == (module.rank, module.scale)
        assert (layer.in_features, layer.out_features) == (module.in_features, module.out_features)
    adapters.require_counts(peft_model, targets)
    assert peft_model.get_nb_trainable_parameters() == (targets.trainable, targets.total)


@pytest.mark.parametrize("name", ["distilbert", "bert"])
@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_the_head_of_a_classifier_trains_in_full_and_is_counted(name, bias):
    peft_model, targets = wrapped(name, bias=bias)
    assert targets.kept == 2 * WIDTH + 2 + (WIDTH**2 + WIDTH if name == "distilbert" else 0)
    adapters.require_counts(peft_model, targets)
    # A config that PEFT has had in its hands names the head itself.
    assert adapters.resolve(build(name), targets.config).kept == targets.kept


def test_a_head_of_another_task_is_left_out_of_all_linear_too():
    config = BertConfig(**{**tiny_classifiers.SHARED, **tiny_classifiers.LAYERS})
    targets = adapters.resolve(
        model := BertForTokenClassification(config),
        adapters.config(model, rank=2, alpha=2, target_modules="all-linear"),
    )
    assert targets.config.exclude_modules == {"classifier"}
    adapters.require_counts(get_peft_model(model, targets.config), targets)


@pytest.mark.parametrize("variant", adapters.VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_formula_counts_what_peft_counts_and_says_so_in_a_table(name, variant):
    peft_model, targets = wrapped(name, variant=variant)
    adapters.require_counts(peft_model, targets)
    assert adapters.trainable(peft_model) == targets.trainable
    outs = 3 * WIDTH if name == "gpt2" else WIDTH
    each = 4 * (WIDTH + outs) + (outs if variant == "dora" else 0)
    table = targets.table()
    assert table["parameters"].to_dict() == {module.name: each for module in targets.modules}
    assert table["parameters"].sum() == targets.adapter
    scale = 8 / math.sqrt(4) if variant == "rslora" else 8 / 4
    assert set(table["scale"]) == {scale}
    assert list(table.columns) == ["kind", "in", "out", "rank", "scale", "parameters"]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_fan_in_fan_out_is_set_as_the_modules_need_it_and_nobody_is_warned(name, given):
    model = build(name)
    config = lora(target_modules=list(adapters.PRESETS[name]), fan_in_fan_out=given)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        targets = adapters.resolve(model, config)
        get_peft_model(model, targets.config)
    assert targets.config.fan_in_fan_out == (name == "gpt2")
    assert config.fan_in_fan_out == given


@pytest.mark.parametrize("mode", [True, False])
def test_resolving_changes_nothing_and_draws_no_random_number(mode):
    model = build("gpt2").train(mode)
    before, state = plans.fingerprints(model), torch.get_rng_state()
    trains = [parameter.requires_grad for parameter in model.parameters()]
    adapters.resolve(model, lora(target_modules="all-linear"))
    assert torch.equal(torch.get_rng_state(), state)
    assert plans.fingerprints(model) == before
    assert [parameter.requires_grad for parameter in model.parameters()] == trains
    assert model.training == mode


def test_a_module_that_is_no_transformer_can_be_resolved():
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    targets = adapters.resolve(model, lora(r=2, target_modules=["0", "2"], task_type=None))
    assert [module.parameters for module in targets.modules] == [2 * 11, 2 * 8]
    adapters.require_counts(get_peft_model(model, targets.config), targets)


# Before the first step, and after it


@pytest.mark.parametrize("variant", adapters.VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_before_the_first_step_the_model_is_the_base(name, variant):
    base = logits(build(name))
    peft_model = wrapped(name, variant=variant, dropout=0.5)[0]
    if variant in EXACT:
        assert torch.equal(logits(peft_model), base)
        assert adapters.same_as_base(peft_model, a_batch()) == 0
    else:  # PiSSA takes the base apart, and together again but for rounding
        torch.testing.assert_close(logits(peft_model), base)
        assert adapters.same_as_base(peft_model, a_batch()) > 0.1


def test_a_trained_adapter_differs_from_the_base_by_what_is_said():
    base = logits(build("llama"))
    peft_model = stir(wrapped("llama")[0])
    expected = (logits(peft_model) - base).abs().max().item()
    assert adapters.same_as_base(peft_model, {**a_batch(), "labels": a_batch()["input_ids"]}) == expected > 0.01


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_comparing_with_the_base_leaves_modes_and_what_trains_as_they_were(mode, trains):
    peft_model = wrapped("distilbert", dropout=0.1, inference_mode=not trains)[0].train(mode)
    peft_model.base_model.model.distilbert.embeddings.eval()
    before = [module.training for module in peft_model.modules()], [p.requires_grad for p in peft_model.parameters()]
    assert any(before[1]) == trains
    adapters.same_as_base(peft_model, a_batch())
    after = [module.training for module in peft_model.modules()], [p.requires_grad for p in peft_model.parameters()]
    assert after == before


@pytest.mark.parametrize("variant", adapters.VARIANTS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "distilbert"])
def test_training_moves_the_adapter_and_nothing_else(name, variant):
    peft_model = wrapped(name, variant=variant)[0].train()
    before = plans.fingerprints(peft_model)
    trains = {each for each, parameter in peft_model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW([p for p in peft_model.parameters() if p.requires_grad], lr=0.01)
    labels = torch.tensor([0, 1, 1, 0]) if name == "distilbert" else a_batch()["input_ids"]
    for _ in range(2):  # where B is 0, A has no gradient in the first step
        peft_model(**a_batch(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = plans.fingerprints(peft_model)
    assert {each for each in before if after[each] != before[each]} == trains
    assert all("lora_" in each or "modules_to_save" in each for each in trains)


# Refused before anything is wrapped


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        ("phi", {"target_modules": ["Wqkv", "out_proj"]},
         ["['Wqkv', 'out_proj'] match no module", "PhiForCausalLM are dense, fc1, fc2, k_proj, q_proj, v_proj"]),
        ("phi", {"target_modules": ["q_proj", "value"]}, ["['value'] match no module", "dense, fc1, fc2"]),
        ("phi", {"target_modules": []}, ["[] match no module", "dense, fc1, fc2"]),
        ("phi", {"target_modules": "q_proj|v_proj"}, ["'q_proj|v_proj' match no module", "regular expression", "list"]),
        ("phi", {"target_modules": "q_proj("}, ["no regular expression", "dense, fc1, fc2"]),
        ("phi", {"target_modules": ["q_proj"], "exclude_modules": ["self_attn.q_proj"]}, ["rules out every one"]),
        ("phi", {"layers_to_transform": [7]}, ["['q_proj', 'v_proj'] match modules", "layers_to_transform"]),
        ("phi", {"target_modules": ["embed_tokens"]},
         ["only embeddings (model.embed_tokens)", "dense, fc1, fc2, k_proj, q_proj, v_proj", "'all-linear'"]),
        ("phi", {"target_modules": ["self_attn"]}, ["layers.0.self_attn is a PhiAttention", "dense, fc1, fc2"]),
        ("phi", {"target_modules": ["final_layernorm"]}, ["is a LayerNorm", "not a linear layer"]),
        ("phi", {"r": 0}, ["rank 0 does not fit model.layers.0.self_attn.q_proj (16 to 16)", "from 1 to 16"]),
        ("phi", {"r": -2}, ["rank -2", "from 1 to 16"]),
        ("phi", {"r": 17}, ["rank 17", "from 1 to 16, the smaller of its widths"]),
        ("phi", {"r": 4.0}, ["rank 4.0", "a whole number"]),
        ("phi", {"r": True}, ["rank True", "a whole number"]),
        ("phi", {"rank_pattern": {"v_proj": 99}}, ["rank 99 does not fit model.layers.0.self_attn.v_proj"]),
        ("gpt2", {"target_modules": ["c_attn"], "r": 17}, ["transformer.h.0.attn.c_attn (16 to 48)", "from 1 to 16"]),
        ("phi", {"lora_alpha": 0}, ["alpha is 0", "would change nothing"]),
        ("phi", {"alpha_pattern": {"v_proj": 0}}, ["alpha is 0 for model.layers.0.self_attn.v_proj"]),
        ("phi", {"lora_dropout": 1.0}, ["lora_dropout is 1.0", "less than 1"]),
        ("phi", {"bias": "some"}, ["no bias 'some'", "none, all or lora_only"]),
        ("phi", {"target_parameters": ["q_proj.weight"]}, ["sets target_parameters", "are not counted here"]),
        ("phi", {"trainable_token_indices": [1]}, ["sets trainable_token_indices"]),
        ("phi", {"init_lora_weights": "mica"}, ["sets init_lora_weights='mica'"]),
        ("phi", {"modules_to_save": ["classifier"]}, ["modules_to_save names 'classifier'", "correct or drop"]),
        ("gpt2", {"target_modules": ["c_attn", "lm_head"]},
         ["lm_head of GPT2LMHeadModel shares its weights", "tie_word_embeddings"]),
        ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]}, ["lm_head of GPT2LMHeadModel shares"]),
        ("distilbert", {"target_modules": None, "task_type": "SEQ_CLS"},
         ["no target_modules of its own for DistilBert", "k_lin, lin1, lin2, out_lin"]),
        ("distilbert", {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
         ["pre_classifier is a target and trains in full", "classifier or score",
          "exclude_modules=['pre_classifier']"]),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused_in_one_sentence_and_the_model_left_as_it_was(name, options, shown):
    model = build(name)
    modules, trains = list(model.modules()), [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(BadInput) as raised:
        adapters.resolve(model, lora(**options))
    assert_one_sentence(raised, *shown)
    assert list(model.modules()) == modules
    assert [parameter.requires_grad for parameter in model.parameters()] == trains


@pytest.mark.parametrize("inner", [True, False])
def test_a_model_is_never_wrapped_twice(inner):
    peft_model, targets = wrapped("llama")
    model = peft_model.base_model.model if inner else peft_model
    for attempt in (
        lambda: adapters.resolve(model, targets.config),
        lambda: adapters.config(model, rank=4, alpha=8),
        lambda: adapters.config(model, rank=4, alpha=8, target_modules="all-linear"),
    ):
        with pytest.raises(BadInput) as raised:
            attempt()
        assert_one_sentence(raised, "has an adapter already", "load the base model again")


def test_a_second_wrap_would_forget_what_was_learned():
    """What the refusal says of PEFT is true of the PEFT that is installed."""
    peft_model, targets = wrapped("llama")
    stir(peft_model)
    assert adapters.same_as_base(peft_model, a_batch()) > 0
    with pytest.warns(UserWarning, match="second time"):
        get_peft_model(peft_model.base_model.model, targets.config)
    assert adapters.same_as_base(peft_model, a_batch()) == 0


def test_a_tied_head_with_a_transform_before_it_is_refused_and_one_that_is_not_tied_is_not():
    config = RobertaConfig(**{**tiny_classifiers.SHARED, **tiny_classifiers.LAYERS})
    with pytest.raises(BadInput, match=r"lm_head\.decoder of RobertaForMaskedLM shares its weights"):
        adapters.resolve(RobertaForMaskedLM(config), lora(target_modules=["query", "decoder"], task_type=None))
    assert adapters.resolve(build("gpt2", tie_word_embeddings=False), lora(target_modules=["c_attn", "lm_head"]))


@pytest.mark.parametrize("off_by", ["a frozen adapter", "a thawed base"])
def test_a_count_that_is_not_the_formula_s_is_told_with_both_numbers(off_by):
    peft_model, targets = wrapped("llama")
    peft_model.requires_grad_(off_by == "a thawed base")
    counted = adapters.trainable(peft_model)
    with pytest.raises(CourseError) as raised:
        adapters.require_counts(peft_model, targets)
    assert_one_sentence(raised, f"{counted:,} parameters", f"{targets.trainable:,}", "targets.config")
    assert counted in (0, targets.total)


# The helper for benchmarks


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"variant": "adalora"}, ["no variant 'adalora'", "lora, rslora, dora, pissa"]),
        ({"ranks": 4}, ["LoraConfig refuses its options", "ranks"]),
        ({"target_modules": "all-linear", "layers_to_transform": [0]}, ["LoraConfig refuses its options"]),
        ({"rank": 0}, ["rank 0 does not fit"]),
        ({"alpha": 0}, ["alpha is 0"]),
        ({"dropout": -0.1}, ["lora_dropout is -0.1"]),
    ],
)
def test_a_helper_s_bad_input_is_refused_in_one_sentence(options, shown):
    with pytest.raises(BadInput) as raised:
        adapters.config(build("llama"), **{"rank": 4, "alpha": 8, **options})
    assert_one_sentence(raised, *shown)


def test_an_architecture_without_preset_is_told_what_to_pass():
    model = OPTForCausalLM(
        OPTConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, ffn_dim=32, num_attention_heads=2)
    )
    with pytest.raises(BadInput) as raised:
        adapters.config(model, rank=4, alpha=8)
    assert_one_sentence(raised, "no preset for 'opt' (OPTForCausalLM)", "fc1, fc2, k_proj", "'all-linear'")
    given = adapters.config(model, rank=4, alpha=8, target_modules=("q_proj", "v_proj"))
    assert given.target_modules == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("name", "variant", "expected"),
    [
        ("gpt2", "lora", {"task_type": "CAUSAL_LM", "fan_in_fan_out": True, "target_modules": {"c_attn"}}),
        ("llama", "rslora", {"task_type": "CAUSAL_LM", "use_rslora": True, "use_dora": False}),
        ("bert", "dora", {"task_type": "SEQ_CLS", "use_dora": True, "use_rslora": False}),
        ("phi", "pissa", {"task_type": "CAUSAL_LM", "init_lora_weights": "pissa"}),
        ("distilbert", "lora", {"task_type": "SEQ_CLS", "init_lora_weights": True, "modules_to_save": None}),
    ],
)
def test_the_helper_makes_the_config_that_a_lesson_would_write(name, variant, expected):
    made = adapters.config(build(name), rank=4, alpha=8, variant=variant, dropout=0.25, layers_to_transform=[0])
    assert {key: getattr(made, key) for key in expected} == expected
    assert (made.r, made.lora_alpha, made.lora_dropout, made.layers_to_transform) == (4, 8, 0.25, [0])


# The base of an adapter


def a_base(name=BASE):
    """A tiny base from the cache. It gets a pad token, whose row is drawn at random; here it is always the same."""
    torch.manual_seed(0)
    return loading.causal_lm(name)


def trained(**options):
    """An adapter on that base, as training leaves it."""
    model = a_base()
    return stir(get_peft_model(model, adapters.config(model, **{"rank": 4, "alpha": 8, **options})))


@pytest.fixture
def saved(tmp_path):
    return adapters.save(trained(), tmp_path / "adapter", BASE)


def other_weights(folder, value=1.0):
    """A copy of the tiny base, one number of its weights changed."""
    model = AutoModelForCausalLM.from_pretrained(loading.folder(BASE))
    model.get_input_embeddings().weight.data[0, 0] += value
    model.save_pretrained(folder)
    loading.tokenizer(BASE).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "options",
    [{"variant": variant} for variant in adapters.VARIANTS]
    + [{"bias": "all"}, {"modules_to_save": ["ln_f"]}, {"target_modules": ["wte", "c_fc"]}],
    ids=str,
)
def test_an_adapter_that_was_saved_and_loaded_gives_the_same_logits(tmp_path, options):
    peft_model = trained(**options)
    expected = logits(peft_model)
    assert not torch.equal(expected, logits(a_base()))
    folder = adapters.save(peft_model, tmp_path / "adapter", BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = adapters.load(a_base(), folder, BASE)
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-5 if "pissa" in options.values() else 0)
    assert adapters.trainable(loaded) == 0
    again = adapters.load(a_base(), folder, BASE, trainable=True)
    assert adapters.trainable(again) == adapters.trainable(peft_model)


def test_a_classifier_comes_back_with_its_head(tmp_path):
    def base():
        torch.manual_seed(5)
        return loading.encoder("tiny-distilbert", ["bad", "good"])

    peft_model = stir(get_peft_model(model := base(), adapters.config(model, rank=4, alpha=8)))
    folder = adapters.save(peft_model, tmp_path / "adapter", "tiny-distilbert")
    torch.manual_seed(6)  # another random head
    loaded = adapters.load(loading.encoder("tiny-distilbert", ["bad", "good"]), folder, "tiny-distilbert")
    assert torch.equal(logits(loaded), logits(peft_model))


def test_what_is_saved_is_the_adapter_alone_and_no_private_path(saved):
    assert {path.name for path in saved.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    size = sum(tensor.numel() for tensor in load_file(saved / "adapter_model.safetensors").values())
    assert size == adapters.trainable(trained())
    record = json.loads((saved / "base.json").read_text(encoding="utf-8"))
    assert record == {
        "name": BASE, "revision": None, "architecture": "GPT2LMHeadModel",
        "weights_sha256": loading.weights_sha256(loading.folder(BASE)),
    }  # fmt: skip
    assert adapters.require_base(saved, BASE) == record
    settings = (saved / "adapter_config.json").read_text(encoding="utf-8")
    assert json.loads(settings)["base_model_name_or_path"] == BASE
    assert str(loading.folder(BASE)) not in settings


def test_a_folder_of_one_s_own_is_recorded_by_its_name_and_known_by_its_weights(tmp_path, saved):
    copy_of_it = other_weights(tmp_path / "private" / "mine", value=0.0)
    record = adapters.record_base(saved, copy_of_it)
    assert (record["name"], record["revision"]) == ("mine", None)
    assert "private" not in (saved / "base.json").read_text(encoding="utf-8")
    adapters.load(a_base(), saved, copy_of_it)


@pytest.mark.parametrize(
    ("base", "name", "revision"),
    [
        ("gpt2", "gpt2", loading.HUB_MODELS["gpt2"].revision),
        ("someone/model@abc", "someone/model", "abc"),
        ("someone/model", "someone/model", None),
    ],
)
def test_a_hub_model_is_recorded_with_its_revision(tmp_path, monkeypatch, base, name, revision):
    here = loading.folder(BASE)
    monkeypatch.setattr(loading, "folder", lambda model: here)
    record = adapters.record_base(tmp_path, base)
    assert (record["name"], record["revision"]) == (name, revision)
    assert json.loads((tmp_path / "base.json").read_text(encoding="utf-8")) == record


def test_an_adapter_is_refused_on_another_base(tmp_path, saved):
    other = other_weights(tmp_path / "other")
    fresh = a_base(other)
    for attempt in (lambda: adapters.require_base(saved, other), lambda: adapters.load(fresh, saved, other)):
        with pytest.raises(BadInput) as raised:
            attempt()
        assert_one_sentence(raised, f"was trained on {BASE} (weights ", f"{other} has other weights", "load it onto")
    with pytest.raises(BadInput, match=f"loaded from {other}, which has other weights than {BASE}"):
        adapters.load(fresh, saved, BASE)
    assert adapters.resolve(fresh, lora(target_modules=["c_attn"]))  # nothing was wrapped


def test_an_adapter_is_not_recorded_with_a_base_that_its_model_is_not(tmp_path):
    with pytest.raises(BadInput) as raised:
        adapters.save(trained(), tmp_path / "adapter", "tiny-phi")
    assert_one_sentence(raised, "has other weights than tiny-phi", "name its own base")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("base.json", ["has no base.json", "cannot be proven", f"trained on {BASE}", "lora.record_base"]),
        ("adapter_config.json", ["is no adapter: it has no adapter_config.json", "lora.save"]),
        ("adapter_model.safetensors", ["is no adapter: it has no adapter_model.safetensors"]),
    ],
)
def test_a_folder_that_lacks_a_file_is_told(saved, name, shown):
    (saved / name).unlink()
    with pytest.raises(BadInput) as raised:
        adapters.load(a_base(), saved, BASE)
    assert_one_sentence(raised, *shown)


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("base.json", "{", ["base.json cannot be read", "save the adapter again"]),
        ("base.json", "[]", ["base.json cannot be read"]),
        ("base.json", '{"name": "gpt2"}', ["base.json cannot be read", "weights_sha256"]),
        ("adapter_config.json", "{", ["is no LoRA config"]),
        ("adapter_config.json", '{"peft_type": "PREFIX_TUNING"}', ["is no LoRA config"]),
        ("adapter_model.safetensors", "no", ["is not a whole safetensors file", "copy or save it again"]),
    ],
)
def test_a_file_that_is_not_whole_is_told(saved, name, content, shown):
    (saved / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        adapters.load(a_base(), saved, BASE)
    assert_one_sentence(raised, *shown)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_with_a_number_that_is_none_is_neither_saved_nor_loaded(tmp_path, saved, value):
    weights = load_file(saved / "adapter_model.safetensors")
    name = next(name for name in weights if "h.1.attn.c_attn.lora_B" in name)
    weights[name][0, 0] = value
    save_file(weights, saved / "adapter_model.safetensors")
    with pytest.raises(BadInput) as raised:
        adapters.require_base(saved, BASE)
    assert_one_sentence(raised, f"in 1 of {len(weights)} tensors ({name})", "train it again")

    peft_model = trained()
    peft_model.get_parameter(f"{name.removesuffix('.weight')}.default.weight").data[0, 0] = value
    with pytest.raises(BadInput) as raised:
        adapters.save(peft_model, tmp_path / "new", BASE)
    assert_one_sentence(raised, str(tmp_path / "new"), name)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_weights_of_another_adapter_than_the_config_s_are_refused(tmp_path, saved):
    other = adapters.save(trained(target_modules=["c_fc"]), tmp_path / "other", BASE)
    (other / "adapter_model.safetensors").replace(saved / "adapter_model.safetensors")
    with pytest.raises(BadInput) as raised:
        adapters.load(a_base(), saved, BASE)
    assert_one_sentence(raised, "is not of one piece", "save it again")


def test_an_adapter_is_loaded_onto_a_bare_base_only(saved):
    peft_model = trained()
    with pytest.raises(BadInput, match="has an adapter already"):
        adapters.load(peft_model, saved, BASE)


def test_an_older_adapter_is_replaced_and_nothing_else(tmp_path, saved):
    newer = adapters.save(trained(rank=2), saved, BASE)
    assert {tensor.shape[0] for name, tensor in load_file(newer / adapters.WEIGHTS).items() if "lora_A" in name} == {2}
    (tmp_path / "adapter" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        adapters.save(trained(), tmp_path / "adapter", BASE)
    assert_one_sentence(raised, "is not just an adapter", "name a new folder")
    assert (tmp_path / "adapter" / "thesis.txt").is_file()


def test_an_adapter_carries_the_format_that_it_was_trained_in_and_a_newer_one_brings_its_own(tmp_path):
    template = "{{ messages }}\n"
    folder = adapters.save(trained(), tmp_path / "adapter", BASE, chat_template=template)
    assert chat.of_folder(folder) == template
    adapters.load(loading.causal_lm(BASE), folder, BASE)
    assert not adapter_config.brings_tokenizer(folder)
    adapters.save(trained(), folder, BASE)
    assert chat.of_folder(folder) is None
    adapters.load(loading.causal_lm(BASE), folder, BASE)  # as an adapter of an older course


def test_a_save_that_fails_leaves_the_older_adapter(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PeftModel, "save_pretrained", full)
    with pytest.raises(CourseError, match="disk is full"):
        adapters.save(trained(), saved, BASE)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert list(saved.parent.iterdir()) == [saved]


def test_one_adapter_is_saved_and_not_several(tmp_path):
    peft_model = trained()
    peft_model.add_adapter("second", lora(target_modules=["c_attn"], fan_in_fan_out=True))
    with pytest.raises(BadInput) as raised:
        adapters.save(peft_model, tmp_path / "adapter", BASE)
    assert_one_sentence(raised, "adapters default, second", "expected one, named 'default'")


# Fewer bits


def in_four_bits(folder):
    """A language model in 4 bits on the CPU, also where there is a GPU."""
    options = {"quantization_config": adapters.four_bit_config("cpu"), "device_map": "cpu", "dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def four_bits():
    """The tiny models of the cache in 4 bits, by name."""
    models = {name: in_four_bits(loading.folder(name)) for name in ("tiny-gpt2", "tiny-phi")}
    for model in models.values():
        adapters.keep_trainable(model)
    return models


def test_four_bits_are_nf4_with_double_quantization():
    made = adapters.four_bit_config("cpu")
    assert made.load_in_4bit
    assert (made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == ("nf4", True)
    assert made.bnb_4bit_compute_dtype in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("capabilities", "dtype"), [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)])
def test_four_bits_are_computed_in_bf16_where_the_machine_has_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert adapters.four_bit_config("cpu").bnb_4bit_compute_dtype == dtype


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-phi"])
@pytest.mark.parametrize("target_modules", [None, "all-linear"])
def test_in_four_bits_the_widths_are_those_of_the_layer_and_the_counts_those_of_the_base(
    four_bits, name, target_modules
):
    few, full = copy.deepcopy(four_bits[name]), AutoModelForCausalLM.from_pretrained(loading.folder(name))
    made = [
        adapters.resolve(model, adapters.config(model, rank=4, alpha=8, target_modules=target_modules))
        for model in (few, full)
    ]
    assert {module.kind for module in made[0].modules} == {"4-bit"}
    assert not made[0].config.fan_in_fan_out  # quantized, a Conv1D is a linear layer like any other
    drop = ["kind"]
    assert made[0].table().drop(columns=drop).equals(made[1].table().drop(columns=drop))
    assert (made[0].base, made[0].total) == (made[1].base, made[1].total)
    peft_model = get_peft_model(few, made[0].config)
    adapters.require_counts(peft_model, made[0])
    assert adapters.same_as_base(peft_model, a_batch()) == 0


def test_an_adapter_that_was_trained_in_full_precision_loads_onto_four_bits(four_bits, saved):
    loaded = adapters.load(copy.deepcopy(four_bits[BASE]), saved, BASE)
    assert adapters.same_as_base(loaded, a_batch()) > 0


def test_pissa_and_modules_in_full_are_refused_on_quantized_weights(four_bits):
    with pytest.raises(BadInput) as raised:
        adapters.config(four_bits[BASE], rank=4, alpha=8, variant="pissa")
    assert_one_sentence(raised, "PiSSA decomposes the weights of transformer.h.0.attn.c_attn", "full precision")
    with pytest.raises(BadInput) as raised:
        adapters.config(four_bits["tiny-phi"], rank=4, alpha=8, modules_to_save=["layers.1.mlp.fc1"])
    assert_one_sentence(raised, "would train in full", "llm_int8_skip_modules=['model.layers.1.mlp.fc1']")


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory):
    """A model whose layers are wide enough for bitsandbytes to pack them."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("wide")
    LlamaForCausalLM(LlamaConfig(**{**tiny_classifiers.SHARED, **shape})).save_pretrained(folder)
    return folder


def packs_for_inference(model):
    """Let 4-bit layers pack their weights; whether this machine's can."""
    layers = [module for module in model.modules() if hasattr(module, quantized.UNPACKED)]
    return bool(layers) and all(getattr(layer, quantized.UNPACKED) for layer in layers)


def learning(peft_model):
    """How many tensors get a gradient in a step."""
    peft_model.train().zero_grad()
    peft_model(**a_batch(), labels=a_batch()["input_ids"]).loss.backward()
    return sum(bool(p.grad.any()) for p in peft_model.parameters() if p.grad is not None)


@pytest.mark.parametrize("look", [logits, lambda model: adapters.same_as_base(model, a_batch())])
@pytest.mark.parametrize("target_modules", [None, "all-linear"])
def test_an_evaluation_does_not_stop_four_bits_from_learning(wide_folder, target_modules, look):
    model = in_four_bits(wide_folder)
    assert adapters.keep_trainable(model) == 2 * 7
    peft_model = stir(get_peft_model(model, adapters.config(model, rank=4, alpha=8, target_modules=target_modules)))
    before = learning(peft_model)
    assert before == 2 * 2 * (7 if target_modules else 2)
    first, second = look(peft_model), look(peft_model)
    assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))
    assert learning(peft_model) == before
    assert not quantized.packed(peft_model)


def test_comparing_with_the_base_leaves_four_bits_as_they_are(wide_folder):
    model = in_four_bits(wide_folder)
    packs = packs_for_inference(model)
    peft_model = get_peft_model(model, adapters.config(model, rank=4, alpha=8))
    adapters.same_as_base(peft_model, a_batch())
    assert not quantized.packed(peft_model)
    assert packs_for_inference(peft_model) == packs


def test_weights_that_were_packed_for_inference_are_not_trained(wide_folder):
    model = in_four_bits(wide_folder)
    if packs_for_inference(model):
        logits(model)
    else:  # the same on a machine that does not pack: only the mark
        model.model.layers[0].self_attn.q_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(BadInput) as raised:
        adapters.config(model, rank=4, alpha=8)
    assert_one_sentence(raised, "packed the 4-bit weights of model.layers.0.self_attn.q_proj", "keep_trainable(model)")
    assert adapters.config(model, rank=4, alpha=8, inference_mode=True)  # to answer with it is all right


def test_where_bitsandbytes_is_missing_four_bits_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BadInput) as raised:
        adapters.four_bit_config("cpu")
    assert_one_sentence(raised, "4-bit weights need bitsandbytes", "on cpu here", "train without quantization")


def test_on_a_device_that_bitsandbytes_cannot_use_four_bits_are_refused():
    with pytest.raises(BadInput) as raised:
        adapters.four_bit_config("vulkan")
    assert_one_sentence(raised, "does not work on vulkan here", "a machine that it supports")


@pytest.mark.parametrize(
    ("dtype", "fp16", "adapter", "refused"),
    [
        (torch.float16, True, False, True),
        (torch.float16, False, False, False),
        (torch.float32, True, False, False),
        (torch.bfloat16, True, False, False),
        (torch.float16, True, True, False),  # PEFT keeps the adapter in fp32
    ],
)
def test_fp16_weights_are_not_trained_under_fp16_amp(dtype, fp16, adapter, refused):
    model = build("llama").to(dtype)
    if adapter:
        model = get_peft_model(model, adapters.config(model, rank=4, alpha=8))
    if not refused:
        adapters.require_amp(model, fp16)
        return
    with pytest.raises(BadInput) as raised:
        adapters.require_amp(model, fp16)
    assert_one_sentence(raised, "model.embed_tokens.weight", "Attempting to unscale FP16 gradients", "torch.float32")


def mixtral(**options):
    torch.manual_seed(0)
    return MixtralForCausalLM(
        MixtralConfig(**{**tiny_classifiers.SHARED, **tiny_classifiers.LAYERS, "num_local_experts": 2, **options})
    )


def test_joined_experts_are_refused_and_the_attention_beside_them_is_counted_as_peft_wraps_it():
    with pytest.raises(BadInput) as raised:
        adapters.config(mixtral(), rank=2, alpha=4, target_modules="all-linear")
    assert_one_sentence(raised, "the experts of MixtralForCausalLM are joined", "q_proj")
    model = mixtral()
    targets = adapters.resolve(model, lora(r=2))
    adapters.require_counts(get_peft_model(model, targets.config), targets)


def test_a_weight_that_starts_at_random_and_would_not_train_is_refused_and_trains_where_it_is_named(tmp_path):
    save(tmp_path, "bert", AutoModelForMaskedLM)  # without a pooler
    model = loading.encoder(str(tmp_path), ["no", "yes"])
    with pytest.raises(BadInput) as raised:
        adapters.config(model, rank=2, alpha=4, target_modules=["query"])
    assert_one_sentence(raised, "bert.pooler.dense.bias", "starts at random", "modules_to_save=['bert.pooler.dense']")
    config = adapters.config(
        model, rank=2, alpha=4, target_modules=["query"], modules_to_save=["bert.pooler.dense"]
    )  # fmt: skip
    targets = adapters.resolve(model, config)
    made = get_peft_model(model, targets.config)
    adapters.require_counts(made, targets)
    trained = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert any("pooler.dense.modules_to_save.default.weight" in name for name in trained)


def test_an_adapter_of_a_model_that_reads_images_too_is_loaded_again(tmp_path):
    text = {**tiny_classifiers.LAYERS, "vocab_size": 640, "head_dim": 8, "num_key_value_heads": 2}
    image = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "image_size": 56, "patch_size": 14}  # fmt: skip
    torch.manual_seed(0)
    described = Gemma3Config(text_config=text, vision_config=image, mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(described).save_pretrained(tmp_path / "base")
    loading.tokenizer("tiny-gpt2").save_pretrained(tmp_path / "base")
    base = loading.causal_lm(str(tmp_path / "base"))
    config = lora(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    model = stir(get_peft_model(base, adapters.resolve(base, config).config))
    saved = adapters.save(model, tmp_path / "adapter", str(tmp_path / "base"))
    again = adapters.load(loading.causal_lm(str(tmp_path / "base")), saved, str(tmp_path / "base"))
    assert torch.equal(logits(again), logits(model))
