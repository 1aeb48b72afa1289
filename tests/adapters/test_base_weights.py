"""An adapter's base is the weights that were wrapped, and not the name of a folder."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ftlab.adapters import base_weights, lora
from ftlab.errors import BadInput
from ftlab.models import loading
from tests.merging import merge_cases
from tests.merging.merge_cases import NAMES, save_base

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {name: str(save_base(folder / name, name, vocab_size=640)) for name in NAMES}


def wrapped(base, **options):
    model = loading.causal_lm(base, dtype=options.pop("dtype", None))
    return get_peft_model(model, lora.config(model, **{"rank": 4, "alpha": 8, **options}))


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 23).reshape(2, 10)).logits.float()


def edited(model, name):
    """One number of one tensor of the base, a little different."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    tensor = next(each for own, each in inner.named_parameters() if name in own and "lora_" not in own)
    with torch.no_grad():
        tensor.view(-1)[5] += 0.01
    return model


def refusal(call, *arguments):
    with pytest.raises(BadInput) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("part", ["q_proj.base_layer.weight", "layers.1.mlp.down_proj", "embed_tokens", "lm_head"])
def test_a_base_that_was_edited_in_memory_is_not_saved_under_its_folder_s_name(bases, tmp_path, part):
    told = refusal(lora.save, edited(wrapped(bases["llama"]), part), tmp_path / "adapter", bases["llama"])
    assert part.replace(".base_layer", "") in told
    assert f"of the model in memory is not what {bases['llama']} holds" in told
    assert "save the changed base" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_base_that_was_trained_before_it_was_wrapped_is_noticed(bases, tmp_path, name):
    model = loading.causal_lm(bases[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.arange(3, 23).reshape(2, 10)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    peft_model = get_peft_model(model, lora.config(model, rank=4, alpha=8))
    told = refusal(lora.save, peft_model, tmp_path / "adapter", bases[name])
    assert "in all) of the model in memory are not what" in told
    model = peft_model.unload()
    model.save_pretrained(tmp_path / "own")  # what the sentence says to do
    loading.tokenizer(bases[name]).save_pretrained(tmp_path / "own")
    own = str(tmp_path / "own")
    peft_model = wrapped(own)
    folder = lora.save(peft_model, tmp_path / "adapter", own)
    assert torch.equal(logits(lora.load(loading.causal_lm(own), folder, own)), logits(peft_model))


def test_an_adapter_is_not_loaded_onto_a_base_that_was_changed_in_memory(bases, tmp_path):
    base = bases["phi"]
    folder = lora.save(wrapped(base), tmp_path / "adapter", base)
    changed = edited(loading.causal_lm(base), "layers.1.mlp.fc2.weight")
    assert "layers.1.mlp.fc2.weight of the model in memory is not" in refusal(lora.load, changed, folder, base)
    assert not any("lora_" in name for name, _ in changed.named_parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_the_base_is_the_base_in_any_precision_that_it_was_loaded_in(tmp_path, name, dtype, stored):
    base = str(save_base(tmp_path / "base", name, stored))
    model = loading.causal_lm(base, dtype=dtype)
    base_weights.require_same(model, base)
    base_weights.require_same(model.float(), base)
    refusal(base_weights.require_same, edited(model, "layers.1" if name != "gpt2" else "h.1"), base)


@pytest.mark.parametrize(
    "options",
    [
        {"bias": "all"}, {"bias": "lora_only"}, {"modules_to_save": ["final_layernorm"]}, {"variant": "dora"},
        {"modules_to_save": ["lm_head", "embed_tokens"]}, {"target_modules": ["embed_tokens", "lm_head"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_adapter_brings_may_have_been_trained_and_nothing_else(bases, tmp_path, options):
    base = bases["phi"]
    model = wrapped(base, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 10
    folder = lora.save(model, tmp_path / "adapter", base)
    assert torch.equal(logits(lora.load(loading.causal_lm(base), folder, base)), logits(model))
    refusal(lora.save, edited(model, "layers.0.mlp.fc1"), tmp_path / "other", base)


@pytest.mark.parametrize(("init", "name"), [("pissa", "gpt2"), ("pissa", "llama"), ("olora", "llama")])
def test_an_init_that_takes_the_base_apart_is_held_against_the_base_taken_apart(bases, tmp_path, init, name):
    base = bases[name]
    model = wrapped(base, init_lora_weights=init)
    folder = lora.save(model, tmp_path / "adapter", base)
    loaded = lora.load(loading.causal_lm(base), folder, base)
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-4, rtol=1e-4)
    target = "c_attn.base_layer.weight" if name == "gpt2" else "q_proj.base_layer.weight"
    assert target.replace(".base_layer", "") in refusal(lora.save, edited(model, target), tmp_path / "other", base)


@pytest.mark.parametrize("name", ["gpt2", "phi"])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_are_held_against_the_files_quantized_anew(bases, tmp_path, name, bits):
    from transformers import BitsAndBytesConfig

    few = lora.four_bit_config("cpu") if bits == 4 else BitsAndBytesConfig(load_in_8bit=True)
    base = bases[name]
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=few, device_map="cpu", dtype=torch.float32)
    base_weights.require_same(model, base)
    part = "h.1.mlp.c_fc" if name == "gpt2" else "layers.1.mlp.fc1"
    weight = next(parameter for own, parameter in model.named_parameters() if f"{part}.weight" in own)
    weight.data.view(-1)[7] ^= 0x11 if bits == 4 else 1
    assert f"{part}.weight of the model in memory is not" in refusal(base_weights.require_same, model, base)


def test_weights_that_were_packed_for_inference_are_the_base_s_too(tmp_path):
    base = str(save_base(tmp_path / "base", "llama", hidden_size=64, intermediate_size=128))
    few = lora.four_bit_config("cpu")
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=few, device_map="cpu", dtype=torch.float32)
    logits(model)  # packs the weights, where the machine has AVX-512 BF16
    base_weights.require_same(model, base)
    model.model.layers[1].mlp.up_proj.weight.data.view(-1)[7] ^= 0x11
    assert "layers.1.mlp.up_proj.weight" in refusal(base_weights.require_same, model, base)


def test_files_that_name_the_tensors_without_the_body_s_name_are_read_as_well(bases, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(bases["gpt2"], folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    held = merge_cases.tensors(Path(bases["gpt2"]))
    save_file({name.removeprefix("transformer."): one for name, one in held.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    model = loading.causal_lm(str(folder))
    base_weights.require_same(model, str(folder))
    refusal(base_weights.require_same, edited(model, "h.1.attn.c_proj.weight"), str(folder))


def test_old_names_of_tensors_are_found_by_loading_once_more(tmp_path):
    """BERT's first checkpoints call a norm's weights gamma and beta; transformers renames them as it loads."""
    base = tmp_path / "bert"
    shutil.copytree(loading.folder("tiny-bert" if "tiny-bert" in loading.MODELS else "tiny-distilbert"), base)
    held = load_file(base / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in held.items()
    }
    assert renamed.keys() != held.keys()
    save_file(renamed, base / "model.safetensors", metadata={"format": "pt"})
    model = loading.encoder(str(base), ["bad", "good"])
    head = {name for name, _ in model.named_parameters() if "classifier" in name}
    base_weights.require_same(model, str(base), brought=head)
    refusal(base_weights.require_same, edited(model, "LayerNorm.weight"), str(base))


def test_a_head_that_began_at_random_and_is_not_saved_is_no_part_of_the_base(tmp_path):
    base = "tiny-distilbert"
    model = loading.encoder(base, ["bad", "good"])
    plain = LoraConfig(r=2, target_modules=["q_lin"])  # of no task: the head stays as it is, and is not saved
    told = refusal(lora.save, get_peft_model(model, plain), tmp_path / "adapter", base)
    assert "classifier" in told
    model = loading.encoder(base, ["bad", "good"])
    lora.save(get_peft_model(model, lora.config(model, rank=2, alpha=4)), tmp_path / "adapter", base)


def test_tokens_that_were_added_are_brought_by_the_adapter_or_refused(bases, tmp_path):
    base = bases["llama"]
    found = {}
    for name, modules in {"frozen": None, "trained": ["embed_tokens", "lm_head"]}.items():
        model = loading.causal_lm(base)
        torch.manual_seed(0)
        model.resize_token_embeddings(660)
        found[name] = get_peft_model(model, lora.config(model, rank=4, alpha=8, modules_to_save=modules))
    told = refusal(lora.save, found["frozen"], tmp_path / "adapter", base)
    assert "has 660 rows" in told
    assert "modules_to_save" in told
    folder = lora.save(found["trained"], tmp_path / "adapter", base)
    assert torch.equal(logits(lora.load(loading.causal_lm(base), folder, base)), logits(found["trained"]))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_row_for_the_pad_token_may_be_there(tmp_path, name):
    base = str(save_base(tmp_path / "base", name))  # one row less than its tokenizer has tokens
    model = wrapped(base)
    assert len(model.get_input_embeddings().weight) == merge_cases.VOCABULARY + 1
    folder = lora.save(model, tmp_path / "adapter", base)
    assert torch.equal(logits(lora.load(loading.causal_lm(base), folder, base)), logits(model))
    edited(model, "embed_tokens" if name == "llama" else "wte")
    refusal(lora.save, model, tmp_path / "other", base)
