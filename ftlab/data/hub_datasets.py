"""Any data set of a model hub by its id: the CSV, TSV, JSON, JSONL and Parquet files of one commit, and never code.

`datasets` decides which files a configuration has, from a folder that holds a card and no script. CSV, TSV and JSONL
are read as your own files are, without guessing types, unless the card says how to read them; `datasets` reads the
rest. The files themselves are in the hub's cache, so a commit that was read once is read again without a hub.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab import files, wording
from ftlab.data import group_columns, hub, tables, values
from ftlab.errors import AssetError, BadInput

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

FORM = "owner/name, owner/name:configuration or owner/name@revision"
LARGEST = 2_000_000_000  # bytes of the files of a configuration; more is a download that has to be meant
DATA_TYPES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
CARD, MORE_CARD, OLD_CARD = "README.md", ".huggingface.yaml", "dataset_infos.json"
NO_ROWS = (OLD_CARD, "dataset_info.json", "dataset_dict.json", "config.json")  # JSON, but no data
PAPERS = ("README", "LICENSE", "LICENCE", "NOTICE", "CITATION", "CHANGELOG", "REQUIREMENTS")  # whatever their type
CONVERTED = "refs/convert/parquet"  # the branch in which a hub keeps Parquet files that it made of a data set
FEW = 200  # the most classes that a column of labels is found by
VALIDATIONS = ("validation", "valid", "val", "dev", "eval")  # what data sets call their split of validation rows
NO_TEXTS = ("id", "uuid", "guid", "idx", "index", "key", "lang", "language", "url")  # columns of strings, but no texts
TEXT_TYPES = ("string", "large_string", "string_view")
FLOAT_TYPES = ("float16", "float32", "float64")
NO_OPTIONS = ("default", "description", "version")  # of a card's configuration: they do not say how to read its files
SEPARATORS = {".csv": ",", ".tsv": "\t"}
WHOLE_TYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

_ID = re.compile(
    r"(?P<repo_id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<configuration>[^:@]+))?(?:@(?P<revision>[^:@]+))?"
)
_CONVERTED_FILE = re.compile(r"[^/]+/[^/]+/\d+\.parquet")  # configuration/split/number.parquet
_WORDS = (
    re.compile(  # white space, or a letter of a script that has none between words: Thai to Khmer, Chinese, Japanese
        r"[\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
    )
)
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # a number that is written in one way only, and fits into 64 bits
_NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PATH_TYPES = {*tables.FILE_TYPES, *tables.CONVERT, ".txt"}


@dataclass(frozen=True)
class Configuration:
    """One configuration of a data set at one commit: the files of each split, and how `datasets` is to read them."""

    dataset: str
    repo_id: str
    commit: str
    name: str
    files: Mapping[str, Sequence[str]]
    options: Mapping[str, Any]
    features: Any
    licence: str

    @property
    def train(self) -> str:
        """The split of the training rows: "train", or the only one.

        Raises:
            BadInput: there are several splits, and none is called "train".
        """
        if "train" not in self.files and len(self.files) > 1:
            raise BadInput(
                f"{self.dataset} has no split 'train'; it has {', '.join(self.files)}; the rows to learn from are read "
                "from 'train', so choose another configuration or data set"
            )
        return "train" if "train" in self.files else next(iter(self.files))

    @property
    def validation(self) -> str | None:
        """The split of the validation rows, which goes by one of VALIDATIONS; None if there is none."""
        return next((name for name in VALIDATIONS if name in self.files and name != self.train), None)

    @property
    def unused(self) -> list[str]:
        """The splits that are neither trained on nor judge."""
        return [name for name in self.files if name not in (self.train, "test", self.validation)]

    @property
    def origin(self) -> str:
        """The repository, the commit that was read, and the configuration."""
        return f"{self.repo_id}@{self.commit}, configuration {self.name}"

    @property
    def id(self) -> str:
        """The id without a revision, with the configuration unless it is called default."""
        return self.repo_id if self.name == "default" else f"{self.repo_id}:{self.name}"

    @property
    def short_name(self) -> str:
        """The name without owner and revision, as the ids of rows begin."""
        name = self.repo_id.partition("/")[2]
        return name if self.name == "default" else f"{name}-{self.name}"


@dataclass(frozen=True)
class Table:
    """The texts and labels of a split, with its name, the SHA-256 of its files and a sentence on what was chosen."""

    configuration: Configuration
    split: str
    rows: pd.DataFrame
    sha256: str
    note: str
    others: pd.DataFrame  # the other columns of strings, whole numbers and classes: one of them may be of groups


def is_id(dataset: str) -> bool:
    """Return whether `dataset` is the id of a data set on the hub, in one of the forms of FORM, and no path.

    A file or folder that exists is a path, and so is a name that ends like a file (.csv, .txt) or begins with ".", "/"
    or "~". An id has an owner: a name without a slash is a data set of the course.

    >>> is_id("owner/name"), is_id("owner/name:part@v1.0"), is_id("folder/rows.csv"), is_id("imdb")
    (True, True, False, False)
    """
    found = _ID.fullmatch(dataset)
    if found is None or PurePosixPath(found["repo_id"]).suffix.lower() in _PATH_TYPES:
        return False
    try:
        return not Path(dataset).exists()
    except OSError:  # a name that is too long for a path
        return True


@cache  # for as long as a process runs, so that train and test come from one commit of a branch that moves
def find(dataset: str) -> Configuration:
    """Return the configuration that the id `dataset` names. Its data files are not downloaded yet.

    Raises:
        AssetError: the hub has no such data set or revision, it is gated, or it is neither in the hub's cache nor can
            the hub be reached.
        BadInput: there is no such configuration, several and none was chosen, no file that can be read, or too much.
    """
    found = _ID.fullmatch(dataset)
    assert found is not None
    repo_id, wanted, revision = found["repo_id"], found["configuration"], found["revision"]
    snapshot = hub.folder(repo_id, revision, kind="dataset", patterns=[CARD, MORE_CARD, OLD_CARD])
    sizes = hub.sizes(repo_id, snapshot)
    data = [name for name in sorted(sizes) if _is_data(name)]
    _require_data(dataset, sizes, data)
    card = _read_card(dataset, snapshot)
    converted = [] if CARD in sizes else _converted(data)
    if not converted:
        _require_no_script(dataset, repo_id, sizes, card)
    entry = _chosen(dataset, converted or _described(dataset, card), wanted)
    name = entry.get("config_name", "default")
    in_splits = _files_of(dataset, name, entry, [file for file in sorted(sizes) if _may_be_of_a_split(file)])
    configuration = Configuration(
        dataset=dataset,
        repo_id=repo_id,
        commit=snapshot.name,
        name=name,
        files=in_splits,
        options={key: value for key, value in entry.items() if key not in ("config_name", "data_files", "data_dir")},
        features=_features(card, snapshot, name),
        licence=_licence(card),
    )
    _require_size(configuration, sizes)
    return configuration


def judging_split(dataset: str, *, text_column: str | None, label_column: str | None, advice: str) -> tuple[str, str]:
    """Return the split with the rows that judge, and a sentence if it is not "test"; ("", "") if no split has labels.

    Args:
        dataset: an id.
        text_column: as for `read`.
        label_column: as for `read`.
        advice: as for `read`.

    Raises:
        AssetError, BadInput: as `read`.
    """
    configuration = find(dataset)
    _, label = _columns(configuration, text_column, label_column, advice)
    if "test" in configuration.files and configuration.train != "test" and _has_labels(configuration, "test", label):
        return "test", ""
    validation = configuration.validation
    if validation and _has_labels(configuration, validation, label):
        lacking = "it has no split 'test' with labels that its training rows have"
        return validation, f"the test rows are its split {validation!r}, since {lacking}"
    return "", ""


def read(
    dataset: str,
    split: str,
    *,
    text_column: str | None,
    label_column: str | None,
    group_column: str | None = None,
    advice: str = tables.COLUMNS_ADVICE,
) -> Table:
    """Read the texts and labels of a split of the data set with the id `dataset`; a missing label (-1) is None.

    Without a name, a column is found: the texts are the column called text, or else the only one of strings that are
    many and have several words; the labels are the column called label, or else the only ClassLabel, or else the only
    one of whole numbers or few strings.

    Args:
        dataset: the id.
        split: "train" (or the only split), "test" (or else the validation rows, if only they have labels),
            "validation" (or what else of VALIDATIONS there is), or another split.
        text_column: its name; None finds it.
        label_column: its name; None finds it.
        group_column: of groups of rows, which must be another one; it is among `others`.
        advice: the next step, for the message on a column that is missing or not clear.

    Raises:
        AssetError: as `find`, for the files of the split.
        BadInput: as `find`; also there is no such split, no such column, none or several that may be meant, no row, or
            the files cannot be read, or a text is a list, an object or bytes.
    """
    configuration = find(dataset)
    text, label = _columns(configuration, text_column, label_column, advice)
    notes = [f"{dataset}: the texts are its column {text!r}, the labels {label!r}"]
    if split == "train":
        split = configuration.train
        notes += [f"the rows are its only split {split!r}"] * (split != "train")
        notes += [f"its splits {', '.join(configuration.unused)} are not used"] * bool(configuration.unused)
    elif split == "test":
        split, note = judging_split(dataset, text_column=text, label_column=label, advice=advice)
        if not split:
            raise BadInput(f"{dataset} has no test split with labels; its splits: {', '.join(configuration.files)}")
        notes += [note] * bool(note)
    elif split == "validation":
        split = configuration.validation or split
        notes += [f"the validation rows are its split {split!r}"] * (split != "validation")
    rows = _split(configuration, split)
    where = f"{dataset}, split {split!r}"
    if not len(rows):
        raise BadInput(f"{where} has no rows; choose another split or data set")
    tables.require_columns(where, _names(rows), [text, label], advice)
    texts = values.as_texts(_values(rows, text), f"{where}, column {text!r}")
    labels = _labels(rows, label, f"{where}, column {label!r}")
    if split != configuration.train and "-1" not in _known(_split(configuration, configuration.train), label):
        labels = pd.Series([None if value == -1 else value for value in labels], dtype=object)  # kept secret
    frame = pd.DataFrame({"text": texts, "label": labels})
    if group_column:
        group_columns.require_column(where, _names(rows), group_column, [text, label])
    others = _others(rows, [text, label], group_column)
    return Table(configuration, split, frame, _checksum(configuration, split), "; ".join(notes), others)


# --- the files of a configuration -----------------------------------------------------------------------------------
def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    return _is_inside(path) and path.suffix in DATA_TYPES and path.name not in NO_ROWS


def _may_be_of_a_split(name: str) -> bool:
    """Whether a file may be one of rows, in a form that is read here or not: no card and no script."""
    path = PurePosixPath(name)
    other = path.suffix in (".py", ".md") or path.stem.upper() in PAPERS or path.name in (MORE_CARD, *NO_ROWS)
    return _is_inside(path) and not other


def _is_inside(path: PurePosixPath) -> bool:
    return not path.is_absolute() and ".." not in path.parts and "\\" not in str(path)


def _require_no_script(dataset: str, repo_id: str, sizes: Mapping[str, int], card: Mapping[str, Any]) -> None:
    """Raise BadInput if a script decides what the rows are: the files beside it are its input, whatever they hold."""
    script = f"{repo_id.partition('/')[2]}.py"
    if script in sizes and not card.get("configs"):
        raise BadInput(
            f"{dataset} has a loading script ({script}), and code of others is not run here; {_elsewhere(dataset)}"
        )


def _elsewhere(dataset: str) -> str:
    return (
        f"expected {', '.join(DATA_TYPES)} files: many hubs keep them at the revision {CONVERTED}, so try "
        f"{dataset.partition('@')[0]}@{CONVERTED}"
    )


def _require_data(dataset: str, sizes: Mapping[str, int], data: Sequence[str]) -> None:
    if data:
        return
    expected = f"expected {', '.join(DATA_TYPES)} files"
    others = [name for name in sorted(sizes) if name not in (CARD, ".gitattributes", *NO_ROWS)]
    if not others:
        raise BadInput(f"{dataset} is empty: its repository has no data; {expected}, so choose another data set")
    if scripts := [name for name in others if name.endswith(".py")]:
        raise BadInput(
            f"{dataset} has a loading script ({scripts[0]}) and no data files, and code of others is not run here; "
            f"{_elsewhere(dataset)}"
        )
    raise BadInput(
        f"{dataset} has no files that are read here: it has {wording.some(others)}; {expected}, so choose another data "
        "set, or convert it and give the path of your file"
    )


def _read_card(dataset: str, snapshot: Path) -> dict[str, Any]:
    """The metadata at the head of the README and in the file that may complete it."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        card = (metadata_load(snapshot / CARD) or {}) if (snapshot / CARD).is_file() else {}
        if (snapshot / MORE_CARD).is_file():
            card |= yaml.safe_load((snapshot / MORE_CARD).read_text(encoding="utf-8")) or {}
    except (ValueError, TypeError, yaml.YAMLError) as problem:
        raise BadInput(
            f"the card of {dataset} is not YAML ({wording.one_line(problem)}); tell its owner, or download a file of "
            "it and give its path"
        ) from problem
    return card


