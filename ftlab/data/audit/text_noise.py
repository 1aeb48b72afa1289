"""Noise in texts: markup, HTML entities, mojibake, invisible characters and boilerplate."""

from __future__ import annotations

import html
import html.entities
import re
from collections.abc import Callable, Collection, Iterable

import pandas as pd

from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.personal_data import without_private
from ftlab.data.audit.source_code import in_prose, outside_code, without_statements
from ftlab.data.audit.table import Table
from ftlab.data.boilerplate import Boilerplate, boilerplate
from ftlab.data.normalisation import ENTITY
from ftlab.data.words import SHARED_BY, Words, may_have_line, shared_lines
from ftlab.wording import beginning

TAGS = (
    "a abbr article b big blockquote body br button center cite code dd del div dl dt em figure font footer form h1 h2 "
    "h3 h4 h5 h6 head header hr html i iframe img input ins label li link main meta nav ol option p pre s script "
    "section select small span strike strong style sub sup svg table tbody td textarea tfoot th thead title tr tt u ul"
)
FLAGS = (
    "allowfullscreen async autofocus autoplay checked compact controls defer disabled hidden ismap loop multiple muted "
    "noresize noshade novalidate nowrap open readonly required reversed selected"
)
# After the name of a tag only what a tag can have: "<title of the book>" is a place to write in.
ATTRIBUTE = (
    r"(?:[\w:@.-]{1,60}\s{0,9}=\s{0,9}(?:\"[^\"<>]{0,300}\"|'[^'<>]{0,300}'|[^\s\"'<>]{1,300})"
    rf"|(?:{FLAGS.replace(' ', '|')})(?![\w-]))"
)
MARKUP = re.compile(
    rf"<(?:/?(?:{TAGS.replace(' ', '|')})(?:\s{{1,20}}{ATTRIBUTE}){{0,30}}\s{{0,20}}/?|!--.{{0,300}}?--"
    r"|!doctype[^<>]{0,100})>",
    re.I,
)
# "</s>" alone is the end-of-sequence token of many models; the pair <s>...</s> is HTML for text that is struck out.
ENDS = ("<s>", "</s>")
SPACES = re.compile(r"[ \t]{2,}")
# Control characters except tab and line ends, soft hyphens, zero-width and direction marks, and U+FFFD, which replaces
# a character that was lost. Persian and emoji need the joiners U+200C and U+200D, so these are not in the list.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffd]"
)
# What is ordinary in some scripts: direction marks beside Hebrew and Arabic letters, a zero-width space where there
# are no spaces between words (Thai, Lao, Myanmar, Khmer), and a soft hyphen within a word.
DIRECTION = frozenset("\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069")
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")
NEAR = 100  # characters around a direction mark


def check(table: Table) -> list[Finding]:
    """Return the findings on noise in the training rows of `table`."""
    table.progress.set_description("searching for noise")
    rows = table.texts[table.train]
    ids, texts = rows["id"].to_numpy(), rows["text"].tolist()
    found = []
    for finding_id, what in (
        ("markup", "HTML tags"),
        ("entities", "HTML entities"),
        ("mojibake", "wrongly decoded characters"),
        ("control_characters", "invisible characters"),
    ):
        seen = [(row, match) for row, text in enumerate(texts) if (match := FINDERS[finding_id](text))]
        if seen:
            shown = [with_code_points(match) for _, match in seen]
            evidence = pd.DataFrame({"id": ids[[row for row, _ in seen]], "found": shown})
            what = f"{what} in {{count}} ({share(len(seen), len(texts))})"
            found.append(finding(finding_id, what, evidence=evidence))
    return found + _boilerplate(table)


def strip_markup(text: str) -> str:
    """Return `text` with each HTML tag replaced by a space; code stays as it is.

    >>> strip_markup("A <b>good</b> film<br />")
    'A good film'
    """
    kept = () if struck_out(text) else ENDS
    stripped = in_prose(text, MARKUP, lambda tag: tag[0] if tag[0].lower() in kept else " ")
    return text.strip() if stripped == text else in_prose(stripped, SPACES, " ").strip()


def struck_out(text: str) -> bool:
    """Return whether `text` has a part between <s> and </s>, HTML for text that is struck out.

    >>> struck_out("a <s>bad</s> film"), struck_out("</s><s>")
    (True, False)
    """
    lower = text.lower()  # a search for the pair in one pattern would start anew at each <s>
    start = lower.find("<s>")
    return start >= 0 and lower.find("</s>", start) >= 0


def decode_entities(text: str) -> str:
    """Return `text` with HTML entities decoded, also those that were encoded up to three times; code stays as it is.

    >>> decode_entities("Tom &amp; Jerry, &amp;quot;best&amp;quot;")
    'Tom & Jerry, "best"'
    """
    for _ in range(3):
        text = in_prose(text, ENTITY, lambda match: _decoded(match[0]).replace("\xa0", " "))
    return text


