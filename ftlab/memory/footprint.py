"""Memory and time of training, estimated before the first step or measured.

`estimate` needs a config and no weights. It works for full fine-tuning, LoRA and QLoRA of any architecture: it counts
one training step on tensors without values (see `dry_run`). `training_memory` is a quick rule for a loaded encoder.
`measured` measures both, to check the estimates.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

# Bytes of activations in fp32 for each token, layer and unit of the width, if a layer's inner width is four times its
# width. On CUDA: 16 values of four bytes and two dropout masks; a fused kernel does not keep the attention weights
# (Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022, section 4.1). On a CPU the
# masks have the size of values, and the allocator leaves gaps: measured as 86 to 90 with rows of one length, and up to
# 106 with rows of many lengths (MiniLM's shape at 16x128, 16x256 and 8x512; Trainer with AdamW).
BYTES_PER_UNIT = {"cuda": 66, "cpu": 112}
# A CPU with attention dropout keeps, for each attention weight, the softmax, the mask and their product.
BYTES_PER_ATTENTION_WEIGHT = 15  # measured as 13 to 14
METHODS = ("full", "lora", "qlora")
DTYPES = ("float32", "bfloat16", "float16")
# Bytes of optimizer state for each byte of a trained parameter. AdamW keeps a mean and a variance in the same dtype.
OPTIMIZERS = {"adamw": 2, "sgd": 0}
# Bytes that the libraries themselves hold after a step. On a CPU: measured with LoRA on SmolLM2 and one row of 16
# tokens (torch 2.13). On CUDA: the context and its kernels, which nvidia-smi shows and torch's own counters do not.
# That is a round figure: it depends on the driver and the GPU (reports range from 0.3 to 0.7 GB).
LIBRARIES = {"cpu": 30_000_000, "cuda": 500_000_000}
# Gaps that the allocator holds, as a share of the peak of activations, logits and gradients. glibc serves blocks of up
# to 32 MB from a heap that fragments. On a CPU the share was 0.02 to 0.64 in nine trainings of SmolLM2, with a median
# of 0.35. It was largest in 4 bits, whose unpacked weights leave gaps. It was 0.01 when each block of 128 kB was
# returned at once, which costs time (`ftlab bench footprint`). On CUDA large blocks are cut from the cache without
# loss; that is not measured here.
GAPS = {"cpu": 0.35, "cuda": 0.0}
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "never_at_once", "runtime")


@dataclass(frozen=True)
class Footprint:
    """The memory of training at its peak, in bytes by part, and the operations of one step.

    >>> made_up = Footprint(
    ...     parameters=10, trainable=1, weights=40, gradients=4, optimizer=8, activations=30, logits=6,
    ...     never_at_once=-5, runtime=7, flops=600, moved=50,
    ... )
    >>> made_up.total  # 40 + 4 + 8 + 30 + 6 - 5 + 7
    90
    >>> made_up.trainable_percent
    10.0
    """

    parameters: int  # number, adapters included
    trainable: int  # number of them that are trained
    weights: int  # buffers included
    gradients: int
    optimizer: int
    activations: int  # kept for the backward pass, and the temporary tensors of the backward pass
    logits: int  # of the LM head, and the tensors that the loss computes from them
    never_at_once: int  # a negative correction: the parts do not peak at the same time
    runtime: int  # held by the libraries themselves, and the allocator's gaps
    flops: int  # of one step, forward and backward
    moved: int  # bytes that one step reads and writes outside of its matrix products

    @property
    def total(self) -> int:
        """Bytes at the peak: the sum of the parts."""
        return sum(getattr(self, part) for part in PARTS)

    @property
    def trainable_percent(self) -> float:
        """Trained parameters, in percent of all."""
        return 100 * self.trainable / self.parameters

    def table(self, unit: str = "MB") -> pd.DataFrame:
        """Return the parts and their total in one column, in `unit`: "MB" or "GB", powers of ten."""
        import pandas as pd

        _one_of("unit", unit, ("MB", "GB"))
        sizes = {part.replace("_", " "): getattr(self, part) for part in PARTS} | {"total": self.total}
        shown = pd.Series(sizes) / (1e6 if unit == "MB" else 1e9)
        return shown.round(1 if unit == "MB" else 2).to_frame(unit).rename_axis("part")


def estimate(
    model: str | PreTrainedConfig,
    *,
    method: str = "full",
    batch_size: int,
    length: int,
    dtype: str | torch.dtype = "float32",
    supervised_share: float = 1.0,
    rank: int = 16,
    target_modules: Sequence[str] | str | None = None,
    optimizer: str = "adamw",
    checkpointing: bool = False,
    device: str = "cpu",
    padded: bool = True,
    double_quantization: bool = True,
) -> Footprint:
    """Estimate the memory of training a model, in a second or two and without its weights.

    A decoder gets its LM head, an encoder a classification head.

    Args:
        model: a config, a name of `loading.MODELS` (ftlab contains the configs of the hub models), or a folder with a
            config.json.
        method: one of METHODS. With "qlora" the linear layers are in NF4 and the rest in `dtype`, which
            `prepare_model_for_kbit_training` would convert to float32.
        batch_size: rows per step.
        length: tokens of each row.
        dtype: of the weights and of all computation (no autocast). Adapters are float32, as PEFT makes them.
        supervised_share: share of the tokens that are trained on, if the LM head runs on these only (see
            `SupervisedTrainer`).
        rank: of the adapters.
        target_modules: that LoRA adapts, as in PEFT's LoraConfig; by default the query and value projections.
        optimizer: one of OPTIMIZERS.
        checkpointing: keep only the inputs of the layers, and run each layer again in the backward pass.
        device: "cpu" or "cuda".
        padded: the rows of a batch have different lengths, so attention gets a mask.
        double_quantization: of QLoRA: store the scales of the 4-bit weights in 8 bits.

    Returns:
        The memory by part. On a GPU `total` is what nvidia-smi shows, and `total - runtime` is what torch counts as
        allocated.

    Raises:
        BadInput: a value is not one of those above, is out of range, or does not fit the model.
    """
    from ftlab.memory import meta_models

    dtype = str(dtype).removeprefix("torch.")
    for what, value, known in (
        ("method", method, METHODS), ("dtype", dtype, DTYPES), ("optimizer", optimizer, tuple(OPTIMIZERS)),
        ("device", device, tuple(LIBRARIES)),
    ):  # fmt: skip
        _one_of(what, value, known)
    config = meta_models.config_of(model)
    _check_sizes(config, batch_size=batch_size, length=length, rank=rank, supervised_share=supervised_share)

    if not (target_modules is None or isinstance(target_modules, str)):
        target_modules = tuple(target_modules)
    return _counted(
        _Config(config), method=method, batch_size=batch_size, length=length, dtype=dtype,
        supervised=max(1, round(supervised_share * length)), rank=rank, target_modules=target_modules,
        optimizer=optimizer, checkpointing=checkpointing, device=device, padded=padded and batch_size > 1,
        double_quantization=double_quantization,
    )  # fmt: skip


class _Config:
    """A config as the key of a cache: all of its values at this moment, the kind of attention among them."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.values: Any = copy.deepcopy(config)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Config) or type(self.values) is not type(other.values):
            return False
        return vars(self.values) == vars(other.values)  # a config's own == leaves the attention out

    def __hash__(self) -> int:
        return hash((type(self.values), self.values.hidden_size))


