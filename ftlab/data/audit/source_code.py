"""Is a text source code, and which part of it is? In code, tags and repeated lines are ordinary."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable

PARSED = 20_000  # characters: a longer text is judged by its lines alone
FEWEST_LINES, MOST = 3, 0.6  # lines of code, and their share of the lines that are no comments
# How a program begins, or a line of it.
CODE_LINE = re.compile(
    r"\s*(?:(?:async )?def \w+\(|class \w+[:(]|import \w|from [\w.]+ import |@\w+|#!|#include|print\(|"
    r"(?:for|while|with|if|elif|try)\b.*:\s*$|"
    r"function\b.*[({]|(?:const|let|var) \w+ =|(?:public|private|static) \w+|fn \w+|func \w+\()"
)
_STATEMENT = re.compile(r".*[;{}]\s*$|.*\):\s*$|\s*[\w.\[\]\"']+ (?:[-+*/:]?=) |\s*[)\]}]+,?\s*$|\s*return\b")
_COMMENT = re.compile(r"\s*(?://|#|/\*|\*)")
_SPANS = re.compile(r"(?P<fence>```|~~~).*?(?:(?P=fence)|\Z)|`(?!\s)[^`\n]{1,80}`", re.DOTALL)


def is_code(text: str) -> bool:
    """Return whether `text` is source code as a whole. A page of HTML is not, nor is prose with code in it.

    >>> is_code("def strong(text):\\n    return '<b>' + text"), is_code("if you like <b>films</b>, read on:")
    (True, False)
    """
    begins = CODE_LINE.match(text) is not None
    if "\n" not in text.strip():
        return begins and _is_python(text)
    if text.lstrip().startswith("<"):
        return False
    lines = [line for line in text.splitlines() if line.strip() and not _COMMENT.match(line)]
    code = sum(1 for line in lines if _STATEMENT.match(line) or CODE_LINE.match(line))
    if code >= max(FEWEST_LINES, MOST * len(lines)):
        return True
    return code > 0 and _is_python(text)


def outside_code(text: str) -> str:
    """Return the prose of `text`: nothing of source code, and no fenced code or code within a line.

    >>> outside_code("Write `<b>` for <i>bold</i> text.")
    'Write   for <i>bold</i> text.'
    """
    if is_code(text):
        return ""
    return _SPANS.sub(" ", text) if _may_have_spans(text) else text


def in_prose(text: str, pattern: re.Pattern[str], replacement: str | Callable[[re.Match[str]], str]) -> str:
    """Return `text` with `replacement` for `pattern`, but in code as it was."""
    if is_code(text):
        return text
    pieces, end = [], 0
    for span in _SPANS.finditer(text) if _may_have_spans(text) else ():
        pieces += [pattern.sub(replacement, text[end : span.start()]), span[0]]
        end = span.end()
    return "".join([*pieces, pattern.sub(replacement, text[end:])])


def without_statements(text: str) -> str:
    """Return `text` without lines of code: of source code its comments, else what is not in a code fence.

    >>> without_statements("# All rights are reserved.\\nimport os\\nprint(os.name)")
    '# All rights are reserved.\\n'
    """
    if is_code(text):
        return "".join(f"{line}\n" for line in text.splitlines() if _COMMENT.match(line))
    return _SPANS.sub(lambda span: " " if span["fence"] else span[0], text) if _may_have_spans(text) else text


def _may_have_spans(text: str) -> bool:
    return "`" in text or "~~~" in text


def _is_python(text: str) -> bool:
    """Whether `text` is Python with a statement, and not a word or two that happen to be an expression."""
    if len(text) > PARSED:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return CODE_LINE.match(text) is not None or any(not isinstance(statement, ast.Expr) for statement in body)
