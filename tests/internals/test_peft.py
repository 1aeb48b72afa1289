"""What breaks at PEFT's next release."""

import inspect
import re

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners import lora, tuners_utils
from peft.utils import other, transformers_weight_conversion
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
)

from ftlab.internals import peft as peft_internals


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=2, n_head=2, n_positions=16))


def lora_layer(*, bias=True, **options):
    model = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=bias))
    return get_peft_model(model, LoraConfig(r=2, lora_alpha=2, target_modules=["0"], **options)).base_model.model[0]


def classifier():
    shape = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    return BertForSequenceClassification(BertConfig(**shape, num_attention_heads=2, max_position_embeddings=16))


@pytest.mark.parametrize(
    ("module", "name", "used_by"),
    [
        (other, "get_pattern_key", "value_of"),
        (tuners_utils, "_maybe_include_all_linear_layers", "with_all_linear"),
        (tuners_utils, "check_target_module_exists", "is_target"),
        (other, "_get_module_names_tied_with_embedding", "tied_to_embedding"),
        (peft.PeftModel, "get_nb_trainable_parameters", "count_parameters"),
        (tuners_utils, "BaseTunerLayer", "adapted_layers"),
        (lora, "LoraLayer", "lora_layers"),
        (transformers_weight_conversion, "_convert_peft_config_moe", "joined_experts"),
        (lora.LoraLayer, "pissa_init", "start_from_base"),
        (lora.LoraLayer, "olora_init", "start_from_base"),
    ],
)
def test_the_names_are_there(module, name, used_by):
    assert hasattr(module, name), (
        f"peft no longer has {module.__name__}.{name}: ftlab.internals.peft.{used_by} needs another way"
    )


def test_the_first_pattern_that_matches_the_end_of_a_name_counts():
    patterns = {"h.1.attn.c_attn": 4, "c_attn": 8}
    found = [peft_internals.value_of(patterns, f"transformer.h.{n}.attn.c_attn", 16) for n in (0, 1)]
    assert [*found, peft_internals.value_of(patterns, "lm_head", 16)] == [8, 4, 16], (
        "peft matches rank_pattern and alpha_pattern otherwise: see ftlab.internals.peft.value_of"
    )


def test_all_linear_stands_for_each_linear_layer_but_the_head():
    found = peft_internals.with_all_linear(LoraConfig(target_modules="all-linear"), gpt2()).target_modules
    assert {name.rpartition(".")[2] for name in found} == {"c_attn", "c_proj", "c_fc"}, (
        "peft's 'all-linear' stands for other layers: see ftlab.internals.peft.with_all_linear"
    )


def test_a_target_is_what_peft_wraps():
    config = LoraConfig(target_modules=["c_attn"], exclude_modules=["h.1.attn.c_attn"], fan_in_fan_out=True)
    model = gpt2()
    expected = {name for name, _ in model.named_modules() if name and peft_internals.is_target(config, name)}
    wrapped = peft_internals.lora_layers(get_peft_model(model, config).get_base_model(), "default")
    assert expected == {*wrapped} != set(), "peft wraps other modules than ftlab.internals.peft.is_target says"


def test_experts_that_are_joined_in_a_parameter_are_named_and_the_config_stays():
    shape = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    model = MixtralForCausalLM(MixtralConfig(**shape, num_attention_heads=2, num_key_value_heads=2))
    every = LoraConfig(target_modules="all-linear", r=2)
    assert any("gate_up_proj" in name for name in peft_internals.joined_experts(every, model)), (
        "peft adapts the experts of Mixtral otherwise: see ftlab.internals.peft.joined_experts"
    )
    assert every.target_modules == "all-linear"
    assert not every.target_parameters
    assert peft_internals.joined_experts(LoraConfig(target_modules=["q_proj"], r=2), model) == []
    assert peft_internals.joined_experts(LoraConfig(target_modules="all-linear"), gpt2()) == []


def test_a_head_that_is_the_embedding_is_found():
    assert peft_internals.tied_to_embedding(gpt2()) == ["lm_head"], (
        "peft finds tied modules otherwise: see ftlab.internals.peft.tied_to_embedding"
    )


def test_parameters_are_counted_of_a_model_that_is_not_wrapped():
    model = gpt2()
    assert peft_internals.count_parameters(model) == sum(each.numel() for each in model.parameters()), (
        "peft counts parameters otherwise: see ftlab.internals.peft.count_parameters"
    )


