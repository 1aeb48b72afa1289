"""The cheat sheet runs as it stands, and what the list of common errors says of today's libraries is true."""

import json
import logging
import os
import re
import shlex
import shutil
import tomllib
import warnings

import pytest

CODE_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
CODE_SPAN = re.compile(r"`([^`]+)`")
BUDGET = re.compile(r"<!-- budget (\S+) -->(.*?)<!-- end -->")
CLAIM = re.compile(r"<!-- claim (\d+) (.+?) -->(.*?)<!-- end -->")
LESSON_LINK = re.compile(r"\]\(\.\./notebooks/(\w+\.ipynb)#([\w-]+)\)")
ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)
GROUNDS = {each: f"\n{each}: " for each in ("TypeError", "ValueError", "KeyError", "FutureWarning")}
GROUNDS["deprecated"] = "deprecated"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
SECTIONS = ("Data", "Tokens and padding", "Scores", "Training", "What to freeze", "Instruction tuning")
SECTIONS += ("Prompts and chats", "LoRA and memory", "Saving, merging, answering")
GONE = "Code that no longer runs"
# Libraries say this of their own code, whoever calls them.
OF_LIBRARIES = "torch.jit|is_gradient_checkpointing"


@pytest.fixture(scope="module")
def cheat_sheet(repository):
    return (repository / "docs" / "cheat_sheet.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def errors_page(repository):
    return (repository / "docs" / "what_tutorials_get_wrong.md").read_text(encoding="utf-8")


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under `heading`, without its first two lines."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in row.split("|")] for row in ROW.findall(section)][2:]


def code_of(rows: list[list[str]]) -> list[str]:
    """The code in the second column, a statement each; a row without code fails."""
    found = []
    for task, cell in rows:
        statements = CODE_SPAN.findall(cell)
        assert statements, f"the row {task!r} has no code to run"
        assert not CODE_SPAN.sub("", cell).replace("<br>", "").strip(), f"the row {task!r} has more than code"
        found += statements
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two tiny models and the files that the commands name."""
    from transformers import AutoTokenizer

    from ftlab.models import tiny

    home = tmp_path_factory.mktemp("cheat_sheet")
    for name, model in (("encoder", "tiny-distilbert"), ("decoder", "tiny-llama")):
        shutil.copytree(tiny.folder(model), home / name)
    tokenizer = AutoTokenizer.from_pretrained(home / "decoder")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(home / "decoder")
    return home


@pytest.fixture(scope="module")
def given(folder):
    """What the page says that the reader has."""
    import pandas as pd
    from datasets import Dataset

    from ftlab.data.sources import ROWS

    reviews = pd.read_csv(ROWS / "mini_reviews.csv")[["text", "label"]].groupby("label").head(20)
    reviews.to_csv(folder / "rows.csv", index=False)
    reviews[["text"]].head(4).to_csv(folder / "new.csv", index=False)
    pd.DataFrame({"prompt": ["What is a film?", "And a book?"]}).to_csv(folder / "prompts.csv", index=False)
    pairs = [{"prompt": f"What is number {number}?", "completion": f"It is {number}."} for number in range(8)]
    return {
        "pairs": Dataset.from_list(pairs),
        "encoder": "encoder",
        "decoder": "decoder",
        "texts": ["A film that I would see again.", "Two hours lost."],
        "chat": [{"role": "user", "content": "What is a film?"}],
    }


class Complaints(logging.Handler):
    """Keeps what a library logs about deprecated calls."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecat" in record.getMessage():
            self.found.append(record.getMessage())


@pytest.fixture
def complaints():
    """Deprecations that transformers logs and does not warn of."""
    logger, handler = logging.getLogger("transformers"), Complaints()
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield handler.found
    logger.removeHandler(handler)
    logger.setLevel(level)


def execute(code: str, namespace: dict, complaints: list[str]) -> None:
    """Run `code`; fail if it raises, or if a library calls something in it deprecated."""
    complaints.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)
        warnings.filterwarnings("ignore", message=f".*({OF_LIBRARIES})")
        try:
            exec(compile(code, "a page", "exec"), namespace)
        except Exception as problem:
            pytest.fail(f"{code}\n{type(problem).__name__}: {problem}")
    if complaints:
        pytest.fail(f"{code}\n{complaints[0]}")


def test_every_line_of_the_cheat_sheet_runs_without_a_deprecation(
    cheat_sheet, folder, given, complaints, monkeypatch, one_thread, capsys
):
    from ftlab.cli import main

    monkeypatch.chdir(folder)
    statements = CODE_BLOCK.findall(cheat_sheet)
    for kind in ("a classifier", "a language model"):
        statements += code_of(table(cheat_sheet, f"Task to code: {kind}"))
    namespace = dict(given)
    for statement in statements:
        execute(statement, namespace, complaints)
    for command in code_of(table(cheat_sheet, "Without Python")):
        program, *arguments = shlex.split(command)
        assert program == "ftlab"
        assert main(arguments) == 0, f"{command}\n{capsys.readouterr()}"


