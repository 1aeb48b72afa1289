"""What breaks at papermill's next release."""

import nbformat
import papermill
import pytest
from papermill import engines

from ftlab.internals import papermill as papermill_internals


@pytest.mark.parametrize("name", ["cell_start", "cell_complete"])
def test_the_names_that_the_engine_needs_are_there(name):
    assert hasattr(engines.NotebookExecutionManager, name), (
        f"papermill no longer has NotebookExecutionManager.{name}: ftlab.internals.papermill.register_engine needs "
        "another way to know that a cell starts and has run"
    )
    assert hasattr(engines, "papermill_engines"), (
        "papermill no longer has engines.papermill_engines: ftlab.internals.papermill.register_engine needs another "
        "way to register"
    )


def cell(source):
    return nbformat.v4.new_code_cell(source, metadata={"papermill": {}})


def test_each_cell_is_told_before_it_runs_and_after_it_with_its_outputs(tmp_path):
    told = []
    papermill_internals.register_engine(
        "told",
        lambda index, cells: told.append(("before", index, len(cells[index].outputs))),
        lambda index, cells: told.append(("after", index, len(cells[index].outputs))),
    )
    notebook = nbformat.v4.new_notebook(cells=[cell("print(1)"), cell("1 / 0"), cell("print(3)")])
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    with pytest.raises(papermill.PapermillExecutionError):
        papermill.execute_notebook(
            tmp_path / "notebook.ipynb", tmp_path / "done.ipynb", engine_name="told", kernel_name="python3",
            progress_bar=False,
        )  # fmt: skip
    assert told == [("before", 0, 0), ("after", 0, 1), ("before", 1, 0), ("after", 1, 1)], (
        "papermill starts and ends cells in another way than by cell_start and cell_complete of its manager"
    )
