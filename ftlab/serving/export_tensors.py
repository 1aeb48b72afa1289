"""The tensors of an export, each beside the folder's: equal within the rounding of the type in which it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.models import loading_report, shards
from ftlab.serving.gguf_files import Content
from ftlab.wording import some

if TYPE_CHECKING:
    import torch
    from gguf import ReaderTensor

# A number is stored with this relative error at most: half a step of its last bit. In f32 nothing is rounded, but some
# converters add 1 to a norm and the loader takes it away again.
RELATIVE = {"f32": 1e-6, "f16": 2.0**-11, "bf16": 2.0**-8}
ABSOLUTE = {"f32": 2.0**-22, "f16": 2.0**-22, "bf16": 2.0**-22}
# q8_0 has blocks of 32 numbers, each number in 255 steps of the block's largest, and that as an f16.
BLOCK, STEP = 32, 1 / 254 + 2.0**-11
EXPERTS = ".experts."  # transformers 5 joins the matrices of all experts, so they have other names
HEAD = "output.weight"  # the name of the language model's head in a GGUF file
# Other types have many kinds of blocks. Their errors are measured; one of this share (root mean square) is no rounding:
# the coarsest, of 2 bits, has about a third.
NO_ROUNDING = 0.7
# Architectures whose converter changes no tensor, so that they can be compared without transformers' loader.
UNCHANGED = ("phi2",)
MOST_FAULTS = 3  # tensors that are named one by one


@dataclass(frozen=True)
class Tensors:
    """How many tensors were `compared`, the largest error as a `share` of its tensor's largest number, and `where`.

    `left` are the folder's tensors that could not be compared, by name.
    """

    compared: int
    share: float
    where: str
    left: tuple[str, ...]


def compare(
    folder: Path, found: Iterator[tuple[str, str, str, torch.Tensor]], tied: Mapping[str, str]
) -> tuple[Tensors, list[str]]:
    """Compare tensors of a file with those of `folder`, one at a time.

    Args:
        folder: the model's.
        found: of each tensor of the file: its name in the model, its name in the file, its type, and its numbers.
        tied: tensors of the model that are one with another: {tied tensor: its source}.

    Returns:
        The measurements, and a sentence for each tensor that is not the folder's; of many, for the first ones.
    """
    checkpoint = shards.read(folder)
    faults, compared, worst, where, seen = [], 0, 0.0, "", set()
    for name, in_file, kind, read in found:
        stored = _stored_name(checkpoint.tensors, name) or _stored_name(checkpoint.tensors, tied.get(name, name))
        if stored is None:
            if EXPERTS not in name:
                faults.append(f"{in_file} is {name}, which the folder does not have")
            continue
        seen.add(stored)
        place = checkpoint.tensors[stored]
        with (folder / place.shard).open("rb") as file:
            own = shards.read_tensor(file, place).float()
        if own.shape != read.shape:
            faults.append(f"{in_file} has the shape {tuple(read.shape)}, and {stored} {tuple(own.shape)}")
            continue
        compared += 1
        gap = (read.float() - own).abs_()
        share = float(gap.max() / own.abs().max().clamp_min(1e-30))
        if not share <= worst:  # a NaN is kept
            worst, where = share, in_file
        if not is_rounding(gap, own, kind):
            faults.append(
                f"{in_file} is not {stored} of the folder: a number is off by {share:.2g} of the largest one, more "
                f"than rounding to {kind}"
            )
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = [f"{len(faults) - MOST_FAULTS} more tensors are not those of the folder"]
    left = tuple(name for name in checkpoint.tensors if name not in seen and not _is_tied(name, tied))
    if lacking := [name for name in left if not (loading_report.NO_WEIGHTS.search(name) or EXPERTS in name)]:
        faults.append(f"the file lacks {some(lacking)} of the folder")
    return Tensors(compared, worst, where, left), faults


def of_loaded(
    model: Any, names: Mapping[str, str], content: Content, tied: Mapping[str, str]
) -> Iterator[tuple[str, str, str, torch.Tensor]]:
    """Yield the tensors of `model`, which transformers read from the file, for `compare`.

    `names` are those in the file by those in the model; `tied` as for `compare`. A tensor that the file lacks is left
    out: the loader has drawn it at random.
    """
    import torch

    stored = {tensor.name: tensor for tensor in content.reader.tensors}
    for name, tensor in model.state_dict().items():
        in_file = names.get(name, name)
        if in_file in stored:
            kind = stored[in_file].tensor_type.name.lower()
            if in_file == HEAD and name in tied:  # llama.cpp takes the head of the file, and the loader the embeddings
                tensor = torch.from_numpy(_numbers(stored[in_file]))
            yield name, in_file, kind, tensor


def of_file(content: Content, names: list[str], layers: int) -> Iterator[tuple[str, str, str, torch.Tensor]]:
    """Yield the tensors of a file whose architecture is one of UNCHANGED, for `compare`.

    Args:
        content: the open file.
        names: of the folder's tensors.
        layers: of the model.
    """
    import torch

    for name, tensor in _named(content, names, layers).items():
        yield name, tensor.name, tensor.tensor_type.name.lower(), torch.from_numpy(_numbers(tensor))


def _named(content: Content, names: Iterable[str], layers: int) -> dict[str, ReaderTensor]:
    """Return the tensors of the file by `names` of a model, those that the table of `gguf` knows."""
    import gguf

    facts = content.facts
    architecture = next((one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == facts.architecture), None)
    if architecture is None:
        return {}
    table = gguf.get_tensor_name_map(architecture, layers)
    tensors = {tensor.name: tensor for tensor in content.reader.tensors}
    in_file = {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in names}
    return {name: tensors[known] for name, known in in_file.items() if known in tensors}


def kinds(model: Any, content: Content) -> dict[str, str]:
    """Return the type in which the file stores each parameter of the folder's `model`, by the parameter's name.

    A matrix whose name the table of `gguf` does not know has the type of the file, and a vector f32.
    """
    parameters = dict(model.named_parameters())
    stored = _named(content, parameters, model.config.get_text_config().num_hidden_layers)
    unknown = {name: content.facts.type if one.dim() > 1 else "f32" for name, one in parameters.items()}
    return {**unknown, **{name: tensor.tensor_type.name.lower() for name, tensor in stored.items()}}


def round_weights(model: Any, kinds: Mapping[str, str]) -> None:
    """Round each parameter of `model` in place to its type in `kinds`, all of which are in ROUND."""
    import torch

    for name, parameter in model.named_parameters():
        turned = isinstance(model.get_submodule(name.rpartition(".")[0]), _turned())
        with torch.no_grad():
            own = parameter.T.contiguous() if turned and parameter.dim() == 2 else parameter
            made = ROUND[kinds[name]](own)
            parameter.copy_(made.T if own is not parameter else made)


@contextmanager
def rounded_inputs(model: Any, kinds: Mapping[str, str]) -> Iterator[None]:
    """Within it, `model` rounds what each matrix is multiplied with to the type of the matrix, as llama.cpp does.

    Where that is f32, it is rounded to f16, as llama.cpp does in its table of the GELU function.
    """
    import torch

    matrices = (torch.nn.Linear, _turned())
    coarsest = max(kinds.values(), key=list(ROUND).index)
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, matrices):
            kind = kinds.get(f"{name}.weight", coarsest)  # a head that is tied to the embeddings has no name there
            rounded = ROUND["f16" if kind == "f32" else kind]
            hooks.append(module.register_forward_pre_hook(lambda _, given, rounded=rounded: (rounded(given[0]),)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _turned() -> type[torch.nn.Module]:
    """Return the class of GPT-2's matrices, which a folder stores turned."""
    from transformers import Conv1D

    return Conv1D


