"""Certify a merge: compare the merged model's logits with those of the base with its unmerged adapter.

The same texts go through the base with its adapter, the merged model in memory, and the merged model loaded from disk.
All compute in fp32, whatever dtype they are stored in. This is exact for their weights, so a difference comes from the
merge: from rounding, or from a mistake. In bf16 the rounding errors of 30 layers would hide both.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab import files
from ftlab.adapters import lora
from ftlab.adapters.config import BASE, WEIGHTS
from ftlab.data import chat
from ftlab.errors import BadInput, CheckFailed
from ftlab.internals import transformers as transformers_internals
from ftlab.merging import merge as merging
from ftlab.merging.merge import Merged
from ftlab.models import loading, loading_report
from ftlab.models.logits import logits_of_rows, mean_loss
from ftlab.wording import in_markdown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# Bounds of the effect of rounding merged weights to a dtype. Measured with random factors of several sizes on two-layer
# GPT-2, Phi and Llama models and on SmolLM2 (30 layers), LoRA and DoRA. A correct merge was off by at most 9e-7 (fp32),
# 3.4e-3 (fp16) and 9.5e-3 (bf16) of the largest logit, and a wrong one in the two-layer models by 2.8e-2 and more. In a
# deep model a small adapter can be merged wrongly and stay below that; the second bound is for this case. A correct
# merge lost at most 0.04 %, 8 % and 11 % of the adapter's effect, and one without one of the layers lost 30 %. In bf16
# the smallest adapter lost 51 % by rounding alone: such a merge is correct, but the result is not what was trained.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}  # of the largest logit
LOST = {"float32": 1e-2, "float16": 0.1, "bfloat16": 0.25}  # of the adapter's effect, in root mean squares
ARITHMETIC = 1e-5  # of the largest logit: smaller differences are fp32 arithmetic (at most 3e-6 measured)
CARD, RECORD = "README.md", "certificate.json"


@dataclass(frozen=True)
class Agreement:
    """The differences of a model from the one with the unmerged adapter, over all positions of all prompts.

    `difference` is the largest absolute difference of a logit, and `share` its ratio to the largest logit. `lost` is
    the root mean square of the differences, divided by that of the adapter's own effect (None if that is unknown).
    `kl` is the mean Kullback-Leibler divergence of the next-token distributions in nats, `same_next` the share of
    positions with the same most likely next token, and `loss` the model's own mean loss of a token in nats.
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
    """The measurements of the merged model and the reloaded one, and the `loss` with the unmerged adapter.

    `dtype` is that of the stored merged model. `effect` is the largest change of a logit by the adapter, divided by
    the largest logit; it is None if the adapter cannot be turned off. `notes` are further remarks, in sentences.
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
        """Whether both models are within the tolerance of rounding to the dtype. NaN is not."""
        return not self.failures()

    def failures(self) -> list[str]:
        """Return a description of each difference beyond the tolerance."""
        told = []
        for one in (self.merged, self.reloaded):
            if not one.share <= TOLERANCE[self.dtype]:  # a NaN fails too
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
        """Return a row each for the unmerged adapter, the merged model, and the merged model loaded again."""
        apart = Agreement("unmerged adapter", 0.0, 0.0, None if self.effect is None else 0.0, 0.0, 1.0, self.loss)
        frame = pd.DataFrame([asdict(one) for one in (apart, self.merged, self.reloaded)]).set_index("model")
        return frame.rename(columns={
            "difference": "largest logit difference", "share": "of the largest logit",
            "lost": "of the adapter's effect", "kl": "mean KL (nats)", "same_next": "equal next tokens",
            "loss": "held-out loss",
        })  # fmt: skip

    def markdown(self) -> str:
        """Return the section of a model card about this certificate."""
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
            f"unmerged adapter, through the merged model, stored in {self.dtype}, and through that model loaded again, "
            f"all computed in float32. Tolerated is a difference of {TOLERANCE[self.dtype]:g} of the largest logit, "
            f"and of {LOST[self.dtype]:.0%} of the adapter's effect (root mean square).{effect}", "", *lines, "",
            *(line for note in self.notes for line in (note, "")),
        ])  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Return all measurements and limits, for JSON."""
        limits = {"tolerance": TOLERANCE[self.dtype], "tolerance_lost": LOST[self.dtype]}
        return {"ok": self.ok, "failures": self.failures(), **limits, **asdict(self)}


