import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ftlab.data import sources
from ftlab.data.splits import split
from ftlab.data.words import normalise
from ftlab.errors import BadInput

FEATURES = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=["no", "yes"])})


def dataset(texts, labels) -> Dataset:
    ids = [f"row-{number}" for number in range(len(texts))]
    return Dataset.from_dict({"id": ids, "text": texts, "label": labels}, features=FEATURES)


def test_splits_are_stratified_disjoint_and_of_the_asked_size():
    splits = split(sources.load("mini_reviews"), rows=100, validation_rows=40, test_rows=40)
    test = splits.open_test("a test of the test")
    assert splits.sizes == {"train": 100, "validation": 40, "test": 40}
    for part in (splits.train, splits.validation, test):
        assert sum(part["label"]) == len(part) / 2
    ids = [*splits.train["id"], *splits.validation["id"], *test["id"]]
    assert len(set(ids)) == 180


def test_the_test_rows_do_not_depend_on_the_number_of_training_rows():
    small, large, rest = (
        split(sources.load("mini_reviews"), rows=rows, validation_rows=40, test_rows=40) for rows in (20, 100, None)
    )
    assert small.open_test("x")["id"] == large.open_test("x")["id"] == rest.open_test("x")["id"]
    assert rest.sizes["train"] == 120


def test_no_text_stands_in_two_splits_however_it_is_written():
    texts = [f"film number {number}" for number in range(60)]
    copies = [text.upper() + "!" for text in texts[:30]]
    labels = [number % 2 for number in range(60)]
    rows = DatasetDict(train=dataset(texts + copies, labels + labels[:30]))
    splits = split(rows, rows=None, validation_rows=10, test_rows=10)
    parts = [splits.train, splits.validation, splits.open_test("x")]
    keys = [normalise(text) for part in parts for text in part["text"]]
    assert len(keys) == len(set(keys)) == 60
    assert splits.dropped == 30


def test_texts_whose_labels_contradict_each_other_are_all_left_out():
    texts = [f"film number {number}" for number in range(40)]
    rows = DatasetDict(train=dataset([*texts, texts[0]], [number % 2 for number in range(40)] + [1]))
    splits = split(rows, rows=None, validation_rows=6, test_rows=6)
    everything = [*splits.train["text"], *splits.validation["text"], *splits.open_test("x")["text"]]
    assert texts[0] not in everything
    assert splits.dropped == 2


def test_a_test_split_of_the_source_is_used_and_its_texts_leave_training():
    train = dataset([f"film number {number}" for number in range(60)], [number % 2 for number in range(60)])
    test = dataset([f"film number {number}" for number in range(50, 90)], [number % 2 for number in range(40)])
    splits = split(DatasetDict(train=train, test=test), rows=None, validation_rows=10, test_rows=40)
    assert splits.sizes == {"train": 40, "validation": 10, "test": 40}
    assert not set(splits.train["text"]) & set(splits.open_test("x")["text"])


def test_opening_the_test_split_is_recorded_and_needs_a_reason():
    splits = split(sources.load("mini_reviews"), rows=100, validation_rows=40, test_rows=40)
    assert splits.openings == []
    splits.open_test("judge the model")
    assert splits.openings == ["judge the model"]
    with pytest.raises(BadInput, match="with a reason"):
        splits.open_test(" ")


def test_too_many_rows_or_too_small_a_class_are_one_sentence():
    with pytest.raises(BadInput, match=r"1,080 rows are asked for .* are 200 .* rows 120, validation_rows 40 and"):
        split(sources.load("mini_reviews"), rows=1000, validation_rows=40, test_rows=40)
    texts = [f"film number {number}" for number in range(40)]
    with pytest.raises(BadInput, match="the class 'yes' has 1 distinct rows, too few for 3 splits"):
        split(DatasetDict(train=dataset(texts, [0] * 39 + [1])), rows=10, validation_rows=4, test_rows=4)
    with pytest.raises(BadInput, match="a split of 1 rows cannot hold 2 classes"):
        split(sources.load("mini_reviews"), rows=1, validation_rows=40, test_rows=40)


def test_the_suggested_sizes_fit_whatever_the_number_of_rows():
    for count in (31, 40, 61):
        rows = DatasetDict(train=dataset([f"film {n}" for n in range(count)], [n % 2 for n in range(count)]))
        split(rows, rows=count * 3 // 5, validation_rows=count // 5, test_rows=count // 5)


def test_a_rare_class_stands_in_every_split():
    labels = [1 if number < 4 else 0 for number in range(400)]
    rows = DatasetDict(train=dataset([f"film number {number}" for number in range(400)], labels))
    splits = split(rows, rows=50, validation_rows=20, test_rows=60)
    parts = [splits.train, splits.validation, splits.open_test("x")]
    assert [len(part) for part in parts] == [50, 20, 60]
    assert all(sum(part["label"]) >= 1 for part in parts)


def test_all_rows_of_the_source_s_own_test_split_may_judge():
    train = dataset([f"film number {number}" for number in range(60)], [number % 2 for number in range(60)])
    texts = [f"test film {number}" for number in range(40)]
    test = dataset([*texts, texts[2]], [number % 2 for number in range(40)] + [0])
    rows = DatasetDict(train=train, test=test)
    everything = split(rows, rows=None, validation_rows=10, test_rows=None)
    assert (everything.sizes["test"], everything.dropped) == (40, 1)
    part = split(rows, rows=None, validation_rows=10, test_rows=10)
    assert (part.sizes["test"], part.dropped) == (10, 1)  # what was not drawn was not dropped
    with pytest.raises(BadInput, match="no test split of its own"):
        split(DatasetDict(train=train), rows=None, validation_rows=10, test_rows=None)


def test_normalising_keeps_different_words_apart():
    assert normalise("Café  NOIR!") == normalise("café noir")
    assert normalise("not good") != normalise("good")
