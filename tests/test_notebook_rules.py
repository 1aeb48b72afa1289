"""The rules of notebooks and nbval can fail: one change to a verified notebook, and what refuses it."""

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest

from ftlab.course import execution, notebooks, refresh
from tests import api_rules, nightly, notebook_rules
from tests.notebook_rules import IGNORED, LESSON, SOLUTION, STARTER

(VERIFIED,) = notebooks.lessons(["00"])
(QUICK,) = notebooks.lessons(["01"])  # its first cells need no torch
Change = Callable[[nbformat.NotebookNode], None]


@pytest.fixture(scope="module")
def verified() -> nbformat.NotebookNode:
    return nbformat.read(VERIFIED.path, as_version=4)


# --- one change each ------------------------------------------------------------------------------------------------
def cells(notebook, holds="", *, kind="code", also=lambda cell: True):
    """The cells of a kind whose source holds some words, and that `also` takes."""
    return [cell for cell in notebook.cells if cell.cell_type == kind and holds in cell.source and also(cell)]


def replaced(old: str, new: str, *, kind: str = "code") -> Change:
    """In the source of the first cell that has `old`."""

    def change(notebook):
        cell = cells(notebook, old, kind=kind)[0]
        cell.source = cell.source.replace(old, new, 1)

    return change


def written(prose: str) -> Change:
    """A sentence more, in a cell of prose."""

    def change(notebook):
        cells(notebook, "Labelling the rows", kind="markdown")[0].source += f"\n\n{prose}"

    return change


def added(line: str) -> Change:
    """Code more, at the beginning of a cell that shows something."""

    def change(notebook):
        cell = compared_with_output(notebook)[1]
        cell.source = f"{line}\n{cell.source}"

    return change


def compared_with_output(notebook):
    return cells(notebook, also=lambda cell: cell.outputs and IGNORED not in cell.metadata.tags)


def ignored_without_a_reason(notebook):
    del cells(notebook, also=lambda cell: IGNORED in cell.metadata.tags)[0].metadata["ftlab"]


def too_many_ignored(notebook):
    for cell in compared_with_output(notebook)[:2]:
        cell.metadata.tags.append(IGNORED)
        cell.metadata["ftlab"] = {"ignored_because": "it differs from run to run"}


def a_tag(name: str) -> Change:
    def change(notebook):
        cells(notebook)[3].metadata.tags.append(name)

    return change


def emptied(notebook):
    compared_with_output(notebook)[1].outputs = []


def a_picture_alone(notebook):
    """Of the two forms of a figure, nbval compares the text."""
    figures = cells(notebook, also=lambda cell: any("image/png" in one.get("data", {}) for one in cell.outputs))
    figures[0].outputs = [nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"})]


def without_alt_text(notebook):
    figure(notebook).metadata["image/png"]["alt"] = "A figure."


def with_another_plain_form(notebook):
    figure(notebook).data["text/plain"] = "<Figure size 640x480>"


def figure(notebook):
    return next(one for cell in cells(notebook) for one in cell.outputs if "image/png" in one.get("data", {}))


def said(name: str, text: str) -> Change:
    """A line more among the outputs of the first claim."""

    def change(notebook):
        cells(notebook, "lesson.claim(")[0].outputs.append(nbformat.v4.new_output("stream", name=name, text=text))

    return change


def printed(old: str, new: str) -> Change:
    """In what a claim has printed."""

    def change(notebook):
        for cell in cells(notebook, "lesson.claim("):
            for output in cell.outputs:
                output.text = output.text.replace(old, new)

    return change


def raised(notebook):
    output = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    cells(notebook, "lesson.claim(")[0].outputs.append(output)


def another_count(notebook):
    cells(notebook)[4].execution_count += 1


def another_count_of_an_output(notebook):
    shown = next(cell for cell in cells(notebook) if any("execution_count" in one for one in cell.outputs))
    shown.outputs[0].execution_count += 1


def a_claim_without_code(notebook):
    """A line that looks like one of a claim, where nobody claims."""
    cell = compared_with_output(notebook)[1]
    cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text="✓ accuracy: at least 0.99\n"))


