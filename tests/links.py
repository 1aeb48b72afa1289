"""Where the links of a page lead: to a file of the repository, a line of it, or a heading; and which lead nowhere."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tests import pages

REPOSITORY = Path(__file__).resolve().parents[1]
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
LINE = re.compile(r"L(\d+)(?:-L(\d+))?")
DEFINED = re.compile(r"^ {0,3}\[([^\]^]+)\]:", re.MULTILINE)
REFERENCE = re.compile(r"(?<![\\!\]])\[([^\[\]^]+)\]\[([^\[\]]*)\]")
# A file that a sentence, a comment or a message of the package names, from the root of the repository.
NAMED = re.compile(
    r"(?<![\w/.<-])(?:docs|notebooks|exercises|benchmarks)/[\w./-]+\.(?:md|ipynb|py|json|toml)(?:#[\w-]+)?"
)


def broken(path: Path, text: str, page: str = "") -> list[str]:
    """The links of `text` that lead nowhere, each with the reason.

    Args:
        path: of the page.
        text: the page, or a part of it.
        page: the whole page, whose headings and definitions a part may use.
    """
    page = page or text
    found = [f"{link}: {why}" for link in pages.links(text) if (why := _why_not(link, path, page))]
    defined = {_flat(name) for name in DEFINED.findall(pages.without_code(page))}
    found += [f"[{name}]: no line says where it leads" for name in _references(text) if _flat(name) not in defined]
    return found + named(text)


def named(text: str) -> list[str]:
    """The files that a sentence, a comment or a message names, from the repository's root, and that are not there."""
    found = [(link, _why_not(link, REPOSITORY / "README.md", "")) for link in NAMED.findall(text) if "NN" not in link]
    return [f"{link}: {why}" for link, why in found if why]


def _references(text: str) -> Iterator[str]:
    """The names in `[words][name]` and `[name][]`."""
    return (name or words for words, name in REFERENCE.findall(pages.without_code(text)))


def _flat(name: str) -> str:
    return " ".join(name.lower().split())


def _why_not(link: str, path: Path, text: str) -> str:
    """Why a link leads nowhere; "" if it leads somewhere, or out of the repository."""
    if SCHEME.match(link):
        return "" if re.match(r"https?://[\w.-]+\.\w+(?:[:/?#]|$)|mailto:|attachment:|data:", link) else "no address"
    name, _, anchor = unquote(link).partition("#")
    target = (path.parent / name).resolve() if name else path
    if not target.exists():
        return f"there is no {name}"
    if not target.is_relative_to(REPOSITORY):
        return "outside the repository"
    if not _ignored().isdisjoint([target, *target.parents]):
        return f"git ignores {name}, so nobody else has it"
    if lines := LINE.fullmatch(anchor):
        last = max(int(number) for number in lines.groups() if number)
        there = len(target.read_text(encoding="utf-8").splitlines()) if target.is_file() else 0
        return "" if last <= there else f"{name} has {there} lines"
    if anchor and target.suffix not in (".md", ".ipynb"):
        return f"{name} has no headings"
    if anchor and anchor not in (pages.anchors(text) if target == path else _anchors(target)):
        return f"no heading of {target.name} has this anchor"
    return ""


@functools.cache
def _anchors(page: Path) -> set[str]:
    return pages.anchors(pages.markdown(page))


@functools.cache
def _ignored() -> set[Path]:
    """The files and folders that git leaves out of the repository; none in a copy that git does not know."""
    asked = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--directory"]
    try:
        listed = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {REPOSITORY / name for name in listed.splitlines()}
