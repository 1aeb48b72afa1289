"""From an instruction and its answer to ids and labels: what the model reads, and what it is to learn.

A causal language model learns to continue. To learn to **answer**, it must be trained on the answer alone, given the
prompt, and on the token that ends it: labels are -100 (which the loss leaves out) on the prompt and on padding, and the
ids themselves on the completion and its EOS. What a row says is text: "</s>" in it is five characters, and no end.
"""

from __future__ import annotations

import html
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlab.data import special_tokens
from ftlab.data.special_tokens import Prompt
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that PyTorch's cross-entropy leaves out


@dataclass(frozen=True)
class Template:
    """The words around an instruction: `with_input` where a row has an input, `without_input` where it has none.

    Placeholders are the names of a row's columns, in braces. A special token in the template is meant as one, as a chat
    format's are; in a row it is text.
    """

    with_input: str
    without_input: str

    def prompt(self, row: Mapping[str, Any]) -> Prompt:
        """All that stands before the answer.

        Raises BadInput for no instruction, a placeholder that the row lacks, and a value that is no text.
        """
        if not _said(row, "instruction").strip():
            raise BadInput(f"{_named(row)} has no instruction; give it one, or leave the row out")
        text = self.with_input if _said(row, "input").strip() else self.without_input
        return Prompt.of(self._parts(text, row))

    def lines(self) -> set[str]:
        """The lines that are the template's own words and no more."""
        words = [
            literal + ("" if name is None else "\0")
            for text in (self.with_input, self.without_input)
            for literal, name, _, _ in [*string.Formatter().parse(text), ("\n", None, None, None)]
        ]
        return {line.strip() for line in "".join(words).split("\n") if line.strip() and "\0" not in line}

    def _parts(self, text: str, row: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
        """The template's own words and the row's values, in their order."""
        for literal, name, layout, conversion in string.Formatter().parse(text):
            yield literal, True
            if name is None:
                continue
            if name not in row:
                raise BadInput(
                    f"the template asks for {{{name}}}, and {_named(row)} has {', '.join(row)}; rename the column or "
                    "the placeholder"
                )
            field = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{layout}' if layout else ''}}}"
            yield field.format(**{name: _value(row, name)}), False


# The headings of Stanford Alpaca (Taori et al. 2023), without its opening sentence.
ALPACA = Template(
    with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    without_input="### Instruction:\n{instruction}\n\n### Response:\n",
)


@dataclass(frozen=True)
class Cut:
    """What `max_length` cost: how many rows lost how many tokens of their prompts."""

    rows: int
    cut_rows: int
    cut_tokens: int

    def __str__(self) -> str:
        return f"{self.cut_rows:,} of {self.rows:,} rows lost {self.cut_tokens:,} tokens of their prompts"


def encode(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int, template: Template = ALPACA
) -> tuple[Dataset, Cut]:
    """`rows` with input_ids, attention_mask and labels beside their columns, and what was cut (see `encode_row`).

    The columns are instruction, output and perhaps input. Raises BadInput for a row that cannot be learned from, by its
    id or number.
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
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, max_length: int, template: Template = ALPACA
) -> dict[str, Any]:
    """input_ids, attention_mask and labels of one row, without padding, and `cut`: prompt tokens that did not fit.

    Prompt and completion are tokenized **apart** and their ids joined, since that is what generation sees: together, a
    token may reach across the boundary, and the prompt's own tokenization is no prefix of it. EOS ends the completion.
    What is over `max_length` is taken from the left of the prompt (a token that begins every text stays); completion
    and EOS are never cut, since a model that sees no end learns none. For example, with max_length 7:

        prompt      p1 p2 p3 p4 p5      completion  c1 c2 c3      EOS
        input_ids   p3 p4 p5 c1 c2 c3 EOS       cut 2
        labels      -100 -100 -100 c1 c2 c3 EOS
    """
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
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, template: Template = ALPACA
) -> tuple[list[int], list[int]]:
    """The ids of a row's prompt and of its answer with EOS, neither cut: what training reads, and an audit counts.

    Raises BadInput for a tokenizer without EOS, and for a row without instruction or output.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise BadInput("the tokenizer has no EOS token, so no answer can end; set tokenizer.eos_token")
    answer = answer_ids(row, tokenizer)
    return question_ids(row, tokenizer, template=template), [*answer, end]


def require_whole(row: Mapping[str, Any], answer: int, max_length: int) -> None:
    """Raise BadInput unless an answer of so many tokens, with EOS, leaves room for some of its prompt."""
    if answer >= max_length:
        raise BadInput(
            f"the output of {_named(row)} has {answer} tokens with EOS, and max_length is {max_length}; shorten "
            "it, raise max_length, or leave the row out: a cut answer teaches not to stop"
        )


def question_ids(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, template: Template = ALPACA
) -> list[int]:
    """The ids that generation starts from to answer a row. Raises BadInput for a row without an instruction."""
    return prompt_ids(template.prompt(row), tokenizer, where=f"the prompt of {_named(row)}")


def answer_ids(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a row's output, without EOS. Raises BadInput for a row without one."""
    if not _said(row, "output").strip():
        raise BadInput(f"{_named(row)} has no output; give it an answer, or leave the row out")
    return completion_ids(_said(row, "output"), tokenizer, where=f"the output of {_named(row)}")


def completion_ids(text: str, tokenizer: PreTrainedTokenizerBase, *, where: str = "the output") -> list[int]:
    """The ids of an answer, without EOS; special tokens in it are text (see `special_tokens.plain_ids`)."""
    return special_tokens.plain_ids(text, tokenizer, add_special_tokens=False, where=where)


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerBase, *, where: str = "the prompt") -> list[int]:
    """The ids that generation starts from: with what the tokenizer puts before a text, without an EOS behind it.

    Special tokens are read as such where a template holds them (`Template.prompt`), and are text anywhere else. Raises
    BadInput, naming `where`, for a tokenizer that cannot read one as text.
    """
    ids = special_tokens.prompt_ids(prompt, tokenizer, where=where)
    while ids and ids[-1] == tokenizer.eos_token_id != tokenizer.bos_token_id:
        ids.pop()
    return ids


def supervised_share(labels: Sequence[Sequence[int]]) -> float:
    """The share of tokens that the loss counts, of rows as `encode` made them."""
    return sum(label != IGNORED for row in labels for label in row) / sum(map(len, labels))


@dataclass(frozen=True)
class TokenView:
    """One row token by token: what is read, what is learned, where it ends. HTML in a notebook, text in a terminal.

    The kinds differ in shape as well as in colour: a prompt is plain, what is supervised stands underlined in bold, EOS
    in a box, padding is struck out. In the text they are plain, [bracketed], [[EOS]] and ~.
    """

    tokens: list[str]
    ids: list[int]
    labels: list[int]
    attended: list[int]
    eos: int | None

    @property
    def kinds(self) -> list[str]:
        """prompt, supervised, end or padding, for each token."""
        return [
            "padding" if not seen and label == IGNORED
            else "prompt" if label == IGNORED
            else "end" if label == self.eos
            else "supervised"
            for label, seen in zip(self.labels, self.attended, strict=True)
        ]  # fmt: skip

    @property
    def ends(self) -> int:
        """How many labels are EOS, padding aside."""
        return sum(label == self.eos and bool(seen) for label, seen in zip(self.labels, self.attended, strict=True))

    @property
    def teaches_stopping(self) -> bool:
        """Whether the last label that counts is EOS, stands where the row ends, and is the only EOS before padding."""
        learned = [place for place, label in enumerate(self.labels) if label != IGNORED]
        at_the_end = bool(learned) and self.labels[learned[-1]] == self.eos
        return at_the_end and not any(self.attended[learned[-1] + 1 :]) and self.ends <= 1

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
        if self.ends > 1:
            notes.append(f"{self.ends} labels are EOS, so it teaches to stop before its end")
        else:
            notes.append("it teaches to stop" if self.teaches_stopping else "it does not teach to stop")
        return "; ".join(notes)

    def __str__(self) -> str:
        faces = {"prompt": "{}", "supervised": "[{}]", "end": "[[{}]]", "padding": "~"}
        return "".join(faces[kind].format(token) for kind, token in zip(self.kinds, self.tokens, strict=True)) + (
            f"\n{self.verdict}"
        )

    def _repr_html_(self) -> str:
        styles = {
            "prompt": "color:#555",
            "supervised": "font-weight:bold;border-bottom:3px solid #1f77b4;background:#e8f1fa",
            "end": "font-weight:bold;border:2px solid #d95f02;padding:0 2px;background:#fdeee2",
            "padding": "text-decoration:line-through;color:#999",
        }
        shown = []
        for token, number, label, kind in zip(self.tokens, self.ids, self.labels, self.kinds, strict=True):
            title = f"{kind}: id {number}, label {'ignored' if label == IGNORED else label}"
            face = html.escape(token).replace("\n", "&#8629;<br>").replace(" ", "&nbsp;")
            shown.append(f"<span style='{styles[kind]};margin:0 1px' title='{title}'>{face}</span>")
        key = " ".join(f"<span style='{style};margin-right:8px'>{kind}</span>" for kind, style in styles.items())
        return (
            f"<div style='font-family:monospace;line-height:2'>{''.join(shown)}</div>"
            f"<div style='margin-top:4px'>{key}</div><div>{html.escape(self.verdict)}</div>"
        )


def token_view(row: Mapping[str, Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> TokenView:
    """The view of an encoded row: input_ids, labels, and attention_mask if it is padded."""
    ids = [int(number) for number in row["input_ids"]]
    attended = [int(seen) for seen in row.get("attention_mask", [1] * len(ids))]
    labels = [int(label) for label in row["labels"]]
    return TokenView([tokenizer.decode([number]) for number in ids], ids, labels, attended, tokenizer.eos_token_id)


def _said(row: Mapping[str, Any], name: str) -> str:
    return str(_value(row, name))


def _value(row: Mapping[str, Any], name: str) -> str | float:
    """The text or number in a column of a row, "" where there is none. Raises BadInput for what is neither."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and value != value):  # NaN, pandas' word for nothing
        return ""
    if not isinstance(value, (str, int, float)):
        kind = "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"
        raise BadInput(f"the {name} of {_named(row)} is {kind}, {value!a:.40}; expected a text")
    return value


def _named(row: Mapping[str, Any]) -> str:
    return f"row {row['id']}" if row.get("id") is not None else f"row {row['row']}" if "row" in row else "the row"
