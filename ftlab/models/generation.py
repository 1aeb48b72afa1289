"""Answers of a causal language model: prompts in batches, padded on the left, each ended at an end token.

A decoder goes on from the last position of a row, so padding stands on the left, and positions are counted from the
first real token (transformers does this from the attention mask). A batch then gives what one prompt at a time gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.errors import BadInput
from ftlab.models import batches, positions
from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """What a model wrote after a prompt: its text without special tokens, its tokens, and whether it came to an end.

    The token that ends it (see `end_tokens`) is counted and is no part of the text.
    """

    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Sampling:
    """How to draw the next token: from the smallest set that holds `top_p` of the probability (nucleus sampling).

    `temperature` divides the logits: below 1 the likely becomes likelier. Source: Holtzman et al., arXiv 1904.09751.
    """

    seed: int = 0
    temperature: float = 0.7
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise BadInput(f"seed is {self.seed}; expected a whole number from 0 to 2**63 - 1")
        if not (self.temperature > 0 and 0 < self.top_p <= 1):
            raise BadInput(
                f"temperature is {self.temperature} and top_p {self.top_p}; expected a temperature above 0 and a top_p "
                "above 0 and at most 1 (for the likeliest token each time, leave `sampling` out)"
            )


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    tokens: int = batches.TOKENS,
    batch_size: int | None = None,
    what: str = "answering",
) -> list[Answer]:
    """An answer to each prompt (token ids, `prompts.prompt_ids`), in their order; greedy unless `sampling` is given.

    Greedy: the likeliest token each time, so that equal models give equal answers. A batch holds at most `tokens`
    tokens, answers included, and at most `batch_size` prompts, of like length. An answer ends at the first of
    `end_tokens`. What the model's own generation config says besides, of sampling and penalties (`own_rules`), is left
    aside, so that two models are compared by the same rules. Raises BadInput for an empty prompt, and for more tokens
    than the model has positions.
    """
    require_room(model, prompts, max_new_tokens)
    if batch_size is not None and batch_size < 1:
        raise BadInput(f"batch_size is {batch_size}; expected at least 1")
    ends = end_tokens(model, tokenizer)
    config = _rules(ends, tokenizer, max_new_tokens, sampling)
    answers: dict[int, Answer] = {}
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    progress = Bar(desc=what, total=len(prompts), unit="answers")
    with _answering(model, sampling), progress as bar:
        for places in batches.by_length(lengths, tokens, rows=batch_size):
            rows = {"input_ids": [list(prompts[place]) for place in places]}
            inputs = tokenizer.pad(rows, padding_side="left", return_tensors="pt").to(model.device)
            found = model.generate(**inputs, generation_config=config)
            for place, ids in zip(places, found[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                answers[place] = _answer(ids, ends, tokenizer)
            bar.update(len(places))
    return [answers[place] for place in range(len(prompts))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> Iterator[str]:
    """The answer to one prompt in pieces, as they come; joined they are the text that `generate` gives.

    The model runs beside whoever reads, so ask it nothing else, and switch no adapter, before the last piece. Close the
    iterator to stop early. Raises BadInput as `generate` does, at once.
    """
    require_room(model, [prompt], max_new_tokens)
    ends = end_tokens(model, tokenizer)
    return _pieces(model, tokenizer, prompt, ends, _rules(ends, tokenizer, max_new_tokens, sampling), sampling)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end an answer: the tokenizer's EOS, and those of the model's own generation config.

    The first is what the lessons train. Chat models often have more ends than their tokenizer knows, and transformers
    stops at those that the generation config names (its config's, where that names none). Raises BadInput for ids that
    are no whole numbers.
    """
    own = _inside(model)
    said = getattr(own.generation_config, "eos_token_id", None)
    said = getattr(own.config, "eos_token_id", None) if said is None else said
    given = [tokenizer.eos_token_id, *(said if isinstance(said, (list, tuple)) else [said])]
    if strange := [one for one in given if one is not None and type(one) is not int]:
        raise BadInput(
            f"the model's generation config has the eos_token_id {strange[0]!r}; expected a whole number or a list of "
            "them: mend its generation_config.json"
        )
    return list(dict.fromkeys(one for one in given if one is not None and one >= 0))  # -1 means none


