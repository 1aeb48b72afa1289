"""What the pages quote is what is stored."""

import importlib.util

import pytest


@pytest.fixture(scope="module")
def generated(repository):
    spec = importlib.util.spec_from_file_location("docs_generated", repository / "docs" / "generated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_in_the_pages_is_the_stored_one(generated):
    for page in generated.pages():
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            assert generated.with_figures(text) == text, f"{page.name} is stale: run docs/generated.py"


def test_a_figure_that_is_stored_nowhere_is_refused(generated):
    with pytest.raises(ValueError, match=r"learning_curve has no one value at moon\.cheese"):
        generated.with_figures("<!-- figure .2f learning_curve: moon.cheese -->0.9<!-- end -->")


def test_a_wrong_figure_is_replaced(generated):
    expression = "avg(rotten_tomatoes.runs[?model=='fine-tuned' && rows==`1500`].accuracy)"
    page = f"about <!-- figure .2f learning_curve: {expression} -->0.99<!-- end --> of them"
    assert "-->0.79<!--" in generated.with_figures(page)