@lru_cache(maxsize=256)
def _counted(
    config: _Config, *, method: str, batch_size: int, length: int, dtype: str, supervised: int, rank: int,
    target_modules: tuple[str, ...] | str | None, optimizer: str, checkpointing: bool, device: str, padded: bool,
    double_quantization: bool,
) -> Footprint:  # fmt: skip
    """`estimate` of checked values. A lesson asks for the same model more than once, and a dry run takes seconds."""
    from ftlab.memory import dry_run, meta_models

    built = meta_models.build(config.values, dtype)
    head = meta_models.lm_head(built)
    parameters = _numel(built.parameters())
    if method == "qlora":
        meta_models.quantize(built, double=double_quantization)
    if checkpointing:
        dry_run.enable_checkpointing(built, device)
    if method != "full":
        without_adapters = _numel(built.parameters())  # in 4 bits, a byte with two weights counts once
        named = list(target_modules) if isinstance(target_modules, tuple) else target_modules
        built = meta_models.adapt(built, rank=rank, target_modules=named)
        parameters += _numel(built.parameters()) - without_adapters
    try:
        step = dry_run.count_step(
            built, head, batch_size=batch_size, length=length, supervised=supervised, padded=padded, device=device
        )  # fmt: skip
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as problem:
        why = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise BadInput(
            f"a step of {type(built).__name__} cannot be counted without its weights ({why}); expected a model that "
            "runs as BERT, GPT-2 and Llama do: measure one step of a training instead"
        ) from problem

    trained = [parameter for parameter in built.parameters() if parameter.requires_grad]
    gradients = _bytes(trained)
    states = OPTIMIZERS[optimizer] * gradients
    temporary = max(0, step.peak - step.activations - step.logits - gradients)
    return Footprint(
        parameters=parameters,
        trainable=_numel(trained),
        weights=_bytes([*built.parameters(), *built.buffers()]),
        gradients=gradients,
        optimizer=states,
        activations=step.activations + temporary,
        logits=step.logits,
        never_at_once=step.peak - (step.activations + temporary + step.logits + gradients),
        runtime=LIBRARIES[device] + round(GAPS[device] * step.peak),
        flops=step.flops,
        # The optimizer reads the weights, gradients and states, and writes the weights and states. Clipping reads the
        # gradients twice and writes them once.
        moved=step.moved + 6 * gradients + 2 * states,
    )


