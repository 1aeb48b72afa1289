"""A language model at work: load it once, with its adapters, and answer many prompts, or one word by word."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ftlab.adapters import lora as adapter_files
from ftlab.adapters import switching
from ftlab.data import chat as chats
from ftlab.data import prompts as formats
from ftlab.errors import BadInput
from ftlab.merging import certificate
from ftlab.models import batches, devices, generation, loading
from ftlab.models.generation import Answer, Sampling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 128
ONLY = "adapter"  # the name of an adapter that comes alone, without one


class Generator:
    """A causal language model that answers, with any number of LoRA adapters that are switched without loading.

    `Generator.load` reads both from folders. `Generator(model, tokenizer)` takes a model that is there already, wrapped
    by PEFT or not; it leaves that model as it is, and works with a copy of the tokenizer. Raises BadInput for a
    tokenizer without a pad token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: formats.Template = formats.ALPACA,
    ) -> None:
        if tokenizer.pad_token_id is None:
            raise BadInput("the tokenizer has no pad token, which batches need; call `loading.ensure_pad_token` on it")
        self.model = model
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.padding_side = "left"  # an answer goes on from the last position
        self.template = template
        self._chat_templates: dict[str, chats.Templates] = {}  # those that adapters bring

    @classmethod
    def load(
        cls,
        model: str | Path,
        adapters: Mapping[str, str | Path] | str | Path | None = None,
        *,
        template: formats.Template = formats.ALPACA,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Generator:
        """The language model `model`, a folder or any name that `loading.folder` takes, and adapters trained on it.

        `adapters` is a folder that `adapters.save` wrote, then called "adapter", or several by name; the first one is
        switched on. It runs on the GPU if there is one, there in half precision, elsewhere in fp32. Nothing of it
        trains. Raises BadInput for what is no language model, an adapter that is not whole or was trained on other
        weights, and an adapter beside a model that has one merged in.
        """
        base = str(model)
        folders = _by_name(adapters)
        require_language_model(base)
        if folders and (loading.folder(base) / certificate.RECORD).is_file():
            raise BadInput(
                f"{base} is a merged model (it has a {certificate.RECORD}), whose weights hold an adapter already; "
                "load it without adapters, or give the base that it was merged from"
            )
        device = device or devices.best_device()
        dtype = dtype or devices.frozen_dtype(str(device))
        if folders:
            loaded: Any = switching.load(base, folders, dtype=dtype)
        else:
            loaded = loading.causal_lm(base, dtype=dtype).requires_grad_(False).eval()
        made = cls(loaded.to(device), switching.tokenizer(base, folders, loaded), template=template)
        found = {name: chats.of_folder(path) for name, path in folders.items()}
        made._chat_templates = {name: one for name, one in found.items() if one}
        return made

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters, mixtures included, in the order in which they came."""
        return switching.names(self.model)

    @property
    def adapter(self) -> str | None:
        """The name of the adapter that is switched on; None for the base alone."""
        return switching.active(self.model)

    def use(self, name: str | None) -> None:
        """Answer with this adapter from now on, or with the base alone (None). Nothing is loaded.

        Raises BadInput for a name that there is not (see `adapters`), and for None where an adapter changed the base.
        """
        switching.use(self.model, name)

    def mix(self, name: str, weights: Mapping[str, float]) -> None:
        """Add the adapter `name`, which does what those of `weights` do, each times its weight; `use` switches it on.

        Raises BadInput for adapters that cannot be added up truly (see `switching.mix`).
        """
        switching.mix(self.model, name, weights)
        templates = [self._chat_templates.get(one) for one in weights]
        if templates[0] and all(one == templates[0] for one in templates):
            self._chat_templates[name] = templates[0]

    @property
    def chat_template(self) -> chats.Templates | None:
        """The chat template in use, or several by name: the adapter's that is switched on, else the tokenizer's."""
        return self._chat_templates.get(self.adapter or "") or self.tokenizer.chat_template

    def prompt(self, question: str, input: str = "") -> str:
        """A question, and perhaps an input to it, as the course trains them: what stands before the answer."""
        if not isinstance(question, str) or not question.strip():
            raise BadInput(f"the question is {question!r}; ask something")
        return self.template.prompt({"instruction": question, "input": input})

    def answer(
        self,
        prompts: Sequence[str],
        *,
        chat: bool = False,
        system: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling | None = None,
        batch_size: int | None = None,
        tokens: int = batches.TOKENS,
    ) -> list[Answer]:
        """What the model writes after each prompt, as it is (see `prompt`), in their order; none for no prompts.

        A special token in a prompt is text, as it is in training; the template's own are special where the prompt comes
        from `prompt`. With `chat` each prompt is the one turn of a user in the chat template that the model brings,
        after `system` if that is given. Greedy unless `sampling` is given; an answer ends at the tokenizer's EOS and at
        the model's own end tokens. Prompts of like length share a batch of at most `batch_size` prompts and `tokens`
        tokens, answers included; in fp32 a greedy answer is the same in any batch. Raises BadInput for a prompt that is
        no string or is blank, for more tokens than the model has positions, and for a chat without a template.
        """
        require_prompts(prompts)
        if not len(prompts):
            return []
        return generation.generate(
            self.model, self.tokenizer, self._ids(prompts, chat, system), max_new_tokens=max_new_tokens,
            sampling=sampling, tokens=tokens, batch_size=batch_size,
        )  # fmt: skip

    def _ids(self, prompts: Sequence[str], chat: bool, system: str | None) -> list[list[int]]:
        named = [(text, f"prompt {place}") for place, text in enumerate(prompts)]
        if chat:
            turn = chats.Chat(self.tokenizer, templates=self.chat_template, system=system)
            return [turn.prompt_ids(text, where=where) for text, where in named]
        if system is not None:
            raise BadInput("a system text is for a chat; ask for one (`--chat`, chat=True), or leave it out")
        return [formats.prompt_ids(text, self.tokenizer, where=where) for text, where in named]

    @overload
    def ask(
        self, question: str, *, input: str = ..., chat: bool = ..., system: str | None = ..., max_new_tokens: int = ...,
        sampling: Sampling | None = ..., stream: Literal[False] = ...,
    ) -> Answer: ...  # fmt: skip

    @overload
    def ask(
        self, question: str, *, input: str = ..., chat: bool = ..., system: str | None = ..., max_new_tokens: int = ...,
        sampling: Sampling | None = ..., stream: Literal[True],
    ) -> Iterator[str]: ...  # fmt: skip

    def ask(
        self,
        question: str,
        *,
        input: str = "",
        chat: bool = False,
        system: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling | None = None,
        stream: bool = False,
    ) -> Answer | Iterator[str]:
        """The answer to one question, in the course's format (`prompt`) or as a chat; with `stream`, in pieces.

        Read a stream to its end, or close it, before anything else is asked. Raises BadInput as `answer` does.
        """
        text = self.prompt(question, input)
        if chat and input:
            raise BadInput("a chat has no input beside the question; put it into the question, or leave chat out")
        (ids,) = self._ids([question if chat else text], chat, system)
        if stream:
            return generation.stream(self.model, self.tokenizer, ids, max_new_tokens=max_new_tokens, sampling=sampling)
        return generation.generate(
            self.model, self.tokenizer, [ids], max_new_tokens=max_new_tokens, sampling=sampling
        )[0]  # fmt: skip


def require_prompts(prompts: Sequence[str], where: Callable[[int], str] = "prompt {}".format) -> None:
    """Raise BadInput unless each prompt is a text with something in it; the first that is not is named by its place."""
    if isinstance(prompts, str):
        raise BadInput(f"prompts is one text, {prompts[:40]!r}; expected a list of texts")
    for place, text in enumerate(prompts):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{where(place)} is {text!r}; expected a text with something in it")


def _by_name(adapters: Mapping[str, str | Path] | str | Path | None) -> dict[str, Path]:
    if adapters is None:
        return {}
    if isinstance(adapters, (str, Path)):
        return {ONLY: Path(adapters)}
    return {name: Path(folder) for name, folder in adapters.items()}


def require_language_model(model: str) -> None:
    """Raise BadInput unless `model` names a causal language model; its weights are not read."""
    from transformers import AutoConfig

    if (Path(model) / adapter_files.CONFIG).is_file() and not (Path(model) / "config.json").is_file():
        raise BadInput(f"{model} is an adapter and no model; give the base that it was trained on, and this beside it")
    loading.check(model)
    folder = loading.folder(model)
    architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise BadInput(
            f"{model} is no causal language model ({', '.join(architectures) or 'it names no architecture'}), so it "
            "writes nothing; give a folder that lesson 04 saved, or let a classifier label texts (`Classifier`)"
        )
    try:
        AutoConfig.from_pretrained(folder)
    except ValueError as problem:  # an architecture that transformers does not know
        reason = " ".join(str(problem).split())[:200]
        raise BadInput(f"{model} cannot be loaded ({reason}); give a folder that lesson 04 saved") from problem
    ends = folder / "generation_config.json"
    try:  # transformers goes on without a file that it cannot read, and answers end elsewhere
        readable = not ends.is_file() or isinstance(json.loads(ends.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        readable = False
    if not readable:
        raise BadInput(
            f"{ends} cannot be read, and it says where answers end; copy it again, or remove it to go by config.json"
        )
