"""Parameters: what is printed is parsed back, and anything else is refused in one sentence, whatever it is."""

import argparse
import json
import math

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ftlab.commands import run
from ftlab.course import profiles
from ftlab.course.profiles import PARAMETERS
from ftlab.errors import BadInput
from tests import nightly
from tests.command_line import ftlab
from tests.properties import refusals, strategies

LESSONS = st.sampled_from([*profiles.table()])
NUMBERS = st.sampled_from([name for name, one in PARAMETERS.items() if one.kind in (int, float)])


def read(*, parameter=(), text=()):
    """What the command line makes of -p and -y."""
    return run.read_parameters(argparse.Namespace(file=[], yaml=[*text], parameter=[*parameter]))


def within(name, value):
    """Whether the bounds of the parameter `name` have the `value`, as its table says."""
    one = PARAMETERS[name]
    return (
        (one.low is None or value >= one.low)
        and (one.high is None or value <= one.high)
        and (one.above is None or value > one.above)
    )


def numbers_for(name):
    one = PARAMETERS[name]
    if one.kind is int:
        return st.integers(int(one.low or 0) - 3, min(int(one.high or 10**9), 10**12) + 3)
    return st.floats(-2, 2 * (one.high or 10), allow_nan=False)


FORMS = {int: (str, "{:,}".format, "+{}".format), float: (str, repr, "{:e}".format, "{:.17g}".format, "{:g}".format)}


@given(
    NUMBERS.flatmap(lambda name: st.tuples(st.just(name), numbers_for(name))),
    st.sampled_from(["as it is", "text", "command", "yaml"]),
)
@example(("learning_rate", 2e-5), "command")
@example(("seed", 2**32), "text")
def test_a_number_that_is_printed_and_parsed_is_the_same_or_out_of_its_bounds(named, way):
    name, value = named
    given_value = {"as it is": value, "text": str(value)}.get(way)
    if way == "command":
        given_value = read(parameter=[(name, str(value))])[name]
    if way == "yaml":
        given_value = read(text=[f"{name}: {value!r}"])[name]
    if within(name, value):
        parsed = PARAMETERS[name].parse(name, given_value)
        assert parsed == value
        assert type(parsed) is PARAMETERS[name].kind
    else:
        with pytest.raises(BadInput, match=f"^{name} is .*; expected ") as refused:
            PARAMETERS[name].parse(name, given_value)
        refusals.require(refused.value)


@given(st.integers(1, 9), st.integers(1, 8))
def test_a_rate_may_be_written_in_each_usual_form(digit, exponent):
    rate = float(f"{digit}e-{exponent}")
    for written in (
        f"{digit}e-{exponent}",
        f"{digit}E-{exponent}",
        f"{digit}.0e-{exponent:02d}",
        f"{rate:.12f}",
        repr(rate),
    ):
        assert (
            PARAMETERS["learning_rate"].parse(
                "learning_rate", read(parameter=[("learning_rate", written)])["learning_rate"]
            )
            == rate
        )


VALUES = st.one_of(
    strategies.anything,
    st.sampled_from(
        [
            "inf",
            "-inf",
            "nan",
            "1e999",
            "0x10",
            "1_000",
            "1e3",
            "yes",
            "~",
            "[1",
            "{a: 1}",
            "2024-01-01",
            "9" * 400,
            "9" * 5000,
        ]
    ),
    st.sampled_from([10**400, float("inf"), -0.0, {}, {"a": 1}, (1,), object, 1j]),
)


def good_for(name):
    """Values that the parameter takes, as they are and as text; of those that are text, the profiles' own."""
    one = PARAMETERS[name]
    if one.kind is bool:
        return st.booleans()
    if one.kind is str:
        budgets = [budget for lesson in profiles.table().values() for budget in lesson.values()]
        return st.sampled_from([budget[name] for budget in budgets if name in budget] or ["a column"])
    numbers = numbers_for(name).filter(lambda value: within(name, value))
    return st.one_of(numbers, numbers.map(str))


def with_values(names):
    """One of the `names` with a value: mostly a good one."""
    return names.flatmap(lambda name: st.tuples(st.just(name), strategies.mostly(good_for(name), VALUES)))


@given(with_values(st.sampled_from([*PARAMETERS])))
@settings(max_examples=nightly.cases(few=150, nightly=1_000))
@example(("rows", "9" * 5000))
@example(("epochs", float("nan")))
@example(("rows", float("inf")))
@example(("rows", True))
@example(("resume", 1))
def test_any_value_is_of_the_right_type_within_its_bounds_or_refused_in_one_line(named):
    name, value = named
    try:
        parsed = PARAMETERS[name].parse(name, value)
    except BadInput as problem:
        refusals.require(problem, begins=f"{name} is ")
        return
    assert type(parsed) is PARAMETERS[name].kind
    if PARAMETERS[name].kind in (int, float):
        assert within(name, parsed)
        assert not math.isnan(parsed)