def _in_blocks(numbers: torch.Tensor) -> torch.Tensor:
    """Round to q8_0 and back: each block of 32 numbers has 255 steps, and the size of a step as an f16."""
    import torch

    if numbers.shape[-1] % BLOCK:
        return numbers.half().float()
    blocks = numbers.reshape(-1, BLOCK)
    step = blocks.abs().amax(-1, keepdim=True) / 127
    steps = blocks * torch.where(step == 0, 0, 1 / step)
    steps = (steps + steps.sign() * 0.5).trunc_()  # half a step is rounded away from zero
    return (steps * step.half().float()).reshape(numbers.shape)


# How numbers are rounded to a type and back to fp32, the coarsest last.
ROUND: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "f32": lambda numbers: numbers, "f16": lambda numbers: numbers.half().float(),
    "bf16": lambda numbers: numbers.bfloat16().float(), "q8_0": _in_blocks,
}  # fmt: skip


def _numbers(tensor: ReaderTensor) -> Any:
    import gguf

    return gguf.dequantize(tensor.data, tensor.tensor_type).copy()


def _stored_name(stored: Mapping[str, Any], name: str) -> str | None:
    """Return the name under which a folder stores the tensor `name`: some leave out the first part, the model's."""
    if name in stored:
        return name
    short = name.partition(".")[2]
    if short in stored:
        return short
    return next((one for one in stored if one.partition(".")[2] == name), None)


def _is_tied(name: str, tied: Mapping[str, str]) -> bool:
    return any(one == name or one.endswith(f".{name}") for one in tied)


def is_rounding(gap: torch.Tensor, own: torch.Tensor, kind: str) -> bool:
    """Return whether `gap` is explained by rounding `own` to the type `kind`. A NaN is not."""
    import torch

    if kind in RELATIVE:
        return bool(torch.le(gap, own.abs().mul_(RELATIVE[kind]).add_(ABSOLUTE[kind])).all())
    if kind == "q8_0":  # GPT-2's matrices are stored turned, so the blocks may run along either side
        return _within_blocks(gap, own) or (own.dim() == 2 and _within_blocks(gap.T, own.T))
    return bool(gap.square().mean() <= NO_ROUNDING**2 * own.square().mean())


def _within_blocks(gap: torch.Tensor, own: torch.Tensor) -> bool:
    if own.shape[-1] % BLOCK:
        return False
    largest = own.reshape(-1, BLOCK).abs().amax(-1)
    return bool((gap.reshape(-1, BLOCK).amax(-1) <= largest * STEP + ABSOLUTE["f32"]).all())