def _decoded(entity: str) -> str:
    """Return the character of `entity`, or `entity` itself if it is none.

    `html.unescape` reads a longer name that begins with an old entity, as a browser does: of "&region;" in a program it
    makes "\xaeion;".
    """
    name = entity[1:]
    is_one = name.startswith("#") or not {name, name.lower()}.isdisjoint(html.entities.html5)
    return html.unescape(entity) if is_one else entity


def fix_encoding(text: str) -> str:
    """Return `text` with mojibake corrected, where the library ftfy can do it (Speer 2019).

    >>> fix_encoding("caf\\u00c3\\u00a9") == "caf\\u00e9"
    True
    """
    import ftfy

    return ftfy.fix_encoding(text)


def strip_invisible(text: str) -> str:
    """Return `text` without control and zero-width characters; those that its script needs stay.

    >>> strip_invisible("co\\u200bffee")
    'coffee'
    """
    return INVISIBLE.sub(lambda match: match[0] if _is_ordinary(match) else "", text)


def with_code_points(text: str) -> str:
    """Return `text` on one line, with characters that would not show as their code points.

    >>> with_code_points("co\\u200bffee")
    'coU+200B ffee'
    """
    text = " ".join(text.split())
    return "".join(character if character.isprintable() else f"U+{ord(character):04X} " for character in text).strip()


def shared_parts(table: Table) -> Boilerplate:
    """Return what many answers of `table` (or labelled texts) share, in lines, at the beginning or at the end."""

    def compute() -> Boilerplate:
        answers = table.answers.tolist()
        lines = _lines_of_prose(answers, shared_lines(answers))
        if table.pairs:
            return boilerplate(Words.of(answers), answers, lines)
        return boilerplate(table.words, table.texts["text"].tolist(), lines)

    return table.cached("shared parts", compute)


def _lines_of_prose(texts: Iterable[str], lines: Collection[str]) -> dict[str, int]:
    """Return those of `lines` that are shared outside of code: the lines of programs are much alike."""
    having = (text for text in texts if may_have_line(text, lines))
    return shared_lines(map(without_statements, having))


def _boilerplate(table: Table) -> list[Finding]:
    shared = shared_parts(table)
    rows = table.texts[table.train]
    parts = rows[table.columns[-1]].fillna("").map(shared.part_of)
    evidence = pd.DataFrame({"id": rows["id"], "line": parts}).dropna()
    if evidence.empty:
        return []
    most = without_private(evidence["line"].mode()[0])  # before it is cut: a part of a key does not look like one
    kind = "a line" if evidence["line"].isin(shared.lines).all() else "a line, a beginning or an end"
    what = f"{kind} that {SHARED_BY} or more texts share in {{count}}, such as {beginning(most)!r}"
    return [finding("boilerplate", what, evidence=evidence)]


def _entity(text: str) -> str | None:
    return _outside_code(_entity_in, text) if "&" in text else None


def _entity_in(text: str) -> str | None:
    return next((match[0] for match in ENTITY.finditer(text) if _decoded(match[0]) != match[0]), None)


def _markup(text: str) -> str | None:
    return _outside_code(_markup_in, text) if "<" in text else None


def _outside_code(find: Callable[[str], str | None], text: str) -> str | None:
    """What is found in the prose of `text`; most texts have nothing to find and need not be looked at twice."""
    found = find(text)
    if found is None or (prose := outside_code(text)) is text:
        return found
    return find(prose)


def _markup_in(text: str) -> str | None:
    first = MARKUP.search(text)
    if first is None or first[0].lower() not in ENDS or struck_out(text):
        return first and first[0]
    return next((tag[0] for tag in MARKUP.finditer(text) if tag[0].lower() not in ENDS), None)


def _mojibake(text: str) -> str | None:
    if text.isascii():
        return None
    from ftfy import badness

    # The pattern is slow, and all that it finds has such a character in it and at most four others on each side.
    for run in _NOT_ASCII.finditer(text):
        if match := badness.BADNESS_RE.search(text, max(0, run.start() - 4), run.end() + 4):
            return match[0]
    return None


_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def _invisible(text: str) -> str | None:
    if text.isascii() and text.isprintable():
        return None
    return next((match[0] for match in INVISIBLE.finditer(text) if not _is_ordinary(match)), None)


def _is_ordinary(match: re.Match[str]) -> bool:
    """Whether an invisible character is one that the script of the text around it needs."""
    character, text = match[0], match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if character == "\u00ad":
        return before.isalpha() and after.isalpha()
    if character == "\u200b":
        return bool(WITHOUT_SPACES.match(before) or WITHOUT_SPACES.match(after))
    if character in DIRECTION:
        return bool(RIGHT_TO_LEFT.search(text, max(0, match.start() - NEAR), match.end() + NEAR))
    return False


FINDERS: dict[str, Callable[[str], str | None]] = {
    "markup": _markup,
    "entities": _entity,
    "mojibake": _mojibake,
    "control_characters": _invisible,
}
