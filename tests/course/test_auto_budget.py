"""Lengths that nobody set by hand fit rows and model; those that somebody set are refused with the rows' names."""

import json

import numpy as np
import pytest

from ftlab.course import auto_budget, profiles
from ftlab.data import prompts, tasks
from ftlab.errors import BadInput
from ftlab.models import loading
from tests.nightly import few_by_day


@pytest.fixture
def own(tmp_path):
    """A task of one's own, 40 rows whose answers have so many words; a long answer or prompt in row 3, if wanted."""

    def write(words=40, third=None, prompt="Say something about number"):
        rows = [
            {
                "instruction": f"{prompt} {place}.",
                "output": " ".join(["film"] * (third if place == 3 and third else words)),
            }
            for place in range(40)
        ]
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def fit(lesson="gpt2_instruction_tuning", profile="cpu", **overrides) -> profiles.Budget:
    given = {"model": "tiny-llama", **overrides}
    return auto_budget.fitted(profiles.resolve(lesson, profile, given))


def refusal(**overrides) -> str:
    with pytest.raises(BadInput) as raised:
        fit(**overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def longest(task, model="tiny-llama") -> tuple[int, int]:
    """The tokens of the longest answer with EOS, and of the longest row."""
    tokenizer = loading.tokenizer(model)
    pieces = [prompts.pieces(row, tokenizer) for row in tasks.read(task).to_dict("records")]
    return max(len(answer) for _, answer in pieces), max(len(prompt) + len(answer) for prompt, answer in pieces)


@pytest.mark.parametrize("lesson", profiles.table())
def test_a_profile_s_own_budget_fits_as_it_is(lesson):
    plain = profiles.resolve(lesson, "smoke")
    budget = auto_budget.fitted(plain)
    assert (budget.settings, budget.fitted) == (plain.settings, ())
    assert len(budget.left_out) <= 2
    assert not auto_budget.may_change(plain)


@pytest.mark.parametrize("lesson", few_by_day(["gpt2_instruction_tuning", "lora_phi2"], "lora_phi2"))
@pytest.mark.parametrize("words", [3, 60, 90, 200])
def test_answers_of_any_ordinary_length_fit_where_nobody_set_a_length(own, lesson, words):
    task = own(words)
    answer, whole = longest(task)
    for profile in ("smoke", "cpu", "gpu"):
        budget = fit(lesson, profile, task=task)
        assert budget.max_length > answer
        assert budget.max_length >= min(whole, auto_budget.WHOLE)
        assert budget.max_length >= profiles.table()[lesson][profile]["max_length"]
        assert profile == "smoke" or answer <= budget.max_new_tokens or answer > auto_budget.MOST_NEW
        for row in tasks.read(task).to_dict("records"):
            prompts.encode_row(row, loading.tokenizer("tiny-llama"), max_length=budget.max_length)


def test_what_the_rows_asked_for_is_shown_as_theirs(own):
    budget = fit(task=own(200))
    assert budget.fitted == ("max_length", "max_new_tokens")
    assert budget._repr_html_().count("your rows") == 2
    assert {"max_length", "max_new_tokens"}.isdisjoint(budget.overrides)


def test_a_length_that_was_set_by_hand_stays(own):
    budget = fit(task=own(20), max_length=100, max_new_tokens=3)
    assert (budget.max_length, budget.max_new_tokens, budget.fitted) == (100, 3, ())


def test_rows_that_do_not_fit_a_length_set_by_hand_are_named_with_the_length_that_would_do(own):
    task = own(20, third=80)
    answer, _ = longest(task)
    said = refusal(task=task, max_length=64)
    assert said.startswith(f"max_length 64 would cut the answers of 1 of the 40 rows of {task} (mine.jsonl-00003)")
    assert f"the longest has {answer} tokens with EOS; set max_length to {answer + auto_budget.ROOM}" in said
    assert fit(task=task, max_length=answer + auto_budget.ROOM).max_length == answer + auto_budget.ROOM


def test_many_rows_that_do_not_fit_are_counted_and_a_few_named(own):
    said = refusal(task=own(80), max_length=64)
    assert "40 of the 40 rows" in said
    assert "(mine.jsonl-00000, mine.jsonl-00001, mine.jsonl-00002 and more)" in said


def test_a_training_on_very_long_rows_has_to_be_asked_for_and_smoke_takes_them(own):
    task = own(20, third=700)
    said = refusal(task=task)
    assert f"max_length {auto_budget.LONGEST} would cut the answers of 1 of the 40 rows" in said
    assert fit(profile="smoke", task=task).max_length > 700


def test_what_the_model_has_no_positions_for_is_refused_with_their_number(own):
    said = refusal(task=own(20, third=700), model="tiny-gpt2")
    assert "tiny-gpt2 has positions for 256, so shorten them, or leave them out" in said
    said = refusal(task=own(20, prompt="Say something about the film " * 60), model="tiny-gpt2")
    assert said.startswith("the 256 positions of tiny-gpt2 have no room for an answer of max_new_tokens")
    assert "40 of the 40 rows" in said


def test_of_a_task_of_the_course_rows_that_are_too_long_are_left_out_and_named():
    budget = fit(task="tutor", max_length=64)
    tokenizer = loading.tokenizer("tiny-llama")
    too_long = {
        row["id"]
        for row in tasks.read("tutor").to_dict("records")
        if len(prompts.pieces(row, tokenizer)[1]) >= budget.max_length
    }
    assert set(budget.left_out) == too_long != set()
    splits = tasks.load("tutor", rows=200, validation_rows=40, test_rows=60, without=budget.left_out)
    assert too_long.isdisjoint([*splits.train["id"], *splits.validation["id"], *splits.open_test("look")["id"]])


def test_a_default_length_shrinks_to_the_model_s_positions_and_one_set_by_hand_does_not():
    given = {"model": "tiny-distilbert", "dataset": "mini_reviews"}
    budget = auto_budget.fitted(profiles.resolve("text_classification", "gpu", given))
    assert (budget.max_length, budget.fitted) == (128, ("max_length",))
    with pytest.raises(BadInput, match="max_length is 512, and tiny-distilbert has positions for at most 128"):
        auto_budget.fitted(profiles.resolve("text_classification", "gpu", {**given, "max_length": 512}))


@pytest.mark.assets
@pytest.mark.parametrize("lesson", few_by_day(["gpt2_instruction_tuning", "lora_phi2"], "gpt2_instruction_tuning"))
@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_course_s_tasks_fit_the_course_s_profile(lesson, task):
    """Whatever the seed draws: the rows that do not fit are few, and known before any is drawn."""
    budget = fit(lesson, task=task, model="smollm2")
    answer, whole = longest(task, "smollm2")
    assert len(budget.left_out) <= 2
    assert budget.max_length > 0.85 * answer
    assert budget.max_length >= min(whole, auto_budget.WHOLE) or task == profiles.table()[lesson]["cpu"]["task"]


@pytest.mark.parametrize(
    ("overrides", "read"), [({}, 200), ({"epochs": 1}, 200), ({"rows": 30}, 0), ({"test_rows": 30}, 0)]
)
def test_smoke_reads_a_part_of_the_source_unless_a_size_was_set_by_hand(overrides, read):
    assert profiles.resolve("text_classification", "smoke", {"dataset": "tickets", **overrides}).source_rows == read
    assert profiles.resolve("text_classification", "cpu", {"dataset": "tickets", **overrides}).source_rows == 0


@pytest.fixture
def classes(tmp_path):
    """A file of one's own with so many classes, ten rows each."""

    def write(count):
        path = tmp_path / "classes.csv"
        rows = [f"film number {place} of its kind,class {place % count}" for place in range(10 * count)]
        path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("lesson", ["text_classification", "freezing_comparison"])
@pytest.mark.parametrize("count", [2, 6, 77])
def test_each_split_holds_every_class_of_a_file_where_nobody_set_its_size(classes, lesson, count):
    for profile in profiles.PROFILES:
        plain = profiles.resolve(lesson, profile, {"dataset": classes(count), "model": "tiny-distilbert"})
        budget = auto_budget.fitted(plain)
        for name, least in (("rows", 2 * count), ("validation_rows", count), ("test_rows", count)):
            before, after = plain.settings[name], budget.settings[name]
            assert after == (max(before, least) if before else 0)  # 0 stands for all
    by_hand = {"dataset": classes(count), "model": "tiny-distilbert", "test_rows": 2}
    assert auto_budget.fitted(profiles.resolve(lesson, "smoke", by_hand)).test_rows == 2
    assert auto_budget.may_change(plain)


def conversation(*turns, system=None):
    told = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return {"messages": [*told, *({"role": roles[place % 2], "content": said} for place, said in enumerate(turns))]}


@pytest.fixture
def chats(tmp_path):
    """A file of 40 conversations; in row 3 there are several questions, a system turn or long turns, if wanted."""

    def write(**third):
        rows = [conversation(f"What about number {place}?", "Nothing.") for place in range(40)]
        if third:
            rows[3] = conversation(*third.pop("turns", ("What is it?", "A film.")), **third)
        path = tmp_path / "chats.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


SEVERAL = {"turns": ("What is it?", "A film.", "And that?", "A play.")}


@pytest.mark.parametrize("lesson", ["gpt2_instruction_tuning", "lora_phi2"])
@pytest.mark.parametrize("third", [SEVERAL, {"system": "Be kind."}], ids=["several questions", "a system turn"])
def test_conversations_get_the_chat_format_where_nobody_set_a_template(chats, lesson, third):
    for profile in profiles.PROFILES:
        budget = fit(lesson, profile, task=chats(**third))
        assert (budget.template, "template" in budget.fitted) == ("chat", True)
        tokenizer = loading.tokenizer("tiny-llama")
        for row in tasks.read(budget.task).to_dict("records"):
            found = prompts.encode_row(
                row, tokenizer, max_length=budget.max_length, template=prompts.named("chat", tokenizer)
            )
            assert found["cut"] == 0
    assert fit(lesson, task=chats()).template == "alpaca"  # each is one question and one answer


def test_what_has_no_place_in_a_template_is_refused_before_any_work(chats):
    for third in (SEVERAL, {"system": "Be kind."}):
        said = refusal(task=chats(**third), template="alpaca")
        assert said.startswith("1 of the 40 rows of")
        assert "(chats.jsonl-00003) have several questions or a system turn, and template=alpaca" in said
        assert said.endswith("set template to chat, or leave it out")
        for given in ({}, {"template": "alpaca"}):
            said = refusal(task=chats(**third), model="tiny-gpt2", **given)
            assert "need a chat format, and the tokenizer of tiny-gpt2 has no chat template; take a model" in said
    assert "the tokenizer of tiny-gpt2 has no chat template; set template=alpaca" in refusal(
        model="tiny-gpt2", template="chat", task=chats()
    )
    assert auto_budget.may_change(profiles.resolve("lora_phi2", "cpu", {"template": "chat"}))


NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
THINKS = (
    "{% for m in messages %}{{ '<' + m.role + '>' }}{% if m.role == 'assistant' and loop.last %}{{ '(thought)' }}"
    "{% endif %}{{ m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>(thought)' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "third", "said"),
    [
        (NO_SYSTEM, {"system": "Be kind."}, "have a system turn, and the chat template of tiny-llama has no place for"),
        (THINKS, SEVERAL, "have several questions, and the chat template of tiny-llama writes earlier answers differ"),
        ("{{ 1 / 0 }}", SEVERAL, "the model's chat template fails (division by zero); take a model such as Qwen2.5"),
    ],
    ids=["no system turn", "one question", "broken"],
)
def test_turns_that_the_model_s_template_cannot_have_are_counted_with_what_to_do(
    chats, monkeypatch, template, third, said
):
    tokenizer = loading.tokenizer("tiny-llama")
    tokenizer.chat_template = template + (tokenizer.chat_template if template is NO_SYSTEM else "")
    monkeypatch.setattr(loading, "tokenizer", lambda model: tokenizer)
    refused = refusal(task=chats(**third))
    assert said in refused
    assert "leave chat out" not in refused
    assert "alpaca" not in refused
    if "fails" not in said:
        assert refused.startswith("1 of the 40 rows of")
        assert fit(task=chats(), template="chat").template == "chat"  # rows of one question can be learned


def test_if_most_rows_of_a_course_s_task_are_too_long_the_length_that_would_do_is_named():
    said = refusal(task="clinical_notes", template="chat", max_length=20)
    assert "max_length 20 would cut the answers of" in said
    assert said.split("set max_length to ")[1].split(",")[0].isdigit()
    assert "or take another task" in said


def test_a_conversation_that_max_length_would_cut_is_named_with_the_length_that_would_do(chats):
    third = {"turns": ("What is it?", "A film.", "film " * 60, "A play.")}
    tokenizer = loading.tokenizer("tiny-llama")
    rows = tasks.read(chats(**third)).to_dict("records")
    needed = max(prompts.least_length(row, tokenizer, template=prompts.named("chat", tokenizer)) for row in rows)
    said = refusal(task=chats(**third), max_length=64)
    assert "would cut the answers of 1 of the 40 rows" in said
    assert f"the longest has {needed} tokens with its question, in the chat format; set max_length to {needed}," in said
    assert fit(task=chats(**third), max_length=needed).max_length == needed
    assert fit(task=chats(**third)).max_length >= needed


@pytest.mark.parametrize("lesson", ["gpt2_instruction_tuning", "lora_phi2"])
def test_the_lengths_are_those_of_the_template(lesson):
    task = profiles.table()[lesson]["cpu"]["task"]
    plain, chat = fit(lesson, task=task), fit(lesson, task=task, template="chat")
    tokenizer = loading.tokenizer("tiny-llama")
    for budget in (plain, chat):
        template = prompts.named(budget.template, tokenizer)
        rows = [row for row in tasks.read(task).to_dict("records") if row["id"] not in budget.left_out]
        assert all(prompts.least_length(row, tokenizer, template=template) <= budget.max_length for row in rows)


@pytest.mark.assets
def test_smollm2_s_own_system_turn_makes_the_rows_longer_and_max_length_grows_with_them():
    plain, chat = (profiles.resolve("lora_phi2", "cpu", given) for given in ({}, {"template": "chat"}))
    grown = auto_budget.fitted(chat)
    assert grown.max_length > plain.max_length == chat.max_length
    assert (grown.fitted, grown.left_out) == (("max_length",), ())
    assert fit("lora_phi2", model="smollm2", template="chat", max_length=180).max_length == 180


@pytest.fixture
def different(tmp_path):
    """A task of 40 rows of so many words, none of them like another."""

    def write(words):
        rng = np.random.default_rng(0)
        rows = [
            {"instruction": " ".join(map(str, rng.integers(0, 10_000, words))), "output": f"{place}."}
            for place in range(40)
        ]
        path = tmp_path / "numbers.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def test_the_profile_s_examples_shrink_to_those_that_fit_and_a_number_set_by_hand_is_refused(different):
    given = {"model": "tiny-gpt2", "max_new_tokens": 8}
    budget = fit(task=different(12), **given)
    assert 0 < budget.examples < 3
    assert "examples" in budget.fitted
    said = refusal(task=different(12), examples=3, **given)
    assert said.startswith("3 examples and the longest question (row numbers.jsonl-")
    assert f"at most {budget.examples} fit: set examples to {budget.examples}" in said
    assert fit(task=different(12), examples=1, **given).examples == 1
    assert fit(task=different(40), **given).examples == 0
    assert "and the model has positions for 256; " in refusal(task=different(40), examples=2, **given)


def test_there_are_not_more_examples_than_training_rows(tmp_path):
    rows = [{"instruction": f"Name number {place}.", "output": f"{place}."} for place in range(3, 8)]
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    budget = fit(task=str(path), model="tiny-llama")
    assert budget.examples <= 3
    assert "40 examples were asked for, and there are" in refusal(task=str(path), examples=40)
