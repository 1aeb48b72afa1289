"""Text generation with a causal language model: prompts in batches, padded on the left, stopped at an end token.

A decoder continues from the last position of a row, so padding is on the left. Positions are counted from the first
real token (transformers does this from the attention mask). A batch then has the same answers as one prompt at a time.
A model for which that is not so, because it ignores the attention mask (XLM) or mixes rows (RWKV), gets no batches.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unicodedata import category
from weakref import WeakKeyDictionary

import numpy as np

from ftlab.errors import BadInput
from ftlab.models import batches, loading, positions
from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_batches_are_safe: MutableMapping[Any, bool] = WeakKeyDictionary()  # by model; see `_batches_of`


@dataclass(frozen=True)
class Answer:
    """The text that a model wrote after a prompt, without special tokens; its number of tokens; whether it ended.

    The end token (see `end_tokens`) is counted, and is not part of the text.
    """

    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Sampling:
    """Nucleus sampling: draw the next token from the smallest set of tokens that has `top_p` of the probability.

    `temperature` divides the logits: below 1, likely tokens become more likely. Source: Holtzman et al., arXiv
    1904.09751.
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
    ends: Sequence[int] = (),
    what: str = "answering",
) -> list[Answer]:
    """Generate an answer to each prompt, greedily unless `sampling` is given.

    Greedy decoding takes the likeliest token each time, so equal models give equal answers. An answer ends at the first
    of `end_tokens`. Sampling and penalties of the model's own generation config (`own_rules`) are ignored, so that two
    models are compared by the same rules.

    Args:
        model: a causal language model, PEFT-wrapped or not.
        tokenizer: it needs a pad token.
        prompts: token ids of each prompt (`prompts.prompt_ids`).
        max_new_tokens: the most tokens of an answer, its end token included.
        sampling: how to draw tokens; None for greedy.
        tokens: the most tokens in a batch, answers and padding included.
        batch_size: the most prompts in a batch; None for no limit.
        ends: more ids that end an answer: those of a chat format (`Chat.ends`).
        what: the name on the progress bar.

    Returns:
        One answer for each prompt, in the order of the prompts.

    Raises:
        BadInput: a prompt is empty or too long for the model (`require_room`), or batch_size is below 1.
    """
    require_room(model, prompts, max_new_tokens)
    if batch_size is not None and batch_size < 1:
        raise BadInput(f"batch_size is {batch_size}; expected at least 1")
    ends = end_tokens(model, tokenizer, ends)
    config = _rules(ends, tokenizer, max_new_tokens, sampling)
    answers: dict[int, Answer] = {}
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    progress = Bar(desc=what, total=len(prompts), unit="answers")
    with _answering(model, sampling), progress as bar:
        for places in batches.by_length(lengths, tokens, rows=batch_size):
            for batch in _batches_of(model, tokenizer, prompts, places):
                inputs = _padded(model, tokenizer, [prompts[place] for place in batch])
                found = model.generate(**inputs, generation_config=config)
                for place, ids in zip(batch, found[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                    answers[place] = _answer(ids, ends, tokenizer)
                bar.update(len(batch))
    return [answers[place] for place in range(len(prompts))]


def _padded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> Any:
    """Return the inputs of `model` for prompts (token ids), padded on the left."""
    held = {"input_ids": [list(row) for row in rows]}
    return tokenizer.pad(held, padding_side="left", return_tensors="pt").to(model.device)


def _batches_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], places: Sequence[int]
) -> list[list[int]]:
    """Return the batch `places`, or each prompt by itself if the other rows of a batch change the model's answers.

    The first batch that needs padding is a test: two steps with its shortest prompt alone and beside its longest.
    """
    long, short = prompts[places[0]], prompts[places[-1]]
    if len(places) == 1:
        return [list(places)]
    if model not in _batches_are_safe:
        # Greedy, and without an end: the test must not move the draws of the answers, and has two steps in any case.
        config = _rules([], tokenizer, 2, None)
        config.output_logits = config.return_dict_in_generate = True
        alone, batched = (
            model.generate(**_padded(model, tokenizer, rows), generation_config=config).logits[-1][-1]
            for rows in ([short], [long, short])
        )
        safe = batches.same_answer(model, alone, batched)
        if not safe or len(long) > len(short):  # without padding, nothing is known about padding
            _batches_are_safe[model] = safe
    return [list(places)] if _batches_are_safe.get(model, True) else [[place] for place in places]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    ends: Sequence[int] = (),
) -> Iterator[str]:
    """Generate the answer to one prompt piece by piece; the joined pieces are the text that `generate` returns.

    The model runs in another thread: do not use it, and do not switch adapters, before the last piece. Close the
    iterator to stop early.

    Args:
        model: a causal language model, PEFT-wrapped or not.
        tokenizer: the model's.
        prompt: token ids (`prompts.prompt_ids`).
        max_new_tokens: the most tokens of the answer, its end token included.
        sampling: how to draw tokens; None for greedy.
        ends: more ids that end an answer, as for `generate`.

    Returns:
        An iterator over pieces of text. BadInput is raised by the call, as by `generate`, and not by the iterator.
    """
    require_room(model, [prompt], max_new_tokens)
    ends = end_tokens(model, tokenizer, ends)
    return _pieces(model, tokenizer, prompt, ends, _rules(ends, tokenizer, max_new_tokens, sampling), sampling)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, more: Sequence[int] = ()) -> list[int]:
    """Return the ids that end an answer: the EOS of `tokenizer`, those of the generation config of `model`, and `more`.

    The lessons train the first, or that of a chat format. Chat models often have more end tokens than their tokenizer
    knows, and transformers stops at those of the generation config, or of the config if the generation config has none.

    Raises:
        BadInput: an id is not a whole number.
    """
    own = _inside(model)
    said = getattr(own.generation_config, "eos_token_id", None)
    said = getattr(own.config, "eos_token_id", None) if said is None else said
    given = [tokenizer.eos_token_id, *(said if isinstance(said, (list, tuple)) else [said]), *more]
    if strange := [one for one in given if one is not None and type(one) is not int]:
        raise BadInput(
            f"the model's generation config has the eos_token_id {strange[0]!r}; expected a whole number or a list of "
            "them: correct its generation_config.json"
        )
    return list(dict.fromkeys(one for one in given if one is not None and one >= 0))  # -1 means none


