"""Budgets: what a lesson uses in each profile, and the valid values of each parameter.

profiles.toml holds the numbers. A notebook's parameters override them and are checked here, so that a mistake is
reported in one sentence before any work starts.
"""

from __future__ import annotations

import html
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.adapters import lora
from ftlab.course import ledger
from ftlab.data import prompts, replay, sources, tasks
from ftlab.errors import BadInput
from ftlab.freezing import plans
from ftlab.models import loading

PROFILES = ("smoke", "cpu", "gpu")


@dataclass(frozen=True)
class Parameter:
    """The valid values of a notebook parameter. The bounds are inclusive; `above` excludes the bound itself."""

    kind: type
    what: str
    low: float | None = None
    high: float | None = None
    above: float | None = None

    def parse(self, name: str, value: Any, *, all_at_zero: str = "") -> Any:
        """Return `value`, from Python, YAML or a command line, as this parameter's type.

        Args:
            name: the parameter's name, for the error.
            value: as it was given.
            all_at_zero: what 0 stands for, where a lesson takes 0 for "all".

        Raises:
            BadInput: the type is wrong, or the number is out of range.
        """
        parsed = self._convert(name, value)
        if all_at_zero and parsed == 0:
            return parsed
        if isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
            too_low = (self.low is not None and parsed < self.low) or (self.above is not None and parsed <= self.above)
            too_high = self.high is not None and parsed > self.high
            if too_low or too_high or parsed != parsed:
                zero = f", or 0: {all_at_zero}" if all_at_zero else ""
                raise BadInput(f"{name} is {parsed}; expected {self._range()}{zero} ({self.what})")
        return parsed

    def _convert(self, name: str, value: Any) -> Any:
        wanted = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[self.kind]
        quoted = "; in quotes, if that is what it is called" if self.kind is str else ""
        problem = BadInput(f"{name} is {value!r}; expected {wanted} ({self.what}){quoted}")
        if isinstance(value, bool) != (self.kind is bool):  # a bool is an int in Python, and never meant as one
            raise problem
        if self.kind is str and not isinstance(value, str):
            raise problem
        try:
            # In YAML 2e-5 is text; int("2.0") fails, as it should, while 2.0 is a whole number.
            converted = self.kind(value)
        except (TypeError, ValueError, OverflowError):
            raise problem from None
        if self.kind is int and not isinstance(value, str) and converted != value:
            raise problem
        return converted

    def _range(self) -> str:
        parts = []
        if self.above is not None:
            parts.append(f"more than {self.above:g}")
        if self.low is not None:
            parts.append(f"at least {self.low:g}")
        if self.high is not None:
            parts.append(f"at most {self.high:g}")
        return " and ".join(parts) or "a number"


