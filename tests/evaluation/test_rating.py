"""Blind rating: the order hides the models, a form survives a spreadsheet, and the verdict is a paired one."""

import csv
import itertools

import numpy as np
import pandas as pd
import pytest

from ftlab.errors import BadInput
from ftlab.evaluation import rating
from ftlab.evaluation.rating import COLUMNS, Item, Sheet, sheet, verdict

NAMES = ("base", "tuned")
AWKWARD = [
    "=1+1", "+4", "-x", "@A1", "NA", "null", "nan", "None", "N/A", "", "007", "1.0", "12:30", "true", "'quoted'",
    'says "so", twice', "two\nlines", "two\r\nlines", "old\rMac", "a,b;c\td", "#N/A", "<NA>", "=HYPERLINK(\"x\")",
    "caf\u00e9 \u2192 \u732b", "\x00byte\x07", "`[1, 2]`", "\u2028parted\u2028lines", "x" * 3000, "-nan", "1e5",
]  # fmt: skip


def answered(texts, *, start=0):
    ids = [f"r{number}" for number in range(start, start + len(texts))]
    rows = [
        {"instruction": f"Do {number}.", "input": "with this" if number % 2 else ""} for number in range(len(texts))
    ]
    return pd.DataFrame(rows).assign(id=ids, answer=texts)


TABLES = [answered([f"{word} {number}" for number in range(8)]) for word in ("one", "other")]


def make(rows=8, **options):
    return sheet(*TABLES, names=NAMES, rows=rows, **options)


def ratings_of(made):
    return [1 + number % 5 for number in range(len(made.items))]


def filled(made, path, *, change=None, **options):
    """The form of a sheet with a rating in each line, written as a spreadsheet might."""
    made.write_form(path)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).assign(rating=ratings_of(made))
    (change(frame) if change else frame).to_csv(path, index=False, **options)
    return path


def test_both_models_answer_each_chosen_prompt_and_the_repeats_come_last():
    made = make(5, repeats=3)
    items = made.items[:10]
    assert len({item.id for item in items}) == 5
    assert sorted((item.id, item.model) for item in items) == sorted(
        itertools.product({item.id for item in items}, NAMES)
    )
    for item in items:
        assert item.repeats is None
        assert item.answer == f"{'one' if item.model == 'base' else 'other'} {item.id[1:]}"
        assert item.prompt.startswith(f"Do {item.id[1:]}.")
    again = made.items[10:]
    assert len({item.repeats for item in again}) == 3
    for item in again:
        first = made.items[item.repeats]
        assert (item.id, item.prompt, item.answer, item.model) == (first.id, first.prompt, first.answer, first.model)


def test_the_order_follows_from_the_seed_and_from_nothing_else():
    assert make(seed=3) == make(seed=3)
    assert make(seed=3) != make(seed=4)
    assert make(3, seed=3) != make(3, seed=5)


def test_the_order_does_not_tell_the_models_apart():
    """Over many seeds each place holds either model about as often, and so does the first answer of a prompt."""
    firsts = np.array([[item.model == "base" for item in make(seed=seed).items[:16]] for seed in range(100)])
    assert np.abs(firsts.mean(axis=0) - 0.5).max() < 0.2
    assert 0.3 < np.mean([changes(row) for row in firsts]) < 0.7


def changes(row):
    return np.mean(row[1:] != row[:-1])


def test_an_empty_answer_and_rows_in_another_order_are_rated_too():
    first, second = answered(["", "b"]), answered(["c", " d "]).iloc[::-1]
    found = {(item.id, item.model): item.answer for item in sheet(first, second, names=NAMES, rows=2).items}
    assert found == {("r0", "base"): "", ("r1", "base"): "b", ("r0", "tuned"): "c", ("r1", "tuned"): "d"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows is 0; expected 1 to 3"),
        ({"rows": 4}, "rows is 4; expected 1 to 3"),
        ({"rows": 2, "repeats": -1}, "repeats is -1; expected 0 or more"),
        ({"rows": 2, "names": ("base", "base")}, "both models are called 'base'"),
        ({"rows": 2, "second": answered(["a", "b", "c"], start=1)}, "answered different rows"),
    ],
)
def test_what_makes_no_sheet_is_one_sentence(options, message):
    given = {"first": answered(["a", "b", "c"]), "second": answered(["d", "e", "f"]), "names": NAMES, **options}
    with pytest.raises(BadInput, match=message):
        sheet(given.pop("first"), given.pop("second"), **given)


def test_neither_a_form_nor_an_item_says_whose_an_answer_is(tmp_path):
    made = make()
    made.write_form(tmp_path / "form.csv")
    text = (tmp_path / "form.csv").read_text(encoding="utf-8")
    assert not [name for name in NAMES if name in text or name in repr(made.items)]
    frame = pd.read_csv(tmp_path / "form.csv")
    assert tuple(frame.columns) == COLUMNS
    assert frame["item"].tolist() == list(range(1, len(made.items) + 1))
    assert frame["rating"].isna().all()


