"""The Modelfile of an export: how Ollama asks the model, in the format in which it was trained.

Without a TEMPLATE, Ollama sends a question as it is, or in a template that it guesses. So the Modelfile contains the
trained format. Ollama's templates are in the language of Go, chat templates in Jinja, and nothing translates one into
the other. So the chat template writes conversations with marks, and the texts between the marks make the Go template.
It is refused unless it gives the text of the chat template on conversations of several kinds.

Sources: *Modelfile Reference* and *Template* in the documentation of Ollama, *text/template* in that of Go.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ftlab.data import chat, prompts, special_tokens
from ftlab.data.conversations import Turn
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Written = Callable[[Sequence[Turn]], str]
_MARKS = [f"\N{ASTERISM}{number}\N{ASTERISM}" for number in range(5)]
_SYSTEM, _ASKED, _ANSWERED, _AGAIN, _SECOND = _MARKS
# What a turn may say. The chat template is asked with each of them, and must write it as it is.
_SAID = ("Name it.", 'A "word", {{ .Prompt }} and {% set x = 1 %}', '"""', "two\nlines\n\n\nand a third", "a < b & c")
_BY_HAND = "write a Modelfile by hand"


@dataclass(frozen=True)
class Pieces:
    """The texts that a format writes around turns: what Ollama's template needs.

    A conversation begins with `begin`. `system`, `user` and `assistant` are each the texts before and after a turn of
    that role; `system` is None if the format has no such turn. `generation` comes last. `default` is the system text of
    a conversation that brings none. If `folded` is given, the system text is no turn of its own: a conversation begins
    with `folded` around it instead of `begin`, and `always` says whether it does so without a system text too.
    `remarks` are sentences on what the format does with some turns, and Ollama's template cannot.
    """

    begin: str
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str
    system: tuple[str, str] | None = None
    default: str = ""
    folded: tuple[str, str] | None = None
    always: bool = False
    remarks: tuple[str, ...] = ()

    def text(self, turns: Sequence[Turn]) -> str:
        """Return the prompt after `turns`, as Ollama renders `template`."""
        if self.default and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.default}, *turns]
        told = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
        begin = told.join(self.folded) if self.folded and (told or self.always) else self.begin
        around = {"user": self.user, "assistant": self.assistant, "system": self.system}
        said = [turn["content"].join(both) for turn in turns if (both := around[turn["role"]])]
        return "".join([begin, *said, self.generation])

    def template(self) -> str:
        """Return the Go template for Ollama's TEMPLATE."""
        begin = _literal(self.begin)
        if self.folded:
            folded = "{{ .System }}".join(map(_literal, self.folded))
            begin = folded if self.always else f"{{{{ if .System }}}}{folded}{{{{ else }}}}{begin}{{{{ end }}}}"
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        cases = [
            f'if eq .Role "{role}" }}}}{"{{ .Content }}".join(map(_literal, both))}{{{{ '
            for role, both in around.items() if both
        ]  # fmt: skip
        turns = f"{{{{ range .Messages }}}}{{{{ {'else '.join(cases)}end }}}}{{{{ end }}}}"
        return begin + turns + _literal(self.generation)


