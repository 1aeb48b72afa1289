"""Chat markers and headings of other templates, which a chat log or a model that went on talking leaves in rows.

A dialogue on request has such lines too, so none is searched where the prompt asks for one. What stands in code or in
backticks is spoken of, and does not count. Headings and lines such as "User: ..." are ordinary in manuals, forms and
lists of roles: one of them counts only as it stands in a chat, after the end of an answer and with something said, and
two of them if they take turns. Special tokens that the course knows are `special_tokens`.
"""

from __future__ import annotations

import re
from itertools import pairwise

from ftlab.data.special_tokens import WELL_KNOWN

_ASKS = (
    r"(?:human|user|nutzer(?:in)?|benutzer(?:in)?|usuari[oa]|utilisateur|utente|gebruiker|"
    r"\u043f\u043e\u043b\u044c\u0437\u043e\u0432\u0430\u0442\u0435\u043b\u044c|\u7528\u6237|\u7528\u6236|\u4eba\u7c7b|\u30e6\u30fc\u30b6\u30fc)"
)
_ANSWERS = (
    r"(?:assistant|chatgpt|gpt-?\d?|ai assistant|bot|ai|assistent(?:in)?|asistente|assistente|ki|"
    r"\u0430\u0441\u0441\u0438\u0441\u0442\u0435\u043d\u0442|\u52a9\u624b|\u52a9\u7406|\u30a2\u30b7\u30b9\u30bf\u30f3\u30c8)"
)
_ASKING, _SURE = frozenset({"human", "user", "instruction", "prompt"}), frozenset({"human", "assistant"})
_HEADING = re.compile(
    r"^[ \t]*(?P<marks>#{2,4}) ?(?P<role>human|user|assistant|instruction|response|system|prompt|bot|ai)"
    r"(?:(?P<colon> ?:)|[ \t]*$)(?P<said>[^\n]{0,200})",
    re.IGNORECASE | re.MULTILINE,
)
_ANY_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
# Tokens of formats beside those of `special_tokens`, such as <|channel|>, [|Human|] and those of DeepSeek.
_TOKEN = re.compile(
    r"<\|[a-z_]{2,24}\|>|<\uff5c[^\uff5c<>\n]{2,30}\uff5c>|\[\|(?:human|ai|user|assistant|system)\|\]"
    r"|<(?:human|bot|assistant|user)>:|\bBEGINNING OF CONVERSATION:",
    re.IGNORECASE,
)
_COLON = r"(?:\*\*)? ?[:\uff1a](?:\*\*)?"
_FIRST = re.compile(
    rf"\s*(?:\*\*)?(?P<role>{_ANSWERS}){_COLON}(?:\s|(?<=\uff1a))\s*(?P<said>[^\n]{{0,60}})", re.IGNORECASE
)
_LINE = re.compile(
    rf"\n[ \t]*(?:\*\*)?(?:(?P<asks>{_ASKS})|(?P<answers>{_ANSWERS})){_COLON}[ \t]*(?P<said>[^\n]{{0,200}})",
    re.IGNORECASE,
)
_LAST = re.compile(r"(?:^|\n)[ \t]*(?:#{2,4} ?)?(?:assistant|bot|ai|response) ?:\s*\Z", re.IGNORECASE)
_DEFINES = re.compile(r"(?:an?|the|any|one|some\w*|of|to|who|what|is|are)\b")  # "Bot: a program"
_FIELD = re.compile(
    r"[ \t]*(?:[-*+] )?(?:\*\*)?[^\W\d_][\w -]{0,20}(?:\*\*)?:(?:\*\*)?(?:\s|$)"
)  # "Password: 1234", a line of a form
_DIALOGUE = re.compile(
    r"\b(?:dialog(?:ue)?s?|conversations?|chat\w*|interviews?|transcripts?|role-?play\w*|skits?|screenplay|bots?|"
    r"assistants?|few-?shot|templates?|prompts?|log ?files?|logs?)\b"
    r"|\b(?:write|create|compose|generate|continue|simulate)\b[^.?!\n]{0,60}\b(?:scripts?|scenes?|plays?|exchange|messages?)\b",
    re.IGNORECASE,
)
_MAY_HAVE = re.compile("[:|#\uff5c\uff1a]")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
FIELD, READ = 60, 200  # characters of a line of a form or a list, and of what is read before and behind a line
FEW_WORDS = 3  # said after "User:", fewer may be a value in a form


