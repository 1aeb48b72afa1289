"""`python -m ftlab.course.refresh [LESSON ...]`: run lessons, store their outputs in notebooks/, and their claims.

`python -m ftlab.course.refresh --claims RUN_FOLDER` stores the claims of a run on a GPU, without outputs.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from ftlab import files
from ftlab.course import ledger
from ftlab.course.notebooks import notebooks_folder
from ftlab.course.runner import LOCK, Result, run
from ftlab.errors import BadInput, CourseError
from ftlab.progress import quiet


def refresh(wanted: Sequence[str] = ()) -> list[Result]:
    """Run the lessons named in `wanted` (all by default) with the cpu profile, and store their outputs in notebooks/.

    Their claims go to benchmarks/claims/cpu.json; those of the other lessons stay there.

    Returns:
        The results, as `runner.run` returns them.

    Raises:
        BadInput: another process is storing outputs, or the course does not stand for a claim (see `ledger.storable`);
            then neither outputs nor claims are stored.
    """
    folder = notebooks_folder()
    with files.explained(folder, BadInput):
        lock = files.acquire_lock(folder / LOCK)
    if lock is None:
        who = files.holder(folder / LOCK)
        raise BadInput(f"the notebooks in {folder} are being stored anew ({who}); wait until that has ended")
    try:
        files.sweep(folder)
        ran, results = run(wanted)
        ledger.storable(ran)  # before the first notebook: outputs and claims are stored together or not at all
        for result in results:
            executed = nbformat.read(result.notebook, as_version=4)
            with files.atomic(folder / f"{result.lesson}.ipynb", error=BadInput) as temporary:
                nbformat.write(strip_noise(executed), temporary)
        ledger.store(ran)
    finally:
        files.release_lock(lock)
    return results


def store_claims(folder: Path) -> list[Path]:
    """Store the claims of a run's `folder` without its outputs: those of the gpu profile.

    Returns:
        The files that were written, as `ledger.store` returns them.

    Raises:
        BadInput: as `ledger.storable`, or a lesson ran in the cpu profile, whose claims belong to the stored outputs.
    """
    for entry in ledger.storable(folder):
        if entry["profile"] == "cpu":
            name = entry["lesson"]
            raise BadInput(
                f"the claims of {name} in {folder} are not stored: those of the profile cpu belong to the outputs in "
                f"notebooks; python -m ftlab.course.refresh {name.partition('_')[0]} runs the lesson and stores both"
            )
    return ledger.store(folder)


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
    """Remove the addresses of objects and the times of a progress table."""
    for kind, text in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(text, str):
            text = re.sub(r" at 0x[0-9a-f]+>", ">", text)
            output["data"][kind] = re.sub(r"(\[\d+/\d+) [\d:]+(?:<[\d:]+)?(, Epoch|\])", r"\1\2", text)


def main(arguments: Sequence[str]) -> int:
    """Do what `arguments` ask: lessons, or --claims and the folder of a run. Return the exit code."""
    try:
        if "--claims" in arguments:
            if len(arguments) != 2 or arguments[0] != "--claims":
                raise BadInput("expected one folder of a run: python -m ftlab.course.refresh --claims RUN_FOLDER")
            for path in store_claims(Path(arguments[1])):
                print(path)
            return 0
        quiet()
        for result in refresh(arguments):
            print(f"{result.lesson}: {result.seconds:.0f} s, {result.headline}")
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
