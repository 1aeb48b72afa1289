"""Classifiers of six architectures with random weights, small enough for hundreds of steps in a second."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PhiConfig,
    PhiForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from ftlab.data import sources
from ftlab.freezing import plans
from ftlab.models import loading
from ftlab.training import classification

DEPTH, WIDTH = 3, 16
TOKENIZER = "tiny-distilbert"
# Weights larger than fresh ones, so that they tell texts apart.
SHARED = {"vocab_size": 600, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
LAYERS = {
    "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": DEPTH, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
KINDS = {
    "distilbert": (
        DistilBertForSequenceClassification, DistilBertConfig,
        {"dim": WIDTH, "hidden_dim": 32, "n_layers": DEPTH, "n_heads": 2, "max_position_embeddings": 64},
    ),
    "bert": (BertForSequenceClassification, BertConfig, LAYERS),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, LAYERS),
    "gpt2": (
        GPT2ForSequenceClassification, GPT2Config,
        {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": 2, "n_positions": 64},
    ),
    "llama": (LlamaForSequenceClassification, LlamaConfig, LAYERS),
    "phi": (PhiForSequenceClassification, PhiConfig, LAYERS),
}  # fmt: skip
NAMES = tuple(KINDS)


def build(name, seed=0, **options):
    """A classifier over two labels; the same seed gives the same weights."""
    model, config, sizes = KINDS[name]
    torch.manual_seed(seed)
    made = model(config(**{**SHARED, **sizes, **options}))
    made.accepts_loss_kwargs = False
    return made


def tokenizer():
    return loading.tokenizer(TOKENIZER)


def reviews(rows, max_length=32, start=0):
    """So many rows of mini_reviews with their tokens, of many lengths."""
    texts = sources.load("mini_reviews")["train"].select(range(start, start + rows))
    return classification.tokenized(texts, tokenizer(), max_length)


def parts_of(model):
    """{parameter's name: its part}, as the plan sees it."""
    return {name: part for part, tensors in plans.structure(model).parts.items() for name in tensors}
