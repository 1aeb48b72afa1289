"""Named data sets, your own files and data sets of the model hub, as rows with an id, a text and a label.

`read` returns a table in the order of the file, for an audit; `load` returns a shuffled `DatasetDict` with label names,
for training. The id of a row is its position in its source ("imdb-00042"), and stays the same when rows are shuffled,
dropped or split.

A data set is told by its name: one of SOURCES is the course's; a path that exists, or that ends like a file (.csv) or
begins with ".", "/" or "~", is your own; and owner/name is a data set of the hub (see `hub_datasets`), perhaps with a
configuration and a revision: owner/name:configuration@revision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from ftlab import files
from ftlab.data import assets, conversations, group_columns, hub, hub_datasets, values
from ftlab.data.course_datasets import SOURCES
from ftlab.data.group_columns import GROUP
from ftlab.data.subsets import spread
from ftlab.data.tables import COLUMNS_ADVICE, FILE_TYPES, named_columns, read_table
from ftlab.errors import BadInput
from ftlab.wording import visible

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

ROWS = Path(__file__).parent / "rows"


class Provenance(NamedTuple):
    """Where rows came from, enough to get the same ones again, and a note on values that were converted to text."""

    name: str
    origin: str
    licence: str
    sha256: str
    note: str = ""


def required_assets(dataset: str, *, from_hub: bool = False) -> list[str]:
    """Return the assets that reading `dataset` needs in the cache: none if it is read `from_hub`."""
    source = SOURCES.get(dataset)
    return [source.asset] if source and source.asset and not from_hub else []


def comes_from_hub(dataset: str) -> bool:
    """Return whether `dataset` is the id of a data set on the model hub: no name of the course, and no path."""
    return dataset not in SOURCES and hub_datasets.is_id(dataset)


def splits_of(
    dataset: str,
    *,
    from_hub: bool = False,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
) -> tuple[str, ...]:
    """Return the splits of `dataset`: "train", and "test" if it has one with labels. Packages and files have no test.

    Args:
        dataset: as for `read`.
        from_hub: as for `read`.
        text_column: as for `read`.
        label_column: as for `read`.
        group_column: as for `read`; it makes no difference here.

    Raises:
        AssetError, BadInput: as `read`, for a data set by its id on the hub.
    """
    if comes_from_hub(dataset):
        split, _ = hub_datasets.judging_split(
            dataset, text_column=text_column, label_column=label_column, advice=COLUMNS_ADVICE
        )
        return ("train", "test") if split else ("train",)
    source = SOURCES.get(dataset)
    return ("train", "test") if from_hub and source and source.hub_id else ("train",)


def read(
    dataset: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    split: str = "train",
    from_hub: bool = False,
    most: int = 0,
    judging: bool = False,
    advice: str = COLUMNS_ADVICE,
) -> pd.DataFrame:
    """Read the rows of a data set in the order of its file: columns id, text and label, labels as names.

    With a `group_column` there is one more column, group: rows of one group (an author, a patient) belong on one side
    of a split. A row without a group has None there.

    Args:
        dataset: one of SOURCES, the path of a CSV, TSV, JSONL or Parquet file, or the id of a data set on the hub
            (owner/name, owner/name:configuration, owner/name@revision, owner/name:configuration@revision). A path that
            exists is a path, and so is what ends like a file or begins with ".", "/" or "~".
        text_column: of your file (None: "text"), or of the data set on the hub (None: it is found).
        label_column: of your file (None: "label"), or of the data set on the hub (None: it is found).
        group_column: of your file, or of the data set on the hub; None reads no groups.
        split: "train", or "test" of a data set on the hub; its "validation", if only that has labels.
        from_hub: whether to read the data set on the hub instead of the pinned package.
        most: about how many rows to return, spread over the source (see `spread`); 0 means all.
        judging: whether these are rows to judge, not to learn from: they may be of one group.
        advice: the next step, for the message on a column that is missing.

    Returns:
        The rows; `attrs["provenance"]` says where they came from, `attrs["group_column"]` the name of the column of
        groups, and, without one, `attrs["group_candidates"]` the columns that look like one. Of a data set on the hub,
        `attrs["hub_split"]` names the commit, the configuration and the split that were read.

    Raises:
        BadInput: the name is unknown, the file is missing, empty, binary or lacks a column, a text or a label is a
            list or an object, the groups cannot be used (`group_columns.require`), or as `hub_datasets.read`.
        AssetError: the data set cannot be fetched.
    """
    source = SOURCES.get(dataset)
    judging = judging or split != "train"
    if comes_from_hub(dataset):
        return _part(_read_hub(dataset, text_column, label_column, group_column, split, judging, advice), most)
    if source is None:
        names = text_column or "text", label_column or "label"
        return _part(_read_file(_as_path(dataset), *names, group_column, judging, advice), most)
    if group_column:
        raise BadInput(
            f"{dataset} is a data set of the course, and its rows have no groups; leave out the group column "
            f"{group_column!r}, or give a file of your own"
        )
    if from_hub and source.hub_id and source.revision:
        folder = hub.folder(source.hub_id, source.revision, kind="dataset", patterns=["*.parquet"])
        parts = sorted(folder.rglob(f"{split}*.parquet"))
        if not parts:
            raise BadInput(f"{source.hub_id} has no split {split!r} at revision {source.revision}")
        frame = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
        origin, checksum = f"{source.hub_id}@{source.revision}", "".join(files.sha256(part) for part in parts)
    elif source.asset:
        file = assets.path(source.asset) / "reviews.csv"
        frame = pd.read_csv(file, keep_default_na=False)
        frame = frame[frame["source"] == source.name].reset_index(drop=True)
        asset = assets.ASSETS[source.asset]
        origin = f"{asset.package} {asset.version}"
        checksum = str(assets.manifest(source.asset)["files"]["reviews.csv"]["sha256"])
    else:
        file = ROWS / f"{source.name}.csv"
        frame, origin, checksum = pd.read_csv(file, keep_default_na=False), "shipped with ftlab", files.sha256(file)
    if pd.api.types.is_integer_dtype(frame["label"]):
        frame["label"] = frame["label"].map(dict(enumerate(source.label_names)))
    frame = frame[["text", "label"]]
    prefix = source.name if split == "train" else f"{source.name}-{split}"
    return _part(_with_ids(frame, prefix, Provenance(source.name, origin, source.licence, checksum)), most)


def read_pairs(
    file: str,
    *,
    prompt_columns: Sequence[str],
    completion_column: str,
    group_column: str | None = None,
    judging: bool = False,
    advice: str = "name the right ones",
) -> pd.DataFrame:
    """Read a file of instruction data: columns id, instruction, input, prompt, completion and perhaps group.

    Args:
        file: a path.
        prompt_columns: the prompt is their texts, one a line, without those that are empty. The column called
            instruction, or else the first, is the instruction for the course's template; the others are its input.
        completion_column: lists and objects in it become JSON text, and the note of the provenance says so.
        group_column: as for `read`.
        judging: as for `read`.
        advice: the next step, for the message on a column that is missing.

    Returns:
        The rows; `attrs["provenance"]` says where they came from, `attrs["prompt_columns"]` the order of the columns,
        and the groups are as of `read`.

    Raises:
        BadInput: the file cannot be read or lacks a column, the answers are a part of the prompt, or a prompt is a
            list, an object or a conversation.
    """
    path = _own_file(file)
    if completion_column in prompt_columns:
        raise BadInput(
            f"the column {completion_column!r} of {path} cannot be a part of the prompt and the answer to it; {advice}"
        )
    frame = read_table(path, [*prompt_columns, completion_column], advice=advice)
    named = sorted(dict.fromkeys(prompt_columns), key=lambda name: name != "instruction")
    parts = [values.plain_texts(frame[name], f"{path}, column {name!r}").fillna("") for name in named]
    answers, note = values.as_answers(frame[completion_column], f"{path.name}, column {completion_column!r}")
    pairs = pd.DataFrame({"instruction": parts[0], "input": joined(parts[1:], frame.index)})
    pairs = pairs.assign(prompt=joined(parts, frame.index), completion=answers)
    pairs.attrs["prompt_columns"] = named
    pairs = _with_ids(pairs, path.name, Provenance(path.name, str(path), "your own", files.sha256(path), note))
    return _with_groups(pairs, frame, [*prompt_columns, completion_column], group_column, str(path), judging)


def read_conversations(
    file: str, column: str = "", *, group_column: str | None = None, judging: bool = False
) -> pd.DataFrame:
    """Read a file of conversations: columns id, prompt, completion, messages, problem and perhaps group.

    Args:
        file: a path.
        column: of the conversations; "" finds it (`conversations.of_frame`).
        group_column: as for `read`.
        judging: as for `read`.

    Returns:
        The rows. `messages` has the turns of each; the prompt is its user turns and the completion its assistant turns,
        with a blank line between two. If a conversation cannot be read, `problem` says why, and the other three are
        None. `attrs["provenance"]` says where the rows came from.

    Raises:
        BadInput: the file cannot be read, lacks the column, or has no conversation that can be read.
    """
    path = _own_file(file)
    frame = read_table(path, [])
    column = column or conversations.of_frame(frame) or conversations.COLUMNS[0]
    if column not in frame.columns:
        raise BadInput(
            f"{path} has no column {column!r}; it has {named_columns(frame)}; name the column of "
            "the conversations after --messages"
        )
    problems = [
        conversations.problem_of(row[column]) or conversations.problem_beside(row) for row in frame.to_dict("records")
    ]
    if all(problems):
        raise BadInput(
            f"{path}: none of its {len(frame):,} rows has a conversation that can be read in the column {column!r}; "
            f"row 0: {problems[0]}"
        )
    messages = [
        None if problem else conversations.read([value], f"{path}, column {column!r}")[0]
        for value, problem in zip(frame[column], problems, strict=True)
    ]
    rows = pd.DataFrame(
        {
            "prompt": [turns and conversations.said_by(turns, "user") for turns in messages],
            "completion": [turns and conversations.said_by(turns, "assistant") for turns in messages],
            "messages": messages,
            "problem": problems,
        },
        dtype=object,
    )
    origin = Provenance(path.name, str(path), "your own", files.sha256(path))
    return _with_groups(_with_ids(rows, path.name, origin), frame, [column], group_column, str(path), judging)


def has_conversations(file: str) -> str:
    """Return the name of the column of the file `file` that has conversations, or ""."""
    try:
        return conversations.of_frame(read_table(_own_file(file), [])) or ""
    except BadInput:
        return ""


def _own_file(file: str) -> Path:
    if file in SOURCES:
        raise BadInput(f"{file} holds texts with labels, and no prompts with completions; give a file of your own")
    if comes_from_hub(file):
        raise BadInput(
            f"there is no file {file}; instruction data is read from files, so download one from the hub and give its "
            "path"
        )
    return _as_path(file)


def joined(columns: Sequence[pd.Series], index: pd.Index) -> pd.Series:
    """Return, for each row, its texts in `columns` that are not blank, one a line, with `index` as the index."""
    rows = zip(*columns, strict=True) if columns else [()] * len(index)
    return pd.Series(["\n".join(text for text in row if text.strip()) for row in rows], index=index, dtype=object)


def load(
    dataset: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    from_hub: bool = False,
    seed: int = 0,
    most: int = 0,
    drop_incomplete: bool = False,
    test_dataset: str | None = None,
) -> DatasetDict:
    """Load a data set, shuffled: a DatasetDict of columns id, text and label, where the label is a ClassLabel.

    With a `group_column` there is one more column, group (see `read`); `splits.split` keeps each group in one split.

    It is shuffled, since both packaged sets (and many others) are sorted by label.

    Args:
        dataset: as for `read`.
        text_column: as for `read`.
        label_column: as for `read`.
        group_column: as for `read`; test rows need it too.
        from_hub: whether to read the data set on the hub instead of the pinned package.
        seed: of the shuffle.
        most: about how many rows of each split to take, spread over it; 0 means all.
        drop_incomplete: whether to leave out rows without a text or a label; otherwise they are refused.
        test_dataset: a file or a data set of the course with the test rows, instead of the source's own; the columns
            have the same names, which are not found.

    Returns:
        The splits: "train" of packages and files, "train" and "test" (if it has labels) of the hub or with a
        `test_dataset`.

    Raises:
        BadInput: as `read`; also a row without a text or a label, or a test row with a label that no training row has.
        AssetError: as `read`.
    """
    from datasets import DatasetDict

    columns: dict[str, Any] = {
        "text_column": text_column, "label_column": label_column, "group_column": group_column
    }  # fmt: skip
    how: dict[str, Any] = {**columns, "from_hub": from_hub, "most": most}
    splits = ("train",) if test_dataset else splits_of(dataset, from_hub=from_hub, **columns)
    frames = {split: read(dataset, split=split, **how) for split in splits}
    if test_dataset:
        check_test(test_dataset)
        frames["test"] = read(test_dataset, judging=True, **how)
        if not set(frames["test"]["id"]).isdisjoint(frames["train"]["id"]):  # two files of one name
            frames["test"]["id"] = "test-" + frames["test"]["id"]
    for split, frame in frames.items():
        if drop_incomplete:
            frames[split] = complete(frame)
        else:
            _require_complete(frame, test_dataset if test_dataset and split == "test" else dataset)
    names = _label_names(dataset, frames["train"]["label"])
    if "test" in frames:
        frames["test"] = with_decimals(frames["test"], names)
        _require_known(frames["test"], names)
    return DatasetDict({split: _as_dataset(frame, names).shuffle(seed=seed) for split, frame in frames.items()})


def row_ids(prefix: str, count: int) -> list[str]:
    """Return the ids of the rows of a source, by their `count`: `prefix` and the position.

    >>> row_ids("imdb", 2)
    ['imdb-00000', 'imdb-00001']
    """
    return [f"{prefix}-{number:05d}" for number in range(count)]


def as_frame(dataset: Dataset) -> pd.DataFrame:
    """Return the rows of a `dataset` from `load` as an audit takes them: id, text, label (its name) and any group."""
    names = dataset.features["label"].names
    frame = pd.DataFrame({"id": list(dataset["id"]), "text": list(dataset["text"])})
    frame["label"] = [names[label] for label in dataset["label"]]
    if GROUP in dataset.column_names:
        frame[GROUP] = pd.Series(list(dataset[GROUP]), dtype=object)
    frame.attrs["provenance"] = provenance(dataset)
    return frame


def as_dataset_dict(frame: pd.DataFrame) -> DatasetDict:
    """Return the rows of `frame`, repaired by an audit or your own, as `load` would: one "train" split, in their order.

    Raises BadInput if a row has no text or no label, or if the labels are not classes.
    """
    from datasets import DatasetDict

    _require_complete(frame, "the table")
    frame = values.with_label_names(frame)
    return DatasetDict(train=_as_dataset(frame, _label_names("the table", frame["label"])))


def _as_dataset(frame: pd.DataFrame, names: list[str]) -> Dataset:
    from datasets import ClassLabel, Dataset, Features, Value

    provenance = frame.attrs.get("provenance")
    if not isinstance(provenance, Provenance):  # pandas saves `attrs` with a table, and reads a tuple back as a list
        provenance = Provenance("rows", "made here", "your own", "")
    features = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=names)})
    if GROUP in frame:
        features[GROUP] = Value("string")
    rows = frame[[*features]]
    rows = rows.assign(label=rows["label"].map({name: index for index, name in enumerate(names)}))
    rows.attrs = {}  # datasets would try to store it as JSON
    dataset = Dataset.from_pandas(rows, features=features, preserve_index=False)
    keep_provenance(dataset, provenance)
    return dataset


def keep_provenance(dataset: Dataset, provenance: Provenance) -> None:
    """Store `provenance` in `dataset`, where `provenance()` reads it."""
    dataset.info.dataset_name = provenance.name
    dataset.info.description = json.dumps(provenance._asdict())
    dataset.info.license = provenance.licence


def complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `frame` whose text and label are both present and not blank."""
    return frame[~blank(frame["text"]) & ~blank(frame["label"])]


