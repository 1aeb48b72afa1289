"""Certify an export: does the GGUF file answer as the folder that it was made from?

Four readings are set beside the folder. The head of the file: tokens, special ids, chat template, sizes
(`export_facts`). Each tensor: equal within the rounding of its type (`export_tensors`). The logits of transformers' own
GGUF loader. And llama.cpp itself: how it reads texts and chats, and what it answers, token by token.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.data import alpaca_chat, chat
from ftlab.data import prompts as formats
from ftlab.internals import gguf as loader_internals
from ftlab.internals import transformers as transformers_internals
from ftlab.merging.certificate import encode
from ftlab.models import generation, loading, shards
from ftlab.models.logits import logits_of_rows, mean_loss
from ftlab.serving import export_facts, export_tensors, extra, gguf_files
from ftlab.serving.export_answers import AFTER, FLOOR, NOISES, ROOM, TEXTS, Answered, Spoken
from ftlab.serving.export_tensors import Tensors
from ftlab.serving.gguf_files import Content
from ftlab.wording import one_line

if TYPE_CHECKING:
    import torch

# The largest difference of a logit between the file, as transformers loads it, and the folder's model with its weights
# rounded to the same types, as a share of the largest logit: the order of a sum explains no more.
LOGITS = 1e-3
# A long text has this many tokens, and SPAN more than the window of the model's attention, up to MOST in all.
LONG, SPAN, MOST = 128, 64, 1088

QUESTIONS = (
    "What is a list in Python?", "Write a function that returns the larger of two numbers.",
    "Explain in one sentence why the sky is blue.", "Translate \"Guten Morgen\" into English.",
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """The logits of the file as transformers loads it, set beside the folder's.

    `difference`, `share`, `kl`, `same_next` and `loss` are as in `merging.certificate.Agreement`. `error` is the share
    that rounding the folder's weights does not explain; None where they could not be rounded as the file's are.
    """

    difference: float
    share: float
    kl: float
    same_next: float
    loss: float
    error: float | None = None


@dataclass(frozen=True)
class ExportCertificate:
    """The measurements of a GGUF file beside the folder of its model.

    `type` is how the file's weights are stored, `bytes` its size and `model_bytes` that of the folder's weights. `loss`
    is the folder's mean loss of a token of the prompts, in nats. A reading that was not possible is None, and one of
    the `notes` or `faults` says why. `faults` are differences that no rounding explains, in sentences.
    """

    type: str
    bytes: int
    model_bytes: int
    prompts: int
    positions: int
    loss: float | None = None
    tensors: Tensors | None = None
    loaded: Loaded | None = None
    answered: Answered | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def quantised(self) -> bool:
        """Whether the weights are rounded in blocks: such a file is measured, and never passes."""
        return self.type not in gguf_files.FLOATS

    @property
    def ok(self) -> bool | None:
        """Whether the file does what the folder's model does; None if it is quantised and has no fault."""
        if self.failures():
            return False
        return None if self.quantised else True

    @property
    def verdict(self) -> str:
        """The verdict: "passed", "failed", or "measured" for a quantised file without a fault."""
        return {True: "passed", False: "failed", None: "measured"}[self.ok]

    def failures(self) -> list[str]:
        """Return a sentence for each fault, and for each difference that rounding to the type does not explain."""
        told = list(self.faults)
        if self.loaded and self.loaded.error is not None and not self.loaded.error <= LOGITS:  # a NaN fails too
            told.append(
                f"transformers reads a logit from the file that is off by {self.loaded.error:.2g} of the largest one, "
                f"besides the rounding to {self.type} (allowed: {LOGITS:g})"
            )
        if self.answered and self.answered.error is not None and not self.answered.error <= (self._allowed or 0):
            told.append(
                f"llama.cpp gives tokens log-probabilities that are off by {self.answered.error:.2g} nats, and "
                f"rounding to {self.type} explains {self._allowed:.2g}"
            )
        return told

    @property
    def _allowed(self) -> float | None:
        """The largest error of llama.cpp's log-probabilities, in nats."""
        if self.answered is None or self.answered.noise is None:
            return None
        return NOISES * self.answered.noise + FLOOR

    def line(self) -> str:
        """Return the certificate in one line."""
        if failures := self.failures():
            return f"{self.type}: FAILED: {failures[0]}"
        parts = [f"{self.bytes / 1e6:,.0f} MB"]
        if self.tensors:
            parts.append(f"{self.tensors.compared} tensors equal" if not self.quantised else
                         f"{self.tensors.compared} tensors rounded")  # fmt: skip
        if self.loaded:
            parts.append(f"logits within {self.loaded.share:.1e} of the largest")
        if self.answered:
            one = self.answered
            parts.append(f"{one.same_answers} of {one.answers} answers by llama.cpp the same")
        return f"{self.type}: {self.verdict}: {', '.join(parts)}"

    def table(self) -> pd.DataFrame:
        """Return a row for each reading of the model: the folder, transformers' loader, and llama.cpp."""
        rows: dict[str, dict[str, Any]] = {"folder": {"held-out loss": self.loss}}
        if self.loaded:
            rows["file by transformers"] = {
                "held-out loss": self.loaded.loss, "largest logit difference": self.loaded.difference,
                "of the largest logit": self.loaded.share, "mean KL (nats)": self.loaded.kl,
                "equal next tokens": self.loaded.same_next,
            }  # fmt: skip
        if self.answered:
            rows["file by llama.cpp"] = {
                "log-probability difference (nats)": self.answered.difference,
                "equal next tokens": self.answered.same_next,
                "equal answers": f"{self.answered.same_answers} of {self.answered.answers}",
                "equal token ids": f"{self.answered.same_texts} of {self.answered.texts}",
            }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")

    def markdown(self) -> str:
        """Return the section of a model card about this certificate."""
        table = self.table()
        lines = ["| " + " | ".join(["", *table.columns]) + " |", "|---" * (1 + len(table.columns)) + "|"]
        for name, line in table.iterrows():
            shown = [value if isinstance(value, str) else "" if pd.isna(value) else f"{value:.4g}" for value in line]
            lines.append(f"| {name} | {' | '.join(shown)} |")
        verdict = f"FAILED: {'; '.join(self.failures())}" if self.ok is False else self.verdict.capitalize()
        return "\n".join([
            "## Export certificate", "",
            f"{verdict}. The file ({self.type}, {self.bytes:,} bytes) was compared with the folder that it was made "
            f"from, on {self.prompts:,} texts ({self.positions:,} positions), by transformers' GGUF loader and by "
            f"llama.cpp, greedily.{self._cost()}", "", *lines, "",
            *(line for note in self.notes for line in (note, "")),
        ])  # fmt: skip

    def _cost(self) -> str:
        """Return a sentence about what a quantised type costs."""
        if not self.quantised:
            return ""
        told = [f" {self.type} rounds the weights, so it is measured, and does not pass: the file is "
                f"{self.bytes / max(self.model_bytes, 1):.0%} of the folder's weights"]  # fmt: skip
        if self.loaded and self.loss is not None:
            told.append(f"the held-out loss changes by {self.loaded.loss - self.loss:+.4f} nats")
            told.append(f"{self.loaded.same_next:.1%} of the next tokens stay the same")
        if self.answered:
            told.append(f"{self.answered.answers - self.answered.same_answers} of {self.answered.answers} answers "
                        "change")  # fmt: skip
        return ", ".join(told) + "."

    def record(self) -> dict[str, Any]:
        """Return all measurements and limits, for JSON."""
        limits = {"tolerance_logits": LOGITS, "tolerance_nats": self._allowed}
        return {"ok": self.ok, "verdict": self.verdict, "failures": self.failures(), **limits, **asdict(self)}


