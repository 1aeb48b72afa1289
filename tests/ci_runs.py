"""The runs of .github/workflows/papermill.yml: `python tests/ci_runs.py` prints its matrix. It needs no package.

They are the rows of promises.toml that a fresh clone can run: in the profile smoke, without a hub, and without a file,
a model or weights that somebody would have to bring. Each lesson is also run as it is.
"""

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NEEDS = ("hub", "assets", "stops", "profile")  # keys of rows that a fresh clone cannot run, or that end with an error


def runs() -> list[dict[str, str]]:
    """Number, notebook and parameters (as `-p NAME VALUE`) of each run."""
    notebooks = {path.stem[:2]: path.stem for path in sorted(HERE.parent.glob("notebooks/[0-9][0-9]_*.ipynb"))}
    rows = tomllib.loads((HERE / "promises.toml").read_text(encoding="utf-8"))["run"]
    plain = [{"lesson": lesson} for lesson in notebooks]
    chosen = [row for row in rows if not any(key in row for key in NEEDS) and "<" not in str(row["parameters"])]
    found = [
        {"lesson": row["lesson"], "notebook": notebooks[row["lesson"]], "parameters": typed(row.get("parameters", {}))}
        for row in plain + chosen
    ]
    return sorted(found, key=lambda row: row["lesson"])


def typed(parameters: dict[str, Any]) -> str:
    """The parameters as a person types them into a shell."""
    words = []
    for name, value in parameters.items():
        words += ["-p", name, str(value)]  # True: papermill reads true as text
    return shlex.join(words)


if __name__ == "__main__":
    print(json.dumps(runs()))