LOOK_FOR_FILES = {"model", "classifier_model", "dataset", "task", "test_dataset", "replay_text", "classifier"}


@st.composite
def overrides(draw):
    """A lesson, and a name with a value: mostly one of the lesson's names with a good value."""
    lesson = draw(LESSONS)
    own = st.sampled_from(sorted({"seed", *profiles.names(lesson)} - LOOK_FOR_FILES))
    others = st.one_of(strategies.texts, st.sampled_from(sorted(PARAMETERS.keys() - LOOK_FOR_FILES)))
    return lesson, *draw(strategies.mostly(with_values(own), st.tuples(others, VALUES)))


@given(overrides(), st.sampled_from(profiles.PROFILES))
@settings(max_examples=nightly.cases(few=100, nightly=1_000))
@example(("text_classification", "rows\n", 7), "cpu")
def test_no_name_is_ignored(override, profile):
    """A budget has the value under that name, or the name or its value is refused."""
    lesson, name, value = override
    assume(value is not None and not (isinstance(value, float) and math.isnan(value)))
    known = name == "seed" or name in profiles.names(lesson)
    try:
        budget = profiles.resolve(lesson, profile, {name: value})
    except BadInput as problem:
        refusals.require(problem, *([] if known else ["has no parameter"]))
        return
    assert known
    found = budget.seed if name == "seed" else budget.settings[name]
    assert found == PARAMETERS[name].parse(name, value, all_at_zero=profiles.ALL_AT_ZERO.get((lesson, name), ""))


@given(LESSONS, st.sampled_from(profiles.PROFILES))
def test_the_settings_of_a_budget_are_values_that_may_be_set(lesson, profile):
    for name, value in profiles.resolve(lesson, profile).settings.items():
        if value is None or (value == 0 and (lesson, name) in profiles.ALL_AT_ZERO):
            continue
        assert PARAMETERS[name].parse(name, value) == value


@given(strategies.texts)
@settings(max_examples=nightly.cases(few=60, nightly=1_000))
@example("1")
@example("yes")
@example("007")
@example("[draft] reviews.csv")
@example("2024-13-45")
@example("a: b")
@example("text #2")
@example("[" * 1200)
def test_a_text_on_the_command_line_stays_the_text_that_it_is(text):
    """A column may be called 1, yes or #2. Quotes around it are no part of it."""
    assume(text.strip() and text not in ("~", "null") and text[0] + text[-1] not in ("''", '""'))
    assert read(parameter=[("text_column", text)]) == {"text_column": text}
    quoted = yaml.safe_dump(text, default_style='"', width=10**6).removesuffix("\n")
    assert read(parameter=[("text_column", quoted)]) == {"text_column": text}


_names = st.one_of(st.sampled_from([*PARAMETERS]), st.sampled_from(strategies.WORDS))
_values = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), strategies.texts)
_named = st.dictionaries(_names, _values, min_size=1, max_size=3)
_lines = st.lists(st.tuples(_names, st.one_of(strategies.plain, st.integers(), st.floats())), min_size=1, max_size=3)
YAML = strategies.mostly(
    st.one_of(
        _named.map(yaml.safe_dump),
        _named.map(lambda named: yaml.safe_dump(named, default_flow_style=True, allow_unicode=True)),
        _lines.map(lambda named: "\n".join(f"{name}: {value}" for name, value in named)),
    ),
    st.one_of(
        st.builds("{}: {}".format, _names, strategies.texts), strategies.texts, st.text(st.characters(), max_size=30)
    ),
)


@given(YAML)
@settings(max_examples=nightly.cases(few=80, nightly=1_000))
@example("!!python/object:os.system x")
@example("? [a]\n: b")
@example("a: &x [*x]")
@example("\ud800: 1")
@example("[" * 1200)
def test_any_yaml_is_names_and_values_or_refused_in_one_line(text):
    try:
        found = read(text=[text])
    except BadInput as problem:
        refusals.require(problem)
        return
    assert isinstance(found, dict)
    assert len(found) >= 1 or yaml.safe_load(text) == {}
    with pytest.raises(BadInput) as refused:
        profiles.resolve("text_classification", "smoke", {**found, "no such name": 1})
    refusals.one_sentence(refused.value)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["run", "audit", "--json", "-p", "rows", "-y", "--out", "09", "--fail-on", "-5", "--", "predict"]
            ),
            strategies.texts,
        ),
        max_size=4,
    )
)
@settings(max_examples=nightly.cases(few=40, nightly=1_000))
@example(["run", "-p", "rows"])
@example(["run", "no such lesson", "--out", "x"])
def test_a_command_line_that_says_nothing_that_can_run_exits_with_2_in_one_line(
    capsys, tmp_path, monkeypatch, arguments
):
    assume("--help" not in arguments and "-h" not in arguments)
    monkeypatch.chdir(tmp_path)
    code, out, lines = ftlab(capsys, *arguments, "--no-such-option")
    assert code == 2
    assert not out
    assert len(lines) == 1, lines
    assert json.dumps(lines[0])