def modelfile(
    file_name: str,
    tokenizer: PreTrainedTokenizerBase,
    template: prompts.Format,
    ends: Sequence[int],
    *,
    adds_bos: bool,
    context: int | None = None,
) -> str:
    """Return the text of a Modelfile, for `ollama create NAME -f MODELFILE`.

    Args:
        file_name: the name of the GGUF file, which lies beside the Modelfile.
        tokenizer: of the model.
        template: the format of the model's folder (`alpaca_chat.trained_format`).
        ends: the ids that end an answer (`generation.end_tokens`); those of `template` are added.
        adds_bos: whether the engine puts BOS before each prompt, as the GGUF file says.
        context: the most tokens of prompt and answer; by default that of Ollama, which cuts a longer prompt silently.

    Returns:
        The text. Answers are greedy, without the penalty on repetitions that is Ollama's default.

    Raises:
        BadInput: Ollama's language cannot express the format, or a name or a text in it; or there is no end token.
    """
    found = pieces(tokenizer, template, adds_bos=adds_bos)
    stops = dict.fromkeys(_end_text(tokenizer, one) for one in [*ends, *_ends_of(template, tokenizer)])
    if not stops:
        raise BadInput("the model has no end token, so Ollama would never end an answer; set tokenizer.eos_token")
    lines = [
        f"FROM ./{_one_line(file_name, 'the name of the file')}",
        "",
        *_remarks(found, template),
        f'TEMPLATE """{found.template()}"""',
        *([f"SYSTEM {_quoted(found.default, 'the default system text')}"] if found.default else []),
        "",
        "# Greedy answers. The penalty on repetitions, which Ollama sets by default, would change them.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        *([f"PARAMETER num_ctx {context}"] if context else []),
        *(f"PARAMETER stop {_quoted(stop, 'an end token')}" for stop in stops),
    ]
    return "\n".join(lines) + "\n"


def pieces(tokenizer: PreTrainedTokenizerBase, template: prompts.Format, *, adds_bos: bool) -> Pieces:
    """Return what `template` writes around the turns of a conversation.

    `tokenizer` and `adds_bos` are as for `modelfile`; a BOS that the engine adds is left out. Raises BadInput if these
    pieces do not give the text of the template.
    """
    if isinstance(template, chat.Chat):
        return _of_chat(template, adds_bos)
    return _of_headings(template, tokenizer, adds_bos)


def _of_headings(template: prompts.Template, tokenizer: PreTrainedTokenizerBase, adds_bos: bool) -> Pieces:
    """The pieces of headings around one question. Of a second one they are those of `alpaca_chat`."""
    before, after = _split(str(template.prompt({"instruction": _ASKED, "input": ""})), [_ASKED])
    if tokenizer.eos_token is None:
        raise BadInput(f"the tokenizer has no EOS token, with which answers in the headings end; {_BY_HAND}")
    ids = special_tokens.around(tokenizer)[0]
    begins = "".join(tokenizer.convert_ids_to_tokens(ids))
    begin = _without_bos(begins, tokenizer, adds_bos)
    return Pieces(begin, (before, ""), (after, f"{tokenizer.eos_token}\n\n"), after)


def _of_chat(template: chat.Chat, adds_bos: bool) -> Pieces:
    """The pieces of a chat template, checked on conversations."""
    if "strftime_now" in template.template:
        raise BadInput(f"the model's chat template writes the day's date, and Ollama's templates cannot; {_BY_HAND}")
    asked = chat.Chat(template.tokenizer, templates=template.template, otherwise=_BY_HAND)

    def written(turns: Sequence[Turn]) -> str:
        return _without_bos(asked.text(turns, asked=True), asked.tokenizer, adds_bos)

    found = _pieces(written, asked)
    if _differs(found, written):
        raise BadInput(
            "the model's chat template writes a turn differently by its place or its text, which Ollama's templates "
            f"cannot; {_BY_HAND}"
        )
    return replace(found, default=template.system or found.default, remarks=_not_done(found, written))