def seconds(
    footprint: Footprint, flops_per_second: float, *, bytes_per_second: float | None = None, steps: int = 1
) -> float:
    """Estimate the time of training steps: matrix products at one rate, all other operations at the rate of memory.

    Full fine-tuning takes about 6 FLOPs for each token and each parameter in a matrix: 2 forward, and backward 2 for
    the gradient of the input and 2 for the gradient of the weight (Kaplan et al., Scaling Laws for Neural Language
    Models, 2020, section 2.1). LoRA does without the last 2, so 4. Attention and the head are added to that.

    Args:
        footprint: of one step.
        flops_per_second: of matrix products (see `matmul_rate`).
        bytes_per_second: of other operations (see `memory_rate`); without it the result is a lower bound.
        steps: how many.

    Returns:
        Seconds.

    >>> from types import SimpleNamespace
    >>> step = SimpleNamespace(flops=6000, moved=500)
    >>> seconds(step, 1000, bytes_per_second=250, steps=10)  # 10 * (6 + 2)
    80.0
    """
    of_memory = footprint.moved / bytes_per_second if bytes_per_second else 0.0
    return steps * (footprint.flops / flops_per_second + of_memory)


def matmul_rate(dtype: str | torch.dtype = "float32", device: str = "cpu") -> float:
    """Return the FLOPs per second of a large matrix product in `dtype` on `device`, the best in a quarter second."""
    import torch

    size = 8192 if device == "cuda" else 1024
    one = torch.ones(size, size, dtype=getattr(torch, str(dtype).removeprefix("torch.")), device=device)
    return 2 * size**3 / _fastest(lambda: one @ one, device)


def memory_rate(device: str = "cpu") -> float:
    """Return the bytes per second that an elementwise operation on `device` reads and writes, on more than a cache."""
    import torch

    one = torch.ones(2**28 if device == "cuda" else 2**24, device=device)
    other = torch.empty_like(one)
    return 2 * one.numel() * one.element_size() / _fastest(lambda: torch.mul(one, 2, out=other), device)