def blank(column: pd.Series) -> pd.Series:
    """Return a mask of the values of `column` that are missing or white space only."""
    return column.isna() | (column.astype(str).str.strip() == "")


def provenance(dataset: Dataset) -> Provenance:
    """Return where the rows of a `dataset` from `load` came from."""
    return Provenance(**json.loads(dataset.info.description))


def fingerprint(dataset: Dataset) -> str:
    """Return a SHA-256 of the rows of `dataset` in order: ids, texts and labels, or a task's columns."""
    digest = hashlib.sha256()
    named = ("text", "label") if "text" in dataset.column_names else ("instruction", "input", "output", "messages")
    columns = [name for name in named if name in dataset.column_names]
    for row in zip(*(dataset[column] for column in ("id", *columns)), strict=True):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def check(
    dataset: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    judging: bool = False,
) -> None:
    """Raise BadInput unless `dataset` is a known name or a file that can be read and used for training.

    The columns and `judging` are as for `read`. Nothing is downloaded, so a command can check first; of a data
    set on the hub only the form of the id is checked, and `read` does the rest.
    """
    if dataset in SOURCES and group_column:
        read(dataset, group_column=group_column)  # refuses it
    if dataset not in SOURCES and not hub_datasets.is_id(dataset):
        names = text_column or "text", label_column or "label"
        frame = _read_file(_as_path(dataset), *names, group_column, judging)
        if not judging:  # test rows may have one label; `load` compares theirs with those of training
            _label_names(dataset, frame["label"].dropna())


