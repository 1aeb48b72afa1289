"""Answers that say nothing: ".", "...", "[answer]", "no response". Words for a missing value are `placeholders`.

A sign may be the right answer to who asks for one, and so may a word such as "nothing" to a question.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

FEW_WORDS = 4  # the other answers have so many words or more in the median: a sign alone is none of them
OFTEN = 0.1  # of all answers: if more say nothing, it is the task, as in "Which sign ends the sentence?"
LONGEST = 60  # characters of a phrase
_THING = r"(?:answer|response|output|completion|text|reply)"
_PHRASE = re.compile(
    r"(?:<?no[ _-]?(?:input|output|answer|response|reply|completion|text|data|content|comment)s?"
    r"(?: (?:given|provided|available|found|needed|required))?>?"
    r"|not (?:applicable|available|provided|given|specified)|n\.a\.|tbd|tba|todo|fixme|xxx+"
    r"|to be (?:done|filled in|added|written|determined|announced)|same as above|see above|ditto|lorem ipsum.*"
    r"|[\[<({]{1,2}(?:your |the |insert |add |write |put )*(?:answer|response|output|completion|text|reply|here"
    r"|empty|blank|none|null|redacted|removed|deleted|missing|todo)(?: (?:here|goes here|text))?[\])}>]{1,2}"
    rf"|(?:insert|add|write|put|enter|type) (?:your |the |an? )?{_THING}(?: here)?"
    rf"|(?:your |the ){_THING}(?: goes)? here|{_THING} (?:goes )?here"
    rf"|{_THING}\s*:?|a ?:|(?:asdf|qwer|sdfg|hjkl)[a-z;]{{0,12}})",
    re.IGNORECASE,
)
_WORD = re.compile(r"nothing|empty|blank|test(?:ing)?(?: test| ?\d{1,3})*", re.IGNORECASE)  # answers to a question, too
_SIGNS = frozenset("-.,;:!?\u2026_~'\"\u2013\u2014\u2022\u3001\u3002\uff01\uff0c\uff1f\uff0e\u0964\u061f*#= \t\r\n")
_OPERATORS = frozenset("*#=")
# Asks for a sign, or for a word or the rest of a sentence.
_SIGN_ASKED = re.compile(
    r"\bpunctuat\w*|\b(?:which|what|give|write|type|name|show|say|add|insert|use|print|enter|put|press|return|answer|"
    r"choose|with|only|draw|find|the (?:right|correct|missing|final|last|first|next|end\w*))\b[^.?!\n]{0,60}\b"
    r"(?:signs?|symbols?|characters?|marks?|operators?|keys?|separators?|delimiters?|dots?|commas?|colons?|semicolons?|dash(?:es)?|hyphens?|"
    r"full stops?|periods?|ellips[ie]s|emoticons?|wildcards?|tokens?|Morse|patterns?|lines? of)\b"
    r"|\b(?:Satzzeichen|Zeichen|signe|ponctuaci\w+|ponctuation|puntuaci\w+|punteggiatura)\b|\u7b26|\u6807\u70b9|\u8a18\u53f7|"
    r"\bMorse\b|\u0437\u043d\u0430\u043a",
    re.IGNORECASE,
)
_WORD_ASKED = re.compile(
    r"\?|\uff1f|\u061f|\bwords?\b|\b(?:synonym|antonym|opposite|translate|classify|categori[sz]e|label|rhyme|spell|"
    r"complete|fill|finish|continue|answer|which|what|who|status)\b",
    re.IGNORECASE,
)
_REST_ASKED = re.compile(r"^\W*(?:complete|fill|finish|continue|end)\b", re.IGNORECASE)
_RUN = re.compile(
    r"\b(?:print\w*|outputs?|returns?|run|runs|execut\w+|displays?|logs?|commands?|script)\b", re.IGNORECASE
)
_AROUND = " \t\n.!*_\"'`()[]{}<>"


def empty_like(answers: Sequence[str], prompts: Sequence[str] | None = None) -> list[str]:
    """Return for each of `answers` what stands where an answer should be, or "".

    Nothing is found where answers are short anyway, or where many look so: then a sign may be the right answer.

    Args:
        answers: of all rows.
        prompts: the prompt of each; where it asks for a sign or a word, a sign or a word is an answer.

    >>> empty_like(["It rains in the north.", "...", "[Insert answer here]", "It will be dry from Monday on."])
    ['', '...', '[Insert answer here]', '']
    """
    asked = prompts if prompts is not None else [""] * len(answers)
    found = [
        _shown(answer) if _says_nothing(answer, prompt) else "" for answer, prompt in zip(answers, asked, strict=True)
    ]
    count = sum(said != "" for said in found)
    if not count:
        return found
    others = [len(answer.split()) + _unspaced(answer) for answer, said in zip(answers, found, strict=True) if not said]
    if not others or np.median(others) < FEW_WORDS or count > max(2, OFTEN * len(answers)):
        return [""] * len(found)
    return found


def _shown(answer: str) -> str:
    text = answer.strip()
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def _says_nothing(answer: str, prompt: str) -> bool:
    """Whether `answer` is nothing but punctuation, or a phrase for no answer. An operator or a bracket may be meant."""
    text = answer.strip()
    if text and _SIGNS.issuperset(text) and text not in _OPERATORS:
        return not (
            _SIGN_ASKED.search(prompt) or _REST_ASKED.match(prompt) or f"'{text}'" in prompt or f'"{text}"' in prompt
        )
    if not text or len(text) > LONGEST:
        return False
    bare = text.strip(_AROUND)
    if (
        text[-1] not in ":])}>" and bare.casefold() in prompt.casefold()
    ):  # one of the answers to choose from, or asked about
        return False
    if _WORD.fullmatch(bare):
        return not _WORD_ASKED.search(prompt)
    if bare.casefold().startswith("no ") and _RUN.search(prompt):  # "No output." is what a program prints
        return False
    return bool(_PHRASE.fullmatch(text) or _PHRASE.fullmatch(bare))


def _unspaced(answer: str) -> int:
    """A guess of the words in a text without spaces: two characters a word."""
    return 0 if answer.isascii() else sum(unicodedata.category(character) == "Lo" for character in answer[:40]) // 2
