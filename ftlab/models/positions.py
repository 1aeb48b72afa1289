"""The longest row that a model can read, in tokens: its positions, without those that no token uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Names of the table of position embeddings, by architecture.
TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe", "positions_embed", "pos_embeddings")
# Names of the longest row in configs: the size of the table, or the training length of rotary positions.
LIMITS = ("max_position_embeddings", "max_seq_len")


def most_tokens(model: PreTrainedModel) -> int | None:
    """Return the most tokens, special ones included, that `model` can read in one row; None if it has no limit.

    A table of learned positions has an end, and no token may use its first rows: RoBERTa counts from the pad id, BART
    and OPT from 2. Rotary positions have no end, so the length of the training counts, which is in the config. Models
    with relative distances (T5, BLOOM, XLNet) have no limit. Of a model that reads images, too, the text counts. Only
    shapes are read, so a model without weights will do.
    """
    text = model.config.get_text_config()
    limits = [getattr(text, name, None) for name in LIMITS]
    limits += [_usable(module) for name, module in model.named_modules() if _is_of_text(name)]
    counted = [limit for limit in limits if isinstance(limit, int) and limit > 0]  # XLNet's config says -1
    return min(counted, default=None)


def _is_of_text(name: str) -> bool:
    """Return whether a module is a table of the positions of tokens, and not one of patches of an image or sound."""
    return name.rpartition(".")[2] in TABLES and not any(kind in name for kind in ("vision", "visual", "audio"))


def _usable(table: Any) -> int | None:
    """Return how many rows of a table of positions tokens use; None for a module without a table."""
    weight = getattr(table, "weight", None)
    if weight is None or weight.dim() != 2:
        return None
    padding = getattr(table, "padding_idx", None)
    unused = getattr(table, "offset", None) or (0 if padding is None else padding + 1)
    return int(weight.shape[0]) - int(unused)