def test_no_comment_with_a_source_is_skipped_because_it_is_mistyped(repository):
    """Budgets and claims are compared on these two pages alone."""
    for path in sorted(repository.glob("docs/*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name != "cheat_sheet.md":
            assert not re.search(r"<!--\s*budget\b", text), path.name
        if path.name != "what_tutorials_get_wrong.md":
            assert not re.search(r"<!--\s*claim\b", text), path.name
        assert len(re.findall(r"<!--\s*budget\b", text)) == len(BUDGET.findall(text)), path.name
        assert len(re.findall(r"<!--\s*claim\b", text)) == len(CLAIM.findall(text)), path.name


def test_a_budget_in_the_cheat_sheet_is_the_profiles(cheat_sheet, repository):
    profiles = tomllib.loads((repository / "ftlab" / "course" / "profiles.toml").read_text(encoding="utf-8"))
    quoted = BUDGET.findall(cheat_sheet)
    assert quoted
    for path, shown in quoted:
        value = profiles
        for name in path.split("."):
            value = value[name]
        assert float(shown) == value, f"profiles.toml has {value} at {path}, and the cheat sheet says {shown}"


def test_a_comment_with_a_source_begins_no_line(cheat_sheet, errors_page):
    """Markdown takes a line that begins with a comment as HTML, up to its end."""
    assert not re.search(r"^\s*<!--", cheat_sheet + errors_page, re.MULTILINE)


def anchors(path) -> set[str]:
    """GitHub's anchors of the headings of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def outputs(path) -> str:
    """All text that the stored outputs of a notebook print."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    return "\n".join("".join(output.get("text", "")) for output in found)


@pytest.mark.parametrize("section", [*SECTIONS, GONE])
def test_every_point_has_a_cure_and_a_link_to_a_section_that_shows_it(errors_page, repository, section):
    rows = table(errors_page, section)
    assert len(rows) >= 3
    for row in rows:
        assert len(row) == 4, f"not four cells: {row}"
        assert all(row), f"an empty cell: {row}"
        links = LESSON_LINK.findall(row[3])
        assert links, f"no lesson shows {row[0]!r}"
        for notebook, anchor in links:
            assert anchor in anchors(repository / "notebooks" / notebook), f"{notebook} has no section {anchor}"


def test_the_sections_of_the_page_are_those_that_are_checked(errors_page):
    assert re.findall(r"^## (.+)$", errors_page, re.MULTILINE) == [*SECTIONS, GONE]


def test_what_the_page_says_that_a_lesson_claims_is_claimed_there(errors_page, repository):
    quoted = CLAIM.findall(errors_page)
    assert quoted
    for number, text, bound in quoted:
        (notebook,) = (repository / "notebooks").glob(f"{number}_*.ipynb")
        assert f"{text}: {bound}\n" in outputs(notebook), f"{notebook.name} does not claim {text!r}: {bound!r}"


def test_the_example_of_weighted_f1_is_computed_rightly(errors_page):
    from sklearn.metrics import f1_score

    labels, answers = [0] * 95 + [1] * 5, [0] * 100
    weighted, macro = (f1_score(labels, answers, average=each, zero_division=0.0) for each in ("weighted", "macro"))
    assert f"scores {weighted:.2f}; macro F1 is {macro:.2f}" in errors_page


@pytest.fixture(scope="module")
def written_in_the_table(folder):
    """The names that the code of the last table uses."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        Trainer,
        TrainingArguments,
        pipeline,
    )
    from trl import SFTConfig, SFTTrainer

    name = str(folder / "decoder")
    return {
        "name": name,
        "tokenizer": AutoTokenizer.from_pretrained(name),
        "pairs": Dataset.from_list([{"prompt": "A: ", "completion": "yes"}] * 2),
        "config": LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        "Dataset": Dataset,
        "args": SFTConfig(
            str(folder / "out"), use_cpu=True, bf16=False, activation_checkpointing=False, report_to="none"
        ),
        **{"os": os, "torch": torch, "get_peft_model": get_peft_model, "pipeline": pipeline},
        **{"AutoModelForCausalLM": AutoModelForCausalLM, "BitsAndBytesConfig": BitsAndBytesConfig},
        **{"Trainer": Trainer, "TrainingArguments": TrainingArguments},
        **{"SFTConfig": SFTConfig, "SFTTrainer": SFTTrainer},
    }


def test_what_the_page_calls_gone_fails_today_and_its_cure_runs(
    errors_page, folder, written_in_the_table, complaints, monkeypatch, one_thread
):
    import torch

    monkeypatch.chdir(folder)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")

    def names() -> dict:
        model = written_in_the_table["AutoModelForCausalLM"].from_pretrained(written_in_the_table["name"])
        return {**written_in_the_table, "model": model}

    rows = table(errors_page, GONE)
    assert len(rows) > 15
    for written, today, use, _ in rows:
        (old,), (new,) = CODE_SPAN.findall(written), CODE_SPAN.findall(use)
        if not (today == "ValueError" and "SFTConfig(" in old and torch.cuda.is_available()):  # it needs a GPU
            with pytest.raises(pytest.fail.Exception, match=GROUNDS[today]):
                execute(old, names(), complaints)
        execute(new, names(), complaints)


# A template as Llama's: BOS, turns that end with EOS, and marks around what the assistant says.
MARKED = (
    "{{ bos_token }}{% for turn in messages %}{{ turn['role'] }}: "
    "{% if turn['role'] == 'assistant' %}{% generation %}{{ turn['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ turn['content'] }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_the_faults_of_chat_templates_happen_as_the_page_shows_them(
    errors_page, folder, written_in_the_table, complaints, monkeypatch, one_thread
):
    from transformers import AutoConfig, AutoModelForCausalLM, DataCollatorForLanguageModeling

    from tests.data import made_tokenizers

    monkeypatch.chdir(folder)
    tokenizer = made_tokenizers.begins()
    tokenizer.chat_template = MARKED
    config = AutoConfig.from_pretrained(folder / "decoder")
    config.vocab_size, config.eos_token_id, config.bos_token_id = len(tokenizer), tokenizer.eos_token_id, None
    (block,) = CODE_BLOCK.findall(errors_page)
    given = {"tokenizer": tokenizer, "model": AutoModelForCausalLM.from_config(config)}
    names = {**written_in_the_table, **given, "DataCollatorForLanguageModeling": DataCollatorForLanguageModeling}
    execute(block, names, complaints)