def a_budget_of_another_run(notebook):
    output = cells(notebook, 'begin("')[0].outputs[0]
    output.data["text/html"], count = re.subn(
        r"(>batch_size</td><td[^>]*>)\d+", r"\g<1>999", output.data["text/html"], count=1
    )
    assert count == 1


def a_path(notebook):
    compared_with_output(notebook)[1].outputs[0].data["text/plain"] = "saved in /" + "home/me/model"


def a_long_cell(notebook):
    cells(notebook, also=lambda cell: not cell.outputs)[-1].source += "\n" + "\n".join(
        f"value_{n} = {n}" for n in range(30)
    )


def a_heading_alone(notebook):
    notebook.cells.insert(5, nbformat.v4.new_markdown_cell("## What now?"))


CHANGES: list[tuple[str, Change, str, str]] = [
    ("a bound in the code of a claim", replaced("at_least=1.2", "at_least=1.3"),
     "a_claim_s_line_has_the_bound_of_its_code", "claims 'at least 1.3' and has printed 'at least 1.2'"),
    ("a sibling's bound", replaced("at_least=1.5", "at_least=1.2"), "a_claim_s_line_has_the_bound_of_its_code",
     "claims 'at least 1.2' and has printed 'at least 1.5'"),
    ("a sibling's bound from the budget", replaced("budget.at_least_gain", "budget.at_least_accuracy"),
     "a_claim_s_line_has_the_bound_of_its_code", "': 'gain in accuracy over TF-IDF'"),
    ("the other side of a bound", replaced("at_least=1.5", "at_most=1.5"), "a_claim_s_line_has_the_bound_of_its_code",
     "claims 'at most 1.5' and has printed 'at least 1.5'"),
    ("a claim removed", replaced('lesson.claim("accuracy on the test rows", accuracy.value, '
     'at_least=budget.at_least_accuracy)\n', ""), "a_claim_s_line_has_the_bound_of_its_code",
     "prints a claim without `lesson.claim`: 'accuracy on the test rows'"),
    ("a claim renamed", replaced("gain in accuracy over TF-IDF", "gain over TF-IDF"),
     "a_claim_s_line_has_the_bound_of_its_code", "without `lesson.claim`: 'gain in accuracy over TF-IDF' (and 1 more"),
    ("a claim more", added('lesson.claim("moons", 1, at_least=1)'), "a_claim_s_line_has_the_bound_of_its_code",
     "claims what it has not printed: 'moons'"),
    ("a measured claim that is read from now on", replaced("at_least=1.5,", "at_least=1.5, stored=True,"),
     "a_claim_s_line_has_the_bound_of_its_code", "claims with stored=True and has printed '✓'"),
    ("a claim that does not hold", printed("✓ gain", "✗ gain"), "a_claim_s_line_has_the_bound_of_its_code",
     "a claim that does not hold: 'gain in accuracy over TF-IDF'"),
    ("a claim's line without a claim", a_claim_without_code, "a_claim_s_line_has_the_bound_of_its_code",
     "prints a claim without `lesson.claim`"),
    ("another budget in profiles.toml", a_budget_of_another_run, "the_stored_budget_is_that_of_the_profile",
     "shows the budget batch_size as 999"),
    ("a measured number in prose", written("Here it scores 0.8137."), "prose_holds_no_measured_number", "0.8137"),
    ("a measured number in backticks", written("Here it scores `0.8137`."), "prose_holds_no_measured_number", "0.8137"),
    ("a measured number in a heading", written("## Score 0.8137\n\nIt is high."),
     "prose_holds_no_measured_number", "0.8137"),
    ("a measured number in a link", written("See [the score, 0.8137](02_text_classification.ipynb)."),
     "prose_holds_no_measured_number", "0.8137"),
    ("a measured number as a setting", written("Here it has `score=0.8137`."),
     "prose_holds_no_measured_number", "0.8137"),
    ("a measured number beside a source", written("It has 0.8137. [A paper](https://arxiv.org/abs/2001.08361) agrees."),
     "prose_holds_no_measured_number", "0.8137"),
    ("a measured number like a command's option", written("Here it falls by `loss -0.8137`."),
     "prose_holds_no_measured_number", "0.8137"),
    ("a measured number in the header", replaced("twenty to read", "2719 seconds", kind="markdown"),
     "prose_holds_no_measured_number", "2719"),
    ("an argument that is gone", added('from transformers import TrainingArguments\n'
     'TrainingArguments("out", evaluation_strategy="epoch")'), "the_installed_libraries_take_each_call",
     "TrainingArguments takes no evaluation_strategy"),
    ("a deprecated argument", added('from transformers import AutoModelForCausalLM\n'
     'AutoModelForCausalLM.from_pretrained("gpt2", torch_dtype="auto")'), "the_installed_libraries_take_each_call",
     "from_pretrained(torch_dtype=...) is deprecated"),
    ("a class that is gone", added("from transformers import AdamW"), "the_installed_libraries_take_each_call",
     "transformers has no AdamW"),
    ("an execution count", another_count, "cells_ran_once_and_in_order", "has the execution count 6; expected 5"),
    ("an output of another execution", another_count_of_an_output, "cells_ran_once_and_in_order", "an output of the"),
    ("an ignored cell without a reason", ignored_without_a_reason, "each_cell_is_compared_or_says_why_not",
     "do not say why"),
    ("too many ignored cells", too_many_ignored, "few_cells_are_ignored", "a quarter may be ignored"),
    ("a comment for nbval", added("# NBVAL_IGNORE_OUTPUT"), "no_comment_and_no_other_tag_tells_nbval_what_to_do",
     "has the comment NBVAL_IGNORE_OUTPUT"),
    ("a tag that skips", a_tag("nbval-skip"), "no_comment_and_no_other_tag_tells_nbval_what_to_do", "'nbval-skip'"),
    ("a misspelt tag", a_tag("nbval-ignore-outputs"), "no_comment_and_no_other_tag_tells_nbval_what_to_do", "outputs"),
    ("an emptied output", emptied, "a_compared_cell_shows_what_can_be_compared", "has no output and is no definition"),
    ("an output on stderr", said("stderr", "Killed\n"), "no_error_and_nothing_on_stderr", "speaks on stderr: 'Killed'"),
    ("an error", raised, "no_error_and_nothing_on_stderr", "ends in ValueError"),
    ("a warning on stdout", said("stdout", "x.py:1: FutureWarning: `a` is going\n"), "no_warning_in_an_output",
     "FutureWarning"),
    ("the word deprecated", said("stdout", "`torch_dtype` is deprecated!\n"), "no_warning_in_an_output", "deprecated"),
    ("a progress bar", said("stdout", " 50%|█████     | 1/2\n"), "no_warning_in_an_output", "%|"),
    ("a path of a machine", a_path, "outputs_are_free_of_machine_noise", "/home/me"),
    ("a figure without alternative text", without_alt_text, "a_figure_has_an_alternative_text", "'A figure.'"),
    ("a figure that nbval passes", with_another_plain_form, "a_figure_has_an_alternative_text",
     "nbval does not compare it"),
    ("one figure left", a_picture_alone, "a_lesson_has_figures", "with 1 figures"),
    ("a dead link", written("See [this](nowhere.md)."), "links_lead_somewhere", "there is no nowhere.md"),
    ("a dead anchor", written("See [this](02_text_classification.ipynb#moon)."), "links_lead_somewhere",
     "no heading of 02_text_classification.ipynb has this anchor"),
    ("a dead anchor in the same notebook", written("See [this](#moon)."), "links_lead_somewhere", "#moon: no heading"),
    ("a dead file in a sentence", written("See `docs/moon.md`."), "links_lead_somewhere", "docs/moon.md"),
    ("another default of a parameter", replaced('profile: str = "cpu"', 'profile: str = "smoke"'),
     "the_first_code_cell_holds_the_annotated_parameters", "sets profile: str = 'smoke'; expected 'cpu'"),
    ("a parameter that no profile has", replaced("seed: int = 0", "seed: int = 0\nmoon: int = None"),
     "the_first_code_cell_holds_the_annotated_parameters", "has the parameter moon"),
    ("a cell of thirty lines", a_long_cell, "code_cells_are_short", "lines of code; at most 25"),
    ("a heading alone", a_heading_alone, "a_heading_has_a_sentence", "## What now?"),
    ("the test split, unrecorded", added("splits.open_test()"),
     "the_test_split_is_opened_through_the_lesson_which_records_it", "without `lesson.open_test`"),
    ("no line of what it needs", replaced("**Needs**", "Needs", kind="markdown"),
     "the_header_says_minutes_needs_and_questions", "does not say **Needs**"),
]  # fmt: skip


