"""Conversations: rows whose answer follows several turns, as chat models are trained on.

A row is a list of turns. OpenAI's form has `role` and `content`, ShareGPT's has `from` and `value`; both are read as
{"role": ..., "content": ...} with the roles system, user and assistant. The system turn, if any, is the first; then
user and assistant take turns, and the assistant has the last word: the answer to learn.
"""

from __future__ import annotations

import ast
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ftlab import strict_json
from ftlab.data import fields
from ftlab.data.values import is_whole
from ftlab.errors import BadInput
from ftlab.wording import beginning, quoted, visible

Turn = dict[str, str]  # role and content

COLUMNS = ("messages", "conversations", "conversation")  # the names that data sets of conversations give the column
FORMS = (("role", "content"), ("from", "value"))
ROLES = {
    "system": "system", "developer": "system",  # OpenAI's newer name
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant",  # Gemma's name
}  # fmt: skip
TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call", "tool_call", "tool_response")
# Keys of a turn that say more than its text. To drop them would train on another conversation than the file has.
PARTS = {
    "tool_calls": "a call of a tool", "function_call": "a call of a tool", "tool_call_id": "the answer of a tool",
    "reasoning_content": "reasoning", "reasoning": "reasoning", "thinking": "reasoning",
    "images": "pictures", "image": "a picture", "audio": "sound", "videos": "films",
    "refusal": "a refusal",
}  # fmt: skip
INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")  # categories of Unicode; the zero-width space is in Cf
BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a symbol without ink
# Keys that say whether a turn is learned, each with the values, as written, of a turn that is learned like any other.
WEIGHTS = (
    "weight", "train", "trainable", "training", "train_on_turn", "train_detail", "learn", "loss", "loss_weight",
    "loss_mask",
)  # fmt: skip
LEARNED = {
    **dict.fromkeys(WEIGHTS, ("1", "1.0", "true")),
    "masked": ("0", "0.0", "false"),
    "mask": (),  # of a turn that is not to be learned, or of one that is: data sets differ
}
# Columns beside the conversation that change what the model would read.
BESIDE = {
    "system": "a system text", "system_prompt": "a system text", "tools": "tools", "functions": "tools",
    "images": "pictures", "image": "pictures", "chat_template_kwargs": "options of the chat template",
}  # fmt: skip
HISTORY = "history"  # a column beside a pair of instruction and output: the turns before it
LABEL = "label"  # false: a bad answer, in data sets of preferences
CORRECT = "correct the row, or leave it out"


def of_frame(frame: pd.DataFrame) -> str | None:
    """Return the name of the column of `frame` that has conversations (one of COLUMNS), or None.

    A column of one of these names beside `instruction` and `output` counts only if its values are lists.
    """
    there = [name for name in COLUMNS if name in frame.columns]
    lists = [name for name in there if any(_as_list(value) is not None for value in frame[name].dropna().head(10))]
    pairs = {"instruction", "output"} <= {*frame.columns}
    return next(iter(lists or ([] if pairs else there)), None)


def read(values: Iterable[Any], where: str) -> list[list[Turn]]:
    """Return the turns of each conversation.

    Args:
        values: lists of turns in one of FORMS, or such a list as text, in JSON or as Python writes it (a cell of CSV).
        where: the file and column, for messages.

    Raises:
        BadInput: a value is no conversation (`problem_of`); the message has the number of its row, from 0.
    """
    found = []
    for number, value in enumerate(values):
        if problem := problem_of(value):
            raise BadInput(f"{where}, row {number}: {problem}")
        found.append(_turns(value))
    return found


def require_alone(frame: pd.DataFrame, where: str) -> None:
    """Raise BadInput, which begins with `where`, for a row of `frame` with a `problem_beside` its conversation."""
    columns = [name for name in (*BESIDE, LABEL) if name in frame.columns]
    for number, row in enumerate(frame[columns].to_dict("records") if columns else []):
        if problem := problem_beside(row):
            raise BadInput(f"{where}, row {number}: {problem}")


def problem_beside(row: Mapping[Any, Any]) -> str:
    """Return which column of `row` would change what the model reads or learns, with what to do; or "".

    >>> problem_beside({"messages": [], "system": "Be brief."})
    "it has a system text in the column 'system', which is not read; write it as the first turn of the conversation"
    """
    for name, kind in BESIDE.items():
        if is_said(row.get(name)):
            advice = "write it as the first turn of the conversation" if "system" in name else CORRECT
            return f"it has {kind} in the column {name!r}, which is not read; {advice}"
    if str(row.get(LABEL)).strip().lower() == "false":
        return (
            "it has false in the column 'label', which marks a bad answer, and each answer is learned as a good one; "
            "leave the row out"
        )
    return ""


