"""Your own files: CSV, TSV, JSONL and Parquet, as tables of what the file says and no more."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    if frame.empty and not len(frame.columns):
        raise BadInput(f"{path} has no rows; expected a table with the columns {' and '.join(columns)}")
    require_columns(path, frame, columns)
    if frame.empty:
        raise BadInput(f"{path} has a header but no rows; expected at least one row for each label")
    return frame


def require_columns(path: Path | str, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise BadInput unless the table has these columns."""
    for column in columns:
        if column not in frame.columns:
            raise BadInput(
                f"{path} has no column {column!r}; it has {', '.join(map(str, frame.columns))}; name the right ones "
                "with text_column and label_column (`ftlab audit`: --text and --label, or --prompt and --completion; "
                "`ftlab predict`: --text)"
            )


def _parse(path: Path) -> pd.DataFrame:
    """The table in a file, whatever its type; what a parser complains of becomes one sentence."""
    suffix = path.suffix.lower()
    with explained(path):
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix == ".jsonl":
            require_text(path)
            return pd.DataFrame(list(json_objects(path)))
        (frame,) = csv_chunks(path, None)
        return frame


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What a parser complains of, as one sentence (BadInput)."""
    try:
        yield
    except UnicodeDecodeError:
        with path.open("rb") as lines:
            for _ in decoded(lines, path):
                pass  # until the line that says where it is
        raise
    except (ValueError, OSError, pd.errors.ParserWarning) as problem:  # pandas' and pyarrow's errors are ValueErrors
        reason = " ".join(str(problem).split())
        raise BadInput(
            f"{path} cannot be read as {path.suffix.lower()[1:]} ({reason[:200]}); mend the file and try again"
        ) from problem


def csv_chunks(path: Path, rows: int | None) -> Iterator[pd.DataFrame]:
    """The table of a CSV or TSV file, `rows` at a time (None: whole), each value as the text that stands there."""
    require_text(path)
    with pd.read_csv(
        path,
        sep="\t" if path.suffix.lower() == ".tsv" else ",",
        encoding="utf-8-sig",
        dtype=str,  # 007 is not 7,
        keep_default_na=False,  # and "None" may be a label
        na_values=[""],
        index_col=False,
        iterator=True,
    ) as file:
        while True:
            # Around each read, and not around the loop: a generator's filters would hold for whoever takes its tables.
            with warnings.catch_warnings():
                # Fields too many in a row would shift its columns, or be cut off, with no more than a warning.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                try:
                    part = file.read(rows)
                except StopIteration:
                    return
            yield part


def require_text(path: Path) -> None:
    """Raise BadInput for a file that is no text: a picture, or text in UTF-16."""
    with path.open("rb") as file:
        if b"\0" in file.read(1 << 16):
            raise BadInput(f"{path} is a binary file; expected text in UTF-8 ({path.suffix.lower()[1:]})")


def decoded(lines: Iterable[bytes], where: object) -> Iterator[str]:
    """The lines as text, without a byte order mark; BadInput names the line that is not UTF-8."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as problem:
            byte = f"{problem.object[problem.start]:#x}"
            raise BadInput(f"{where} is not UTF-8 (line {number} has the byte {byte}); save it as UTF-8") from problem
        yield text


def json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, one a line; BadInput names the line that is none."""
    with path.open("rb") as lines:
        for number, line in enumerate(decoded(lines, path), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as problem:
                reason = getattr(problem, "msg", "nested too deeply")
                raise BadInput(f"{path}, line {number}: not JSON ({reason}); expected one object a line") from problem
            if r"\ud" in line.lower() and not is_whole(row):
                raise BadInput(f"{path}, line {number}: half a character (a lone \\ud...); write the whole one")
            if not isinstance(row, dict):
                raise BadInput(f'{path}, line {number}: expected an object such as {{"text": ..., "label": ...}}')
            yield row


class MixedLabels(dict[str, tuple[str, str]]):
    """Rows whose label is of a rarer type than that of equal-looking ones (1 beside "1"): id -> label, type."""

    def __deepcopy__(self, memo: object) -> MixedLabels:
        return self  # pandas copies what is in `attrs` with each table that it makes


def with_label_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its labels as text; where two types read the same, `attrs["mixed_labels"]` says in which rows."""
    labels = frame["label"]
    if isinstance(labels.dtype, pd.StringDtype):
        return frame
    # A column of whole numbers with gaps is read as floats: 1.0 is the label "1".
    if pd.api.types.is_float_dtype(labels) and (labels.dropna() % 1 == 0).all():
        labels = labels.astype("Int64")
    kinds = labels.map(lambda value: type(value).__name__, na_action="ignore").astype(object)
    named = frame.assign(label=labels.astype(object).map(str, na_action="ignore"))
    there = pd.DataFrame({"id": frame["id"], "label": named["label"], "kind": kinds}).dropna()
    several = there[there.groupby("label")["kind"].transform("nunique") > 1]
    if len(several):
        usual = several.groupby("label")["kind"].transform(lambda column: column.mode().iloc[0])
        rare = several[several["kind"] != usual]
        mixed = {row: (label, kind) for row, label, kind in rare.itertuples(index=False)}
        named.attrs["mixed_labels"] = MixedLabels(mixed)
    return named


def as_texts(column: pd.Series, where: str) -> pd.Series:
    """The column as strings. Raises BadInput when it holds nothing but numbers: it is another column that was meant."""
    values = column.dropna()
    strings = values.map(lambda value: isinstance(value, str))
    words = values[strings & (values.astype(str).str.strip() != "")]
    only_numbers = len(words) and pd.to_numeric(words, errors="coerce").notna().all()
    if only_numbers or (len(values) and not strings.any()):
        kind = "numbers" if only_numbers else type(values.iloc[0]).__name__
        first = str(values.iloc[0])[:40]
        raise BadInput(f"{where}, holds no texts but {kind} (the first is {first}); name the column of the texts")
    return column if strings.all() else column.map(str, na_action="ignore")


def is_whole(row: object) -> bool:
    """Whether a string, or a JSON value with strings in it, can be written down: half of a surrogate pair cannot."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
