"""Small tokenizers of each family: each reads a special token in a text in its own way."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ftlab.models import loading

TEXTS = [
    f"the {thing} {did} {when}"
    for thing in ("parcel", "lamp", "kettle", "ticket")
    for did in ("arrived", "broke", "stopped")
    for when in ("today", "twice", "slowly")
]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
NAMED = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def _begun(model, trainer, splitter, decoder) -> PreTrainedTokenizerFast:
    """A tokenizer that puts <s> before a text, as Llama's does."""
    trained = Tokenizer(model)
    trained.pre_tokenizer, trained.decoder = splitter, decoder
    trained.train_from_iterator([*TEXTS, "</x>#:|"], trainer)
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, model_max_length=256, **NAMED)


def begins() -> PreTrainedTokenizerFast:
    """Byte-level BPE, which can read any text."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _begun(models.BPE(), trainer, splitter, decoders.ByteLevel())


def sentencepiece() -> PreTrainedTokenizerFast:
    """BPE over words that begin with a mark, as Llama 2's."""
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=SPECIALS, show_progress=False)
    return _begun(models.BPE(unk_token="<unk>"), trainer, pre_tokenizers.Metaspace(), decoders.Metaspace())


def unigram() -> PreTrainedTokenizerFast:
    """Its special tokens are pieces of its vocabulary, so that it finds them in any text."""
    trainer = trainers.UnigramTrainer(vocab_size=100, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    return _begun(models.Unigram(), trainer, pre_tokenizers.Metaspace(), decoders.Metaspace())


def words() -> PreTrainedTokenizerFast:
    """One token a word: "</s>" with spaces around it is the word that ends a text."""
    trainer = trainers.WordLevelTrainer(vocab_size=100, special_tokens=SPECIALS, show_progress=False)
    return _begun(models.WordLevel(unk_token="<unk>"), trainer, pre_tokenizers.WhitespaceSplit(), decoders.Fuse())


MADE = {"begins": begins, "sentencepiece": sentencepiece, "unigram": unigram, "words": words}


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of this module, or of a model, by its name."""
    return MADE[name]() if name in MADE else loading.tokenizer(name)
