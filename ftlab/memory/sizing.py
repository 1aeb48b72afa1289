"""How many GPUs, how much memory and how many hours a training takes, on paper: up to 70B parameters and 1T tokens.

The bytes come from `footprint.estimate`, which counts two shallow models of the same shape; a deeper one is longer by
the difference. The hours come from a rule for the FLOPs of a token and a share of the GPU's peak. Nothing here is
measured. Every assumption is a constant of this module, with its source, or an argument of `plan`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput
from ftlab.memory import footprint
from ftlab.wording import quoted

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Gpu:
    """A GPU in nodes of `GPUS_PER_NODE`: the figures of its data sheet, in units without prefixes."""

    name: str
    memory: float  # bytes
    flops: float  # per second, dense bf16; those of H100 and H200 print twice that, which is for sparse matrices
    nvlink: float  # bytes per second of one GPU to others of its node, in one direction; data sheets add both
    network: float  # bytes per second of a whole node to other nodes, in one direction
    source: str


GPUS_PER_NODE = 8
# Networks of the DGX systems: eight ports of 200 Gb/s with A100, of 400 Gb/s with H100 and H200. A ring over several
# nodes enters and leaves each node by all ports at once, so the rate of the whole node counts.
GPUS = {
    "a100": Gpu("A100 80 GB SXM", 80e9, 312e12, 300e9, 200e9, "https://www.nvidia.com/en-us/data-center/a100/"),
    "h100": Gpu("H100 80 GB SXM", 80e9, 989e12, 450e9, 400e9, "https://www.nvidia.com/en-us/data-center/h100/"),
    "h200": Gpu("H200 141 GB SXM", 141e9, 989e12, 450e9, 400e9, "https://www.nvidia.com/en-us/data-center/h200/"),
}
# Shapes of Llama 2 (Touvron et al. 2023), whose configs are not part of the package.
LLAMA_2 = {
    "llama-2-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "llama-2-13b": {
        "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
    },
    "llama-2-70b": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}  # fmt: skip
SHARDINGS = ("none", "fsdp")
# FLOPs for each token and parameter: 2 forward, 2 backward for the gradients of activations, 2 for those of weights
# (Kaplan et al., Scaling Laws for Neural Language Models, 2020, section 2.1). Frozen weights do without the last 2;
# the gradients of activations must still pass through them, to reach the adapters below.
FLOPS_PER_PARAMETER = {"full": 6, "lora": 4, "qlora": 4}
# Model FLOPs utilisation: the share of the GPU's peak that becomes useful FLOPs (Chowdhery et al., PaLM, 2022, appendix
# B). Their table 3 has 21 % for GPT-3, 30 to 33 % for MT-NLG and Gopher, 46 % for PaLM.
MFU, MFU_RANGE = 0.4, (0.2, 0.5)
LINK_SHARE = 0.7  # of a link's peak that a collective reaches; an assumption
# Mixed precision with AdamW: besides weights and gradients in bf16, for each trained weight an fp32 copy, mean and
# variance (Rajbhandari et al., ZeRO, 2020, section 3.1: 12 bytes).
MASTER_AND_MOMENTS = 12
USABLE = 0.9  # share of the GPU's memory that a plan may use; the rest is for the allocator's gaps and NCCL's buffers
TEXT_BYTES_PER_TOKEN = 4  # of English; an assumption, and more for text unlike what the tokenizer was trained on
# Bytes of text a node can read and tokenize a second, with all its cores ("less than 20 seconds to tokenize a GB of
# text on a server's CPU", README of Hugging Face tokenizers).
TEXT_RATE = 50e6
TOKENS_PER_PARAMETER = 20  # of training from scratch that is compute-optimal (Hoffmann et al. 2022, table 3)
DEPTHS = (1, 2)  # of the models that are counted
MOST_GPUS = 16_384  # where `fewest_gpus` stops


@dataclass(frozen=True)
class Plan:
    """A training on paper. Bytes are those of one GPU, seconds those of one step."""

    model: str
    method: str
    sharding: str
    gpu: Gpu
    gpus: int
    tokens: float  # of the whole training
    parameters: int
    trainable: int
    weights: float
    gradients: float
    optimizer: float
    gathered: float  # FSDP: the layers that are whole at a time, and their gradients; DDP: the gradients, to be sent
    activations: float
    logits: float
    runtime: float
    tokens_per_step: int  # over all GPUs
    compute_seconds: float
    communication_seconds: float
    data_seconds: float
    id_bytes: float  # of the tokenized training text on disk

    @property
    def total(self) -> float:
        """Bytes of one GPU: the sum of the parts, which is an upper bound, because they do not peak together."""
        return (
            self.weights + self.gradients + self.optimizer + self.gathered
            + self.activations + self.logits + self.runtime
        )  # fmt: skip

    @property
    def fits(self) -> bool:
        """Whether the total is at most the usable share of the GPU's memory."""
        return self.total <= USABLE * self.gpu.memory

    @property
    def step_seconds(self) -> float:
        """Seconds of a step: the slowest of its three streams, because computing, sending and reading overlap."""
        return max(self.compute_seconds, self.communication_seconds, self.data_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second, over all GPUs."""
        return self.tokens_per_step / self.step_seconds

    @property
    def hours(self) -> float:
        """Hours of the whole training, if it fits."""
        return self.tokens / self.tokens_per_second / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs: what is paid for."""
        return self.hours * self.gpus

    @property
    def text_bytes(self) -> float:
        """Bytes of the training text on disk."""
        return TEXT_BYTES_PER_TOKEN * self.tokens

    @property
    def text_per_second(self) -> float:
        """Bytes of text that all GPUs together consume a second."""
        return TEXT_BYTES_PER_TOKEN * self.tokens_per_second

    @property
    def bottleneck(self) -> str:
        """What limits the training: "memory" if it does not fit, else "compute", "interconnect" or "data"."""
        if not self.fits:
            return "memory"
        seconds = {
            "compute": self.compute_seconds, "interconnect": self.communication_seconds, "data": self.data_seconds,
        }  # fmt: skip
        return max(seconds, key=lambda stream: seconds[stream])


@dataclass(frozen=True)
class _Settings:
    """What a plan assumes beside its model, GPUs and tokens; as in `plan`."""

    method: str
    sharding: str
    batch_size: int
    length: int
    checkpointing: bool
    mfu: float
    link_share: float
    text_rate: float


@dataclass(frozen=True)
class _Counted:
    """Counts of a whole model, of one of its layers, and of what is outside the layers; bytes of a bf16 training."""

    name: str
    depth: int
    vocabulary: int
    layer: footprint.Footprint
    outside: footprint.Footprint
    layer_input: int  # bytes: all that activation checkpointing keeps of a layer

    def whole(self, part: str) -> int:
        """Return the field `part` of a footprint for all layers."""
        return int(getattr(self.outside, part) + self.depth * getattr(self.layer, part))

    def activations(self, checkpointing: bool) -> int:
        """Return the bytes of activations. With checkpointing one layer at a time is run again, and then whole."""
        if not checkpointing:
            return self.whole("activations")
        return self.outside.activations + self.depth * self.layer_input + self.layer.activations


def plan(
    model: str | PreTrainedConfig,
    tokens: float,
    gpu: str | Gpu = "h100",
    gpus: int = 1,
    *,
    method: str = "full",
    sharding: str = "fsdp",
    batch_size: int = 1,
    length: int = 2048,
    checkpointing: bool = True,
    mfu: float = MFU,
    link_share: float = LINK_SHARE,
    text_rate: float = TEXT_RATE,
) -> Plan:
    """Plan a training on paper: memory of each GPU, hours, and what limits them. It takes seconds and no weights.

    Full fine-tuning is in mixed precision with AdamW: bf16 weights and gradients, and fp32 copies and moments. LoRA
    has a bf16 base and fp32 adapters of rank 16 on queries and values; with QLoRA the base is in NF4.

    Sharding divides weights, gradients and optimizer state by the number of GPUs, and no activations: each GPU has its
    own rows. Two layers are gathered at a time, one in use and one on its way, and what is outside the layers stays.
    Each step gathers the weights twice and scatters the gradients once: 3 times the bytes of the weights with full
    fine-tuning. Without sharding each GPU has everything, and gradients are summed at 2 times their bytes (Rajbhandari
    et al., ZeRO, 2020, sections 5 and 7). On more than one node the slower of NVLink and network counts.

    Args:
        model: a name of `LLAMA_2`, or what `footprint.estimate` takes; a model whose layers are all of one kind.
        tokens: of the whole training: rows, times tokens of a row, times epochs.
        gpu: a name of GPUS, or a Gpu (`dataclasses.replace(GPUS["h100"], network=12.5e9)` has a slower network).
        gpus: number, at most 8 or whole nodes of 8.
        method: one of `footprint.METHODS`.
        sharding: "none" (DDP) or "fsdp" (full sharding, which is ZeRO stage 3).
        batch_size: rows of each GPU in a step.
        length: tokens of each row.
        checkpointing: keep only the inputs of the layers, and run each layer again in the backward pass. MFU does not
            count the second run, so it lowers the MFU that can be reached.
        mfu: model FLOPs utilisation, a share of the peak.
        link_share: share of a link's peak rate that is reached.
        text_rate: bytes of text that a node reads and tokenizes a second. Rows tokenized before need less.

    Returns:
        The plan, also if it does not fit.

    Raises:
        BadInput: a name is unknown, a number is out of range, or the GPUs are not whole nodes.
    """
    settings = _Settings(method, sharding, batch_size, length, checkpointing, mfu, link_share, text_rate)
    chosen = _gpu(gpu)
    _check(settings, tokens)
    _check_gpus(gpus)
    return _planned(_counted(model, settings), tokens, chosen, gpus, settings)


def fewest_gpus(
    model: str | PreTrainedConfig,
    tokens: float,
    gpu: str | Gpu = "h100",
    *,
    hours: float | None = None,
    method: str = "full",
    sharding: str = "fsdp",
    batch_size: int = 1,
    length: int = 2048,
    checkpointing: bool = True,
    mfu: float = MFU,
    link_share: float = LINK_SHARE,
    text_rate: float = TEXT_RATE,
) -> Plan:
    """Return the plan with the fewest GPUs that holds the training: 1, 2, 4, or whole nodes of 8.

    Args:
        hours: within which it must end; None for no limit.
        model, tokens, gpu, method, sharding, batch_size, length, checkpointing, mfu, link_share, text_rate: as in
            `plan`.

    Raises:
        BadInput: as in `plan`, or no number of GPUs up to `MOST_GPUS` is enough.
    """
    settings = _Settings(method, sharding, batch_size, length, checkpointing, mfu, link_share, text_rate)
    chosen = _gpu(gpu)
    _check(settings, tokens)
    if hours is not None:
        _check_positive("hours", hours, "give the hours that the training may take, or None for no limit")
    counted = _counted(model, settings)
    for gpus in (1, 2, 4, *range(GPUS_PER_NODE, MOST_GPUS + 1, GPUS_PER_NODE)):
        found = _planned(counted, tokens, chosen, gpus, settings)
        if found.fits and (hours is None or found.hours <= hours):
            return found
    limit = "" if hours is None else f" and ends within {hours:g} hours"
    raise BadInput(
        f"no number of {chosen.name} up to {MOST_GPUS:,} holds {method} training of {counted.name} with sharding "
        f"{sharding!r}{limit}; expected one that does: shard with 'fsdp', use LoRA, shorter rows, or more time"
    )


def training_flops(parameters: float, tokens: float, method: str = "full") -> float:
    """Return the FLOPs of a training: 6 for each parameter and token, or 4 if the base is frozen.

    Attention over the length of a row is not counted. It adds little while rows are short against 12 times the width
    (Kaplan et al. 2020, section 2.1), which holds for large models.

    >>> training_flops(100, 10), training_flops(100, 10, "lora")
    (6000, 4000)
    """
    _one_of("method", method, tuple(FLOPS_PER_PARAMETER))
    return FLOPS_PER_PARAMETER[method] * parameters * tokens


def compute_optimal_tokens(parameters: float) -> float:
    """Return how many tokens to train a model on from scratch for the lowest loss at a given compute.

    About 20 for each parameter (Hoffmann et al., Training Compute-Optimal Large Language Models, 2022). Fine-tuning
    starts from a trained model, and needs far fewer: hundreds to thousands of rows.

    >>> compute_optimal_tokens(70e9)
    1400000000000.0
    """
    return TOKENS_PER_PARAMETER * parameters


def _planned(counted: _Counted, tokens: float, gpu: Gpu, gpus: int, settings: _Settings) -> Plan:
    shards = gpus if settings.sharding == "fsdp" else 1
    weights, gradients, trainable = (counted.whole(part) for part in ("weights", "gradients", "trainable"))
    parameters = counted.whole("parameters")
    optimizer = MASTER_AND_MOMENTS * trainable if settings.method == "full" else counted.whole("optimizer")
    layer, outside = counted.layer, counted.outside
    gathered = outside.weights + 2 * layer.weights + max(layer.gradients, outside.gradients) if shards > 1 else 0
    if settings.sharding == "none" and gpus > 1:
        gathered = gradients  # DDP sends them from a second copy, its buckets
    tokens_per_step = gpus * settings.batch_size * settings.length
    sent = (2 * weights + gradients if settings.sharding == "fsdp" else 2 * gradients) * (gpus - 1) / gpus
    link = gpu.nvlink if gpus <= GPUS_PER_NODE else min(gpu.nvlink, gpu.network)
    nodes = math.ceil(gpus / GPUS_PER_NODE)
    flops = training_flops(parameters, tokens_per_step, settings.method)
    return Plan(
        model=counted.name, method=settings.method, sharding=settings.sharding, gpu=gpu, gpus=gpus, tokens=tokens,
        parameters=parameters, trainable=trainable,
        weights=weights / shards, gradients=gradients / shards, optimizer=optimizer / shards,
        gathered=min(gathered, weights + gradients), activations=counted.activations(settings.checkpointing),
        logits=outside.logits, runtime=footprint.LIBRARIES["cuda"],
        tokens_per_step=tokens_per_step,
        compute_seconds=flops / (gpus * gpu.flops * settings.mfu),
        communication_seconds=sent / (link * settings.link_share),
        data_seconds=TEXT_BYTES_PER_TOKEN * tokens_per_step / (settings.text_rate * nodes),
        id_bytes=tokens * (2 if counted.vocabulary <= 2**16 else 4),
    )  # fmt: skip


def _counted(model: str | PreTrainedConfig, settings: _Settings) -> _Counted:
    """Count two shallow models: their difference is a layer, and what remains is outside the layers."""
    config = _config(model)
    _require_one_kind_of_layer(config)
    shallow = []
    for layers in DEPTHS:
        cut = copy.deepcopy(config)
        cut.num_hidden_layers = layers
        counts = footprint.estimate(
            cut, method=settings.method, batch_size=settings.batch_size, length=settings.length, dtype="bfloat16",
            device="cuda",
        )  # fmt: skip
        shallow.append(vars(counts))
    one, two = shallow
    layer = {part: two[part] - one[part] for part in one}
    return _Counted(
        name=model if isinstance(model, str) else config.model_type,
        depth=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        layer=footprint.Footprint(**layer),
        outside=footprint.Footprint(**{part: one[part] - layer[part] for part in one}),
        layer_input=2 * settings.batch_size * settings.length * config.hidden_size,  # bf16
    )


def _require_one_kind_of_layer(config: Any) -> None:
    """Raise BadInput for a mixture of experts: a token passes some of its weights alone, and layers may differ."""
    text = config.get_text_config()
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if (count := getattr(text, name, None)) and count > 1:
            raise BadInput(
                f"a {config.model_type} model is a mixture of {count} experts ({name}), which is not planned here; "
                "expected a model whose layers are all of one kind: count one step with `footprint.estimate`"
            )


def _config(model: str | PreTrainedConfig) -> Any:
    """The config of `model`: a shape of Llama 2, or as `meta_models.config_of` finds it."""
    from ftlab.memory import meta_models
    from ftlab.models import loading

    if isinstance(model, str) and model in LLAMA_2:
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=32000, max_position_embeddings=4096, tie_word_embeddings=False, **LLAMA_2[model]
        )  # fmt: skip
    names = [*meta_models.shipped(), *LLAMA_2]
    if isinstance(model, str) and model not in (*names, *loading.MODELS) and not Path(model).expanduser().is_dir():
        raise BadInput(
            f"there is no model {quoted(model)}; expected one of {', '.join(names)}, or a folder with a config.json: "
            "give one of these, or the config itself"
        )
    return meta_models.config_of(model)