PARAMETERS: dict[str, Parameter] = {
    "seed": Parameter(int, "the seed of every draw", low=0, high=2**32 - 1),
    "dataset": Parameter(
        str, f"one of {', '.join(sources.SOURCES)}, the path of a file, or a data set of the model hub (owner/name)"
    ),
    "text_column": Parameter(str, "the column of your own file that holds the texts"),
    "label_column": Parameter(str, "the column of your own file that holds the labels"),
    "group_column": Parameter(str, "the column of your own file that says which rows belong together; empty: none"),
    "test_dataset": Parameter(str, "the path of a file with the rows that judge; empty: they are drawn from dataset"),
    "task": Parameter(str, f"one of {', '.join(tasks.TASKS)}, or the path of a file with instruction and output"),
    "from_hub": Parameter(bool, "whether the data set comes from the model hub"),
    "model": Parameter(str, f"one of {', '.join(loading.MODELS)}, a folder, or a hub id"),
    "rows": Parameter(int, "training rows; leave it out for the profile's own number", low=1),
    "validation_rows": Parameter(int, "rows that choose", low=2),
    "test_rows": Parameter(int, "rows that judge", low=2),
    "source_rows": Parameter(int, "rows that are read, spread over the source; 0 for all", low=0),
    "trap_rows": Parameter(int, "how many rows from the top of the file", low=1),
    "trap_test_rows": Parameter(int, "how many test rows from the top of the file", low=1),
    "augmented_rows": Parameter(int, "rows that get edited copies, to make a split that leaks", low=10),
    "max_length": Parameter(int, "the longest row in tokens; what is longer is cut", low=8),
    "epochs": Parameter(float, "passes over the training rows", above=0, high=1000),
    "batch_size": Parameter(int, "rows in a step", low=1, high=4096),
    "learning_rate": Parameter(float, "the highest learning rate, after warm-up", above=0, high=1),
    "rate_rows": Parameter(int, "training rows on which each of three learning rates is tried", low=1),
    "weight_decay": Parameter(float, "AdamW's pull of the weights towards zero", low=0, high=1),
    "policy": Parameter(str, f"what trains, one of {', '.join(plans.POLICIES)}"),
    "frozen_layers": Parameter(int, "the first so many layers that stay as they are, with the embeddings", low=1),
    "seeds": Parameter(int, "how many times each way is trained, on rows of its own", low=2, high=100),
    "policy_learning_rate": Parameter(float, "the highest learning rate of the policy set beside", above=0, high=1),
    "head_epochs": Parameter(float, "passes over the training rows where the head trains alone", above=0, high=1000),
    "head_learning_rate": Parameter(float, "the highest learning rate where the head trains alone", above=0, high=10),
    "timed_rows": Parameter(int, "rows that are trained on for the clock", low=16),
    "least_steps": Parameter(int, "the least steps of a training on few rows", low=1),
    "reckless_learning_rate": Parameter(
        float, "a learning rate that is too high, to see what it does", above=0, high=1
    ),
    "reckless_epochs": Parameter(float, "passes over the training rows at that rate", above=0, high=1000),
    "template": Parameter(str, f"one of {', '.join(prompts.TEMPLATES)}"),
    "examples": Parameter(int, "worked examples in a few-shot prompt", low=0, high=1000),
    "replay": Parameter(float, "the share of general text in the rows of a training", above=0, high=0.9),
    "replay_text": Parameter(str, "the path of a text with blank lines between passages; empty: the course's"),
    "rank": Parameter(int, "the rank of LoRA's two matrices", low=1),
    "alpha": Parameter(float, "LoRA's product is scaled by alpha / rank", above=0, high=10_000),
    "target_modules": Parameter(str, "names of linear modules with spaces between, or all-linear; empty: the usual"),
    "variant": Parameter(str, f"one of {', '.join(lora.VARIANTS)}"),
    "quantize": Parameter(bool, "whether the base model's weights are held in 4 bits"),
    "accumulation": Parameter(int, "batches whose gradients make one step", low=1, high=4096),
    "full_learning_rate": Parameter(float, "the highest learning rate where every weight trains", above=0, high=1),
    "adapter": Parameter(str, "the folder of an adapter for the model; empty: lesson 05's, or a small one"),
    "classifier_model": Parameter(str, "the encoder that a classifier made here begins with"),
    "timed_prompts": Parameter(int, "prompts that are answered for the clock", low=2),
    "timed_tokens": Parameter(int, "the longest answer for the clock, in tokens", low=1),
    "ticket_rows": Parameter(int, "training rows of a ticket classifier that is made here", low=8),
    "ticket_validation_rows": Parameter(int, "tickets that choose the threshold", low=8),
    "ticket_test_rows": Parameter(int, "tickets that judge it", low=8),
    "ticket_max_length": Parameter(int, "the longest ticket in tokens", low=8),
    "ticket_epochs": Parameter(float, "passes over the training tickets", above=0, high=1000),
    "ticket_learning_rate": Parameter(float, "the classifier's highest learning rate", above=0, high=1),
    "classifier": Parameter(str, "the folder of a classifier of tickets; empty: a small one"),
    "wanted_accuracy": Parameter(float, "how often the classifier's answers should be right", above=0, high=1),
    "at_least_same_next": Parameter(float, "the claimed lower bound of equal next tokens", low=0, high=1),
    "at_least_worse": Parameter(float, "the claimed lower bound of the loss that another format adds, in nats"),
    "export_type": Parameter(str, "how the exported weights are stored: f32, f16, bf16 or q8_0"),
    "max_new_tokens": Parameter(int, "the longest answer in tokens", low=1, high=4096),
    "rated_rows": Parameter(int, "prompts whose answers are rated", low=1, high=200),
    "ratings": Parameter(str, "the path of a filled-in form of ratings; empty: they are given in Jupyter"),
    "patience": Parameter(int, "epochs without a better validation score before training stops", low=1),
    "resume": Parameter(bool, "whether to go on from the checkpoints of a run that was cut off"),
    "at_least_accuracy": Parameter(float, "the claimed lower bound of test accuracy", low=0, high=1),
    "at_least_gain": Parameter(float, "the claimed lower bound of the gain over TF-IDF", low=-1, high=1),
    "at_least_exact_match": Parameter(float, "the claimed lower bound of exact match", low=0, high=1),
    "at_least_more_exact": Parameter(float, "the claimed lower bound of the gain in exact match", low=-1, high=1),
    "at_least_stopped": Parameter(float, "the claimed lower bound of the share of answers that end", low=0, high=1),
    "at_least_recklessness": Parameter(
        float, "the claimed lower bound of how much more the reckless one forgets", low=0
    ),
    "at_least_over_few_shot": Parameter(float, "the claimed lower bound of the gain over few-shot", low=-1, high=1),
    "at_most_with_replay": Parameter(
        float, "the claimed upper bound of the share of forgetting that is left with replay", low=0
    ),
    "at_most_loss_change": Parameter(
        float, "the claimed upper bound of held-out loss after training less before, with its interval", low=-100
    ),
    "passages": Parameter(int, "passages of the general text that are read", low=2),
    "at_least_findings": Parameter(int, "the claimed lower bound of the number of findings", low=0),
    "at_least_inflation": Parameter(float, "the claimed lower bound of what a leak adds to accuracy", low=-1, high=1),
    "at_least_from_groups": Parameter(
        float, "the claimed lower bound of what a split by rows adds to accuracy", low=-1, high=1
    ),
    "at_most_left": Parameter(int, "the claimed upper bound of rows that a repair leaves", low=0),
    "at_least_share_cut": Parameter(float, "the claimed lower bound of the share of rows cut", low=0, high=1),
}
SIZES = {"rows", "validation_rows", "test_rows"}
COLUMNS = {"text_column": "text", "label_column": "label", "group_column": ""}
ALL_AT_ZERO = {  # where a lesson takes 0 for all that there are
    ("text_classification", "rows"): "all that the other splits leave",
    ("text_classification", "test_rows"): "the whole test split of a source that has one",
    ("gpt2_instruction_tuning", "rows"): "all that the other splits leave",
    ("lora_phi2", "rows"): "all that the other splits leave",
}


