import dataclasses
import itertools
import math
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ftlab.course import advice, bench
from ftlab.course.advice import APPROACHES, VERDICTS, advise
from ftlab.errors import BadInput
from tests.nightly import few_by_day

CASES = tomllib.loads((Path(__file__).parent / "advice_cases.toml").read_text(encoding="utf-8"))["case"]
RULES = advice._rules_file()["rule"]


def ranks(case, **changed):
    """The verdict on each approach as a number, without the tables of `advise`."""
    case = dataclasses.replace(case, **changed)
    return {approach: VERDICTS.index(advice._lowest(advice._applying(case, approach))) for approach in APPROACHES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_case_gets_the_verdicts_that_its_source_gives(case):
    found = advise(**case["given"])
    assert found.first == case["first"], case["because"]
    assert found.table()["verdict"][list(case["expect"])].to_dict() == case["expect"], case["because"]


def test_the_cases_are_named_once_and_say_why():
    assert len({case["name"] for case in CASES}) == len(CASES) >= 25
    assert all(case["because"] and case["expect"] for case in CASES)


def test_every_rule_is_used_by_a_case():
    used = {rule for case in CASES for _, rule in advise(**case["given"]).rules.index}
    assert used == {rule["id"] for rule in RULES}


def test_each_rule_has_words_a_condition_a_source_and_known_names():
    assert [rule["id"] for rule in RULES] == list(advice.CONDITIONS)
    for rule in RULES:
        assert rule.keys() == {"id", "when", "approaches", "effect", "because", "why", "source"}
        assert all(rule.values())
        assert set(rule["approaches"]) <= set(APPROACHES)
        assert rule["effect"] in VERDICTS
        assert rule["source"].startswith(("Tutorial A", "Tutorial B", "Lesson 0", "Ovadia", "Dettmers", "Kaplan"))


def sections(repository):
    import json

    return {
        path.name[:2]: {
            line.lstrip("# ").strip()
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "markdown"
            for line in "".join(cell["source"]).splitlines()
            if line.startswith("#")
        }
        for path in (repository / "notebooks").glob("0*.ipynb")
    }


def test_the_sections_of_lessons_that_sources_name_exist(repository):
    import re

    there = sections(repository)
    named = [
        (lesson, section)
        for text in [rule["source"] for rule in RULES] + list(advice.clashes()["by"])
        for lesson, quoted in re.findall(r"[Ll]esson (0\d), ((?:\"[^\"]+\"(?: and )?)+)", text)
        for section in re.findall(r"\"([^\"]+)\"", quoted)
    ]
    assert len(named) >= 20
    for lesson, section in named:
        assert section in there[lesson], f"lesson {lesson} has no section {section!r}"


GRID = [
    {"task": task, "rows": rows, "model_parameters": parameters, "gpu_gb": gpu, "memory_gb": memory,
     "knowledge_changes": changes, "format_matters": form, "questions_a_day": questions, "many_tasks": many,
     "prompt_reaches": reaches, "wanted": wanted, "classes": classes}
    for task, classes in (("classification", 2), ("classification", 20), ("generation", 2), ("documents", 2))
    for rows in (0, 1, 9, 10, 99, 100, 199, 200, 499, 500, 999, 1000, 10_001)
    for parameters, gpu, memory in ((None, 0, None), (2.78e9, 8, 16), (7.24e9, 8, None), (3e8, 0, 2))
    for changes, form, many in itertools.product((False, True), repeat=3)
    for questions in (None, 10**6)
    for reaches, wanted in ((None, None), (None, 0.9), (0.5, None), (0.5, 0.9), (0.9, 0.5))
]  # fmt: skip


# each value of each argument occurs: the steps are primes
ADVISED = [advise(**given) for given in GRID[::499]]
SOME = [advise(**given).case for given in GRID[::613]]
ROWS = (0, 1, 2, 19, 20, 99, 100, 199, 200, 499, 500, 999, 1000, 5000, 10_001, 10**6)


def test_everything_that_can_be_asked_gets_a_verdict_and_a_reason_for_each_approach():
    for found in ADVISED:
        table = found.table()
        assert set(table.index) == set(APPROACHES)
        assert table["because"].str.len().min() > 10
        assert not table["because"].str.contains("nan|None|{", regex=True).any(), found.case
        ordered = [VERDICTS.index(verdict) for verdict in table["verdict"]]
        assert ordered == sorted(ordered, reverse=True)
        assert (found.first == advice.SET_THE_BAR) == found.case.no_bar
        if not found.case.no_bar:
            nothing = ordered[0] < VERDICTS.index("possible")
            assert found.first == (advice.COLLECT_ROWS if nothing else table.index[0])


def test_the_lowest_verdict_of_the_rules_that_apply_holds():
    for found in ADVISED[::3]:
        lowest = found.rules["effect"].map(VERDICTS.index).groupby(level="approach").min()
        assert found.table()["verdict"].map(VERDICTS.index).sort_index().equals(lowest.sort_index())


def test_more_rows_never_make_full_fine_tuning_a_worse_choice():
    for case in SOME:
        found = [ranks(case, rows=rows)["full fine-tuning"] for rows in ROWS]
        assert found == sorted(found), case


def test_other_work_never_makes_full_fine_tuning_more_advisable_nor_lora_less():
    for case in SOME:
        without, found = ranks(case), ranks(case, other_work=True)
        assert found["full fine-tuning"] <= without["full fine-tuning"], case
        assert found["LoRA"] >= without["LoRA"], case


def test_rows_that_nobody_checked_recommend_nothing_that_uses_them():
    for case in SOME:
        without, found = ranks(case), ranks(case, rows_by_a_model=True)
        uses = set(APPROACHES) - {"prompting", "RAG"} if case.rows else set()
        for approach in APPROACHES:
            most = VERDICTS.index("possible") if approach in uses else len(VERDICTS)
            assert found[approach] == min(without[approach], most), (case, approach)


def test_more_rows_never_make_the_best_training_worse():
    for case in [
        *SOME,
        *(dataclasses.replace(case, other_work=True) for case in SOME if not case.labels),
        advise(task="generation", rows=1, model_parameters=7e9, gpu_gb=200, format_matters=True).case,
    ]:
        found = [max(ranks(case, rows=rows)[approach] for approach in advice.TRAINED) for rows in ROWS]
        assert found == sorted(found), case


def test_more_classes_never_make_training_more_advisable():
    for case in (case for case in SOME if case.labels):
        found = [
            max(ranks(case, classes=classes)[approach] for approach in advice.TRAINED) for classes in (2, 3, 20, 500)
        ]
        assert found == sorted(found, reverse=True), case


@pytest.mark.parametrize("what", ["gpu_gb", "memory_gb"])
def test_more_memory_never_rules_an_approach_out(what):
    for case in SOME:
        found = [ranks(case, **{what: gb}) for gb in (0, 2, 3, 8, 16, 80, 1000)]
        for approach in APPROACHES:
            ruled_out = [one[approach] == 0 for one in found]
            assert ruled_out == sorted(ruled_out, reverse=True), (case, approach)


def test_a_better_prompt_never_makes_training_more_advisable():
    for case in SOME:
        found = [ranks(case, wanted=0.8, prompt_reaches=reached) for reached in (0.0, 0.5, 0.8, 1.0)]
        for approach in advice.TRAINED:
            verdicts = [one[approach] for one in found]
            assert verdicts == sorted(verdicts, reverse=True), (case, approach)


def test_more_questions_never_make_training_less_advisable():
    for case in SOME:
        found = [ranks(case, questions_a_day=asked) for asked in (None, 0, 29, 30, 10**9)]
        for approach in advice.TRAINED:
            verdicts = [one[approach] for one in found]
            assert verdicts == sorted(verdicts), (case, approach)


def test_no_approach_is_put_first_for_a_reason_against_it():
    """Above 100 rows a few-shot prompt uses some of them; RAG without missing facts is a guess."""
    for case in SOME:
        order = sorted(APPROACHES, key=lambda approach: advice._turn(case, approach))
        if case.rows > advice.bounds()["frozen"]:
            assert order.index("few-shot prompting") > max(order.index(name) for name in ("frozen features", "LoRA"))
        assert order[-1] == "RAG" or case.facts


def test_a_gpu_that_is_just_too_small_says_how_much_of_it_is_usable():
    found = advise(task="generation", rows=5000, model_parameters=7.24e9, gpu_gb=16, memory_gb=8)
    assert found.table()["because"]["LoRA"].startswith("needs about 16.0 GB (here: a GPU of 16 GB, 14.4 of them usable")


def test_only_reasons_that_were_given_are_given_back():
    for task in ("generation", "documents"):
        found = advise(task=task, rows=5000)
        assert not found.table()["because"].str.contains("questions a day").any()
    large = advise(task="generation", rows=5000, model_parameters=7e9, gpu_gb=24, questions_a_day=1000)
    assert not large.table()["because"].str.contains("questions a day").any()
    small = advise(task="generation", rows=5000, questions_a_day=1000)
    assert "with 1,000 questions a day, a small trained model" in small.table()["because"]["full fine-tuning"]


@pytest.mark.parametrize(
    ("given", "approach", "said"),
    [
        ({"rows": 0}, "LoRA", "no rows: nothing to train on"),
        ({"rows": 1}, "LoRA", "1 row: nothing to train on"),
        ({"rows": 1}, "few-shot prompting", "1 example fits into a prompt"),
        ({"rows": 2}, "few-shot prompting", "2 examples fit into a prompt"),
        ({"rows": 50, "classes": 77}, "LoRA", "50 rows of 77 classes: at least one class has no row"),
        ({"rows": 10**7}, "frozen features", "a cheap bar: one pass over the rows; .* with 10,000,000 rows"),
        ({"rows": 300, "model_parameters": 7e9, "memory_gb": 64}, "frozen features",
         "one pass over 300 rows takes about 3 hours without a GPU"),
    ],
    ids=str,
)  # fmt: skip
def test_a_reason_says_the_rows_in_words(given, approach, said):
    import re

    assert re.search(said, advise(task="classification", **given).table()["because"][approach])


def test_a_bar_that_is_missing_is_the_first_step_and_is_shown_as_such():
    found = advise(task="classification", rows=2000, prompt_reaches=0.5)
    assert found.first == advice.SET_THE_BAR
    assert repr(found).splitlines()[0] == "First: set the bar: say what is good enough (`wanted`), and ask again."
    assert "<b>set the bar</b>: say what is good enough" in found._repr_html_()
    assert advise(task="classification", rows=2000, prompt_reaches=0.5, wanted=0.9).first == "full fine-tuning"


@pytest.mark.parametrize("on_gpu", [True, False])
def test_features_of_a_frozen_model_never_need_more_memory_than_lora(on_gpu):
    for case in SOME:
        assert case.needed("frozen features", on_gpu=on_gpu) <= case.needed("LoRA", on_gpu=on_gpu)


def test_the_same_question_gets_the_same_answer():
    one, other = (advise(**CASES[7]["given"]) for _ in range(2))
    assert one.table().equals(other.table())
    assert one.rules.equals(other.rules)


def test_an_answer_cannot_be_changed_from_outside():
    found = advise(task="generation", rows=10)
    table = found.table()
    table.loc["LoRA", "verdict"] = "recommended"
    assert found.table()["verdict"]["LoRA"] == "not now"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.first = "LoRA"


def test_an_answer_is_shown_as_text_and_as_html():
    found = advise(task="classification", rows=2000)
    assert repr(found).splitlines()[0] == "First: prompting."
    assert len(repr(found).splitlines()) == 1 + len(APPROACHES)
    assert found._repr_html_().count("<tr") == 1 + len(APPROACHES)
    assert "{" not in repr(found) + found._repr_html_()


def test_numpy_s_numbers_are_numbers():
    plain = advise(task="classification", rows=700, gpu_gb=8, prompt_reaches=0.5, wanted=0.9, format_matters=True)
    given = {"rows": np.int64(700), "gpu_gb": np.float32(8), "prompt_reaches": np.float64(0.5), "wanted": 0.9}
    assert advise(task="classification", format_matters=np.True_, **given).table().equals(plain.table())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": -1}, "rows is -1; expected a whole number, 0 or more"),
        ({"rows": 2.5}, "rows is 2.5; expected a whole number"),
        ({"rows": 1000.0}, "rows is 1000.0; expected a whole number"),
        ({"rows": math.nan}, "rows is nan; expected a whole number"),
        ({"rows": "1000"}, "rows is '1000'; expected a whole number"),
        ({"rows": True}, "rows is True; expected a whole number"),
        ({"rows": None}, "rows is None; expected a whole number"),
        ({"rows": 10**400}, "rows is 1000.*; expected a whole number, 0 or more .at most a trillion"),
        ({"task": "translation"}, "task is 'translation'; expected one of classification, generation, documents"),
        ({"task": ["generation"]}, r"task is \['generation'\]; expected one of"),
        ({"task": None}, "task is None; expected one of"),
        ({"gpu_gb": -8}, "gpu_gb is -8; expected a number of GB from 0 to 2000: give 0 for no GPU"),
        ({"gpu_gb": 8192}, "gpu_gb is 8192; .*write 8 for 8192 MB"),
        ({"gpu_gb": math.inf}, "gpu_gb is inf; expected a number of GB"),
        ({"gpu_gb": "8"}, "gpu_gb is '8'; expected a number of GB"),
        ({"gpu_gb": None}, "gpu_gb is None; expected a number of GB .*give 0 for no GPU"),
        ({"gpu_gb": True}, "gpu_gb is True; expected a number of GB"),
        ({"gpu_gb": 10**400}, "gpu_gb is 1000.*; expected a number of GB"),
        ({"memory_gb": -1}, "memory_gb is -1; expected a number of GB .*give None if you do not know it"),
        ({"memory_gb": math.nan}, "memory_gb is nan; expected a number of GB"),
        ({"memory_gb": 16384}, "memory_gb is 16384; .*write 8 for 8192 MB"),
        ({"model_parameters": 7}, "model_parameters is 7, too few .*write 7e9 if you meant 7 billion, 7e6 if"),
        ({"model_parameters": 2.7}, "model_parameters is 2.7, too few .*write 2.7e9"),
        ({"model_parameters": 0}, "model_parameters is 0; expected a number of parameters from 10000 to 1e.14"),
        ({"model_parameters": -7e9}, "model_parameters is -7000000000.0; expected a number of parameters"),
        ({"model_parameters": math.nan}, "model_parameters is nan; expected a number of parameters"),
        ({"model_parameters": 1e15}, "model_parameters is 1000000000000000.0; expected a number of parameters"),
        ({"model_parameters": "7B"}, "model_parameters is '7B'; .*write 2.7e9 for 2.7 billion"),
        ({"model_parameters": True}, "model_parameters is True; expected a number of parameters"),
        ({"questions_a_day": -1}, "questions_a_day is -1; expected a whole number, 0 or more"),
        ({"questions_a_day": 0.5}, "questions_a_day is 0.5; expected a whole number"),
        ({"questions_a_day": False}, "questions_a_day is False; expected a whole number"),
        ({"prompt_reaches": 90}, "prompt_reaches is 90; expected a share from 0 to 1: write 0.9 for 90 %"),
        ({"prompt_reaches": -0.1}, "prompt_reaches is -0.1; expected a share from 0 to 1: give None"),
        ({"prompt_reaches": math.nan}, "prompt_reaches is nan; expected a share"),
        ({"prompt_reaches": True}, "prompt_reaches is True; expected a share"),
        ({"wanted": 1.01}, "wanted is 1.01; expected a share from 0 to 1: write 0.0101 for 1.01 %"),
        ({"wanted": "high"}, "wanted is 'high'; expected a share"),
        ({"knowledge_changes": "no"}, "knowledge_changes is 'no'; expected True or False"),
        ({"format_matters": 1}, "format_matters is 1; expected True or False"),
        ({"classes": 1}, "classes is 1; expected a whole number, 2 or more"),
        ({"classes": 2.5}, "classes is 2.5; expected a whole number"),
        ({"classes": None}, "classes is None; expected a whole number"),
        ({"classes": 5}, "classes is 5, and the task is 'generation'; .* leave classes out"),
        ({"many_tasks": None}, "many_tasks is None; expected True or False"),
        ({"other_work": "yes"}, "other_work is 'yes'; expected True or False"),
        ({"rows_by_a_model": 1}, "rows_by_a_model is 1; expected True or False"),
    ],
    ids=str,
)
def test_an_impossible_value_is_refused_in_one_sentence(given, said):
    with pytest.raises(BadInput, match=said) as raised:
        advise(**({"task": "generation", "rows": 100} | given))
    assert "\n" not in str(raised.value)


