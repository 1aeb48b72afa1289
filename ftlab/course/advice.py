"""Should you fine-tune? A few rules judge seven approaches, each with its reason and its source.

advice.toml has the rules: a condition in words, the verdict, why, and where it comes from. `CONDITIONS` has the same
conditions as code, under the same ids. `advice_evidence` has what settles the rules that clash, and what prompts cost.
"""

from __future__ import annotations

import html
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.course import advice_input
from ftlab.course.advice_evidence import break_even as break_even
from ftlab.course.advice_evidence import settled_by_measurement as settled_by_measurement
from ftlab.course.tables import TextTable

if TYPE_CHECKING:
    import pandas as pd

TASKS = ("classification", "generation", "documents")
PROMPTED = ("prompting", "few-shot prompting", "RAG")
TRAINED = ("frozen features", "full fine-tuning", "LoRA", "QLoRA")
APPROACHES = (*PROMPTED, *TRAINED)
VERDICTS = ("ruled out", "not now", "possible", "recommended")  # from worst to best
COLLECT_ROWS = "collect rows"  # what comes first where no approach is possible yet
SET_THE_BAR = "set the bar"  # what comes first where a prompt was tried, and nobody said what is wanted
CHECK_ROWS = "check the rows"  # what comes first where a model wrote the rows that would be shown or trained on
STEPS = {
    COLLECT_ROWS: "no approach is possible without them",
    SET_THE_BAR: "say what is good enough (`wanted`), and ask again",
    CHECK_ROWS: "audit and read what a model wrote, let people write the test rows, and ask again",
}
# The model that is judged if none is named: the course's own, DistilBERT with two labels and SmolLM2.
PARAMETERS = {"classification": 66_955_010, "generation": 134_515_008, "documents": 134_515_008}

# Seconds of one pass over a row without a GPU, for each billion parameters: 2 FLOPs for each parameter and token
# (Kaplan et al. 2020), 256 tokens, 100 billion FLOPs a second.
PASS_SECONDS = 2 * 256 * 1e9 / 1e11


@cache
def _rules_file() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "advice.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Case:
    """What is known of a task; the arguments of `advise`, checked."""

    task: str
    rows: int
    model_parameters: float
    gpu_gb: float
    memory_gb: float | None
    knowledge_changes: bool
    format_matters: bool
    questions_a_day: int | None
    prompt_reaches: float | None
    wanted: float | None
    many_tasks: bool
    classes: int
    other_work: bool = False
    rows_by_a_model: bool = False

    @property
    def labels(self) -> bool:
        """Whether the answer is a label, and not text."""
        return self.task == "classification"

    @property
    def to_train_on(self) -> float:
        """Rows to compare with the bounds of a training: those of two classes that give each class as many rows."""
        return self.rows * 2 / self.classes if self.labels else self.rows

    @property
    def facts(self) -> bool:
        """Whether the answers need facts that change or stand in documents."""
        return self.knowledge_changes or self.task == "documents"

    @property
    def prompt_enough(self) -> bool:
        """Whether the prompt reaches what is wanted."""
        return self.prompt_reaches is not None and self.wanted is not None and self.prompt_reaches >= self.wanted

    @property
    def prompt_short(self) -> bool:
        """Whether the prompt was tried and stays below what is wanted."""
        return self.prompt_reaches is not None and self.wanted is not None and self.prompt_reaches < self.wanted

    @property
    def no_bar(self) -> bool:
        """Whether a prompt was tried, and nobody said what is wanted."""
        return self.prompt_reaches is not None and self.wanted is None

    @property
    def large(self) -> bool:
        """Whether the model has more than a billion parameters."""
        return self.model_parameters > bounds()["billion"]

    @property
    def often(self) -> bool:
        """Whether a small model is asked so often that long prompts cost more than its training."""
        return not self.large and self.questions_a_day is not None and self.questions_a_day >= bounds()["often"]

    def needed(self, approach: str, *, on_gpu: bool) -> float:
        """GB that training by `approach` takes: for each parameter, and the room of activations and libraries."""
        memory, billions = _rules_file()["memory"]["on_gpu" if on_gpu else "on_cpu"], self.model_parameters / 1e9
        room_gb, of_each = memory["room"]["large" if self.large else "labels" if self.labels else "text"]
        return (memory[approach] + of_each) * billions + room_gb

    def on_gpu(self, approach: str) -> bool:
        """Whether the GPU holds the training, with a margin: a card's memory is never free to the last byte."""
        usable = bounds()["usable_gpu"] * self.gpu_gb
        return approach in TRAINED and self.needed(approach, on_gpu=True) <= usable

    def on_cpu(self, approach: str) -> bool:
        """Whether the machine's free memory holds the training."""
        free = bounds()["assumed_memory_gb"] if self.memory_gb is None else self.memory_gb
        return approach in TRAINED and self.needed(approach, on_gpu=False) <= free

    def fits(self, approach: str) -> bool:
        """Whether the training fits where it would end in a reasonable time: a large model needs the GPU."""
        return self.on_gpu(approach) or (not self.large and self.on_cpu(approach))


