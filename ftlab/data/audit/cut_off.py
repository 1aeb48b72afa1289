"""Answers that end in the middle, as a generator leaves them when its limit of tokens is reached.

Some ends are wrong in any text: an open bracket or code fence, a comma, a word such as "the". No full stop at the end
is wrong only if the other answers have one. Labels, lists, code, JSON and addresses need none.
"""

from __future__ import annotations

import codeop
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from ftlab.data.audit.source_code import CODE_LINE
from ftlab.data.words import UNSPACED

FEWEST_WORDS, UNSPACED_CHARACTERS = 8, 20  # of a text long enough to be a sentence
HINT_WORDS = 6  # of a text long enough that its last word tells
SIGN_OFF = 3  # words of a last line such as "With kind regards,"
FEWEST_ANSWERS, NORMALLY = 20, 0.95  # answers that are sentences, and the share that ends with punctuation
FEWEST_SIGNS, LIKE_CUTS = 2, 0.25  # of the answers without punctuation, how many show another sign of a cut
NEAR_END = 200  # characters: a bracket that was opened earlier was forgotten rather than cut off
# Words that end no sentence, and words that end one only seldom, if it has no full stop ("the film I waited for").
NEVER_LAST = frozenset((
    "the", "an", "and", "or", "but", "nor", "of", "because", "although", "whereas", "than", "into", "onto", "my",
    "your", "our", "their", "every", "whose", "among", "i'm", "you're", "we're", "they're", "it's", "very",
))  # fmt: skip
SELDOM_LAST = frozenset((
    "to", "with", "was", "were", "as", "for", "at", "by", "from", "he", "she", "they", "we", "who", "which", "if",
    "when", "while", "will", "has", "had", "are", "some", "its", "during", "between", "towards", "upon",
))  # fmt: skip
# Some of these end a sentence in another language ("Er fing an"), so a word before them has to be English.
ELSEWHERE = frozenset(("an", "or", "but", "my"))
_ENGLISH = NEVER_LAST | {"you", "that", "this", "it", "is", "be", "have", "not", "to", "with", "from", "they", "are"}
_ENGLISH -= ELSEWHERE
_ENDS = ".!?…。！？｡．｟؟۔।॥։።፧។៕။་།༎"  # noqa: RUF001
_AFTER = "\"'”’“‘»«›‹)]}」』】）〉》*_~`"  # noqa: RUF001
_COMMAS = ",，、،"  # noqa: RUF001
_FENCE = re.compile(r"^\s*(?:```(?!.*```)|~~~(?!.*~~~))", re.MULTILINE)  # ```x``` is code within a line
_CLOSED_ONLY = re.compile(r"[^:\s]\s*\n[ \t]*(?:```|~~~)\Z")  # the only fence is the last line: it opens nothing
_INLINE_CODE = re.compile(r"(`+)[^`\n]+\1")
_LONE = re.compile(r"[(\[{](?=[\s.,;:!?])|(?<=\+)[(\[{]")  # a bracket that is spoken of: "Use [ to", "Ctrl+["
_MARKER = re.compile(r"(?P<sign>[-*+\u2022\u2013])|(?P<number>\d{1,2})[.)]")
_ANNOUNCES = re.compile(r"\b(?:are|\w{3,}s|following|these)\b.*:$")
_BOLD = re.compile(r"(?:^|[\s(])\*\*(?:\w[^*\n]*)?$")
_TAGS = re.compile(r"(?:\s*</?[a-zA-Z][^<>]*>)+\s*$")
_ITEM = re.compile(r"\s*(?:[-*•\u2013\u2014]|\(?\d+[.):]|\(?[a-z][.)])\s", re.IGNORECASE)
_EMOTICON = re.compile(r"[:;=][-'^]?[()\[\]DPp/|\\oO3*](?!\w)|(?<!\w)[8xX][-'^]?[()DP](?!\w)|<3|\^_?\^|\([:;]")
_CODE_SIGNS = re.compile(r"[{}=<>|\\;_]|\w\(|\w\.\w|://|@|#")
_STRINGS = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
# A closing sign, and the signs that it may close: also [0, 1), „German“, »Danish« and «French» quotes.
_CLOSES = {
    ")": "([", "]": "[(", "}": "{", "”": "“„", "“": "„", "»": "«", "«": "»", "」": "「", "』": "『", "】": "【",
    "》": "《", '"': "„",
}  # fmt: skip
_OPENS = "([{“„«»「『【《"