def test_a_wrapped_model_names_its_tensors_so():
    config = LoraConfig(target_modules=["query"], task_type="SEQ_CLS", use_dora=True, bias="none")
    wrapped = get_peft_model(classifier(), config)
    there = [f".{name}" for name, _ in wrapped.get_base_model().named_parameters()]
    bases = [name for name in there if not peft_internals.ADDED.search(name)]
    names = {peft_internals.WRAPPED.sub("", name)[1:] for name in bases}
    assert names == dict(classifier().named_parameters()).keys(), (
        "peft names the tensors of a wrapped model otherwise: see WRAPPED and ADDED of ftlab.internals.peft"
    )
    assert any(peft_internals.BASE_LAYER in name for name in there), "see ftlab.internals.peft.BASE_LAYER"
    assert any(peft_internals.TRAINED_COPY in name for name in there), "see ftlab.internals.peft.TRAINED_COPY"
    assert any(peft_internals.DROPOUT in name for name, _ in wrapped.named_modules()), (
        "see ftlab.internals.peft.DROPOUT"
    )


def test_an_adapter_s_file_names_its_tensors_so():
    config = LoraConfig(target_modules=["query", "word_embeddings"], task_type="SEQ_CLS")
    saved = get_peft_model_state_dict(get_peft_model(classifier(), config), save_embedding_layers=False)
    assert all(name.startswith(peft_internals.PREFIX) for name in saved), "see ftlab.internals.peft.PREFIX"
    found = [peft_internals.PART.fullmatch(name.removeprefix(peft_internals.PREFIX)) for name in saved]
    letters = {(part["letter"], part["embedding"]) for part in found if part}
    assert letters == {("A", None), ("B", None), (None, "A"), (None, "B")}, (
        f"peft names the tensors of an adapter otherwise ({list(saved)[:4]}): see ftlab.internals.peft.PART"
    )


@pytest.mark.parametrize("task", peft_internals.HEADS)
def test_these_modules_train_in_full_because_of_the_task(task):
    kind = peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task]
    written = re.findall(r"\[((?:\"\w+\"(?:, )?)+)\]", inspect.getsource(kind.__init__))
    wanted = ", ".join(f'"{name}"' for name in peft_internals.HEADS[task])
    assert wanted in written, f"peft trains other heads in full for {task}: see ftlab.internals.peft.HEADS"


def test_a_config_s_texts_become_these_regular_expressions():
    source = inspect.getsource(tuners_utils.check_target_module_exists) + inspect.getsource(other.get_pattern_key)
    for setting, expression in peft_internals._MADE_OF.items():
        around = [re.escape(part) for part in expression.split("{}")]
        assert re.search(r"\{\w+\}".join(around), source), (
            f"peft makes another regular expression of {setting}: see ftlab.internals.peft.regular_expressions"
        )


def test_the_scale_of_a_layer_is_what_it_multiplies_its_matrices_with():
    layer, given = lora_layer(init_lora_weights=False), torch.ones(1, 6)
    with torch.no_grad():
        once = layer(given) - layer.base_layer(given)
        peft_internals.set_scaling(layer, "default", 3.0)
        thrice = layer(given) - layer.base_layer(given)
    assert torch.allclose(thrice, 3 * once, atol=1e-5), "peft scales otherwise: see ftlab.internals.peft.set_scaling"


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_layer_starts_from_its_base_and_takes_that_part_out_of_it(init):
    torch.manual_seed(0)
    layer = lora_layer(bias=False)
    before, given = layer.base_layer.weight.clone(), torch.randn(3, 6)
    assert peft_internals.can_start_from_base(layer, init), f"peft's LoRA layers no longer have {init}_init"
    with torch.no_grad():
        peft_internals.start_from_base(layer, init)
        same = torch.allclose(layer(given), given @ before.T, atol=1e-5)
    assert same, f"peft starts {init} otherwise: see ftlab.internals.peft.start_from_base"
    assert not torch.equal(layer.base_layer.weight, before)


def test_layers_with_an_adapter_are_found_whatever_its_kind():
    assert list(peft_internals.adapted_layers(gpt2())) == []
    model = get_peft_model(
        gpt2(), peft.IA3Config(target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True)
    )
    assert len(list(peft_internals.adapted_layers(model))) == 2, (
        "peft's layers have another class: see ftlab.internals.peft.adapted_layers"
    )
