"""Each lesson as a learner runs it: JupyterLab in a browser, Run All, light and dark."""

import re
from pathlib import Path

import nbformat
import pytest

from tests import browser

pytestmark = pytest.mark.slow
WIDGET = "application/vnd.jupyter.widget-view+json"
LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))

THEMES = ("JupyterLab Light", "JupyterLab Dark")

# The course's own HTML, each with every colour that it has.
OWN = {
    "token view": """
from ftlab.data.prompts import TokenView
TokenView(["a prompt", "an answer", "<eos>", "<pad>"], [1, 2, 3, 0], [-100, 2, 3, -100], [1, 1, 1, 0], frozenset({3}))
""",
    "audit": """
import pandas as pd
from ftlab.data.audit import audit
texts = [f"film number {row} was {'good' if row % 2 else 'bad'}" for row in range(40)] + ["one text, twice"] * 2
rows = pd.DataFrame({"id": map(str, range(42)), "text": texts, "label": [row % 2 for row in range(42)]})
report = audit(rows)
assert {found.severity for found in report.findings} == {"error", "warning", "info"}
report
""",
    "budget": """
from ftlab.course import profiles
profiles.resolve("text_classification", "smoke", {"rows": 30})
""",
    "result of an exercise": """
from itertools import cycle
from pathlib import Path
from ftlab.exercises.manifest import level
from ftlab.exercises.outcomes import Answer, Outcome, Result, Status
rules = zip(level("level1").rules, cycle(Status))
outcomes = [Outcome(rule, Answer(status, "one", "two", "a file")) for rule, status in rules]
assert {outcome.status for outcome in outcomes} == set(Status)
Result(level("level1"), Path("work"), "cpu", tuple(outcomes))
""",
}


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """A function that opens a notebook below its `root`, and returns the page."""
    private = tmp_path_factory.mktemp("jupyterlab")
    root = tmp_path_factory.mktemp("course")
    with browser.chromium() as chromium, browser.server(root, private) as address:

        def opened(notebook):
            page = browser.Page(chromium.new_page(viewport={"width": 1300, "height": 1000}))
            page.open(address.format(notebook.relative_to(root)))
            return page

        opened.root, opened.blank = root, chromium.new_page

        yield opened


@pytest.fixture
def page(jupyterlab, lesson):
    """A page in which all cells of `lesson` have run. Its kernel ends with the test."""
    page = jupyterlab(browser.smoke_copy(lesson, jupyterlab.root / "notebooks"))
    page.run_all()
    yield page
    page.shut_down()
    page.page.close()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_run_all_shows_no_error_and_no_warning_and_is_readable_in_light_and_dark(page, lesson):
    cells = page.cells()
    outputs = [(index, output) for index, cell in enumerate(cells) for output in cell.get("outputs", ())]
    assert [output for _, output in outputs if output["output_type"] == "error"] == []
    assert [cell["source"] for cell in cells if cell["cell_type"] == "code" and not cell["execution_count"]] == []
    streams = [(output["name"], "".join(output["text"])) for _, output in outputs if output["output_type"] == "stream"]
    assert [text for name, text in streams if name == "stderr"] == []
    assert [text for _, text in streams if re.search(r"\w+Warning\b", text)] == []
    assert page.messages() == []

    kinds = {index: set() for index, _ in outputs}
    for index, output in outputs:
        kinds[index] |= set(output.get("data", ()))
    for index, shown in kinds.items():
        element = page.outputs(index)
        if "image/png" in shown:
            element.wait_for_selector("img", timeout=60_000)
            assert element.eval_on_selector_all("img", "all => all.every(one => one.complete && one.naturalWidth > 0)")
        if "text/html" in shown and "<table" in str(cells[index]["outputs"]):
            element.wait_for_selector("table th, table td", state="attached", timeout=60_000)
        if WIDGET in shown:
            element.wait_for_selector(".jupyter-widgets", timeout=60_000)
        assert element.query_selector(".progress") is None, "a progress bar is left over"

    for theme in THEMES:
        page.theme(theme)
        for index in kinds:
            element = page.outputs(index)
            element.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            assert element.evaluate(browser.LOW_CONTRAST) == [], (theme, cells[index]["source"])


def test_what_the_course_draws_itself_is_readable_in_light_and_dark(jupyterlab):
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in OWN.values()]
    notebook = jupyterlab.root / "own.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=browser.PYTHON), notebook)
    page = jupyterlab(notebook)
    page.run_all()
    for theme in THEMES:
        page.theme(theme)
        for index, (name, cell) in enumerate(zip(OWN, page.cells(), strict=True)):
            assert [output["output_type"] for output in cell["outputs"] if "data" in output] != [], (name, cell)
            element = page.outputs(index)
            element.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            assert element.evaluate(browser.LOW_CONTRAST) == [], (theme, name)
    page.shut_down()
    page.page.close()


def test_contrast_is_that_of_the_standard(jupyterlab):
    """Black on white is 21:1, #777 on white 4.48:1 (https://webaim.org/articles/contrast/)."""
    page = jupyterlab.blank()
    page.set_content("<p style='color:#777'>faint</p><p style='color:#767676'>enough</p><p style='opacity:.3'>half</p>")
    assert page.query_selector("body").evaluate(browser.LOW_CONTRAST) == ["4.48 faint", "2.11 half"]
    page.close()


@pytest.mark.parametrize("lesson", [lesson for lesson in LESSONS if lesson.stem.startswith("04")], ids=["04"])
def test_a_click_on_a_rating_shows_the_next_answer(page, lesson):
    cells = page.cells()
    (index,) = [index for index, cell in enumerate(cells) if "rater.show()" in cell["source"]]
    form = page.outputs(index)
    assert form.wait_for_selector("[role=status]").inner_text().startswith("answer 1 of ")
    form.query_selector("button:has-text('middling')").click()
    is_next = "form => form.querySelector('[role=status]').innerText.startsWith('answer 2 of ')"
    page.page.wait_for_function(is_next, arg=form)