def test_no_rule_refuses_the_notebook_as_it_is(verified):
    assert notebook_rules.broken(verified, VERIFIED.path) == {}


@pytest.mark.parametrize(("change", "rule", "words"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_one_change_is_refused_for_its_own_reason(verified, change, rule, words):
    changed = copy.deepcopy(verified)
    change(changed)
    assert changed != verified
    refused = notebook_rules.broken(changed, VERIFIED.path)
    assert list(refused) == [rule]
    assert words in refused[rule]
    assert re.search(rf"^{rule}: cell \d+ of {VERIFIED.path.name} ", refused[rule])


TURNS = (
    'for way, bar in (("alone", 0.1), ("in a batch", 0.2)):\n    lesson.claim(f"gap: {way}", gaps[way], at_most=bar)'
)
BOTH = "✓ gap: alone: at most 0.1\n✓ gap: in a batch: at most 0.2\n"
NAMED = 'lesson.claim(f"{main}: gain", gain, at_least=least)\nlesson.claim(f"{main} of it", 1, at_least=1)'
TURNS_OF_A_NAME = f"for way, bar in ways:\n{TURNS.splitlines()[1]}"
BRANCH = 'if cost is not None:\n    lesson.claim("cost", cost, at_most=1)\nlesson.claim("gain", 1, at_least=0)'
SIDES = 'lesson.claim("a", 1, at_least=0, at_most=2)'

IN_LOOPS_AND_BRANCHES = {
    "a loop": (TURNS, BOTH, None),
    "a bound in a loop": (TURNS.replace("0.1", "0.2"), BOTH, "claims 'at most 0.2' and has printed 'at most 0.1'"),
    "a value in a loop": (TURNS.replace("alone", "one by one"), BOTH, "without `lesson.claim`: 'gap: alone'"),
    "a turn not printed": (TURNS, BOTH.splitlines()[0], "claims what it has not printed: 'gap: in a batch'"),
    "a loop over a name": (TURNS_OF_A_NAME, BOTH, None),
    "a loop over a name, not printed": (TURNS_OF_A_NAME, "", "claims what it has not printed: 'gap: …'"),
    "names in texts": (NAMED, "✓ F1: gain: at least 0.3\n✓ F1 of it: at least 1\n", None),
    "the other side of a named bound": (NAMED, "✓ F1: gain: at most 0.3\n✓ F1 of it: at least 1\n",
                                        "claims 'at least …' and has printed 'at most 0.3'"),
    "two of one text": (NAMED.replace(" of it", ": gain"), "✓ F1: gain: at least 1\n", "that 2 calls of"),
    "a branch not taken": (BRANCH, "✓ gain: at least 0\n", None),
    "a branch": (BRANCH, "✓ cost: at most 1\n✓ gain: at least 0\n", None),
    "a bound in a branch": (BRANCH, "✓ cost: at most 0\n✓ gain: at least 0\n", "claims 'at most 1' and has printed"),
    "not printed beside a branch": (BRANCH, "✓ cost: at most 1\n", "claims what it has not printed: 'gain'"),
    "two sides": (SIDES, "✓ a: at least 0 and at most 2\n", None),
    "one of two sides": (SIDES, "✓ a: at least 0\n", "claims 'at least 0 and at most 2' and has printed 'at least 0'"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "output", "words"), IN_LOOPS_AND_BRANCHES.values(), ids=list(IN_LOOPS_AND_BRANCHES))
def test_claims_in_loops_and_branches_are_compared_with_their_own_lines(source, output, words):
    printed = [nbformat.v4.new_output("stream", name="stdout", text=output)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, outputs=printed)])
    refused = pytest.raises(AssertionError, match=re.escape(words)) if words else nullcontext()
    with refused:
        notebook_rules.a_claim_s_line_has_the_bound_of_its_code(notebook, VERIFIED.path)