def cut_off(answers: Sequence[str]) -> list[str]:
    """Return for each of `answers` how it ends in the middle, or "".

    An answer without punctuation at its end is listed if nearly all others of its script have it. It is also listed if
    many of those without show another sign, as answers cut at a random place do; else it is the style of their author.

    >>> cut_off(["The bread rises (in a warm", "yes", "Let it rise in a warm place, and"])
    ["an open '(' at the end", '', "'and' at the end"]
    """
    reasons = [sure_sign(answer) for answer in answers]
    by_script: defaultdict[str, list[int]] = defaultdict(list)
    for place, answer in enumerate(answers):
        if script := _script_of_sentence(answer):
            by_script[script].append(place)
    for places in by_script.values():
        without = [place for place in places if not _ends(answers[place])]
        if len(without) > len(places) / 2:
            continue
        for place in without:
            if (word := _last_word(answers[place])) in SELDOM_LAST:
                reasons[place] = reasons[place] or f"{word!r} at the end"
        signs = sum(reasons[place] != "" for place in without)
        if _is_exception(len(without), len(places)) or signs >= max(FEWEST_SIGNS, LIKE_CUTS * len(without)):
            for place in without:
                reasons[place] = reasons[place] or "no punctuation at the end"
    return reasons


def sure_sign(answer: str) -> str:
    """Return what at the end of `answer` shows that it is cut off, whatever the other answers look like, or ""."""
    text = answer.rstrip()
    if len(fences := _FENCE.findall(text)) % 2 and not (len(fences) == 1 and _CLOSED_ONLY.search(text)):
        return "an open code fence"
    if _is_json(text):
        return "" if _loads(text) or not (sign := _open_bracket(text)) else f"JSON that ends inside {sign!r}"
    if CODE_LINE.match(text):
        return _open_code(text)
    words = text.split()
    if _FENCE.search(text) or not words:
        return ""
    if sign := _open_markup(text):
        return sign
    if len(words) <= SIGN_OFF or _ends(text):
        return ""
    last = text.splitlines()[-1]
    if sign := _open_bracket(_prose(_TAGS.sub("", text)), NEAR_END):
        return f"an open {sign!r} at the end"
    if re.search(r"[a-z]{2}-$", text):
        return f"half a word at the end: {words[-1]!r}"
    if text[-1] in _COMMAS and len(last.split()) > SIGN_OFF:  # "Kind regards," may be the last line
        return "a comma at the end"
    if text[-1] in ":：" and len(last.split()) > SIGN_OFF:  # noqa: RUF001
        return "a colon at the end"
    last_word = _last_word(text)
    if len(words) >= HINT_WORDS and last_word in NEVER_LAST and (last_word not in ELSEWHERE or _is_english(text)):
        return f"{words[-1]!r} at the end"
    return ""


def _open_markup(text: str) -> str:
    """Return how `text` ends inside a list, a formula or bold text, or ""."""
    *earlier, last = [line.strip() for line in text.splitlines() if line.strip()]
    if earlier and (marker := _MARKER.fullmatch(last)):
        before = int(marker["number"]) - 1 if marker["number"] else None
        item = rf"{before}[.)]\s" if before else re.escape(last) + r"\s" if before is None else r"(?!)"
        if any(re.match(item, line) for line in earlier) or (not before and _ANNOUNCES.search(earlier[-1])):
            return f"an item without a text at the end: {last!r}"
    if text.count("$$") % 2 and re.search(r"[\\{^_=]", text.rpartition("$$")[2]):
        return "an open '$$'"
    if text.count(r"\begin{") > text.count(r"\end{"):
        return r"an open '\begin'"
    return "an open '**' at the end" if not _ends(last) and _BOLD.search(_INLINE_CODE.sub(" ", last)) else ""


def _is_exception(without: int, count: int) -> bool:
    """Whether so few of `count` answers are `without` punctuation that the others have it as a rule."""
    return count >= FEWEST_ANSWERS and without <= (1 - NORMALLY) * count


def _last_word(text: str) -> str:
    return text.split()[-1].replace("\u2019", "'").lower() if text.strip() else ""


