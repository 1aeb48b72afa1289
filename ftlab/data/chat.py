"""A prompt as a turn of a chat, in the format that a model was trained to chat in: its chat template.

The template is a program of the model's maker, which comes with its tokenizer and writes special tokens around what a
person says. What the person says stays text, though it may hold such a token. Source: *Chat templates* in the
documentation of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Templates = str | Mapping[str, str]  # one, or several by name
DEFAULT = "default"  # the name of the one that is used where there are several
ALONE, CONFIG = "chat_template.jinja", "tokenizer_config.json"  # where a folder holds it


class Chat:
    """How to ask a model as a chat: the text of a person becomes the only turn of the user.

    `templates` are the tokenizer's own unless others are given; `system` is what the model is told before. Raises
    BadInput where there is no template, several of which none is the default, or one that leaves out what is said.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        templates: Templates | None = None,
        system: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = _one_of(templates or tokenizer.chat_template)
        self.system = system
        if system is not None and not system.strip():
            raise BadInput("the system text is blank; say something in it, or leave it out")
        one, other = self._written("one"), self._written("two")
        if one == other:
            raise BadInput(
                "the model's chat template leaves out what the user says (it may expect pictures, or parts of a text); "
                "leave chat out"
            )
        if system is not None and one == Chat(tokenizer, templates=self.template)._written("one"):
            raise BadInput(
                "the model's chat template leaves the system text out, since the model knows no such turn; leave it "
                "out, or say it in the prompt"
            )

    def prompt_ids(self, text: str, *, where: str = "the prompt") -> list[int]:
        """The ids that the answer goes on from: those of `apply_chat_template`, with special tokens in `text` as text.

        Raises BadInput, naming `where`, for a text that the template refuses or the tokenizer cannot read as plain.
        """
        said = f"{text}{self.system}"
        holds_tokens = any(token in said for token in self.tokenizer.added_tokens_encoder)
        options = {"sanitize_control_tokens": True} if holds_tokens else {}
        try:
            return list(self._apply(text, tokenize=True, return_dict=False, **options))
        except BadInput as problem:
            raise BadInput(f"{where}: {problem}") from problem

    def _written(self, text: str) -> str:
        return str(self._apply(text, tokenize=False))

    def _apply(self, text: str, **options: Any) -> Any:
        told = [] if self.system is None else [{"role": "system", "content": self.system}]
        turns = [*told, {"role": "user", "content": text}]
        try:
            return self.tokenizer.apply_chat_template(
                turns, chat_template=self.template, add_generation_prompt=True, **options
            )
        except Exception as problem:  # a program of somebody else's: it may raise anything
            reason = " ".join(str(problem).split())[:200] or type(problem).__name__
            raise BadInput(
                f"the model's chat template fails ({reason}); {'leave the system text out, or ' if told else ''}"
                "leave chat out"
            ) from problem


def of_folder(folder: Path) -> Templates | None:
    """The chat templates that the tokenizer files of a folder bring, an adapter's say; None if they bring none."""
    try:
        if (folder / ALONE).is_file():
            return (folder / ALONE).read_text(encoding="utf-8")
        if not (folder / CONFIG).is_file():
            return None
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("chat_template")
        return {one["name"]: one["template"] for one in said} if isinstance(said, list) else said
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as problem:
        raise BadInput(
            f"the chat template in {folder} cannot be read ({type(problem).__name__}); mend or remove its {ALONE} and "
            f"{CONFIG}"
        ) from problem


def _one_of(templates: Any) -> str:
    if isinstance(templates, Mapping) and templates and DEFAULT not in templates:
        raise BadInput(
            f"the model brings {len(templates)} chat templates ({', '.join(map(str, templates))}), and none is called "
            f"{DEFAULT!r}; set the tokenizer's chat_template to the one that you mean, or leave chat out"
        )
    template: Any = templates[DEFAULT] if isinstance(templates, Mapping) and templates else templates
    if template and not isinstance(template, str):
        raise BadInput(f"the model's chat template is a {type(template).__name__}; expected a text, or leave chat out")
    if not template or not template.strip():
        raise BadInput(
            "the model brings no chat template, so nobody knows how to chat with it; leave chat out, or ask in the "
            "format of the course (`--instruct`), which its lessons train"
        )
    return template