def check_test(dataset: str) -> None:
    """Raise BadInput if `dataset`, which is to judge, is the id of a data set on the hub: which split is not clear."""
    if comes_from_hub(dataset):
        raise BadInput(
            f"test_dataset is {dataset!r}, and there is no such file; expected the path of a file with the rows that "
            "judge (a data set on the hub is judged by its own test split)"
        )


def _as_path(dataset: str) -> Path:
    path, there = files.named_path(dataset, "the path of a file")
    if there or path.suffix or "/" in dataset:
        return path
    raise BadInput(
        f"there is no data set {dataset!r}; there are {', '.join(SOURCES)}, or give the path of a file "
        f"({', '.join(FILE_TYPES)}) or a data set of the hub ({hub_datasets.FORM})"
    )


def _read_file(
    path: Path,
    text_column: str,
    label_column: str,
    group_column: str | None = None,
    judging: bool = False,
    advice: str = COLUMNS_ADVICE,
) -> pd.DataFrame:
    if text_column == label_column:
        raise BadInput(f"text_column and label_column are both {text_column!r}; expected two columns of {path}")
    table = read_table(path, [text_column, label_column], advice=advice)
    frame = table[[text_column, label_column]].rename(columns={text_column: "text", label_column: "label"})
    frame["text"] = values.as_texts(frame["text"], f"{path}, column {text_column!r}")
    origin = Provenance(path.name, str(path), "your own", files.sha256(path))
    frame = values.with_label_names(_with_ids(frame, path.name, origin))
    return _with_groups(frame, table, (text_column, label_column), group_column, str(path), judging)


