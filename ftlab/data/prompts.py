"""From an instruction and its answer to ids and labels: what the model reads, and what it is to learn.

A causal language model learns to continue. To learn to **answer**, it must be trained on the answer alone, given the
prompt, and on the token that ends it: labels are -100 (which the loss leaves out) on the prompt and on padding, and the
ids themselves on the completion and its EOS.
"""

from __future__ import annotations

import html
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that PyTorch's cross-entropy leaves out


@dataclass(frozen=True)
class Template:
    """The words around an instruction: `with_input` where a row has an input, `without_input` where it has none.

    Placeholders are the names of a row's columns, in braces.
    """

    with_input: str
    without_input: str

    def prompt(self, row: Mapping[str, Any]) -> str:
        """All that stands before the answer. Raises BadInput for no instruction or a placeholder that it lacks."""
        if not str(row.get("instruction") or "").strip():
            raise BadInput(f"{_named(row)} has no instruction; give it one, or leave the row out")
        text = self.with_input if str(row.get("input") or "").strip() else self.without_input
        wanted = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
        if lacking := [name for name in wanted if name not in row]:
            raise BadInput(
                f"the template asks for {{{lacking[0]}}}, and {_named(row)} has {', '.join(row)}; rename the column or "
                "the placeholder"
            )
        return text.format(**{name: row[name] for name in wanted})


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
    end = tokenizer.eos_token_id
    if end is None:
        raise BadInput("the tokenizer has no EOS token, so no answer can end; set tokenizer.eos_token")
    if not str(row.get("output") or "").strip():
        raise BadInput(f"{_named(row)} has no output; give it an answer, or leave the row out")
    before = prompt_ids(template.prompt(row), tokenizer)
    answer = [*tokenizer(row["output"], add_special_tokens=False)["input_ids"], end]
    if len(answer) >= max_length:
        raise BadInput(
            f"the output of {_named(row)} has {len(answer)} tokens with EOS, and max_length is {max_length}; shorten "
            "it, raise max_length, or leave the row out: a cut answer teaches not to stop"
        )
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


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that generation starts from: with what the tokenizer puts before a text, without an EOS behind it."""
    ids = list(tokenizer(prompt)["input_ids"])
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
    def teaches_stopping(self) -> bool:
        """Whether the last label that counts is EOS, and it stands where the row ends."""
        learned = [place for place, label in enumerate(self.labels) if label != IGNORED]
        return bool(learned) and self.labels[learned[-1]] == self.eos and not any(self.attended[learned[-1] + 1 :])

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


def _named(row: Mapping[str, Any]) -> str:
    return f"row {row['id']}" if row.get("id") is not None else f"row {row['row']}" if "row" in row else "the row"
