"""The site as a reader has it: built from the pages, whole, and readable from disk without a network."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests import pages

for needed in ("sphinx", "myst_nb", "sphinx_book_theme"):
    pytest.importorskip(needed, reason="the site is built by `make site`, which installs the extra `site`")

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What a browser loads without being asked: scripts, styles, fonts, pictures, frames. A link to follow is none of these.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|embed|object)\b[^>]*?\b(?:src|data)=[\"'](?:https?:)?//[^\"']+"
    r"|<link\b(?![^>]*rel=[\"'](?:canonical|author)[\"'])[^>]*?\bhref=[\"'](?:https?:)?//[^\"']+"
    r"|@import\s+(?:url\()?[\"']?(?:https?:)?//[^\"')]+|\burl\(\s*[\"']?(?:https?:)?//[^\"')]+"
)


@pytest.fixture(scope="module")
def site(repository, tmp_path_factory) -> Path:
    """The folder of the built site. A warning is an error, as in `make site`."""
    out, trees = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("trees")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--doctree-dir", str(trees), "--conf-dir", "docs"]
    command = [sys.executable, "-m", "sphinx", *options, ".", str(out)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
    return out


def html(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def test_every_page_of_the_course_is_a_page_of_the_site(site, repository):
    expected = {path.relative_to(repository).with_suffix(".html") for path in pages.markdown_files(repository)}
    expected |= {path.relative_to(repository).with_suffix(".html") for path in pages.notebooks(repository)}
    assert {path.relative_to(site) for path in html(site)} == expected | {Path("index.html"), Path("search.html")}


def test_nothing_is_loaded_from_a_network(site):
    found = {}
    for path in [*html(site), *site.rglob("*.css")]:
        if loaded := LOADED.findall(path.read_text(encoding="utf-8")):
            found[str(path.relative_to(site))] = loaded
    assert found == {}


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ('<script async src="https://example.org/MathJax.js"></script>', True),
        ('<link rel="stylesheet" href="//example.org/a.css">', True),
        ('<img alt="" src="http://example.org/a.png">', True),
        ("@font-face { src: url('https://example.org/a.woff') }", True),
        ('<a href="https://example.org">a page</a>', False),
        ('<script src="_static/searchtools.js"></script>', False),
        ('<img src="data:image/png;base64,https">', False),
    ],
)
def test_a_source_in_a_network_is_noticed(text, loads):
    assert bool(LOADED.search(text)) == loads


def test_every_link_and_source_of_a_page_is_there(site):
    ids: dict[Path, set[str]] = {}
    for path in html(site):
        ids[path] = set(re.findall(r"\bid=\"([^\"]+)\"", path.read_text(encoding="utf-8")))
    missing = []
    for path in html(site):
        for link in re.findall(r"\b(?:href|src)=\"([^\"]+)\"", path.read_text(encoding="utf-8")):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.is_file() or (anchor and target in ids and anchor not in ids[target]):
                missing.append((path.name, link))
    assert missing == []


def test_the_search_finds_the_words_of_a_lesson(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    where = index["docnames"].index("notebooks/05_lora_phi2")
    for stem in ("qlora", "adapt", "rank"):
        found = [index[part].get(stem, []) for part in ("terms", "titleterms")]
        assert any(where in (each if isinstance(each, list) else [each]) for each in found), stem


def test_outputs_are_shown_as_they_are_stored(site):
    lesson = (site / "notebooks" / "02_text_classification.html").read_text(encoding="utf-8")
    assert 'alt="A dot with its interval for each model: accuracy on the test rows."' in lesson
    assert 'class="dataframe"' in lesson


def test_formulas_are_drawn_and_can_be_read_aloud(site):
    lesson = (site / "notebooks" / "05_lora_phi2.html").read_text(encoding="utf-8")
    assert r'aria-label="h = W x + \frac{\alpha}{r} \, B A \, x"' in lesson
    assert "MathJax" not in lesson


def test_the_home_page_lists_the_parts_in_order(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    parts = ["Start here", "Lessons", "Exercises", "Pages", "Results", "Reference"]
    found = re.findall(r"class=\"caption-text\">([^<]+)<", home)
    assert found[: len(parts)] == parts
    assert home == (site / "README.html").read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to print with")
def test_the_cheat_sheet_prints_on_two_sides_of_a4(site, tmp_path):
    printed = tmp_path / "cheat_sheet.pdf"
    page = (site / "docs" / "cheat_sheet.html").as_uri()
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    subprocess.run(
        [CHROMIUM, *options, f"--print-to-pdf={printed}", page], capture_output=True, timeout=120, check=True
    )
    sides = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed.read_bytes())
    assert [(round(float(width)), round(float(height))) for width, height in sides] == [(595, 842)] * 2