def test_a_filled_form_gives_its_ratings(tmp_path):
    made = make()
    assert made.read_form(filled(made, tmp_path / "form.csv")) == ratings_of(made)
    assert made.read_form(str(tmp_path / "form.csv")) == ratings_of(made)


def named(change):
    return getattr(change, "__name__", "as_it_was")


def as_numbers(frame):
    return frame.assign(rating=frame["rating"].astype(float), item=frame["item"].astype(float))


def as_text_with_spaces(frame):
    return frame.assign(rating=[f" {value} " for value in frame["rating"]], prompt=frame["prompt"] + "  ")


def with_empty_lines(frame):
    return pd.concat([frame, pd.DataFrame([[""] * 5] * 2, columns=frame.columns)])


def without_apostrophes(frame):
    """As a spreadsheet that reads the apostrophe as its own mark of text, and removes it."""
    return frame.assign(answer=[value.removeprefix("'") for value in frame["answer"]])


@pytest.mark.parametrize(
    "change", [None, as_numbers, as_text_with_spaces, with_empty_lines, without_apostrophes], ids=named
)
@pytest.mark.parametrize(
    "writing", [{}, {"lineterminator": "\r\n"}, {"quoting": csv.QUOTE_ALL}, {"encoding": "utf-8-sig"}], ids=str
)
def test_a_form_that_went_through_a_spreadsheet_still_reads(tmp_path, change, writing):
    made = sheet(answered(AWKWARD), answered(AWKWARD[::-1]), names=NAMES, rows=len(AWKWARD))
    path = filled(made, tmp_path / "form.csv", change=change, **writing)
    assert made.read_form(path) == ratings_of(made)


def test_no_answer_is_lost_to_what_pandas_takes_for_nothing(tmp_path):
    """With the defaults of pandas numbers would lose their leading zeros, and NA would be empty."""
    made = sheet(answered(AWKWARD), answered(AWKWARD[::-1]), names=NAMES, rows=len(AWKWARD))
    made.write_form(tmp_path / "form.csv")
    frame = pd.read_csv(tmp_path / "form.csv")
    assert frame["answer"].isna().sum() == sum(not item.answer for item in made.items)
    frame.assign(rating=ratings_of(made)).to_csv(tmp_path / "form.csv", index=False)
    assert made.read_form(tmp_path / "form.csv") == ratings_of(made)


def test_a_number_alone_and_a_formula_alone_survive(tmp_path):
    """pandas guesses the type of a column of numbers."""
    made = sheet(answered(["007", "1.0"]), answered(["1e5", "10"]), names=NAMES, rows=2)
    path = tmp_path / "form.csv"
    made.write_form(path)
    pd.read_csv(path).assign(rating=ratings_of(made)).to_csv(path, index=False)
    assert made.read_form(path) == ratings_of(made)


def test_no_cell_of_a_form_is_a_formula(tmp_path):
    made = sheet(answered(AWKWARD), answered(AWKWARD[::-1]), names=NAMES, rows=len(AWKWARD))
    made.write_form(tmp_path / "form.csv")
    with (tmp_path / "form.csv").open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file))
    assert len(lines) == 1 + len(made.items)
    assert not [cell for line in lines for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_a_form_keeps_ratings_that_are_there_already(tmp_path):
    made = make(repeats=0)
    made.write_form(tmp_path / "form.csv", ratings_of(made))
    assert made.read_form(tmp_path / "form.csv") == ratings_of(made)
    made.write_form(tmp_path / "form.csv", [None, *ratings_of(made)[1:]])
    with pytest.raises(BadInput, match=r"line 1 .* has no rating"):
        made.read_form(tmp_path / "form.csv")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "has no rating"),
        ("  ", "has no rating"),
        ("0", "has the rating '0'"),
        ("6", "has the rating '6'"),
        ("-1", "has the rating '-1'"),
        ("3.5", "has the rating '3.5'"),
        ("3,0", "has the rating '3,0'"),
        ("good", "has the rating 'good'"),
        ("nan", "has the rating 'nan'"),
        ("inf", "has the rating 'inf'"),
    ],
)
def test_a_rating_that_is_none_is_named_by_its_line(tmp_path, value, message):
    def spoil(frame):
        frame["rating"] = frame["rating"].astype(str)
        frame.loc[2, "rating"] = value
        return frame

    made = make()
    with pytest.raises(BadInput, match=f"line 3 of .*form.csv {message}.* from 1 .bad. to 5 .good."):
        made.read_form(filled(made, tmp_path / "form.csv", change=spoil))


