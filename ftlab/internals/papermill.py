"""Private names of papermill: what its engine calls before and after a cell runs.

papermill documents that an engine may be subclassed and registered. It does not document the manager of the notebook
that the engine gets, and has no public hook around a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Hook = Callable[[int, Sequence[Any]], None]


def register_engine(name: str, before_cell: Hook, after_cell: Hook) -> None:
    """Register papermill's own engine as `name`, with two calls for each cell.

    Args:
        name: the engine's name.
        before_cell: called with the cell's index and all cells before it runs.
        after_cell: the same when it has run, well or not; its outputs are in it.
    """
    from papermill.engines import NBClientEngine, papermill_engines

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
            start, complete = nb_man.cell_start, nb_man.cell_complete

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                before_cell(cell_index or 0, nb_man.nb.cells)
                start(cell, cell_index, **more)

            def cell_complete(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                complete(cell, cell_index, **more)
                after_cell(cell_index or 0, nb_man.nb.cells)

            nb_man.cell_start, nb_man.cell_complete = cell_start, cell_complete
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register(name, Engine)
