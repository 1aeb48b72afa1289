import itertools
import json
import os
import pickle
import random
import tracemalloc
from collections import Counter, defaultdict

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ftlab.data import sources, streamed
from ftlab.data.normalisation import skeleton
from ftlab.errors import BadInput
from tests import nightly

LABELS = ["10", "2", "bad", "good", "so, so"]


def made(count: int = 300) -> list[dict]:
    """Rows with five labels, with copies of some texts in other writing, and with an author for most."""
    draw = random.Random(7)
    rows = []
    for number in range(count):
        text = f'review {number}, \u201ccaf\u00e9\u201d and "{draw.randrange(10**6)}"\nwith a second line'
        if number % 5 == 4:
            text = rows[draw.randrange(number)]["text"].upper().replace(" ", "  ")
        author = None if number % 11 == 0 else f"author {number % 40}"
        rows.append({"text": text, "label": draw.choice(LABELS), "author": author})
    return rows


def write(path, rows) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path, row_group_size=50)
    else:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",", quoting=1)
    return str(path)


@pytest.fixture
def file(tmp_path) -> str:
    return write(tmp_path / "mine.csv", made())


def survey(file: str, **options) -> streamed.Streamed:
    return streamed.survey(file, **{"validation_rows": 20, "test_rows": 30} | options)


def parts_of(rows: streamed.Streamed) -> dict[str, list[dict]]:
    """The rows of each side."""
    return {
        "train": list(rows.train_rows(0, 0)),
        "validation": list(rows.validation),
        "test": list(rows.open_test("a test of the test")),
    }


def ids(rows) -> list[str]:
    return [row["id"] for row in rows]


