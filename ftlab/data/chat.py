"""Chat templates: a prompt or a conversation in the chat format that the model was trained on.

A chat template comes with the tokenizer and writes special tokens around each turn. A special token in the text of a
turn stays text. Source: *Chat templates* in the documentation of transformers.
"""

from __future__ import annotations

import datetime
import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.data import chat_answers, conversations, fields
from ftlab.data.conversations import Turn
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Templates = str | Mapping[str, str]  # one, or several by name
IGNORED = -100  # the label that PyTorch's cross-entropy ignores
MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")  # a template's mark of what the assistant writes
THINKING = "enable_thinking"  # the switch of the templates of Qwen3 and others
# The headings of the course as a template (`alpaca_chat`) begin with this comment, and have a heading before an input.
ALPACA_MARK = "{#- The Alpaca headings: the format in which ftlab trained this model. -#}"
ALPACA_INPUT, BLANK_LINE = "\n\n### Input:\n", "\n\n"
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")  # some templates write the date, as Llama 3.2's
DAY = datetime.date(2024, 7, 26)  # the date that Llama's templates write where there is no clock
NO_SYSTEM = "the model's chat template has no place for one"
NO_SEVERAL = (
    "the model's chat template writes earlier answers differently from the last one, so it can learn rows of one "
    "question only"
)
KNOWN = "take a model such as Qwen2.5 or SmolLM2"  # whose templates have system turns and several questions
DEFAULT = "default"  # of several templates, the one that is used
ALONE, CONFIG = "chat_template.jinja", "tokenizer_config.json"  # the files of a folder that may contain it


