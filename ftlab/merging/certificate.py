"""Proof that a merge kept what the adapter does.

The same texts go through the base with its adapter apart, through the merged model, and through the merged model as it
lies on the disk. All are computed in fp32, whatever they are stored in. That is exact for their weights, so what
differs is the merge: its rounding, or its mistake. In bf16 the arithmetic of 30 layers would hide either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab import files
from ftlab.adapters import lora
from ftlab.adapters.config import BASE
from ftlab.errors import BadInput, CheckFailed
from ftlab.merging import merge as merging
from ftlab.merging import plan as merge_plan
from ftlab.merging.merge import Merged
from ftlab.models import loading, loading_report
from ftlab.models.logits import logits_of_rows, mean_loss

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# What rounding the merged weights to a dtype may do. Measured with random factors of several sizes on two-layer GPT-2,
# Phi and Llama models and on SmolLM2 (30 layers), LoRA and DoRA. A right merge was off by at most 9e-7 (fp32), 3.4e-3
# (fp16) and 9.5e-3 (bf16) of the largest logit, and one that was wrong in the two-layer models by 2.8e-2 and more. A
# small adapter can be wrong and stay below that in a deep model; there the second bound holds: of what the adapter
# does, a right merge kept all but 0.04 %, 8 % and 11 %, and one with a layer left out lost 30 %. In bf16 the smallest
# adapter lost 51 % by rounding alone: then the merge is right, and still not what was trained.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}  # of the largest logit
LOST = {"float32": 1e-2, "float16": 0.1, "bfloat16": 0.25}  # of the adapter's effect, in root mean squares
ARITHMETIC = 1e-5  # of the largest logit: below it fp32 differs by itself, whatever the effect (at most 3e-6 measured)
CARD, RECORD = "README.md", "certificate.json"


@dataclass(frozen=True)
class Agreement:
    """How far a model is from the one with its adapter apart, over all positions of all prompts.

    `difference` is the largest one of a logit, `share` the same over the adapter model's largest logit; `lost` is the
    root mean square of the differences over that of the adapter's own effect (None where that is not known); `kl` the
    mean Kullback-Leibler divergence of the next-token distributions in nats; `same_next` the share of positions with
    the same likeliest next token; `loss` the model's own loss of a token of the prompts, in nats.
    """

    model: str
    difference: float
    share: float
    lost: float | None
    kl: float
    same_next: float
    loss: float


@dataclass(frozen=True)
class Certificate:
    """What was measured for the merged model and the reloaded one, beside the adapter apart (its `loss`).

    `dtype` is what the merged model is stored in. `effect` says how far the adapter moves the base's logits, over the
    largest logit; it is None where the adapter cannot be turned off. `notes` are what else one should know, in
    sentences.
    """

    dtype: str
    prompts: int
    positions: int
    loss: float
    effect: float | None
    merged: Agreement
    reloaded: Agreement
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether both models are within what rounding to the dtype explains. A NaN is not."""
        return not self.failures()

    def failures(self) -> list[str]:
        """What is beyond the tolerance, each in words."""
        told = []
        for one in (self.merged, self.reloaded):
            if not one.share <= TOLERANCE[self.dtype]:  # so that a NaN fails
                told.append(
                    f"the model {one.model} has a logit that is off by {one.share:.2g} of the largest one (rounding to "
                    f"{self.dtype} explains {TOLERANCE[self.dtype]:g})"
                )
            elif one.lost is not None and one.share > ARITHMETIC and not one.lost <= LOST[self.dtype]:
                told.append(
                    f"the model {one.model} is off by {one.lost:.1%} of what the adapter does (rounding to "
                    f"{self.dtype} explains {LOST[self.dtype]:.0%})"
                )
        return told

    def table(self) -> pd.DataFrame:
        """A line for the adapter apart, the merged model, and the merged model loaded again."""
        apart = Agreement("adapter apart", 0.0, 0.0, None if self.effect is None else 0.0, 0.0, 1.0, self.loss)
        frame = pd.DataFrame([asdict(one) for one in (apart, self.merged, self.reloaded)]).set_index("model")
        return frame.rename(columns={
            "difference": "largest logit difference", "share": "of the largest logit",
            "lost": "of the adapter's effect", "kl": "mean KL (nats)", "same_next": "equal next tokens",
            "loss": "held-out loss",
        })  # fmt: skip

    def markdown(self) -> str:
        """A section for a model card."""
        table = self.table()
        lines = ["| " + " | ".join(["", *table.columns]) + " |", "|---" * (1 + len(table.columns)) + "|"]
        for name, line in table.iterrows():
            *small, equal, loss = line
            shown = [*("" if pd.isna(value) else f"{value:.2g}" for value in small), f"{equal:.2%}", f"{loss:.4f}"]
            lines.append(f"| {name} | {' | '.join(shown)} |")
        verdict = "Passed" if self.ok else f"FAILED: {'; '.join(self.failures())}"
        effect = "" if self.effect is None else f" The adapter itself moves a logit by up to {self.effect:.2g} of it."
        return "\n".join([
            "## Merge certificate", "",
            f"{verdict}. The same {self.prompts:,} texts ({self.positions:,} positions) went through the base with its "
            f"adapter apart, through the merged model, stored in {self.dtype}, and through that model loaded again, "
            f"all computed in float32. Tolerated is a difference of {TOLERANCE[self.dtype]:g} of the largest logit, "
            f"and of {LOST[self.dtype]:.0%} of the adapter's effect (root mean square).{effect}", "", *lines, "",
            *(line for note in self.notes for line in (note, "")),
        ])  # fmt: skip

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        limits = {"tolerance": TOLERANCE[self.dtype], "tolerance_lost": LOST[self.dtype]}
        return {"ok": self.ok, "failures": self.failures(), **limits, **asdict(self)}


