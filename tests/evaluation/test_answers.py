"""Metrics of answers: what counts as right, what does not, and how models are compared."""

import contextlib
import io
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset

from ftlab.data import few_shot, prompts, sources
from ftlab.errors import BadInput
from ftlab.evaluation import answers
from ftlab.evaluation.answers import compare, measured, passes, rouge_l, scores
from ftlab.intervals import Comparison, Interval
from ftlab.models import generation, loading

COLUMNS = {"kind": "", "instruction": "Say it.", "input": "", "output": "so", "test": "", "tokens": 3, "stopped": True}


def table(*rows, **columns):
    """A table as `answers.answer` returns it, from the columns that matter."""
    found = pd.DataFrame([{**COLUMNS, **columns, **row} for row in rows])
    return found.assign(id=[f"r{number}" for number in range(len(rows))])


def values(found, name):
    return measured(found, [name])[name].tolist()


def of_kind(kind):
    lines = (sources.ROWS / "tutor.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.mark.usefixtures("one_thread")
def test_each_row_gets_the_answer_to_its_own_prompt():
    model, tokenizer = loading.causal_lm("tiny-gpt2"), loading.tokenizer("tiny-gpt2")
    rows = [
        {"id": f"r{number}", "kind": "k", "instruction": "Say " * (1 + number % 3), "input": "a film " * (number % 4),
         "output": "so", "test": "", "group": "g"} for number in range(6)
    ]  # fmt: skip
    found = answers.answer(model, tokenizer, Dataset.from_list(rows).select([4, 1, 3]), max_new_tokens=5)
    assert list(found["id"]) == ["r4", "r1", "r3"]
    assert list(found.columns) == [
        "id",
        "kind",
        "instruction",
        "input",
        "output",
        "test",
        "group",
        "answer",
        "tokens",
        "stopped",
        "prompt_tokens",
    ]
    for row, line in zip((rows[4], rows[1], rows[3]), found.itertuples(), strict=True):
        ids = prompts.prompt_ids(prompts.ALPACA.prompt(row), tokenizer)
        (own,) = generation.generate(model, tokenizer, [ids], max_new_tokens=5)
        assert (line.answer, line.tokens, line.stopped) == (own.text, own.tokens, own.stopped)


@pytest.mark.usefixtures("one_thread")
def test_examples_stand_before_each_question():
    model, tokenizer = loading.causal_lm("tiny-gpt2"), loading.tokenizer("tiny-gpt2")
    line = {"kind": "k", "input": "", "output": "so", "test": "", "group": ""}
    rows = [{"id": f"r{number}", "instruction": "Say it. " * number, **line} for number in range(1, 5)]
    asked, shown = Dataset.from_list(rows[:2]), rows[2:]
    found = answers.answer(model, tokenizer, asked, max_new_tokens=5, examples=shown)
    ids = [few_shot.question_ids(row, shown, tokenizer) for row in asked]
    assert found["prompt_tokens"].tolist() == [len(prompt) for prompt in ids]
    assert found["answer"].tolist() == [
        one.text for one in generation.generate(model, tokenizer, ids, max_new_tokens=5)
    ]
    with pytest.raises(
        BadInput, match=r"^20 examples and the longest question \(row r2\) .* positions for 256; at most \d"
    ):
        answers.answer(model, tokenizer, asked, max_new_tokens=5, examples=shown * 10)


def test_an_answer_in_a_chat_stops_at_the_end_of_the_turn_which_is_not_eos(monkeypatch):
    model, tokenizer = loading.causal_lm("tiny-llama"), loading.tokenizer("tiny-llama")
    chat = prompts.named("chat", tokenizer)
    (end,) = chat.ends
    assert end != tokenizer.eos_token_id
    word = tokenizer("so")["input_ids"]

    def answers_and_goes_on(input_ids, **options):
        more = torch.tensor([[*word, end, *word]] * len(input_ids))
        return torch.cat([input_ids, more], dim=1)

    monkeypatch.setattr(model, "generate", answers_and_goes_on)
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    row = {"id": "r", "kind": "k", "instruction": "Why?", "input": "", "output": "So.", "test": "", "messages": said}
    for template, text, stopped in ((chat, "so", True), (prompts.ALPACA, "soso", False)):
        (found,) = answers.answer(
            model, tokenizer, Dataset.from_list([row]), max_new_tokens=9, template=template
        ).itertuples()
        assert (found.answer, found.stopped) == (text, stopped)
        assert found.prompt_tokens == len(prompts.question_ids(row, tokenizer, template=template))


def test_measures_are_shares_or_do_not_apply():
    rows = [
        *[{**row, "answer": row["output"]} for kind in ("read", "explain") for row in of_kind(kind)[:4]],
        *[{**row, "answer": ""} for row in of_kind("read")[:2]],
    ]
    found = measured(table(*rows), answers.MEASURES)
    for name in answers.MEASURES:
        assert found[name].dropna().between(0, 1).all()
        if name in answers.BINARY:
            assert set(found[name].dropna()) <= {0.0, 1.0}
    assert found["tests passed"].isna().all()


def test_an_unknown_measure_is_refused_by_name():
    with pytest.raises(BadInput, match="no measure 'bleu'; there are exact match, right word, stopped"):
        measured(table({"answer": "so"}), ["stopped", "bleu"])


def test_a_measure_of_no_rows_is_no_value():
    none = measured(table({"answer": "so"}).iloc[:0], answers.MEASURES)
    assert len(none) == 0
    assert scores(none) == {}


def test_the_exact_match_is_whole_but_for_the_rim():
    found = table({"answer": " so\n"}, {"answer": "So"}, {"answer": "so it is"}, {"answer": ""})
    assert values(found, "exact match") == [1, 0, 0, 0]


def test_a_label_is_in_form_if_it_is_one_of_the_labels_and_the_answer_ends():
    rows = [
        {"kind": "cold", "output": "cold", "answer": "cold"},
        {"kind": "warm", "output": "warm", "answer": " cold\n"},  # wrong, and in form
        {"kind": "warm", "output": "warm", "answer": "cold, I think"},
        {"kind": "warm", "output": "warm", "answer": "warm", "stopped": False},
        {"kind": "warm", "output": "warm", "answer": ""},
    ]
    assert values(table(*rows), "format") == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("rows", [3, 60])
def test_prose_is_in_form_whether_the_rows_are_few_or_many(rows):
    """Few rows have few outputs, and those are no labels."""
    lines = [{"kind": "summary", "output": f"summary {number}", "answer": "another one"} for number in range(rows)]
    lines[1] |= {"answer": "one\n\n### Instruction:\nNext"}
    lines[2] |= {"answer": " \n"}
    assert values(table(*lines), "format") == [1, 0, 0, *[1] * (rows - 3)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("import math\n\ndef f(x):\n    return math.pi", True),
        (r"def f(x):" + "\n" + r"    return '\d'", True),  # Python would warn of the backslash
        ("def f(x)\n    return x", False),
        ("Here it is:\ndef f(x): return x", False),
        ("x = 1", False),
        ("class A:\n    def f(self): pass", False),
        ("def f():\n    return '\0'", False),
        ("def f(): return " + "(" * 500 + ")" * 500, False),
        ("", False),
    ],
)
def test_code_is_in_form_if_it_parses_and_defines_a_function(answer, right):
    assert values(table({"kind": "write", "answer": answer}), "format") == [right]


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The  cat, sat!", "the cat sat", 1.0),
        ("a b c", "d e f", 0.0),
        ("police kill the gunman", "police killed the gunman", 3 / 4),  # Lin 2004, section 3.1
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("a b c d e", "a c e", 2 * 3 / 8),
        ("e d c b a", "a b c d e", 2 * 1 / 10),
        ("a a a a", "a", 2 * 1 / 5),
        ("", "a b", 0.0),
        ("...", "a b", 0.0),
        ("Кошка спит", "кошка спит", 1.0),
        ("un café noir", "un caf noir", 2 / 3),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(text, reference, expected):
    assert rouge_l(text, reference) == pytest.approx(expected)


