"""A tiny chat model that answers different prompts differently, as a folder and as a GGUF file."""

import json

import torch
from tokenizers import processors

from ftlab.models import loading
from ftlab.serving import converter
from tests.merging.merge_cases import language_model

TURN = [{"role": "user", "content": "A quiet film about bees"}]


def save_chat_model(folder, answers=None, bos=None, **options):
    """The folder of a Llama with the tokenizer and the chat format of tiny-llama, and weights of some size.

    `answers` says which token it shall write for another one, by id. With `bos` the tokenizer puts that token before a
    text, and the chat template writes it too.
    """
    tokenizer = loading.tokenizer("tiny-llama")
    if bos:
        tokenizer.bos_token = bos
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"vocab_size": len(tokenizer), "initializer_range": 0.5, "max_position_embeddings": 1024}
    model = language_model("llama", **{**shape, **ends, **options})
    with torch.no_grad():
        for written, instead in (answers or {}).items():
            rows = model.lm_head.weight
            rows[[written, instead]] = rows[[instead, written]]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_phi3(folder, **options):
    """The folder of a Phi-3 with the tokenizer of tiny-llama, and weights of some size."""
    from transformers import Phi3Config, Phi3ForCausalLM

    tokenizer = loading.tokenizer("tiny-llama")
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 1024,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Phi3ForCausalLM(Phi3Config(**{**shape, **ends, **options})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"  # as Phi-4's: the converter looks for a SentencePiece tokenizer otherwise
    described = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "GPT2Tokenizer"}
    path.write_text(json.dumps(described), encoding="utf-8")
    return folder


def longrope(short_context):
    """The options of a Phi-3 with other positions in texts of more than `short_context` tokens."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0 + number for number in range(8)]}
    scaling = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": short_context}
    return {"rope_parameters": {**scaling, **factors}, "original_max_position_embeddings": short_context}


def save_gguf(folder, file, type="f32"):
    converter.convert(folder, file, type)
    return file


def without_chat_template(file, other):
    """A copy of the GGUF file whose chat template has a name that nobody reads."""
    name = b"tokenizer.chat_template"
    other.write_bytes(file.read_bytes().replace(name, name[:-1] + b"_"))
    return other
