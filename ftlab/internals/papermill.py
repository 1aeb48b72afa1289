"""Private names of papermill: what its engine calls before a cell runs.

papermill documents that an engine may be subclassed and registered. It does not document the manager of the notebook
that the engine gets, and has no public hook before a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def register_engine(name: str, before_cell: Callable[[int, Sequence[Any]], None]) -> None:
    """Register papermill's own engine as `name`, with a call of `before_cell(index, cells)` before each cell."""
    from papermill.engines import NBClientEngine, papermill_engines

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
            start = nb_man.cell_start

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                before_cell(cell_index or 0, nb_man.nb.cells)
                start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register(name, Engine)