def _gpu(gpu: str | Gpu) -> Gpu:
    if isinstance(gpu, Gpu):
        return gpu
    if not (isinstance(gpu, str) and gpu in GPUS):
        raise BadInput(
            f"there is no GPU {quoted(gpu)}; expected one of {', '.join(GPUS)}: give one of these, or a Gpu with the "
            "figures of its data sheet"
        )
    return GPUS[gpu]


def _check(settings: _Settings, tokens: float) -> None:
    _one_of("method", settings.method, footprint.METHODS)
    _one_of("sharding", settings.sharding, SHARDINGS)
    _check_positive("tokens", tokens, "give rows times tokens of a row times epochs")
    _check_positive("text_rate", settings.text_rate, "give the bytes of text that a node tokenizes a second")
    for what, share in (("mfu", settings.mfu), ("link_share", settings.link_share)):
        if not (_is_number(share) and 0 < share <= 1):
            raise BadInput(
                f"{what} is {quoted(share)}; expected a share of the peak, more than 0 and at most 1: give 0.4 for 40 %"
            )


def _check_positive(what: str, value: float, todo: str) -> None:
    if not (_is_number(value) and math.isfinite(value) and value > 0):
        raise BadInput(f"{what} is {quoted(value)}; expected a number above 0: {todo}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_gpus(gpus: int) -> None:
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 1:
        raise BadInput(f"gpus is {quoted(gpus)}; expected a whole number, 1 or more: give the number of GPUs")
    if gpus > GPUS_PER_NODE and gpus % GPUS_PER_NODE:
        more = math.ceil(gpus / GPUS_PER_NODE) * GPUS_PER_NODE
        raise BadInput(
            f"{gpus} GPUs are not whole nodes; expected at most {GPUS_PER_NODE}, or a multiple of {GPUS_PER_NODE}: "
            f"plan with {more - GPUS_PER_NODE} or {more}"
        )


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadInput(
            f"there is no {what} {quoted(value)}; expected one of {', '.join(known)}: give one of these as `{what}`"
        )


# The tables of the page on sizing.

SHOWN = {
    "smollm2": "SmolLM2 135M",
    "microsoft/phi-2": "phi-2, 2.8B",
    "mistral-7b": "Mistral 7B",
    "llama-2-13b": "Llama 2 13B",
    "llama-2-70b": "Llama 2 70B",
}
METHOD_NAMES = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}
A_DAY, A_MONTH = 24, 30 * 24  # hours


