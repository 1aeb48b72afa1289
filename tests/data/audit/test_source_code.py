"""What is code: there tags, entities and repeated lines are ordinary."""

import re

import pandas as pd
import pytest

from ftlab.data.audit import audit, text_noise
from ftlab.data.audit.source_code import in_prose, is_code, outside_code

PYTHON = "def strong(text):\n    if text:\n        return '<strong>' + text + '</strong>&nbsp;'\n    return ''"
JAVASCRIPT = "function strong(a) {\n  const b = '<b>' + a + '</b>';\n  // bold\n  return wrap(b, '&nbsp;');\n}"
CUT = "import os\nfor name in os.listdir('.'):\n    path = '<p>' + name\n    print(path.upper("
PROSE = "A <b>good</b> film.\nIt is long; and I liked it;\nthe end = the best part."
PAGE = "<html>\n<script>\nvar a = 1;\nf(a);\n</script>\n<p>Hello &amp; welcome</p>\n</html>"


@pytest.mark.parametrize("text", [PYTHON, JAVASCRIPT, CUT, "print('<b>')", "@cache\ndef f():\n    return '<br>'"])
def test_tags_and_entities_are_ordinary_in_code(text):
    assert is_code(text)
    assert outside_code(text) == ""
    assert text_noise.FINDERS["markup"](text) is None
    assert text_noise.FINDERS["entities"](text) is None
    assert text_noise.strip_markup(text) == text.strip()
    assert text_noise.decode_entities(text) == text


@pytest.mark.parametrize(
    "text",
    [
        PROSE, PAGE, "", "good", "@ann loves <b>this</b> film", "if you like <b>films</b>, read on:", "global warming",
        "import taxes are <i>high</i>", "# Films\n* <b>good</b>\n* bad\n* long", "from Paris import <br /> wine",
    ],
)  # fmt: skip
def test_prose_and_pages_are_no_code(text):
    assert not is_code(text)
    assert (text_noise.FINDERS["markup"](text) is not None) == ("<" in text)


def test_code_in_prose_is_left_out_and_the_rest_is_repaired():
    text = "Use `<br>` for a line end.\n\n```html\n<p>&nbsp;</p>\n```\n\nIt is <b>easy</b> &amp; quick."
    assert text_noise.FINDERS["markup"](text) == "<b>"
    assert text_noise.FINDERS["entities"](text) == "&amp;"
    assert "`<br>`" in text_noise.strip_markup(text)
    assert "<p>&nbsp;</p>" in text_noise.strip_markup(text)
    assert "It is easy & quick." in " ".join(text_noise.decode_entities(text_noise.strip_markup(text)).split())
    assert text_noise.FINDERS["markup"]("Use `<br>` and\n```\n<p>\n```") is None


def test_lines_that_programs_share_are_no_boilerplate_but_their_licence_is():
    bodies = [f"def f{number}(path):\n    try:\n        return {number}\n    except OSError as error:\n        raise"
              for number in range(8)]  # fmt: skip
    licence = "# All rights are reserved by the owners of this library."

    def found(texts: list[str]) -> bool:
        rows = pd.DataFrame({"id": [*map(str, range(8))], "text": texts, "label": ["a", "b"] * 4})
        return "boilerplate" in audit(rows)

    assert not found(bodies)
    assert found([f"{licence}\n{body}" for body in bodies])


@pytest.mark.parametrize("text", ["`" * 300_000, "`a" * 200_000, "```\n" * 100_000, "(" * 300_000, "def f(\n" * 50_000,
                                  "a.b" * 6000, "-" * 19_000, "x = [" + "[" * 15_000])  # fmt: skip
def test_hostile_texts_are_judged_quickly(text):
    is_code(text)
    outside_code(text)
    in_prose(text, re.compile("<b>"), " ")
