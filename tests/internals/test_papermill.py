"""What breaks at papermill's next release."""

import nbformat
from papermill import engines

from ftlab.internals import papermill as papermill_internals


def test_the_names_that_the_engine_needs_are_there():
    assert hasattr(engines.NotebookExecutionManager, "cell_start"), (
        "papermill no longer has NotebookExecutionManager.cell_start: ftlab.internals.papermill.register_engine needs "
        "another way to know that a cell starts"
    )
    assert hasattr(engines, "papermill_engines"), (
        "papermill no longer has engines.papermill_engines: ftlab.internals.papermill.register_engine needs another "
        "way to register"
    )


def cell(source):
    return nbformat.v4.new_code_cell(source, metadata={"papermill": {}})


def test_each_cell_is_told_before_it_runs(monkeypatch):
    told = []
    papermill_internals.register_engine("told", lambda index, cells: told.append((index, cells[index].source)))
    notebook = nbformat.v4.new_notebook(cells=[cell("1"), cell("2")])
    monkeypatch.setattr(
        engines.NBClientEngine, "execute_managed_notebook",
        lambda manager, kernel, **options: [manager.cell_start(cell, n) for n, cell in enumerate(manager.nb.cells)],
    )  # fmt: skip
    manager = engines.NotebookExecutionManager(notebook, progress_bar=False)
    engines.papermill_engines.get_engine("told").execute_managed_notebook(manager, "python3")
    assert told == [(0, "1"), (1, "2")], "papermill starts cells in another way than by cell_start of its manager"