def certify(
    file: Path,
    model: Path,
    prompts: Sequence[str],
    *,
    questions: Sequence[str] = QUESTIONS,
    max_new_tokens: int = 24,
) -> ExportCertificate:
    """Compare the GGUF file `file` with the folder `model` that it was made from.

    llama.cpp, the folder's model, and the file as transformers loads it run one after the other, so memory holds one
    model in fp32 at a time.

    Args:
        file: a GGUF file of a whole model.
        model: the folder of a causal language model in safetensors, with its tokenizer.
        prompts: texts that the model was not trained on, for logits and loss.
        questions: what both are asked, in the format of the folder (`alpaca_chat.trained_format`).
        max_new_tokens: the longest answer.

    Returns:
        The certificate, passed or not.

    Raises:
        BadInput: llama.cpp is missing (the extra `serve`), the file is no whole GGUF model (`gguf_files.read`), the
            folder is no whole model, or the prompts do not suit (`merging.certificate.encode`).
    """
    extra.require(extra.LLAMA_CPP)
    content = gguf_files.open_file(file)
    import torch
    from transformers import AutoModelForCausalLM

    folder = Path(model).expanduser().resolve()
    tokenizer = loading.bare_tokenizer(str(folder))
    config = loading.config(str(folder))
    rows = encode(tokenizer, prompts, config)
    checkpoint = shards.read(folder)
    found = ExportCertificate(
        content.facts.type, content.facts.bytes, sum(one.end - one.start for one in checkpoint.tensors.values()),
        len(rows), sum(map(len, rows)), faults=tuple(export_facts.faults(content, tokenizer, config)),
    )  # fmt: skip
    if content.facts.tokens != config.get_text_config().vocab_size:
        return found  # another vocabulary: no id means the same, so nothing else can be compared
    format = alpaca_chat.trained_format(folder, tokenizer)
    asked = [formats.question_ids({"instruction": one}, tokenizer, template=format) for one in questions]
    format_ends = format.known_ends if isinstance(format, chat.Chat) else formats.ends(format, tokenizer)
    long = _long_text(rows, config)
    spoken = Spoken.by_llama_cpp(
        content, tokenizer, config, format_ends, [*prompts, *TEXTS], asked, long, max_new_tokens
    )
    own = loading.load(AutoModelForCausalLM, str(folder), dtype=torch.float32)
    ends = generation.end_tokens(own, tokenizer, format_ends)
    spoken.judge_ends(format_ends or ends[:1], ends, tokenizer)
    logits = list(logits_of_rows(own, rows))
    found = replace(found, loss=mean_loss(logits, rows))
    answered = spoken.measure(own, asked) if spoken.answers else None
    kinds = export_tensors.kinds(own, content)
    rounded: list[torch.Tensor] | None = None
    if set(kinds.values()) <= set(export_tensors.ROUND):
        export_tensors.round_weights(own, kinds)
        rounded = logits if set(kinds.values()) == {"f32"} else list(logits_of_rows(own, rows))
        if answered:
            answered = replace(answered, **spoken.judge(own, kinds, asked, long, ends, tokenizer))
    else:
        spoken.notes.append(
            f"Weights of {found.type} cannot be rounded here, so what llama.cpp answers is measured, and not judged."
        )
    found = replace(found, answered=answered, notes=found.notes + tuple(spoken.notes))
    tied = transformers_internals.tied_weights(own)
    del own
    found = _by_transformers(found, content, folder, config, tied, rows, logits, rounded)
    return replace(found, faults=found.faults + tuple(spoken.faults))  # last: a tensor says more than an answer


