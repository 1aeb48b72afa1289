"""Data sets by their id on a hub, against a stand-in that serves tiny repositories."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from ftlab import cli, files
from ftlab.course import profiles
from ftlab.data import hub_datasets, sources
from ftlab.data.splits import split
from ftlab.errors import AssetError, BadInput
from tests import hub as stand_in

TAGGED = "b" * 40
URL = "/{repo_id}/resolve/{revision}/{filename}"
ROWS = [{"text": f"film number {n}", "label": "bad" if n % 2 else "good"} for n in range(40)]
NAMES = ["not_entailment", "entailment", "neutral"]


def text_of(rows, suffix: str) -> str:
    if suffix == ".jsonl":
        return "\n".join(map(json.dumps, rows))
    if suffix == ".json":
        return json.dumps(rows)
    return pd.DataFrame(rows).to_csv(index=False, sep="\t" if suffix == ".tsv" else ",")


def written(path: Path, rows, features: Features | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        Dataset.from_list(rows, features=features).to_parquet(path)
    else:
        path.write_text(rows if isinstance(rows, str) else text_of(rows, path.suffix), encoding="utf-8")
    return path


def features_of(names) -> dict[str, object]:
    """Columns as dataset_infos.json describes them."""
    label = {"num_classes": len(names), "names": list(names), "id": None, "_type": "ClassLabel"}
    return {"text": {"dtype": "string", "id": None, "_type": "Value"}, "label": label}


def glue(path: Path, start: int, labels) -> None:
    """Rows as GLUE has them: a sentence, a ClassLabel and a number."""
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=NAMES), "idx": Value("int32")})
    rows = [{"sentence": f"claim number {start + n}", "label": label, "idx": n} for n, label in enumerate(labels)]
    written(path, rows, features)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    with stand_in.serve() as hub:

        def add(name: str, contents: dict[str, object], **options) -> None:
            (root / name).mkdir()
            for file, rows in contents.items():
                written(root / name / file, rows)
            hub.add(f"some/{name}", root / name, "dataset", **options)

        for suffix in (".csv", ".tsv", ".json", ".jsonl", ".parquet"):
            add(f"a{suffix[1:]}", {f"train{suffix}": ROWS, "README.md": "---\nlicense: mit\n---\nFilms."})
        odd = [{"review": word or None, "verdict": n % 3, "idx": n} for n, word in enumerate(["None", "NA", ""] * 8)]
        odd = [{**row, "review": f"{row['review']} {n}" if n > 5 else row["review"]} for n, row in enumerate(odd)]
        add("found", {"train.csv": odd, "pickled.pkl": "no", "convert.py": "raise SystemExit"})
        numbered = "text,label\n" + "".join(f"film {n},{n % 2}\n" for n in range(40))
        named = "dtype: {class_label: {names: {'0': bad, '1': good}}}"
        info = f"dataset_info: {{features: [{{name: text, dtype: string}}, {{name: label, {named}}}]}}"
        add("named", {"train.csv": numbered, "README.md": f"---\n{info}\n---\n"})
        films = "configs:\n- {config_name: films, data_files: [{split: train, path: films/*.csv}]}\n"
        shops = "- config_name: shops\n  sep: ';'\n  data_files:\n  - {split: train, path: shops.csv}\n"
        two = {"films/1.csv": ROWS[:20], "films/2.csv": ROWS[20:], "shops.csv": text_of(ROWS, ".csv").replace(",", ";")}
        add("two", {**two, "README.md": f"---\n{films}{shops}---\n"}, revisions={"v1.0": TAGGED})
        add("marked", {**two, "README.md": f"---\n{films}{shops}  default: true\n---\n"})
        converted = {f"{config}/train/0000.parquet": ROWS for config in ("films", "shops")}
        add("script", {"script.py": "raise SystemExit"})
        add("converted", converted, revisions={"refs/convert/parquet": "c" * 40})
        for name, parts in {
            "glue": {"train": [0, 1, 2] * 10, "validation": [0, 1, 2] * 4, "test": [-1] * 9},
            "judged": {"train": [0, 1, 2] * 10, "validation": [0, 1, 2] * 4, "test": [0, 1, 2] * 3},
            "secret": {"train": [0, 1, 2] * 10, "test": [-1] * 9},
            "gaps": {"train": [0, 1, -1] * 10},
            "alone": {"test": [0, 1, 2] * 10},
            "no_train": {"test": [0, 1, 2] * 3, "validation": [0, 1, 2]},
        }.items():
            for place, (part, labels) in enumerate(parts.items()):
                glue(root / name / "data" / f"{part}-00000-of-00001.parquet", 100 * place, labels)
            hub.add(f"some/{name}", root / name, "dataset")
        pairs = [{"premise": f"premise {n}", "hypothesis": f"guess {n}", "label": n % 2} for n in range(40)]
        add("pairs", {"train.jsonl": pairs})
        by = [{**row, "user": n // 4, "site": "shop"} for n, row in enumerate(ROWS)]
        add("grouped", {"train.jsonl": by, "test.jsonl": [{**row, "text": f"new {row['text']}"} for row in by[:8]]})
        add("numbers", {"train.jsonl": [{"a": n, "label": n % 2} for n in range(40)]})
        add("stars", {"train.jsonl": [{"text": f"film {n}", "stars": n % 5, "year": n % 4} for n in range(40)]})
        add("several", {"train.jsonl": [{"text": f"film {n}", "label": ["a", "b"][: n % 3]} for n in range(40)]})
        add("turns", {"train.jsonl": [{"text": [f"film {n}"], "label": n % 2} for n in range(40)]})
        add("scripted", {"scripted.py": "raise SystemExit", "train.csv": ROWS})
        listed = "configs:\n- {config_name: a, data_files: train.csv}\n"
        add("listed", {"listed.py": "raise SystemExit", "train.csv": ROWS, "README.md": f"---\n{listed}---\n"})
        add("packed", {"train.jsonl.gz": "packed", "test.jsonl": ROWS})
        add("packed_test", {"train.jsonl": ROWS, "test.jsonl.gz": "packed", "validation.jsonl": ROWS[:10]})
        add("upper", {"Train.CSV": text_of(ROWS, ".csv")})
        add("lacking", {"README.md": f"---\n{films.replace('films/*', 'books/*')}---\n", "shops.csv": ROWS})
        old = {name: {"features": features_of(names)} for name, names in {"a": "xy", "b": "pq"}.items()}
        card = "".join(f"- {{config_name: {name}, data_files: {name}.csv}}\n" for name in "abc")
        three = {f"{name}.csv": numbered for name in "abc"} | {"README.md": f"---\nconfigs:\n{card}---\n"}
        add("legacy", {**three, "dataset_infos.json": json.dumps(old)})
        add("legacy_one", {"train.csv": numbered, "dataset_infos.json": json.dumps({"some--name": old["b"]})})
        add("legacy_other", {"train.csv": numbered, "dataset_infos.json": json.dumps(old)})
        for name, test in {
            "nan": [None] * 9,
            "na": ["NA"] * 9,
            "minus": [-1] * 9,
            "part": [-1, 0, 1] * 3,
        }.items():
            rows = [{"text": f"unseen {n}", "label": label} for n, label in enumerate(test)]
            (root / name).mkdir()
            features = Features({"text": Value("string"), "label": Value("float64")}) if name == "nan" else None
            if name == "nan":
                rows = [{**row, "label": float("nan")} for row in rows]
            written(root / name / "test.parquet", rows, features)
            numbers = [{"text": f"film {n}", "label": n % 2 if name != "na" else "ab"[n % 2]} for n in range(40)]
            written(root / name / "train.parquet", numbers)
            written(root / name / "validation.parquet", numbers[:10])
            hub.add(f"some/{name}", root / name, "dataset")
        parts = ("train", "dev", "extra", "more")
        card = "".join(f"  - {{split: {part}, path: {part}.csv}}\n" for part in parts)
        card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{card}---\n"
        add("dev", {"README.md": card} | {f"{part}.csv": ROWS for part in parts})
        add("gated", {"train.csv": ROWS, "README.md": "Films."}, gated=True)
        add("others", {"films.zip": "PK", "films.txt": "a film"})
        add("bare", {"README.md": "Nothing yet."})
        add("no_rows", {"train.jsonl": [], "test.csv": "text,label\n"} | {"train.csv": "text,label\n"})
        (root / "no_rows" / "train.jsonl").unlink()
        add("header", {"train.csv": ROWS, "validation.csv": "text,label\n"})
        quoted = 'text\tlabel\n"Good film\tpos\nBad film\tneg\nSo "fine" a film\tpos\nDull film\tneg\n'
        add("quoted", {"train.tsv": quoted, "validation.tsv": "text\tlabel\ta\nA film\tpos\n"})
        add("broken", {"train.jsonl": '{"text": "a", "label": 1}\n{"text": \n'})
        add("large", {"train.csv": ROWS, "unlabelled.csv": ROWS})
        hub.claimed = {"some/large/train.csv": 3_456_000_000}
        outside = "configs:\n- {config_name: a, data_files: '../../etc/*.csv'}\n"
        add("outside", {"train.csv": ROWS, "README.md": f"---\n{outside}---\n"})
        written(root / "shards" / "data" / "train-00000-of-00002.parquet", ROWS[:20])
        written(root / "shards" / "data" / "train-00001-of-00002.parquet", ROWS[20:])
        hub.add("some/shards", root / "shards", "dataset")
        yield hub


@pytest.fixture
def hub(served, tmp_path, monkeypatch):
    """The stand-in as the hub of this process, with caches of its own."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.endpoint + URL)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    hub_datasets.find.cache_clear()
    served.requests.clear()
    yield served
    hub_datasets.find.cache_clear()