def certificate(
    adapter_model: Any,
    merged_model: Any,
    reloaded_model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
) -> Certificate:
    """Hold a merged model, and the same loaded again from disk, against the base with its adapter apart.

    `prompts` are texts that the adapter was not trained on; they run one at a time. Raises BadInput for no prompts, one
    of less than two tokens or more than the model's positions, and for models that share their weights.
    """
    own = {tensor.data_ptr() for tensor in adapter_model.parameters() if tensor.numel()}
    if any(tensor.data_ptr() in own for model in (merged_model, reloaded_model) for tensor in model.parameters()):
        raise BadInput(
            "the adapter's model and the merged one are the same in memory, since `merge_and_unload` merges in place; "
            "load the base and the adapter once more to compare with"
        )
    apart = _Apart(adapter_model, encode(tokenizer, prompts, adapter_model.config))
    merged, reloaded = apart.hold("merged", merged_model), apart.hold("merged, loaded again", reloaded_model)
    return apart.certificate(merged, reloaded, str(reloaded_model.dtype).removeprefix("torch."))


def merge_with_certificate(base: Path, adapter: Path, out: Path, prompts: Sequence[str]) -> Certificate:
    """Merge a causal language model as `merging.merge` does, and keep the result only if its certificate is good.

    The adapter on its base, PEFT's own merge of the two in memory, and the merged files answer in turn, so that memory
    is that of one model in fp32. `out` gets certificate.json and README.md, a model card. Raises BadInput as `merge`
    and `certificate` do, and CheckFailed above the tolerance; nothing is left at `out` then.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    base, adapter = Path(base).expanduser().resolve(), Path(adapter).expanduser().resolve()
    tokenizer = loading.tokenizer(str(base))  # absolute, and so a folder, whatever its name
    config = loading.config(str(base))
    if not str((config.architectures or [""])[0]).endswith(("ForCausalLM", "LMHeadModel")):
        raise BadInput(f"{base} is no causal language model ({config.architectures}); merge it with `merging.merge`")
    rows = encode(tokenizer, prompts, config)
    with merging.begun(base, adapter, out) as (folder, merged):
        options = {"dtype": merged.dtype}
        model: Any = loading.load(AutoModelForCausalLM, str(base), config=config, **options)
        model = lora.attach(model, lora.require_fit(model, adapter, str(base)))
        apart = _Apart(model, rows)
        in_memory = apart.hold("merged", model.merge_and_unload())
        del model
        config = AutoConfig.from_pretrained(folder / merging.UNFINISHED)
        again, report = AutoModelForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, **options, **loading_report.REPORTED
        )
        loading_report.require_whole(again, report, "the merged model")
        reloaded = apart.hold("merged, loaded again", again)
        found = replace(apart.certificate(in_memory, reloaded, merged.dtype), notes=_notes(merged, base, tokenizer))
        if not found.ok:
            raise CheckFailed(
                f"the merge of {adapter} into {base} does not do what the adapter does: {found.failures()[0]}; nothing "
                "was kept: merge into the base in float32, or use the adapter apart"
            )
        hashes = {"base": loading.weights_sha256(base), "adapter": files.sha256(adapter / merge_plan.WEIGHTS)}
        files.write_json(folder / RECORD, {**found.record(), "sha256": hashes})
        (folder / CARD).write_text(_card(base, adapter, merged, found, hashes), encoding="utf-8")
    return found


def _notes(merged: Merged, base: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """What the numbers of a certificate do not say of a merge."""
    notes = []
    if not merged.recorded:
        notes.append(
            f"The adapter's folder has no {BASE}, so nothing but its shapes says that it was trained on this base; "
            "`--record-base` writes that down."
        )
    if merged.vocabulary is not None:
        whose = "the one that lies beside the adapter"
        if merged.tokenizer == base:
            whose = (
                f"the base's, of {len(tokenizer):,} tokens, since none lies beside the adapter: if tokens were added "
                "in training, copy that tokenizer into the merged model's folder"
            )
        notes.append(
            f"The vocabulary has {merged.vocabulary:,} rows, another number than the base's: the adapter brought its "
            f"own embeddings. The tokenizer is {whose}."
        )
    return tuple(notes)


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], config: Any) -> list[list[int]]:
    """The token ids of each prompt. Raises BadInput for none, for a prompt too short to predict, and one too long."""
    if isinstance(prompts, str) or not len(prompts):
        raise BadInput("a certificate needs texts to measure on; give a list of at least one")
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    most = getattr(config, "max_position_embeddings", None)
    for number, row in enumerate(rows):
        if len(row) < 2:
            raise BadInput(
                f"prompt {number} is empty or a single token, which leaves nothing to predict; give more text"
            )
        if most is not None and len(row) > most:
            raise BadInput(
                f"prompt {number} has {len(row):,} tokens, and the model has positions for {most:,}; shorten it"
            )
    return rows


class _Apart:
    """The answers of the base with its adapter apart, kept to hold other models against."""

    def __init__(self, model: Any, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows
        self.logits = list(logits_of_rows(model, rows))
        self.largest = max(float(logits.abs().max()) for logits in self.logits)
        for logits in self.logits:
            lora.require_answers(logits, "with the adapter apart")
        self.loss = mean_loss(self.logits, rows)
        self.effect, self.effect_square = None, None
        if _can_be_turned_off(model):
            with model.disable_adapter():
                self.effect, self.effect_square = self._distance(list(logits_of_rows(model, rows)))

    def hold(self, name: str, model: Any) -> Agreement:
        """How far another model is from this one."""
        import torch

        others = list(logits_of_rows(model, self.rows))
        difference, square = self._distance(others)
        lost = None
        if self.effect_square is not None:
            lost = (square / self.effect_square) ** 0.5 if self.effect_square else (float("inf") if square else 0.0)
        divergence, equal, positions = 0.0, 0, 0
        for own, other in zip(self.logits, others, strict=True):
            expected, given = own.double().log_softmax(-1), other.double().log_softmax(-1)
            divergence += float(torch.nn.functional.kl_div(given, expected, log_target=True, reduction="sum"))
            equal += int((own.argmax(-1) == other.argmax(-1)).sum())
            positions += len(own)
        loss = mean_loss(others, self.rows)
        return Agreement(
            name, difference, difference / self.largest, lost, divergence / positions, equal / positions, loss
        )

    def certificate(self, merged: Agreement, reloaded: Agreement, dtype: str) -> Certificate:
        """The certificate of two models that were held against this one."""
        if dtype not in TOLERANCE:
            raise BadInput(f"the merged model is stored in {dtype}; expected one of {', '.join(TOLERANCE)}")
        effect = None if self.effect is None else self.effect / self.largest
        positions = sum(map(len, self.rows))
        return Certificate(dtype, len(self.rows), positions, self.loss, effect, merged, reloaded)

    def _distance(self, others: Sequence[torch.Tensor]) -> tuple[float, float]:
        """The largest difference of a logit, and the sum of the squares of all."""
        gaps = [other - own for own, other in zip(self.logits, others, strict=True)]
        # A NaN is larger than all: max() of Python would lose it.
        largest = max((float(gap.abs().max()) for gap in gaps), key=lambda gap: (gap != gap, gap))
        return largest, sum(float(gap.double().square().sum()) for gap in gaps)


def _can_be_turned_off(model: Any) -> bool:
    """Whether PEFT can give the base back: not where it trained the base's own biases."""
    configs = getattr(model, "peft_config", {}).values()
    return hasattr(model, "disable_adapter") and all(getattr(one, "bias", "none") == "none" for one in configs)


def _card(base: Path, adapter: Path, merged: Merged, found: Certificate, hashes: dict[str, str]) -> str:
    """The model card; of folders it tells the name and not the path, which names a person."""
    from huggingface_hub import ModelCardData

    title = f"{base.name} with {adapter.name} merged in"
    metadata = ModelCardData(
        base_model=base.name, library_name="transformers", pipeline_tag="text-generation", model_name=title
    )
    changed = len(merged.merged) + len(merged.replaced)
    return "\n".join([
        "---", metadata.to_yaml().strip(), "---", f"# {title}", "",
        f"The weights of `{base.name}` with the LoRA adapter `{adapter.name}` added to them, in {merged.dtype}: "
        f"{changed} of {merged.tensors} tensors differ from the base's. It loads and runs without PEFT.", "",
        "| | SHA-256 |", "|---|---|", *(f"| {name} weights | `{value}` |" for name, value in hashes.items()), "",
        found.markdown(),
    ])  # fmt: skip