def test_each_rule_of_a_lesson_is_shown_to_fail():
    assert {rule.__name__ for rule in notebook_rules.rules_of(LESSON)} == {rule for _, _, rule, _ in CHANGES}


def test_rules_of_exercises_fail_too(repository):
    solution = repository / "exercises" / "solutions" / "level1_classifier.ipynb"
    notebook = nbformat.read(solution, as_version=4)
    assert notebook_rules.broken(notebook, solution) == {}
    notebook.cells[1].execution_count = 9
    assert list(notebook_rules.broken(notebook, solution, SOLUTION)) == ["cells_ran_once_and_in_order"]
    assert list(notebook_rules.broken(notebook, solution, STARTER)) == ["a_starter_has_not_run"]


# --- what the libraries take ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from transformers import TrainingArguments as T\nT(gradient_checkpointing=True)", "Use `activation_"),
        ("from trl import SFTConfig\nSFTConfig('o', pad_token='x')", "pad_token=...) is deprecated"),
        ("import transformers\ntransformers.Trainer(model, tokenizer=t)", "takes no tokenizer"),
        ("from trl import SFTTrainer\ndef f():\n    SFTTrainer(model, max_seq_length=9)", "takes no max_seq_length"),
        ("from transformers import TrainingArguments as T\ns = dict(no_cuda=True)\nT('o', **s)", "takes no no_cuda"),
        ("from transformers import TrainingArguments as T\ns = {'fp16_opt_level': 1}\nT(**s)", "takes no fp16_opt"),
        ("from transformers import AutoModel as A\nA.from_pretrained('a', load_in_4bit=True)", "takes no load_in_4bit"),
        ("from transformers import pipeline\npipeline('summarization')", "has no task 'summarization'"),
        ("from transformers import pipeline\npipeline(model=m, torch_dtype='auto')", "torch_dtype=...) is deprecated"),
        ("from peft import LoraConfig\nLoraConfig(rank=8)", "takes no rank"),
        ("from peft import prepare_model_for_int8_training", "peft has no prepare_model_for_int8_training"),
        ("from datasets import load_metric", "datasets has no load_metric"),
        ("from trl.core import LengthSampler", "trl.core"),
        ("import numpy as np\nnp.float(1)", "numpy has no float"),
        ("from transformers import Trainer\nt = Trainer(m)\nt.train(model_path='x')", "t.train takes no model_path"),
    ],
)  # fmt: skip
def test_a_call_that_the_libraries_no_longer_take_is_found(source, words):
    (found,) = api_rules.faults([("cell 1", source)])
    assert words in found[1]


