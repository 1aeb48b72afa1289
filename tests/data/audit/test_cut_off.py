"""Answers that end in the middle are found; labels, lists, code and a style without full stops are left alone."""

import numpy as np
import pandas as pd
import pytest

from ftlab.data import sources, tasks
from ftlab.data.audit import audit_instructions
from ftlab.data.audit.cut_off import cut_off, sure_sign

from .planted import changed, pairs

CUT = [
    "Let the dough rise in a warm place, then knead it, shape it, and",
    "1. Mix it\n2. Knead it\n3. Bake the dough in the",
    "The three steps are to mix, to knead, to rest,",
    "It takes about an hour (or longer in a cold",
    'She answered, "I will come as soon as the',
    "The rules of the house are strict, and all guests are infor-",
    "Here is the function:\n```python\ndef add(a, b):\n    return a",
    "def add(a, b):\n    total = (a +",
    "def add(a, b):",
    "for name in names:",
    "function add(a, b) {\n  return a + b;",
    '{"name": "Ada", "born": 18',
    '[{"name": "Ada"}, {"name":',
    "1. Eggs\n2.",
    "Here are three reasons:\n\n1.",
    "- apples\n- ",
    "The main causes are:",
    'print("hello',
    "$$\\frac{1}{2",
    "\\begin{align} x = 2",
    "The first step is **mix",
    "Er sagte: „Guten Tag, wie geht es",
    "Hun sagde: »Det er godt nok og så",
]
WHOLE = [
    "positive", "yes", "42", "Paris", "the", "", " ", "and", "New York, NY", "a, b, c,",
    "red, green and blue", "- flour\n- water\n- salt", "1. Mix it\n2. Knead it\n3. Bake it",
    "https://example.org/a/long/path?with=query", "See https://example.org/the",
    "def add(a, b):\n    return a + b", "x = [1, 2]\nprint(x[0])", 'text = "né"\nprint(len(text.encode("utf-8")))',
    "if x:\n    print(1)", '{"name": "Ada", "born": 1815}', "[1, 2, 3]", '["a", "b"]',
    "Use this:\n```python\nprint(1)\n```", "We meet at noon, as agreed.\n\nKind regards,\nAnna",
    "We meet at noon, as agreed.\n\nWith kind regards,", "I loved it, all of it, to the end :(",
    "It fits (it really does).",    'He said "never" and left.', "He is 6'2\" tall and plays in the first team",
    "我明天早上九点来。", "वह कल सुबह आएगा।",    "هل ستأتي غدا؟", "**Done, and it works as you wanted it to.**",
    "Er sagte: „Guten Tag, wie geht es Ihnen?“", "»Das ist gut so, wie es ist.«",
    "Sie rief „Halt“ und lief los, ohne zu warten.", "Hun sagde: »Det er godt nok.«",
    "Han sa: ”Det är bra som det är.”", "Il a dit : « Oui, demain matin. »",
    "The half-open interval is [0, 1)", "All numbers in (0, 1] are fine for this", "Use [ to open a list",
    "Press Ctrl+[ to go back", "Match it with `^[(]\\d+` and go on", "```inline``` is one way to write code in a line.",
    "The result of the sum is:\n\n42.", "Pass the rest as **kwargs to the function.", "It costs $$ to eat here, I fear",
    "Blood group A-", "I waited for the bus and it never came",
]  # fmt: skip


@pytest.mark.parametrize("answer", CUT)
def test_an_end_that_is_wrong_in_any_text_is_found(answer):
    assert sure_sign(answer)


@pytest.mark.parametrize("answer", WHOLE)
def test_a_whole_answer_of_any_kind_is_left_alone(answer):
    assert cut_off([answer]) == [""]


def sentences(rows: int = 100) -> list[str]:
    return [f"{text.rstrip('.!?')}." for text in sources.read("mini_reviews")["text"] if len(text.split()) >= 10][:rows]


def test_a_missing_full_stop_is_found_where_the_other_answers_have_one():
    answers = sentences()
    answers[7] = answers[7].rstrip(".")
    found = cut_off(answers)
    assert [place for place, why in enumerate(found) if why] == [7]
    assert found[7] == "no punctuation at the end"


def test_answers_that_never_end_with_a_full_stop_are_left_alone():
    assert not any(cut_off([answer.rstrip(".") for answer in sentences()]))


def test_a_style_in_which_some_answers_have_no_full_stop_is_left_alone():
    assert not any(cut_off([answer.rstrip("." if place % 5 == 2 else "") for place, answer in enumerate(sentences())]))


@pytest.mark.parametrize(
    "of_a_script", ["ไม่มีจุดท้ายประโยคในภาษาไทยและก็ไม่จำเป็นต้องมี", "これは日本語の文章でありとても長い文です"]
)
def test_other_scripts_have_rules_of_their_own(of_a_script):
    assert not any(cut_off([*sentences(), of_a_script]))


def test_labels_among_sentences_are_left_alone():
    assert not any(cut_off([*sentences(), "positive", "chronic obstructive pulmonary disease", "Paris", "17"]))


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_answers_cut_at_a_random_word_are_found_though_they_are_many(share):
    rng, answers = np.random.default_rng(0), sentences()
    places = rng.choice(len(answers), int(share * len(answers)), replace=False)
    for place in places:
        words = answers[place].split()
        answers[place] = " ".join(words[: int(rng.integers(8, len(words)))]).rstrip(".!?;:")
    found = {place for place, why in enumerate(cut_off(answers)) if why}
    assert len(found & {*places}) >= 0.9 * len(places)
    assert found <= {*places}


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_rows_of_the_course_have_no_cut_answer_and_no_refusal(task):
    rows = tasks.read(task)
    frame = pd.DataFrame({"id": rows["id"], "prompt": rows["instruction"] + "\n" + rows["input"]})
    report = audit_instructions(frame.assign(completion=rows["output"]))
    assert not {"cut_off_answer", "refusal", "contradicting_answers"} & {found.id for found in report.findings}


def test_texts_that_people_wrote_in_a_hurry_are_no_cut_answers():
    assert not any(cut_off(sources.read("tickets")["text"].tolist()))


def test_the_evidence_has_the_end_of_the_answer_without_personal_data():
    said = "Write to jo.doe@example.com or call the office, and"
    found = audit_instructions(changed(pairs(), "completion", {5: said}))["cut_off_answer"]
    assert found.evidence[["id", "why"]].values.tolist() == [["r5", "'and' at the end"]]
    assert found.evidence["end"][0].endswith("the office, and")
    assert "doe@example" not in found.evidence["end"][0]


@pytest.mark.parametrize(
    "answer", ["Bitte geben Sie die Anzahl der Tage und die Uhrzeit an", "Le train est en or, et le bouton est en or"]
)
def test_an_english_word_at_the_end_of_another_language_is_no_sign(answer):
    assert sure_sign(answer) == ""
    assert sure_sign("This is the end of an") == "'an' at the end"