@pytest.mark.parametrize(
    ("column", "value"), [("id", "r99"), ("answer", "something else"), ("answer", ""), ("prompt", "Do it all.")]
)
def test_a_form_of_other_prompts_or_answers_is_refused_by_its_line(tmp_path, column, value):
    def spoil(frame):
        frame.loc[4, column] = value
        return frame

    made = make()
    with pytest.raises(BadInput, match=r"line 5 of .*form\.csv .*form is of other prompts or answers"):
        made.read_form(filled(made, tmp_path / "form.csv", change=spoil))


def test_a_form_in_another_order_is_refused(tmp_path):
    made = make(seed=1)
    with pytest.raises(BadInput, match="other prompts or answers"):
        made.read_form(filled(make(seed=2), tmp_path / "form.csv"))


@pytest.mark.parametrize("change", [lambda frame: frame.iloc[1:], lambda frame: pd.concat([frame, frame.iloc[:1]])])
def test_a_form_with_lines_too_few_or_too_many_is_refused(tmp_path, change):
    made = make()
    wanted = len(made.items)
    with pytest.raises(BadInput, match=rf"has (17|19) ratings, and there are {wanted} answers to rate"):
        made.read_form(filled(made, tmp_path / "form.csv", change=change))


def test_a_form_without_its_columns_is_refused_in_words_of_the_form(tmp_path):
    made = make()
    path = filled(made, tmp_path / "form.csv", change=lambda frame: frame.drop(columns="rating"))
    with pytest.raises(BadInput, match="has no column 'rating'; it has item, id, prompt, answer; fill in the form"):
        made.read_form(path)
    filled(made, path, sep=";")  # as a spreadsheet writes it in a locale with decimal commas
    with pytest.raises(BadInput, match="save it with commas"):
        made.read_form(path)
    with pytest.raises(BadInput, match="there is no file"):
        made.read_form(tmp_path / "none.csv")


def hand_made(*, repeats=()):
    """Three prompts, the models in turn: base, tuned, base, tuned, ..."""
    items = [Item(f"r{number // 2}", "Do it.", "so", NAMES[number % 2]) for number in range(6)]
    return Sheet((*items, *[Item(**{**vars(items[place]), "repeats": place}) for place in repeats]), NAMES)


def test_a_verdict_is_made_of_means_and_of_differences_prompt_by_prompt():
    found = verdict(hand_made(), [1, 3, 2, 4, 3, 5])
    assert {name: mean.value for name, mean in found.means.items()} == {"base": 2.0, "tuned": 4.0}
    # Two, each time: three prompts that agree are still three, and the fourth may be another.
    assert found.difference.value == 2.0
    assert -4 < found.difference.low < 0
    assert 2 < found.difference.high < 4
    assert found.means["base"].low < 2 < found.means["base"].high
    assert found.agreement == (0, 0)
    lines = found.table()
    assert lines.index.tolist() == ["base", "tuned", "tuned less base"]
    assert lines["mean rating"].tolist() == [2.0, 4.0, 2.0]
    assert f"difference {found.difference}; 0 of 0 repeated answers" in str(found)
    assert str(found.difference).startswith("2.000 [-2.2")


def test_repeats_tell_of_the_rater_and_not_of_the_models():
    plain = verdict(hand_made(), [1, 3, 2, 4, 3, 4])
    found = verdict(hand_made(repeats=(0, 3, 5)), [1, 3, 2, 4, 3, 4, 1, 1, 4])
    assert found.agreement == (2, 3)
    assert (found.means, found.difference) == (plain.means, plain.difference)


def test_the_order_of_the_sheet_does_not_change_the_verdict():
    """The same opinion of each answer, whatever place it had."""
    opinion = {("base", f"r{number}"): 1 + number % 3 for number in range(8)}
    opinion |= {("tuned", f"r{number}"): 2 + number % 4 for number in range(8)}
    found = [
        verdict(made, [opinion[item.model, item.id] for item in made.items])
        for made in (make(seed=seed) for seed in range(4))
    ]
    assert all(one == found[0] for one in found)
    assert found[0].agreement == (2, 2)
    expected = np.mean([opinion["tuned", f"r{number}"] - opinion["base", f"r{number}"] for number in range(8)])
    assert found[0].difference.value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2, 3], "3 of 6 answers are rated"),
        ([1, 2, None, 4, 5, 1], "answer 3 has no rating"),
        ([1, 2, 3, 4, 9, 1], "answer 5 has the rating 9"),
    ],
)
def test_a_verdict_waits_for_every_rating(given, message):
    with pytest.raises(BadInput, match=message):
        verdict(hand_made(), given)


def test_a_rating_is_a_whole_number_of_the_scale():
    assert [rating.rating(value, "here") for value in (1, 5, "3", "4.0", 2.0, " 5 ", np.int64(2))] == [
        1,
        5,
        3,
        4,
        2,
        5,
        2,
    ]