def _read_hub(
    dataset: str,
    text_column: str | None,
    label_column: str | None,
    group_column: str | None,
    split: str,
    judging: bool,
    advice: str,
) -> pd.DataFrame:
    table = hub_datasets.read(
        dataset, split, text_column=text_column, label_column=label_column, group_column=group_column, advice=advice
    )
    configuration, frame = table.configuration, table.rows
    origin = Provenance(configuration.id, configuration.origin, configuration.licence, table.sha256, table.note)
    prefix = configuration.short_name if split == "train" else f"{configuration.short_name}-{split}"
    frame = values.with_label_names(_with_ids(frame, prefix, origin))
    frame.attrs["hub_split"] = f"{configuration.origin}, split {table.split!r}"
    return _with_groups(frame, table.others, (), group_column, dataset, judging)


def _with_groups(
    frame: pd.DataFrame,
    table: pd.DataFrame,
    used: Sequence[str],
    group_column: str | None,
    where: str,
    judging: bool,
) -> pd.DataFrame:
    """The rows with their groups from a column of `table`; without one, `attrs` has the columns that look like one."""
    if group_column:
        group_columns.require_column(where, table, group_column, used)
        frame[GROUP] = group_columns.read(table, group_column, where, judging=judging)
        frame.attrs["group_column"] = group_column
    elif not judging:
        others = {str(name): column for name, column in table.items() if name not in used}
        found = group_columns.candidates(frame["id"], others, frame.get("label"))
        frame.attrs |= {"group_candidates": found} if found else {}
    return frame