def _long_text(rows: Sequence[Sequence[int]], config: Any) -> list[int]:
    """Return the tokens of the prompts, again and again: more than the window of the attention, where that is short."""
    window = export_facts.window(config) or 0
    wanted = max(LONG, window + SPAN if window + SPAN <= MOST else 0)
    most = getattr(config.get_text_config(), "max_position_embeddings", None) or wanted + AFTER + ROOM
    return list(islice(cycle(chain(*rows)), max(1, min(wanted, most - AFTER - ROOM))))


def _by_transformers(
    found: ExportCertificate, content: Content, folder: Path, config: Any, tied: Mapping[str, str],
    rows: Sequence[Sequence[int]], logits: Sequence[torch.Tensor], rounded: Sequence[torch.Tensor] | None,
) -> ExportCertificate:  # fmt: skip
    """Return `found` with the tensors and the logits of the file as transformers' own loader reads them."""
    import torch
    from transformers import AutoModelForCausalLM

    # With the folder's config first: the loader does not read all of it from the file (GPT-2's number of positions, a
    # scaling of positions). `export_facts` and llama.cpp judge what the file itself says. A Mistral is a Llama there,
    # and is read with the file's own config.
    options: list[dict[str, Any]] = [{"config": copy.deepcopy(config)}, {}]
    model, notes = None, []
    for option in options:
        try:
            path = content.facts.path
            with transformers_internals.LOADING:
                model = loader_internals.load(AutoModelForCausalLM, path, content.reader, dtype=torch.float32, **option)
            break
        except Exception as problem:  # the loader knows fewer models than the converter
            reason = one_line(problem)
    if model is None:
        notes.append(f"transformers' GGUF loader cannot read this file ({reason}), so there are no logits of it.")
        return _by_names(replace(found, notes=found.notes + tuple(notes)), content, folder, config)
    names = loader_internals.tensor_names(model, content.reader)
    tensors, faults = export_tensors.compare(folder, export_tensors.of_loaded(model, names, content, tied), tied)
    found = replace(found, tensors=tensors, faults=found.faults + tuple(faults), notes=found.notes + tuple(notes))
    others = list(logits_of_rows(model, rows))
    error = None if rounded is None else _apart(rounded, others)[1]
    return replace(found, loaded=replace(_compared(logits, others, rows), error=error))