def certificate(
    adapter_model: Any,
    merged_model: Any,
    reloaded_model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
) -> Certificate:
    """Compare a merged model, and the same loaded from disk, with the base with its unmerged adapter.

    Args:
        adapter_model: the base, wrapped with the adapter.
        merged_model: the merged model in memory.
        reloaded_model: the merged model from disk.
        tokenizer: of all three.
        prompts: texts that the adapter was not trained on; they run one at a time.

    Returns:
        The certificate, passed or not.

    Raises:
        BadInput: the prompts do not suit (see `encode`), or the models share their weights.
    """
    own = {tensor.data_ptr() for tensor in adapter_model.parameters() if tensor.numel()}
    if any(tensor.data_ptr() in own for model in (merged_model, reloaded_model) for tensor in model.parameters()):
        raise BadInput(
            "the adapter's model and the merged one share their weights, because `merge_and_unload` merges in place; "
            "load the base and the adapter again to compare with"
        )
    unmerged = _Unmerged(adapter_model, encode(tokenizer, prompts, adapter_model.config))
    merged, reloaded = (
        unmerged.compare("merged", merged_model),
        unmerged.compare("merged, loaded again", reloaded_model),
    )
    return unmerged.certificate(merged, reloaded, str(reloaded_model.dtype).removeprefix("torch."))


def merge_with_certificate(base: Path, adapter: Path, out: Path, prompts: Sequence[str]) -> Certificate:
    """Merge a causal language model as `merge` does, and keep the result only if its certificate passes.

    The adapter on its base, PEFT's own merge of the two in memory, and the merged files run one after the other, so
    memory holds one model in fp32 at a time.

    Args:
        base, adapter: folders, as for `merge`.
        out: a new folder. It also gets certificate.json and README.md, a model card.
        prompts: as for `certificate`.

    Returns:
        The certificate, which has passed.

    Raises:
        BadInput: as `merge` and `certificate`; or the base is not a causal language model.
        CheckFailed: the certificate does not pass; nothing is left at `out`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    base, adapter = Path(base).expanduser().resolve(), Path(adapter).expanduser().resolve()
    tokenizer = loading.tokenizer(str(base))  # an absolute path is a folder, whatever its name
    config = loading.config(str(base))
    if not str((config.architectures or [""])[0]).endswith(("ForCausalLM", "LMHeadModel")):
        raise BadInput(
            f"{base} is not a causal language model ({config.architectures}); merge it with `ftlab.merging.merge.merge`"
        )
    rows = encode(tokenizer, prompts, config)
    with merging.staged(base, adapter, out) as (folder, merged):
        if merged.tokenizer is not None:
            tokenizer = lora.tokenizer(merged.tokenizer, str(base))
            rows = encode(tokenizer, prompts, config)
        options = {"dtype": merged.dtype}
        model: Any = loading.load(AutoModelForCausalLM, str(base), config=config, **options)
        model = lora.attach(model, lora.require_fit(model, adapter, str(base)))
        unmerged = _Unmerged(model, rows)
        in_memory = unmerged.compare("merged", model.merge_and_unload())
        del model
        config = AutoConfig.from_pretrained(folder / merging.UNFINISHED)
        with transformers_internals.LOADING:
            again, report = AutoModelForCausalLM.from_pretrained(
                folder, config=config, use_safetensors=True, **options, **loading_report.REPORTED
            )
        loading_report.require_whole(again, report, "the merged model")
        reloaded = unmerged.compare("merged, loaded again", again)
        del again
        gc.collect()  # its tensors are maps of the files; Windows renames no folder whose files are mapped
        found = replace(unmerged.certificate(in_memory, reloaded, merged.dtype), notes=_notes(merged, base, tokenizer))
        if not found.ok:
            raise CheckFailed(
                f"the merge of {adapter} into {base} does not do what the adapter does: {found.failures()[0]}; nothing "
                "was kept: merge into the base in float32, or use the unmerged adapter"
            )
        hashes = {"base": loading.weights_sha256(base), "adapter": files.sha256(adapter / WEIGHTS)}
        files.write_json(folder / RECORD, {**found.record(), "sha256": hashes})
        (folder / CARD).write_text(_card(base, adapter, merged, found, hashes), encoding="utf-8")
    return found


def _notes(merged: Merged, base: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return remarks on a merge that the numbers of its certificate do not show."""
    notes = []
    if not merged.recorded:
        notes.append(
            f"The adapter's folder has no {BASE}, so nothing but its shapes says that it was trained on this base; "
            "`--record-base` writes that down."
        )
    if merged.chat_template:
        notes.append("The chat template is the adapter's: the format in which it was trained.")
    elif chat.of_folder(merged.tokenizer or base):
        notes.append(
            "The chat template is not the adapter's, whose folder has none: if the adapter was trained in another "
            "format, ask in that one, and not with `--chat`."
        )
    if merged.vocabulary is not None:
        whose = "the one that lies beside the adapter"
        if merged.tokenizer is None:
            whose = (
                f"the base's, of {len(tokenizer):,} tokens, since none lies beside the adapter: if tokens were added "
                "in training, copy that tokenizer into the merged model's folder"
            )
        notes.append(
            f"The vocabulary has {merged.vocabulary:,} rows, another number than the base's: the adapter brought its "
            f"own embeddings. The tokenizer is {whose}."
        )
    elif merged.tokenizer is not None:
        notes.append(
            "The tokenizer is the one that lies beside the adapter, because it has other tokens, or another BOS or "
            "EOS, than the base's."
        )
    return tuple(notes)


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], config: Any) -> list[list[int]]:
    """Return the token ids of each of the `prompts` by `tokenizer`.

    Raises BadInput without prompts, and for one of less than two tokens or of more than the positions in `config`.
    """
    if isinstance(prompts, str) or not len(prompts):
        raise BadInput("a certificate needs texts to measure on; give a list of at least one")
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    most = getattr(config, "max_position_embeddings", None)
    for number, row in enumerate(rows):
        if len(row) < 2:
            raise BadInput(
                f"prompt {number} is empty or a single token, so there is no token to predict; give more text"
            )
        if most is not None and len(row) > most:
            raise BadInput(
                f"prompt {number} has {len(row):,} tokens, and the model has positions for {most:,}; shorten it"
            )
    return rows