def test_a_training_pays_back_by_the_arithmetic_that_it_states():
    found = advice.break_even(
        rows=1000, questions_a_day=30, model_parameters=1e8, prompted_parameters=1e9, examples=10, tokens_a_row=100,
        epochs=3,
    )  # fmt: skip
    few_shot, larger = (found.loc[name] for name in ("few-shot prompt, same model", "larger model, short prompt"))
    # 6 * 1e8 * 1000 * 100 * 3 FLOPs of training; 2 * 1e8 * 100 of an answer, ten times as many more with ten examples
    assert few_shot["of the trained model"] == pytest.approx(0.02)
    assert few_shot["TFLOPs a question"] == pytest.approx(0.22)
    assert few_shot["questions"] == pytest.approx(180 / 0.2)
    assert larger["questions"] == pytest.approx(180 / (0.2 - 0.02))
    assert few_shot["days"] == pytest.approx(30)


def test_the_bound_of_often_is_a_month_by_that_arithmetic():
    found = advice.break_even(rows=1000, questions_a_day=advice.bounds()["often"])
    assert found["days"]["few-shot prompt, same model"] == pytest.approx(30, abs=0.5)


def test_a_training_never_pays_back_where_nothing_is_saved_or_asked():
    assert advice.break_even(rows=1000, examples=0)["questions"].iloc[0] == math.inf
    assert advice.break_even(rows=1000, model_parameters=7e9, prompted_parameters=7e9)["questions"].iloc[1] == math.inf
    assert (advice.break_even(rows=1000, questions_a_day=0)["days"] == math.inf).all()