def require_whole(frame: pd.DataFrame, where: str) -> None:
    """Raise BadInput, which begins with `where`, for a pair of `frame` that is a part of a conversation.

    A row is one with turns before it (HISTORY), or with something in one of the columns BESIDE.
    """
    columns = {HISTORY: "earlier turns", **BESIDE}
    columns = {name: kind for name, kind in columns.items() if name in frame.columns}
    for number, row in enumerate(frame[[*columns]].to_dict("records") if columns else []):
        for name, kind in columns.items():
            if is_said(row[name]):
                begin = "these turns" if name == HISTORY else "this text" if "system" in name else ""
                whole = f"write the row as a conversation (messages) that begins with {begin}, or leave the column out"
                advice = whole if begin else CORRECT
                raise BadInput(
                    f"{where}, row {number}: it has {kind} in the column {name!r}, which is not read beside an "
                    f"instruction and its output; {advice}"
                )


def problem_of(value: Any) -> str:
    """Return why `value` is not a conversation that a model can learn from, with what to do; "" if it is one.

    >>> problem_of([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}])
    ''
    >>> problem_of([{"from": "human", "value": "Why?"}])
    'it has no assistant turn, so there is nothing to learn; give it an answer, or leave the row out'
    """
    turns = _as_list(value)
    if turns is None:
        how = "; write the list as JSON" if isinstance(value, str) and value.strip() else ""
        return f'it is {_called(value)}; expected a list of turns such as {{"role": "user", "content": "Why?"}}{how}'
    if not turns:
        return "it has no turns; leave the row out"
    for number, turn in enumerate(turns, start=1):
        if problem := _problem_of_turn(turn):
            return f"turn {number} {problem}"
    return _problem_of_order([_role(turn) for turn in turns])


def turns(row: Mapping[str, Any], *, before_input: str = "\n\n") -> list[Turn]:
    r"""Return the turns of a `row`: its messages, or else its instruction with its input, and its output.

    `before_input` stands between an instruction and its input.

    Raises BadInput, which names the row, if it has no conversation and no instruction and output.
    """
    if not _is_nothing(row.get("messages")):
        if problem := problem_of(row["messages"]):
            raise BadInput(f"the conversation of {fields.named(row)}: {problem}")
        return _turns(row["messages"])
    return [*question(row, before_input=before_input), {"role": "assistant", "content": fields.required(row, "output")}]


def question(row: Mapping[str, Any], *, before_input: str = "\n\n") -> list[Turn]:
    """Return the turns of `row` before its last answer. A row of an instruction needs no output. Raises as `turns`."""
    if not _is_nothing(row.get("messages")):
        return turns(row)[:-1]
    asked, given = fields.required(row, "instruction"), fields.said(row, "input")
    return [{"role": "user", "content": f"{asked}{before_input}{given}" if given.strip() else asked}]


def written(said: Sequence[Turn]) -> str:
    r"""Return the turns `said` as one text, in which equal conversations are equal.

    >>> written([{"role": "user", "content": "Why?"}])
    'user: Why?'
    """
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in said)


def said_by(said: Sequence[Turn], role: str) -> str:
    """Return what one `role` says in a conversation, with a blank line between two turns."""
    return "\n\n".join(turn["content"] for turn in said if turn["role"] == role)


def _turns(value: Any) -> list[Turn]:
    return [{"role": _role(turn), "content": _content(turn) or ""} for turn in _as_list(value) or []]


