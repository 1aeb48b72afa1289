"""A table of text shows all of each text, aligned to the left."""

import pandas as pd

from ftlab.course.tables import TextTable

LONG = "a sentence that is longer than the fifty characters after which pandas cuts"
FRAME = pd.DataFrame({"why": [LONG, "a < b"]}, index=pd.Index(["one", "two"], name="rule"))


def test_a_long_text_is_whole_in_text_and_in_html():
    table = TextTable(FRAME)
    assert LONG in repr(table)
    assert LONG in table._repr_html_()


def test_cells_and_headings_are_aligned_to_the_left_and_escaped():
    html = TextTable(FRAME)._repr_html_()
    assert html.count("text-align: left") >= 4  # two cells and the index of each
    assert "<td>" not in html
    assert "a &lt; b" in html


def test_the_index_may_be_left_out():
    assert "one" not in TextTable(FRAME, index=False)._repr_html_()
    assert "one" not in repr(TextTable(FRAME, index=False))