@dataclass(frozen=True)
class Budget:
    """What one run of a lesson uses: `budget.rows`, `budget.epochs` and so on.

    `overrides` holds what was set by hand; claims are made only for a profile's own budget.
    """

    lesson: str
    profile: str
    seed: int
    settings: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    fitted: tuple[str, ...] = ()  # the names of what the rows or the model asked for (see `auto_budget`)
    left_out: tuple[str, ...] = ()  # the ids of rows that are too long

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["settings"][name]
        except KeyError:
            raise AttributeError(f"the budget of {self.__dict__.get('lesson')} has no {name!r}") from None

    @property
    def needs_hub(self) -> bool:
        """Whether a model or the rows come from the model hub."""
        return bool(self.settings.get("from_hub")) or any(map(loading.comes_from_hub, self._models))

    @property
    def assets(self) -> list[str]:
        """The pinned packages that this run needs in the cache."""
        from_hub = self.settings.get("from_hub", False)
        needed = [asset for model in self._models for asset in loading.required_assets(model)]
        for dataset in filter(None, (self.settings.get("dataset"), self.settings.get("test_dataset"))):
            needed += sources.required_assets(dataset, from_hub=from_hub)
        return list(dict.fromkeys(needed))

    @property
    def _models(self) -> list[str]:
        return [self.settings[name] for name in ("model", "classifier_model") if name in self.settings]

    @property
    def sizes_are_bounds(self) -> bool:
        """Whether the sizes of the splits may shrink to what a data set has: none of them was set by hand."""
        return not SIZES & self.overrides.keys()

    def expects(self, claim: str) -> bool:
        """Return whether `claim` is only expected in this budget: the gpu profile's, and no run of it is stored."""
        return self.profile == "gpu" and claim not in ledger.measured(self.lesson, self.profile, self.settings)

    @property
    def claims_are_expected(self) -> bool:
        """Whether no claim was ever measured in this budget, so that none stops a run. False where none is made."""
        own = not self.overrides and self.seed == 0
        return own and self.profile == "gpu" and not ledger.measured(self.lesson, self.profile, self.settings)

    def columns(self) -> dict[str, str]:
        """Return the column names that were set by hand, as keyword arguments of `sources.load`."""
        return {name: self.overrides[name] for name in COLUMNS if name in self.overrides}

    def _repr_html_(self) -> str:
        def row(tag: str, *cells: str) -> str:
            inside = "".join(f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inside}</tr>"

        rows = [row("td", name, str(value), self._set_by(name)) for name, value in self._shown().items()]
        return f"<table><thead>{row('th', 'budget', 'value', 'set by')}</thead><tbody>{''.join(rows)}</tbody></table>"

    def _shown(self) -> dict[str, Any]:
        """The settings, but no bounds of claims, and no columns that nobody named; whether the claims are expected."""
        hidden = ("at_least_", "at_most_")
        shown = {
            name: value
            for name, value in self.settings.items()
            if name in self.overrides or not (name in COLUMNS or name.startswith(hidden))
        }
        return shown | ({"claims": ledger.NOT_MEASURED} if self.claims_are_expected else {})

    def _set_by(self, name: str) -> str:
        return "you" if name in self.overrides else "your rows" if name in self.fitted else f"profile {self.profile}"

    def __repr__(self) -> str:
        shown = self._shown()
        width = max(map(len, shown), default=0)
        lines = [f"{name:<{width}}  {value}  ({self._set_by(name)})" for name, value in shown.items()]
        return "\n".join([f"budget of {self.lesson}", *lines])


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "profiles.toml").read_text(encoding="utf-8"))


