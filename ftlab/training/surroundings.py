"""What surrounds any Trainer: precision by the device, progress for whoever watches, and plain words when it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from transformers import TrainerCallback

from ftlab import files
from ftlab.errors import BadInput, TrainingFailed
from ftlab.models import footprint, loading
from ftlab.progress import LIVE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

SHORT = 128  # tokens
# Tokens that a CPU trains on fastest at a time: the activations of more leave its caches, and their memory is asked of
# the system anew in each step. In turn on one AMD CPU, MiniLM takes a tenth less time on rows of 512 tokens.
FP32_TOKENS = 2048
# What a RuntimeError says where the CPU's allocator (each system in its words), MPS, or C++ found no memory.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "std::bad_alloc")


def mixed_precision() -> dict[str, bool]:
    """The precision arguments of TrainingArguments for this machine: fp16, bf16, and use_cpu where bf16 asks for it.

    bf16 on a GPU that has it, fp16 on an older one; bf16 on a CPU with instructions for it (AVX-512 BF16, AMX), where a
    step takes about two thirds of the time; neither elsewhere. Asked for fp16, Trainer would train in fp32 on a CPU
    without saying so, and bf16 without such instructions is slower than fp32. The weights stay in fp32 in any case.
    """
    import torch

    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return {"fp16": not bf16, "bf16": bf16}
    if torch.backends.mps.is_available() or not _cpu_has_bf16():
        return {"fp16": False, "bf16": False}
    return {"fp16": False, "bf16": True, "use_cpu": True}


def answer_dtype() -> torch.dtype:
    """The dtype in which to hold weights that answer: half precision wherever this machine computes in it."""
    import torch

    precision = mixed_precision()
    return torch.bfloat16 if precision["bf16"] else torch.float16 if precision["fp16"] else torch.float32


def pieces(batch_size: int, *, length: int, precision: Mapping[str, bool]) -> int:
    """In how many pieces to train on a batch whose longest row has `length` tokens: `gradient_accumulation_steps`.

    On a CPU pieces of at most FP32_TOKENS (twice that in bf16) are faster, and take less memory. One where the batch
    fits, on a GPU, and where it has no equal pieces of between half that size and all of it. More than one asks for a
    model with `accepts_loss_kwargs = False` (`invariants.accumulation`); the step is that of the whole batch, but for
    the draws of dropout, and for an epoch's last batch, where the rows of a smaller piece count for more.
    """
    most = max(1, FP32_TOKENS * (2 if precision.get("bf16") else 1) // length)
    rows = max(size for size in range(1, min(most, batch_size) + 1) if batch_size % size == 0)
    on_cpu = precision.get("use_cpu") or loading.best_device() == "cpu"
    return batch_size // rows if on_cpu and rows >= most / 2 else 1


@contextmanager
def quick_attention(model: PreTrainedModel, *, max_length: int, precision: Mapping[str, bool]) -> Iterator[None]:
    """Inside the block attention is computed in the way that trains fastest here; the answers are the same.

    PyTorch's fused attention on a CPU is slow at going backward in bf16: on rows of up to SHORT tokens, plain matrix
    products train a sixth to a quarter faster (MiniLM, batch 16, torch 2.13); on longer ones they lose.
    """
    before = model.config._attn_implementation
    plain = before == "sdpa" and precision.get("bf16") and precision.get("use_cpu") and max_length <= SHORT
    if plain:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _cpu_has_bf16() -> bool:
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class LiveProgress(TrainerCallback):
    """Write the step of training to `folder/progress.json`, which `ftlab run` shows while the notebook runs."""

    def __init__(self, folder: Path, what: str = "training") -> None:
        self.file = Path(folder) / LIVE
        self.what = what

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Say where training is."""
        progress = {"what": self.what, "step": state.global_step, "of": state.max_steps}
        self.file.write_text(files.to_json(progress), encoding="utf-8")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Say nothing more."""
        self.file.unlink(missing_ok=True)


class StopWhenNotFinite(TrainerCallback):
    """Stop training at the step whose logits are no numbers any more (NaN or infinite).

    Trainer goes on: its log leaves NaN losses out by default, and every later step trains on nothing. Raises
    TrainingFailed with the step and what to try. Evaluation between the steps is watched too: it is the first to see
    what the last step did.
    """

    hooks: ClassVar[WeakKeyDictionary[Any, Any]] = WeakKeyDictionary()  # by model: an interrupted training leaves one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Look at what the model gives, each time that it runs."""
        import torch

        def look(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if not torch.isfinite(output.logits).all():
                self._look_no_more(module)  # Trainer ends here, and does not say so to its callbacks
                step = state.global_step + 1 if module.training else state.global_step
                raise TrainingFailed(
                    f"training diverged at step {step} of {state.max_steps}: the logits are not numbers any more (NaN "
                    f"or infinite); lower the learning_rate: it is {args.learning_rate:g}, and a tenth of it "
                    f"({args.learning_rate / 10:g}) is a good next try"
                )

        self._look_no_more(model)
        self.hooks[model] = model.register_forward_hook(look)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Look no more."""
        self._look_no_more(model)

    def _look_no_more(self, model: Any) -> None:
        if model in self.hooks:
            self.hooks.pop(model).remove()


@contextmanager
def enough_memory(model: PreTrainedModel, *, batch_size: int, length: int, accumulation: int = 1) -> Iterator[None]:
    """Refuse a training that this machine's memory cannot hold, before it starts or when it runs out.

    `length` is the longest row in tokens, `accumulation` in how many pieces a batch is trained on; the model is where
    it will be trained. Raises BadInput with what a step would need (an estimate, see `footprint.training_memory`), what
    there is, and what to change. A system that overcommits kills a process that takes too much, and nothing can be said
    then: hence the look before.
    """
    import torch

    rows = batch_size // accumulation
    needed = footprint.training_memory(model, batch_size=rows, length=length)
    there = footprint.free_memory(model.device)
    smaller = f"batch_size {batch_size // 2}, or a smaller" if rows > 1 and accumulation == 1 else "a smaller"
    advice = f"ask for less: {smaller} max_length (the longest row has {length} tokens)"
    if needed > there:
        raise BadInput(
            f"training {rows} rows of {length} tokens at a time needs about {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} GB are free; {advice}"
        )
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as problem:
        told = isinstance(problem, (MemoryError, torch.OutOfMemoryError))
        if not told and not any(words in str(problem) for words in OUT_OF_MEMORY):
            raise
        raise BadInput(
            f"training ran out of memory with {rows} rows of up to {length} tokens at a time (about "
            f"{needed / 1e9:.1f} GB were expected, {there / 1e9:.1f} GB were free); {advice}"
        ) from problem
