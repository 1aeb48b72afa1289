"""How llama.cpp reads texts and chats with a GGUF file, where it stops, and what it answers, beside the folder."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.data import chat, special_tokens
from ftlab.data import prompts as formats
from ftlab.errors import BadInput
from ftlab.models import generation
from ftlab.models.logits import logits_of_rows
from ftlab.serving import export_facts, export_tensors
from ftlab.serving.gguf_files import Content
from ftlab.serving.llama_cpp import Engine, Written
from ftlab.wording import one_line, quoted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# llama.cpp rounds what it multiplies a matrix with to the matrix's type. Its error may be NOISES times what that moves
# the folder's model (the noise), and FLOOR nats. Measured on two-layer models with small and large weights and on
# SmolLM2 (30 layers), in f32, f16, bf16 and q8_0: right exports had at most 1.8 times the noise; wrong ones (another
# activation, base or scaling of the positions, a permuted query) 5.4 times and more.
NOISES, FLOOR = 3, 1e-3
LIKELIEST = 5  # tokens at each position of an answer whose log-probabilities are compared, if they are near the first:
NEAR = math.log(100)  # rounding moves the log-probability of an unlikely token by far more, and changes nothing
# llama.cpp's threads wait for each other busily: where other programs run too, one a core is many times slower.
THREADS = max(1, (os.cpu_count() or 2) // 2)
MOST_SPECIAL = 16  # special tokens of which llama.cpp is asked whether it stops there; some models have 256
AFTER = 6  # tokens that llama.cpp writes after a long text
ROOM = 8  # tokens of a context besides a prompt and its answer
# Texts that tokenizers like to read differently. Each must have the same ids in llama.cpp.
TEXTS = (
    "def add(a, b):\n    return a + b\n", "I'M SURE it's OK!!! ...he'd said: \"no???\"", "a     b\t\t\tc\n\n\n\nd \n e",
    "  two spaces before, and after  ", "\n\na blank line\r\nand tabs\t\there",
    "In 2024, 1234567 people paid $3.50; it's 100% true, isn't it?", "na\u00efve caf\u00e9",
    "\u6771\u4eac, \u041c\u043e\u0441\u043a\u0432\u0430", "\U0001f642 \U0001f469\u200d\U0001f52c",
)  # fmt: skip
# An accent as a character of its own. Some tokenizers join it to its letter, and llama.cpp does not: a note.
DECOMPOSED = "cafe\u0301"


@dataclass(frozen=True)
class Answered:
    """What llama.cpp did, set beside the folder's model.

    `texts` were read, `same_texts` of them with the same ids. Of the `answers`, greedy ones, `same_answers` are those
    of the folder's model token by token, and `ties`, with what follows a long text, differ from
    its answers with rounded weights first where two tokens are as good as equal.
    `same_next` is the share of their `positions` with the same likeliest token. `difference` is the largest difference
    of a log-probability in nats, over the likeliest tokens of each position.

    `error` is what rounding the weights does not explain: the difference (root mean square) from the folder's model
    with its weights rounded as the file's are, of the answers or of what follows a long text, whichever is larger.
    `noise` is what is left to explain it: how far that model moves where it also rounds what its matrices are
    multiplied with, as llama.cpp does. Both are None where the weights could not be rounded.
    """

    texts: int
    same_texts: int
    answers: int
    same_answers: int
    ties: int
    positions: int
    same_next: float
    difference: float
    error: float | None = None
    noise: float | None = None


@dataclass
class Spoken:
    """What llama.cpp answered and how it read texts, with the faults and notes that need no model to be told."""

    answers: list[Written]
    after_long: list[Written]
    texts: int
    same_texts: int
    faults: list[str]
    notes: list[str]
    stops: dict[int, bool]

    @classmethod
    def by_llama_cpp(
        cls, content: Content, tokenizer: PreTrainedTokenizerBase, config: Any, ends: Sequence[int],
        texts: Sequence[str], asked: Sequence[Sequence[int]], long: Sequence[int], max_new_tokens: int,
    ) -> Spoken:  # fmt: skip
        """Ask llama.cpp, with attention in float32, as the folder's model computes it; `long` is a long text."""
        found = cls([], [], 0, 0, [], [], {})
        named = generation.end_tokens_of_folder(Path(config.name_or_path), tokenizer)
        longest = max(max(map(len, asked)) + max_new_tokens, len(long) + AFTER) + ROOM
        longest = min(longest, getattr(config.get_text_config(), "max_position_embeddings", None) or longest)
        try:
            with Engine(content.facts.path, slots=len(asked), context=longest, threads=THREADS, exact=True) as engine:
                found.answers = engine.write(asked, max_new_tokens=max_new_tokens, likeliest=LIKELIEST)
                found.after_long = engine.write([long], max_new_tokens=AFTER, likeliest=LIKELIEST)
                found.read_texts(engine, tokenizer, [*texts, *(one.text for one in found.answers if one.text.strip())])
                if found.same_texts == found.texts:
                    found.read_odd_texts(engine, tokenizer)
                if content.facts.chat_template:
                    found.read_chats(engine, tokenizer)
                ids = sorted(special_tokens.tokens(tokenizer).values())[:MOST_SPECIAL]
                found.stops = {one: _stops_at(engine, one) for one in {*ids, *ends, *named}}
        except BadInput as problem:
            found.faults.append(one_line(problem))
        return found

    def read_texts(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        """Compare the ids of `texts`; the first that differ are a fault."""
        for text in texts:
            own, other = formats.prompt_ids(text, tokenizer), engine.token_ids(text)
            self.texts += 1
            self.same_texts += own == other
            if own != other and self.same_texts == self.texts - 1:
                self.faults.append(
                    f"llama.cpp reads {quoted(text)} as {_tail(other, own)}, and the folder's tokenizer as "
                    f"{_tail(own, other)}"
                )

    def read_odd_texts(self, engine: Engine, tokenizer: PreTrainedTokenizerBase) -> None:
        """Note how llama.cpp itself reads some texts in another way, whatever the file."""
        if formats.prompt_ids(DECOMPOSED, tokenizer) != engine.token_ids(DECOMPOSED):
            self.notes.append(
                "llama.cpp reads accents that are characters of their own (decomposed Unicode) in another way than the "
                "folder's tokenizer; compose them first (NFC)."
            )
        special = next(iter(special_tokens.tokens(tokenizer)), None)
        if special is not None:
            text = f"What does {special} mean?"
            if formats.prompt_ids(text, tokenizer) != engine.token_ids(text, special=True):
                self.notes.append(
                    f"llama.cpp's server reads a special token in a person's text ({quoted(special)}) as the token "
                    "itself; ftlab reads it as text."
                )

    def read_chats(self, engine: Engine, tokenizer: PreTrainedTokenizerBase) -> None:
        """Compare the ids of conversations in the folder's chat template; the first that differ are a fault."""
        template = export_facts.template(tokenizer)
        if template is None:
            return
        format = chat.Chat(tokenizer, templates=template)
        for probe in export_facts.PROBES:
            if export_facts.rendered(tokenizer, template, probe) is None:
                continue  # refused by the template, as llama.cpp refuses it
            own = format.ids([dict(one) for one in probe], asked=True)
            self.texts += 1
            other = engine.chat_ids(probe)
            self.same_texts += own == other
            if own != other:
                self.faults.append(
                    f"llama.cpp reads the chat {quoted(probe[-1]['content'])} as {_tail(other, own)}, and the folder's "
                    f"tokenizer as {_tail(own, other)}"
                )
                return

    def judge_ends(self, own: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
        """Compare where llama.cpp stops with the folder's `ends`; those of the trained format are `own`."""
        if not self.stops:
            return
        for end in ends:
            if self.stops.get(end):
                continue
            if end in own:
                self.faults.append(
                    f"llama.cpp does not stop at {_token(tokenizer, end)}, which ends the folder's answers"
                )
            else:
                self.notes.append(
                    f"llama.cpp does not stop at {_token(tokenizer, end)}, at which the folder's generation_config "
                    "stops too; give that text as `stop`."
                )
        if more := [_token(tokenizer, one) for one, stops in sorted(self.stops.items()) if stops and one not in ends]:
            self.notes.append(f"llama.cpp also stops at {', '.join(more)}.")

    def measure(self, model: Any, asked: Sequence[Sequence[int]]) -> Answered:
        """Return how far the answers to `asked` are from those of the folder's `model`.

        The model reads each answer after its prompt. It would have written the same greedily if each token is its own
        likeliest one at that position.
        """
        same, equal, gaps = 0, 0, [0.0]
        read = _read(model, asked, self.answers)
        for own, answer in zip(read, self.answers, strict=True):
            likeliest = own.argmax(-1).tolist()
            equal += sum(one == other for one, other in zip(likeliest, answer.ids, strict=True))
            gaps += _gaps(own, answer)
            same += _first_other(own, answer) is None
        difference = max(gaps, key=lambda gap: (gap != gap, gap))  # NaN counts as the maximum
        positions = sum(map(len, read))
        return Answered(
            self.texts, self.same_texts, len(self.answers), same, 0, positions, equal / positions, difference
        )

    def judge(
        self, model: Any, kinds: Mapping[str, str], asked: Sequence[Sequence[int]], long: Sequence[int],
        ends: Sequence[int], tokenizer: PreTrainedTokenizerBase,
    ) -> dict[str, Any]:  # fmt: skip
        """Compare with the folder's `model` after its weights were rounded to `kinds`; add what is wrong to the faults.

        Returns the `error`, the `noise` and the `ties` of `Answered`.
        """
        read = _read(model, asked, self.answers)
        with export_tensors.rounded_inputs(model, kinds):
            noisy = _read(model, asked, self.answers)
        moved = [gap for own, other, answer in zip(read, noisy, self.answers, strict=True)
                 for gap in _gaps(own, answer, other)]  # fmt: skip
        ties, tie = 0, 2 * max(NOISES * max(moved, default=0.0), FLOOR)
        after = _read(model, [long], self.after_long)
        errors = [_root_mean_square([gap for own, answer in zip(*pair, strict=True) for gap in _gaps(own, answer)])
                  for pair in ((read, self.answers), (after, self.after_long))]  # fmt: skip
        for own, answer in zip([*read, *after], [*self.answers, *self.after_long], strict=True):
            first = _first_other(own, answer)
            ended = next((place for place, one in enumerate(answer.ids) if one in ends), None)
            if first is not None and (gap := _behind(own, answer, first)) <= tie:
                ties += 1
            elif first is not None:
                self.faults.append(
                    f"llama.cpp answers {_token(tokenizer, answer.ids[first])} where the model answers "
                    f"{_token(tokenizer, int(own[first].argmax()))}, which is {gap:.2g} nats likelier"
                )
            if ended is not None and ended < len(answer.ids) - 1 and (first is None or ended < first):
                self.faults.append(
                    f"llama.cpp goes on after {_token(tokenizer, answer.ids[ended])}, at which the model's answers end"
                )
        error = max(errors, key=lambda error: (error != error, error))  # NaN counts as the maximum
        return {"error": error, "noise": _root_mean_square(moved), "ties": ties}


def _read(model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Written]) -> list[torch.Tensor]:
    """Return the log-probabilities by `model` at each position of each answer: (tokens, vocabulary)."""
    rows = [[*prompt, *answer.ids] for prompt, answer in zip(prompts, answers, strict=True)]
    logits = logits_of_rows(model, rows)
    return [one[len(prompt) - 1 : -1].double().log_softmax(-1) for prompt, one in zip(prompts, logits, strict=True)]


def _gaps(own: torch.Tensor, answer: Written, other: torch.Tensor | None = None) -> list[float]:
    """Return how far the log-probabilities of likely tokens in `own` are from the answer's, or from `other`."""
    gaps = []
    for place, near in enumerate(answer.log_probabilities):
        floor = float(own[place].max()) - NEAR
        for number, value in near.items():
            one, two = float(own[place, number]), value if other is None else float(other[place, number])
            if not (one <= floor and two <= floor):  # a NaN is kept
                gaps.append(abs(one - two))
    return gaps


def _root_mean_square(gaps: Sequence[float]) -> float:
    return math.sqrt(sum(gap * gap for gap in gaps) / len(gaps)) if gaps else 0.0


def _first_other(own: torch.Tensor, answer: Written) -> int | None:
    """Return the first place at which `own` has another likeliest token than the answer."""
    return next((place for place, one in enumerate(own.argmax(-1).tolist()) if one != answer.ids[place]), None)


def _behind(own: torch.Tensor, answer: Written, place: int) -> float:
    """Return by how many nats the answer's token at `place` is less likely in `own` than the likeliest."""
    return float(own[place].max() - own[place, answer.ids[place]])


def _stops_at(engine: Engine, number: int) -> bool:
    """Return whether llama.cpp ends an answer at the token `number`: that token is made the only possible one."""
    request = {"prompt": [number], "n_predict": 2, "logit_bias": [[number, 1e6]], "temperature": 0.0}
    return engine.request("/completion", request).get("stop_type") == "eos"


def _token(tokenizer: PreTrainedTokenizerBase, number: int) -> str:
    return f"{quoted(tokenizer.decode([number]))} ({number})"


def _tail(ids: Sequence[int], other: Sequence[int]) -> str:
    """Return the first few of `ids` from where they differ from `other`."""
    pairs = zip(ids, other, strict=False)  # one may be the longer
    same = next((place for place, (one, two) in enumerate(pairs) if one != two), min(len(ids), len(other)))
    return f"[{', '.join(map(str, ids[same : same + 4]))}] from token {same} on"