def _pieces(written: Written, template: chat.Chat) -> Pieces:
    """Find the texts around marks in the places of turns."""
    head, last = _split(written(_turns(_ASKED)), [_ASKED])
    _, first, between, _ = _split(written(_turns(_ASKED, _ANSWERED, _AGAIN)), [_ASKED, _ANSWERED, _AGAIN])
    system = written(_turns(_ASKED, system=_SYSTEM)) if template.takes_system else f"{_SYSTEM}{_ASKED}"
    opened, closed, _ = _split(system, [_SYSTEM, _ASKED])
    default = _default(written, head, opened, closed) if template.takes_system else None

    # A question and its answer are followed by `after` and what comes next: an answer, a question, or nothing.
    said = template.text(_turns(_ASKED)).partition(_ASKED)[2]
    without_eos = said.removesuffix(template.tokenizer.eos_token or "")  # it ends a whole conversation, as Phi-4's does
    fitting = (one for one in (said, without_eos) if first.startswith(one) and last.startswith(one))
    after = next(fitting, _common_start(first, last))
    start = head if default is None else closed
    before = between.removeprefix(after)
    if not start.endswith(before):
        before = _common_start(between[::-1], start[::-1])[::-1]
    answer, generation = (first.removeprefix(after), between.removesuffix(before)), last.removeprefix(after)
    begin, closed_turn = head.removesuffix(before), closed.removesuffix(before)

    if not template.takes_system:
        return Pieces(begin, (before, after), answer, generation)
    if default:
        return Pieces("", (before, after), answer, generation, system=(opened, closed_turn), default=default)
    if default == "":
        return Pieces("", (before, after), answer, generation, folded=(opened, closed_turn), always=True)
    if closed.endswith(before) and opened.startswith(begin):
        return Pieces(begin, (before, after), answer, generation, system=(opened.removeprefix(begin), closed_turn))
    # The system text is a part of the first question, or changes what comes before it.
    return Pieces(head, ("", after), (answer[0], between), generation, folded=(opened, closed))


def _not_done(found: Pieces, written: Written) -> tuple[str, ...]:
    """Return a sentence on each thing that the template does with some turns, and the pieces do not."""
    told = " d " if found.system or found.folded else None
    cases = {
        "In training, white space around a message was removed; here it is not, so send none.": _turns(
            " a ", " b\n", "\tc", system=told
        ),
        "In training, thoughts were removed from earlier answers; here they are not, so send none.": _turns(
            "a", "<think>\nHm.\n</think>\n\nb", "c"
        ),
    }
    if told:
        between = [*_turns("a"), {"role": "system", "content": "b"}, *_turns("c")]
        cases["In training, a system message came first; between others it is written differently here."] = between
    return tuple(said for said, turns in cases.items() if not _is_same(found, written, turns))


def _is_same(found: Pieces, written: Written, turns: Sequence[Turn]) -> bool:
    """Whether the pieces give the text of the template, which may refuse the turns."""
    try:
        return found.text(turns) == written(turns)
    except BadInput:
        return False


def _common_start(one: str, other: str) -> str:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(left for left, _ in same)


def _default(written: Written, head: str, opened: str, closed: str) -> str | None:
    """Return the system text that is there if none is given, or None if there is not even a place for one."""
    if not (head.startswith(opened) and head.endswith(closed) and len(head) >= len(opened) + len(closed)):
        return None
    default = head[len(opened) : len(head) - len(closed)]
    return default if written(_turns(_ASKED, system=default)) == written(_turns(_ASKED)) else None


def _differs(found: Pieces, written: Written) -> bool:
    """Whether the pieces give another text than the template for one of several conversations."""
    systems = [None, *_SAID] if found.system or found.folded else [None]
    for system, said in itertools.product(systems, _SAID):
        for others in ([], [_ANSWERED, _AGAIN], [said, _AGAIN, _SECOND, said]):
            turns = _turns(said, *others, system=system)
            if found.text(turns) != written(turns):
                return True
    return False


def _turns(*said: str, system: str | None = None) -> list[Turn]:
    """Return the turns of user and assistant that say `said`, after `system` if there is one."""
    told: list[Turn] = [] if system is None else [{"role": "system", "content": system}]
    return told + [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(said)]


def _split(text: str, marks: Sequence[str]) -> list[str]:
    """Return the texts before, between and after the `marks`. Raises BadInput unless each is there once, in order."""
    if any(text.count(mark) != 1 for mark in marks) or [*marks] != sorted(marks, key=text.index):
        raise BadInput(f"the format writes a turn twice, or leaves one out, which Ollama's template cannot; {_BY_HAND}")
    return re.split("|".join(map(re.escape, marks)), text)


