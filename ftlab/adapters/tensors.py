"""Read a LoRA adapter's folder: its config, the names, shapes and ranges of its tensors, rank and scale of a module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlab.adapters import config as adapter_config
from ftlab.adapters.config import WEIGHTS
from ftlab.errors import BadInput
from ftlab.internals.peft import value_of
from ftlab.models.model_files import FLOATS
from ftlab.wording import one_line, shown, some

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

FP32_MAX = 3.4e38


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in a folder: its config, and by the key of each tensor its shape and largest absolute number."""

    folder: Path
    config: LoraConfig
    shapes: Mapping[str, tuple[int, ...]]
    largest: Mapping[str, float]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors, on the CPU, by their keys in the file."""
        from safetensors.torch import load_file

        return load_file(self.folder / WEIGHTS)


def read(folder: Path) -> Adapter:
    """Return the adapter in `folder`, checked to be complete and finite. Each tensor is read once, one at a time.

    Raises:
        BadInput: as `config.read`; or the file of the tensors is incomplete or empty, or contains NaN, infinity, or
            numbers that are not floats of at least 16 bits. Rounded to fewer bits it would be another adapter.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    config = adapter_config.read(folder)
    path = folder / WEIGHTS
    shapes, largest, broken = {}, {}, []
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  # safe_open is no dict
                held = file.get_slice(key)
                if (dtype := str(held.get_dtype())) not in FLOATS:
                    raise BadInput(
                        f"{shown(key)} in {path} is stored as {dtype}; expected floats of 16 bits or more "
                        f"({', '.join(sorted(FLOATS))}): save the adapter again"
                    )
                shapes[key] = tuple(held.get_shape())
                tensor = file.get_tensor(key)
                largest[key] = float(tensor.abs().max()) if tensor.numel() else 0.0
                if not math.isfinite(largest[key]):
                    broken.append(key)
    except (SafetensorError, OSError, ValueError) as problem:
        size = path.stat().st_size if path.exists() else 0
        raise BadInput(
            f"{path} is not a whole safetensors file: {size:,} bytes ({one_line(problem)}); copy or save it again"
        ) from problem
    if broken:
        raise BadInput(
            f"the adapter in {folder} holds NaN or infinity in {len(broken)} of {len(shapes)} tensors "
            f"({some(broken)}): its training failed; train it again, or train again from an earlier checkpoint"
        )
    if not shapes:
        raise BadInput(f"{path} holds no tensors, so there is nothing to use; save the adapter again")
    return Adapter(folder, config, shapes, largest)


def with_or_without_body(name: str, body: str) -> tuple[str, ...]:
    """Return the spellings of `name`: as it is, without the model's `body` in front, and with it.

    A checkpoint or an adapter of the body alone leaves out the body's name.

    >>> with_or_without_body("transformer.h.0", "transformer")
    ('transformer.h.0', 'h.0', 'transformer.transformer.h.0')
    """
    return (name, name.removeprefix(f"{body}."), f"{body}.{name}") if body else (name,)


def rank_of(config: LoraConfig, module: str) -> int:
    """Return the rank of a module: that of the first pattern of `config` that matches the name `module`, else r."""
    return value_of(config.rank_pattern, module, config.r)


def alpha_of(config: LoraConfig, module: str) -> float:
    """Return the alpha of a module: that of the first pattern of `config` that matches `module`, else lora_alpha."""
    return value_of(config.alpha_pattern, module, config.lora_alpha)


def scaling_of(config: LoraConfig, module: str) -> float:
    """Return the scale of B @ A in `module`, by its rank and alpha in `config`.

    It is alpha / r (LoRA, arXiv 2106.09685), or alpha / sqrt(r) in rank-stabilized LoRA (arXiv 2312.03732).

    >>> from types import SimpleNamespace as Config
    >>> settings = dict(r=4, lora_alpha=8, rank_pattern={}, alpha_pattern={})
    >>> [scaling_of(Config(**settings, use_rslora=root), "q_lin") for root in (False, True)]
    [2.0, 4.0]
    """
    rank = rank_of(config, module)
    return alpha_of(config, module) / (math.sqrt(rank) if config.use_rslora else rank)


def require_range(adapter: Adapter, parts: Mapping[str, Mapping[str, str]]) -> None:
    """Raise BadInput if scale * B @ A of `adapter` could leave the range of fp32, in which it is computed.

    `parts` has the keys of the factors A and B by module.
    """
    for module, keys in parts.items():
        a, b = (adapter.largest[keys[part]] for part in "AB")
        if scaling_of(adapter.config, module) * a * b * rank_of(adapter.config, module) > FP32_MAX:
            raise BadInput(
                f"the factors of {module} in {adapter.folder} are so large, up to {max(a, b):.2g} with lora_alpha="
                f"{alpha_of(adapter.config, module):g}, that their product leaves the range of float32; train it again"
            )
