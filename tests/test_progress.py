import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from ftlab.progress import HEADLESS

BEGIN = "from ftlab.progress import bar\nwith bar('auditing', total=10) as progress:\n"


@pytest.fixture
def outputs(monkeypatch):
    """A function that runs code in a kernel with a person before it, and returns the outputs of the last cell."""
    monkeypatch.delenv(HEADLESS, raising=False)

    def run(source, fails=False):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        client = NotebookClient(notebook, kernel_name="python3", store_widget_state=False)
        if fails:
            with pytest.raises(CellExecutionError):
                client.execute()
        else:
            client.execute()
        return notebook.cells[0].outputs

    return run


def test_a_bar_leaves_nothing_in_a_notebook_even_if_less_was_done_than_announced(outputs):
    shown = outputs(BEGIN + "    progress.update(3)")
    assert [output.data for output in shown] == [{}], "a saved notebook would show: Error displaying widget"


def test_a_bar_that_an_error_ends_stays_as_text(outputs):
    shown = outputs(BEGIN + "    1 / 0", fails=True)
    assert list(shown[0].data) == ["text/plain"]
    assert shown[0].data["text/plain"].startswith("auditing:   0%")
