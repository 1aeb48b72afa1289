"""Every link of a page to a file of the repository, or to a heading, leads somewhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests import pages

REPOSITORY = Path(__file__).resolve().parents[2]
READ = [*pages.markdown_files(REPOSITORY), *pages.notebooks(REPOSITORY)]


def broken(path: Path, text: str) -> list[str]:
    """The links of `text`, which stands in `path`, that lead nowhere, each with the reason."""
    found = []
    for link in pages.links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            found.append(f"{link}: there is no {name}")
        elif not target.is_relative_to(REPOSITORY):
            found.append(f"{link}: outside the repository")
        elif anchor and target.suffix not in (".md", ".ipynb"):
            found.append(f"{link}: {name} has no headings")
        elif anchor and anchor not in pages.anchors(text if target == path else pages.markdown(target)):
            found.append(f"{link}: no heading of {target.name} has this anchor")
    return found


@pytest.mark.parametrize("path", READ, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_each_link_leads_somewhere(path):
    assert broken(path, pages.markdown(path)) == []


def test_every_kind_of_page_is_read():
    names = {path.relative_to(REPOSITORY).as_posix() for path in READ}
    assert {
        "README.md", "CONTRIBUTING.md", "docs/index.md", "exercises/README.md", "exercises/level1_classifier.ipynb",
        "exercises/solutions/level3_instructions.ipynb", "notebooks/02_text_classification.ipynb",
    } <= names  # fmt: skip


def test_the_contents_list_every_page():
    index = REPOSITORY / "docs" / "index.md"
    listed = {(index.parent / link).resolve() for link in pages.links(pages.markdown(index))}
    assert {str(path.relative_to(REPOSITORY)) for path in set(READ) ^ listed} == set()


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("[a](faq.mb)", "there is no faq.mb"),
        ("[a](../notebooks/02_text_classification.ipynb#moons)", "no heading of 02_text_classification.ipynb"),
        ("![a picture](moon.png)", "there is no moon.png"),
        ("[a](#nowhere)", "no heading of index.md"),
        ("[`code` in a link](nowhere.md)", "there is no nowhere.md"),
        ("[a](../LICENSE#1)", "has no headings"),
    ],
)
def test_a_link_to_nowhere_is_found(link, why):
    (found,) = broken(REPOSITORY / "docs" / "index.md", f"# A page\n\nRead {link}.\n")
    assert why in found


def test_what_is_no_link_is_left_alone():
    text = (
        "# A *page*, and `code`: 1 % of it!\n\n"
        "[top](#a-page-and-code-1--of-it) [web](https://example.org/a_(b)#c) `rows[0](nowhere.md)`\n\n"
        "<!-- [commented](out.md) -->\n\n```python\ntable[1](nothing)\n```\n"
    )
    assert broken(REPOSITORY / "docs" / "index.md", text) == []
    assert len(pages.links(text)) == 2


def test_a_second_heading_with_the_same_words_has_a_number():
    assert pages.anchors("# Rows\n\n## Rows\n\n## Rows\n") == {"rows", "rows-1", "rows-2"}
