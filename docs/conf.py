"""How Sphinx builds the site: `make site`. The course itself is the source; its folder is Sphinx's source folder.

Relative links are the same in the repository and on the site, so no page is written twice. The contents of the site are
those of docs/index.md. Nothing on a page comes from a network, so the site can be read from disk.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from ipython_pygments_lexers import IPython3Lexer
from matplotlib.mathtext import math_to_image
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent

project = "ftlab"
html_title = "ftlab: fine-tune language models"
language = "en"
extensions = ["myst_nb"]

root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "exercises/**.md", "exercises/**.ipynb"]
exclude_patterns = [".*", "benchmarks", "build", "dist", "ftlab*", "runs", "site", "tests", "work", "**/.*"]

# Markdown as GitHub reads it, and notebooks as they are stored: outputs are shown, and no cell runs.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_render_markdown_format = "gfm"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = True  # the download button of a notebook
html_show_copyright = False
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_use_index = False
html_show_search_summary = False  # a browser may not fetch a page's words from disk; the search itself works
html_theme_options = {
    "logo": {"text": "ftlab"},
    "home_page_in_toc": False,
    "footer_content_items": [],
    "show_navbar_depth": 1,
    "navbar_persistent": [],  # one field for searching is enough
    "show_toc_level": 2,
    "use_source_button": False,
    "use_issues_button": False,
    "use_download_button": True,
}


def contents() -> dict[str, dict[str, str]]:
    """Return the parts of docs/index.md: under each heading the titles of what it lists, and the documents."""
    parts: dict[str, dict[str, str]] = {}
    for line in (DOCS / "index.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            parts[line[3:]] = documents = {}
        elif link := re.match(r"- \[(.+?)\]\(([^)#]+)\)", line):
            path = (DOCS / link[2]).resolve().relative_to(REPOSITORY)
            documents[link[1]] = path.with_suffix("").as_posix()
    return parts


def _unlink_folders(app: Sphinx, document: str, source: list[str]) -> None:
    """A folder of the repository has no page: of a link to one the text remains."""

    def without(match: re.Match[str]) -> str:
        return match[1] if (REPOSITORY / document).parent.joinpath(match[2]).is_dir() else match[0]

    source[0] = re.sub(r"\[([^\[\]]+)\]\(([\w./-]+)\)", without, source[0])


def _describe_figures(app: Sphinx, document: str, source: list[str]) -> None:
    """The description that a notebook stores with a figure is the image's alternative text."""
    if Path(app.env.doc2path(document)).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    source[0] = json.dumps(notebook)


def _add_contents(app: Sphinx, document: str, source: list[str]) -> None:
    """Append the contents to the home page, where Sphinx looks for them and GitHub need not show them."""
    if document == root_doc:
        for part, documents in contents().items():
            lines = "\n".join(f"{title} </{path}>" for title, path in documents.items())
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {part}\n\n{lines}\n```\n"


def _add_index(app: Sphinx, problem: Exception | None) -> None:
    """The home page under the name that browsers and servers look for."""
    home = Path(app.outdir) / f"{root_doc}.html"
    if problem is None and home.is_file():
        shutil.copy(home, home.with_name("index.html"))


def svg(formula: str) -> tuple[str, float]:
    """Return a formula as SVG in the colour of the text around it, and how far it reaches below the line, in points."""
    formula = re.sub(r"\\[,;]|\\q?quad", r"\\ ", " ".join(formula.split()))
    drawn = io.StringIO()
    depth = math_to_image(f"${formula}$", drawn, dpi=72, format="svg")
    image = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    image = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", image, flags=re.DOTALL)
    return re.sub(r'<g id="patch_1">.*?</g>', "", image, flags=re.DOTALL), depth


def _formula(writer: Any, node: nodes.Element, displayed: bool) -> None:
    source = node.astext()
    image, depth = svg(source)
    names = re.findall(r'id="([^"]+)"', image)
    for name in names:  # the ids of a page must differ
        unique = f"formula-{len(writer.body)}-{name}"
        image = image.replace(f'"{name}"', f'"{unique}"').replace(f'"#{name}"', f'"#{unique}"')
    image = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt" height="([\d.]+)pt"', _in_em(depth), image, count=1)
    image = image.replace("<svg ", f'<svg role="img" aria-label="{escape(source)}" ', 1)
    tag = "div" if displayed else "span"
    writer.body.append(f'<{tag} class="formula">{image}</{tag}>')
    raise nodes.SkipNode


def _in_em(depth: float) -> Any:
    """The size of the SVG's head in em, so that a formula grows with the text; matplotlib draws at 10 points."""

    def head(match: re.Match[str]) -> str:
        width, height = float(match[2]) / 10, float(match[3]) / 10
        return f'{match[1]}style="width:{width:.3f}em;height:{height:.3f}em;vertical-align:{-depth / 10:.3f}em"'

    return head


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what is above. Formulas are drawn here, so that no page needs JavaScript for them."""
    app.add_lexer("python", IPython3Lexer)  # also knows a notebook's `!` and `%`
    app.connect("source-read", _unlink_folders)
    app.connect("source-read", _describe_figures)
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _add_index)
    app.add_html_math_renderer(
        "drawn",
        inline_renderers=(lambda writer, node: _formula(writer, node, displayed=False), None),
        block_renderers=(lambda writer, node: _formula(writer, node, displayed=True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}


html_math_renderer = "drawn"