@pytest.mark.parametrize(
    "given",
    [{"rows": 0}, {"epochs": 0}, {"tokens_a_row": -1}, {"examples": 1.5}, {"prompted_parameters": 8}, {"rows": True}],
    ids=str,
)
def test_break_even_refuses_impossible_values(given):
    with pytest.raises(BadInput, match=f"{next(iter(given))} is "):
        advice.break_even(**({"rows": 1000} | given))


def test_each_clash_names_two_rules_how_it_is_settled_and_a_bound():
    found = advice.clashes()
    assert list(found.columns) == ["one", "other", "clash", "settled", "by", "bound"]
    assert "rows_for_full_fine_tuning" in found.index
    assert set(found["bound"]) <= advice.bounds().keys()


def test_the_measurement_settles_the_clash_as_the_rules_say():
    """If the benchmark is run again and says otherwise, the rules have to change, and this test says so."""
    found = advice.settled_by_measurement()
    at_bound = found.loc[found.index[found.index >= advice.bounds()["full"]].min()]
    assert at_bound["low"] > 0  # no frozen backbone is clearly better, and the mean is lower
    assert found["clear"].iloc[-1]  # with the most rows the lead is clear, after the correction of lesson 03
    assert (found["full - best frozen backbone"] > 0).all()
    assert found["full - best frozen backbone"].is_monotonic_increasing  # and more so with more rows
    fewest = found.iloc[0]
    assert fewest["best frozen backbone"] == "sentence vectors"
    assert fewest["full"] - fewest["sentence vectors"] < 0.05 < fewest["full"] - fewest["head only"]