def downloaded(hub) -> set[str]:
    return {request.split("/resolve/")[1].split("/", 1)[1] for request in hub.requests if "/resolve/" in request}


def note(frame: pd.DataFrame) -> str:
    return frame.attrs["provenance"].note


# --- which names are ids --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a/b", "a/b:c", "a/b@v1", "a/b:c d@refs/convert/parquet", "a-1/b.c_d", "a/b.v2"])
def test_a_name_with_an_owner_is_an_id(name):
    assert hub_datasets.is_id(name)


@pytest.mark.parametrize(
    "name",
    ["imdb", "imdb:plain", "a/b.csv", "a/b.TSV", "a/b.xlsx", "a/b.txt", "./a/b", "../a", "/a/b", "~/a", "~a/b", "a/b/c",
     "a/b:", "a/b@", "a b/c", "C:/a", "", "a/"],
)  # fmt: skip
def test_a_path_and_a_name_without_an_owner_are_no_ids(name):
    assert not hub_datasets.is_id(name)


def test_a_path_that_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sources.comes_from_hub("some/acsv")
    (tmp_path / "some" / "acsv").mkdir(parents=True)
    assert not sources.comes_from_hub("some/acsv")
    with pytest.raises(BadInput, match="is not a file type"):
        sources.check("some/acsv")