def _by_names(found: ExportCertificate, content: Content, folder: Path, config: Any) -> ExportCertificate:
    """Return `found` with the tensors of a file that transformers' loader does not know, by the names of `gguf`."""
    if content.facts.architecture not in export_tensors.UNCHANGED:
        return replace(
            found, notes=(*found.notes, "Its tensors were not compared one by one; llama.cpp's answers were.")
        )
    names = list(shards.read(folder).tensors)
    read = export_tensors.of_file(content, names, config.get_text_config().num_hidden_layers)
    tensors, faults = export_tensors.compare(folder, read, {})
    return replace(found, tensors=tensors, faults=found.faults + tuple(faults))


def _compared(logits: Sequence[torch.Tensor], others: Sequence[torch.Tensor], rows: Sequence[Sequence[int]]) -> Loaded:
    """Return how far the logits `others` are from `logits`, over all positions of all `rows`."""
    import torch

    difference, share = _apart(logits, others)
    divergence, equal = 0.0, 0
    for own, other in zip(logits, others, strict=True):
        expected, given = own.double().log_softmax(-1), other.double().log_softmax(-1)
        divergence += float(torch.nn.functional.kl_div(given, expected, log_target=True, reduction="sum"))
        equal += int((own.argmax(-1) == other.argmax(-1)).sum())
    positions = sum(map(len, rows))
    return Loaded(difference, share, divergence / positions, equal / positions, mean_loss(others, rows))


def _apart(logits: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> tuple[float, float]:
    """Return the largest difference between two models' logits, and that as a share of the largest of `logits`."""
    largest = max(float(own.abs().max()) for own in logits)
    gaps = [float((other - own).abs().max()) for own, other in zip(logits, others, strict=True)]
    difference = max(gaps, key=lambda gap: (gap != gap, gap))  # NaN counts as the maximum; `max()` would ignore it
    return difference, difference / largest
