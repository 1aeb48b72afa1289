"""The pages of the course as tests read them: Markdown files, and the Markdown cells of notebooks."""

import re
from pathlib import Path

import nbformat

FENCE = re.compile(r"^( *)(```+|~~~+) *([\w+-]*)[^\n`]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!\\)\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\)[^()\s]*)?)>?(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)")
REFERENCED = re.compile(r"^ {0,3}\[[^\]^]+\]:[ \t]+<?([^\s>]+)>?", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def markdown_files(repository: Path) -> list[Path]:
    """The Markdown pages of the repository, apart from the cards of data sets in the package."""
    found = [*repository.glob("*.md"), *(repository / "docs").glob("*.md"), *(repository / "exercises").rglob("*.md")]
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def notebooks(repository: Path) -> list[Path]:
    """The lessons, the exercises and their solutions."""
    found = [*(repository / "notebooks").glob("*.ipynb"), *(repository / "exercises").glob("**/*.ipynb")]
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def markdown(path: Path) -> str:
    """The text of a page: a Markdown file, or the Markdown cells of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks of a text whose language is one of `languages`; "" is a block that names none."""
    return [found[3] for found in FENCE.findall(text) if found[2] in languages]


def prose(text: str) -> str:
    """A text without its code blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.DOTALL)


def without_code(text: str) -> str:
    """The prose of a text with `code` in the place of what stands in backticks."""
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "`code`", prose(text), flags=re.DOTALL)


def links(text: str) -> list[str]:
    """Where the links and images of a text lead, also those of HTML and of `[name]: target`; code is no link."""
    plain = without_code(text)
    in_html = re.findall(
        r"<(?:a|img|source|video)\b[^>]*?\s(?:href|src)\s*=\s*[\"']?([^\"'\s>]+)", plain, re.IGNORECASE
    )
    in_angles = re.findall(r"\]\(<([^<>]*\s[^<>]*)>", plain)  # a target with spaces
    return LINK.findall(plain) + in_html + in_angles + REFERENCED.findall(plain)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a text's headings, and those that the text sets itself."""
    found: dict[str, int] = {}
    for heading in HEADING.findall(FENCE.sub("", text)):
        heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # the text of a link
        heading = re.sub(r"<!--.*?-->|<[^>]+>", "", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found) | set(re.findall(r"<\w+\b[^>]*?\s(?:id|name)=[\"']([^\"']+)", text))
