"""The tokens of a conversation that its assistant wrote, in the chat format of a model.

A template writes a conversation as one text. An answer is what comes after the prompt that generation would be given at
that point (the turns before it, with the generation prompt), up to and with the token that ends the turn. This holds
only if that prompt is the beginning of what is trained on, token for token. Otherwise the model would be asked in
another way than it was taught, so such a template or row is refused. Where the template marks the answers itself
(`{% generation %}`), the marks must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ftlab.data.conversations import Turn
from ftlab.errors import BadInput
from ftlab.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE: list[Turn] = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a part of a character is decoded to
TWICE: list[Turn] = [*PROBE, {"role": "user", "content": "three"}, {"role": "assistant", "content": "four"}]
ROW = "leave the row out"


class Renderer(Protocol):
    """A chat format: `text` and `ids` of turns, with the generation prompt if `asked`; `marks` of the template.

    `otherwise` is what to do if the template does not serve.
    """

    tokenizer: PreTrainedTokenizerBase
    otherwise: str

    def text(self, said: Sequence[Turn], *, asked: bool = False) -> str:
        """Return the turns as the template writes them."""
        ...

    def ids(self, said: Sequence[Turn], *, asked: bool = False) -> list[int]:
        """Return the token ids of the turns."""
        ...

    def marks(self, said: Sequence[Turn]) -> list[int] | None:
        """Return 1 for each token that the template marks as the assistant's, else 0; None without such marks."""
        ...


def end_of_turn(chat: Renderer) -> str:
    """Return the token, as written, that ends an assistant's turn in the format `chat`.

    Raises BadInput if no token of the tokenizer ends it, or if the template adds text of its own to an answer: rows
    have no such text, so it would be learned as a part of each.
    """
    rest = _after_answer(chat, PROBE, 1, chat.text(PROBE))
    tokens = [token for token in chat.tokenizer.added_tokens_encoder if rest.startswith(token)]
    if not tokens:
        what = f"{quoted(rest[:20])}, which is no token of its tokenizer" if rest else "nothing"
        raise BadInput(
            f"the model's chat template ends an answer with {what}, so it cannot teach to stop; {chat.otherwise}"
        )
    return max(tokens, key=len)


def takes_several(chat: Renderer, end: str) -> bool:
    """Return whether a conversation of several answers, each ended by `end`, can be learned in the format `chat`.

    Some templates of models that think write an earlier answer without the empty thought that stands before the last
    one. Then the prompt of the earlier answer is not what generation would be given.
    """
    try:
        spans(chat, TWICE, end)
    except BadInput:
        return False
    return True


def spans(chat: Renderer, said: Sequence[Turn], end: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of a conversation, and the first and last place (exclusive) of each answer with its end token.

    Args:
        chat: the format.
        said: the turns of the conversation, of which the last is the assistant's.
        end: the token that ends an assistant's turn (`end_of_turn`).

    Raises:
        BadInput: an answer does not follow the prompt that generation would be given for it, or the template does not
            end it with `end`, or leaves out or changes a turn.
    """
    text, ids = chat.text(said), chat.ids(said)
    last = int(chat.tokenizer.convert_tokens_to_ids(end))
    found = []
    for place, turn in enumerate(said):
        if turn["role"] != "assistant":
            continue
        if not (rest := _after_answer(chat, said, place, text)).startswith(end):
            raise BadInput(
                f"turn {place + 1}: the model's chat template ends it with {quoted(rest[:20]) if rest else 'nothing'}, "
                f"and an answer alone with {end!r}; {ROW}"
            )
        before = chat.ids(said[:place], asked=True)
        if ids[: len(before)] != before or last not in ids[len(before) :]:
            raise BadInput(f"turn {place + 1}: {_reason(turn)}")
        found.append((len(before), ids.index(last, len(before)) + 1))
    _require_all_said(said, text)
    _require_marks(chat, said, ids, found)
    return ids, found


def _after_answer(chat: Renderer, said: Sequence[Turn], place: int, text: str) -> str:
    """What the template writes after the answer at `place` of the turns that it writes as `text`."""
    asked = chat.text(said[:place], asked=True)
    where, advice = ("", chat.otherwise) if said is PROBE else (f"turn {place + 1}: ", ROW)
    if not text.startswith(asked):
        raise BadInput(
            f"{where}the prompt that the model's chat template writes for generation is not what it writes before an "
            f"answer in training (the first ends with {quoted(asked[-30:])}); {advice}"
        )
    rest, words = text[len(asked) :].lstrip(), said[place]["content"].strip()
    if not rest.startswith(words):
        raise BadInput(
            f"{where}the model's chat template changes the answer, or adds text of its own to it (it begins "
            f"{quoted(rest[:30])}); {advice}"
        )
    return rest[len(words) :].lstrip()


def _reason(turn: Turn) -> str:
    """Why the ids of the prompt are no prefix although its text is."""
    if turn["content"][:1].isspace():
        return (
            "the answer begins with white space, which the tokenizer joins with the end of the prompt, so that "
            "generation would be given other tokens than training; take the white space out"
        )
    return (
        "the tokenizer joins the beginning of the answer with the end of the prompt, so that generation would be given "
        f"other tokens than training (the answer begins {quoted(turn['content'][:20])}); write it in another way"
    )


def _require_all_said(said: Sequence[Turn], text: str) -> None:
    """Raise BadInput unless the words of each turn stand in `text`, those of user and assistant in order."""
    place = 0
    for number, turn in enumerate(said, start=1):
        words = turn["content"].strip()
        found = text.find(words, 0 if turn["role"] == "system" else place)
        if found < 0:
            raise BadInput(
                f"turn {number} ({turn['role']}): the model's chat template leaves its text out, or changes it; "
                "take the turn out, or leave the row out"
            )
        if turn["role"] != "system":
            place = found + len(words)


def _require_marks(chat: Renderer, said: Sequence[Turn], ids: Sequence[int], found: Sequence[tuple[int, int]]) -> None:
    """Raise BadInput unless the marks of the template cover each answer; its white space and its end may be outside.

    transformers maps the last character inside the marks to the first of its tokens, so that of an emoji of several
    byte tokens the others are unmarked. They are learned all the same.
    """
    marks = chat.marks(said)
    if marks is None:
        return
    for number, (start, stop) in enumerate(found, start=1):
        unmarked = [ids[place] for place in range(start, stop - 1) if not marks[place]]
        if left := chat.tokenizer.decode(unmarked).strip().strip(NO_CHARACTER):
            raise BadInput(
                f"answer {number}: the {{% generation %}} marks of the model's chat template leave {quoted(left[:30])} "
                f"out of it; {chat.otherwise}"
            )