class _Unmerged:
    """The logits of the base with its unmerged adapter, to compare other models with."""

    def __init__(self, model: Any, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows
        self.logits = list(logits_of_rows(model, rows))
        self.largest = max(float(logits.abs().max()) for logits in self.logits)
        for logits in self.logits:
            lora.require_answers(logits, "with the unmerged adapter")
        self.loss = mean_loss(self.logits, rows)
        self.effect, self.effect_square = None, None
        if _can_be_turned_off(model):
            with model.disable_adapter():
                self.effect, self.effect_square = self._distance(list(logits_of_rows(model, rows)))

    def compare(self, name: str, model: Any) -> Agreement:
        """Return the differences of the model `name` from this one."""
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
        """Return the certificate of two models that were compared with this one."""
        if dtype not in TOLERANCE:
            raise BadInput(f"the merged model is stored in {dtype}; expected one of {', '.join(TOLERANCE)}")
        effect = None if self.effect is None else self.effect / self.largest
        positions = sum(map(len, self.rows))
        return Certificate(dtype, len(self.rows), positions, self.loss, effect, merged, reloaded)

    def _distance(self, others: Sequence[torch.Tensor]) -> tuple[float, float]:
        """Return the largest difference of a logit, and the sum of the squares of all."""
        gaps = [other - own for own, other in zip(self.logits, others, strict=True)]
        # NaN counts as the maximum; `max()` would ignore it.
        largest = max((float(gap.abs().max()) for gap in gaps), key=lambda gap: (gap != gap, gap))
        return largest, sum(float(gap.double().square().sum()) for gap in gaps)


def _can_be_turned_off(model: Any) -> bool:
    """Return whether PEFT can turn the adapter off: not if it trained the base's own biases."""
    configs = getattr(model, "peft_config", {}).values()
    return hasattr(model, "disable_adapter") and all(getattr(one, "bias", "none") == "none" for one in configs)


def _card(base: Path, adapter: Path, merged: Merged, found: Certificate, hashes: dict[str, str]) -> str:
    """Return the model card. It names folders without their paths, which may contain a person's name."""
    from huggingface_hub import ModelCardData

    title = f"{base.name} with {adapter.name} merged in"
    metadata = ModelCardData(
        base_model=base.name, library_name="transformers", pipeline_tag="text-generation", model_name=title
    )
    changed = len(merged.merged) + len(merged.replaced)
    return "\n".join([
        "---", metadata.to_yaml().strip(), "---", f"# {in_markdown(title)}", "",
        f"The weights of `{in_markdown(base.name)}` with the LoRA adapter `{in_markdown(adapter.name)}` added to them, "
        f"in {merged.dtype}: {changed} of {merged.tensors} tensors differ from the base's. It loads and runs without "
        "PEFT.", "",
        "| | SHA-256 |", "|---|---|", *(f"| {name} weights | `{value}` |" for name, value in hashes.items()), "",
        found.markdown(),
    ])  # fmt: skip