def _without_bos(text: str, tokenizer: PreTrainedTokenizerBase, adds_bos: bool) -> str:
    """Return the `text` of a prompt without the BOS that the engine adds."""
    if not adds_bos:
        return text
    bos = tokenizer.bos_token
    if not bos or not text.startswith(bos):
        raise BadInput(
            f"the GGUF file asks for BOS before each prompt, and the trained format begins without; {_BY_HAND}, "
            "or correct add_bos_token in the model's tokenizer_config.json"
        )
    return text.removeprefix(bos)


def _ends_of(template: prompts.Format, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return template.known_ends if isinstance(template, chat.Chat) else prompts.ends(template, tokenizer)


def _end_text(tokenizer: PreTrainedTokenizerBase, number: int) -> str:
    """Return an end token as Ollama sees it in the text of an answer."""
    text = str(tokenizer.decode([number], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if not text.strip() or "\N{REPLACEMENT CHARACTER}" in text:  # a token may be a part of a character
        raise BadInput(f"the end token {number} has no text of its own, so Ollama cannot stop there; {_BY_HAND}")
    return text


def _remarks(found: Pieces, template: prompts.Format) -> list[str]:
    """Return comments on where the format comes from, and on what the template cannot say."""
    lines = [_ORIGIN, "# A special token in a message is special here, and not text."]
    if not found.system and not found.folded:
        lines.append("# It has no place for a system message: one that is given is left out.")
    lines += [f"# {said}" for said in found.remarks]
    if heading := _input_heading(template):
        lines.append(f"# An input comes after the instruction, in the same message, after {json.dumps(heading)}.")
    return lines


def _input_heading(template: prompts.Format) -> str:
    """Return what stands between an instruction and its input, or "" if the format has no text of its own for that."""
    if isinstance(template, chat.Chat):
        return chat.ALPACA_INPUT if template.template.startswith(chat.ALPACA_MARK) else ""
    row: Mapping[str, Any] = {"instruction": _ASKED, "input": _AGAIN}
    try:
        before, heading, after = _split(str(template.prompt(row)), [_ASKED, _AGAIN])
    except BadInput:
        return ""
    return heading if str(template.prompt({"instruction": "a", "input": ""})) == f"{before}a{after}" else ""


_ORIGIN = (
    "# The format is the chat template of the model's folder; without one, a question is sent as it is. If the model "
    "was trained in another format, write that one here."
)

# What begins an action in a Go template, and what ends a text in a Modelfile.
_ESCAPED = re.compile(r'\{|"{3,}')


def _literal(text: str) -> str:
    """Return `text` as a piece of a Go template in a Modelfile."""
    escaped = {place for found in _ESCAPED.finditer(text) for place in range(*found.span())}
    escaped |= {place for place, one in enumerate(text) if _is_dropped(one)}
    parts = []
    for is_escaped, places in itertools.groupby(range(len(text)), escaped.__contains__):
        piece = [text[place] for place in places]
        parts.append(f'{{{{ "{"".join(map(_go_escape, piece))}" }}}}' if is_escaped else "".join(piece))
    return "".join(parts)


def _is_dropped(one: str) -> bool:
    """Whether Ollama's reader of Modelfiles drops a character: it keeps what prints, spaces and line ends."""
    return one not in "\n\t" and not one.isprintable()


def _go_escape(one: str) -> str:
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"


def _quoted(text: str, what: str) -> str:
    """Return `text` in the quotes of a Modelfile. Raises BadInput if they cannot hold it."""
    if '"""' in text or any(map(_is_dropped, text)):
        raise BadInput(f"{what} is {text[:40]!r}, which a Modelfile cannot hold; {_BY_HAND}")
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'


def _one_line(text: str, what: str) -> str:
    if "\n" in text or any(map(_is_dropped, text)) or text != text.strip():
        raise BadInput(f"{what} is {text!r}, which a Modelfile cannot hold; choose another name")
    return text
