"""How many tokens a model can read in one row: its positions, less those that no token ever has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# What architectures call the table that holds a vector for each position.
TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe", "positions_embed", "pos_embeddings")
# What configs call the longest row: of the table, or of what a model with rotary positions was trained for.
LIMITS = ("max_position_embeddings", "max_seq_len")


def most_tokens(model: PreTrainedModel) -> int | None:
    """The most tokens, special ones included, that `model` can read in one row; None where it has no limit.

    A table of learned positions ends, and the first rows of it may belong to no token: RoBERTa counts from the id of
    padding on, BART and OPT from 2. Rotary positions have no end, and the config says for how many the model was
    trained. Models with distances alone (T5, BLOOM, XLNet) have no limit. Only shapes are looked at, and no weights.
    """
    limits = [getattr(model.config, name, None) for name in LIMITS]
    limits += [_usable(module) for name, module in model.named_modules() if name.rpartition(".")[2] in TABLES]
    counted = [limit for limit in limits if isinstance(limit, int) and limit > 0]  # XLNet's config says -1
    return min(counted, default=None)


def outline(config: PreTrainedConfig) -> PreTrainedModel:
    """The body of a config's model on the meta device: its modules and shapes, and no weights."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        return AutoModel.from_config(config)


def _usable(table: Any) -> int | None:
    """How many rows of a table of positions belong to tokens; None for what is no table (a way to compute them)."""
    weight = getattr(table, "weight", None)
    if weight is None or weight.dim() != 2:
        return None
    padding = getattr(table, "padding_idx", None)
    unused = getattr(table, "offset", None) or (0 if padding is None else padding + 1)
    return int(weight.shape[0]) - int(unused)