def bounds() -> dict[str, float]:
    """Return the numbers in which the rules count, such as the rows from which full fine-tuning is recommended."""
    return _rules_file()["bounds"]


def _between(low: str, value: float, high: str | None = None) -> bool:
    """Whether `value` is at least the bound `low`, and below the bound `high`."""
    return bounds()[low] <= value and (high is None or value < bounds()[high])


def _text_from(low: str, case: Case, high: str | None = None) -> bool:
    return not case.labels and _between(low, case.rows, high)


def _labels_from(low: str, case: Case, high: str | None = None) -> bool:
    return case.labels and _between(low, case.to_train_on, high)


# The conditions of the rules in advice.toml, by id. Those of memory depend on the approach, too.
CONDITIONS: dict[str, Callable[[Case, str], bool]] = {
    # prompting
    "prompt_first": lambda case, _: case.prompt_reaches is None and not case.facts,
    "prompt_enough": lambda case, _: case.prompt_enough,
    "training_not_needed": lambda case, _: case.prompt_enough,
    "prompt_short": lambda case, _: case.prompt_short,
    "no_bar": lambda case, _: case.no_bar,
    "prompt_lacks_facts": lambda case, _: case.facts and not case.prompt_enough,
    # few-shot prompting
    "no_example": lambda case, _: case.rows == 0,
    "handful": lambda case, _: 0 < case.rows < bounds()["few"],
    "examples_in_prompt": lambda case, _: bounds()["few"] <= case.rows <= bounds()["frozen"],
    "more_than_a_prompt_holds": lambda case, _: case.rows > bounds()["frozen"],
    # RAG
    "facts_to_look_up": lambda case, _: not case.labels and case.facts and not case.prompt_enough,
    "facts_grow_old": lambda case, _: not case.labels and case.facts and case.prompt_enough,
    "training_teaches_no_facts": lambda case, _: not case.labels and case.facts and not case.format_matters,
    "form_beside_facts": lambda case, _: not case.labels and case.facts and case.format_matters,
    "rag_any_amount": lambda case, _: not case.labels and not case.facts and not case.format_matters,
    "rag_brings_no_form": lambda case, _: not case.labels and not case.facts and case.format_matters,
    "rag_gives_no_label": lambda case, _: case.labels and not case.facts,
    "labels_change": lambda case, _: case.labels and case.facts,
    "refit_in_seconds": lambda case, _: case.facts and _labels_from("frozen", case),
    # frozen features
    "head_gives_labels": lambda case, _: not case.labels,
    "nothing_to_train_on": lambda case, _: case.rows < 2,
    "class_without_a_row": lambda case, _: case.labels and 2 <= case.rows < case.classes,
    "frozen_below_100": lambda case, _: case.labels and case.rows >= 2 and case.to_train_on < bounds()["frozen"],
    "frozen_first": lambda case, _: _labels_from("frozen", case, "full"),
    "frozen_as_bar": lambda case, _: _labels_from("full", case) and not case.facts,
    # how many rows
    "too_few_rows": lambda case, _: case.rows >= 2 and case.to_train_on < bounds()["frozen"],
    "full_or_frozen": lambda case, _: _labels_from("frozen", case, "full"),
    "full_from_500": lambda case, _: _labels_from("full", case) and not case.large,
    "hundred_answers": lambda case, _: _text_from("frozen", case, "hundreds"),
    "no_reason_yet": lambda case, _: (
        _text_from("hundreds", case, "many") and not (case.format_matters or case.often or case.prompt_short)
    ),
    "form_is_learned": lambda case, _: _text_from("hundreds", case) and case.format_matters,
    "gap_to_close": lambda case, _: _text_from("hundreds", case) and case.prompt_short,
    "asked_often": lambda case, _: _text_from("hundreds", case) and case.often,
    "thousand_answers": lambda case, _: _text_from("many", case),
    # what a training may spoil
    "rows_that_a_model_wrote": lambda case, _: case.rows_by_a_model and case.rows > 0,
    "other_work": lambda case, _: case.other_work,
    "adapter_comes_off": lambda case, _: case.other_work and _between("frozen", case.to_train_on),
    # how large a model
    "billions_in_full": lambda case, _: case.large,
    "lora_above_a_billion": lambda case, _: case.large and _between("frozen", case.to_train_on),
    "small_model_in_full": lambda case, _: (
        not case.large and case.fits("full fine-tuning") and not (case.many_tasks or case.other_work)
    ),
    "lora_saves_memory": lambda case, _: (
        not case.large
        and _between("frozen", case.to_train_on)
        and not case.fits("full fine-tuning")
        and case.fits("LoRA")
    ),
    "many_adapters": lambda case, _: case.many_tasks and _between("frozen", case.to_train_on),
    "lora_reaches_its_limit": lambda case, _: (
        case.rows > bounds()["lora_most"]
        and not (case.large or case.many_tasks or case.other_work)
        and case.fits("full fine-tuning")
    ),
    "four_bits_not_needed": lambda case, _: case.fits("LoRA"),
    "four_bits_to_fit": lambda case, _: (
        _between("frozen", case.to_train_on) and not case.fits("LoRA") and case.fits("QLoRA")
    ),
    # memory
    "does_not_fit": lambda case, approach: (
        case.memory_gb is not None and not case.on_gpu(approach) and not case.on_cpu(approach)
    ),
    "memory_not_given": lambda case, approach: (
        case.memory_gb is None and not case.on_gpu(approach) and not case.on_cpu(approach)
    ),
    "days_on_a_cpu": lambda case, approach: case.large and not case.on_gpu(approach) and case.on_cpu(approach),
    "one_pass_on_a_cpu": lambda case, approach: case.large and not case.on_gpu(approach) and case.on_cpu(approach),
}


