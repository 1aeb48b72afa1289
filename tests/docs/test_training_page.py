"""The code of the page on training runs as it stands, and what it says of TRL is true."""

import copy
import logging
import re
from pathlib import Path

import pytest

from tests import pages
from tests.data import made_tokenizers

# As Llama 3's: BOS, a token of its own that ends each turn, and (of ours) marks around what the assistant says.
MARKED = (
    "{{ bos_token }}{% for turn in messages %}<|role|>{{ turn['role'] }}\n"
    "{% if turn['role'] == 'assistant' %}{% generation %}{{ turn['content'] }}<|eot_id|>{% endgeneration %}"
    "{% else %}{{ turn['content'] }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant\n{% endif %}"
)
END_OUTSIDE = MARKED.replace("<|eot_id|>{% endgeneration %}", "{% endgeneration %}<|eot_id|>")
NO_MARKS = re.sub(r"{% (end)?generation %}", "", MARKED)
THINKS = MARKED.replace("<|role|>assistant\n{% endif %}", "<|role|>assistant\n<think></think>{% endif %}")
QUESTION = {"role": "user", "content": "What does len([]) return?"}
ANSWER = {"role": "assistant", "content": "0"}


@pytest.fixture(scope="module")
def sections(repository) -> dict[str, str]:
    text = pages.markdown(repository / "docs" / "training.md")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture
