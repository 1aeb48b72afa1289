import numpy as np
import pandas as pd
import pytest

from ftlab.data.audit import audit
from ftlab.data.audit.lengths import budgets, by_class, count_tokens, cut

from .planted import changed, reviews, tokenizer

TOKENIZERS = ["tiny-distilbert", "tiny-gpt2"]


def tokens(*numbers: int) -> pd.Series:
    return pd.Series(numbers, dtype=np.int64)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_lengths_are_those_of_the_tokenizer_special_tokens_included(name):
    frame = changed(reviews(40), "text", {7: "word " * 300, 8: "我喜欢 🙂 é"})
    report = audit(frame, tokenizer=tokenizer(name))
    assert report.lengths["tokens"].tolist() == [len(tokenizer(name)(text)["input_ids"]) for text in frame["text"]]


def test_special_tokens_are_counted_on_request():
    texts = reviews(20)["text"].tolist()
    whole, bare = (count_tokens(tokenizer("tiny-distilbert"), texts, special=special)[0] for special in (True, False))
    assert (whole - bare).tolist() == [2] * 20


def test_earlier_truncation_settings_do_not_affect_counting():
    texts = ["word " * 300, "a word"]
    expected = count_tokens(tokenizer("tiny-distilbert"), texts)[0].tolist()
    tokenizer("tiny-distilbert")(texts, truncation=True, max_length=8, padding="max_length")
    assert count_tokens(tokenizer("tiny-distilbert"), texts)[0].tolist() == expected


def test_counting_leaves_the_tokenizer_able_to_truncate():
    count_tokens(tokenizer("tiny-distilbert"), ["word " * 300])
    assert len(tokenizer("tiny-distilbert")("word " * 300, truncation=True, max_length=8)["input_ids"]) == 8


def test_characters_are_counted_without_a_tokenizer():
    report = audit(reviews(40))
    assert report.lengths["characters"].tolist() == reviews(40)["text"].str.len().tolist()
    assert "tokens" not in report.lengths


def test_rows_that_lack_a_text_or_a_label_have_no_length():
    frame = changed(changed(reviews(40), "text", {3: None}), "label", {5: None})
    assert audit(frame).lengths["id"].tolist() == [f"r{row}" for row in range(40) if row not in (3, 5)]


def test_truncation_lists_the_rows_and_the_tokens_that_each_loses():
    name = tokenizer("tiny-distilbert")
    frame = changed(reviews(40), "text", {7: "word " * 300})
    found = audit(frame, tokenizer=name, max_length=256)["truncation"]
    length = len(name("word " * 300)["input_ids"])
    assert found.rows == ("r7",)
    assert found.evidence[["tokens", "lost"]].values.tolist() == [[length, length - 256]]


def test_a_row_of_exactly_max_length_is_whole():
    longest = int(audit(reviews(40), tokenizer=tokenizer("tiny-gpt2")).lengths["tokens"].max())
    for max_length, shorter in ((longest, False), (longest - 1, True)):
        report = audit(reviews(40), tokenizer=tokenizer("tiny-gpt2"), max_length=max_length)
        assert ("truncation" in report) == shorter


def test_max_length_has_no_effect_without_a_tokenizer():
    report = audit(reviews(40), max_length=8)
    assert "truncation" not in report
    assert report.max_length is None


def test_each_class_has_its_rows_and_what_is_cut_of_it():
    lengths = pd.DataFrame(
        {"id": list("abcd"), "label": ["x", "x", "x", "y"], "characters": [4, 6, 8, 10], "tokens": [10, 20, 30, 5]}
    )
    table = by_class(lengths, 15)
    assert table.loc["x"].to_dict() == {
        "rows": 3, "share": 0.75, "median characters": 6, "median tokens": 20, "rows cut": 0.667, "tokens lost": 0.333,
    }  # fmt: skip
    assert table.loc["y", ["rows cut", "tokens lost"]].tolist() == [0, 0]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_cut_text_ends_where_its_last_kept_token_ends(name):
    texts = [*reviews()["text"], "我喜欢 🙂 é", "word"]
    for room in (1, 5, 20, 10_000):
        for text, part in zip(texts, cut(tokenizer(name), texts, room), strict=True):
            ids = tokenizer(name)(text, add_special_tokens=False)["input_ids"]
            assert text.startswith(part)
            assert (part == text) == (len(ids) <= room) or tokenizer(name).unk_token_id in ids
            assert tokenizer(name)(part, add_special_tokens=False)["input_ids"][:room] == ids[:room]


def test_without_room_for_a_token_nothing_is_left_of_a_text():
    assert cut(tokenizer("tiny-gpt2"), ["a word", "another"], 0) == ["", ""]


# --- what a max_length keeps and costs ---


def lengths_drawn(seed: int) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).geometric(0.01, size=200) + 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_length", [None, 8, 100, 333, 5000])
def test_a_larger_max_length_never_keeps_less_and_never_costs_less(seed, max_length):
    table = budgets(lengths_drawn(seed), max_length)
    assert table.index.is_monotonic_increasing
    assert table.index.is_unique
    for column in ("rows whole", "tokens kept", "time", "memory"):
        assert table[column].is_monotonic_increasing, column


@pytest.mark.parametrize("max_length", [8, 100, 333])
def test_costs_are_relative_to_the_chosen_max_length(max_length):
    table = budgets(lengths_drawn(0), max_length)
    assert table.loc[max_length, ["time", "memory"]].tolist() == [1, 1]


def test_without_a_max_length_costs_are_relative_to_the_longest_row():
    lengths = lengths_drawn(0)
    for max_length in (None, int(lengths.max()) + 1000):
        table = budgets(lengths, max_length)
        assert table.index[-1] == lengths.max()
        assert table.iloc[-1].tolist() == [1, 1, 1, 1]


def test_budgets_count_the_rows_and_tokens_that_each_length_keeps():
    table = budgets(tokens(10, 20, 40, 50), 40)
    assert table.index.tolist() == [32, 40, 50]
    assert table["rows whole"].tolist() == [0.5, 0.75, 1.0]
    assert table["tokens kept"].tolist() == [round(94 / 120, 2), round(110 / 120, 2), 1.0]
    assert table["memory"].tolist() == [0.8, 1.0, 1.25]


def test_attention_makes_long_rows_cost_more_than_their_share():
    narrow, wide = (budgets(tokens(2000), 1000, hidden_size)["time"].iloc[-1] for hidden_size in (64, 4096))
    assert 2 < wide < narrow < 4


def test_time_follows_the_formula_of_the_source():
    time = budgets(tokens(100, 300), 200, 768)["time"].iloc[-1]
    flops = [24 * n * 768**2 + 4 * n**2 * 768 for n in (100, 300, 200)]
    assert time == round((flops[0] + flops[1]) / (flops[0] + flops[2]), 2)


def test_no_tokens_have_no_budget():
    assert budgets(tokens(), 128).empty
    assert audit(reviews(40)).budgets.empty


def test_time_depends_on_the_width_of_the_model():
    narrow, wide = (
        audit(reviews(40), tokenizer=tokenizer("tiny-gpt2"), max_length=16, hidden_size=hidden_size).budgets["time"]
        for hidden_size in (8, 4096)
    )
    assert narrow.iloc[-1] > wide.iloc[-1]