@dataclass(frozen=True)
class Advice:
    """What `advise` returns: the approach to try first, all approaches in order, and the rules that applied."""

    case: Case
    first: str
    judged: pd.DataFrame  # index approach, in the order to try; columns verdict and because
    rules: pd.DataFrame  # index approach and rule; columns effect, when, why, source

    def table(self) -> pd.DataFrame:
        """Return the approaches (index) in the order to try them, with columns `verdict` and `because`."""
        return self.judged.copy()

    def __repr__(self) -> str:
        lines = [f"{name}: {line['verdict']}; {line['because']}" for name, line in self.judged.iterrows()]
        return "\n".join([f"First: {self.first}{self._how()}.", *lines])

    def _how(self) -> str:
        """What to do, where the first step is none of the approaches."""
        return f": {STEPS[self.first]}" if self.first in STEPS else ""

    def _repr_html_(self) -> str:
        table = TextTable(self.judged).html()
        return f"<p>First: <b>{html.escape(self.first)}</b>{html.escape(self._how())}</p>{table}"


def advise(
    *,
    task: str,
    rows: int,
    model_parameters: float | None = None,
    gpu_gb: float = 0,
    memory_gb: float | None = None,
    knowledge_changes: bool = False,
    format_matters: bool = False,
    questions_a_day: int | None = None,
    prompt_reaches: float | None = None,
    wanted: float | None = None,
    many_tasks: bool = False,
    classes: int = 2,
    other_work: bool = False,
    rows_by_a_model: bool = False,
) -> Advice:
    """Judge prompting, few-shot prompting, RAG, frozen features, full fine-tuning, LoRA and QLoRA for your task.

    Args:
        task: "classification", "generation" (answers, instructions, conversations, style, format) or "documents"
            (questions that your documents answer).
        rows: labelled rows, instructions with their answers, or conversations.
        model_parameters: of the model that you would train, such as 2.7e9; by default that of the course's own model
            for the task.
        gpu_gb: memory of the GPU in GB; 0 for none.
        memory_gb: free memory of the machine in GB; None if you do not know it.
        knowledge_changes: the answers depend on facts that change often.
        format_matters: the answer must have a certain form or style.
        questions_a_day: how often the model is asked; None if you do not know it.
        prompt_reaches: the accuracy or exact match that the best prompt reaches, worked examples included, 0 to 1; None
            if not tried.
        wanted: the accuracy or exact match that is good enough, 0 to 1; None if nobody said.
        many_tasks: several specialised models are to share one base.
        classes: labels of a classification. The bounds hold for two; with more, each needs as many rows as one of two.
        other_work: the model must go on with what it could do before, beside the new task.
        rows_by_a_model: a model wrote the rows, and nobody has checked them.

    Returns:
        The advice. `first` is the approach to try first, or a step before it (`STEPS`); `table()` has all approaches
        with a verdict and a reason, and `rules` has every rule that applied, with its source.

    Raises:
        BadInput: a value is impossible, such as 7 for model_parameters, where 7e9 was meant, or classes of a text.

    >>> advise(task="documents", rows=0, knowledge_changes=True).first
    'RAG'
    """
    import pandas as pd

    advice_input.check_task("task", task, TASKS)
    advice_input.check_count("rows", rows)
    if model_parameters is not None:
        advice_input.check_parameters("model_parameters", model_parameters)
    advice_input.check_gb("gpu_gb", gpu_gb, "0 for no GPU")
    if memory_gb is not None:
        advice_input.check_gb("memory_gb", memory_gb, "None if you do not know it")
    for name, flag in (
        ("knowledge_changes", knowledge_changes), ("format_matters", format_matters), ("many_tasks", many_tasks),
        ("other_work", other_work), ("rows_by_a_model", rows_by_a_model),
    ):  # fmt: skip
        advice_input.check_flag(name, flag)
    if questions_a_day is not None:
        advice_input.check_count("questions_a_day", questions_a_day)
    advice_input.check_classes("classes", classes, task)
    for name, share in (("prompt_reaches", prompt_reaches), ("wanted", wanted)):
        if share is not None:
            advice_input.check_share(name, share)
    case = Case(
        task, int(rows), PARAMETERS[task] if model_parameters is None else float(model_parameters), float(gpu_gb),
        None if memory_gb is None else float(memory_gb), bool(knowledge_changes), bool(format_matters),
        None if questions_a_day is None else int(questions_a_day), prompt_reaches, wanted, bool(many_tasks),
        int(classes), bool(other_work), bool(rows_by_a_model),
    )  # fmt: skip

    applied = {approach: _applying(case, approach) for approach in APPROACHES}
    verdicts = {approach: _lowest(found) for approach, found in applied.items()}
    judged = pd.DataFrame(
        [
            {"approach": approach, "verdict": verdicts[approach], "because": _because(case, approach, found, verdicts)}
            for approach, found in applied.items()
        ]
    ).set_index("approach")
    order = sorted(APPROACHES, key=lambda approach: (-VERDICTS.index(verdicts[approach]), _turn(case, approach)))
    rules = pd.DataFrame(
        [
            {"approach": approach, "rule": rule["id"]} | {key: rule[key] for key in ("effect", "when", "why", "source")}
            for approach in order
            for rule in applied[approach]
        ]
    ).set_index(["approach", "rule"])
    can = VERDICTS.index(verdicts[order[0]]) >= VERDICTS.index("possible")
    unread = case.rows_by_a_model and order[0] not in ("prompting", "RAG")
    first = SET_THE_BAR if case.no_bar else COLLECT_ROWS if not can else CHECK_ROWS if unread else order[0]
    return Advice(case, first, judged.loc[order], rules)


