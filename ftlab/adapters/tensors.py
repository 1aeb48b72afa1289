"""The two files of a LoRA adapter: its config, its tensors' names and shapes, and what the config says of a module."""

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
from ftlab.wording import one_line, shown, some

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

LARGEST = 3.4e38  # of fp32
FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in a folder: its config, and its tensors as its file names them: shape and largest number."""

    folder: Path
    config: LoraConfig
    shapes: Mapping[str, tuple[int, ...]]
    largest: Mapping[str, float]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of its tensors, on the CPU, by the file's keys."""
        from safetensors.torch import load_file

        return load_file(self.folder / WEIGHTS)


def read(folder: Path) -> Adapter:
    """The adapter in `folder`, whole and finite. Every tensor is read once, one at a time.

    Raises BadInput as `adapter_config.read` does, for half a file, no tensors, NaN or infinity, and for numbers that
    are no floats of at least 16 bits: rounded to fewer, or to whole numbers, it is another adapter.
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
            f"{path} is not whole: its {size:,} bytes are not a whole safetensors file ({one_line(problem)}); copy or "
            "save it again"
        ) from problem
    if broken:
        raise BadInput(
            f"the adapter in {folder} holds NaN or infinity in {len(broken)} of {len(shapes)} tensors "
            f"({some(broken)}): its training failed; train it again, or train again from an earlier checkpoint"
        )
    if not shapes:
        raise BadInput(f"{path} holds no tensors, so there is nothing to use; save the adapter again")
    return Adapter(folder, config, shapes, largest)


def rank_of(config: LoraConfig, module: str) -> int:
    """The rank of a module's factors: that of the first pattern that matches its name, else r."""
    return value_of(config.rank_pattern, module, config.r)


def alpha_of(config: LoraConfig, module: str) -> float:
    """The alpha of a module: that of the first pattern that matches its name, else lora_alpha."""
    return value_of(config.alpha_pattern, module, config.lora_alpha)


def scaling_of(config: LoraConfig, module: str) -> float:
    """What the product of the factors is multiplied by: alpha / r (LoRA, arXiv 2106.09685), or alpha / sqrt(r).

    The root is that of rank-stabilized LoRA (arXiv 2312.03732).
    """
    rank = rank_of(config, module)
    return alpha_of(config, module) / (math.sqrt(rank) if config.use_rslora else rank)


def require_range(adapter: Adapter, parts: Mapping[str, Mapping[str, str]]) -> None:
    """Raise BadInput when scale * B @ A could be beyond the range of fp32, in which it is computed."""
    for module, keys in parts.items():
        a, b = (adapter.largest[keys[part]] for part in "AB")
        if scaling_of(adapter.config, module) * a * b * rank_of(adapter.config, module) > LARGEST:
            raise BadInput(
                f"the factors of {module} in {adapter.folder} are so large, up to {max(a, b):.2g} with lora_alpha="
                f"{alpha_of(adapter.config, module):g}, that their product leaves the range of float32; train it again"
            )