# --- rows -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_rows_are_read_whatever_the_type_of_the_file(hub, suffix):
    frame = sources.read(f"some/a{suffix}")
    assert frame[["text", "label"]].to_dict("records") == ROWS
    assert frame["id"].tolist()[:2] == [f"a{suffix}-00000", f"a{suffix}-00001"]
    origin = frame.attrs["provenance"]
    assert origin.origin == f"some/a{suffix}@{stand_in.MAIN}, configuration default"
    assert (origin.name, origin.licence) == (f"some/a{suffix}", "mit")
    assert origin.sha256 == files.sha256(hub.repositories["dataset", f"some/a{suffix}"] / f"train.{suffix}")
    loaded = sources.load(f"some/a{suffix}", seed=1)
    assert list(loaded) == ["train"]
    assert loaded["train"].features["label"].names == ["bad", "good"]


def test_columns_are_found_where_one_of_each_kind_exists_and_the_note_says_which(hub):
    frame = sources.read("some/found")
    assert note(frame) == "some/found: the texts are its column 'review', the labels 'verdict'"
    assert frame["text"].fillna("missing").tolist()[:3] == ["None", "NA", "missing"]  # words, and an empty cell
    assert frame["label"].tolist()[:4] == ["0", "1", "2", "0"]
    assert downloaded(hub) == {"train.csv"}  # no pickle and no script


def test_the_names_of_labels_come_from_the_card(hub):
    assert sources.read("some/named")["label"].tolist()[:3] == ["bad", "good", "bad"]


@pytest.mark.parametrize(
    ("name", "labels"),
    [("legacy:a", "xyx"), ("legacy:b", "pqp"), ("legacy:c", "010"), ("legacy_one", "pqp"), ("legacy_other", "010")],
)
def test_the_names_of_labels_come_from_the_entry_of_an_old_card_for_the_configuration(hub, name, labels):
    assert sources.read(f"some/{name}")["label"].tolist()[:3] == list(labels)


def test_a_label_of_minus_one_is_missing(hub):
    frame = sources.read("some/gaps")
    assert frame["label"].fillna("missing").tolist()[:3] == ["not_entailment", "entailment", "missing"]
    with pytest.raises(BadInput, match="10 rows have no label, the first is gaps-00002"):
        sources.load("some/gaps")
    assert len(sources.load("some/gaps", drop_incomplete=True)["train"]) == 20


def test_a_configuration_is_read_by_its_name_and_nothing_else_is_downloaded(hub):
    films = sources.read("some/two:films")
    assert len(films) == 40
    assert downloaded(hub) == {"README.md", "films/1.csv", "films/2.csv"}
    assert films.attrs["provenance"].origin == f"some/two@{stand_in.MAIN}, configuration films"
    assert (films["id"][0], films.attrs["provenance"].name) == ("two-films-00000", "some/two:films")
    shops = sources.read("some/two:shops")  # its card says that semicolons separate
    assert shops["text"].tolist() == films["text"].tolist()


def test_the_configuration_that_is_marked_is_the_default(hub):
    assert sources.read("some/marked").attrs["provenance"].origin.endswith("configuration shops")


@pytest.mark.parametrize("revision", ["v1.0", TAGGED])
def test_the_commit_of_a_revision_is_recorded(hub, revision):
    origin = sources.read(f"some/two:films@{revision}").attrs["provenance"].origin
    assert origin == f"some/two@{TAGGED}, configuration films"


def test_the_configurations_of_a_hub_s_own_conversion_are_its_folders(hub):
    frame = sources.read("some/converted:films@refs/convert/parquet")
    assert (len(frame), downloaded(hub)) == (40, {"films/train/0000.parquet"})
    with pytest.raises(BadInput, match=r"has several configurations .films, shops."):
        sources.read("some/converted@refs/convert/parquet")


def test_the_commit_of_a_hub_s_own_conversion_has_the_same_configurations(hub):
    """It is what a record names, and must not merge what the branch keeps apart."""
    commit = "c" * 40
    again = sources.read(f"some/converted:films@{commit}")
    assert again.attrs["provenance"].origin == f"some/converted@{commit}, configuration films"
    with pytest.raises(BadInput, match=r"has several configurations .films, shops."):
        sources.read(f"some/converted@{commit}")