def _applying(case: Case, approach: str) -> list[dict[str, Any]]:
    """The rules that apply to an approach; there is always one."""
    return [
        rule
        for rule in _rules_file()["rule"]
        if approach in rule["approaches"] and CONDITIONS[rule["id"]](case, approach)
    ]


def _lowest(rules: list[dict[str, Any]]) -> str:
    """The verdict of the rules that apply to an approach: the lowest."""
    return min((rule["effect"] for rule in rules), key=VERDICTS.index)


def _because(case: Case, approach: str, found: list[dict[str, Any]], verdicts: dict[str, str]) -> str:
    """The reasons of the rules that decided."""
    on_gpu, usable = case.gpu_gb > 0, bounds()["usable_gpu"] * case.gpu_gb
    counted_on_gpu = on_gpu and (case.large or case.on_gpu(approach))  # where the GPU is too small, the CPU decides
    free = "memory_gb not given" if case.memory_gb is None else f"{case.memory_gb:g} GB of free memory"
    values = vars(case) | {
        "parameters": _parameters(case.model_parameters),
        "n_rows": _rows(case),
        "n_examples": "1 example fits" if case.rows == 1 else f"{case.rows:,} examples fit",
        "passing": _duration(case.rows * PASS_SECONDS * case.model_parameters / 1e9),
        "needed": case.needed(approach, on_gpu=counted_on_gpu) if approach in TRAINED else math.nan,
        "machine": f"a GPU of {case.gpu_gb:g} GB, {usable:.1f} of them usable, {free}" if on_gpu else f"no GPU, {free}",
    }
    return "; ".join(rule["because"].format(**values) for rule in found if rule["effect"] == verdicts[approach])


