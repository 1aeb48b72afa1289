"""When a longer prompt has cost more than a training: arithmetic, and its words."""

import math

import pandas as pd
import pytest

from ftlab.course import advice
from ftlab.errors import BadInput
from ftlab.evaluation import costs


def test_a_training_pays_once_its_seconds_are_saved():
    found = costs.measured(90, longer_seconds=0.7, shorter_seconds=0.4)
    assert found.questions == pytest.approx(300)
    assert found.a_day == pytest.approx(10)
    assert costs.measured(90, longer_seconds=0.7, shorter_seconds=0.4, days=2).a_day == pytest.approx(150)


def test_the_sentence_rounds_up_to_whole_questions():
    said = str(costs.BreakEven(questions=1234.2, days=7))
    assert said == (
        "after 1,235 questions the longer prompt has cost more time than the training; that is 177 a day, if the "
        "model is trained anew every 7 days"
    )


@pytest.mark.parametrize("longer", [0.4, 0.1])
def test_a_longer_prompt_that_is_no_slower_never_costs_more(longer):
    found = costs.measured(90, longer_seconds=longer, shorter_seconds=0.4)
    assert found.questions == found.a_day == math.inf
    assert "never costs more" in str(found)


def test_a_training_that_took_no_time_pays_at_once():
    assert costs.measured(0, longer_seconds=0.7, shorter_seconds=0.4).questions == 0


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"training_seconds": -1.0}, "training_seconds is -1.0; expected a number of seconds, 0 or more"),
        ({"longer_seconds": math.nan}, "longer_seconds is nan; expected a number of seconds, 0 or more"),
        ({"shorter_seconds": math.inf}, "shorter_seconds is inf; expected a number of seconds, 0 or more"),
        ({"days": 0}, "days is 0; expected a number of days above 0"),
    ],
)
def test_impossible_costs_are_refused(given, wanted):
    with pytest.raises(BadInput, match=f"^{wanted}$"):
        costs.measured(**{"training_seconds": 1.0, "longer_seconds": 1.0, "shorter_seconds": 0.5, **given})


def test_the_advice_counts_flops_by_the_same_rule():
    line = advice.break_even(rows=1000, questions_a_day=30).loc["few-shot prompt, same model"]
    longer, shorter = line["TFLOPs a question"], line["of the trained model"]
    assert line["questions"] == pytest.approx(
        costs.break_even(900 * (longer - shorter), longer=longer, shorter=shorter)
    )


def test_a_question_costs_the_mean_over_its_rows():
    tables = {
        "tuned": pd.DataFrame({"prompt_tokens": [10, 20], "tokens": [1, 3]}),
        "3 examples": pd.DataFrame({"prompt_tokens": [50, 60], "tokens": [2, 2]}),
    }
    found = costs.per_question(tables, {"tuned": 1.0, "3 examples": 3.0})
    assert found.index.tolist() == ["tuned", "3 examples"]
    assert found.loc["tuned"].tolist() == [15, 2, 0.5]
    assert found.loc["3 examples", "seconds"] == 1.5
