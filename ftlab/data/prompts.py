"""Prompt formats, tokenization and label masking for instruction tuning.

A causal language model learns to continue a text. To learn to **answer**, it is trained on the answer and on the token
that ends it, given the prompt. So labels are -100, which the loss ignores, on the prompt and on padding, and the ids
themselves on the completion and its EOS. The content of a row is text: "</s>" in it is five characters, and not EOS.

A format is a `Template` around one instruction, such as ALPACA, or a `Chat`: the model's own chat template, in which a
row may have several turns, and each answer is learned with the token that ends its turn.
"""

from __future__ import annotations

import html
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlab.data import chat, conversations, fields, special_tokens
from ftlab.data.chat import Chat
from ftlab.data.special_tokens import Prompt
from ftlab.errors import BadInput
from ftlab.wording import visible

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = chat.IGNORED
TEMPLATES = ("alpaca", "chat")  # the headings below, or the format that the tokenizer brings


@dataclass(frozen=True)
class Template:
    """The text around an instruction: `with_input` for a row with an input, `without_input` for one without.

    Placeholders are the names of a row's columns in braces. A special token in the template is special, as in a chat
    format; in a row it is text.

    >>> str(Template("{instruction} {input}:", "{instruction}:").prompt({"instruction": "Count."}))
    'Count.:'
    """

    with_input: str
    without_input: str

    def prompt(self, row: Mapping[str, Any]) -> Prompt:
        """Return the text before the answer of `row`.

        Raises BadInput if the row has no instruction, lacks a placeholder's column, has a value that is not text, or is
        a conversation of several questions or with a system turn.
        """
        fields.required(row, "instruction")
        _require_one_question(row)
        text = self.with_input if fields.said(row, "input").strip() else self.without_input
        return Prompt.of(self._parts(text, row))

    def lines(self) -> set[str]:
        """Return the lines of the template that have no placeholder."""
        words = [
            literal + ("" if name is None else "\0")
            for text in (self.with_input, self.without_input)
            for literal, name, _, _ in [*string.Formatter().parse(text), ("\n", None, None, None)]
        ]
        return {line.strip() for line in "".join(words).split("\n") if line.strip() and "\0" not in line}

    def _parts(self, text: str, row: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
        """The texts of the template and the values of the row in order, each with whether it is the template's."""
        for literal, name, layout, conversion in string.Formatter().parse(text):
            yield literal, True
            if name is None:
                continue
            if name not in row:
                raise BadInput(
                    f"the template asks for {{{name}}}, and {fields.named(row)} has {', '.join(map(visible, row))}; "
                    "rename the column or the placeholder"
                )
            field = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{layout}' if layout else ''}}}"
            yield field.format(**{name: fields.value(row, name)}), False


# The headings of Stanford Alpaca (Taori et al. 2023), without its opening sentence.
ALPACA = Template(
    with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    without_input="### Instruction:\n{instruction}\n\n### Response:\n",
)
Format = Template | Chat


def named(name: str, tokenizer: PreTrainedTokenizerBase) -> Format:
    """Return the format `name` of TEMPLATES: ALPACA, or the chat template of `tokenizer` as `chat.for_rows` takes it.

    Raises BadInput for another name, and for chat if there is no template or if it cannot be trained on.
    """
    if name not in TEMPLATES:
        raise BadInput(f"there is no template {name!r}; there are {', '.join(TEMPLATES)}")
    if name == "alpaca":
        return ALPACA
    if not tokenizer.chat_template:
        model = str(tokenizer.name_or_path).rstrip("/").rsplit("/", 1)[-1]
        raise BadInput(
            f"template=chat asks for the model's own chat format, and the tokenizer{f' of {model}' if model else ''} "
            "has no chat template; set template=alpaca, or take a model that was trained to chat"
        )
    try:
        return chat.for_rows(tokenizer)
    except BadInput as problem:
        raise BadInput(f"template=chat: {problem} (template=alpaca)") from problem


def ends(template: Format, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end an answer in the `template`: of a `Chat` its own, else the EOS of `tokenizer`, if any."""
    if isinstance(template, Chat):
        return template.ends
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


@dataclass(frozen=True)
class Cut:
    """What `max_length` cost: how many rows lost how many tokens of their prompts."""

    rows: int
    cut_rows: int
    cut_tokens: int

    def __str__(self) -> str:
        return f"{self.cut_rows:,} of {self.rows:,} rows lost {self.cut_tokens:,} tokens of their prompts"


def encode(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int, template: Format = ALPACA
) -> tuple[Dataset, Cut]:
    """Return `rows` with the new columns input_ids, attention_mask and labels, and what was cut (see `encode_row`).

    Args:
        rows: with columns instruction, output and perhaps input, or with `messages`.
        tokenizer: of the model.
        max_length: the most tokens of a row.
        template: the format.

    Raises:
        BadInput: a row cannot be learned from; the message has its id or number.
    """
    found = [
        encode_row({"row": number, **row}, tokenizer, max_length=max_length, template=template)
        for number, row in enumerate(rows)
    ]
    cut = [row.pop("cut") for row in found]
    encoded = rows
    for name in ("input_ids", "attention_mask", "labels"):
        encoded = encoded.add_column(name, [row[name] for row in found])
    return encoded, Cut(len(cut), sum(number > 0 for number in cut), sum(cut))


def encode_row(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, max_length: int, template: Format = ALPACA
) -> dict[str, Any]:
    """Tokenize one row, without padding, with the labels of its prompt masked.

    Prompt and completion are tokenized **separately** and their ids joined, as in generation: together, a token might
    reach across the boundary, and the ids of the prompt alone would not be a prefix. EOS ends the completion.

    Tokens over `max_length` are cut from the left of the prompt, after BOS if there is one. Completion and EOS are
    never cut, since a model that sees no end does not learn to stop. A `Chat` has several answers in a row, and leaves
    out whole exchanges (`Chat.encode_row`).

    >>> class Digits:  # a tokenizer of digits, each its own id
    ...     bos_token_id, eos_token_id = None, 0
    ...     __call__ = lambda self, text, **options: {"input_ids": [int(digit) for digit in text]}
    >>> plain = Template("{instruction}", "{instruction}")
    >>> found = encode_row({"instruction": "12345", "output": "678"}, Digits(), max_length=7, template=plain)
    >>> found["input_ids"], found["labels"], found["cut"]
    ([3, 4, 5, 6, 7, 8, 0], [-100, -100, -100, 6, 7, 8, 0], 2)

    Args:
        row: with columns instruction, output and perhaps input, or with `messages`.
        tokenizer: of the model.
        max_length: the most tokens.
        template: the format.

    Returns:
        input_ids, attention_mask and labels, each a list of one length, and `cut`: how many prompt tokens did not fit.

    Raises:
        BadInput: as `pieces` and `require_whole`, or as `Chat.encode_row`.
    """
    if isinstance(template, Chat):
        return template.encode_row(row, max_length)
    before, answer = pieces(row, tokenizer, template=template)
    require_whole(row, len(answer), max_length)
    room = max_length - len(answer)
    cut = max(0, len(before) - room)
    if cut:
        starts = int(before[0] == tokenizer.bos_token_id and room > 1)
        before = before[:starts] + before[len(before) - room + starts :]
    ids = before + answer
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [IGNORED] * len(before) + answer,
        "cut": cut,
    }


def pieces(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, template: Format = ALPACA
) -> tuple[list[int], list[int]]:
    """Return the ids of the prompt of `row` in the `template`, and those of its last answer with its end, neither cut.

    Raises BadInput if the `tokenizer` has no EOS, or the row has no instruction or output, or as `Chat.pieces`.
    """
    if isinstance(template, Chat):
        return template.pieces(row)
    end = tokenizer.eos_token_id
    if end is None:
        raise BadInput("the tokenizer has no EOS token, so no answer can end; set tokenizer.eos_token")
    answer = answer_ids(row, tokenizer)
    return question_ids(row, tokenizer, template=template), [*answer, end]


def least_length(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, template: Format = ALPACA) -> int:
    """Return the smallest `max_length` with which `encode_row` takes `row`, in tokens. Raises BadInput as `pieces`."""
    if isinstance(template, Chat):
        return template.least(row)
    return len(pieces(row, tokenizer, template=template)[1]) + 1  # and one token of the prompt


def require_whole(row: Mapping[str, Any], answer: int, max_length: int) -> None:
    """Raise BadInput unless an `answer` of `row`, in tokens with EOS, is shorter than `max_length`.

    A part of the prompt must fit too.
    """
    if answer >= max_length:
        raise BadInput(
            f"the output of {fields.named(row)} has {answer} tokens with EOS, and max_length is {max_length}; shorten "
            "it, raise max_length, or leave the row out: a cut answer teaches not to stop"
        )


def question_ids(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, template: Format = ALPACA) -> list[int]:
    """Return the ids of the prompt of `row` in the `template`, from which generation starts.

    `tokenizer` is as for `prompt_ids`. Raises BadInput if the row has no instruction, or as `Chat.question_ids`.
    """
    if isinstance(template, Chat):
        return template.question_ids(row)
    return prompt_ids(template.prompt(row), tokenizer, where=f"the prompt of {fields.named(row)}")


def answer_ids(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the output of `row` by `tokenizer`, without EOS. Raises BadInput if there is no output."""
    return completion_ids(fields.required(row, "output"), tokenizer, where=f"the output of {fields.named(row)}")


def completion_ids(text: str, tokenizer: PreTrainedTokenizerBase, *, where: str = "the output") -> list[int]:
    """Return the ids of an answer, without EOS.

    `text`, `tokenizer` and `where` are as for `special_tokens.plain_ids`: special tokens in the text stay text.
    """
    return special_tokens.plain_ids(text, tokenizer, add_special_tokens=False, where=where)


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerBase, *, where: str = "the prompt") -> list[int]:
    """Return the ids from which generation starts: with what `tokenizer` puts before a text, without EOS at the end.

    Special tokens of a template (`Template.prompt`) are special; all others in `prompt` are text. Raises BadInput,
    which names `where`, if the tokenizer cannot read one as text.
    """
    ids = special_tokens.prompt_ids(prompt, tokenizer, where=where)
    while ids and ids[-1] == tokenizer.eos_token_id != tokenizer.bos_token_id:
        ids.pop()
    return ids


def supervised_share(labels: Sequence[Sequence[int]]) -> float:
    """Return the share of tokens in the loss, from the `labels` of rows that `encode` made.

    >>> supervised_share([[-100, -100, 5, 2], [-100, 7, 8, 2]])  # 2 + 3 of 8
    0.625
    """
    return sum(label != IGNORED for row in labels for label in row) / sum(map(len, labels))


@dataclass(frozen=True)
class TokenView:
    """The tokens of one row by kind: prompt, supervised, end, padding. HTML in a notebook, text in a terminal.

    The kinds differ in shape as well as in colour: a prompt is plain, supervised tokens are bold and underlined, an end
    is in a box, padding is struck out. In a terminal they are plain, [bracketed], [[EOS]] and ~.
    """

    tokens: list[str]
    ids: list[int]
    labels: list[int]
    attended: list[int]
    stops: frozenset[int]

    @property
    def kinds(self) -> list[str]:
        """For each token: prompt, supervised, end or padding."""
        return [
            "padding" if not seen and label == IGNORED
            else "prompt" if label == IGNORED
            else "end" if label in self.stops
            else "supervised"
            for label, seen in zip(self.labels, self.attended, strict=True)
        ]  # fmt: skip

    @property
    def answers(self) -> list[list[int]]:
        """The labels in the loss, without padding, in runs: those of each answer."""
        runs: list[list[int]] = []
        before = False
        for label, seen in zip(self.labels, self.attended, strict=True):
            learned = label != IGNORED and bool(seen)
            if learned and not before:
                runs.append([])
            if learned:
                runs[-1].append(label)
            before = learned
        return runs

    @property
    def ends(self) -> int:
        """The number of labels that end an answer, without padding."""
        return sum(map(self._ends, self.answers))

    @property
    def teaches_stopping(self) -> bool:
        """Whether the last label of each answer is an end, and the only one in it."""
        return bool(self.answers) and all(map(self._stops, self.answers))

    @property
    def verdict(self) -> str:
        """The share of supervised tokens, and whether this row teaches stopping."""
        learned = sum(label != IGNORED for label in self.labels)
        padding = sum(not seen and label != IGNORED for label, seen in zip(self.labels, self.attended, strict=True))
        notes = [f"{learned} of {len(self.labels)} tokens are supervised ({learned / max(1, len(self.labels)):.0%})"]
        if padding:
            notes.append(f"{padding} of them are padding")
        if not learned:
            notes.append("it teaches nothing")
        return "; ".join([*notes, *self._on_stopping()])

    def _on_stopping(self) -> list[str]:
        if len(self.answers) > 1:
            faults = [
                f"{self._ends(run)} labels of answer {number} are ends, so it teaches to stop before its end"
                if self._ends(run) > 1
                else f"answer {number} does not teach to stop"
                for number, run in enumerate(self.answers, start=1)
                if not self._stops(run)
            ]
            return [f"{len(self.answers)} answers are learned{'' if faults else ', and each teaches to stop'}", *faults]
        if self.ends > 1:
            return [f"{self.ends} labels are EOS, so it teaches to stop before its end"]
        return ["it teaches to stop" if self.teaches_stopping else "it does not teach to stop"]

    def _ends(self, run: Sequence[int]) -> int:
        return sum(label in self.stops for label in run)

    def _stops(self, run: Sequence[int]) -> bool:
        return run[-1] in self.stops and self._ends(run) == 1

    def __str__(self) -> str:
        formats = {"prompt": "{}", "supervised": "[{}]", "end": "[[{}]]", "padding": "~"}
        return "".join(formats[kind].format(token) for kind, token in zip(self.kinds, self.tokens, strict=True)) + (
            f"\n{self.verdict}"
        )

    def _repr_html_(self) -> str:
        # The text has the colours of the page, and each background is half transparent: readable in light and in dark.
        blue, orange = "2px solid var(--jp-brand-color1,#3b8ed0)", "2px solid var(--jp-warn-color1,#e07b39)"
        styles = {
            "prompt": "color:var(--jp-content-font-color2,inherit)",
            "supervised": f"font-weight:bold;border-bottom:{blue};background:rgba(59,142,208,.2)",
            "end": f"font-weight:bold;border:{orange};padding:0 2px;background:rgba(224,123,57,.2)",
            "padding": "text-decoration:line-through;color:var(--jp-content-font-color2,inherit)",
        }
        shown = []
        for token, number, label, kind in zip(self.tokens, self.ids, self.labels, self.kinds, strict=True):
            title = f"{kind}: id {number}, label {'ignored' if label == IGNORED else label}"
            written = html.escape(token).replace("\n", "&#8629;<br>")
            shown.append(f"<span style='{styles[kind]};margin:0 1px' title='{title}'>{written}</span>")
        key = " ".join(f"<span style='{style};margin-right:8px'>{kind}</span>" for kind, style in styles.items())
        box = "font-family:var(--jp-code-font-family,monospace);line-height:1.9"
        return (
            f"<div style='{box};white-space:pre-wrap;overflow-wrap:anywhere'>{''.join(shown)}</div>"
            f"<div style='margin:6px 0'>{key}</div><div>{html.escape(self.verdict)}</div>"
        )


def token_view(
    row: Mapping[str, Sequence[int]], tokenizer: PreTrainedTokenizerBase, *, template: Format = ALPACA
) -> TokenView:
    """Return the view of an encoded `row`: input_ids, labels, and attention_mask if it is padded.

    `tokenizer` decodes the ids one by one; `template` is the format of the row, which says what ends an answer.
    """
    ids = [int(number) for number in row["input_ids"]]
    attended = [int(seen) for seen in row.get("attention_mask", [1] * len(ids))]
    labels = [int(label) for label in row["labels"]]
    tokens = [tokenizer.decode([number]) for number in ids]
    return TokenView(tokens, ids, labels, attended, frozenset(ends(template, tokenizer)))


def _require_one_question(row: Mapping[str, Any]) -> None:
    """Raise BadInput if `row` is a conversation of which a template for one instruction would leave out a part."""
    before = conversations.question(row)[:-1]
    if not before:
        return
    has = "a system turn" if before[0]["role"] == "system" else "several questions"
    raise BadInput(
        f"{fields.named(row)} has {has}, and the template has room for one instruction; set template=chat, or "
        "leave the row out"
    )