def in_answer(answer: str, prompt: str = "", own: frozenset[str] = frozenset()) -> str:
    """Return the chat marker in `answer`, or "".

    Args:
        answer: to the prompt.
        prompt: if it asks for a dialogue, none is found.
        own: lines of the template that the rows are trained with, which are a finding of their own.

    >>> in_answer("It rains.\\n\\nHuman: And what about tomorrow?")
    'Human:'
    >>> in_answer("Human: Hi!\\nAssistant: Hello, how are you?", "Write a dialogue.")
    ''
    """
    if not _MAY_HAVE.search(answer):
        return ""
    text = _CODE.sub(" ", answer) if "`" in answer else answer
    if found := _token_or_heading(text, own):
        return found
    role = _first(text) or _turns(text)
    return role if role and not _DIALOGUE.search(prompt) else ""


def in_prompt(prompt: str, own: frozenset[str] = frozenset()) -> str:
    """Return the heading of a template that `prompt` has, or with which it ends ("Assistant:"), or "".

    `own` is as for `in_answer`.
    """
    if not _MAY_HAVE.search(prompt):
        return ""
    text = _CODE.sub(" ", prompt) if "`" in prompt else prompt
    if found := _token_or_heading(text, own):
        return found
    last = _LAST.search(text[-40:])
    return "" if last is None else last[0].strip()


def _token_or_heading(text: str, own: frozenset[str]) -> str:
    for match in _TOKEN.finditer(text) if "|" in text or "\uff5c" in text or ">:" in text else ():
        if match[0].lower() not in WELL_KNOWN:
            return match[0]
    return _heading(text, own) if "##" in text else ""


def _heading(text: str, own: frozenset[str]) -> str:
    """Return the first of the headings that take turns, or one that stands alone as in a chat; not one of a manual."""
    headings = [match for match in _HEADING.finditer(text) if _line(text, match.start()) not in own]
    if not headings:
        return ""
    roles = [match["role"].lower() for match in headings]
    first, end = len(text) - len(text.lstrip()), len(text.rstrip())
    manual = len(_ANY_HEADING.findall(text)) > len(headings)
    asking = [role in _ASKING for role in roles]
    turns = any(one != two for one, two in pairwise(asking)) and "system" not in roles
    for match, role in zip(headings, roles, strict=True):
        begins, last = match.start() <= first, match.end() >= end
        sure = role in _SURE and (match["colon"] or turns or last)
        alone = match["marks"] == "###" and match["colon"] and (match["said"].strip() or begins or last)
        if sure or (not manual and (turns or alone)):
            return (
                f"{match['marks']}{text[match.end('marks') : match.start('role')]}{match['role']}{match['colon'] or ''}"
            )
    return ""


def _first(text: str) -> str:
    """Return "Assistant:" or the like at the beginning; not of a definition ("Bot: a program")."""
    match = _FIRST.match(text[:100])
    if match is None or _DEFINES.match(match["said"]):
        return ""
    name = match["role"].lower()
    is_term = name in ("ai", "ki") or (name == "bot" and match["said"][:1].islower())
    return "" if is_term else match["role"] + ":"


def _turns(text: str) -> str:
    """Return "Human:" or the like at the beginning of a later line; not of a form, a manual or a list of roles.

    A turn begins there if another role answers, or if it says something after the end of an answer.
    """
    kept: list[re.Match[str]] = []
    listed = -1  # where the last line of a list of roles ends
    for match in _LINE.finditer(text) if ":" in text or "\uff1a" in text else ():
        if not _named(match):
            continue
        if match.start() == listed or _in_list(text, match):
            listed = match.end()
        else:
            kept.append(match)
    turns = {bool(match["asks"]) for match in kept} == {True, False}
    for match in kept:
        role, said = match["asks"] or match["answers"], match["said"].strip()
        name = role.lower()
        if turns:
            return role + ":"
        if match["answers"] and name != "assistant":
            continue
        if not said and (match["asks"] or match.end() < len(text.rstrip())):
            return role + ":"
        spoken = len(said.split()) >= FEW_WORDS or not said.isascii() or said.endswith("?")
        if spoken and (not said[:1].islower() or said.endswith("?")):
            return role + ":"
    return ""


def _named(match: re.Match[str]) -> bool:
    """Whether the role is written as a name is: "User" or "USER", or in a script without case."""
    return not (match["asks"] or match["answers"])[0].islower()


def _in_list(text: str, match: re.Match[str]) -> bool:
    """Whether the line stands below a line that ends in a colon, or beside a field or another item."""
    before, after = text[max(0, match.start() - READ) : match.start()], text[match.end() : match.end() + READ]
    above = before.rstrip(" \t").rpartition("\n")[2].strip()
    head = before.rstrip().rpartition("\n")[2].strip()
    below = after[1:].partition("\n")[0] if after.startswith("\n") else ""
    if head.endswith(":") and not _is_turn(head):
        return True
    return any(len(line) <= FIELD and _FIELD.match(line) and not _is_turn(line) for line in (above, below))


def _line(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)].strip()


def _is_turn(line: str) -> bool:
    return _LINE.match("\n" + line.lstrip()) is not None