def test_a_script_beside_a_card_that_lists_the_files_is_not_needed(hub):
    assert len(sources.read("some/listed")) == 40
    assert downloaded(hub) == {"README.md", "train.csv"}


# --- splits ---------------------------------------------------------------------------------------------------------
def test_a_test_split_with_labels_judges(hub):
    loaded = sources.load("some/judged")
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 30, "test": 9}
    assert all(text.startswith("claim number 2") for text in loaded["test"]["text"])
    assert "validation" not in sources.provenance(loaded["test"]).note
    assert not any("validation" in file for file in downloaded(hub))
    drawn = split(loaded, rows=12, validation_rows=6, test_rows=None)
    assert drawn.sizes["test"] == 9


def test_validation_judges_where_the_test_split_has_no_labels_and_the_note_says_so(hub):
    assert sources.splits_of("some/glue") == ("train", "test")
    loaded = sources.load("some/glue")
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 30, "test": 12}
    assert "the test rows are its split 'validation'" in sources.provenance(loaded["test"]).note
    assert loaded["test"].features["label"].names == sorted(NAMES)
    assert loaded["test"]["id"][0].startswith("glue-test-")
    assert all(text.startswith("claim number 1") for text in loaded["test"]["text"])


@pytest.mark.parametrize("name", ["nan", "na", "minus"])
def test_a_test_split_without_a_label_that_train_has_does_not_judge(hub, name):
    loaded = sources.load(f"some/{name}")
    assert loaded["test"].num_rows == 10
    assert "the test rows are its split 'validation'" in sources.provenance(loaded["test"]).note


def test_a_number_of_minus_one_is_a_missing_label_where_no_training_row_has_it(hub):
    assert sources.read("some/part", split="test")["label"].fillna("missing").tolist()[:3] == ["missing", "0", "1"]
    assert sources.load("some/part", drop_incomplete=True)["test"].num_rows == 6


def test_a_split_that_is_called_dev_is_one_of_validation_rows_and_others_are_named(hub):
    loaded = sources.load("some/dev")
    assert "the test rows are its split 'dev'" in sources.provenance(loaded["test"]).note
    assert "its splits extra, more are not used" in sources.provenance(loaded["train"]).note
    assert "the validation rows are its split 'dev'" in note(sources.read("some/dev", split="validation"))


def test_a_test_split_in_files_of_another_type_is_not_passed_over(hub):
    with pytest.raises(BadInput, match=r"split 'test', has the file test.jsonl.gz, which is not of a type"):
        sources.load("some/packed_test")
    assert "test.jsonl.gz" not in downloaded(hub)


def test_test_rows_are_drawn_from_train_where_no_other_split_has_labels(hub):
    loaded = sources.load("some/secret")
    assert list(loaded) == ["train"]
    assert split(loaded, rows=12, validation_rows=6, test_rows=6).sizes["test"] == 6
    with pytest.raises(BadInput, match="this data set has no test split of its own"):
        split(loaded, rows=12, validation_rows=6, test_rows=None)
    with pytest.raises(BadInput, match="has no test split with labels; its splits: train, test"):
        sources.read("some/secret", split="test")


def test_the_only_split_is_the_one_to_learn_from_whatever_it_is_called(hub):
    loaded = sources.load("some/alone")
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 30}
    assert "the rows are its only split 'test'" in sources.provenance(loaded["train"]).note


def test_a_file_of_your_own_judges_instead_of_the_test_split(hub, tmp_path):
    test = written(tmp_path / "mine.csv", [{"text": "a", "label": "entailment"}])
    loaded = sources.load("some/judged", test_dataset=str(test))
    assert loaded["test"]["text"][:] == ["a"]
    with pytest.raises(BadInput, match="test_dataset is 'some/judged', and there is no such file"):
        sources.load("some/acsv", test_dataset="some/judged")


# --- columns --------------------------------------------------------------------------------------------------------
def test_a_column_that_is_named_is_taken(hub):
    frame = sources.read("some/pairs", text_column="premise")
    assert frame["text"][0] == "premise 0"
    assert sources.read("some/stars", label_column="year")["label"].tolist()[:5] == ["0", "1", "2", "3", "0"]


