"""Your own files: CSV, TSV, JSONL and Parquet, as tables of what the file says and no more."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ftlab.errors import BadInput

FILE_TYPES = (".csv", ".tsv", ".jsonl", ".parquet")


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The table in a file that has these columns and at least one row; BadInput for any other file."""
    if not path.exists():
        raise BadInput(f"there is no file {path}; give the path of a {', '.join(FILE_TYPES)} file, from here or whole")
    if path.suffix.lower() not in FILE_TYPES:
        raise BadInput(f"{path} is not a file type that the course reads; expected one of {', '.join(FILE_TYPES)}")
    if not path.is_file():
        raise BadInput(f"{path} is a folder; give a file in it ({', '.join(FILE_TYPES)})")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty; expected a table with the columns {' and '.join(columns)}")
    frame = _parse(path)
    for column in columns:
        if column not in frame.columns:
            raise BadInput(
                f"{path} has no column {column!r}; it has {', '.join(map(str, frame.columns))}; name the right ones "
                "with text_column and label_column (`ftlab audit`: --text and --label, or --prompt and --completion)"
            )
    if frame.empty:
        raise BadInput(f"{path} has a header but no rows; expected at least one row for each label")
    return frame


def _parse(path: Path) -> pd.DataFrame:
    """The table in a file, whatever its type; what a parser complains of becomes one sentence."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        with path.open("rb") as file:
            if b"\0" in file.read(1 << 16):
                raise BadInput(f"{path} is a binary file; expected text in UTF-8 ({suffix[1:]})")
        if suffix == ".jsonl":
            return _parse_jsonl(path)
        with warnings.catch_warnings():
            # Fields too many in a row would shift its columns, or be cut off, with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep="\t" if suffix == ".tsv" else ",",
                encoding="utf-8-sig",
                dtype=str,  # 007 is not 7,
                keep_default_na=False,  # and "None" may be a label
                na_values=[""],
                index_col=False,
            )
    except UnicodeDecodeError as problem:
        raise BadInput(
            f"{path} is not UTF-8 (byte {problem.start} is {problem.object[problem.start]:#x}); save it as UTF-8"
        ) from problem
    except (
        ValueError,
        OSError,
        pd.errors.ParserWarning,
    ) as problem:  # pandas' and pyarrow's parser errors are ValueErrors
        reason = " ".join(str(problem).split())
        raise BadInput(
            f"{path} cannot be read as {suffix[1:]} ({reason[:200]}); mend the file and try again"
        ) from problem


def _parse_jsonl(path: Path) -> pd.DataFrame:
    rows = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as problem:
                raise BadInput(
                    f"{path}, line {number}: not JSON ({problem.msg}); expected one object a line"
                ) from problem
            if not isinstance(row, dict):
                raise BadInput(f'{path}, line {number}: expected an object such as {{"text": ..., "label": ...}}')
            rows.append(row)
    return pd.DataFrame(rows)
