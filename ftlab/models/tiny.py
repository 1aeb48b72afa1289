"""Tiny models of the real classes, with random weights and a tokenizer trained on the course's own reviews.

They show that code runs, in a second and without a download. They have learned nothing, so their answers mean nothing.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ftlab import files
from ftlab.data import assets
from ftlab.data.sources import ROWS
from ftlab.errors import AssetError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 600
# ChatML, SmolLM2's format. Here <|im_end|> ends a turn and is not EOS, as in the chat models of many makers.
TURNS = ["<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RECIPE = 4  # increase it when a builder or its corpus changes, so that no old model is taken from the cache


def _corpus() -> list[str]:
    return pd.read_csv(ROWS / "mini_reviews.csv")["text"].tolist()


def _wordpiece() -> PreTrainedTokenizerFast:
    """An uncased WordPiece tokenizer, as BERT and DistilBERT have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    splitter, normalizer = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True)
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = normalizer, splitter
    # The trainer numbers the characters inside words in the order of a hash map, which differs between processes, and
    # breaks ties by number. As special tokens they have fixed numbers; in the tokenizer below they are plain tokens.
    characters = sorted({*normalizer.normalize_str("".join(_corpus()))} - {*string.whitespace})
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=specials + [f"##{one}" for one in characters], show_progress=False
    )
    trained.train_from_iterator(_corpus(), trainer)
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splitter, decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", specials.index("[SEP]")), ("[CLS]", specials.index("[CLS]"))
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],  # DistilBERT takes no token_type_ids
    )


def _byte_level(longest: int = 256) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with one special token and no pad token, as GPT-2 and phi-2 have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end, model_max_length=longest
    )


def _distilbert() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    from transformers import DistilBertConfig, DistilBertModel

    tokenizer = _wordpiece()
    # Six layers, as the real one: "freeze the first four" means the same.
    shape = {"dim": 32, "hidden_dim": 64, "n_layers": 6, "n_heads": 2, "max_position_embeddings": 128}
    return DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), **shape)), tokenizer


def _gpt2() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _byte_level()
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape, **ends)), tokenizer


def _phi() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    from transformers import PhiConfig, PhiForCausalLM

    tokenizer = _byte_level()
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    # phi-2's embedding has more rows than its tokenizer has tokens; so has this one.
    config = PhiConfig(vocab_size=len(tokenizer) + 24, max_position_embeddings=2048, **shape, **ends)
    return PhiForCausalLM(config), tokenizer


def _llama() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """SmolLM2's class, tied embeddings, chat format and number of positions, so that long rows of your own fit."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_level(8192)
    tokenizer.add_special_tokens({"extra_special_tokens": TURNS})
    tokenizer.chat_template = CHAT_TEMPLATE
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    # The width is not below the ranks of the course; the embedding has a spare row for a pad token.
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"vocab_size": len(tokenizer) + 22, "max_position_embeddings": 8192}
    config = LlamaConfig(tie_word_embeddings=True, **shape, **ends)
    return LlamaForCausalLM(config), tokenizer


BUILDERS: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerFast]]] = {
    "tiny-distilbert": _distilbert,
    "tiny-gpt2": _gpt2,
    "tiny-phi": _phi,
    "tiny-llama": _llama,
}


def folder(name: str) -> Path:
    """Return the folder of the tiny model `name`, with the same weights each time; build it if the cache lacks it."""
    path = assets.home() / "tiny" / f"{name}-{RECIPE}"
    if not (path / "config.json").is_file():
        import torch

        lock = assets.lock(path.parent)
        try:
            if not (path / "config.json").is_file():  # another process may have been faster
                with torch.random.fork_rng(devices=[]), files.atomic(path, folder=True, error=AssetError) as partial:
                    torch.manual_seed(0)
                    model, tokenizer = BUILDERS[name]()
                    model.save_pretrained(partial)
                    tokenizer.save_pretrained(partial)
        finally:
            files.release_lock(lock)
    return path