def memory_table() -> pd.DataFrame:
    """Return what each model and method takes on one GPU, in GB by part, and the fewest GPUs that hold it, sharded."""
    import pandas as pd

    lines = []
    for model, name in SHOWN.items():
        for method in footprint.METHODS:
            alone = plan(model, 1, method=method)
            lines.append(
                {
                    "model": name, "method": METHOD_NAMES[method], "weights": _gb(alone.weights),
                    "gradients": _gb(alone.gradients), "optimizer": _gb(alone.optimizer),
                    "activations, logits": _gb(alone.activations + alone.logits), "all on one GPU": _gb(alone.total),
                }
                | {
                    f"GPUs of {size}": str(fewest_gpus(model, 1, gpu, method=method).gpus)
                    for size, gpu in (("80 GB", "h100"), ("141 GB", "h200"))
                }
            )  # fmt: skip
    return pd.DataFrame(lines)


def hours_table() -> pd.DataFrame:
    """Return the fewest H100 that end within a day (fine-tuning) or a month (from scratch), and what they take."""
    import pandas as pd

    lines = []
    for model, name in SHOWN.items():
        parameters = plan(model, 1).parameters
        for method, tokens, within in (
            ("lora", 10e6, A_DAY), ("full", 100e6, A_DAY), ("full", compute_optimal_tokens(parameters), A_MONTH),
            ("full", 1e12, A_MONTH),
        ):  # fmt: skip
            found = fewest_gpus(model, tokens, "h100", hours=within, method=method)
            slow, fast = (plan(model, tokens, "h100", found.gpus, method=method, mfu=mfu).hours for mfu in MFU_RANGE)
            on_a100 = fewest_gpus(model, tokens, "a100", method=method)
            lines.append(
                {
                    "model": name, "method": METHOD_NAMES[method], "tokens": _large(tokens, "B"),
                    "H100s": f"{found.gpus:,}", "GB each": _gb(found.total), "hours": _number(found.hours),
                    "at 50 to 20 % MFU": f"{_number(fast)} to {_number(slow)}",
                    "H100 hours": _number(found.gpu_hours), "A100 hours": _number(on_a100.gpu_hours),
                    "text": f"{_large(found.text_bytes, 'G')}B", "bottleneck": found.bottleneck,
                }
            )  # fmt: skip
    return pd.DataFrame(lines)