def _as_list(value: Any) -> list[Any] | None:
    """The list that `value` is, or that it writes: JSON, or Python's own way, in which pandas writes a CSV file."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value, **_STRICT)
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(value.strip())
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # [{{"role"}}] has no hash
                return None
        except (ValueError, RecursionError):
            return None
    if isinstance(value, (list, tuple)):
        return list(value)
    return value.tolist() if type(value).__name__ == "ndarray" and value.ndim == 1 else None


_STRICT = strict_json.hooks(
    repeated="the name {} stands twice in it", constant="JSON has no {}", overflow="{} is too large for a number"
)


def _names(turn: Mapping[str, Any]) -> tuple[str, str] | None:
    there = [names for names in FORMS if all(name in turn for name in names)]
    return next((names for names in there if not _is_nothing(turn[names[0]])), there[0] if there else None)


def _role(turn: Mapping[str, Any]) -> str:
    names = _names(turn)
    return ROLES[str(turn[names[0]]).strip().lower()] if names else ""


def _content(turn: Mapping[str, Any]) -> str | None:
    """The text of a turn. A list of one text part is that text; how several are joined is up to each template."""
    names = _names(turn)
    said = turn[names[1]] if names else None
    parts = None if isinstance(said, str) else _as_list(said)
    if parts and len(parts) == 1 and isinstance(parts[0], Mapping) and parts[0].get("type") == "text":
        said = parts[0].get("text")
    return said if isinstance(said, str) else None


def _problem_of_turn(turn: Any) -> str:
    if not isinstance(turn, Mapping):
        return f'is {_called(turn)}; expected an object with "role" and "content"'
    names = _names(turn)
    if names is None:
        keys = beginning(", ".join(map(visible, turn)), 80) or "no keys"
        return f'has {keys}; expected "role" and "content", or "from" and "value"'
    role = str(turn[names[0]]).strip().lower()
    if role in TOOL_ROLES:
        return f"is of the role {role!r}; turns of tools are not read, so leave the row out"
    if role not in ROLES:
        return (
            f"is of the unknown role {quoted(turn[names[0]])}; expected system, user or assistant (gpt and human too)"
        )
    for key, kind in PARTS.items():
        if not _is_nothing(turn.get(key)):
            return f"has {kind} ({key}), which is not read; take it out, or leave the row out"
    for key in LEARNED if ROLES[role] == "assistant" else ():  # no other turn is learned anyway
        if str(turn.get(key)).strip().lower() not in LEARNED[key] and not _is_nothing(turn.get(key)):
            return (
                f"has {key} {quoted(turn[key])}, and every assistant turn is learned alike; take the key out, or leave "
                "the row out"
            )
    said, text = turn[names[1]], _content(turn)
    if text is None and not _is_nothing(said):
        parts = "; write its parts as one text" if _as_list(said) is not None else ""
        return f"has {_called(said)} as its {names[1]}; expected a text{parts}"
    if text and not text.isascii() and not is_whole(text):
        return "has half a character (a lone surrogate) in it; write the whole one"
    if not any(map(_is_visible, text or "")):
        return f"({ROLES[role]}) is empty; give it a text, or leave the row out"
    return ""


def _is_visible(character: str) -> bool:
    """Whether `character` shows: it is no white space, control or format character, and no letter without ink."""
    return unicodedata.category(character) not in INVISIBLE and character not in BLANKS


def _problem_of_order(roles: Sequence[str]) -> str:
    if "assistant" not in roles:
        return "it has no assistant turn, so there is nothing to learn; give it an answer, or leave the row out"
    begin = int(roles[0] == "system")
    for number, role in enumerate(roles[begin:], start=begin + 1):
        expected = "assistant" if (number - begin) % 2 == 0 else "user"
        if role == "system":
            return f"turn {number} is a system turn; only the first turn may be one, so move it there or take it out"
        if role != expected and number == begin + 1:
            return (
                f"turn {number} is the assistant's, and a conversation begins with the user's; take it out, or write "
                "what was asked"
            )
        if role != expected:
            return (
                f"turn {number} is the {role}'s, as turn {number - 1} is; user and assistant take turns, so join the "
                "two, or leave the row out"
            )
    if roles[-1] == "user":
        return "its last turn is the user's, and has no answer; give it one, or take the turn out"
    return ""


def _called(value: Any) -> str:
    if _is_nothing(value):
        return "nothing"
    kinds = {str: "the text ", bool: "", int: "the number ", float: "the number ", dict: "an object, "}
    return f"{kinds.get(type(value), 'a list, ' if _as_list(value) is not None else '')}{quoted(value)}"


def is_said(value: Any) -> bool:
    """Return whether a cell says something: it is no missing value, and no empty text, list or object.

    >>> is_said(None), is_said("[]"), is_said([]), is_said(0)
    (False, False, False, True)
    """
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}")  # as a cell of CSV has them
    return not _is_nothing(value)


def _is_nothing(value: Any) -> bool:
    """Whether `value` says nothing: None, NaN, an empty text, list or object."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return hasattr(value, "__len__") and len(value) == 0
