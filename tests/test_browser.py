"""The copy of a lesson that a browser runs has the profile smoke."""

import nbformat
import pytest

from tests import browser


def notebook(path, *tags):
    """A notebook with a cell that chooses the profile, for each of `tags`."""
    cells = [nbformat.v4.new_code_cell('profile = "cpu"', metadata={"tags": [tag]}) for tag in tags]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_the_copy_of_a_lesson_has_the_profile_smoke(tmp_path):
    copy = browser.smoke_copy(notebook(tmp_path / "a.ipynb", "parameters", "other"), tmp_path / "copies")
    assert [cell.source for cell in nbformat.read(copy, as_version=4).cells] == [
        'profile = "smoke"', 'profile = "cpu"'
    ]  # fmt: skip


@pytest.mark.parametrize("tags", [("other",), ("parameters", "parameters")])
def test_a_lesson_whose_profile_cannot_be_told_is_no_silent_run_of_the_course(tmp_path, tags):
    lesson = notebook(tmp_path / "a.ipynb", *tags)
    with pytest.raises(AssertionError, match="cells with the tag parameters; expected one"):
        browser.smoke_copy(lesson, tmp_path / "copies")
