"""Tiny bases in shards, adapters with weights as training leaves them, and PEFT's merge to hold ours against."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from ftlab.models import loading

NAMES = ("gpt2", "phi", "llama")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "phi": ["q_proj", "v_proj", "dense", "fc1"],
    "llama": ["q_proj", "v_proj", "down_proj"],
}
VOCABULARY = 600
COMMON = {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": VOCABULARY, "tie_word_embeddings": False}


def language_model(name, dtype=torch.float32, **options):
    """A GPT-2 (Conv1D, tied), Phi or Llama (both untied) with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "gpt2":
            shape = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
            model = GPT2LMHeadModel(GPT2Config(**{**shape, **options}))
        elif name == "phi":
            shape = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 128}
            model = PhiForCausalLM(PhiConfig(**{**COMMON, **shape, **options}))
        else:
            shape = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 128}
            model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=1, **{**COMMON, **shape, **options}))
    return model.to(dtype)


def save_base(folder, name="gpt2", dtype=torch.float32, shard_size="20KB", **options):
    """The folder of a base: shards, their index, config, generation config and tokenizer."""
    language_model(name, dtype, **options).save_pretrained(folder, max_shard_size=shard_size)
    loading.tokenizer("tiny-phi").save_pretrained(folder)
    return folder


def load(folder, dtype=None):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")


def adapted(base, dtype=None, seed=1, size=0.1, **options):
    """The base with a LoRA whose every trainable tensor is away from where it began."""
    name = AutoConfig.from_pretrained(base).model_type
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS[name], "task_type": "CAUSAL_LM", **options}
        model = get_peft_model(load(base, dtype), LoraConfig(**settings))
        for part, parameter in model.named_parameters():
            if "lora_B" in part or "lora_embedding_A" in part:  # zero in a new adapter
                parameter.copy_(torch.randn(parameter.shape) * size)
            elif parameter.requires_grad and "lora_" not in part:
                parameter.add_((torch.randn(parameter.shape) * size).to(parameter.dtype))
            elif "magnitude" in part:
                parameter.mul_(1 + torch.rand(parameter.shape) * size)
    return model


def save_adapter(folder, base, **options):
    adapted(base, **options).save_pretrained(folder)
    return folder


def by_peft(base, adapter):
    """The tensors of the base, in its own dtype, with the adapter merged by PEFT."""
    return PeftModel.from_pretrained(load(base), adapter).merge_and_unload().state_dict()


def tensors(folder):
    """The tensors of all shards of a folder."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def ulps(one, other):
    """How many numbers of their dtype lie between two tensors, at the worst place."""
    assert one.dtype == other.dtype
    bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}[one.dtype]

    def place(tensor):
        found = tensor.contiguous().view(bits).long()
        return torch.where(found < 0, -(found & (2 ** (torch.iinfo(bits).bits - 1) - 1)), found)

    return int((place(one) - place(other)).abs().max())