@pytest.mark.parametrize(
    "source",
    [
        "from transformers import AutoModel\nAutoModel.from_pretrained('a', dtype='auto', num_labels=2, revision='b')",
        "from transformers import pipeline\npipeline('text-classification', model=m, dtype='auto')",
        "def f(datasets):\n    return datasets.config.get('a')",  # not the library
        "import datasets\nfor datasets in x:\n    datasets.load_metric",
        "from somewhere import Trainer\nTrainer(tokenizer=1)",
        "from trl import SFTConfig\nSFTConfig('o', **settings)",
        "import numpy as np\nx[:, np.newaxis]",
        "from transformers import PreTrainedTokenizerFast as T\nT(tokenizer_object=t, model_max_length=8)",
    ],
)
def test_a_call_that_they_take_or_that_is_no_call_of_theirs_is_left_alone(source):
    assert list(api_rules.faults([("cell 1", source)])) == []


def test_a_name_of_one_cell_is_known_in_the_next():
    parts = [("cell 1", "from transformers import Trainer"), ("cell 3", "Trainer(model, tokenizer=tokenizer)")]
    ((name, _),) = api_rules.faults(parts)
    assert name == "cell 3"


def test_no_code_of_the_package_the_pages_and_the_benchmarks_calls_what_is_gone(repository):
    read = api_rules.files(repository)
    found = [(path.relative_to(repository).as_posix(), *one) for path in read
             for one in api_rules.faults(api_rules.in_file(path))]  # fmt: skip
    assert found == []
    names = {path.relative_to(repository).as_posix() for path in read}
    assert {"ftlab/training/sft.py", "docs/plain/lora.py", "docs/training.md", "benchmarks/lora.py"} <= names