def test_groups_are_read_from_a_column_that_is_named_and_pointed_out_otherwise(hub):
    frame = sources.read("some/grouped", group_column="user")
    assert frame["group"].tolist()[:5] == ["0", "0", "0", "0", "1"]
    assert dict(sources.read("some/grouped").attrs["group_candidates"]) == {"user": 10}
    loaded = sources.load("some/grouped", group_column="user")
    splits = split(loaded, rows=None, validation_rows=8, test_rows=None)
    assert set(splits.open_test("to see its groups")["group"]) == {"0", "1"}
    assert {"0", "1"}.isdisjoint([*splits.train["group"], *splits.validation["group"]])


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("acsv", {"text_column": "body"}, "some/acsv has no column 'body'; it has text, label; name the right ones"),
        ("found", {"label_column": "label"}, "has no column 'label'; it has review, verdict, idx"),
        ("acsv", {"text_column": "label", "label_column": "label"}, "are both 'label'"),
        ("pairs", {}, "several columns that may be its texts: premise, hypothesis; name the right ones with text_col"),
        ("stars", {}, "several columns that may be its labels: stars, year; name the right ones with text_column"),
        ("numbers", {}, "no column that is clearly its texts; it has a, label; name the right ones"),
        ("numbers", {"text_column": "a"}, "contains int, not text"),
        ("acsv", {"label_column": "text"}, "no column that is clearly its texts; it has text, label; name the right"),
        ("several", {}, "has a list of 0 labels"),
        ("grouped", {"group_column": "users"}, "split 'train' has no column 'users'; it has text, label, user, site"),
        ("grouped", {"group_column": "site"}, "column 'site': all 40 rows have the same group"),
        ("grouped", {"group_column": "text"}, "the column 'text' has the texts or the labels"),
        ("turns", {}, "some/turns, split 'train', column 'text', contains list, not text"),
    ],
)
def test_columns_that_are_not_clear_are_one_sentence_with_their_names(hub, name, columns, message):
    with pytest.raises(BadInput) as raised:
        sources.read(f"some/{name}", **columns)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_column_of_repeated_texts_is_not_mistaken_for_labels():
    """Each premise of an inference set stands three times, and is a text all the same."""
    rows = Dataset.from_dict({"premise": [f"p {n // 3}" for n in range(90)], "kind": ["a", "b", "c"] * 30})
    assert not hub_datasets._few(rows, "premise", 0.1)
    assert hub_datasets._few(rows, "kind", 0.1)


def found_in(monkeypatch, columns: dict[str, list], features: Features | None = None) -> tuple[str, str]:
    rows = Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(hub_datasets, "_split", lambda *_: rows)
    configuration = hub_datasets.Configuration("some/x", "some/x", "", "default", {"train": ()}, {}, None, "")
    return hub_datasets._columns(configuration, None, None, "name them")


BODIES = [f"film number {n}" for n in range(60)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": BODIES, "stars": [n % 5 / 2 for n in range(60)], "lang": ["en", "de"] * 30}, "labels: lang, stars"),
        ({"uuid": [f"{n:032x}" for n in range(60)], "label": [0, 1] * 30}, "clearly its texts; it has uuid, label"),
        ({"lang": BODIES, "label": [0, 1] * 30}, "clearly its texts; it has lang, label"),
        ({"kind": ["a film", "a book"] * 30, "label": [0, 1] * 30}, "clearly its texts; it has kind, label"),
        ({"word": [f"word{n}" for n in range(60)], "label": [0, 1] * 30}, "clearly its texts; it has word, label"),
    ],
)
def test_a_column_that_only_may_be_meant_is_not_taken(monkeypatch, columns, message):
    with pytest.raises(BadInput, match=message):
        found_in(monkeypatch, columns)


def test_several_classes_are_never_chosen_between_however_many_they_have(monkeypatch):
    many = ClassLabel(names=[str(n) for n in range(300)])
    features = Features({"text": Value("string"), "intent": many, "source": ClassLabel(names=["a", "b"])})
    with pytest.raises(BadInput, match="several columns that may be its labels: intent, source"):
        found_in(monkeypatch, {"text": BODIES, "intent": list(range(60)), "source": [0, 1] * 30}, features)


def test_texts_are_told_from_ids_and_need_no_spaces_in_scripts_without_them(monkeypatch):
    ids = [f"{n:032x}" for n in range(60)]
    assert found_in(monkeypatch, {"uid": ids, "body": BODIES, "label": [0, 1] * 30}) == ("body", "label")
    chinese = [f"第{n}部电影很好看" for n in range(60)]
    assert found_in(monkeypatch, {"review": chinese, "label": [0, 1] * 30}) == ("review", "label")


def test_lists_are_no_texts_and_no_labels():
    features = Features({"tags": List(Value("string")), "body": Value("string"), "kind": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"tags": [["x"]] * 4, "body": list("abcd"), "kind": [0, 1] * 2}, features=features)
    assert hub_datasets._of_type(rows, hub_datasets.TEXT_TYPES) == ["body"]
    assert hub_datasets._of_type(rows, hub_datasets.WHOLE_TYPES) == ["kind"]