def bottleneck_table() -> pd.DataFrame:
    """Return plans that differ from one another in one setting, and what limits each."""
    import pandas as pd

    return pd.DataFrame(
        {
            "training": training, "GPUs": f"{found.gpus} H100", "sharding": found.sharding,
            "GB each": _gb(found.total), "ms of compute": _number(1e3 * found.compute_seconds),
            "of interconnect": _number(1e3 * found.communication_seconds), "of data": _number(1e3 * found.data_seconds),
            "bottleneck": found.bottleneck,
        }
        for training, found in _scenarios()
    )  # fmt: skip


def _scenarios() -> Iterator[tuple[str, Plan]]:
    """Plans for the table of bottlenecks, each with what is special about it."""
    big, small, tokens = "llama-2-70b", "smollm2", 1e9
    slow = replace(GPUS["h100"], network=12.5e9)
    yield "70B, full, rows of 2,048 tokens", plan(big, tokens, gpus=8, sharding="none")
    yield "the same, sharded", plan(big, tokens, gpus=8)
    yield "the same, on four nodes", plan(big, tokens, gpus=32)
    yield "the same, rows of 512 tokens", plan(big, tokens, gpus=32, length=512)
    yield "rows of 2,048 tokens, 100 Gb/s a node", plan(big, tokens, slow, 32)
    yield "the same, QLoRA, not sharded", plan(big, tokens, slow, 32, method="qlora", sharding="none")
    yield "135M, full, rows of 2,048 tokens", plan(small, tokens, gpus=8, sharding="none")
    yield "the same, text tokenized at 1 MB/s", plan(small, tokens, gpus=8, sharding="none", text_rate=1e6)


def _gb(size: float) -> str:
    return _number(size / 1e9)


def _number(value: float) -> str:
    """Return two or three digits, which is all that a plan is good for: "< 0.1", 0.4, 3.1, 57, 567, 1,230."""
    if value < 0.1:
        return "0" if value == 0 else "< 0.1"
    return f"{value:.1f}" if value < 9.95 else f"{float(f'{value:.3g}'):,.0f}"


def _large(value: float, billion: str) -> str:
    """A number from a million on, in millions, billions (whose sign is `billion`) or trillions: 10 M, 1.4 T."""
    for size, sign in ((1e12, "T"), (1e9, billion)):
        if value >= size:
            return f"{value / size:.3g} {sign}"
    return f"{value / 1e6:.3g} M"
