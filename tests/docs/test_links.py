"""Every link of a page to a file of the repository, to a line of it, or to a heading, leads somewhere."""

from pathlib import Path

import pytest

from tests import links, pages
from tests.links import broken

REPOSITORY = Path(__file__).resolve().parents[2]
CARDS = sorted((REPOSITORY / "ftlab" / "data" / "rows").glob("*.md"))
READ = [*pages.markdown_files(REPOSITORY), *pages.notebooks(REPOSITORY)]
# Where a message, a comment or a setting may name a file of the repository.
NAMING = [path for folder in ("ftlab", "docs", "benchmarks") for path in (REPOSITORY / folder).rglob("*")
          if path.suffix in (".py", ".toml", ".j2")]  # fmt: skip


@pytest.mark.parametrize("path", [*READ, *CARDS], ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_each_link_leads_somewhere(path):
    assert broken(path, pages.markdown(path)) == []


def test_each_file_that_code_names_is_there():
    assert len(NAMING) > 200
    assert {path.name: found for path in NAMING if (found := links.named(path.read_text(encoding="utf-8")))} == {}


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
        ("[a](../LICENSE#L100000)", "has 2"),
        ("[a][moon]", "[moon]: no line says where it leads"),
        ("[moon][]", "[moon]: no line says where it leads"),
        ("[a][it]\n\n[it]: moon.md\n", "there is no moon.md"),
        ("<a class='x' href='moon.md'>a</a>", "there is no moon.md"),
        ("<img alt=a src=moon.png>", "there is no moon.png"),
        ("[a](<the moon.md>)", "there is no the moon.md"),
        ("[a](faq.mb 'a title')", "there is no faq.mb"),
        ("[a](htp:example.org)", "no address"),
        ("[a](https://)", "no address"),
        ("[a](../../elsewhere)", "there is no ../../elsewhere"),
        ("`benchmarks/results/moon.json`", "there is no benchmarks/results/moon.json"),
        ("`docs/faq.md#moon`", "no heading of faq.md"),
    ],
)
def test_a_link_to_nowhere_is_found(link, why):
    (found,) = broken(REPOSITORY / "docs" / "index.md", f"# A page\n\nRead {link}.\n")
    assert why in found


def test_a_link_to_what_git_ignores_is_found():
    """It is there for its writer alone."""
    mine = REPOSITORY / ".cache" / "links" / "mine.md"
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.touch()
    links._ignored.cache_clear()
    (found,) = broken(REPOSITORY / "docs" / "index.md", "Read [a](../.cache/links/mine.md).\n")
    assert "git ignores" in found


@pytest.mark.parametrize(
    "link",
    [
        "[a](../LICENSE#L1-L3)", "[a][it] and [it][]\n\n[it]: faq.md 'some'\n", "<a href='#here'>a</a> <p id='here'>",
        "[a](<faq.md>)", "`rows[0][name]`", "[a](mailto:a@example.org)", "`notebooks/NN_name.ipynb`", "[x] [y]",
        "`docs/faq.md`, `benchmarks/results/lora.json`",
    ],
)  # fmt: skip
def test_a_link_that_leads_somewhere_is_left_alone(link):
    assert broken(REPOSITORY / "docs" / "index.md", f"# A page\n\nRead {link}.\n") == []


def test_a_part_of_a_page_may_lead_to_another_part():
    page = REPOSITORY / "docs" / "index.md"
    assert broken(page, "[a](#there) [b][it]", "# There\n\n[it]: faq.md\n") == []
    assert len(broken(page, "[a](#there) [b][it]")) == 2


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