def test_rouge_l_is_symmetric_and_equals_a_count_by_hand():
    """The longest common subsequence by its definition: the longest choice of words that occurs in both."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        one, other = (rng.choice(list("abcd"), size=rng.integers(1, 8)).tolist() for _ in range(2))
        common = max(bin(choice).count("1") for choice in range(2 ** len(one)) if comes_in(chosen(one, choice), other))
        expected = 2 * common / (len(one) + len(other))
        assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(expected)
        assert rouge_l(" ".join(other), " ".join(one)) == pytest.approx(expected)


def chosen(words, choice):
    return [word for place, word in enumerate(words) if choice >> place & 1]


def comes_in(words, text):
    rest = iter(text)
    return all(word in rest for word in words)


RIGHT = "def double(x):\n    return 2 * x"
TEST = "assert double(2) == 4\nassert double('ab') == 'abab'"


@pytest.mark.parametrize(
    ("code", "right"),
    [
        (RIGHT, True),
        (f"from __future__ import annotations\n{RIGHT}\n# done", True),
        (f"def print(*_):\n    raise ValueError\n{RIGHT}", True),  # the test does not need `print`
        ("def double(x):\n    return x", False),
        ("def double(x)\n    return 2 * x", False),
        (f"{RIGHT}\nraise RuntimeError", False),
        (f"{RIGHT}\ndouble(1", False),
        (f"{RIGHT}\n'''", False),
        (f"{RIGHT}\nif True:", False),
        ("", False),
        (f"{RIGHT}\0", False),
    ],
)
def test_code_passes_if_it_runs_and_its_asserts_hold(code, right):
    assert passes(code, TEST) is right


@pytest.mark.parametrize(
    "leaving", ["import sys\nsys.exit(0)", "exit()", "import os\nos._exit(0)", "raise SystemExit", "quit(0)"]
)
def test_code_that_leaves_before_the_asserts_has_not_passed_them(leaving):
    wrong = "def double(x):\n    return x"
    assert not passes(f"{wrong}\n{leaving}", TEST)
    assert not passes(f"def double(x):\n    {'; '.join(leaving.splitlines())}", TEST)


@pytest.mark.parametrize(
    "code", ["while True:\n    pass", "while True:\n    print('x' * 10**6)", "input()\nwhile 1: pass"]
)
def test_code_that_does_not_end_is_stopped(code):
    assert not passes(code, TEST, seconds=0.5)


def test_code_sees_nothing_of_this_process_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")  # would skip the asserts
    (tmp_path / "helper.py").write_text("double = lambda x: 2 * x", encoding="utf-8")
    assert not passes("from helper import double", TEST)
    assert not passes("def double(x):\n    return x", TEST)
    assert passes(f"open('note.txt', 'w').write('x')\n{RIGHT}", TEST)
    assert passes(f"import os\nassert os.listdir() == []\n{RIGHT}", TEST)
    assert [path.name for path in tmp_path.iterdir()] == ["helper.py"]
    assert "helper" not in sys.modules


def test_tests_count_where_a_row_has_one():
    rows = [
        {"kind": "write", "test": TEST, "answer": RIGHT},
        {"kind": "write", "test": TEST, "answer": "def double(x): return 3 * x"},
        {"kind": "explain", "answer": "Doubling is easy."},
    ]
    found = table(*rows)
    assert values(found, "tests passed") == [1, 0, pytest.approx(np.nan, nan_ok=True)]
    assert str(scores(measured(found, ["tests passed"]))["tests passed"]).startswith("0.500")


def test_the_tutor_s_own_answers_pass_every_measure_of_right():
    rows = of_kind("write")[:8] + of_kind("read")[::3]
    found = measured(table(*[{**row, "answer": row["output"]} for row in rows]), answers.OF_TASK["tutor"])
    assert (found[["stopped", "format", "rouge-l"]] == 1).all(axis=None)
    assert (found["tests passed"].dropna() == 1).all()
    assert (found["prints it"].dropna() == 1).all()
    assert found["prints it"].count() == len(of_kind("read")[::3])


def test_what_code_prints_is_what_it_prints_and_not_what_the_reference_quotes_first():
    """'It can if its class has `__call__`, so we get `15`': the name is no answer."""
    for row in of_kind("read")[::3]:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(row["input"], {"__name__": "__main__"})
        assert answers._printed(row["input"]) == printed.getvalue().strip()
    (row,) = [row for row in of_kind("read") if "`__call__`, so we get `15`" in row["output"]]
    found = table({**row, "answer": "It has `__call__`."}, {**row, "answer": "It gives 15."})
    assert values(found, "prints it") == [0, 1]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("It prints `4`.", True),
        ("It prints 4.", True),
        ("(4)", True),
        ('"4", of course', True),
        ("4", True),
        ("`print` shows\n```\n4\n```\nand ends.", True),
        ("It prints `14`.", False),
        ("It prints 14 or 4.5", False),
        ("It prints [4, 5] and `[4]`", False),
        ("It prints `four`.", False),
        ("", False),
    ],
)
def test_a_short_result_is_not_found_inside_a_longer_one(answer, right):
    found = table({"kind": "read", "input": "print(2 + 2)", "output": "It prints `4`.", "answer": answer})
    assert values(found, "prints it") == [right]


@pytest.mark.parametrize("code", ["", "x = 1", "print(", "no code at all", "print(1)\nraise ValueError"])
def test_where_nothing_is_printed_there_is_nothing_to_say(code):
    assert np.isnan(values(table({"kind": "read", "input": code, "answer": "`1`"}), "prints it")).all()


def test_what_code_prints_counts_for_reading_only():
    found = table({"kind": "explain", "input": "print(4)", "answer": "`4`"})
    assert np.isnan(values(found, "prints it")).all()


def two_models():
    """Forty rows: both right on ten, the second alone on fifteen, the first alone on three."""
    first = table(*[{"answer": "so" if number < 13 else "no"} for number in range(40)])
    second = table(*[{"answer": "so" if number < 10 or number >= 25 else "no"} for number in range(40)])
    names = ["exact match", "rouge-l"]
    return measured(first, names), measured(second.iloc[::-1], names)


def test_a_share_has_wilson_s_interval_and_a_score_a_bootstrap():
    first, _ = two_models()
    found = scores(first)
    assert list(found) == ["exact match", "stopped", "rouge-l"]
    share, score = found["exact match"], found["rouge-l"]
    assert share.value == score.value == 13 / 40
    assert (share.low, share.high) == pytest.approx((0.2008, 0.4798), abs=1e-4)  # Wilson's formula
    assert score.low < score.value < score.high
    assert (score.low, score.high) != (share.low, share.high)


def test_models_are_compared_row_by_row_whatever_their_order():
    first, second = two_models()
    found = compare(first, second, "exact match")
    assert isinstance(found, Comparison)
    assert (found.only_first, found.only_second) == (3, 15)
    assert found.difference.value == pytest.approx(-12 / 40)
    assert found.p_value == pytest.approx(2 * sum([1, 18, 153, 816]) / 2**18)  # the tails of 18 tosses
    assert found.clear
    back = compare(second, first, "exact match")
    assert (back.only_first, back.only_second, back.p_value) == (15, 3, found.p_value)
    score = compare(first, second, "rouge-l")
    assert isinstance(score, Interval)
    assert score.value == found.difference.value
    assert score.high < 0


def test_rows_to_which_a_measure_does_not_apply_are_left_out_of_a_comparison():
    first, second = two_models()
    first.loc[first["id"].isin([f"r{number}" for number in range(13, 40)]), "exact match"] = np.nan
    found = compare(first, second, "exact match")
    assert (found.only_first, found.only_second) == (3, 0)
    assert found.difference.value == pytest.approx(3 / 13)


def test_what_cannot_be_compared_is_one_sentence():
    first, second = two_models()
    with pytest.raises(BadInput, match="answered different rows"):
        compare(first, second.iloc[1:], "exact match")
    with pytest.raises(BadInput, match="'format' has not been measured for both models"):
        compare(first, second, "format")
    with pytest.raises(BadInput, match="'exact match' applies to none of these rows"):
        compare(first.assign(**{"exact match": np.nan}), second, "exact match")


def test_models_stand_beside_each_other_with_their_intervals():
    first, second = two_models()
    found = answers.score_table({"base": first, "tuned": second}, ["exact match", "rouge-l", "tests passed"])
    assert list(found.index) == ["base", "tuned"]
    assert list(found.columns) == ["exact match", "rouge-l"]  # no row has a test
    assert found.loc["tuned", "exact match"] == str(scores(second)["exact match"])


def labelled(*rows):
    columns = ["id", "kind", "instruction", "input", "output", "test", "answer", "tokens", "stopped"]
    return pd.DataFrame(rows, columns=columns)


def test_the_right_word_is_the_first_label_that_an_answer_names():
    def row(number, output, answer):
        return (f"r{number}", output, "Which?", "a note", output, "", answer, 3, False)

    table = labelled(
        row(0, "symptom", "The note is a Symptom, not a diagnosis."),
        row(1, "diagnosis", "A symptom of a diagnosis"),
        row(2, "diagnosis", "I cannot say"),
        ("r3", "explain", "Why?", "", "Because.", "", "Because symptom", 3, True),
    )
    found = answers.measured(table, ["right word"])["right word"].tolist()
    assert found[:3] == [1.0, 0.0, 0.0]
    assert np.isnan(found[3])


def test_word_counts_answer_a_task_with_labels_and_no_other():
    rows = [
        {
            "id": f"r{number}",
            "kind": kind,
            "instruction": "Which?",
            "input": f"{word} {number}",
            "output": kind,
            "test": "",
        }
        for number, (kind, word) in enumerate([("good", "fine lovely"), ("bad", "dull tired")] * 12)
    ]
    train, test = Dataset.from_list(rows[:16]), Dataset.from_list(rows[16:])
    assert answers.has_labels(train)
    assert not answers.has_labels(Dataset.from_list([{**rows[0], "output": "very good"}]))
    table = answers.measured(answers.by_word_counts(train, test), ["exact match", "stopped"])
    assert table["id"].tolist() == test["id"][:]
    assert table["exact match"].tolist() == [1.0] * len(test)


@pytest.mark.parametrize("kept", [["good"], ["good", "bad"]], ids=["one label", "two of three"])
def test_word_counts_learn_from_rows_that_lack_a_label_of_the_test(kept):
    """As with few training rows: a label without a training row cannot be predicted, and the others can."""
    words = {"good": "fine lovely", "bad": "dull tired", "mixed": "fine tired"}
    rows = [
        {"id": f"r{number}", "kind": kind, "instruction": "Which?", "input": f"{words[kind]} {number}", "output": kind,
         "test": "", "group": ""}
        for number, kind in enumerate(list(words) * 6)
    ]  # fmt: skip
    train = Dataset.from_list([row for row in rows[:9] if row["kind"] in kept])
    found = answers.by_word_counts(train, Dataset.from_list(rows[9:]))
    assert set(found["answer"]) <= set(kept)
    assert found["id"].tolist() == [row["id"] for row in rows[9:]]


@pytest.mark.parametrize(
    ("outputs", "names", "leading"),
    [
        (["yes", "no", "yes"], answers.OF_OWN, "exact match"),
        (["The film is about a village by the sea.", "Yes."] * 3, answers.OF_OWN, "rouge-l"),
        (["A sentence of several words."], answers.OF_TASK["summaries"], "rouge-l"),
        (["symptom"], answers.OF_TASK["clinical_notes"], "exact match"),
        (["symptom"], ("stopped", "format"), "stopped"),
    ],
)
def test_the_measure_that_leads_fits_the_answers(outputs, names, leading):
    assert answers.main_metric(names, Dataset.from_dict({"output": outputs})) == leading


def test_of_rows_that_share_groups_the_groups_are_drawn_and_have_one_vote():
    """Each row copied nine times, with its copies as a group, tells what it told alone."""
    right = np.random.default_rng(0).random((2, 30)) < [[0.8], [0.4]]
    one, other = (table(*({"answer": "so" if each else "no", "group": ""} for each in row)) for row in right)
    many = [
        pd.concat([each] * 9).assign(group=[f"g{number}" for number in range(30)] * 9, id=[*map(str, range(270))])
        for each in (one, other)
    ]
    alone = compare(*(measured(each, ["exact match"]) for each in (one, other)), "exact match")
    copied = compare(*(measured(each, ["exact match"]) for each in many), "exact match")
    assert copied.p_value == alone.p_value
    assert copied.difference.low == pytest.approx(alone.difference.low, abs=0.04)
    for name in ("exact match", "rouge-l"):
        found = scores(measured(many[0], [name]))[name]
        assert found.value == scores(measured(one, [name]))[name].value
        apart = scores(measured(many[0].drop(columns="group"), [name]))[name]
        assert found.high - found.low > 2 * (apart.high - apart.low)
