import itertools

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ftlab.data import duplicates, sources, stratified
from ftlab.data import splits as splitting
from ftlab.data.splits import disjoint, split
from ftlab.data.words import normalise
from ftlab.errors import BadInput
from tests.nightly import few_by_day

FEATURES = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=["no", "yes"])})


def dataset(texts, labels) -> Dataset:
    ids = [f"row-{number}" for number in range(len(texts))]
    return Dataset.from_dict({"id": ids, "text": texts, "label": labels}, features=FEATURES)


def edited(text: str, copy: int = 0) -> str:
    """A near-duplicate of a text: one word is replaced."""
    words = text.split()
    return " ".join([*words[:2], f"somewhat{copy}", *words[3:]])


def families(copies: int = 2, mixed: bool = False) -> DatasetDict:
    """Forty reviews, each with near-duplicates of its own label or of both, and a hundred others."""
    frame = sources.read("mini_reviews")
    long = [text for text in frame["text"] if len(text.split()) >= 16]
    others = [f"film number {number}" for number in range(100)]
    texts, labels = [], []
    for number, text in enumerate(long[:40]):
        for copy in range(copies + 1):
            texts.append(edited(text, copy) if copy else text)
            labels.append((number + (copy if mixed else 0)) % 2)
    return DatasetDict(train=dataset([*texts, *others], [*labels, *(number % 2 for number in range(100))]))


def parts_of(splits) -> list[Dataset]:
    return [splits.train, splits.validation, splits.open_test("a test of the test")]


def assert_no_cluster_is_apart(splits) -> None:
    parts = parts_of(splits)
    clusters = duplicates.together([text for part in parts for text in part["text"]])
    places = np.repeat(range(len(parts)), [len(part) for part in parts])
    for cluster in np.unique(clusters):
        assert len(set(places[clusters == cluster])) == 1


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
    copies = [text.upper().replace(" ", "  ") for text in texts[:30]]
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


def test_a_check_of_the_test_split_returns_no_row_and_opens_nothing():
    splits = split(sources.load("mini_reviews"), rows=100, validation_rows=40, test_rows=40)
    seen = []
    assert splits.check_test(lambda rows: seen.append(len(rows)) or rows) is None
    assert seen == [40]
    assert splits.openings == []
    with pytest.raises(BadInput, match="this row leaks"):
        splits.check_test(lambda rows: (_ for _ in ()).throw(BadInput("this row leaks")))


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
    assert normalise("Café  NOIR") == normalise("café noir")
    assert normalise("not good") != normalise("good")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mixed", [False, True], ids=["one class", "both classes"])
def test_near_duplicates_stand_in_one_split(mixed, seed):
    rows = families(mixed=mixed)
    splits = split(rows, rows=None, validation_rows=40, test_rows=40, seed=seed)
    assert_no_cluster_is_apart(splits)
    assert splits.sizes == {"train": 140, "validation": 40, "test": 40}


def test_a_chain_of_near_duplicates_stands_in_one_split():
    text = next(text for text in sources.read("mini_reviews")["text"] if len(text.split()) >= 30).split()
    chain = [" ".join([*(f"other{at}" for at in range(changed)), *text[changed:]]) for changed in range(0, 24, 2)]
    assert len(set(duplicates.together(chain).tolist())) == 1
    others = [f"film number {number}" for number in range(100)]
    rows = DatasetDict(train=dataset([*chain, *others], [0] * len(chain) + [number % 2 for number in range(100)]))
    splits = split(rows, rows=None, validation_rows=30, test_rows=30)
    assert sum(bool(set(part["text"]) & set(chain)) for part in parts_of(splits)) == 1


def test_sizes_are_exact_where_clusters_do_not_fit():
    """Clusters of three cannot make a split of an odd number in each class; the single rows fill it up."""
    for validation_rows, test_rows in itertools.product((5, 14, 31), repeat=2):
        splits = split(families(), rows=40, validation_rows=validation_rows, test_rows=test_rows)
        assert splits.sizes == {"train": 40, "validation": validation_rows, "test": test_rows}
        assert_no_cluster_is_apart(splits)