def _part(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """About `most` rows of the frame, spread over it (0: all); their provenance says of how many."""
    part = spread(frame, most, by="label")
    if len(part) < len(frame):
        whole = frame.attrs["provenance"]
        origin = f"{whole.origin}, {len(part):,} of its {len(frame):,} rows"
        part.attrs["provenance"] = whole._replace(origin=origin)
    return part


def _with_ids(frame: pd.DataFrame, prefix: str, origin: Provenance) -> pd.DataFrame:
    """The rows with their ids as a first column, and with the provenance in `attrs`."""
    frame = frame.reset_index(drop=True)
    frame.insert(0, "id", row_ids(prefix, len(frame)))
    frame.attrs["provenance"] = origin
    return frame


def _require_complete(frame: pd.DataFrame, dataset: str) -> None:
    for column in ("text", "label"):
        empty = blank(frame[column])
        if empty.any():
            first = frame.loc[empty, "id"].iloc[0]
            raise BadInput(
                f"{dataset}: {int(empty.sum())} rows have no {column}, the first is {first}; fill them in or remove "
                "them before training"
            )


def with_decimals(test: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `test` with the label 1 as 1.0, if the labels of training, `names`, have only that one.

    A file whose labels are 0.5 and 1.0 has the name 1.0, and one whose labels are all 1.0 has 1.
    """
    renamed = {
        label: f"{label}.0"
        for label in test["label"].dropna().unique()
        if label not in names and f"{label}.0" in names and label.removeprefix("-").isdecimal()
    }
    return test.assign(label=test["label"].replace(renamed)) if renamed else test


def _require_known(test: pd.DataFrame, names: list[str]) -> None:
    """Raise BadInput if a test row has a label that no training row has: the model cannot predict it."""
    strange = test[~test["label"].isin(names)]
    if len(strange):
        first = strange.iloc[0]
        raise BadInput(
            f"the test row {first['id']} has the label {first['label']!r}, which no training row has; they have "
            f"{', '.join(map(visible, names))}; add rows of it to training, or leave it out of the test"
        )


def _label_names(dataset: str, labels: pd.Series) -> list[str]:
    if dataset in SOURCES:
        return list(SOURCES[dataset].label_names)
    names = sorted(labels.unique(), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    if len(names) < 2:
        raise BadInput(f"{dataset} has one label ({names[0] if names else 'none'}); classification needs at least two")
    if len(names) > len(labels) / 2:
        raise BadInput(
            f"{dataset} has {len(names)} different labels in {len(labels)} rows; is label_column the right column?"
        )
    return names