def end_tokens_of_folder(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of `end_tokens` for the model in `folder` and its `tokenizer`, without loading the weights.

    Raises BadInput as `end_tokens`, and for a folder without a config.
    """
    from transformers import GenerationConfig

    config = loading.config(str(folder))
    try:
        rules = GenerationConfig.from_pretrained(folder)
    except OSError:  # the folder has none
        rules = GenerationConfig.from_model_config(config)
    named: Any = SimpleNamespace(config=config, generation_config=rules)
    return end_tokens(named, tokenizer)


# Settings of a generation config that change answers, each with the value that changes nothing.
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
    """Return the settings in the generation config of `model` that change answers, and that `generate` ignores."""
    config = _inside(model).generation_config
    named = _RULES | (_DRAWING if getattr(config, "do_sample", False) else {})
    said = {name: getattr(config, name, None) for name in named}
    return {
        name: value for name, value in said.items()
        if value is not None and value is not False and value != named[name] and value not in ([], {})
    }  # fmt: skip


def _inside(model: Any) -> Any:
    """Return the model inside a PEFT wrapper, which has the configs; any other model itself."""
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
        """Yields pieces of the text of the whole answer, without its end tokens.

        The original decodes each line by itself. Some tokenizers (Llama 2's) take away a space that a text begins with,
        and so would take away one of each line. End tokens need not be special tokens, which decoding leaves out.
        """

        prompt_has_come, sent = False, 0  # characters that have been yielded

        def put(self, value: torch.Tensor) -> None:
            if self.prompt_has_come:
                self.token_cache += [one for one in value.reshape(-1).tolist() if one not in ends]
                self.send(last=False)
            self.prompt_has_come = True

        def end(self) -> None:
            self.send(last=True)

        def send(self, *, last: bool) -> None:
            text = tokenizer.decode(self.token_cache, skip_special_tokens=True)
            # The next token may change the last word and the space before it, but not a letter of a script without
            # cases, such as Chinese, which may have no spaces.
            whole = last or category(text[-1:] or " ") == "Lo"
            until = len(text) if whole else max(text.rfind(" "), text.rfind("\n"))
            if until > self.sent or last:
                self.on_finalized_text(text[self.sent : until], stream_end=last)
                self.sent = until

    streamer = Streamer(tokenizer)
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
            streamer.on_finalized_text("", stream_end=True)  # otherwise the reader would wait forever
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
    """Put the model into evaluation mode and take its generation config away; restore both afterwards.

    transformers fills what a call's config leaves open from the model's config: penalties, beams, a minimum length.
    Draws inside the block depend on the seed alone, and do not move PyTorch's own generator.
    """
    import torch
    from transformers import GenerationConfig

    own = _inside(model)  # PEFT reads the generation config from there
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
    """Return the answer before the first end token; padding comes after it."""
    end = next((place for place, one in enumerate(ids) if one in ends), None)
    own = list(ids[:end])
    return Answer(tokenizer.decode(own, skip_special_tokens=True), len(own) + (end is not None), end is not None)


def require_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise BadInput unless `model` has positions for each of `prompts` (token ids) and `max_new_tokens` after it."""
    if max_new_tokens < 1:
        raise BadInput(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise BadInput(f"prompt {number} is empty; give the model something to continue")
    if not len(prompts):
        raise BadInput("there are no prompts to answer; give at least one")
    most = positions.most_tokens(model)
    longest = int(np.argmax([len(prompt) for prompt in prompts]))
    if most is not None and (wanted := len(prompts[longest]) + max_new_tokens) > most:
        raise BadInput(
            f"prompt {longest} has {len(prompts[longest]):,} tokens, and with {max_new_tokens:,} new ones that makes "
            f"{wanted:,}; the model has positions for {most:,}: shorten the prompt or lower max_new_tokens"
        )
