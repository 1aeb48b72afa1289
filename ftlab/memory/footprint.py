"""How much memory does training take, and how long? An estimate before the first step.

`estimate` takes a config and no weights, and answers for full fine-tuning, LoRA and QLoRA of any architecture: it
rehearses one step on tensors without values (see `rehearsal`). `training_memory` is the quick rule for an encoder that
is loaded already. `measured` is what it is held against.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

# Bytes of fp32 training for each token, layer and unit of the width, when a layer's inner width is four times its own.
# On CUDA 16 values of four bytes and two dropout masks, without the attention matrix, which a fused kernel does not
# keep (Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022, section 4.1). On a CPU
# masks are values too, and its allocator keeps gaps: measured as 86 to 90 with rows of one length, and up to 106 with
# rows of many lengths (MiniLM's shape at 16x128, 16x256 and 8x512; Trainer with AdamW).
BYTES_PER_UNIT = {"cuda": 66, "cpu": 112}
# For each weight of an attention matrix that is kept: on a CPU with attention dropout softmax, mask and their product.
BYTES_PER_ATTENTION_WEIGHT = 15  # measured as 13 to 14
METHODS = ("full", "lora", "qlora")
DTYPES = ("float32", "bfloat16", "float16")
# Bytes of optimizer state for each byte of a trained value. AdamW keeps a mean and a variance in the value's dtype.
OPTIMIZERS = {"adamw": 2, "sgd": 0}
# What the libraries hold for themselves once a step has run. On a CPU: measured with LoRA on SmolLM2 and one row of 16
# tokens (torch 2.13). On CUDA: the context and its kernels, which nvidia-smi shows and torch's own counters do not;
# a round figure, since it depends on the driver and the GPU (reports go from 0.3 to 0.7 GB).
LIBRARIES = {"cpu": 30_000_000, "cuda": 500_000_000}
# The share of what comes and goes in a step that the allocator holds beyond it, in gaps. glibc serves blocks of up to
# 32 MB from a heap with holes in it: on a CPU 0.02 to 0.64 in nine trainings of SmolLM2, the median 0.35, most in 4
# bits, whose unpacked weights leave holes; 0.01 where each block of 128 kB goes back at once, which costs time
# (`ftlab bench footprint`). On CUDA large blocks are cut from the cache without loss; not measured here.
GAPS = {"cpu": 0.35, "cuda": 0.0}
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "never_at_once", "runtime")


@dataclass(frozen=True)
class Footprint:
    """What training takes at its peak, in bytes by part, and what one step computes."""

    parameters: int  # adapters included
    trainable: int
    weights: int  # buffers included
    gradients: int
    optimizer: int
    activations: int  # what the forward pass keeps for the backward pass, and what that adds at its own peak
    logits: int  # of the LM head, with what the loss makes of them
    never_at_once: int  # negative: gradients come as activations go, so the parts are not all there together
    runtime: int  # what the libraries hold for themselves, and the allocator's gaps
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
        """The parts and their total, in MB or GB (powers of ten)."""
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
    """What training `model` takes with `batch_size` rows of `length` tokens at a time; a second or two of work.

    `model` is a config, a name of `loading.MODELS` (the configs of the hub models are part of ftlab), or a folder with
    a config.json. A decoder gets its LM head, an encoder a classification head.

    `dtype` is that of the weights, in which the model also computes (no autocast); adapters are float32, as peft makes
    them. With `qlora` the linear layers are in NF4 and all else in `dtype`; `prepare_model_for_kbit_training` would
    make that float32. LoRA adapts the query and value projections unless `target_modules` says otherwise.
    `supervised_share` is the share of the tokens that are learned from, where the head runs on these only (see
    `SupervisedTrainer`). `padded`: rows of several lengths meet in a batch, so attention takes a mask. On a GPU
    `total` is what nvidia-smi shows, and `total - runtime` what torch counts as allocated.
    """
    from ftlab.memory import dry_run, meta_models

    dtype = str(dtype).removeprefix("torch.")
    for what, value, known in (
        ("method", method, METHODS), ("dtype", dtype, DTYPES), ("optimizer", optimizer, tuple(OPTIMIZERS)),
        ("device", device, tuple(LIBRARIES)),
    ):  # fmt: skip
        _one_of(what, value, known)
    config = meta_models.config_of(model)
    _check_sizes(config, batch_size=batch_size, length=length, rank=rank, supervised_share=supervised_share)

    outline = meta_models.build(config, dtype)
    head = meta_models.lm_head(outline)
    parameters = _numel(outline.parameters())
    if method == "qlora":
        meta_models.quantize(outline, double=double_quantization)
    if checkpointing:
        dry_run.checkpoint(outline, device)
    if method != "full":
        without = _numel(outline.parameters())
        outline = meta_models.adapt(outline, rank=rank, target_modules=target_modules)
        parameters += _numel(outline.parameters()) - without  # 4-bit weights are two to a byte, and counted before
    step = dry_run.rehearse(
        outline, head, batch_size=batch_size, length=length, supervised=max(1, round(supervised_share * length)),
        padded=padded and batch_size > 1, device=device,
    )  # fmt: skip

    trained = [parameter for parameter in outline.parameters() if parameter.requires_grad]
    gradients = _bytes(trained)
    states = OPTIMIZERS[optimizer] * gradients
    temporary = max(0, step.peak - step.activations - step.logits - gradients)
    return Footprint(
        parameters=parameters,
        trainable=_numel(trained),
        weights=_bytes([*outline.parameters(), *outline.buffers()]),
        gradients=gradients,
        optimizer=states,
        activations=step.activations + temporary,
        logits=step.logits,
        never_at_once=step.peak - (step.activations + temporary + step.logits + gradients),
        runtime=LIBRARIES[device] + round(GAPS[device] * step.peak),
        flops=step.flops,
        # The optimizer reads weight, gradient and states and writes all but the gradient; clipping reads the gradients
        # twice and writes them once.
        moved=step.moved + 6 * gradients + 2 * states,
    )


def seconds(
    footprint: Footprint, flops_per_second: float, *, bytes_per_second: float | None = None, steps: int = 1
) -> float:
    """How long so many steps take at this machine's rates: the matrix products, and the memory that all else touches.

    Full fine-tuning takes about 6 FLOPs for each token and each parameter in a matrix: 2 forward, and backward 2 for
    the gradient of the input and 2 for that of the weight (Kaplan et al., Scaling Laws for Neural Language Models,
    2020, section 2.1). LoRA leaves out the last, so 4; attention and the head come on top. Without `bytes_per_second`
    the answer is a lower bound.
    """
    of_memory = footprint.moved / bytes_per_second if bytes_per_second else 0.0
    return steps * (footprint.flops / flops_per_second + of_memory)


def matmul_rate(dtype: str | torch.dtype = "float32", device: str = "cpu") -> float:
    """FLOPs per second of a large matrix product on this machine, the best of a quarter of a second."""
    import torch

    size = 8192 if device == "cuda" else 1024
    one = torch.ones(size, size, dtype=getattr(torch, str(dtype).removeprefix("torch.")), device=device)
    return 2 * size**3 / _fastest(lambda: one @ one, device)


def memory_rate(device: str = "cpu") -> float:
    """Bytes per second that an operation on each value reads and writes, on tensors larger than any cache."""
    import torch

    one = torch.ones(2**28 if device == "cuda" else 2**24, device=device)
    other = torch.empty_like(one)
    return 2 * one.numel() * one.element_size() / _fastest(lambda: torch.mul(one, 2, out=other), device)


def _fastest(work: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest of several runs; what else a machine does only ever adds to a time."""
    import torch

    def timed() -> float:
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed()  # the first run also sets things up
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
            f"supervised_share {supervised_share:g} is no share of the tokens; expected more than 0 and at most 1: "
            "`prompts.supervised_share` gives that of your rows"
        )
    width = config.hidden_size
    if rank > width:
        raise BadInput(f"rank {rank} is above the model's width; expected at most {width}, and 8 to 64 usually do")
    positions = getattr(config, "max_position_embeddings", None)
    if positions and length > positions:
        raise BadInput(
            f"rows of {length} tokens do not fit a {config.model_type} model with {positions} positions; expected a "
            f"length of at most {positions}: shorten the rows, or use another model"
        )


def _numel(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def training_memory(model: PreTrainedModel, *, batch_size: int, length: int, trained_layers: int | None = None) -> int:
    """Bytes that training holds at its peak with AdamW in fp32: weights, gradients, optimizer, activations.

    For encoders; `length` is the longest row in tokens. Only layers that train keep activations, all of them unless
    `trained_layers` says how many from the last. Mixed precision takes less.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = sum(parameter.numel() for parameter in model.parameters())
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
    """What a block of code took: seconds, and how many bytes above those before it were held at the peak."""

    seconds: float = 0.0
    peak: int = 0


@contextmanager
def measured(device: torch.device, every: float = 0.005) -> Iterator[Measured]:
    """Time the block and watch its memory; the answer is filled in at the end.

    On a GPU torch counts what it allocates. Elsewhere the memory of the process is read `every` so many seconds: what
    an earlier block has freed and the allocator has kept is taken again without being seen, so measure the smaller
    thing first.
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
    """Bytes that are free on the device of a model: the GPU's own memory, else the machine's."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