def _described(dataset: str, card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The configurations that the card describes; one without a description if it describes none."""
    configs = card.get("configs") or [{"config_name": _only_info(card).get("config_name", "default")}]
    if not isinstance(configs, list) or not all(isinstance(one, dict) and one.get("config_name") for one in configs):
        raise BadInput(f"the card of {dataset} describes configurations without names; choose another data set")
    for config in configs:
        for pattern in _patterns(config):
            if "://" in pattern or PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
                raise BadInput(
                    f"the configuration {config['config_name']} of {dataset} names data outside its repository "
                    f"({wording.quoted(pattern)}), which is not read; choose another data set"
                )
    return [{**config, "config_name": str(config["config_name"])} for config in configs]


def _patterns(config: Mapping[str, Any]) -> list[str]:
    """All paths and patterns of files in a configuration of a card."""

    def leaves(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [leaf for one in value.values() for leaf in leaves(one)]
        if isinstance(value, (list, tuple)):
            return [leaf for one in value for leaf in leaves(one)]
        return [str(value)]

    return [leaf for name in ("data_files", "data_dir") if config.get(name) for leaf in leaves(config[name])]


def _converted(data: Sequence[str]) -> list[dict[str, Any]]:
    """The configurations of a hub's own conversion, where each file is configuration/split/number.parquet; or none."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in data:
        if not _CONVERTED_FILE.fullmatch(name):
            return []
        config, split, _ = name.split("/")
        found.setdefault(config, {}).setdefault(split, []).append(name)
    return [
        {"config_name": config, "data_files": [{"split": split, "path": names} for split, names in splits.items()]}
        for config, splits in found.items()
    ]


def _chosen(dataset: str, configs: Sequence[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """The configuration that is wanted, or else the only one, or the one that is marked as the default."""
    named = {str(config["config_name"]): config for config in configs}
    listed = ", ".join(list(named)[:20]) + (f", ... ({len(named)} in all)" if len(named) > 20 else "")
    if wanted is not None:
        if wanted not in named:
            raise BadInput(f"{dataset} has no configuration {wanted!r}; it has {listed}; name one of them")
        return named[wanted]
    marked = [config for name, config in named.items() if len(named) == 1 or name == "default" or config.get("default")]
    if len(marked) != 1:
        repo_id, _, revision = dataset.partition("@")
        example = f"{repo_id}:{next(iter(named), 'NAME')}" + (f"@{revision}" if revision else "")
        raise BadInput(
            f"{dataset} has several configurations ({listed}) and none was chosen; name one, for example {example}"
        )
    return marked[0]


def _files_of(dataset: str, name: str, entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The data files of each split, as `datasets` finds them: it looks at a folder of empty files with these names.

    The names are those of all files, so that a training file of another type is not passed over for the test file.
    """
    from datasets import load_dataset_builder
    from huggingface_hub import metadata_save

    with tempfile.TemporaryDirectory(prefix="ftlab-") as place:
        folder = Path(place).resolve() / "repository"
        if not any(_patterns(entry)):
            _require_small_letters(dataset, names)
        for file in names:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        if any(_patterns(entry)):
            metadata_save(folder / CARD, {"configs": [dict(entry)]})
        try:
            found = load_dataset_builder(str(folder), cache_dir=str(folder.parent / "cache")).config.data_files
            return {
                str(split): tuple(Path(file).relative_to(folder).as_posix() for file in some)
                for split, some in found.items()
            }
        except Exception as problem:  # FileNotFoundError, ValueError, and classes that only `datasets` knows
            packed = isinstance(problem, zipfile.BadZipFile)  # as an empty file with its name is
            reason = "it looks for rows in .zip files" if packed else _reason(problem, folder)
            raise BadInput(
                f"the configuration {name} of {dataset} has no files that are read here ({reason}); expected "
                f"{', '.join(DATA_TYPES)} files, so choose another configuration or data set"
            ) from problem


def _require_small_letters(dataset: str, names: Sequence[str]) -> None:
    """Raise BadInput for Train.CSV, which `datasets` passes over, so that the file beside it would be trained on."""
    for name in names:
        ending = PurePosixPath(name).suffix
        if ending.lower() in DATA_TYPES and ending not in DATA_TYPES:
            raise BadInput(
                f"{dataset} has the file {wording.shown(name)}, whose ending {ending} is not read beside other files; "
                f"expected {', '.join(DATA_TYPES)}, so download it and give its path"
            )


def _reason(problem: Exception, folder: Path) -> str:
    """What an error says, on one line, without the temporary folder in which `datasets` was made to look."""
    said = str(problem)
    for path in dict.fromkeys((str(folder.resolve()), str(folder))):
        said = said.replace(f"{path}/", "").replace(path, "the repository")
    return wording.one_line(said or type(problem).__name__)


def _only_info(card: Mapping[str, Any]) -> Mapping[str, Any]:
    info = card.get("dataset_info")
    info = info[0] if isinstance(info, list) and len(info) == 1 else info
    return info if isinstance(info, dict) else {}


def _features(card: Mapping[str, Any], snapshot: Path, name: str) -> Any:
    """What the card says of the columns of a configuration, names of labels included; None if it says nothing."""
    infos = card.get("dataset_info") or []
    for info in infos if isinstance(infos, list) else [infos]:
        if isinstance(info, dict) and str(info.get("config_name", "default")) == name and info.get("features"):
            return {"card": info["features"]}
    try:
        old = json.loads((snapshot / OLD_CARD).read_text(encoding="utf-8"))
        entry = old[name] if name in old else next(iter(old.values())) if len(old) == 1 else {}
        return {"old card": entry["features"]} if entry.get("features") else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _licence(card: Mapping[str, Any]) -> str:
    licence = card.get("license")
    named = ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence or "")
    return named or "see the data set's page"


def _require_size(configuration: Configuration, sizes: Mapping[str, int]) -> None:
    """Raise BadInput if the files of the splits that may be read are larger than LARGEST."""
    splits = configuration.files.keys() - set(configuration.unused)
    size = sum(sizes[file] for split in splits for file in configuration.files[split])
    if size > LARGEST:
        raise BadInput(
            f"{configuration.dataset} has {size / 1e9:,.1f} GB of files (configuration {configuration.name}), and at "
            f"most {LARGEST / 1e9:g} GB are downloaded; choose a smaller configuration, or save a part of it as a file "
            "and give its path"
        )


# --- the rows of a split --------------------------------------------------------------------------------------------
def _split(configuration: Configuration, split: str) -> Dataset:
    """The rows of a split, downloaded if they are not in the hub's cache.

    What the course's own reader can read is as exact as a file that is given by its path. `datasets` reads the rest,
    and caches what it has parsed: it guesses types, and leaves quotes out.
    """
    from datasets import Dataset, Features, config, load_dataset_builder
    from huggingface_hub import metadata_save

    if split not in configuration.files:
        raise BadInput(
            f"{configuration.dataset} has no split {split!r}; it has {', '.join(configuration.files)}; name one of them"
        )
    _require_types(configuration, split)
    paths = _downloaded(configuration, split)
    is_plain = _is_plain(configuration.options, paths)
    columns = _exact(f"{configuration.dataset}, split {split!r}", tuple(paths)) if is_plain else None
    options = dict(configuration.options)
    if all(path.suffix in (".csv", ".tsv") for path in paths):
        options = {"keep_default_na": False, "na_values": [""], **options}  # "None" and "NA" are words
    entry = {
        **options,
        "config_name": configuration.name,
        "data_files": [{"split": split, "path": [glob.escape(str(path)) for path in paths]}],
    }
    with tempfile.TemporaryDirectory(prefix="ftlab-") as place:
        folder = Path(place) / configuration.repo_id.replace("/", "--")  # the cache of `datasets` goes by this name
        folder.mkdir()
        card: dict[str, Any] = {"configs": [entry]}
        described = configuration.features or {}
        if "card" in described:
            card["dataset_info"] = [{"config_name": configuration.name, "features": described["card"]}]
        metadata_save(folder / CARD, card)
        try:
            # Given, and not in an old card: `datasets` takes the only entry of one for the configuration "default".
            old = Features.from_dict(described["old card"]) if "old card" in described else None
            builder = load_dataset_builder(str(folder), features=old)
            features = builder.info.features
            if columns and (features is None or features.keys() == columns.keys()):
                if not all(map(len, columns.values())):
                    return Dataset.from_dict({})
                ordered = {name: columns[name] for name in features or columns}
                return Dataset.from_dict(ordered, features=features)
            builder.download_and_prepare(verification_mode="no_checks")  # the card's numbers of rows may be outdated
            empty = not builder.info.splits[split].num_examples  # which `datasets` refuses to read
            rows = Dataset.from_dict({}) if empty else builder.as_dataset(split=split)
        except Exception as problem:  # of `datasets`, pandas, pyarrow and the disk
            cause = problem.__cause__ if isinstance(problem.__cause__, Exception) else problem
            if any(map(files.says_disk_is_full, (problem, cause))) or isinstance(problem, PermissionError):
                said = problem if isinstance(problem, PermissionError) else OSError(errno.ENOSPC, files.NO_SPACE)
                raise AssetError(files.explain(said, Path(config.HF_DATASETS_CACHE))) from problem
            raise BadInput(
                f"{configuration.dataset}, split {split!r}, cannot be read ({_reason(cause, folder)}); choose another "
                "configuration, revision or data set"
            ) from problem
    return rows


def _is_plain(options: Mapping[str, Any], paths: Sequence[Path]) -> bool:
    """Whether the course's own reader reads the files of a split, of whose reading the card says `options`."""
    kinds = {path.suffix for path in paths}
    if kinds not in ({".csv"}, {".tsv"}, {".jsonl"}):
        return False
    usual = SEPARATORS.get(kinds.pop())
    return all(key in NO_OPTIONS or (key in ("sep", "delimiter") and value == usual) for key, value in options.items())


@lru_cache(maxsize=3)  # training, validation and test; the paths are of a commit, whose files do not change
def _exact(where: str, paths: tuple[Path, ...]) -> dict[str, pa.Array] | None:
    """The columns of files of one type, without a guess; None if `datasets` has to read them.

    The cells of CSV and TSV are texts; a column of them is one of whole numbers if each is written as Python writes it.

    Raises BadInput, which begins with `where`, for a CSV or TSV file that would be refused by its path.
    """
    import pyarrow as pa

    lines = all(path.suffix == ".jsonl" for path in paths)
    parts = []
    for path in paths:
        if not path.stat().st_size:
            continue
        try:
            if lines:
                parts.append(pd.DataFrame(list(tables.json_objects(path)), dtype=object))
            else:
                parts += tables.csv_chunks(path, None)
        except BadInput as problem:
            if lines:  # in a form that the course does not read, but `datasets` may
                return None
            said = str(problem).replace(str(path), path.name)
            raise BadInput(
                f"{where}: its file {said}; to do so, download it and give the path of your copy"
            ) from problem
    if not parts or not (lines or all(set(part) == set(parts[0]) for part in parts)):
        return None
    table = pd.concat(parts, ignore_index=True)
    columns = {str(name): [None if cell != cell else cell for cell in table[name]] for name in table}  # NaN is missing
    try:
        return {name: _typed(cells) if lines else _whole(cells) for name, cells in columns.items()}
    except (pa.ArrowException, OverflowError):  # objects and lists of several types
        return None


def _whole(cells: Sequence[str | None]) -> pa.Array:
    """The cells of a column of CSV: as whole numbers, if no cell loses something, and else as texts."""
    import pyarrow as pa

    there = [cell for cell in cells if cell is not None]
    if there and all(map(_WHOLE.fullmatch, there)):
        return pa.array([None if cell is None else int(cell) for cell in cells], pa.int64())
    return pa.array(cells, pa.string())


def _typed(cells: Sequence[Any]) -> pa.Array:
    """The values of a column of JSONL: numbers of which a float would be another one, as texts."""
    import pyarrow as pa

    numbers = [cell for cell in cells if isinstance(cell, (int, float)) and not isinstance(cell, bool)]
    if any(isinstance(cell, int) and abs(cell) >= 1 << 53 for cell in numbers) and (
        any(isinstance(cell, float) for cell in numbers)
    ):
        return pa.array(values.with_whole_numbers(pd.Series(cells, dtype=object)).map(values.text_of), pa.string())
    return pa.array(cells)


def _require_types(configuration: Configuration, split: str) -> None:
    for name in configuration.files[split]:
        if not _is_data(name):
            raise BadInput(
                f"{configuration.dataset}, split {split!r}, has the file {wording.shown(name)}, which is not of a type "
                f"that is read here; expected {', '.join(DATA_TYPES)} files, so choose another configuration or data "
                "set, or convert it and give the path of your file"
            )


def _downloaded(configuration: Configuration, split: str) -> list[Path]:
    names = configuration.files[split]
    patterns = [glob.escape(name) for name in names]
    folder = hub.folder(configuration.repo_id, configuration.commit, kind="dataset", patterns=patterns)
    return [folder / name for name in names]


def _checksum(configuration: Configuration, split: str) -> str:
    """The SHA-256 of the one file of a split, or of the lines "SHA-256 name" of several."""
    hashes = [files.sha256(path) for path in _downloaded(configuration, split)]
    if len(hashes) == 1:
        return hashes[0]
    lines = [f"{sha} {name}\n" for sha, name in zip(hashes, configuration.files[split], strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _values(rows: Dataset, column: str) -> pd.Series:
    return pd.Series(list(rows[column]), dtype=object)


def _labels(rows: Dataset, column: str, where: str) -> pd.Series:
    from datasets import ClassLabel

    feature = rows.features[column]
    if not isinstance(feature, ClassLabel):
        return _values(rows, column)
    return pd.Series(tables.label_names(list(rows[column]), feature.names, where), dtype=object)


def _others(rows: Dataset, used: Sequence[str], group_column: str | None) -> pd.DataFrame:
    """The column of groups; if none is named, the other columns whose values repeat."""
    names = [group_column] if group_column else [
        name for name in _of_type(rows, (*TEXT_TYPES, *WHOLE_TYPES))
        if name not in used and len(rows.unique(name)) <= len(rows) / 2
    ]  # fmt: skip
    return pd.DataFrame({name: _labels(rows, name, f"column {name!r}") for name in names}, dtype=object)


def _has_labels(configuration: Configuration, split: str, label: str) -> bool:
    """Whether a row has a label that a training row has: where labels are kept secret, they are -1, NA or nothing."""
    rows, train = _split(configuration, split), _split(configuration, configuration.train)
    return label in rows.column_names and not _known(rows, label).isdisjoint(_known(train, label))


def _known(rows: Dataset, column: str) -> set[str]:
    """The labels of a split as text, without those that are missing."""
    from datasets import ClassLabel, Value

    feature = rows.features[column]
    found = rows.unique(column) if isinstance(feature, (ClassLabel, Value)) else list(rows[column])
    there = [value for value in found if value is not None and value != "" and value == value]  # and not NaN
    if isinstance(feature, ClassLabel):
        return {str(feature.names[value]) for value in there if 0 <= value < len(feature.names)}
    return {str(int(value) if isinstance(value, float) and value.is_integer() else value) for value in there}


# --- the columns of the texts and the labels ------------------------------------------------------------------------
def _columns(
    configuration: Configuration, text_column: str | None, label_column: str | None, advice: str
) -> tuple[str, str]:
    """The names of the columns of texts and labels, as given or found in the training rows."""
    where, rows = configuration.dataset, _split(configuration, configuration.train)
    if not len(rows):
        raise BadInput(f"{where} is empty: its split {configuration.train!r} has no rows; choose another data set")
    given = [name for name in (text_column, label_column) if name is not None]
    if len(given) == 2 and text_column == label_column:
        raise BadInput(f"text_column and label_column are both {text_column!r}; expected two columns of {where}")
    tables.require_columns(where, _names(rows), given, advice)
    label = label_column or ("label" if "label" in rows.column_names and text_column != "label" else None)
    text = text_column or ("text" if "text" in rows.column_names and label != "text" else None)
    if label is None:
        classes = [name for name in _class_labels(rows) if name != text]
        label = _the_one(where, rows, "labels", classes, advice) if classes else None
    if text is None:
        strings = [name for name in _of_type(rows, TEXT_TYPES) if name != label and _holds_texts(rows, name)]
        text = _the_one(where, rows, "texts", strings, advice)
    if label is None:
        whole = [name for name in _of_type(rows, WHOLE_TYPES) if name != text and _few(rows, name, 0.5)]
        texts = [name for name in _of_type(rows, TEXT_TYPES) if name != text]
        decimal = [name for name in texts if _is_decimal(rows, name)]  # as CSV has floats
        names = [name for name in texts if name not in decimal and _few(rows, name, 0.1)]
        # Beside stars of 1.0 to 5.0, a column of two words may be anything.
        floats = [*_of_type(rows, FLOAT_TYPES), *decimal] if names else []
        label = _the_one(where, rows, "labels", [*whole, *names, *floats], advice)
    return text, label


def _class_labels(rows: Dataset) -> list[str]:
    from datasets import ClassLabel

    return [name for name, feature in rows.features.items() if isinstance(feature, ClassLabel)]


def _holds_texts(rows: Dataset, column: str) -> bool:
    """Whether strings are texts by their look: they are many, and some have several words; ids and classes do not."""
    name = column.lower()
    if name in NO_TEXTS or name.endswith("_id"):
        return False
    distinct = set(rows.unique(column)) - {None}
    return len(distinct) > 1 and not _few(rows, column, 0.1) and any(map(_WORDS.search, distinct))


def _of_type(rows: Dataset, types: Sequence[str]) -> list[str]:
    from datasets import ClassLabel, Value

    kinds = (Value, ClassLabel)  # and no list, no image, no sound
    return [name for name, kind in rows.features.items() if isinstance(kind, kinds) and kind.dtype in types]


def _is_decimal(rows: Dataset, column: str) -> bool:
    """Whether a column of texts has numbers only, and decimal places in one of them."""
    there = set(rows.unique(column)) - {None}
    return all(map(_NUMBER.fullmatch, there)) and any("." in cell for cell in there)


def _few(rows: Dataset, column: str, most: float) -> bool:
    """Whether a column has as few values as labels have: at most FEW, and at most the share `most` of the rows."""
    return 2 <= len(set(rows.unique(column)) - {None}) <= min(FEW, max(2, int(most * len(rows))))


def _the_one(where: str, rows: Dataset, what: str, found: Sequence[str], advice: str) -> str:
    """The only column of `found`; BadInput if there is none, or if it may be one of several."""
    if not found:
        raise BadInput(
            f"{where} has no column that is clearly its {what}; it has {_listed(rows.column_names)}; {advice}"
        )
    if len(found) > 1:
        raise BadInput(f"{where} has several columns that may be its {what}: {_listed(found)}; {advice}")
    return found[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(wording.shown, names[:20])) + (", ..." if len(names) > 20 else "")


def _names(rows: Dataset) -> pd.DataFrame:
    """The columns of a split, without its rows, for a message."""
    return pd.DataFrame(columns=rows.column_names)
