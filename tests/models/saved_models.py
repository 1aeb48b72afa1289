"""Folders of tiny models of many classes, whole and then spoilt in one way."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSequenceClassification

from ftlab.models import loading

LAYERS = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
SHARED = {"vocab_size": 600, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
}  # fmt: skip
SIZES = {
    "bert": LAYERS, "roberta": LAYERS, "electra": LAYERS | {"embedding_size": 16},
    "albert": LAYERS | {"embedding_size": 16}, "deberta-v2": LAYERS | {"relative_attention": True},
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64},
    "gpt2": GPT2, "llama": LAYERS, "phi": LAYERS, "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "opt": LAYERS | {"word_embed_proj_dim": 16, "ffn_dim": 32}, "bart": SEQ2SEQ,
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
    "t5": {"d_model": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2, "d_kv": 8, "decoder_start_token_id": 0},
    "modernbert": LAYERS | {"local_attention": 8}, "mpnet": LAYERS,
    "mpt": {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 64},
}  # fmt: skip


def config(kind, **options):
    return CONFIG_MAPPING[kind](**{**SHARED, **SIZES[kind], **options})


def save(folder: Path, kind: str, auto=AutoModelForSequenceClassification, seed=0, **options):
    """A model with random weights that tell texts apart, in `folder` beside a tokenizer; in evaluation mode."""
    torch.manual_seed(seed)
    model = auto.from_config(config(kind, **options)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    loading.tokenizer("tiny-distilbert").save_pretrained(folder)
    return model


def save_lm(folder: Path, kind: str = "llama", **options):
    """The same as a language model; its embeddings are not tied unless `tie_word_embeddings` is set."""
    return save(folder, kind, AutoModelForCausalLM, **{"tie_word_embeddings": False, **options})


def rewrite(folder: Path, change: Callable[[dict], dict]) -> None:
    """Put `change` of the tensors in the place of the tensors of a folder with one file."""
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone().contiguous() for name, tensor in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def without(folder: Path, *parts: str) -> list[str]:
    """Take every tensor whose name holds one of `parts` out of a folder; their names."""
    taken = [name for name in load_file(folder / "model.safetensors") if any(part in name for part in parts)]
    assert taken
    rewrite(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in taken})
    return taken


def edit(folder: Path, **change) -> None:
    """Change the config.json of a folder; a value of ... takes a key out."""
    path = folder / "config.json"
    written = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps({key: value for key, value in written.items() if value is not ...}), encoding="utf-8")