def test_full_fine_tuning_beats_every_way_of_freezing_and_nothing_is_clearly_better():
    from ftlab.evaluation import seed_comparison

    runs = pd.DataFrame(bench.stored("freezing_scores")["result"]["runs"])
    gaps = seed_comparison.gaps(runs, against="all of it")
    trains_all = ["gradual unfreezing", "layer-wise rates"]
    freezing = gaps[~gaps["model"].isin([*trains_all, "TF-IDF"])]
    assert set(freezing["model"]) == {
        "first 4 frozen", "first 5 frozen", "first 6 frozen", "head only", "sentence vectors", "first-token vectors"
    }  # fmt: skip
    assert (freezing["gap"] < 0).all()
    assert not ((gaps["gap"] > 0) & gaps["clear"]).any()
    settled = advice.clashes().loc["rows_for_full_fine_tuning", "settled"]
    assert "a better mean than every way of freezing, and at no size is any other way clearly better" in settled


def test_the_measurement_is_computed_from_the_runs():
    runs = pd.DataFrame(bench.stored("freezing_scores")["result"]["runs"])
    found = advice.settled_by_measurement()
    rows = found.index[0]
    mean = runs[(runs["rows"] == rows) & (runs["model"] == "all of it")]["f1_macro"].mean()
    assert found["full"].iloc[0] == pytest.approx(mean)
    scores = {"head only": 0.5, "sentence vectors": 0.6, "first 4 frozen": 0.6, "all of it": 0.8}
    made_up = [
        {"model": model, "rows": 100, "seed": seed, "f1_macro": score + seed / 100 * (model == "all of it")}
        for model, score in scores.items()
        for seed in range(3)
    ]
    line = advice.settled_by_measurement({"runs": made_up}).loc[100]
    assert line["full - best frozen backbone"] == pytest.approx(0.21)
    assert line["low"] == pytest.approx(0.21 - 4.3027 * 0.01 / 3**0.5, abs=1e-4)
    assert (line["seeds"], line["best frozen backbone"]) == (3, "sentence vectors")


