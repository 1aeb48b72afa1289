"""Padding: give a tokenizer a pad token that is not EOS and the right padding side, and tell its model the pad id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD_TOKEN = "<|pad|>"


def prepare_padding(loaded: PreTrainedTokenizerBase, pad_token_id: int | None = None) -> None:
    """Make the tokenizer pad as training and classification need it: on the right, with a pad token that is not EOS.

    Many decoders count positions from the start of the row, padding included: padding on the right moves no token's
    position. Generation continues from the last position and needs padding on the left, which `Generator` does by
    itself. XLNet's head reads the last position of a row, where its tokenizer puts CLS, so it is padded on the left.

    Args:
        loaded: the tokenizer; it is changed in place.
        pad_token_id: the pad id of a trained classifier, which finds the end of a text by it; None to choose a token
            by `ensure_pad_token`, and so is a negative number, which stands for none in some configs.
    """
    known = None if pad_token_id is None or pad_token_id < 0 else loaded.convert_ids_to_tokens(pad_token_id)
    if known is None:
        ensure_pad_token(loaded)
    else:
        loaded.pad_token = known
    ids = loaded("a")["input_ids"]
    reads_the_end = loaded.cls_token_id is not None and ids[-1:] == [loaded.cls_token_id] != ids[:1]
    loaded.padding_side = "left" if reads_the_end else "right"


def ensure_pad_token(loaded: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer `loaded` a pad token that is not EOS, if it has none.

    If pad is EOS, masking padding out of the loss also hides the real EOS, and the model never learns to stop
    (transformers issue 23530). The unknown token is used if it is not EOS and no text contains it, as with a byte-level
    tokenizer; otherwise PAD_TOKEN is added to the vocabulary.
    """
    if loaded.pad_token is not None and loaded.pad_token_id != loaded.eos_token_id:
        return
    unknown = loaded.unk_token_id
    if (
        unknown not in (None, loaded.eos_token_id)
        and unknown not in loaded("\U0001faa9 \u1342 \U00012031")["input_ids"]
    ):
        loaded.pad_token = loaded.unk_token
    else:
        loaded.add_special_tokens({"pad_token": PAD_TOKEN})


def match_pad_token(model: PreTrainedModel, loaded: PreTrainedTokenizerBase) -> None:
    """Set the pad id of `model` to that of its tokenizer `loaded`, and add an embedding row if that token is new.

    A classifier on a decoder finds the end of a text by the pad id.

    Raises:
        BadInput: the tokenizer has other tokens without an embedding row; their rows would be random.
    """
    rows = model.get_input_embeddings().num_embeddings
    if len(loaded) > rows:
        import torch

        if without_row := sorted({*range(rows, len(loaded))} - {loaded.pad_token_id}):
            named = ", ".join(map(repr, loaded.convert_ids_to_tokens(without_row[:3])))
            raise BadInput(
                f"the tokenizer has {len(loaded):,} tokens and the model's embedding {rows:,} rows, so {named} would "
                "begin at random; give the tokenizer that the model was trained with, or train with the new tokens "
                "(`model.resize_token_embeddings`) and save both"
            )
        with torch.random.fork_rng():  # the new row is random, and the same each time the model is loaded
            torch.manual_seed(0)
            model.resize_token_embeddings(len(loaded))
    model.config.pad_token_id = loaded.pad_token_id
    if getattr(model, "generation_config", None) is not None:  # a body without a head has none
        model.generation_config.pad_token_id = loaded.pad_token_id