def table() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the budgets of profiles.toml: {lesson: {profile: {name: value}}}."""
    return {name: budgets for name, budgets in _file().items() if name != "for_dataset"}


def names(lesson: str) -> tuple[str, ...]:
    """Return the names of a lesson's parameters but `profile` and `seed`; `lesson` is as for `resolve`."""
    return (*table().get(lesson, {}).get("cpu", {}), *(COLUMNS if rows_from(lesson) == "dataset" else ()))


def for_dataset(lesson: str, profile: str, dataset: str) -> dict[str, Any]:
    """Return the settings that change because `dataset` is not the data set that a profile was written for.

    Args:
        lesson: the notebook's name without its number.
        profile: smoke, cpu or gpu; in smoke nothing changes: it stays small.
        dataset: a named data set.
    """
    if profile == "smoke" or dataset == table()[lesson][profile].get(rows_from(lesson)):
        return {}
    return _file()["for_dataset"].get(lesson, {}).get(dataset, {})


def rows_from(lesson: str) -> str:
    """Return the parameter that says where the rows of `lesson` come from: task for instructions, else dataset."""
    return "task" if "task" in table()[lesson]["cpu"] else "dataset"


def resolve(lesson: str, profile: str, overrides: Mapping[str, Any] | None = None) -> Budget:
    """Return the budget of a lesson in a profile, with the values set by hand. Nothing is downloaded.

    Args:
        lesson: the notebook's name without its number, "text_classification".
        profile: smoke, cpu or gpu.
        overrides: values set by hand, by name; None stands for the profile's value.

    Raises:
        BadInput: a profile or name is unknown, a value has the wrong type or is out of range, or a data set or a model
            cannot be used.
    """
    if lesson not in table():
        raise BadInput(f"there is no lesson {lesson!r}; there are {', '.join(table())}")
    if profile not in PROFILES:
        raise BadInput(f"there is no profile {profile!r}; there are {', '.join(PROFILES)}")
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    values = {**table()[lesson][profile], **(COLUMNS if rows_from(lesson) == "dataset" else {})}
    for name, value in given.items():
        if name != "seed" and name not in values:
            raise BadInput(f"lesson {lesson} has no parameter {name!r}; it has {', '.join(['seed', *values])}")
        given[name] = PARAMETERS[name].parse(name, value, all_at_zero=ALL_AT_ZERO.get((lesson, name), ""))
    seed = given.pop("seed", 0)
    rows = rows_from(lesson)
    values.update(for_dataset(lesson, profile, given.get(rows, values[rows])))
    if "source_rows" in values and SIZES & given.keys():
        values["source_rows"] = 0  # so many rows may be in all of the source alone
    values.update(given)
    if given.get("dataset") in sources.SOURCES and not sources.SOURCES[given["dataset"]].hub_id:
        if given.get("from_hub"):
            raise BadInput(f"from_hub is true, and {given['dataset']} is not on the model hub; leave from_hub out")
        values["from_hub"] = False
    if values.get("dataset") in sources.SOURCES and not values.get("test_dataset"):
        for name in ("text_column", "label_column"):
            if given.get(name, COLUMNS[name]) != COLUMNS[name]:
                raise BadInput(
                    f"{name} is {given[name]!r}, and {values['dataset']} is a data set of the course, with the columns "
                    f"text and label; name a file of your own with dataset, or leave {name} out"
                )
    if "dataset" in values and sources.comes_from_hub(values["dataset"]):
        values["from_hub"] = True
        values.update({name: given.get(name) for name in COLUMNS})  # found in the rows: their provenance names them
    if rows == "task":
        tasks.check(values["task"])
    if values.get("replay_text"):
        replay.passages(values["replay_text"])
    for name in ("ratings", "adapter"):
        if values.get(name) and not files.named_path(values[name], f"another {name}")[1]:
            raise BadInput(f"{name} is {values[name]}, and there is no such path; give {PARAMETERS[name].what}")
    for dataset in filter(None, (values.get("dataset"), values.get("test_dataset"))):
        judging = dataset == values.get("test_dataset")
        sources.check(dataset, judging=judging, **{name: values[name] for name in COLUMNS})
    if values.get("test_dataset"):
        sources.check_test(values["test_dataset"])
    for model in ("model", "classifier_model", "classifier"):
        if values.get(model):
            loading.check(values[model])
    if values.get("template") not in (None, *prompts.TEMPLATES):
        raise BadInput(f"there is no template {values['template']!r}; there are {', '.join(prompts.TEMPLATES)}")
    if values.get("policy") == "full":
        raise BadInput("policy is full, which the lesson compares each policy with; give another one")
    if values.get("policy") not in (None, *plans.POLICIES):
        others = [name for name in plans.POLICIES if name != "full"]
        raise BadInput(f"there is no policy {values['policy']!r}; there are {', '.join(others)}")
    if values.get("policy") == "head" and "policy_learning_rate" in given:
        raise BadInput("policy is head, whose rate is head_learning_rate; set that one, and not policy_learning_rate")
    if "least_steps" in values and "epochs" in given and "least_steps" not in given:
        values["least_steps"] = 1  # or few rows would train for more epochs than were asked for
    if values.get("variant") not in (None, *lora.VARIANTS):
        raise BadInput(f"there is no variant {values['variant']!r}; there are {', '.join(lora.VARIANTS)}")
    return Budget(lesson, profile, seed, values, given)


def require_fitting(budget: Budget) -> None:
    """Check that the model can take what `budget` asks for. The model is fetched if it is not in the cache.

    Raises:
        BadInput: more frozen layers than layers, or a max_length beyond the model's positions.
    """
    if "frozen_layers" in budget.settings:
        depth = loading.depth(budget.model)
        if budget.frozen_layers > depth:
            raise BadInput(
                f"frozen_layers is {budget.frozen_layers}, and {budget.model} has {depth} layers; expected 1 to {depth}"
            )
    if "max_length" in budget.settings:
        most = loading.max_positions(budget.model)
        if budget.max_length > most:
            raise BadInput(
                f"max_length is {budget.max_length}, and {budget.model} has positions for at most {most} tokens; "
                f"expected at most {most}"
            )