def _turn(case: Case, approach: str) -> int:
    """The place of an approach among those with the same verdict: the least work first, and what the case is about."""
    order = list(APPROACHES)
    last = []
    if case.facts and not case.labels:
        order.insert(0, order.pop(order.index("RAG")))
    if case.many_tasks or case.large or case.other_work:
        last.append("full fine-tuning")
    if case.rows > bounds()["frozen"]:
        last.append("few-shot prompting")  # it would use some of the rows
    if not case.facts:
        last.append("RAG")  # no facts are missing
    return [*(name for name in order if name not in last), *last].index(approach)


def clashes() -> pd.DataFrame:
    """Return the rules of the tutorials that clash: one, other, clash, how it is settled, and by what; index the id."""
    import pandas as pd

    return pd.DataFrame(_rules_file()["clash"]).set_index("id")


def _rows(case: Case) -> str:
    """The rows in words, with the classes if they are not two."""
    rows = "1 row" if case.rows == 1 else f"{case.rows or 'no'} rows" if case.rows < 1000 else f"{case.rows:,} rows"
    return f"{rows} of {case.classes:,} classes" if case.classes > 2 else rows


def _duration(seconds: float) -> str:
    """Seconds in words.

    >>> _duration(3000), _duration(3 * 3600), _duration(1e6)
    ('less than an hour', '3 hours', '12 days')
    """
    hours = seconds / 3600
    if hours < 1:
        return "less than an hour"
    return f"{hours:.0f} hour{'s' * (round(hours) > 1)}" if hours < 48 else f"{hours / 24:,.0f} days"


def _parameters(number: float) -> str:
    """A number of parameters in words.

    >>> _parameters(2.7e9), _parameters(66_955_010)
    ('2.7 billion', '67 million')
    """
    return f"{number / 1e9:.3g} billion" if number >= 1e9 else f"{number / 1e6:.3g} million"