def refusal(file, **options) -> str:
    with pytest.raises(BadInput) as raised:
        survey(str(file), **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# What is held out


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_held_out_and_training_rows_are_the_rows_of_the_ordinary_reader(tmp_path, suffix):
    file = write(tmp_path / f"mine{suffix}", made())
    rows = survey(file, group_column="author", test_rows=40, validation_rows=40)
    known = sources.load(file, group_column="author")["train"]
    assert rows.labels == known.features["label"].names
    assert rows.validation.features == known.features
    together = [row for part in parts_of(rows).values() for row in part]
    of = {row["id"]: row for row in known}
    assert len(together) == len(of)
    assert {row["id"] for row in together} == set(of)
    for row in together:
        assert row == {name: of[row["id"]][name] for name in row}


def test_the_sizes_are_those_that_were_asked_for_and_the_counts_are_of_training_rows(file):
    rows = survey(file)
    parts = parts_of(rows)
    assert (
        rows.sizes == {"train": 250, "validation": 20, "test": 30} == {name: len(part) for name, part in parts.items()}
    )
    assert rows.rows == 250
    assert rows.counts == Counter(rows.labels[row["label"]] for row in parts["train"])
    assert list(rows.counts) == rows.labels


def test_rows_that_stay_together_leave_a_split_a_little_short_and_never_too_long(file):
    for seed in range(6):
        sizes = survey(file, group_column="author", test_rows=44, validation_rows=40, seed=seed).sizes
        assert 36 <= sizes["validation"] <= 40
        assert 39 <= sizes["test"] <= 44
        assert sum(sizes.values()) == 300


def test_copies_never_stand_on_two_sides(file):
    sides = defaultdict(set)
    for name, part in parts_of(survey(file)).items():
        for row in part:
            sides[skeleton(row["text"])].add(name)
    assert len(sides) < 300
    assert all(len(names) == 1 for names in sides.values())


def test_a_group_stays_on_one_side(file):
    rows = survey(file, group_column="author", test_rows=40, validation_rows=40)
    known = {row["id"]: row["group"] for row in sources.load(file, group_column="author")["train"]}
    sides = defaultdict(set)
    for name, part in parts_of(rows).items():
        for row in part:
            if known[row["id"]] is not None:
                sides[known[row["id"]]].add(name)
    assert len(sides) == 40
    assert all(len(names) == 1 for names in sides.values())


def test_a_group_is_known_by_its_number_and_a_word_for_nothing_is_no_group(tmp_path):
    authors = [f"{n % 40}" if n % 2 else f"{n % 40}.0" for n in range(300)]
    written = [row | {"author": ("nan", "NULL")[n % 2] if n % 5 == 0 else authors[n]} for n, row in enumerate(made())]
    written = [row | {"author": f"{float(n % 40)}"} if n >= 200 and n % 5 else row for n, row in enumerate(written)]
    parts = parts_of(survey(write(tmp_path / "mine.csv", written), group_column="author"))
    sides = defaultdict(set)
    for name, part in parts.items():
        for row in part:
            place = int(row["id"].rpartition("-")[2])
            sides["none" if place % 5 == 0 else place % 40].add(name)
    assert len(sides.pop("none")) > 1  # these rows share nothing
    assert all(len(names) == 1 for names in sides.values())


@pytest.mark.parametrize("group", [None, "author"])
def test_the_order_of_the_rows_does_not_change_what_is_held_out(tmp_path, group):
    drawn = []
    for seed in range(4):
        rows = made()
        random.Random(seed).shuffle(rows)
        file = write(tmp_path / f"mine{seed}.csv", sorted(rows, key=lambda row: row["label"]) if seed == 3 else rows)
        parts = parts_of(survey(file, group_column=group, test_rows=40, validation_rows=40))
        drawn.append({name: sorted((row["text"], row["label"]) for row in part) for name, part in parts.items()})
    assert drawn[0] == drawn[1] == drawn[2] == drawn[3]


def test_another_seed_holds_out_other_rows_and_the_same_seed_the_same(file):
    one, again, other = (set(survey(file, seed=seed).validation["id"]) for seed in (1, 1, 2))
    assert one == again
    assert len(one & other) < 10


def test_as_many_more_test_rows_leave_the_first_where_they_are(file):
    few, more = (survey(file, test_rows=rows).open_test("a test") for rows in (30, 60))
    assert set(few["id"]) < set(more["id"])


def test_each_row_is_held_out_as_often_as_the_others():
    rows = [streamed._Row(position, f"text {position}", 0, None) for position in range(40)]
    drawn: Counter[int] = Counter()
    for seed in range(200):
        sketch = streamed._Sketch(enough=30, largest=5)
        for row in rows:
            if (key := streamed._hash_of(row, seed)) < sketch.limit:
                sketch.add(key, row)
        _, validation = sketch.draw([5, 5])
        drawn.update(row.position for row in validation)
    assert sum(drawn.values()) == 1000
    assert min(drawn[row.position] for row in rows) > 8  # of 25 on average, with a standard deviation of less than 5
    assert max(drawn.values()) < 45


def test_a_text_with_more_copies_than_a_split_has_rows_is_for_training(tmp_path):
    rows = [{"text": f"text {n}", "label": f"{n % 2}"} for n in range(200)]
    copies = [{"text": f"ok {n % 3}", "label": f"{n % 2}"} for n in range(300)]
    file = write(tmp_path / "mine.csv", [*copies[:150], *rows, *copies[150:]])
    for seed in range(10):
        parts = parts_of(survey(file, seed=seed))
        assert [len(parts[name]) for name in ("train", "validation", "test")] == [450, 20, 30]
        assert sum(row["text"].startswith("ok") for row in parts["train"]) == 300


def test_the_test_split_is_opened_with_a_reason(file):
    rows = survey(file)
    with pytest.raises(BadInput, match="opened with a reason"):
        rows.open_test(" ")
    checked = []
    rows.check_test(lambda test: checked.append(len(test)))
    assert (checked, rows.openings) == ([30], [])
    rows.open_test("the last score")
    assert rows.openings == ["the last score"]


def test_the_held_out_rows_say_where_they_came_from(file):
    rows = survey(file)
    for part in (rows.validation, rows.open_test("its provenance")):
        assert sources.provenance(part)[:3] == ("mine.csv", file, "your own")


def test_texts_and_labels_of_several_types_have_the_names_and_numbers_of_the_ordinary_reader(tmp_path):
    labels = [1, "1", 2.0, 10, True, "yes"]
    rows = [{"text": n if n % 7 == 0 else f"text {n}", "label": labels[n % 6]} for n in range(120)]
    file = write(tmp_path / "mine.jsonl", rows)
    found = survey(file)
    known = {row["id"]: (row["text"], row["label"]) for row in sources.load(file)["train"]}
    assert found.labels == sources.load(file)["train"].features["label"].names
    together = [row for part in parts_of(found).values() for row in part]
    assert {row["id"]: (row["text"], row["label"]) for row in together} == known


def test_the_names_of_a_class_label_in_parquet_are_kept(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    table = {"text": [f"text {n}" for n in range(100)], "label": [n % 2 for n in range(100)]}
    Dataset.from_dict(table, features=features).to_parquet(str(tmp_path / "mine.parquet"))
    rows = survey(str(tmp_path / "mine.parquet"))
    assert rows.labels == ["no", "yes"]
    assert next(rows.train_rows(0, 0, buffer=1))["label"] in (0, 1)


def test_columns_of_other_names_are_read(tmp_path):
    rows = [{"body": row["text"], "stars": row["label"], "text": "", "label": ""} for row in made()]
    file = write(tmp_path / "mine.csv", rows)
    assert survey(file, text_column="body", label_column="stars").labels == ["2", "10", "bad", "good", "so, so"]


# Training


def test_an_epoch_has_each_training_row_once(file):
    rows = survey(file)
    for epoch, buffer in ((0, 1), (0, 7), (3, 4096)):
        seen = ids(rows.train_rows(0, epoch, buffer=buffer))
        assert len(seen) == len(set(seen)) == rows.rows


def test_the_same_seed_and_epoch_give_the_same_order_and_others_another_one(file):
    rows = survey(file)
    orders = {key: ids(rows.train_rows(*key)) for key in itertools.product((0, 1, 2), (0, 1, 2))}
    assert orders[1, 2] == ids(survey(file).train_rows(1, 2))
    assert len({tuple(order) for order in orders.values()}) == 9
    assert len({frozenset(order) for order in orders.values()}) == 1


def test_a_buffer_of_one_row_keeps_the_order_of_the_file_and_a_small_one_mixes_neighbours(file):
    rows = survey(file)
    plain, mixed = (ids(rows.train_rows(0, 0, buffer=size)) for size in (1, 20))
    assert plain == sorted(plain)
    assert mixed != plain
    assert all(plain.index(row) < place + 20 for place, row in enumerate(mixed))


def test_the_endless_rows_are_epoch_after_epoch_and_are_resumed_by_skipping(file):
    rows = survey(file)
    epochs = [row for epoch in range(3) for row in rows.train_rows(5, epoch)]
    assert list(itertools.islice(rows.endless(5), len(epochs))) == epochs
    assert list(itertools.islice(rows.endless(5), 260, 300)) == epochs[260:300]


def test_each_process_sees_the_same_rows_and_accelerate_gives_each_its_share(file, monkeypatch):
    from accelerate.data_loader import IterableDatasetShard

    rows = survey(file)
    shares = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        shard = IterableDatasetShard(rows.endless(0), batch_size=4, num_processes=2, process_index=rank)
        shares.append(ids(itertools.islice(shard, 40)))
    together = [row for at in range(0, 40, 4) for share in shares for row in share[at : at + 4]]
    assert together == ids(itertools.islice(rows.endless(0), 80))


def test_a_data_loader_gets_the_endless_rows_and_its_workers_share_them(file):
    from torch.utils.data import DataLoader

    rows = survey(file)
    plain = DataLoader(rows.endless(0), batch_size=5)
    assert [row for batch in itertools.islice(plain, 4) for row in batch["id"]] == ids(
        itertools.islice(rows.endless(0), 20)
    )
    shared = DataLoader(rows.endless(0, buffer=8), batch_size=5, num_workers=2)
    seen = [row for batch in itertools.islice(shared, 50) for row in batch["id"]]
    assert len(set(seen)) == 250


def test_the_endless_rows_can_be_pickled_for_a_worker(file):
    endless = survey(file).endless(3)
    copy = pickle.loads(pickle.dumps(endless))
    assert list(itertools.islice(copy, 300)) == list(itertools.islice(endless, 300))


# Memory


def test_memory_stays_far_below_the_size_of_the_file(tmp_path):
    file = tmp_path / "mine.csv"
    with file.open("w", encoding="utf-8") as out:
        out.write("text,label\n")
        for number in range(15_000):
            out.write(f"{number} {'review' * 330},{number % 3}\n")
    size = file.stat().st_size
    assert size > 28e6
    tracemalloc.start()
    rows = survey(str(file), validation_rows=100, test_rows=100)
    surveyed = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    count = sum(1 for _ in rows.train_rows(0, 0, buffer=500))
    trained = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 14_800
    assert surveyed < size / 3
    assert trained < size / 3


def test_the_sketch_keeps_few_rows_however_many_copies_there_are():
    sketch = streamed._Sketch(enough=60, largest=10)
    draw = random.Random(0)
    for position in range(20_000):
        key = draw.choice((5, 6, draw.randrange(1 << 40)))
        if key < sketch.limit:
            sketch.add(key, streamed._Row(position, "text", 0, None))
        assert sum(map(len, sketch.rows.values())) <= 70
    assert sketch.sizes[5] > 6000
    assert [len(part) for part in sketch.draw([20, 20])] == [20, 20]


# What is refused


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "there is no file" in refusal(tmp_path / "none.csv")
    assert "there is no file" in refusal("imdb")


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "mine.csv").mkdir()
    assert "is a folder; give a file in it" in refusal(tmp_path / "mine.csv")


def test_a_file_of_another_type_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("a text\n", encoding="utf-8")
    assert "not a file type that the course reads" in refusal(tmp_path / "mine.txt")


def test_stdin_is_refused_since_it_can_be_read_only_once():
    assert "stdin can be read only once" in refusal("-")


def test_an_empty_file_and_one_without_rows_are_refused(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("", encoding="utf-8")
    assert "is empty" in refusal(file)
    file.write_text("text,label\n", encoding="utf-8")
    assert "has no rows" in refusal(file)
    pd.DataFrame({"text": [], "label": []}).to_parquet(tmp_path / "mine.parquet")
    assert "no rows" in refusal(tmp_path / "mine.parquet")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["text_column", "label_column", "group_column"])
def test_a_missing_column_is_refused_with_the_columns_that_there_are(tmp_path, suffix, name):
    said = refusal(write(tmp_path / f"mine{suffix}", made(20)), **{name: "body"})
    assert "has no column 'body'; it has text, label, author; name " in said


def test_one_column_cannot_be_two(file):
    assert "text_column and label_column are both 'label'" in refusal(file, text_column="label")
    assert "cannot be of groups" in refusal(file, group_column="label")


def test_a_file_with_one_label_is_refused(tmp_path):
    file = write(tmp_path / "mine.csv", [{"text": f"text {n}", "label": "good"} for n in range(100)])
    assert "has one label (good)" in refusal(file)


def test_a_number_for_each_row_is_no_label(tmp_path):
    file = write(tmp_path / "mine.csv", [{"text": f"text {n}", "label": f"{n / 7}"} for n in range(3000)])
    assert "column 'label': more than 1,000 different labels in the first 1,001 rows" in refusal(file)
    few = write(tmp_path / "few.csv", [{"text": f"text {n}", "label": f"{n / 7}"} for n in range(90)])
    assert "has 90 different labels in 90 rows; is label_column the right column?" in refusal(few)


def test_numbers_are_no_texts(tmp_path):
    file = write(tmp_path / "mine.csv", [{"text": f"{n}", "label": f"{n % 2}"} for n in range(100)])
    assert "contains numbers, not text (the first is 0)" in refusal(file)


@pytest.mark.parametrize(("name", "rows"), [("validation_rows", 0), ("test_rows", -1)])
def test_no_rows_to_judge_on_are_refused(file, name, rows):
    assert f"{name} is {rows}; expected at least 1" in refusal(file, **{name: rows})


def test_more_held_out_rows_than_the_file_can_give_are_refused(tmp_path):
    file = write(tmp_path / "mine.csv", [{"text": f"text {n}", "label": f"{n % 2}"} for n in range(51)])
    said = refusal(file)
    assert "has 51 rows, and with 20 for validation and 30 for test there would be fewer than one training row" in said
    assert survey(file, test_rows=29, seed=0).counts == {"0": 1, "1": 1}


def test_a_label_that_only_held_out_rows_have_is_refused(tmp_path):
    rows = [{"text": f"text {n}", "label": f"{n % 2}"} for n in range(100)]
    rows[0]["label"] = "rare"
    file = write(tmp_path / "mine.csv", rows)
    outcomes = set()
    for seed in range(20):
        try:
            outcomes.add(survey(file, seed=seed).counts["rare"])
        except BadInput as problem:
            outcomes.add(str(problem))
    said = (
        f"{file}: no training row has the label 'rare', since all rows with it (1) are held out; add rows of it, ask "
        "for fewer held-out rows, or give another seed"
    )
    assert outcomes == {1, said}


def test_rows_that_cannot_be_drawn_are_refused(tmp_path):
    file = write(tmp_path / "mine.csv", [{"text": f"text {n % 3}", "label": f"{n % 2}"} for n in range(300)])
    assert "only 0 of 30 test rows could be drawn, since the copies of a text stay on one side" in refusal(file)


@pytest.mark.parametrize(
    ("author", "said"),
    [
        (lambda n: "one", "all 300 rows have the same group"),
        (lambda n: None, "none of the "),
        (lambda n: f"author {n}", "has a value of its own, as ids have"),
    ],
)
def test_groups_that_keep_nothing_together_are_refused(tmp_path, author, said):
    rows = [row | {"author": author(number)} for number, row in enumerate(made())]
    assert said in refusal(write(tmp_path / "mine.jsonl", rows), group_column="author")


@pytest.mark.parametrize("name", ["text", "label"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_missing_values_are_refused_or_left_out_as_by_the_ordinary_reader(tmp_path, suffix, name):
    rows = made()
    for number in (3, 4, 250):
        rows[number][name] = " " if number == 4 else None
    file = write(tmp_path / f"mine{suffix}", rows)
    with pytest.raises(BadInput) as known:
        sources.load(file)
    assert refusal(file) == str(known.value)
    left = survey(file, drop_incomplete=True)
    assert (left.dropped, sum(left.sizes.values())) == (3, 297)
    known_rows = {(row["id"], row["text"], row["label"]) for row in sources.load(file, drop_incomplete=True)["train"]}
    assert {(row["id"], row["text"], row["label"]) for part in parts_of(left).values() for row in part} == known_rows


def test_a_broken_row_in_the_middle_is_named(tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [json.dumps(row) for row in made()]
    file.write_text("\n".join([*lines[:200], '{"text": ', *lines[200:]]), encoding="utf-8")
    assert "mine.jsonl, line 201: not JSON" in refusal(file)
    file = tmp_path / "mine.csv"
    file.write_text("text,label\n" + "a text,b\n" * 150 + "a text,b,c\n" + "a text,b\n" * 9, encoding="utf-8")
    assert "expected 2 fields in line 152, saw 3" in refusal(file)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_list_is_neither_a_text_nor_a_label(tmp_path, suffix):
    rows = [{"text": ["a"], "label": "x"} for _ in range(5)]
    assert "row 1" in refusal(write(tmp_path / f"texts{suffix}", rows))
    rows = [{"text": f"text {n}", "label": ["x", "y"]} for n in range(5)]
    assert f"the row labels{suffix}-00000 has a list of 2 labels (x, y)" in refusal(
        write(tmp_path / f"labels{suffix}", rows)
    )


def test_a_file_that_changes_is_refused_at_the_start_of_an_epoch(tmp_path):
    file = tmp_path / "mine.csv"
    rows = survey(write(file, made()))
    endless = iter(rows.endless(0))
    assert len(list(itertools.islice(endless, rows.rows))) == 250
    time = file.stat().st_mtime_ns
    os.utime(file, ns=(time, time + 10**9))
    with pytest.raises(BadInput, match="changed after its rows were counted"):
        next(endless)
    os.utime(file, ns=(time, time))
    next(rows.train_rows(0, 0))
    with file.open("a", encoding="utf-8") as out:
        out.write("one more,good,\n")
    os.utime(file, ns=(time, time))
    with pytest.raises(BadInput, match="its size or the time"):
        next(rows.train_rows(0, 0))
    file.unlink()
    with pytest.raises(BadInput, match="it is gone"):
        next(rows.train_rows(0, 0))


def test_a_file_that_changes_in_an_epoch_is_refused_at_its_end(tmp_path):
    file = tmp_path / "mine.csv"
    rows = survey(write(file, made(2000)))
    epoch = rows.train_rows(0, 0, buffer=1)
    next(epoch)
    os.utime(file, ns=(0, 0))
    with pytest.raises(BadInput, match="changed while it was read"):
        list(epoch)


def test_the_sample_is_of_the_training_rows_of_the_whole_file_with_each_label(tmp_path):
    """Also if the file is sorted by label, and a label has few rows."""
    labels = ["a"] * 2000 + ["b"] * 2000 + ["rare"] * 8
    table = [{"text": f"review number {number}", "label": label} for number, label in enumerate(labels)]
    found = survey(write(tmp_path / "sorted.csv", table), sample_rows=100)
    training = {row["id"]: row for row in found.train_rows(0, 0)}
    assert 100 <= len(found.sample) <= 101
    assert all(training[row["id"]] == row for row in found.sample)
    counts = Counter(found.sample.features["label"].int2str(found.sample["label"]))
    assert counts["rare"] >= 1
    assert 30 < counts["a"] < 70
    again = survey(str(tmp_path / "sorted.csv"), sample_rows=100)
    assert again.sample["id"] == found.sample["id"]
    assert survey(str(tmp_path / "sorted.csv"), sample_rows=100, seed=1).sample["id"] != found.sample["id"]


def test_a_sample_larger_than_the_file_has_every_training_row_once(file):
    found = survey(file, sample_rows=5000)
    assert sorted(found.sample["id"]) == sorted(row["id"] for row in found.train_rows(0, 0))


def test_each_training_row_is_as_likely_in_the_sample(tmp_path):
    table = [{"text": f"review number {number}", "label": "ab"[number % 2]} for number in range(60)]
    path = write(tmp_path / "even.csv", table)
    drawn = Counter()
    draws = nightly.cases(few=120, nightly=400)
    for seed in range(draws):
        drawn.update(survey(path, validation_rows=5, test_rows=5, sample_rows=10, seed=seed).sample["id"])
    each = [drawn[f"even.csv-{number:05d}"] for number in range(60)]
    deviation = (draws * 1 / 6 * 5 / 6) ** 0.5  # of the draws that take a row, 10 of 60 each time
    assert max(each) < draws / 6 + 4.5 * deviation
    assert min(each) > draws / 6 - 4.5 * deviation


def test_few_groups_that_happen_to_have_one_row_are_no_ids(tmp_path):
    """A file of 5,000 groups, of which one in a hundred has two rows; a small draw sees none of these."""
    table = [
        {"text": f"review number {number}", "label": "ab"[number % 2], "author": f"a{number - number % 100 // 99}"}
        for number in range(5000)
    ]
    path = write(tmp_path / "groups.csv", table)
    assert survey(path, group_column="author", validation_rows=3, test_rows=3).rows > 4900


def test_a_class_id_without_a_name_is_told_with_its_row_in_the_file(tmp_path):
    names = ClassLabel(names=["no", "yes"])
    rows = Dataset.from_dict(
        {"text": [f"text {number}" for number in range(700)], "label": [0, 1] * 350},
        features=Features({"text": Value("string"), "label": names}),
    )
    rows.to_parquet(tmp_path / "rows.parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "rows.parquet")
    broken = table.set_column(1, table.schema.field("label"), [[*([0, 1] * 330), 7, *([0] * 39)]])
    pq.write_table(broken, tmp_path / "rows.parquet")
    with pytest.raises(BadInput, match="row 661: the label 7 has no name"):
        survey(str(tmp_path / "rows.parquet"))