def _is_english(text: str) -> bool:
    """Whether there is a frequent English word before the last word of `text`."""
    return not _ENGLISH.isdisjoint(text.lower().replace("\u2019", "'").split()[:-1])


def _script_of_sentence(answer: str) -> str:
    """The script of the last letter of an answer that is a sentence or several; "" if it need not end like one."""
    text = _TAGS.sub("", answer).rstrip()
    if not text or _is_json(text) or CODE_LINE.match(text) or _FENCE.search(text):
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    letter = next((character for character in reversed(text) if character.isalpha()), "")
    if not letter:
        return ""
    unspaced = any(low <= ord(letter) <= high for low, high in UNSPACED)
    if len(text) < UNSPACED_CHARACTERS if unspaced else len(text.split()) < FEWEST_WORDS:
        return ""
    return unicodedata.name(letter, "?").split()[0] if _ends(text) or _reads_on(lines) else ""


def _reads_on(lines: Sequence[str]) -> bool:
    """Whether the last of `lines` is a piece of a text: no item of a list, no signature, no code, no address."""
    *earlier, last = lines
    if _ITEM.match(last) or last.startswith(("    ", "\t")) or _CODE_SIGNS.search(last.split()[-1]):
        return False
    if len(_CODE_SIGNS.findall(last)) > len(last.split()) / 8:
        return False
    if earlier and (len(last.split()) <= SIGN_OFF + 1 or sum(map(_ends, earlier)) < len(earlier) / 2):
        return False  # a signature, or lines of a poem, a table or a list
    sentence = re.split(r"[.!?]\s", last)[-1]
    return sentence.count(",") < 3 or len(sentence.split()) / (sentence.count(",") + 1) > 3


def _ends(text: str) -> bool:
    """Whether `text` ends as a whole text does: with a full stop or the like, a closing sign, a symbol or a mark."""
    text = _TAGS.sub("", text).rstrip()
    inner = text.rstrip(_AFTER + " ")
    if not inner or _EMOTICON.search(text.split()[-1]) or re.search(r"\d/\d+$", inner):
        return True
    if text[-1] in _AFTER and text[-1] not in "*_~" and not _open_bracket(_prose(text)):
        return True
    return inner[-1] in _ENDS or unicodedata.category(inner[-1]) in ("So", "Sk", "Mn")


def _is_json(text: str) -> bool:
    return bool(re.match(r"\s*(?:\{\s*[\"}]|\[\s*[\"\d\]{\[-])", text))


def _loads(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _open_code(text: str) -> str:
    """Return how code ends inside a block, or "": Python by its own parser, other languages by their brackets."""
    try:
        if codeop.compile_command(text, "<answer>", "exec") is None:
            return "code that ends inside a block"
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        rest = _STRINGS.sub("", text)
        if re.search(r"[\"']", rest.rpartition("\n")[2]):
            return "code that ends inside a string"
        sign = _open_bracket(rest)
        return f"code that ends inside {sign!r}" if sign == "{" else ""
    return ""


def _prose(text: str) -> str:
    """Return `text` without the brackets that open nothing: in code, in emoticons, or spoken of."""
    return _LONE.sub(" ", _EMOTICON.sub(" ", _INLINE_CODE.sub(" ", text)))


def _open_bracket(text: str, within: float = math.inf) -> str:
    """Return the last bracket or quotation mark that is not closed, if it is `within` the last characters, or ""."""
    opened: list[tuple[str, int]] = []
    marks: list[int] = []
    for place, character in enumerate(text):
        if opened and opened[-1][0] in _CLOSES.get(character, ""):
            opened.pop()
        elif character in _OPENS and (character not in "«»" or _stands_before(text, place)):
            opened.append((character, place))
        elif character == '"':
            marks.append(place)
    if opened and opened[-1][1] >= len(text) - within:
        return opened[-1][0]
    inches = len(re.findall(r"\d\"", text))
    return '"' if len(marks) % 2 and (len(marks) - inches) % 2 and marks[-1] >= len(text) - within else ""


def _stands_before(text: str, place: int) -> bool:
    """Whether the guillemet at `place` opens: it follows a space or a bracket; » also has no space after it."""
    before, after = text[place - 1 : place].strip(), text[place + 1 : place + 2].strip()
    return before in ("", "(", "[") and (text[place] == "«" or (after != "" and after not in ".,;:!?)]"))
