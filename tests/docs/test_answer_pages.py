"""The pages of answers lead to sections that exist, and quote no figure without its source."""

import json
import re

import pytest

PAGES = ("faq", "best_practices", "rlhf_dpo_sft", "glossary", "troubleshooting")
FIGURE = re.compile(r"<!-- figure .+?<!-- end -->")
LINK = re.compile(r"\[[^\]]*\]\(([^)]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
QUOTED = re.compile(r'"[^"]+"')
VERSIONS = re.compile(r"(Python|TRL) \d\.\d+( to \d\.\d+)?")
EXACT = re.compile(r"\b\d+\.\d{2,}\b")  # so many digits come from a measurement


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown text."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def sections(path) -> set[str]:
    if path.suffix == ".md":
        return anchors(path.read_text(encoding="utf-8"))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return set().union(*(anchors("".join(cell["source"])) for cell in cells if cell["cell_type"] == "markdown"))


@pytest.fixture(params=PAGES)
def page(request, repository):
    return repository / "docs" / f"{request.param}.md"


def test_a_link_to_a_section_finds_it(page):
    text = CODE.sub("", FIGURE.sub("", page.read_text(encoding="utf-8")))
    for target in LINK.findall(text):
        file, _, anchor = target.partition("#")
        if anchor and not file.startswith("http"):
            assert anchor in sections(page.parent / file if file else page), target


def test_an_exact_figure_is_quoted_from_a_benchmark_or_stands_beside_its_paper(page):
    text = CODE.sub("", FIGURE.sub("", page.read_text(encoding="utf-8")))
    for sentence in re.split(r"(?<=[.:?!])\s+|\n\n|\|", VERSIONS.sub("", QUOTED.sub("", text))):
        assert not EXACT.search(sentence) or "](http" in sentence, sentence


def questions(repository) -> dict[str, str]:
    text = (repository / "docs" / "faq.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)[1:]
    return {question: answer.partition("\n## ")[0] for question, answer in zip(parts[::2], parts[1::2], strict=True)}


def test_each_answer_is_short_and_leads_to_a_lesson_or_a_page(repository):
    for question, answer in questions(repository).items():
        plain = CODE.sub("code", LINK.sub("link", FIGURE.sub("1", answer)))
        sentences = re.findall(r"[.?!][\")]*(?=\s|$)", plain)
        assert 2 <= len(sentences) <= 7, f"{question}: {len(sentences)} sentences"
        assert re.search(r"\]\((\.\./notebooks/|rlhf_dpo_sft\.md)", answer), question


def test_the_questions_of_the_articles_are_answered(repository):
    asked = " ".join(questions(repository)).lower()
    for words in ("how much data", "need a gpu", "rlhf", "catastrophic forgetting", "use lora", "prompting", "rag"):
        assert words in asked


def test_the_table_that_settles_the_rules_covers_every_size_of_the_benchmark(repository):
    stored = json.loads((repository / "benchmarks" / "results" / "freezing_scores.json").read_text(encoding="utf-8"))
    text = (repository / "docs" / "best_practices.md").read_text(encoding="utf-8")
    shown = {int(size) for size in re.findall(r"freezing_scores: avg\(runs\[\?model=='TF-IDF' && rows==`(\d+)`", text)}
    assert shown == {run["rows"] for run in stored["result"]["runs"]}
