"""Pages with a payload in them, seen in a browser where there is one: no script of a row runs."""

import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest

from ftlab.course.tables import TextTable
from ftlab.data.audit import audit
from tests.browser import CHROMIUM
from tests.hostile.payloads import FORMULAS, MARKUP, TERMINAL, obeyed

PLAIN = "<html><body>{}</body></html>"


class Active(HTMLParser):
    """Collects what could run or load something."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "img", "iframe", "object", "embed", "link", "base", "form"):
            self.found.append(tag)
        self.found += [name for name, value in attributes if name.startswith("on") or "javascript:" in (value or "")]


def hostile_rows():
    texts = [f"{MARKUP} {TERMINAL} {FORMULAS[row % len(FORMULAS)]} {row // 2}" for row in range(80)]
    labels = [f"{MARKUP}{row % 2}" for row in range(80)]
    return pd.DataFrame({"id": [str(row) for row in range(80)], "text": texts, "label": labels})


def pages():
    report = audit(hostile_rows())
    yield "report", report.html(f"Audit of {MARKUP}")
    yield "audit in a notebook", PLAIN.format(report._repr_html_())
    shown = hostile_rows().head().rename(columns={"text": MARKUP})
    yield "table", PLAIN.format(shown.to_html())
    yield "table of text", PLAIN.format(TextTable(shown).html())


def test_the_payload_is_one():
    assert Active(PLAIN.format(MARKUP)).found == ["script", "img", "onerror"]


@pytest.mark.parametrize(("name", "page"), [pytest.param(*each, id=each[0]) for each in pages()])
def test_a_page_has_nothing_active_in_it(name, page):
    assert "owned" in page
    assert Active(page).found == []
    if "audit" in name or name == "report":
        assert obeyed(page) == []


def seen_in_a_browser(page, folder):
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=2000", "--dump-dom", (folder / "page.html").as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_no_script_of_a_row_runs_in_a_browser(tmp_path):
    assert "<title>owned</title>" in seen_in_a_browser(PLAIN.format(MARKUP), tmp_path)  # it would, there
    for name, page in pages():
        assert "<title>owned</title>" not in seen_in_a_browser(page, tmp_path), name
