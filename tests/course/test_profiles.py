import pytest

from ftlab.course import lessons, profiles
from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.models import loading

LESSONS = ["data_audit", "text_classification"]


def refusal(lesson="text_classification", profile="smoke", **overrides) -> str:
    with pytest.raises(BadInput) as raised:
        profiles.resolve(lesson, profile, overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_every_lesson_has_a_budget_in_every_profile_with_the_same_names():
    assert sorted(profiles.table()) == sorted(lesson.slug for lesson in lessons.lessons()) == sorted(LESSONS)
    for lesson, budgets in profiles.table().items():
        assert list(budgets) == list(profiles.PROFILES), lesson
        assert len({tuple(budget) for budget in budgets.values()}) == 1, lesson


def test_every_budget_keeps_to_its_own_rules():
    for lesson, budgets in profiles.table().items():
        for profile, budget in budgets.items():
            for name, value in budget.items():
                if not (name in ("rows", "test_rows") and value == 0):  # all that there are
                    assert profiles.PARAMETERS[name].parse(name, value) == value, (lesson, profile)
            assert budget["dataset"] in sources.SOURCES
            assert budget["model"] in loading.MODELS


def test_only_the_gpu_profile_needs_the_hub_and_only_cpu_the_packages():
    for lesson in LESSONS:
        needs = {profile: profiles.resolve(lesson, profile) for profile in profiles.PROFILES}
        assert {profile: budget.needs_hub for profile, budget in needs.items()} == {
            "smoke": False,
            "cpu": False,
            "gpu": True,
        }
        assert needs["smoke"].assets == []
        assert set(needs["cpu"].assets) == {"movie-reviews", "minilm"}


def test_none_means_as_the_profile_says():
    plain = profiles.resolve("text_classification", "smoke", {"rows": None, "seed": 3})
    assert plain.rows == profiles.table()["text_classification"]["smoke"]["rows"]
    assert (plain.seed, plain.overrides) == (3, {})


@pytest.mark.parametrize("value", ["2e-5", 2e-5, "0.00002"])
def test_a_learning_rate_is_a_number_however_it_was_written(value):
    assert profiles.resolve("text_classification", "smoke", {"learning_rate": value}).learning_rate == 2e-5


@pytest.mark.parametrize("value", [400, "400", 400.0])
def test_a_whole_number_may_come_as_text_or_float(value):
    assert profiles.resolve("text_classification", "smoke", {"rows": value}).rows == 400


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rows": 0}, "rows is 0; expected at least 1"),
        ({"rows": -5}, "rows is -5; expected at least 1"),
        ({"rows": 2.5}, "rows is 2.5; expected a whole number"),
        ({"rows": "many"}, "rows is 'many'; expected a whole number"),
        ({"rows": float("inf")}, "rows is inf; expected a whole number"),
        ({"rows": True}, "rows is True; expected a whole number"),
        ({"learning_rate": -1e-4}, "learning_rate is -0.0001; expected more than 0 and at most 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; expected more than 0"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a number"),
        ({"epochs": 0}, "epochs is 0.0; expected more than 0"),
        ({"dataset": 3}, "dataset is 3; expected text"),
        ({"dataset": "imbd"}, "there is no data set 'imbd'; there are rotten_tomatoes, imdb, mini_reviews"),
        ({"model": "bert"}, "there is no model 'bert'"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"row": 40}, "has no parameter 'row'; it has seed, dataset"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_one_sentence(overrides, message):
    assert message in refusal(**overrides)


def test_an_unknown_lesson_or_profile_names_the_known_ones():
    assert "there are data_audit, text_classification" in refusal(lesson="text_clasification")
    assert "there is no profile 'cuda'; there are smoke, cpu, gpu" in refusal(profile="cuda")


def test_max_length_over_the_model_s_positions_is_refused():
    budget = profiles.resolve("text_classification", "smoke", {"max_length": 129})
    with pytest.raises(BadInput, match="max_length is 129, and tiny-distilbert has positions for at most 128"):
        profiles.require_fitting(budget)
    profiles.require_fitting(profiles.resolve("text_classification", "smoke", {"max_length": 128}))


def test_a_shipped_data_set_needs_no_hub_in_the_gpu_profile():
    budget = profiles.resolve("text_classification", "gpu", {"dataset": "mini_reviews"})
    assert budget.from_hub is False


def test_the_budget_shows_who_set_each_value():
    shown = profiles.resolve("text_classification", "smoke", {"rows": 50})._repr_html_()
    assert "you" in shown
    assert "profile smoke" in shown