@pytest.mark.parametrize("device", few_by_day(["cpu", "cuda"], "cpu"))
def test_the_memory_of_the_rules_agrees_with_the_table_of_what_fits(device):
    """The quick rule says hardly less than `footprint.estimate` counts, and not much more, from MiniLM to 7B."""
    from ftlab.course import fits
    from ftlab.memory import meta_models

    for model in fits.MODELS:
        config = meta_models.config_of(model)
        parameters = sum(each.numel() for each in meta_models.build(config, "float32").parameters())
        task = "classification" if model in ("minilm", "distilbert-base-uncased") else "generation"
        case = advise(task=task, rows=1000, model_parameters=parameters).case
        for method, approach in (("full", "full fine-tuning"), ("lora", "LoRA"), ("qlora", "QLoRA")):
            half = device == "cuda" and method != "full"
            counted = fits.by_layers(
                config, method=method, batch_size=4, length=256, device=device, checkpointing=case.large,
                dtype="bfloat16" if half else "float32",
            )  # fmt: skip
            ratio = case.needed(approach, on_gpu=device == "cuda") / (counted.total / 1e9)
            assert 0.85 < ratio < 1.3, (model, method, ratio)


def test_the_memory_that_is_named_is_that_of_the_machine_that_decided():
    case = {"task": "generation", "rows": 500, "gpu_gb": 2, "memory_gb": 4.2, "format_matters": True,
            "prompt_reaches": 0.2, "wanted": 0.9}  # fmt: skip
    found = advice.advise(**case)
    needed = {approach: found.case.needed(approach, on_gpu=False) for approach in ("LoRA", "full fine-tuning")}
    assert found.case.on_cpu("LoRA")
    assert not found.case.on_gpu("LoRA")  # too small, so the CPU decides
    assert not found.case.on_cpu("full fine-tuning")
    for approach, gb in needed.items():
        assert f"{gb:.1f} GB" in " ".join(map(str, found.judged.loc[approach])), approach