# --- nothing is guessed ---------------------------------------------------------------------------------------------
def rows_in(tmp_path, monkeypatch, contents: dict[str, str], features=None, **options) -> Dataset:
    """The rows of a split in files with these `contents`, whose card has these `features` and `options`."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    paths = [written(tmp_path / name, text) for name, text in contents.items()]
    monkeypatch.setattr(hub_datasets, "_downloaded", lambda *_: paths)
    return hub_datasets._split(
        hub_datasets.Configuration("some/x", "some/x", "", "default", {"train": [*contents]}, options, features, ""),
        "train",
    )


def test_a_tsv_of_the_hub_has_the_rows_and_quotes_that_it_has_by_its_path(hub):
    by_path = hub.repositories["dataset", "some/quoted"] / "train.tsv"
    frame, own = sources.read("some/quoted"), sources.read(str(by_path))
    assert frame[["text", "label"]].to_dict("records") == own[["text", "label"]].to_dict("records")
    assert frame["text"].tolist() == ['"Good film', "Bad film", 'So "fine" a film', "Dull film"]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["007", "7", "08"], ["007", "7", "08"]),
        (["1.10", "1.1"], ["1.10", "1.1"]),
        (["true", "FALSE", "False"], ["true", "FALSE", "False"]),
        (["9007199254740993", "", "-9007199254740992"], [9007199254740993, None, -9007199254740992]),
        (["7", "-1", "0"], [7, -1, 0]),
        (["9" * 19, "1"], ["9" * 19, "1"]),
        (["2024-01-02", "NA", ""], ["2024-01-02", "NA", None]),
    ],
)
@pytest.mark.parametrize("options", [{}, {"sep": ",", "default": True}])
def test_the_cells_of_a_csv_of_the_hub_stay_what_they_are(tmp_path, monkeypatch, cells, values, options):
    content = "text,cell\n" + "".join(f"film,{cell}\n" for cell in cells)
    assert list(rows_in(tmp_path, monkeypatch, {"a.csv": content}, **options)["cell"]) == values


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (["2024-01-02", "2024-01-03"], ["2024-01-02", "2024-01-03"]),
        ([9007199254740993, 1.5, 9007199254740992], ["9007199254740993", "1.5", "9007199254740992"]),
        ([1, 1.5, None], [1.0, 1.5, None]),
        ([["a"], []], [["a"], []]),
    ],
)
def test_the_values_of_a_jsonl_of_the_hub_stay_what_they_are(tmp_path, monkeypatch, values, read):
    content = text_of([{"text": "film", "cell": value} for value in values], ".jsonl")
    assert list(rows_in(tmp_path, monkeypatch, {"a.jsonl": content})["cell"]) == read


def test_a_jsonl_that_is_read_in_no_other_way_is_read_by_datasets(tmp_path, monkeypatch):
    rows = rows_in(tmp_path, monkeypatch, {"a.jsonl": '[{"text": "a film"},\n{"text": "a book"}]\n'})
    assert list(rows["text"]) == ["a film", "a book"]


def test_the_parts_of_a_split_are_joined_by_their_columns(tmp_path, monkeypatch):
    parts = {"1.csv": "text,label\na,1\n", "2.csv": "text,label\n", "3.csv": "label,text\n2,b\n"}
    assert rows_in(tmp_path, monkeypatch, parts).to_dict() == {"text": ["a", "b"], "label": [1, 2]}
    with pytest.raises(BadInput, match="some/x, split 'train', cannot be read"):
        rows_in(tmp_path, monkeypatch, {"4.csv": "text,label\na,1\n", "5.csv": "text,other\na,1\n"})


@pytest.mark.parametrize("cells", [["1", "", "0"], ["good", "", "bad"]])
def test_a_card_says_of_which_types_the_cells_are(tmp_path, monkeypatch, cells):
    classes = {"class_label": {"names": {"0": "bad", "1": "good"}}}
    card = [{"name": "label", "dtype": classes}, {"name": "text", "dtype": "string"}, {"name": "n", "dtype": "float64"}]
    content = "text,label,n\n" + "".join(f"7,{cell},1.10\n" for cell in cells)
    rows = rows_in(tmp_path, monkeypatch, {"a.csv": content}, {"card": card})
    assert rows.to_dict() == {"label": [1, None, 0], "text": ["7"] * 3, "n": [1.1] * 3}
    assert isinstance(rows.features["label"], ClassLabel)


def test_a_card_that_says_how_to_read_a_csv_is_heard(tmp_path, monkeypatch):
    rows = rows_in(tmp_path, monkeypatch, {"a.csv": "text;label\na, b;1\n"}, sep=";")
    assert rows.to_dict() == {"text": ["a, b"], "label": [1]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('text,label\n"good" film,no\n', "cannot be read as csv (line 2: a cell in quotes goes on after its closing"),
        ("text,text\ngood,no\n", "has two columns 'text'; give each column a name of its own"),
    ],
)
def test_a_csv_that_is_refused_by_its_path_is_refused_with_its_name_and_the_data_set(
    tmp_path, monkeypatch, content, said
):
    with pytest.raises(BadInput) as raised:
        rows_in(tmp_path, monkeypatch, {"a.csv": content})
    assert str(raised.value).startswith(f"some/x, split 'train': its file a.csv {said}")
    assert str(raised.value).endswith("; to do so, download it and give the path of your copy")


def test_decimal_places_in_a_csv_are_no_names_of_labels(monkeypatch):
    columns = {"text": BODIES, "stars": [n % 5 for n in range(60)], "score": ["0.5", "1.25", "2"] * 20}
    assert found_in(monkeypatch, columns) == ("text", "stars")
    with pytest.raises(BadInput, match="labels: lang, score"):
        found_in(monkeypatch, {"text": BODIES, "score": columns["score"], "lang": ["en", "de"] * 30})


# --- what cannot be read --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("some/nothing", AssetError, "the hub has no data set 'some/nothing' (and there is no such file here): it was"),
        ("some/gated", AssetError, "some/gated is gated: accept its terms on the hub and run `hf auth login`"),
        ("some/script", BadInput, "has a loading script (script.py) and no data files, ... some/script@refs/convert"),
        ("some/scripted", BadInput, "has a loading script (scripted.py)...try some/scripted@refs/convert/parquet"),
        ("some/packed", BadInput, "split 'train', has the file train.jsonl.gz, which is not of a type that is read"),
        ("some/upper", BadInput, "has no files that are read here: it has Train.CSV; expected .csv"),
        ("some/others", BadInput, "has no files that are read here: it has films.txt, films.zip; expected .csv"),
        ("some/bare", BadInput, "some/bare is empty: its repository has no data"),
        ("some/no_rows", BadInput, "some/no_rows is empty: its split 'train' has no rows"),
        ("some/broken", BadInput, "some/broken, split 'train', cannot be read"),
        ("some/two", BadInput, "has several configurations (films, shops) and none was chosen; ...some/two:films"),
        ("some/two:books", BadInput, "has no configuration 'books'; it has films, shops; name one of them"),
        ("some/acsv:books", BadInput, "has no configuration 'books'; it has default"),
        ("some/two:films@v9", AssetError, "the hub has some/two, but no revision v9 of it; check the revision"),
        ("some/no_train", BadInput, "has no split 'train'; it has validation, test"),
        ("some/large", BadInput, "has 3.5 GB of files (configuration default), and at most 2 GB are downloaded"),
        ("some/outside", BadInput, "names data outside its repository ('../../etc/*.csv'), which is not read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(hub, name, error, message):
    for use in (sources.read, sources.load):
        with pytest.raises(error) as raised:
            use(name)
        assert all(part in str(raised.value) for part in message.split("...")), raised.value
        assert "\n" not in str(raised.value)
    assert not downloaded(hub) & {"script.py", "films.zip", "films.txt"}


@pytest.mark.parametrize("name", ["some/lacking:films", "some/broken"])
def test_no_message_names_the_temporary_folder_in_which_files_are_looked_for(hub, name):
    with pytest.raises(BadInput) as raised:
        sources.read(name)
    assert "ftlab-" not in str(raised.value)


def test_a_private_repository_and_one_that_there_is_not_look_alike(hub):
    with pytest.raises(AssetError, match=r"or it is private \(run `hf auth login`\); check the name"):
        sources.read("some/nothing")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (403, "answered 403 Forbidden; run `hf auth login`"),
        (429, "answered 429 Too Many Requests; try again later"),
        (500, "answered 500 Internal Server Error; try again later"),
    ],
)
def test_what_the_hub_answered_is_said(hub, monkeypatch, status, advice):
    monkeypatch.setattr(hub, "failing", status)
    with pytest.raises(AssetError) as raised:
        sources.read("some/acsv")
    assert advice in str(raised.value)
    assert "cannot be reached" not in str(raised.value)


def test_what_is_in_the_cache_is_read_when_the_hub_answers_badly_or_has_it_no_more(hub, monkeypatch):
    first = sources.read("some/acsv")
    for change in ("failing", "gone"):
        hub_datasets.find.cache_clear()
        with monkeypatch.context() as changed:
            if change == "failing":
                changed.setattr(hub, "failing", 500)
            else:
                changed.delitem(hub.repositories, ("dataset", "some/acsv"))
            again = sources.read("some/acsv")
        assert again.attrs["provenance"] == first.attrs["provenance"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train.txt", "test.csv"], "the same data file format for all splits"),
        (["train.zip", "test.jsonl"], "it looks for rows in .zip files"),
        (["Train.CSV", "test.csv"], "has the file Train.CSV, whose ending .CSV is not read beside other files"),
    ],
)
def test_the_test_split_is_not_taken_for_training_where_the_training_rows_are_of_another_type(names, said):
    with pytest.raises(BadInput, match=said):
        hub_datasets._files_of("some/x", "default", {"config_name": "default"}, names)


def test_papers_beside_the_rows_are_not_taken_for_them():
    names = ["data.csv", "LICENSE.txt", "requirements.txt", "notes.md", "more.md", "load.py", "dataset_infos.json"]
    rows = [name for name in names if hub_datasets._may_be_of_a_split(name)]
    assert hub_datasets._files_of("some/x", "default", {"config_name": "default"}, rows) == {"train": ("data.csv",)}


def test_what_is_too_large_is_not_downloaded(hub):
    with pytest.raises(BadInput, match="choose a smaller configuration"):
        sources.read("some/large")
    assert downloaded(hub) == set()


def test_a_split_with_a_header_only_has_no_rows(hub):
    with pytest.raises(BadInput, match="some/header, split 'validation' has no rows; choose another split or data set"):
        sources.read("some/header", split="validation")


def test_a_split_that_there_is_not_is_named_with_those_that_there_are(hub):
    with pytest.raises(BadInput, match=r"some/judged has no split 'dev'; it has train, validation, test; name one"):
        sources.read("some/judged", split="dev")


# --- without a hub --------------------------------------------------------------------------------------------------
CODE = """
import json, sys
from ftlab.progress import quiet; quiet()
from ftlab.data import sources
from ftlab.errors import CourseError
for name in sys.argv[1:]:
    try:
        loaded = sources.load(name)
        print(sources.provenance(loaded["train"]).origin, *[sources.fingerprint(rows) for rows in loaded.values()])
    except CourseError as problem:
        print(f"{type(problem).__name__}: {problem}")
