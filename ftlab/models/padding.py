"""Padding: a tokenizer pads with a token of its own, on a side where it changes no answer, and its model knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD_TOKEN = "<|pad|>"


def prepare_padding(loaded: PreTrainedTokenizerBase, pad_token_id: int | None = None) -> None:
    """Make the tokenizer pad as training and classifying need it: on the right, with a token of its own.

    There, padding moves no token's position: many decoders count positions from the start of the row, padding
    included. (Writing goes on from the last position, and pads on the left: `Generator` sees to that.) XLNet's head
    reads the last position of a row, where its tokenizer puts CLS, so it is padded on the left. For the token see
    `ensure_pad_token`; `pad_token_id` is one that a trained classifier finds the end of a text by, and stays.
    """
    known = None if pad_token_id is None else loaded.convert_ids_to_tokens(pad_token_id)
    if known is None:
        ensure_pad_token(loaded)
    else:
        loaded.pad_token = known
    ids = loaded("a")["input_ids"]
    reads_the_end = loaded.cls_token_id is not None and ids[-1:] == [loaded.cls_token_id] != ids[:1]
    loaded.padding_side = "left" if reads_the_end else "right"


def ensure_pad_token(loaded: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a pad token that is not EOS, if it has none.

    With pad equal to EOS, whatever masks padding out of the loss hides the real EOS as well, and the model never
    learns to stop (transformers issue 23530). An unknown token that is not EOS serves where no text gives it, as with
    a byte-level tokenizer; else PAD_TOKEN is added to the vocabulary.
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
    """Tell the model its tokenizer's pad id, and add a row to its embedding where that token is new.

    A classifier on a decoder finds the end of a text by it. Raises BadInput for a tokenizer with other tokens that the
    model has no rows for: they would be random ones.
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
        with torch.random.fork_rng():  # the new row is drawn at random: the same one each time that a model is loaded
            torch.manual_seed(0)
            model.resize_token_embeddings(len(loaded))
    model.config.pad_token_id = loaded.pad_token_id
    if getattr(model, "generation_config", None) is not None:  # a body without a head has none
        model.generation_config.pad_token_id = loaded.pad_token_id