# What a generation config may say that changes answers, and the value that changes nothing.
_RULES: dict[str, Any] = {
    "bad_words_ids": None, "begin_suppress_tokens": None, "constraints": None, "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1, "exponential_decay_length_penalty": None,
    "force_words_ids": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "guidance_scale": 1,
    "max_time": None, "min_length": 0, "min_new_tokens": 0, "no_repeat_ngram_size": 0, "num_beams": 1,
    "penalty_alpha": None, "repetition_penalty": 1, "sequence_bias": None, "stop_strings": None,
    "suppress_tokens": None, "token_healing": None, "watermarking_config": None,
}  # fmt: skip
_DRAWING: dict[str, Any] = {
    "do_sample": None, "temperature": 1, "top_k": 0, "top_p": 1, "min_p": None, "top_h": None, "typical_p": 1,
    "epsilon_cutoff": 0, "eta_cutoff": 0,
}  # fmt: skip


def own_rules(model: PreTrainedModel) -> dict[str, Any]:
    """What the model's own generation config says that would change its answers, and that `generate` leaves aside."""
    config = _inside(model).generation_config
    named = _RULES | (_DRAWING if getattr(config, "do_sample", False) else {})
    said = {name: getattr(config, name, None) for name in named}
    return {
        name: value for name, value in said.items()
        if value is not None and value is not False and value != named[name] and value not in ([], {})
    }  # fmt: skip


def _inside(model: Any) -> Any:
    """The model inside a PEFT wrapper, which has the configs; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _pieces(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    ends: Sequence[int],
    config: GenerationConfig,
    sampling: Sampling | None,
) -> Iterator[str]:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    import torch
    from transformers import TextIteratorStreamer

    class Streamer(TextIteratorStreamer):
        """An end token need not be a special one, and is no part of the text all the same."""

        def put(self, value: torch.Tensor) -> None:
            if self.next_tokens_are_prompt or int(value.reshape(-1)[-1]) not in ends:
                super().put(value)

    streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    unread = Event()

    def enough(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(ids),), unread.is_set(), device=ids.device)

    def work() -> None:
        ids = torch.tensor([list(prompt)], device=model.device)
        try:
            with _answering(model, sampling):
                model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=streamer,
                    stopping_criteria=[enough],
                )  # fmt: skip
        except BaseException:
            streamer.on_finalized_text("", stream_end=True)  # or the reader would wait for ever
            raise

    with ThreadPoolExecutor(max_workers=1) as pool:
        working = pool.submit(work)
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            unread.set()
        working.result()


def _rules(
    ends: Sequence[int], tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, sampling: Sampling | None
) -> GenerationConfig:
    from transformers import GenerationConfig

    how = {"do_sample": False} if sampling is None else {
        "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0,
    }  # fmt: skip
    return GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=list(ends) or None, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, **how,
    )  # fmt: skip


@contextmanager
def _answering(model: PreTrainedModel, sampling: Sampling | None) -> Iterator[None]:
    """The model in evaluation mode and without a generation config of its own; afterwards it is as it was.

    Whatever a call's config leaves open, transformers fills from the model's: penalties, beams, a least length. What is
    drawn meanwhile is drawn by the seed, and leaves PyTorch's own generator alone.
    """
    import torch
    from transformers import GenerationConfig

    own = _inside(model)  # which PEFT asks for it
    config, modes = own.generation_config, [(module, module.training) for module in model.modules()]
    own.generation_config = GenerationConfig()
    model.eval()
    try:
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(0 if sampling is None else sampling.seed)
            yield
    finally:
        own.generation_config = config
        for module, mode in modes:
            module.training = mode


def _answer(ids: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    """What stands before the first end token; after it there is padding."""
    end = next((place for place, one in enumerate(ids) if one in ends), None)
    own = list(ids[:end])
    return Answer(tokenizer.decode(own, skip_special_tokens=True), len(own) + (end is not None), end is not None)


def require_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise BadInput unless the model has positions for each prompt (token ids) and `max_new_tokens` after it."""
    if max_new_tokens < 1:
        raise BadInput(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise BadInput(f"prompt {number} is empty; give the model something to go on from")
    if not len(prompts):
        raise BadInput("there are no prompts to answer; give at least one")
    most = positions.most_tokens(model)
    longest = int(np.argmax([len(prompt) for prompt in prompts]))
    if most is not None and (wanted := len(prompts[longest]) + max_new_tokens) > most:
        raise BadInput(
            f"prompt {longest} has {len(prompts[longest]):,} tokens, and with {max_new_tokens:,} new ones that makes "
            f"{wanted:,}; the model has positions for {most:,}: shorten the prompt or lower max_new_tokens"
        )
