"""The glossary has every term that a lesson introduces, in order, each with a link."""

import json
import re

import pytest

# Bold in a lesson, and no term: emphasis, the words of a header or of a list, and names.
NO_TERMS = {
    *("by its id", "by module", "classes", "difference", "every", "first layers", "how", "more", "once", "phi-2"),
    *("predict", "run", "the same", "trained", "the tokenizer that you will train with", "what it cost"),
    *("does this row teach the model to stop?", "dropout is off in the frozen part"),
    *("takes", "needs", "you can answer afterwards", "replace them with your own"),
}


def key(term: str) -> str:
    return re.sub(r"[^a-z0-9 ]", "", term.casefold().replace("-", " "))


@pytest.fixture(scope="module")
def entries(repository) -> list[str]:
    text = (repository / "docs" / "glossary.md").read_text(encoding="utf-8")
    return [" ".join(entry.split()) for entry in re.findall(r"^- (\*\*.+?)(?=\n- |\n\n|\Z)", text, re.M | re.S)]


@pytest.fixture(scope="module")
def names(entries) -> list[list[str]]:
    return [re.findall(r"\*\*(.+?)\*\*", entry.partition(": ")[0]) for entry in entries]


def bold_terms(repository) -> set[str]:
    """What lessons print in bold, without what ends like a sentence or a label ("**Predict:**", "**Order.**")."""
    found = set()
    for path in sorted((repository / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                found |= {
                    " ".join(bold.split()) for bold in re.findall(r"\*\*(.+?)\*\*", "".join(cell["source"]), re.S)
                }
    return {term for term in found if not term.endswith((".", ":"))}


def test_every_term_that_a_lesson_prints_in_bold_is_explained(repository, names):
    known = {key(name) for entry in names for name in entry}
    plural = {f"{name}s" for name in known}
    missing = {term for term in bold_terms(repository) if key(term) not in known | plural | {*map(key, NO_TERMS)}}
    assert not missing, f"add to docs/glossary.md: {sorted(missing)}"


def test_terms_stand_in_alphabetical_order_and_once(names):
    first = [key(entry[0]) for entry in names]
    assert first == sorted(first)
    every = [key(name) for entry in names for name in entry]
    assert len(every) == len(set(every))


def test_each_entry_has_a_link_and_at_most_three_sentences(entries):
    for entry in entries:
        assert "](" in entry, entry
        assert len(re.findall(r"\. (?=[A-Z*])", entry)) <= 2, entry
