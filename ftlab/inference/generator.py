"""A language model in use: load it once, with its adapters; answer many prompts in batches, or stream one answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ftlab import files
from ftlab.adapters import lora as adapter_files
from ftlab.adapters import switching
from ftlab.data import chat as chats
from ftlab.data import prompts as formats
from ftlab.data.special_tokens import Prompt
from ftlab.errors import BadInput
from ftlab.merging import certificate
from ftlab.models import batches, devices, generation, loading, model_files
from ftlab.models.generation import Answer, Sampling
from ftlab.wording import one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 128
ONLY = "adapter"  # the name of a single adapter that is given without a name


class Generator:
    """A causal language model that answers prompts, with any number of LoRA adapters in memory.

    `Generator.load` reads model and adapters from folders. `Generator(model, tokenizer)` takes a loaded model, wrapped
    by PEFT or not, and does not change it; it uses a copy of the tokenizer.

    Args:
        model: a loaded causal language model.
        tokenizer: its tokenizer.
        template: the instruction format of `prompt` and `ask`: the one that the model was trained in.

    Raises:
        BadInput: `tokenizer` has no pad token, or one without an embedding row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: formats.Format = formats.ALPACA,
    ) -> None:
        if tokenizer.pad_token_id is None:
            raise BadInput("the tokenizer has no pad token, and batches need one; call `loading.ensure_pad_token`")
        if tokenizer.pad_token_id >= (rows := len(model.get_input_embeddings().weight)):
            raise BadInput(
                f"the tokenizer's pad token {tokenizer.pad_token!r} is number {tokenizer.pad_token_id:,}, and the "
                f"model's embedding has {rows:,} rows, so it cannot read a padded batch; call "
                "`loading.match_pad_token(model, tokenizer)`, which adds a row"
            )
        self.model = model
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.padding_side = "left"  # an answer continues from the last position
        self.template = template
        self._chat_templates: dict[str, chats.Templates] = {}  # those in the folders of adapters, by adapter

    @classmethod
    def load(
        cls,
        model: str | Path,
        adapters: Mapping[str, str | Path] | str | Path | None = None,
        *,
        template: formats.Format = formats.ALPACA,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Generator:
        """Load a language model, and adapters that were trained on it. All parameters are frozen.

        Args:
            model: a folder, or any name that `loading.folder` takes.
            adapters: the folder of one adapter, which gets the name "adapter", or folders by name. The first one is
                switched on.
            template: the instruction format of `prompt` and `ask`: the one that the model was trained in
                (`alpaca_chat.trained_format` reads it from an adapter's folder).
            dtype: by default half precision on a GPU, else float32.
            device: by default the GPU if there is one.

        Returns:
            The generator, in evaluation mode.

        Raises:
            BadInput: `model` is not a language model, or is a merged model that gets an adapter; or an adapter is
                incomplete, was trained on other weights, or needs another tokenizer than the first one.
        """
        base = str(model)
        folders = _by_name(adapters)
        require_language_model(base)
        if folders and (loading.folder(base) / certificate.RECORD).is_file():
            raise BadInput(
                f"{base} is a merged model (it has a {certificate.RECORD}), so its weights contain an adapter already; "
                "load it without adapters, or give the base that it was merged from"
            )
        device = device or devices.best_device()
        dtype = dtype or devices.frozen_dtype(str(device))
        if folders:
            loaded: Any = switching.load(base, folders, dtype=dtype)
        else:
            loaded = loading.causal_lm(base, dtype=dtype).requires_grad_(False).eval()
        made = cls(loaded.to(device), switching.tokenizer(base, loaded), template=template)
        found = {name: chats.of_folder(path) for name, path in folders.items()}
        made._chat_templates = {name: one for name, one in found.items() if one}
        return made

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters, mixtures included, in the order in which they were added."""
        return switching.names(self.model)

    @property
    def adapter(self) -> str | None:
        """The name of the active adapter; None for the base alone."""
        return switching.active(self.model)

    def use(self, name: str | None) -> None:
        """Switch to the adapter `name` (see `adapters`), or to the base alone (None). Nothing is loaded.

        Raises BadInput for an unknown name, and for None if an adapter has changed the base.
        """
        switching.use(self.model, name)

    def mix(self, name: str, weights: Mapping[str, float]) -> None:
        """Add the adapter `name`, the sum of the adapters in `weights`, each times its weight; `use` switches it on.

        Raises BadInput for adapters that have no exact sum (see `switching.mix`).
        """
        switching.mix(self.model, name, weights)
        templates = [self._chat_templates.get(one) for one in weights]
        if templates[0] and all(one == templates[0] for one in templates):
            self._chat_templates[name] = templates[0]

    @property
    def chat_template(self) -> chats.Templates | None:
        """The chat template in use, or several by name: that of the active adapter, else that of the tokenizer."""
        return self._chat_templates.get(self.adapter or "") or self.tokenizer.chat_template

    def prompt(self, question: str, input: str = "") -> str:
        """Return `question`, with the optional `input`, in the instruction format `template`.

        Raises BadInput if `question` is not a string or is blank, or if a chat template has no text that the tokenizer
        reads as training does.
        """
        if not isinstance(question, str) or not question.strip():
            raise BadInput(f"the question is {question!r}; expected a text that is not blank")
        row = {"instruction": question, "input": input}
        if isinstance(self.template, chats.Chat):
            return _chat_text(self.template, row)
        return self.template.prompt(row)

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
        """Generate an answer to each prompt.

        A special token in a prompt is text, as in training; those of the template in `prompt` stay special. An answer
        ends at the tokenizer's EOS token or at an end token of the model. In float32 a greedy answer is the same in
        any batch.

        Args:
            prompts: strings that are not blank, used as they are (see `prompt`).
            chat: put each prompt into the model's chat template, as the only turn of a user.
            system: the system message of the chat.
            max_new_tokens: the longest answer.
            sampling: draw tokens; by default the answers are greedy.
            batch_size: the most prompts in a batch; prompts of similar length share one.
            tokens: the most tokens in a batch, answers included.

        Returns:
            The answers, in the order of the prompts.

        Raises:
            BadInput: a prompt is not a string or is blank, needs more positions than the model has, or is for a chat
                without a chat template.
        """
        require_prompts(prompts)
        if not len(prompts):
            return []
        ids, ends = self._ids(prompts, chat, system)
        return generation.generate(
            self.model, self.tokenizer, ids, max_new_tokens=max_new_tokens, sampling=sampling, tokens=tokens,
            batch_size=batch_size, ends=ends,
        )  # fmt: skip

    def _ids(self, prompts: Sequence[str], chat: bool, system: str | None) -> tuple[list[list[int]], list[int]]:
        """Return the ids of each prompt, and those that end an answer in their format."""
        named = [(text, f"prompt {place}") for place, text in enumerate(prompts)]
        if chat:
            turn = chats.Chat(self.tokenizer, templates=self.chat_template, system=system)
            return [turn.prompt_ids(text, where=where) for text, where in named], turn.known_ends
        if system is not None:
            raise BadInput("a system message needs a chat; add `--chat` (chat=True), or leave the message out")
        ends = self.template.known_ends if isinstance(self.template, chats.Chat) else []
        return [formats.prompt_ids(text, self.tokenizer, where=where) for text, where in named], ends

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
        """Answer one question, in the instruction format `template` (see `prompt`) or as a chat.

        Args:
            question: what to ask.
            input: an optional input to the question; not for a chat.
            chat, system, max_new_tokens, sampling: as for `answer`.
            stream: yield the answer in pieces. Read the stream to its end, or close it, before the next question.

        Returns:
            The answer, or an iterator over its pieces.

        Raises:
            BadInput: a chat has an input; or as `answer`.
        """
        if chat and input:
            raise BadInput("a chat has no separate input; put it into the question, or leave chat out")
        if chat:
            require_prompts([question], lambda _: "the question")
        (ids,), ends = self._ids([question if chat else self.prompt(question, input)], chat, system)
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "sampling": sampling, "ends": ends}
        if stream:
            return generation.stream(self.model, self.tokenizer, ids, **how)
        return generation.generate(self.model, self.tokenizer, [ids], **how)[0]


def require_prompts(prompts: Sequence[str], where: Callable[[int], str] = "prompt {}".format) -> None:
    """Raise BadInput unless each of `prompts` is a string that is not blank.

    `where` turns the index of a prompt into its name in the message.
    """
    if isinstance(prompts, str):
        raise BadInput(f"prompts is one text, {prompts[:40]!r}; expected a list of texts")
    for place, text in enumerate(prompts):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{where(place)} is {text!r}; expected a text with something in it")


def _chat_text(chat: chats.Chat, row: Mapping[str, str]) -> Prompt:
    """Return the prompt of `row` in a chat format as a text that `prompts.prompt_ids` reads with the ids of training.

    The tokenizer adds its own BOS to a text, so the template's is left out. Raises BadInput if the ids would differ.
    """
    turns = chat.question(row)
    mark = "\N{ASTERISM}"
    before, _, after = chat.text([*turns[:-1], {"role": "user", "content": mark}], asked=True).partition(mark)
    written = chat.text(turns, asked=True)
    said = written.removeprefix(before).removesuffix(after)
    begin = chat.tokenizer.bos_token
    if begin and chat.tokenizer("a")["input_ids"][0] == chat.tokenizer.bos_token_id:
        before = before.removeprefix(begin)
    prompt = Prompt.of([(before, True), (said, False), (after, True)])
    if formats.prompt_ids(prompt, chat.tokenizer) != chat.question_ids(row):
        raise BadInput(
            "the tokenizer reads the text of a prompt in this chat template differently from training; ask with "
            "chat=True instead"
        )
    return prompt


def _by_name(adapters: Mapping[str, str | Path] | str | Path | None) -> dict[str, Path]:
    if adapters is None:
        return {}
    if isinstance(adapters, (str, Path)):
        adapters = {ONLY: adapters}
    return {name: files.named_path(str(folder), "the folder of an adapter")[0] for name, folder in adapters.items()}


def require_language_model(model: str) -> None:
    """Raise BadInput unless `model` names a causal language model; its weights are not read."""
    from transformers import AutoConfig

    path = files.named_path(model, "a model's name or folder")[0]
    if (path / adapter_files.CONFIG).is_file() and not (path / "config.json").is_file():
        raise BadInput(
            f"{model} is an adapter, not a model; give the base that it was trained on, and this folder as the adapter"
        )
    loading.check(model)
    folder = loading.folder(model)
    written = model_files.read_json(folder / "config.json").get("architectures")
    architectures = [name for name in written if isinstance(name, str)] if isinstance(written, list) else []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise BadInput(
            f"{model} is not a causal language model ({', '.join(architectures) or 'it names no architecture'}), so it "
            "cannot generate text; give a folder that lesson 04 saved, or use `Classifier` for a classifier"
        )
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as problem:  # an architecture that transformers does not know, or impossible values
        raise BadInput(
            f"{model} cannot be loaded ({one_line(problem)}); give a folder that lesson 04 saved"
        ) from problem
    ends = folder / "generation_config.json"
    try:  # transformers ignores a file that it cannot read, and answers would end elsewhere
        readable = not ends.is_file() or isinstance(json.loads(ends.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        readable = False
    if not readable:
        raise BadInput(
            f"{ends} cannot be read, and it names the end tokens; copy it again, or remove it to use config.json"
        )