class Chat:
    """The chat template of a model as a format: of a prompt, which becomes the only turn of the user, and of rows.

    `templates` are the tokenizer's own unless others are given; `system` is the text of the system turn of prompts, and
    of rows that have none. `otherwise` is what to do if the template does not serve, for messages. Raises BadInput if
    there is no template, if none of several is the default, or if it leaves out the user's or system text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        templates: Templates | None = None,
        system: str | None = None,
        otherwise: str = "leave chat out",
    ) -> None:
        self.tokenizer = tokenizer
        self.otherwise = otherwise
        self.template = _one_of(templates or tokenizer.chat_template, otherwise)
        self.system = system
        if system is not None and not system.strip():
            raise BadInput("the system text is blank; say something in it, or leave it out")
        if self._written("one") == self._written("two"):
            raise BadInput(
                "the model's chat template leaves out what the user says (it may expect pictures, or parts of a text); "
                f"{otherwise}"
            )
        if system is not None:
            self._require_heard()

    def prompt_ids(self, text: str, *, where: str = "the prompt") -> list[int]:
        """Return the ids of the prompt for `text`, as `apply_chat_template` does, but special tokens in it stay text.

        Raises BadInput, which names `where`, if the template refuses the text or the tokenizer cannot read it as plain.
        """
        return self.turn_ids([{"role": "user", "content": text}], where=where)

    def turn_ids(self, said: Sequence[Turn], *, where: str = "the prompt") -> list[int]:
        """Return the ids from which generation starts after the turns `said`; the last is the user's.

        Raises BadInput as `prompt_ids`.
        """
        with _at(where):
            return self.ids(self._told(said), asked=True)

    @cached_property
    def ends(self) -> list[int]:
        """The ids of the tokens that end an assistant's turn: generation must stop there.

        Raises BadInput if the template ends it with no token, or cannot be trained on (`chat_answers.end_of_turn`).
        """
        return [int(self.tokenizer.convert_tokens_to_ids(self._end))]

    @property
    def known_ends(self) -> list[int]:
        """As `ends`, but empty where the template has none: for a model that is asked, not trained."""
        try:
            return self.ends
        except BadInput:
            return []

    def turns(self, row: Mapping[str, Any]) -> list[Turn]:
        """Return the turns of `row` as `conversations.turns`; an input has a heading in the format of the course."""
        return conversations.turns(row, before_input=self._before_input)

    def question(self, row: Mapping[str, Any]) -> list[Turn]:
        """Return the turns of `row` before its last answer, as `turns` does."""
        return conversations.question(row, before_input=self._before_input)

    def question_ids(self, row: Mapping[str, Any]) -> list[int]:
        """Return the ids from which generation starts: the turns of `row` before its last answer.

        `row` has `messages`, or instruction and input. Raises BadInput, which names the row.
        """
        return self.turn_ids(self.question(row), where=fields.named(row))

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template has a place for a system turn."""
        try:
            self._require_heard()
        except BadInput:
            return False
        return True

    @cached_property
    def takes_several(self) -> bool:
        """Whether rows of several questions can be learned in the template (`chat_answers.takes_several`)."""
        return chat_answers.takes_several(self, self._end)

    def pieces(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Return the ids of the prompt of `row` before its last answer, and those of that answer with its end token.

        Raises BadInput as `encode_row`, but for the length.
        """
        ids, found = self._learned(row, self.turns(row))
        start, stop = found[-1]
        return ids[:start], ids[start:stop]

    def encode_row(self, row: Mapping[str, Any], max_length: int) -> dict[str, Any]:
        """Tokenize one row, without padding, with labels for each answer and the token that ends it.

        The row ends with that token; what some templates write after it, such as a line break, is left out. If the row
        is too long, its oldest exchanges are left out whole, and the system turn stays.

        Args:
            row: with `messages`, or instruction, output and perhaps input.
            max_length: the most tokens.

        Returns:
            input_ids, attention_mask and labels, each a list of one length, and `cut`: how many tokens were left out.

        Raises:
            BadInput: the row is no conversation, its last exchange does not fit, the template refuses or changes a
                turn, or generation would be given other tokens than training (`chat_answers.spans`).
        """
        said = self.turns(row)
        ids, found = self._learned(row, said)
        whole = found[-1][1]
        if whole > max_length:
            said = self._fitting(said, max_length + len(ids) - whole)
            ids, found = self._learned(row, said)
        while found[-1][1] > max_length:
            if len(shorter := _without_oldest(said)) == len(said):
                raise BadInput(
                    f"the last question and answer of {fields.named(row)} have {found[-1][1]} tokens in the chat "
                    f"template, and max_length is {max_length}; raise it, shorten them, or leave the row out: a prompt "
                    "without its beginning is no turn of a chat"
                )
            said = shorter
            ids, found = self._learned(row, said)
        length = found[-1][1]
        learned = {place for start, stop in found for place in range(start, stop)}
        return {
            "input_ids": ids[:length],
            "attention_mask": [1] * length,
            "labels": [one if place in learned else IGNORED for place, one in enumerate(ids[:length])],
            "cut": whole - length,
        }

    def _fitting(self, said: list[Turn], most: int) -> list[Turn]:
        """Return the turns without the oldest exchanges, as few as leave at most `most` ids, or with the last alone.

        It bisects: to leave out one exchange after the other takes a time that grows with the cube of the turns.
        """
        versions = [said]
        while len(shorter := _without_oldest(versions[-1])) < len(versions[-1]):
            versions.append(shorter)
        first = bisect_left(versions, True, key=lambda turns: len(self.ids(self._told(turns))) <= most)
        return versions[min(first, len(versions) - 1)]

    def least(self, row: Mapping[str, Any]) -> int:
        """Return how many tokens of `row` cannot be cut: its system turn, its last question and its last answer.

        Raises BadInput as `pieces`.
        """
        said = self.turns(row)
        while len(shorter := _without_oldest(said)) < len(said):
            said = shorter
        return self._learned(row, said)[1][-1][1]

    def text(self, said: Sequence[Turn], *, asked: bool = False) -> str:
        """Return the turns `said` as the template writes them, with the generation prompt if `asked`."""
        return str(self._apply(said, asked, tokenize=False))

    def ids(self, said: Sequence[Turn], *, asked: bool = False) -> list[int]:
        """Return the ids of `text`; special tokens in a turn stay text."""
        options = {"sanitize_control_tokens": True} if self._has_tokens(said) else {}
        return list(self._apply(said, asked, tokenize=True, return_dict=False, **options))

    def marks(self, said: Sequence[Turn]) -> list[int] | None:
        """Return transformers' own mask of what the assistant wrote, or None.

        There is none if the template does not mark it, if a turn has special tokens, or if the tokenizer is a slow one.
        """
        if not MARK.search(self.template) or self._has_tokens(said) or not self.tokenizer.is_fast:
            return None
        options = {"return_dict": True, "return_assistant_tokens_mask": True}
        return list(self._apply(said, False, tokenize=True, **options)["assistant_masks"])

    @property
    def _before_input(self) -> str:
        return ALPACA_INPUT if self.template.startswith(ALPACA_MARK) else BLANK_LINE

    @cached_property
    def _end(self) -> str:
        return chat_answers.end_of_turn(self)

    def _learned(self, row: Mapping[str, Any], said: Sequence[Turn]) -> tuple[list[int], list[tuple[int, int]]]:
        end = self._end  # a fault of the template is no fault of the row
        with _at(fields.named(row)):
            told = self._told(said)
            if told[0]["role"] == "system" and not self.takes_system:
                raise BadInput(f"it has a system turn, and {NO_SYSTEM}; take that turn out, or {KNOWN}")
            if sum(turn["role"] == "assistant" for turn in told) > 1 and not self.takes_several:
                raise BadInput(f"it has several questions, and {NO_SEVERAL}; keep its last one, or {KNOWN}")
            return chat_answers.spans(self, told, end)

    def _told(self, said: Sequence[Turn]) -> list[Turn]:
        own = self.system is None or said[0]["role"] == "system"
        return [*said] if own else [{"role": "system", "content": str(self.system)}, *said]

    def _require_heard(self) -> None:
        asked: Turn = {"role": "user", "content": "one"}
        told: list[Turn] = [{"role": "system", "content": text} for text in ("one", "two")]
        one, two = (self.text([system, asked], asked=True) for system in told)
        if one == two:
            raise BadInput(
                "the model's chat template leaves the system text out, since the model knows no such turn; leave it "
                "out, or say it in the prompt"
            )

    def _written(self, text: str) -> str:
        return self.text(self._told([{"role": "user", "content": text}]), asked=True)

    def _has_tokens(self, said: Sequence[Turn]) -> bool:
        texts = [turn["content"] for turn in said]
        return any(token in text for token in self.tokenizer.added_tokens_encoder for text in texts)

    def _apply(self, said: Sequence[Turn], asked: bool, **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(
                [*said], chat_template=self.template, add_generation_prompt=asked, **options
            )
        except Exception as problem:  # a template is a program, and may raise anything
            reason = " ".join(str(problem).split())[:200] or type(problem).__name__
            told = said[0]["role"] == "system"
            raise BadInput(
                f"the model's chat template fails ({reason}); {'leave the system text out, or ' if told else ''}"
                f"{self.otherwise}"
            ) from problem


def for_rows(tokenizer: PreTrainedTokenizerBase, *, otherwise: str = "leave chat out") -> Chat:
    """Return the chat format of `tokenizer` in which rows are learned and asked.

    The templates of models that think write an empty thought before each answer. If thinking can be switched off in the
    template, it is: rows have no thoughts, and the answer then follows the prompt. If the template writes today's date
    it writes DAY instead, so that the model is asked tomorrow as it was trained. `otherwise` is as for `Chat`. Raises
    BadInput if the template cannot be trained on.
    """
    chat = Chat(tokenizer, otherwise=otherwise)
    if TODAY.search(chat.template):
        text = TODAY.sub(lambda found: repr(DAY.strftime(found[2])), chat.template)
        chat = Chat(tokenizer, templates=text, otherwise=otherwise)
    try:
        chat.ends  # noqa: B018
    except BadInput:
        if THINKING not in chat.template:
            raise
        text = f"{{%- set {THINKING} = false %}}{chat.template}"
        chat = Chat(tokenizer, templates=text, otherwise=otherwise)
        chat.ends  # noqa: B018
    return chat


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


def _one_of(templates: Any, otherwise: str) -> str:
    if isinstance(templates, Mapping) and templates and DEFAULT not in templates:
        raise BadInput(
            f"the model brings {len(templates)} chat templates ({', '.join(map(str, templates))}), and none is called "
            f"{DEFAULT!r}; set the tokenizer's chat_template to the one that you mean, or {otherwise}"
        )
    template: Any = templates[DEFAULT] if isinstance(templates, Mapping) and templates else templates
    if template and not isinstance(template, str):
        raise BadInput(f"the model's chat template is a {type(template).__name__}; expected a text, or {otherwise}")
    if not template or not template.strip():
        raise BadInput(
            "the model brings no chat template, so its chat format is unknown; leave chat out, or ask in the "
            "format of the course (`--instruct`), which its lessons train"
        )
    return template


def _without_oldest(said: Sequence[Turn]) -> list[Turn]:
    """The turns without the oldest question and answer, if there is another one after them."""
    begin = int(said[0]["role"] == "system")
    return [*said[:begin], *said[begin + 2 :]] if len(said) > begin + 2 else [*said]


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Name the place of a problem in its message."""
    try:
        yield
    except BadInput as problem:
        raise BadInput(f"{where}: {problem}") from problem
