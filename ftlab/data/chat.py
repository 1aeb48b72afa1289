"""Chat templates: a prompt as a turn of a chat, in the format that the model was trained on.

A chat template comes with the tokenizer and writes special tokens around the user's text. A special token in the text
itself stays text. Source: *Chat templates* in the documentation of transformers.
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
DEFAULT = "default"  # of several templates, the one that is used
ALONE, CONFIG = "chat_template.jinja", "tokenizer_config.json"  # the files of a folder that may contain it


class Chat:
    """Prompts in the chat template of a model: the text becomes the only turn of the user.

    `templates` are the tokenizer's own unless others are given; `system` is the text of the system turn. Raises
    BadInput if there is no template, if none of several is the default, or if it leaves out the user's or system text.
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
        """Return the ids of the prompt for `text`, as `apply_chat_template` does, but special tokens in it stay text.

        Raises BadInput, which names `where`, if the template refuses the text or the tokenizer cannot read it as plain.
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
        except Exception as problem:  # a template is a program, and may raise anything
            reason = " ".join(str(problem).split())[:200] or type(problem).__name__
            raise BadInput(
                f"the model's chat template fails ({reason}); {'leave the system text out, or ' if told else ''}"
                "leave chat out"
            ) from problem


def of_folder(folder: Path) -> Templates | None:
    """Return the chat templates in the tokenizer files of `folder` (an adapter's, say), or None if there are none.

    Raises BadInput if the files cannot be read.
    """
    try:
        if (folder / ALONE).is_file():
            return (folder / ALONE).read_text(encoding="utf-8")
        if not (folder / CONFIG).is_file():
            return None
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("chat_template")
        return {one["name"]: one["template"] for one in said} if isinstance(said, list) else said
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as problem:
        raise BadInput(
            f"the chat template in {folder} cannot be read ({type(problem).__name__}); correct or remove its {ALONE} "
            f"and {CONFIG}"
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
            "the model brings no chat template, so its chat format is unknown; leave chat out, or ask in the "
            "format of the course (`--instruct`), which its lessons train"
        )
    return template