# --- nbval, on a kernel ---------------------------------------------------------------------------------------------
def another_output(notebook):
    output = cells(notebook, "DummyClassifier(")[0].outputs[0]
    output.text = output.text.replace("on all rows", "on most rows")


def another_alt_text(notebook):
    shown = figure(notebook)
    shown.data["text/plain"] = shown.data["text/plain"].replace("coloured", "sorted")


def run_nbval(folder: Path, repository: Path) -> dict[str, list[int]]:
    """The cells of code that nbval finds changed, of each notebook in `folder`/notebooks; all others must pass."""
    shutil.copy(repository / "conftest.py", folder)
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    done = subprocess.run(
        [*command, "notebooks"], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(repository), "COLUMNS": "300"},
    )  # fmt: skip
    results = re.findall(r"^(PASSED|FAILED) notebooks/(\w+)\.ipynb::Cell (\d+)", done.stdout, re.MULTILINE)
    assert results, done.stdout + done.stderr
    assert done.returncode == any(result == "FAILED" for result, _, _ in results), done.stdout
    failed: dict[str, list[int]] = {name: [] for _, name, _ in results}
    for result, name, number in results:
        if result == "FAILED":
            failed[name].append(int(number))
    return failed


def number_of(notebook, words: str) -> int:
    """The number of a cell among the cells of code, as nbval counts."""
    return next(number for number, cell in enumerate(cells(notebook)) if words in cell.source)


NBVAL = {
    "a_stored_output": (another_output, "DummyClassifier("),
    "a_claim_s_bound": (replaced("at_most=0.6", "at_most=0.7"), "at_most="),
    "a_broken_claim": (replaced("at_most=0.6", "at_most=0.4"), "at_most="),
    "an_alt_text": (another_alt_text, "figures.show("),
}


@pytest.fixture(scope="module")
def beginning(tmp_path_factory) -> nbformat.NotebookNode:
    """The first cells of a lesson, run in the smoke profile and stored as `make notebooks` stores them."""
    notebook = nbformat.read(QUICK.path, as_version=4)
    last = next(place for place, cell in enumerate(notebook.cells) if "lesson.claim(" in cell.source)
    notebook.cells = notebook.cells[: last + 1]
    replaced('profile: str = "cpu"', 'profile: str = "smoke"')(notebook)
    folder = tmp_path_factory.mktemp("beginning")
    nbformat.write(notebook, folder / QUICK.path.name)
    execution.execute(
        folder / QUICK.path.name, folder / "executed.ipynb", {}, results=folder, failed="it is not kept",
        settings={"FTLAB_RUN_FOLDER": str(folder / "run")},
    )  # fmt: skip
    return refresh.strip_noise(nbformat.read(folder / "executed.ipynb", as_version=4))


def test_nbval_passes_what_was_stored_and_refuses_exactly_the_cell_that_was_changed(beginning, repository, tmp_path):
    """By day all changes of a kernel's cells in one notebook; at night each in one of its own, too."""
    together = ["a_stored_output", "a_claim_s_bound", "an_alt_text"]
    made = {"as_stored": [], "together": together}
    made |= {name: [name] for name in list(NBVAL)[: nightly.cases(few=0, nightly=len(NBVAL))]}
    (tmp_path / "notebooks").mkdir()
    for name, changes in made.items():
        notebook = copy.deepcopy(beginning)
        for change in changes:
            before = copy.deepcopy(notebook)
            NBVAL[change][0](notebook)
            assert notebook != before
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    expected = {
        name: sorted(number_of(beginning, NBVAL[change][1]) for change in changes) for name, changes in made.items()
    }
    assert run_nbval(tmp_path, repository) == expected
    assert len(expected["together"]) == 3
