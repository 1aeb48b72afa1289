"""`python -m ftlab.course.refresh [LESSON ...]`: run lessons and store their outputs in notebooks/."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Sequence
from typing import Any

import nbformat

from ftlab import files
from ftlab.course.notebooks import notebooks_folder
from ftlab.course.runner import LOCK, Result, run
from ftlab.errors import BadInput, CourseError
from ftlab.progress import quiet


def refresh(wanted: Sequence[str] = ()) -> list[Result]:
    """Run the lessons named in `wanted` (all by default) with the cpu profile, and store their outputs in notebooks/.

    Returns:
        The results, as `runner.run` returns them.

    Raises:
        BadInput: another process is storing outputs.
    """
    folder = notebooks_folder()
    with files.explained(folder, BadInput):
        lock = files.acquire_lock(folder / LOCK)
    if lock is None:
        who = files.holder(folder / LOCK)
        raise BadInput(f"the notebooks in {folder} are being stored anew ({who}); wait until that has ended")
    try:
        files.sweep(folder)
        _, results = run(wanted)
        for result in results:
            executed = nbformat.read(result.notebook, as_version=4)
            with files.atomic(folder / f"{result.lesson}.ipynb", error=BadInput) as temporary:
                nbformat.write(strip_noise(executed), temporary)
    finally:
        files.release_lock(lock)
    return results


def strip_noise(notebook: Any) -> Any:
    """Return a copy of an executed `notebook` without what another run would write differently.

    Timings, papermill's notes and the injected parameters go; sources, outputs and execution counts stay.
    """
    clean = copy.deepcopy(notebook)
    clean.cells = [cell for cell in clean.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    clean.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    count = 0
    for cell in clean.cells:
        for noise in ("papermill", "execution", "collapsed", "scrolled", "ExecuteTime"):
            cell.metadata.pop(noise, None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        for output in cell.outputs:
            _strip_output(output)
            if output.output_type == "execute_result":
                output.execution_count = count
    return clean


def _strip_output(output: Any) -> None:
    """Remove the addresses of objects and the time of a progress table."""
    for kind, text in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(text, str):
            text = re.sub(r" at 0x[0-9a-f]+>", ">", text)
            output["data"][kind] = re.sub(r"(\[\d+/\d+) [\d:]+(, Epoch)", r"\1\2", text)


if __name__ == "__main__":
    quiet()
    try:
        for result in refresh(sys.argv[1:]):
            print(f"{result.lesson}: {result.seconds:.0f} s, {result.headline}")
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
