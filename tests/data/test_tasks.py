"""Instruction tasks: no row of a split, and none of its group or like it, is in another split."""

import itertools
import json
import time

import numpy as np
import pandas as pd
import pytest

from ftlab.data import duplicates, sources, stratified, tasks
from ftlab.data.audit import audit_instructions
from ftlab.data.words import normalise
from ftlab.errors import BadInput

SIZES = {"clinical_notes": (200, 30, 60), "tutor": (300, 40, 60), "summaries": (40, 10, 20)}


@pytest.fixture
def jsonl(tmp_path):
    """Write rows as a file of your own."""

    def write(rows, name="own.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def numbered(count, **columns) -> list[dict]:
    """Rows that are not copies of each other; a column is a value, or a function of the row's number."""
    columns = {"instruction": "Double the number {}.".format, "output": lambda number: f"{2 * number}", **columns}
    return [
        {name: value(number) if callable(value) else value for name, value in columns.items()}
        for number in range(count)
    ]


def drawn(task, rows, validation_rows, test_rows, **options):
    return tasks.load(task, rows=rows, validation_rows=validation_rows, test_rows=test_rows, **options)


def parts_of(splits) -> list[pd.DataFrame]:
    return [part.to_pandas() for part in (splits.train, splits.validation, splits.open_test("a test of the test"))]


def ids(splits) -> list[list[str]]:
    return [part["id"].tolist() for part in parts_of(splits)]


def assert_apart(numbers, parts) -> None:
    """No number is in two parts."""
    places = np.repeat(range(len(parts)), [len(part) for part in parts])
    for number in np.unique(numbers):
        assert len(set(places[numbers == number])) == 1


def sentence(raised) -> str:
    said = str(raised.value)
    assert "\n" not in said
    return said


@pytest.fixture(scope="module", params=SIZES)
def named(request):
    """A task of the course, split by several seeds."""
    return request.param, [drawn(request.param, *SIZES[request.param], seed=seed) for seed in range(3)]


def test_each_task_has_the_columns_of_all_and_no_row_without_instruction_or_output():
    for task in tasks.TASKS:
        rows = tasks.read(task)
        assert rows.columns.tolist() == list(tasks.COLUMNS)
        assert rows["id"].is_unique
        assert not rows.isna().any(axis=None)
        for column in ("instruction", "output", "kind"):
            assert (rows[column].str.strip() != "").all()


def test_splits_are_disjoint_and_of_the_asked_size(named):
    task, some = named
    for splits in some:
        assert tuple(splits.sizes.values()) == SIZES[task]
        everything = pd.concat(parts_of(splits))
        assert everything["id"].is_unique
        texts = (everything["instruction"] + "\n" + everything["input"]).map(normalise)
        assert texts.is_unique


def test_no_group_stands_in_two_splits(named):
    _, some = named
    for splits in some:
        parts = [part.loc[part["group"] != "", "group"] for part in parts_of(splits)]
        assert not any(set(one) & set(other) for one, other in itertools.combinations(parts, 2))


def test_no_near_copy_stands_in_two_splits(named):
    task, some = named
    for splits in some:
        parts = parts_of(splits)
        everything = pd.concat(parts)
        texts = everything["input"] if task != "tutor" else everything["instruction"] + "\n" + everything["input"]
        assert_apart(duplicates.together(texts.tolist()), parts)


def test_an_answer_of_the_library_is_not_nearly_one_that_was_learned():
    parts = [part[part["kind"] == "library"] for part in parts_of(drawn("tutor", None, 40, 60))]
    assert_apart(duplicates.together(pd.concat(parts)["output"].tolist()), parts)


def test_each_kind_has_its_share_of_each_split(named):
    task, some = named
    shares = tasks.read(task)["kind"].value_counts(normalize=True)
    for part in itertools.chain.from_iterable(map(parts_of, some)):
        counts = part["kind"].value_counts().reindex(shares.index, fill_value=0)
        assert (counts - len(part) * shares).abs().max() <= 1


def test_no_module_of_the_library_fills_more_than_a_tenth_of_a_split(named):
    for part in itertools.chain.from_iterable(map(parts_of, named[1])):
        groups = part.loc[part["group"] != "", "group"].value_counts()
        assert groups.max() <= 0.1 * len(part) or groups.empty


def test_equal_seeds_draw_equal_rows_and_others_do_not(named):
    task, some = named
    assert ids(drawn(task, *SIZES[task], seed=0)) == ids(some[0])
    for one, other in itertools.combinations(map(ids, some), 2):
        assert all(set(here) != set(there) for here, there in zip(one, other, strict=True))


def test_the_test_rows_do_not_depend_on_the_number_of_training_rows(named):
    task, some = named
    _, validation_rows, test_rows = SIZES[task]
    for rows in (5, None):
        _, *others = ids(drawn(task, rows, validation_rows, test_rows))
        assert others == ids(some[0])[1:]


def test_all_that_the_others_leave_is_for_training():
    splits = drawn("summaries", None, 10, 20)
    assert sorted(itertools.chain.from_iterable(ids(splits))) == tasks.read("summaries")["id"].tolist()


def test_a_split_says_where_its_rows_came_from(jsonl):
    for task in (*tasks.TASKS, jsonl(numbered(20))):
        origin = sources.provenance(drawn(task, 10, 3, 3).train)
        assert task.endswith(origin.name)
        assert len(origin.sha256) == 64
    assert (origin.name, origin.licence) == ("own.jsonl", "your own")


def test_pairs_for_an_audit_are_the_prompt_without_an_end_and_the_completion(jsonl):
    rows = numbered(12, input=lambda number: "" if number % 2 else "in words")
    pairs = tasks.as_pairs(drawn(jsonl(rows), None, 3, 3).train)
    assert pairs.columns.tolist() == ["id", "instruction", "input", "prompt", "completion"]
    for name, instruction, given, prompt, completion in pairs.itertuples(index=False):
        row = rows[int(name[-5:])]
        assert (instruction, given) == (row["instruction"], row["input"])
        assert prompt == "\n".join(filter(None, [row["instruction"], row["input"]]))
        assert completion == row["output"]


# --- near-duplicates and groups ------------------------------------------------------------------------------------
def test_near_copies_and_groups_stay_together_in_chains(jsonl):
    """Row 0 is a near-duplicate of 1, and 1 is in the group of 2: all three must be in one split."""
    text = "a note of some twelve words that is not like any other {}"
    rows = numbered(40, group=lambda number: f"group {number}" if number % 2 else "")
    rows[0]["instruction"], rows[1]["instruction"] = text.format("here"), text.format("there")
    rows[2]["group"] = rows[1]["group"]
    for seed in range(10):
        splits = drawn(jsonl(rows), 20, 8, 8, seed=seed)
        held = [{int(name[-5:]) for name in part} & {0, 1, 2} for part in ids(splits)]
        assert sum(map(bool, held)) <= 1


def test_equal_rows_are_kept_once_however_they_are_written(jsonl):
    rows = numbered(30)
    copies = [{**row, "instruction": row["instruction"].upper().replace(" ", "  ")} for row in rows[:10]]
    splits = drawn(jsonl(rows + copies), None, 5, 5)
    assert (sum(splits.sizes.values()), splits.dropped) == (30, 10)


def test_of_rows_that_contradict_each_other_the_first_is_kept(jsonl):
    """Unlike labels, two outputs may both be right."""
    rows = numbered(30)
    splits = drawn(jsonl(rows + [{**row, "output": "another"} for row in rows[:10]]), None, 5, 5)
    assert (sum(splits.sizes.values()), splits.dropped) == (30, 10)
    assert "another" not in pd.concat(parts_of(splits))["output"].tolist()


@pytest.mark.parametrize("instructions", [1, 2, 3])
def test_an_instruction_that_rows_share_does_not_make_them_near_copies(jsonl, instructions):
    words = ("first", "now", "again")
    texts = [f"Say {word} which of the three kinds this short note is of, in one word and no more" for word in words]
    rows = numbered(
        90,
        instruction=lambda number: texts[number % instructions],
        input=lambda number: f"note{number} word{number} end{number}",
    )
    assert drawn(jsonl(rows), 60, 15, 15).sizes == {"train": 60, "validation": 15, "test": 15}


def test_near_copies_of_an_input_stay_together_whatever_is_asked_of_it(jsonl):
    text = "the number {0} of these notes says that word{0} and word{0}x and word{0}y were seen near the road{0} by {1}"
    rows = numbered(
        80,
        instruction=lambda number: ("Summarize it.", "Translate it.")[number % 2],
        input=lambda number: text.format(number // 2, ("day", "night")[number % 2]),
    )
    parts = parts_of(drawn(jsonl(rows), None, 15, 15))
    assert_apart(np.concatenate([part["id"].str[-5:].astype(int) // 2 for part in parts]), parts)


def test_a_group_too_large_for_the_others_to_be_filled_is_one_sentence(jsonl):
    own = jsonl(numbered(30, group=lambda number: "ab"[number % 2]))
    for sizes, name in (((5, 1, 1), "rows"), ((None, 1, 1), "rows"), ((5, 2, 5), "validation_rows")):
        with pytest.raises(BadInput, match=rf"leaves 0 rows for {name}, which needs \d: groups and near-") as raised:
            drawn(own, *sizes)
        assert sentence(raised).endswith("ask for fewer rows")


# --- kinds ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_kinds_of_one_s_own_are_in_proportion_as_far_as_groups_let_them(jsonl, seed):
    """A draw from the kind with groups excludes more rows than it takes; the kind still keeps its share."""
    own = jsonl(
        numbered(
            600,
            kind=lambda number: "grouped" if number < 300 else "free",
            group=lambda number: f"group {number % 60}" if number < 300 else "",
        )
    )
    for part in parts_of(drawn(own, 100, 20, 20, seed=seed)):
        assert (part["kind"] == "grouped").sum() == len(part) / 2


def test_where_a_kind_runs_out_another_fills_the_split(jsonl):
    own = jsonl(
        numbered(
            200,
            kind=lambda number: "grouped" if number < 100 else "free",
            group=lambda number: f"group {number % 10}" if number < 100 else "",
        )
    )
    splits = drawn(own, 60, 20, 20)
    assert splits.sizes == {"train": 60, "validation": 20, "test": 20}


@pytest.mark.parametrize("seed", range(6))
def test_a_rare_kind_stands_in_every_split_that_has_room_for_all_kinds(jsonl, seed):
    own = jsonl(numbered(300, kind=lambda number: "rare" if number < 4 else f"kind {number % 3}"))
    for rows in (None, 40):
        for part in parts_of(drawn(own, rows, 12, 15, seed=seed)):
            assert set(part["kind"]) == {"rare", "kind 0", "kind 1", "kind 2"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("groups", [1, 2])
def test_a_kind_of_a_single_group_is_trained_on_and_one_of_two_is_tested_too(jsonl, groups, seed):
    """Twenty rows of a kind in one group or two: if the test split took them, none would be left for training."""
    own = jsonl(
        numbered(
            200,
            kind=lambda number: "grouped" if number < 20 else "free",
            group=lambda number: f"group {number % groups}" if number < 20 else None,
        )
    )
    train, _, test = parts_of(drawn(own, None, 20, 40, seed=seed))
    assert "grouped" in set(train["kind"])
    assert ("grouped" in set(test["kind"])) == (groups == 2)


def test_of_many_small_kinds_it_is_a_lot_which_are_tested(jsonl):
    """In the order of their names the same kinds would be tested, whatever the seed."""
    own = jsonl(numbered(60, kind=lambda number: f"kind {number:02}"))
    tested = [set(parts_of(drawn(own, None, 6, 6, seed=seed))[2]["kind"]) for seed in range(8)]
    assert len(set.union(*tested)) > 25


@pytest.mark.parametrize("size", [1, 7, 50, 120, 500])
def test_shares_make_the_size_and_take_no_more_than_there_is(size):
    counts = np.array([100, 60, 30, 7, 3])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        there = rng.integers(0, counts + 1)
        shares = stratified._kind_shares(counts, there, size, rng)
        assert shares.sum() == min(size, there.sum())
        assert (shares >= 0).all()
        assert (shares <= there).all()
        if size <= 200:
            full = stratified._kind_shares(counts, counts, size, rng)
            assert np.abs(full - counts * size / 200).max() < 1


# --- sizes ---------------------------------------------------------------------------------------------------------
def test_too_many_rows_are_one_sentence():
    with pytest.raises(BadInput, match="summaries has 96 rows, and 520 are asked for in all") as raised:
        drawn("summaries", 500, 10, 10)
    assert sentence(raised)
    with pytest.raises(BadInput, match="97 are asked for"):
        drawn("summaries", None, 48, 48)  # no row is left for training


@pytest.mark.parametrize("count", [5, 31, 100])
def test_bounds_above_what_there_is_shrink_to_three_one_and_one_fifth(jsonl, count):
    splits = drawn(jsonl(numbered(count)), 3000, 500, 2000, at_most=True)
    assert splits.sizes == {"train": count * 3 // 5, "validation": count // 5, "test": count // 5}


@pytest.mark.parametrize("sizes", itertools.product((40, 90, None), (3, 900), (3, 900)), ids=str)
def test_no_split_is_larger_than_its_bound(jsonl, sizes):
    splits = drawn(jsonl(numbered(100)), *sizes, at_most=True)
    for size, bound in zip(splits.sizes.values(), sizes, strict=True):
        assert 3 <= size <= (bound or 100)


@pytest.mark.parametrize("sizes", [(60, 20, 20), (None, 20, 79), (98, 1, 1)])
def test_bounds_that_fit_are_the_sizes_up_to_the_last_row(jsonl, sizes):
    own = jsonl(numbered(100))
    bounded = drawn(own, *sizes, at_most=True)
    assert ids(bounded) == ids(drawn(own, *sizes))
    assert sum(bounded.sizes.values()) == 100


def test_bounds_shrink_to_what_groups_leave(jsonl):
    own = jsonl(numbered(200, group=lambda number: f"group {number % 40}"))
    splits = drawn(own, 150, 10, 10, at_most=True)
    assert splits.sizes == {"train": 100, "validation": 10, "test": 10}  # the others took rows of 10 groups each
    with pytest.raises(BadInput, match="leaves 100 rows for rows, which needs 150"):
        drawn(own, 150, 10, 10)


@pytest.mark.parametrize("at_most", [True, False])
def test_a_split_without_rows_is_refused(jsonl, at_most):
    own = jsonl(numbered(4))
    with pytest.raises(BadInput, match=r"4 rows, and validation_rows would be 0; each split needs at least one"):
        drawn(own, None, 10 if at_most else 0, 10 if at_most else 1, at_most=at_most)
    with pytest.raises(BadInput, match="rows would be 0"):
        drawn(own, 0, 1, 1)


# --- files of one's own --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_a_file_of_one_s_own_is_a_task(jsonl, tmp_path, suffix):
    rows = numbered(30, input=lambda number: "" if number % 3 else "as a word, please")
    path = tmp_path / f"own{suffix}"
    if suffix == ".jsonl":
        jsonl(rows)
    elif suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    read = tasks.read(str(path))
    assert read[["instruction", "input", "output"]].to_dict("records") == [
        {name: row[name] for name in ("instruction", "input", "output")} for row in rows
    ]
    assert read["id"].tolist() == [f"own{suffix}-{number:05d}" for number in range(30)]
    assert (read[["kind", "test", "group"]] == "").all(axis=None)
    tasks.check(str(path))
    assert drawn(str(path), None, 6, 6).sizes == {"train": 18, "validation": 6, "test": 6}


def test_what_is_missing_in_an_input_or_a_kind_is_nothing_and_not_nan(jsonl):
    rows = numbered(12, input=lambda number: None if number % 2 else 7, kind=lambda number: None if number % 3 else 1)
    read = tasks.read(jsonl(rows))
    assert read["input"].tolist() == ["7", ""] * 6
    assert read["kind"].tolist() == ["1", "", ""] * 4


def test_numbers_and_truths_as_outputs_are_written_as_the_file_writes_them(jsonl):
    assert tasks.read(jsonl(numbered(3, output=lambda number: number)))["output"].tolist() == ["0", "1", "2"]
    assert tasks.read(jsonl(numbered(2, output=lambda number: number / 2)))["output"].tolist() == ["0.0", "0.5"]
    assert tasks.read(jsonl(numbered(2, output=lambda number: number > 0)))["output"].tolist() == ["false", "true"]


def test_zeros_before_a_number_and_the_word_none_stay_in_a_csv(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("instruction,input,output,kind\nCount.,,007,None\nCount on.,NA,null,\n", encoding="utf-8")
    read = tasks.read(str(path))
    assert read[["input", "output", "kind"]].to_numpy().tolist() == [["", "007", "None"], ["NA", "null", ""]]


@pytest.mark.parametrize("kind", ["category", "Int64", "boolean"])
def test_columns_of_any_type_in_parquet_are_texts(tmp_path, kind):
    values = {"category": ["a", None], "Int64": [1, None], "boolean": [True, None]}[kind]
    text = {"category": "a", "Int64": "1", "boolean": "true"}[kind]  # as JSON has it
    path = tmp_path / "own.parquet"
    rows = pd.DataFrame(numbered(2))
    rows.assign(input=pd.array(values, dtype=kind), kind=pd.array(values, dtype=kind)).to_parquet(path)
    assert tasks.read(str(path))["kind"].tolist() == tasks.read(str(path))["input"].tolist() == [text, ""]


def test_a_column_test_of_one_s_own_is_not_taken_for_code_to_run(jsonl):
    assert (tasks.read(jsonl(numbered(3, test="import antigravity")))["test"] == "").all()


def test_columns_of_a_pair_that_are_not_read_are_named_in_the_note(jsonl):
    beside = {"context": "c", "category": "d", "test": "1", "history": [], "system": "", "empty": None}
    file = jsonl(numbered(20, input="i", kind="k", group="", id="x", **beside))
    note = "own.jsonl: the rows are pairs of instruction and output; not read beside them: context, category, test"
    assert tasks.read(file).attrs["note"] == note
    assert sources.provenance(drawn(file, 10, 3, 3).train).note == note
    assert tasks.read(jsonl(numbered(3, input="i", history=None))).attrs["note"] == ""


def test_the_rows_of_a_task_of_the_course_can_be_written_and_read_again(tmp_path):
    for task in tasks.TASKS:
        rows = tasks.read(task).head(40)
        for suffix, save in ((".csv", "to_csv"), (".parquet", "to_parquet")):
            path = tmp_path / f"{task}{suffix}"
            getattr(rows, save)(path, index=False)
            again = tasks.read(str(path))
            columns = ["instruction", "input", "output", "kind", "group"]
            assert again[columns].to_dict("records") == rows[columns].to_dict("records")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("history", [["Hi", "Hello."]], "write the row as a conversation (messages) that begins with these turns, or"),
        ("system", "Be brief.", "write the row as a conversation (messages) that begins with this text, or leave"),
        ("tools", [{"name": "add"}], "correct the row, or leave it out"),
    ],
)
def test_a_pair_that_is_a_part_of_a_conversation_is_refused_in_one_sentence(jsonl, tmp_path, column, value, said):
    rows = numbered(6, **{column: lambda number: value if number == 4 else None})
    table = tmp_path / "own.csv"
    pd.DataFrame(rows).assign(**{column: [json.dumps(row[column] or []) for row in rows]}).to_csv(table, index=False)
    for file in (jsonl(rows), str(table)):
        for look in (tasks.read, tasks.check):
            with pytest.raises(BadInput) as raised:
                look(file)
            assert f"{file}, row 4: it has " in sentence(raised)
            assert f"in the column '{column}', which is not read beside an instruction and its output; {said}" in str(
                raised.value
            )


@pytest.mark.parametrize("column", ["instruction", "output"])
@pytest.mark.parametrize("value", [None, "", " \n"], ids=["null", "empty", "blank"])
def test_a_row_without_instruction_or_output_is_named(jsonl, column, value):
    rows = numbered(6)
    rows[4][column] = value
    for look in (tasks.read, tasks.check):
        with pytest.raises(BadInput, match=f"row 4 of .*own.jsonl has no {column}; give it one") as raised:
            look(jsonl(rows))
        assert sentence(raised)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tutors", None, "there is no task 'tutors'; there are clinical_notes, tutor, summaries"),
        ("missing.jsonl", None, "there is no file"),
        ("own.txt", "some text", "not a file type that the course reads"),
        ("own.jsonl", "", "is empty"),
        ("own.jsonl", '{"instruction": "Go."}\n', "has no column 'output'"),
        ("own.jsonl", '{"instruction": "Go.", "output": \n', "line 1: not JSON"),
        ("own.csv", "instruction,output\n", "no rows"),
    ],
)
def test_a_bad_name_or_file_is_one_sentence(tmp_path, monkeypatch, name, text, said):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    for look in (tasks.read, tasks.check, lambda task: drawn(task, 10, 2, 2)):
        with pytest.raises(BadInput, match=said) as raised:
            look(name)
        assert sentence(raised)


def test_a_known_name_needs_no_look(monkeypatch):
    monkeypatch.setattr(tasks, "_own", lambda task: pytest.fail(task))
    for task in tasks.TASKS:
        tasks.check(task)


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c"], ids=ascii)
def test_a_shipped_row_may_hold_what_python_takes_for_a_line_end(end, tmp_path, monkeypatch):
    rows = [{"text": f"One line.{end}Another.", "summary": f"Lines{end}two."} for _ in range(3)]
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    (tmp_path / "summaries.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.setattr(sources, "ROWS", tmp_path)
    assert tasks.read("summaries")["input"].tolist() == [row["text"] for row in rows]


# --- conversations -------------------------------------------------------------------------------------------------
def talk(number, *, system=None, first="Tell me of the number {}.", form=("role", "content"), last="Is it even?"):
    """A conversation of two questions, the second of which is the same in each."""
    said = [
        ("user", first.format(number)), ("assistant", f"It is {number}."),
        ("user", last), ("assistant", "yes" if number % 2 == 0 else "no"),
    ]  # fmt: skip
    told = [("system", system)] if system else []
    return [dict(zip(form, turn, strict=True)) for turn in told + said]


@pytest.mark.parametrize("form", [("messages", "role", "content"), ("conversations", "from", "value")])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_file_of_conversations_is_a_task(tmp_path, form, suffix):
    name, *keys = form
    table = pd.DataFrame({name: [talk(number, form=keys, system="Be brief.") for number in range(30)], "kind": "a"})
    file = tmp_path / f"own{suffix}"
    {
        ".jsonl": lambda: table.to_json(file, orient="records", lines=True),
        ".csv": lambda: table.to_csv(file, index=False),
        ".parquet": lambda: table.to_parquet(file),
    }[suffix]()
    tasks.check(str(file))
    rows = tasks.read(str(file))
    assert rows.columns.tolist() == [*tasks.COLUMNS, "messages"]
    assert rows["messages"].tolist() == [talk(number, system="Be brief.") for number in range(30)]
    assert (rows["instruction"] == "Is it even?").all()
    assert rows["output"].tolist()[:2] == ["yes", "no"]
    assert rows.attrs["note"] == ""
    splits = drawn(str(file), None, 5, 5)
    assert (sum(splits.sizes.values()), splits.dropped) == (30, 0)  # the same last question, but other conversations
    assert splits.train[0]["messages"][-2:] == [
        {"role": "user", "content": "Is it even?"}, {"role": "assistant", "content": splits.train[0]["output"]},
    ]  # fmt: skip
    pairs = tasks.as_pairs(splits.train)
    assert pairs["prompt"].is_unique
    assert pairs["prompt"][0].startswith("Tell me of the number ")  # the system turn, which all rows share, is left out
    assert pairs["prompt"][0].endswith("\n\nIs it even?")
    report = audit_instructions(pairs)
    assert report.rows == len(splits.train)
    assert "broken_conversation" not in report


def test_equal_conversations_are_kept_once_and_near_copies_stay_together(jsonl):
    text = "Tell me of the {0} and of all that word{0} said to word{0}x near the road{0} by the house{0} at night, "
    rows = [{"messages": talk(number, first=text.format(number // 2) + "{}")} for number in range(60)]
    splits = drawn(jsonl([*rows, *rows[:7]]), None, 10, 10)
    assert splits.dropped == 7
    parts = parts_of(splits)
    assert_apart(np.concatenate([part["id"].str[-5:].astype(int) // 2 for part in parts]), parts)


def in_parts(dialogue) -> list[dict]:
    """A dialogue as many data sets have it: a row up to each of its answers."""
    return [{"messages": dialogue[: end + 1]} for end, turn in enumerate(dialogue) if turn["role"] == "assistant"]


def learned_and_tested(splits) -> list[tuple]:
    """The questions and answers of the test rows that a training row teaches."""
    train, _, test = parts_of(splits)
    asked = {(said[-2]["content"], said[-1]["content"]) for said in test["messages"]}
    learned = {(one["content"], two["content"]) for said in train["messages"] for one, two in itertools.pairwise(said)}
    return sorted(asked & learned)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_what_a_test_row_asks_is_not_learned_in_a_longer_row_of_its_dialogue(jsonl, system):
    dialogues = [talk(number, system=system, last=f"And the number {number + 100}?") for number in range(40)]
    rows = [row for dialogue in dialogues for row in in_parts(dialogue)]
    splits = drawn(jsonl(rows), None, 10, 20)
    assert splits.sizes["test"] == 20
    assert learned_and_tested(splits) == []


def test_a_long_exchange_stays_in_one_split_where_older_turns_were_cut_off(jsonl):
    dialogues = [
        [turn for step in range(3) for turn in talk(step, last=f"Is w{number}x{step} a number? " * 4)[2:]]
        for number in range(30)
    ]
    rows = [{"messages": dialogue[start:]} for dialogue in dialogues for start in (0, 2)]
    splits = drawn(jsonl(rows), None, 10, 20)
    assert learned_and_tested(splits) == []


def test_a_greeting_that_dialogues_share_does_not_join_them(jsonl):
    hello = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello! How can I help?"}]
    own_words = " ".join("{0}word" + str(place) for place in range(12))  # no two of these are like each other
    rows = [{"messages": hello + talk(number, first=own_words)} for number in range(60)]
    assert drawn(jsonl(rows), 40, 10, 10).sizes == {"train": 40, "validation": 10, "test": 10}


def test_a_system_turn_that_rows_share_does_not_make_them_near_copies(jsonl):
    system = "You are a kind and patient teacher of small numbers who never says more than is needed, and who is right"
    rows = [{"messages": talk(number, system=system, first="{0} word{0} end{0}")} for number in range(60)]
    assert drawn(jsonl(rows), 40, 10, 10).sizes == {"train": 40, "validation": 10, "test": 10}


def test_columns_that_a_conversation_replaces_are_named_in_the_note(jsonl):
    unread = {"instruction": "a", "output": "b", "answer": "c", "context": "d", "empty": None}
    rows = [{"messages": talk(number), **unread, "id": number, "kind": "k"} for number in range(20)]
    file = jsonl(rows)
    note = tasks.read(file).attrs["note"]
    assert note.startswith("own.jsonl: the rows are the conversations in column 'messages'")
    assert note.endswith("; not read beside them: instruction, output, answer, context")
    train = drawn(file, 10, 3, 3).train
    assert sources.provenance(train).note == note
    assert set(train["output"]) == {"yes", "no"}


def test_two_files_that_differ_in_an_early_turn_have_two_fingerprints(jsonl):
    one, other = (
        drawn(jsonl([{"messages": talk(number, first=first)} for number in range(20)]), 10, 3, 3).train
        for first in ("Tell me of {}.", "Talk to me of {}.")
    )
    assert sources.fingerprint(one) != sources.fingerprint(other)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": talk(1)[:-1]}, "column 'messages', row 2: its last turn is the user's, and has no answer"),
        ({"messages": talk(1)[1:]}, "row 2: turn 1 is the assistant's, and a conversation begins with the user's"),
        ({"messages": None}, "row 2: it is nothing; expected a list of turns"),
        ({"messages": talk(1), "system": "Be brief."}, "row 2: it has a system text in the column 'system'"),
        ({"messages": talk(1), "tools": [{"name": "add"}]}, "row 2: it has tools in the column 'tools'"),
    ],
)
def test_a_conversation_that_cannot_be_learned_from_is_one_sentence(jsonl, row, reason):
    file = jsonl([{"messages": talk(5)}, {"messages": talk(6)}, row])
    for look in (tasks.read, tasks.check):
        with pytest.raises(BadInput) as raised:
            look(file)
        assert reason in sentence(raised)
        assert file in sentence(raised)


@pytest.mark.clock
def test_a_file_in_which_nearly_every_row_has_a_kind_of_its_own_is_drawn_in_a_moment():
    """A comparison of all rows for each kind takes a time that grows with their square."""
    count = 20_000
    began = time.process_time()
    splits = stratified.draw_kinds(
        np.array([f"kind {number}" for number in range(count)], dtype=object), np.arange(count),
        {"rows": None, "validation_rows": 100, "test_rows": 100}, usable=np.ones(count, dtype=bool), seed=0,
        at_most=False, what="mine.jsonl",
    )  # fmt: skip
    assert time.process_time() - began < 10
    assert [len(part) for part in splits] == [count - 200, 100, 100]