def triples(count: int) -> DatasetDict:
    """Nothing but clusters of three."""
    frame = sources.read("mini_reviews")
    texts = [text for text in frame["text"] if len(text.split()) >= 16][:count]
    copies = [edited(text, copy) for text in texts for copy in range(3)]
    return DatasetDict(train=dataset(copies, [row // 3 % 2 for row in range(3 * count)]))


def test_a_split_of_nothing_but_clusters_is_short_by_no_more_than_a_tenth():
    splits = split(triples(60), rows=60, validation_rows=26, test_rows=40)
    assert_no_cluster_is_apart(splits)
    for part, size in zip(parts_of(splits), (60, 26, 40), strict=True):
        assert 0.8 * size <= len(part) <= size


def test_a_split_that_clusters_would_leave_too_short_is_one_sentence():
    with pytest.raises(BadInput, match="could not be filled") as raised:
        split(triples(60), rows=60, validation_rows=40, test_rows=10)
    assert "\n" not in str(raised.value)


def test_near_duplicates_are_kept_in_the_training_rows_and_not_dropped():
    splits = split(families(), rows=None, validation_rows=40, test_rows=40)
    assert splits.dropped == 0
    assert sum(splits.sizes.values()) == 220


@pytest.mark.parametrize("seed", range(3))
def test_without_near_duplicates_each_split_has_the_classes_in_their_proportion(seed):
    counts = [120, 60, 20]
    labels = np.repeat(range(3), counts)
    features = Features({**FEATURES, "label": ClassLabel(names=["many", "some", "few"])})
    texts = [f"film number {number}" for number in range(200)]
    rows = Dataset.from_dict({"id": texts, "text": texts, "label": labels.tolist()}, features=features)
    splits = split(DatasetDict(train=rows), rows=100, validation_rows=30, test_rows=50, seed=seed)
    for part, size in zip(parts_of(splits), (100, 30, 50), strict=True):
        assert len(part) == size
        assert np.bincount(part["label"]) == pytest.approx([size * count / 200 for count in counts], abs=1)


def test_near_duplicates_do_not_unbalance_the_classes():
    splits = split(families(), rows=100, validation_rows=40, test_rows=40)
    for part in parts_of(splits):
        assert sum(part["label"]) == len(part) / 2


def test_equal_seeds_split_near_duplicates_in_the_same_way_and_others_do_not():
    once, again, other = (
        split(families(), rows=100, validation_rows=40, test_rows=40, seed=seed) for seed in (0, 0, 1)
    )
    assert [part["id"] for part in parts_of(once)] == [part["id"] for part in parts_of(again)]
    assert once.train["id"] != other.train["id"]


def test_the_test_rows_do_not_depend_on_the_number_of_training_rows_with_near_duplicates_either():
    small, large = (split(families(), rows=rows, validation_rows=40, test_rows=40) for rows in (20, 100))
    assert small.open_test("x")["id"] == large.open_test("x")["id"]


def test_clusters_too_large_to_be_split_are_one_sentence():
    names = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}o" for n in range(60)]
    texts = [f"this is a template with the word {name} in the midst of all of its other words" for name in names]
    rows = DatasetDict(train=dataset(texts, [number % 2 for number in range(60)]))
    with pytest.raises(BadInput, match="near-duplicates of each other") as raised:
        split(rows, rows=20, validation_rows=10, test_rows=10)
    assert "\n" not in str(raised.value)
    assert "10 rows of a split could not be filled" in str(raised.value)


def test_training_rows_near_to_the_source_s_own_test_rows_leave():
    rows = families(copies=0)["train"]
    test = dataset([edited(text) for text in rows["text"][:10]] + [f"test film {n}" for n in range(20)], [0, 1] * 15)
    splits = split(DatasetDict(train=rows, test=test), rows=None, validation_rows=20, test_rows=None)
    assert splits.sizes == {"train": 110, "validation": 20, "test": 30}
    assert splits.dropped == 10
    assert_no_cluster_is_apart(splits)


def test_training_rows_stay_whose_near_copies_in_the_source_s_test_split_were_not_drawn():
    rows = families(copies=0)["train"]
    test = dataset([edited(text) for text in rows["text"][:40]], [0, 1] * 20)
    splits = split(DatasetDict(train=rows, test=test), rows=None, validation_rows=20, test_rows=10)
    assert splits.dropped == 10
    assert_no_cluster_is_apart(splits)


def test_near_duplicates_within_the_source_s_own_test_split_may_all_judge():
    rows = families(copies=0)["train"]
    text = "a template of the makers of this test split with the number {} in the midst of its words"
    test = dataset([text.format(number) for number in range(20)], [0, 1] * 10)
    splits = split(DatasetDict(train=rows, test=test), rows=None, validation_rows=20, test_rows=None)
    assert splits.sizes["test"] == 20


def numbered(count: int, classes: int = 2, rare: int = 0) -> DatasetDict:
    """Rows that are not copies of each other, with the classes in turn and `rare` rows of the last class."""
    labels = [number % (classes - bool(rare)) for number in range(count - rare)] + [classes - 1] * rare
    names = [f"class {number}" for number in range(classes)]
    features = Features({**FEATURES, "label": ClassLabel(names=names)})
    texts = [f"film number {number}" for number in range(count)]
    rows = {"id": texts, "text": texts, "label": labels}
    return DatasetDict(train=Dataset.from_dict(rows, features=features))


@pytest.mark.parametrize("count", [31, 100, 257])
def test_bounds_above_what_there_is_shrink_to_three_one_and_one_fifth(count):
    splits = split(numbered(count), rows=3000, validation_rows=500, test_rows=2000, at_most=True)
    assert splits.sizes == {"train": count * 3 // 5, "validation": count // 5, "test": count // 5}
    parts = parts_of(splits)
    assert len({row for part in parts for row in part["id"]}) == sum(splits.sizes.values())
    for part in parts:
        assert sum(part["label"]) == pytest.approx(len(part) / 2, abs=1)


@pytest.mark.parametrize("sizes", [(100, 40, 40), (312, 80, 120), (200, 2, 310), (None, 80, 120), (None, 2, 508)])
def test_bounds_that_fit_are_the_sizes(sizes):
    """Up to the last row: 312, 80 and 120 are the 512 tickets."""
    rows = numbered(512)
    asked = dict(zip(("rows", "validation_rows", "test_rows"), sizes, strict=True))
    bounded, exact = split(rows, **asked, at_most=True), split(rows, **asked)
    assert [part["id"] for part in parts_of(bounded)] == [part["id"] for part in parts_of(exact)]
    assert sum(bounded.sizes.values()) == (512 if None in sizes else sum(sizes))


@pytest.mark.parametrize(
    "sizes",
    itertools.product((40, 150, 900, None), (6, 30, 900), (6, 30, 900)),
    ids=lambda sizes: "-".join(map(str, sizes)),
)
def test_no_split_is_larger_than_its_bound(sizes):
    asked = dict(zip(("rows", "validation_rows", "test_rows"), sizes, strict=True))
    splits = split(numbered(200), **asked, at_most=True)
    for size, bound in zip(splits.sizes.values(), sizes, strict=True):
        assert 6 <= size <= (bound or 200)


@pytest.mark.parametrize(("name", "sizes"), [("tickets", (312, 80, 120)), ("domains", (218, 60, 100))])
def test_the_course_s_own_rows_are_used_to_the_last(name, sizes):
    splits = split(sources.load(name), rows=sizes[0], validation_rows=sizes[1], test_rows=sizes[2], at_most=True)
    assert tuple(splits.sizes.values()) == sizes
    assert splits.dropped == 0


def test_bounds_shrink_on_each_side_of_a_test_split_of_the_source():
    rows = numbered(100)["train"]
    test = Dataset.from_dict(
        {column: [f"test {value}" for value in rows["id"][:30]] for column in ("id", "text")}
        | {"label": rows["label"][:30]},
        features=rows.features,
    )
    brought = DatasetDict(train=rows, test=test)
    splits = split(brought, rows=3000, validation_rows=500, test_rows=2000, at_most=True)
    assert splits.sizes == {"train": 80, "validation": 20, "test": 30}
    splits = split(brought, rows=40, validation_rows=500, test_rows=10, at_most=True)
    assert splits.sizes == {"train": 40, "validation": 20, "test": 10}


def test_a_class_that_is_too_small_is_refused_whatever_the_bounds():
    with pytest.raises(BadInput, match="the class 'class 2' has 2 distinct rows, too few for 3 splits") as raised:
        split(numbered(100, 3, rare=2), rows=3000, validation_rows=500, test_rows=2000, at_most=True)
    assert "\n" not in str(raised.value)
    splits = split(numbered(100, 3, rare=3), rows=3000, validation_rows=500, test_rows=2000, at_most=True)
    assert all(part["label"].count(2) == 1 for part in ([*map(Dataset.to_dict, parts_of(splits))]))


def test_too_few_rows_for_the_classes_are_refused_whatever_the_bounds():
    with pytest.raises(BadInput, match=r"a split of 1 rows cannot hold 2 classes"):
        split(numbered(9), rows=3000, validation_rows=500, test_rows=2000, at_most=True)


def test_sizes_set_by_hand_are_no_bounds():
    with pytest.raises(BadInput, match=r"5,500 rows are asked for .* there are 200"):
        split(numbered(200), rows=3000, validation_rows=500, test_rows=2000)


# --- each class in each split, whatever is a copy of what ---


def clustered(sizes_of: dict[str, list[int]], monkeypatch) -> DatasetDict:
    """Rows of each class in clusters of the given sizes; the search for near-duplicates is replaced."""
    names = list(sizes_of)
    clusters, labels = [], []
    for label, sizes in enumerate(sizes_of.values()):
        for size in sizes:
            labels += [label] * size
            clusters += [len(set(clusters))] * size
    return as_clusters(clusters, labels, names, monkeypatch)


def as_clusters(clusters, labels, names, monkeypatch) -> DatasetDict:
    texts = [f"row {number} of cluster {cluster}" for number, cluster in enumerate(clusters)]
    monkeypatch.setattr(
        splitting.duplicates, "together", lambda given: np.array([int(text.split()[-1]) for text in given])
    )
    features = Features({**FEATURES, "label": ClassLabel(names=names)})
    return DatasetDict(train=Dataset.from_dict({"id": texts, "text": texts, "label": labels}, features=features))


def assert_keeps_its_promise(splits, sizes, names) -> None:
    """Each class in each split, no cluster in two, and no class short by more than a tenth of its rows."""
    parts, seen = parts_of(splits), {}
    for number, (rows, size) in enumerate(zip(parts, sizes, strict=True)):
        assert set(rows["label"]) == set(range(len(names)))
        for text in rows["text"]:
            assert seen.setdefault(text.split()[-1], number) == number
        if size is not None:
            assert size - sum(-(-count // 9) + 1 for count in np.bincount(rows["label"])) <= len(rows) <= size
    ids = [row for rows in parts for row in rows["id"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("rows", few_by_day([None, 20, 60], 20))
@pytest.mark.parametrize("rare", [[4, 4, 4], [1, 1, 4], [4, 1, 1, 1], [2, 2, 2, 2], [9, 3, 3], [5, 5, 5, 5, 5]])
def test_a_rare_class_of_near_copies_stands_in_every_split(rare, rows, monkeypatch):
    source = clustered({"common": [1] * 300, "rare": rare}, monkeypatch)
    for seed in range(5):
        splits = split(source, rows=rows, validation_rows=20, test_rows=30, seed=seed)
        assert_keeps_its_promise(splits, (rows, 20, 30), ["common", "rare"])


@pytest.mark.parametrize(
    ("rare", "said"),
    [
        ([4], "4 distinct rows, .* 1 cluster: too few for 3 splits"),
        ([6, 2], "8 distinct rows, .* 2 clusters: too few for 3 splits"),
    ],
)
def test_a_class_of_fewer_clusters_than_splits_is_refused_by_its_name(rare, said, monkeypatch):
    source = clustered({"common": [1] * 300, "rare": rare}, monkeypatch)
    for rows, at_most in ((None, False), (60, False), (3000, True)):
        with pytest.raises(BadInput, match=f"the class 'rare' has {said}.*collect more that differ") as raised:
            split(source, rows=rows, validation_rows=20, test_rows=30, at_most=at_most)
        assert "\n" not in str(raised.value)


def test_real_near_copies_of_a_rare_class_are_refused_and_not_lost():
    """Four edits of one text: training would have them all, and validation and test none."""
    text = "the parcel came on monday and one of the two lamps in it was broken at the foot"
    texts = [edited(text, copy) for copy in range(4)] + [f"film number {number}" for number in range(60)]
    rows = DatasetDict(train=dataset(texts, [1] * 4 + [0] * 60))
    with pytest.raises(BadInput, match=r"the class 'yes' has 4 distinct rows, .* 1 cluster"):
        split(rows, rows=None, validation_rows=10, test_rows=10)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_a_copy_of_what_a_split_keeps_its_promise_or_is_refused(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    classes, count = int(rng.integers(2, 5)), int(rng.integers(40, 120))
    clusters = rng.integers(0, rng.integers(classes * 3, count), count)
    # Classes of very unequal size, some clusters of one class and some of several.
    labels = rng.choice(classes, count, p=rng.dirichlet([0.5] * classes))
    pure = rng.random(count) < 0.5
    labels[pure] = (clusters[pure] * 7) % classes
    names = [f"class {number}" for number in range(classes)]
    source = as_clusters(clusters, labels, names, monkeypatch)
    if seed % 4 == 3:  # the source brings test rows, of which some are near-duplicates of training rows
        there = source["train"].train_test_split(0.4, seed=seed)
        source = DatasetDict(train=there["train"], test=there["test"])
        count = len(source["train"])
    at_most = seed % 2 == 0
    rows = None if seed % 3 == 0 else int(rng.integers(classes, count))
    sizes = (rows, *rng.integers(classes, count // 3, 2).tolist())
    asked = dict(zip(("rows", "validation_rows", "test_rows"), sizes, strict=True))
    try:
        splits = split(source, **asked, seed=seed, at_most=at_most)
    except BadInput as problem:
        said = str(problem)
    else:
        said = "one line"
        assert_keeps_its_promise(splits, (None, None, None) if at_most else sizes, names)
    assert "\n" not in said


def test_clusters_of_several_classes_are_dealt_out_so_that_each_split_has_every_class(monkeypatch):
    """Each class has three clusters, and only one assignment of them gives each split every class."""
    clusters, labels = [0, 0, 1, 1, 2, 2, 3, 4, 5], [0, 1, 0, 1, 1, 2, 2, 2, 0]
    filler = [(6 + number, 3) for number in range(60)]
    clusters, labels = clusters + [one for one, _ in filler], labels + [label for _, label in filler]
    names = ["a", "b", "c", "filler"]
    for seed in range(6):
        source = as_clusters(clusters, labels, names, monkeypatch)
        splits = split(source, rows=30, validation_rows=10, test_rows=10, seed=seed)
        assert_keeps_its_promise(splits, (30, 10, 10), names)


@pytest.mark.parametrize("seed", range(30))
def test_every_class_is_dealt_out_to_every_split_wherever_that_can_be_done(seed):
    """Compare with all assignments of a few clusters of one to three classes to three splits."""
    rng = np.random.default_rng(seed)
    classes, count = int(rng.integers(2, 4)), int(rng.integers(3, 8))
    holds = rng.random((count, classes)) < 0.5
    holds[np.arange(count), rng.integers(0, classes, count)] = True
    clusters, labels = np.nonzero(holds)
    rows = stratified.Rows(labels, clusters, stratified.members_of(clusters), ["a", "b", "c"][:classes])
    ways = (np.array(way) for way in itertools.product(range(3), repeat=count))
    possible = any(all(holds[way == split].any(axis=0).all() for split in range(3)) for way in ways)
    covers = rows.covers(np.ones(len(labels), dtype=bool), 3, rng)
    assert (covers is not None) == possible
    if covers is not None:
        dealt = [cluster for cover in covers for cluster in cover]
        assert len(dealt) == len(set(dealt))
        assert all(holds[cover].any(axis=0).all() for cover in covers)


def test_classes_that_share_their_clusters_are_refused(monkeypatch):
    """Three clusters, each of two of the three classes: no three splits can have all."""
    clusters, labels = [0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 0]
    source = as_clusters([*clusters, *range(3, 63)], labels + [3] * 60, ["a", "b", "c", "filler"], monkeypatch)
    with pytest.raises(BadInput, match=r"the class '.' has 2 distinct rows|hold rows of other classes too"):
        split(source, rows=30, validation_rows=10, test_rows=10)


@pytest.mark.parametrize("rare", [[4, 4, 4], [4, 1, 1, 1]])
def test_the_test_rows_depend_on_no_other_size_with_a_rare_class_either(rare, monkeypatch):
    source = clustered({"common": [1] * 300, "rare": rare}, monkeypatch)
    tests = {
        tuple(split(source, rows=rows, validation_rows=validation, test_rows=30).open_test("x")["id"])
        for rows, validation in ((None, 20), (40, 20), (200, 5))
    }
    assert len(tests) == 1


def test_training_rows_that_are_all_near_to_the_source_s_test_rows_are_refused_by_their_class():
    rows = families(copies=0)["train"]
    near = [text for text, label in zip(rows["text"], rows["label"], strict=True) if label and len(text.split()) > 8]
    rows = rows.filter(lambda row: not row["label"] or row["text"] in near)
    test = dataset([edited(text) for text in near] + [f"test film {n}" for n in range(20)], [1] * len(near) + [0] * 20)
    with pytest.raises(BadInput, match=r"of the 20 training rows of the class 'yes', 0 are left .* of test rows"):
        split(DatasetDict(train=rows, test=test), rows=None, validation_rows=10, test_rows=None)


def test_a_part_has_every_class_or_is_refused():
    rows = split(numbered(120, classes=4, rare=6), rows=60, validation_rows=12, test_rows=12).train
    for size in (4, 5, 17, 60):
        assert set(splitting.part(rows, size)["label"]) == {0, 1, 2, 3}
        assert len(splitting.part(rows, size)) == size
    for size in (0, 3, 61):
        with pytest.raises(BadInput, match=f"a part of {size} rows is asked for; expected from 4.* to 60"):
            splitting.part(rows, size)


@pytest.mark.parametrize("seed", range(3))
def test_disjoint_parts_have_nothing_in_common_and_each_has_the_classes_in_their_proportion(seed):
    parts = disjoint(families()["train"], [60, 40, 40, 40], seed=seed)
    assert [len(each) for each in parts] == [60, 40, 40, 40]
    clusters = duplicates.together([text for each in parts for text in each["text"]])
    places = np.repeat(range(4), [60, 40, 40, 40])
    assert all(len(set(places[clusters == cluster])) == 1 for cluster in np.unique(clusters))
    assert [sum(each["label"]) for each in parts] == [30, 20, 20, 20]
    with pytest.raises(BadInput, match="rows are asked for over the splits"):
        disjoint(families()["train"], [100, 100, 100, 100])


def grouped(groups, labels=None) -> DatasetDict:
    """Rows that are unlike each other, with these groups."""
    labels = [number % 2 for number in range(len(groups))] if labels is None else labels
    texts = ["film " + "".join("abcdefghij"[int(digit)] for digit in str(number)) for number in range(len(groups))]
    features = Features({**FEATURES, "group": Value("string")})
    ids = [f"row-{number}" for number in range(len(groups))]
    columns = {"id": ids, "text": texts, "label": labels, "group": groups}
    return DatasetDict(train=Dataset.from_dict(columns, features=features))


def assert_no_group_is_apart(parts) -> None:
    found = [{group for group in part["group"] if group} for part in parts]
    assert all(found)
    assert all(one.isdisjoint(two) for one, two in itertools.combinations(found, 2))


@pytest.mark.parametrize(
    "groups",
    [
        [f"g{number // 10}" for number in range(400)],
        [f"g{number // 2}" for number in range(400)],
        [f"g{number // 100}" for number in range(400)],  # larger than validation and test: drawn in part
        [f"g{int(number**0.5)}" for number in range(400)],
        [None if number % 2 else f"g{number // 20}" for number in range(400)],
    ],
    ids=["tens", "pairs", "hundreds", "sizes", "half"],
)
@pytest.mark.parametrize("at_most", [False, True])
def test_a_group_stays_in_one_split(groups, at_most):
    splits = split(grouped(groups), rows=100, validation_rows=60, test_rows=60, at_most=at_most)
    parts = parts_of(splits)
    assert_no_group_is_apart(parts)
    for part, size in zip(parts, (100, 60, 60), strict=True):
        assert 0.9 * size <= len(part) <= size
        assert abs(np.mean(part["label"]) - 0.5) < 0.1


def test_groups_of_one_label_each_are_drawn_for_both_labels():
    of = [number // 10 for number in range(400)]
    splits = split(grouped([f"g{g}" for g in of], [g % 2 for g in of]), rows=None, validation_rows=60, test_rows=60)
    assert_no_group_is_apart(parts_of(splits))


def test_near_duplicates_link_two_groups():
    text = next(text for text in sources.read("mini_reviews")["text"] if len(text.split()) >= 16)
    rows = grouped([f"g{number // 10}" for number in range(400)])["train"]
    texts = list(rows["text"])
    texts[0], texts[399] = text, edited(text)
    linked = rows.remove_columns("text").add_column("text", texts)
    splits = split(DatasetDict(train=linked), rows=100, validation_rows=60, test_rows=60)
    for part in parts_of(splits):
        assert {"g0", "g39"} & set(part["group"]) in (set(), {"g0"}, {"g39"}, {"g0", "g39"})
    both = [bool({"g0", "g39"} & set(part["group"])) for part in parts_of(splits)]
    assert sum(both) <= 1


def test_groups_of_test_rows_leave_the_training_rows():
    rows = grouped([f"g{number // 10}" for number in range(400)])["train"]
    apart = DatasetDict(train=rows.select(range(195)), test=rows.select(range(195, 400)))
    splits = split(apart, rows=None, validation_rows=40, test_rows=None)
    assert "g19" in set(splits.open_test("a test of the test")["group"])
    assert "g19" not in {*splits.train["group"], *splits.validation["group"]}
    by_rows = [[number for number in range(400) if number % 4 // 2 == half] for half in (0, 1)]
    mixed = DatasetDict(train=rows.select(by_rows[0]), test=rows.select(by_rows[1]))
    with pytest.raises(BadInput, match=r"without rows of their groups.*draw the test rows anew, by groups"):
        split(mixed, rows=None, validation_rows=40, test_rows=None)


def test_too_few_groups_are_refused_in_one_sentence():
    two = grouped([f"g{number // 200}" for number in range(400)])
    with pytest.raises(BadInput, match=r"groups and near-duplicates make them 2 clusters.*collect rows of more groups"):
        split(two, rows=100, validation_rows=60, test_rows=60)
    three = grouped([f"g{number % 3}" for number in range(400)])
    with pytest.raises(BadInput, match="the other groups are in other splits already, and a group stays in one"):
        split(three, rows=200, validation_rows=60, test_rows=60)
    assert split(three, rows=200, validation_rows=60, test_rows=60, at_most=True).sizes["train"] < 200


@pytest.mark.parametrize("at_most", [True, False])
@pytest.mark.parametrize(
    "groups",
    [
        [f"g{number % 2}" for number in range(200)],  # the label itself
        ["large" if number % 5 else f"g{number % 3}" for number in range(200)],
        [f"g{number % 4}" for number in range(200)],
        ["large" if number < 195 else f"g{number}" for number in range(200)],
    ],
)
def test_groups_that_leave_no_row_for_a_split_are_refused_in_one_sentence(groups, at_most):
    with pytest.raises(BadInput, match=r"groups.*(collect rows of more groups|ask for fewer rows)") as raised:
        split(grouped(groups), rows=None, validation_rows=20, test_rows=20, at_most=at_most)
    assert "\n" not in str(raised.value)


def test_disjoint_parts_share_no_group():
    parts = disjoint(grouped([f"g{number // 10}" for number in range(400)])["train"], [80, 80, 80])
    assert_no_group_is_apart(parts)