"""


def test_another_process_reads_the_same_commit_with_the_hub_gone(served, tmp_path):
    def ask(*names: str, online: bool = False, **more: str) -> list[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {"HF_ENDPOINT": served.endpoint if online else "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
        environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **more}
        command = [sys.executable, "-c", CODE, *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first = ask("some/shards", "some/two:films@v1.0", online=True)
    origins = [f"some/shards@{stand_in.MAIN}, configuration default", f"some/two@{TAGGED}, configuration films"]
    assert [line.rpartition(" ")[0] for line in first] == origins
    assert ask("some/shards", "some/two:films@v1.0") == first
    served.requests.clear()
    assert ask("some/shards", online=True, HF_HUB_OFFLINE="1") == first[:1]
    assert served.requests == []
    (shard,) = (tmp_path / "hf").rglob("train-00001-of-00002.parquet")
    shard.unlink()  # as a download that was cut off leaves it: half of the rows are not taken for all
    lacking = ("some/shards", "some/two:shops@v1.0", "some/glue")
    for name, said in zip(lacking, ask(*lacking), strict=True):
        repo_id = name.partition(":")[0]
        assert said.startswith(f"AssetError: {repo_id} is not in the hub's cache and the hub cannot be reached")
    for listed in (tmp_path / "hf").rglob("trees/*.json"):
        listed.unlink()  # a cache that was filled in another way does not say which files are missing from it
    (said,) = ask("some/shards")
    assert said.startswith("AssetError: some/shards: the list of its files is not in the hub's cache")


# --- the course -----------------------------------------------------------------------------------------------------
def test_a_budget_with_an_id_needs_the_hub_and_asks_it_nothing_yet(hub):
    budget = profiles.resolve("text_classification", "smoke", {"dataset": "some/glue"})
    assert budget.needs_hub
    assert budget.columns() == {}
    assert (budget.text_column, budget.label_column) == (None, None)  # none is recorded that was not read
    assert hub.requests == []
    assert profiles.resolve("text_classification", "smoke", {"dataset": "some/x", "text_column": "text"}).columns() == {
        "text_column": "text"
    }
    with pytest.raises(BadInput, match="test_dataset is 'some/glue'"):
        profiles.resolve("text_classification", "smoke", {"test_dataset": "some/glue"})


def test_an_audit_takes_an_id_and_says_which_columns_it_read(hub, capsys):
    assert cli.main(["audit", "some/found", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"] == 24
    assert said.err.strip() == "ftlab: some/found: the texts are its column 'review', the labels 'verdict'"
    assert cli.main(["audit", "some/found", "--text", "body"]) == 2
    assert (
        "has no column 'body'; it has review, verdict, idx; name the right ones with --text" in capsys.readouterr().err
    )
    assert cli.main(["audit", "some/judged", "--test", "some/judged", "--validation", "some/judged", "--json"]) == 0
    assert [file for file in sorted(downloaded(hub)) if file.startswith("data/")] == [
        f"data/{part}-00000-of-00001.parquet" for part in ("test", "train", "validation")
    ]
    capsys.readouterr()
    assert cli.main(["audit", "some/pairs", "--prompt", "premise", "--completion", "hypothesis"]) == 2
    assert "there is no file some/pairs; instruction data is read from files" in capsys.readouterr().err
    assert cli.main(["audit", "some/nothing"]) == 2
    assert "the hub has no data set 'some/nothing'" in capsys.readouterr().err


def test_an_audit_says_once_what_was_read_of_each_table(hub, capsys):
    assert cli.main(["audit", "some/judged", "--validation", "some/judged", "--test", "some/glue", "--json"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "ftlab: some/judged: the texts are its column 'sentence', the labels 'label'",
        "ftlab: some/glue: the texts are its column 'sentence', the labels 'label'; the test rows are its split "
        "'validation', since it has no split 'test' with labels that its training rows have",
    ]


def test_an_audit_does_not_take_one_split_for_two(hub, capsys):
    """The test labels of GLUE are secret, so its validation rows judge."""
    assert cli.main(["audit", "some/glue", "--validation", "some/glue", "--test", "some/glue"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("ftlab: --test some/glue and --validation are the same rows (some/glue@")
    assert said.endswith(
        "configuration default, split 'validation'), so all of them would be leakage; leave --test out, or name a data "
        "set with a split of its own for it"
    )
    assert cli.main(["audit", "some/glue", "--test", "some/glue", "--json"]) == 0
    assert cli.main(["audit", "some/two:films", "--test", "some/glue"]) == 2
    assert "are the same rows" not in capsys.readouterr().err