def _fastest(work: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest of several runs: other work on the machine can only make a run slower."""
    import torch

    def timed() -> float:
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed()  # the first run includes set-up
    best, ends = timed(), time.perf_counter() + 0.25
    while time.perf_counter() < ends:
        best = min(best, timed())
    return best


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise BadInput(
            f"there is no {what} {value!r}; expected one of {', '.join(known)}: give one of these as `{what}`"
        )


def _check_sizes(config: Any, *, batch_size: int, length: int, rank: int, supervised_share: float) -> None:
    for what, value in (("batch_size", batch_size), ("length", length), ("rank", rank)):
        if value < 1:
            raise BadInput(f"{what} {value} leaves nothing to train with; expected 1 or more: give a larger {what}")
    if not 0 < supervised_share <= 1:
        raise BadInput(
            f"supervised_share {supervised_share:g} is not a share of the tokens; expected more than 0 and at most 1: "
            "compute that of your rows with `prompts.supervised_share`"
        )
    width = config.hidden_size
    if rank > width:
        raise BadInput(
            f"rank {rank} is above the model's width; expected at most {width}: give a smaller rank (8 to 64 are usual)"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if positions and 0 < positions < length:  # XLNet's config says -1
        raise BadInput(
            f"rows of {length} tokens do not fit a {config.model_type} model with {positions} positions; expected a "
            f"length of at most {positions}: shorten the rows, or use another model"
        )


def _numel(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def training_memory(model: PreTrainedModel, *, batch_size: int, length: int, trained_layers: int | None = None) -> int:
    """Estimate the memory of an encoder at the peak of training in fp32 with AdamW; mixed precision takes less.

    Args:
        model: with `requires_grad` set as for the training, on its device.
        batch_size: rows per step.
        length: tokens of the longest row.
        trained_layers: how many of the last layers are trained, by default all; only these keep activations.

    Returns:
        Bytes of weights, gradients, optimizer and activations.
    """
    trained = _numel(parameter for parameter in model.parameters() if parameter.requires_grad)
    weights = _numel(model.parameters())
    config = model.config
    tokens = batch_size * length
    layers = config.num_hidden_layers if trained_layers is None else trained_layers
    on_cuda = model.device.type == "cuda"
    activations = BYTES_PER_UNIT["cuda" if on_cuda else "cpu"] * tokens * layers * config.hidden_size
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    if any(getattr(config, name, 0.0) or 0.0 for name in names) and not on_cuda:
        activations += BYTES_PER_ATTENTION_WEIGHT * tokens * length * config.num_attention_heads * layers
    return 4 * weights + 12 * trained + activations


@dataclass
class Measured:
    """Time and memory of a block of code: seconds, and the bytes at the peak above those before the block."""

    seconds: float = 0.0
    peak: int = 0


@contextmanager
def measured(device: torch.device, every: float = 0.005) -> Iterator[Measured]:
    """Yield a `Measured` that has the time and the peak memory of the block once the block has ended.

    On a GPU torch counts the memory that it allocates on `device`. Otherwise the memory of the process is read at
    intervals of `every` seconds. Memory that an earlier block freed may still belong to the process, and using it again
    does not count. So measure the smaller block first.
    """
    import psutil
    import torch

    process, found, over, held = psutil.Process(), Measured(), Event(), [0]

    def watch() -> None:
        while not over.wait(every):
            held[0] = max(held[0], process.memory_info().rss)

    on_cuda = device.type == "cuda"
    watcher = Thread(target=watch, daemon=True)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        before = process.memory_info().rss
        watcher.start()
    began = time.perf_counter()
    try:
        yield found
    finally:
        if on_cuda:
            torch.cuda.synchronize(device)
        found.seconds = time.perf_counter() - began
        over.set()
        peak = torch.cuda.max_memory_allocated(device) if on_cuda else max(held[0], process.memory_info().rss)
        found.peak = peak - before


def free_memory(device: torch.device) -> int:
    """Return the free bytes of the GPU if `device` is a CUDA device, else of the machine."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
