"""A step on the meta device makes the same tensors as a real step, and frees them at the same time."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BitsAndBytesConfig,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from ftlab.memory import dry_run, meta_models

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, LENGTH, VOCABULARY = 3, 24, 300
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
LLAMA = LlamaConfig(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True)
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}
DISTILBERT = {"vocab_size": VOCABULARY, "dim": 64, "hidden_dim": 160, "n_layers": 3, "n_heads": 4}
MODELS = {
    "llama": (LlamaForCausalLM, LLAMA),
    "phi": (PhiForCausalLM, PhiConfig(**SHAPE, resid_pdrop=0.1)),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2)),
    "gpt2 without attention dropout": (GPT2LMHeadModel, GPT2Config(**GPT2, attn_pdrop=0.0)),
    "bert": (BertForSequenceClassification, BertConfig(**SHAPE)),
    "distilbert": (DistilBertForSequenceClassification, DistilBertConfig(**DISTILBERT)),
}


def real(model, *, supervised=LENGTH, padded=True):
    """The counts of a step of a model with values: bytes after the forward pass, at the peak, and FLOPs."""
    model.train()
    model.config.use_cache = False
    ids = torch.randint(1, VOCABULARY, (ROWS, LENGTH))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if padded:
        batch["attention_mask"] = torch.ones(ROWS, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    if isinstance(model.get_output_embeddings(), nn.Linear):
        batch["labels"] = ids
        if supervised < LENGTH:
            batch |= {"shift_labels": ids[:, -supervised:].clone(), "logits_to_keep": supervised}
    else:
        batch["labels"] = torch.zeros(ROWS, dtype=torch.long)
    counter = dry_run.StepCounter(model)
    with counter:
        loss = model(**batch).loss
        forward = counter.now
        loss.backward()
    return forward, counter.peak, counter.flops


def dry(model, *, supervised=LENGTH, padded=True, head=None, device="cpu"):
    head = head or meta_models.lm_head(model)
    return dry_run.count_step(
        model, head, batch_size=ROWS, length=LENGTH, supervised=supervised, padded=padded, device=device
    )


def near(one, other):
    """Equal except for a few small tensors, such as the loss and the constants of a mask."""
    return abs(one - other) <= 1000


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_dry_run_counts_what_a_real_step_holds(name, padded):
    kind, config = MODELS[name]
    forward, peak, flops = real(kind(config), padded=padded)
    step = dry(meta_models.build(config, "float32"), padded=padded)
    assert near(step.peak, peak)
    assert step.flops == flops > 0
    assert forward <= step.activations + step.logits <= step.peak


@pytest.mark.parametrize("supervised", [1, LENGTH // 2])
def test_the_head_runs_on_supervised_positions(supervised):
    _, peak, flops = real(LlamaForCausalLM(LLAMA), supervised=supervised)
    step = dry(meta_models.build(LLAMA, "float32"), supervised=supervised)
    assert near(step.peak, peak)
    assert step.flops == flops


def test_logits_are_held_three_times_when_the_loss_goes_backward():
    """The log-softmax, its gradient, and the gradient of the logits (all float32)."""
    one = 4 * ROWS * LENGTH * VOCABULARY
    assert 3 * one <= dry(meta_models.build(LLAMA, "float32")).logits <= 3 * one + 10_000


def test_in_bf16_too():
    _, peak, _ = real(LlamaForCausalLM(LLAMA).to(torch.bfloat16))
    assert near(dry(meta_models.build(LLAMA, "bfloat16")).peak, peak)


@pytest.mark.parametrize("name", ["llama", "gpt2", "distilbert"])
def test_with_checkpointing_too(name):
    kind, config = MODELS[name]
    model, built = kind(config), meta_models.build(config, "float32")
    model.activation_checkpointing_enable({"use_reentrant": False})
    dry_run.enable_checkpointing(built, "cpu")
    _, peak, flops = real(model)
    step = dry(built)
    assert near(step.peak, peak)
    assert step.flops == flops


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_with_adapters_too(dtype):
    model = LlamaForCausalLM(LLAMA).to(getattr(torch, dtype))
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    _, peak, flops = real(model)
    built = meta_models.build(LLAMA, dtype)
    head = meta_models.lm_head(built)
    step = dry(meta_models.adapt(built, rank=4), head=head)
    assert near(step.peak, peak)
    assert step.flops == flops


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A Llama and a GPT-2 on disk, to be loaded in 4 bits."""
    folder = tmp_path_factory.mktemp("saved")
    for name in ("llama", "gpt2"):
        kind, config = MODELS[name]
        kind(config).save_pretrained(folder / name)
    return folder


def in_four_bits(folder, double=True):
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=config)


def states(model):
    """The tensors of bitsandbytes' layers other than the packed weights."""
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
            yield from (state.absmax, state.code, *nested)


def held(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_four_bit_weights_have_the_size_that_bitsandbytes_makes(saved, name, double):
    model = in_four_bits(saved / name, double)
    built = meta_models.build(MODELS[name][1], "float32")
    meta_models.quantize(built, double=double)
    made = held([*model.parameters(), *model.buffers(), *states(model)])
    assert held([*built.parameters(), *built.buffers()]) == made
    small = [name for name, module in built.named_modules() if isinstance(module, meta_models.FourBitLinear)]
    assert small == [name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_step_in_four_bits_holds_what_bitsandbytes_holds(saved, name):
    model = in_four_bits(saved / name)
    target = ["q_proj", "v_proj"] if name == "llama" else ["c_attn"]
    model = get_peft_model(model, LoraConfig(r=4, target_modules=target, task_type="CAUSAL_LM"))
    _, peak, _ = real(model)  # its matrix products are inside an operation, so their FLOPs are not counted
    built = meta_models.build(MODELS[name][1], "float32")
    head = meta_models.lm_head(built)
    meta_models.quantize(built)
    assert near(dry(meta_models.adapt(built, rank=4), head=head).peak, peak)


def test_on_a_gpu_a_layer_keeps_what_korthikanti_et_al_counted():
    """34 bytes for each token and unit of the width in half precision, with dropout; attention is fused."""

    def kept(layers):
        config = BertConfig(
            vocab_size=100, hidden_size=256, intermediate_size=1024, num_attention_heads=4, num_hidden_layers=layers
        )
        return dry(meta_models.build(config, "float16"), padded=False, device="cuda").activations

    assert (kept(3) - kept(2)) / (ROWS * LENGTH * 256) == pytest.approx(34, rel=0.02)


def test_dropout_keeps_a_byte_on_a_gpu_and_a_value_on_a_cpu():
    config = BertConfig(**SHAPE, attention_probs_dropout_prob=0.0)
    on_cpu, on_gpu = (dry(meta_models.build(config, "float32"), device=device) for device in ("cpu", "cuda"))
    masks = 1 + 2 * SHAPE["num_hidden_layers"]  # after the embeddings, after attention and after the inner layer
    assert near(on_cpu.activations - on_gpu.activations, 3 * masks * ROWS * LENGTH * SHAPE["hidden_size"])


def test_a_dry_run_leaves_no_hooks_and_no_counts_behind():
    built = meta_models.build(LLAMA, "float32")
    head = meta_models.lm_head(built)
    first, second = (dry(built) for _ in range(2))
    assert second.activations == first.activations
    assert not head._forward_hooks
    assert not head._forward_pre_hooks