def names(tmp_path, monkeypatch, one_thread) -> dict:
    """What the page's sentences speak of, for each block."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed
    from trl import SFTConfig, SFTTrainer

    from ftlab.course import advice
    from ftlab.data import few_shot
    from ftlab.evaluation import answers, losses
    from ftlab.freezing import features, plans
    from ftlab.memory import footprint
    from ftlab.models import loading, tiny
    from ftlab.training import sft

    monkeypatch.chdir(tmp_path)
    return {
        "advice": advice, "answers": answers, "few_shot": few_shot, "losses": losses, "sft": sft, "plans": plans,
        "features": features, "footprint": footprint, "torch": torch, "Path": Path, "set_seed": set_seed,
        "AutoModelForCausalLM": AutoModelForCausalLM, "Trainer": Trainer, "TrainingArguments": TrainingArguments,
        "Dataset": Dataset, "SFTConfig": SFTConfig, "SFTTrainer": SFTTrainer, "folder": tiny.folder("tiny-llama"),
        "model": loading.causal_lm("tiny-llama"), "tokenizer": loading.tokenizer("tiny-llama"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def notes():
    from ftlab.data import tasks

    return tasks.load("clinical_notes", rows=12, validation_rows=6, test_rows=6, seed=0)


def run(section: str, space: dict) -> dict:
    """Run the blocks of a section, and what it calls within a sentence."""
    for code in (*pages.blocks(section, "python"), *re.findall(r"`(footprint\.[^`]+\))`", pages.prose(section))):
        exec(compile(code, "docs/training.md", "exec"), space)
    return space


def chat_tokenizer(template: str):
    """A tokenizer that puts <s> before a text, with the chat tokens."""
    tokenizer = copy.deepcopy(made_tokenizers.begins())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot_id|>", "<|role|>", "<think>", "</think>"]})
    tokenizer.chat_template = template
    return tokenizer


def chat_model(tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM

    from ftlab.models import tiny

    config = AutoConfig.from_pretrained(tiny.folder("tiny-llama"))
    config.vocab_size, config.bos_token_id = len(tokenizer), tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    return AutoModelForCausalLM.from_config(config)


def test_every_block_belongs_to_a_section_that_is_run(sections):
    with_code = {name for name, text in sections.items() if pages.blocks(text, "python") or "footprint." in text}
    assert with_code == {
        "Prompt first", "What to freeze", "Chat templates", "LoRA and QLoRA", "Choose a learning rate",
    }  # fmt: skip


def test_worked_examples_are_drawn_from_training_rows_and_lengthen_the_prompt(sections, names, notes):
    test = notes.open_test("to try the page")
    found = run(sections["Prompt first"], {**names, "train": notes.train, "test": test})
    assert {row["id"] for row in found["examples"]} <= set(notes.train["id"])
    assert len({row["kind"] for row in found["examples"]}) == 3
    assert (found["shown"]["prompt_tokens"] > found["zero_shot"]["prompt_tokens"]).all()


def test_freezing_runs(sections, names):
    from ftlab.data import sources
    from ftlab.models import loading
    from ftlab.training import classification

    model, tokenizer = (
        loading.encoder("tiny-distilbert", ["negative", "positive"]),
        loading.tokenizer("tiny-distilbert"),
    )
    rows = sources.load("mini_reviews")["train"].select(range(32))
    tokenized = classification.tokenized(rows, tokenizer, 32)
    run(sections["What to freeze"], {**names, "model": model, "tokenizer": tokenizer, "tokenized": tokenized})


def test_memory_is_estimated_without_weights(sections, names):
    run(sections["LoRA and QLoRA"], names)


def test_a_rate_is_chosen_on_validation_rows(sections, names, notes):
    from ftlab.data import prompts

    rows, validation = (
        prompts.encode(part, names["tokenizer"], max_length=200)[0] for part in (notes.train, notes.validation)
    )
    section = sections["Choose a learning rate"].replace("max_length=128", "max_length=200")  # one token a letter
    found = run(section, {**names, "rows": rows, "validation": validation})
    means = {rate: table["loss"].mean() for rate, table in found["found"].items()}
    assert len(set(means.values())) == len(means) == 3
    assert means[found["best"]] == min(means.values())


# --- chat templates ---------------------------------------------------------------------------------------------------
def test_the_lines_on_chat_templates_run_and_only_the_answer_trains(sections, names, monkeypatch):
    tokenizer = chat_tokenizer(MARKED)
    seen = []
    train = names["SFTTrainer"].train
    monkeypatch.setattr(names["SFTTrainer"], "train", lambda self: seen.append(self) or train(self))
    found = run(sections["Chat templates"], {**names, "tokenizer": tokenizer, "model": chat_model(tokenizer)})
    (row, *_) = seen[0].train_dataset["labels"]
    assert tokenizer.decode([label for label in row if label != -100]) == "0<|eot_id|>"
    assert found["model"].generation_config.eos_token_id == [tokenizer.eos_token_id, found["end"]]
    assert found["end"] not in (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)


def test_the_lines_find_both_faults(sections):
    first = pages.blocks(sections["Chat templates"], "python")[0]
    exec(first, {"tokenizer": chat_tokenizer(MARKED)})
    with pytest.raises(AssertionError, match="a prompt that training never saw"):
        exec(first, {"tokenizer": chat_tokenizer(THINKS)})
    with pytest.raises(AssertionError):
        exec(first.replace(", add_special_tokens=False", ""), {"tokenizer": chat_tokenizer(MARKED)})


def learned(names, template: str, row: dict, **options) -> str:
    """What TRL trains of a row, as text."""
    tokenizer = chat_tokenizer(template)
    settings = names["SFTConfig"](
        "chats", use_cpu=True, bf16=False, activation_checkpointing=False, report_to="none", **options
    )
    trainer = names["SFTTrainer"](
        chat_model(tokenizer), settings, train_dataset=names["Dataset"].from_list([row] * 2), processing_class=tokenizer
    )
    (labels, _) = trainer.train_dataset["labels"]
    return tokenizer.decode([label for label in labels if label != -100])


def test_trl_trains_the_tokens_that_the_page_says(names):
    messages, pair = {"messages": [QUESTION, ANSWER]}, {"prompt": [QUESTION], "completion": [ANSWER]}
    assert "What does len([]) return?" in learned(names, MARKED, messages)
    assert learned(names, MARKED, messages, assistant_only_loss=True) == "0<|eot_id|>"
    assert learned(names, NO_MARKS, pair) == "0<|eot_id|>"
    assert learned(names, NO_MARKS.replace("{{ turn['content'] }}<|eot_id|>", "{{ turn['content'] }}"), pair) == "0"


def test_trl_warns_of_an_end_outside_the_marks(names, caplog):
    with caplog.at_level(logging.WARNING):
        assert learned(names, END_OUTSIDE, {"messages": [QUESTION, ANSWER]}, assistant_only_loss=True) == "0"
    assert "may not learn to stop" in caplog.text


def test_trl_has_marked_templates_of_the_families_that_the_page_names_and_not_of_smollm2():
    from trl import chat_template_utils as known

    from ftlab.models import tiny

    for family in ("llama3", "phi3", "gemma", "qwen3"):
        tokenizer = chat_tokenizer(getattr(known, f"{family}_chat_template"))
        assert known.has_generation_markers(known.get_training_chat_template(tokenizer)), family
    with pytest.raises(ValueError, match="not training-compatible"):
        known.get_training_chat_template(chat_tokenizer(tiny.CHAT_TEMPLATE))


def test_trl_takes_another_end_token_into_both_configs(names):
    tokenizer = chat_tokenizer(MARKED)
    model, before = chat_model(tokenizer), tokenizer.eos_token_id
    settings = names["SFTConfig"](
        "chats", use_cpu=True, bf16=False, activation_checkpointing=False, report_to="none", eos_token="<|eot_id|>"
    )
    rows = names["Dataset"].from_list([{"messages": [QUESTION, ANSWER]}] * 2)
    names["SFTTrainer"](model, settings, train_dataset=rows, processing_class=tokenizer)
    assert tokenizer.eos_token == "<|eot_id|>"
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, before]
