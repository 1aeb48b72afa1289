"""The rules that stored notebooks keep: run once, in order, quiet, verified, and honest in their prose.

Each rule of `RULES` is a function of a notebook and of where it stands. It raises an AssertionError that names the
rule, the cell and what is wrong in it. A rule reads the notebook, and runs none of its code: nbval does that. Its
`kinds` say which notebooks keep it: the lessons, the solutions of the exercises, and the starters made from these.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import statistics
import tokenize
import tomllib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import nbformat

from ftlab.course import profiles
from tests import api_rules, links, modules

claim_tables = modules.load(Path(__file__).resolve().parents[1] / "docs" / "claim_tables.py")

IGNORED = "nbval-ignore-output"
LESSON, SOLUTION, STARTER = "lesson", "solution", "starter"
EXECUTED, ALL = (LESSON, SOLUTION), (LESSON, SOLUTION, STARTER)
TAGS = re.compile(rf"parameters|{IGNORED}|todo|step:[\w-]+|solution-only")
NOT_COMPARED = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}  # by nbval
WARNING = re.compile(r"\w*Warning\b|\b[Dd]eprecat(?:ed|ion)\b|\bTraceback \(most recent call last\)|%\|")
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
CLAIM = re.compile(
    r"^(✓|✗|from the stored benchmark:) (.+): ((?:at (?:least|most) \S+)(?: and at most \S+)?)", re.MULTILINE
)

Notebook = nbformat.NotebookNode
Fault = tuple[int, str]  # a cell by its place, and what is wrong in it
Rule = Callable[[Notebook, Path], None]
RULES: list[Rule] = []


def rule(*kinds: str) -> Callable[[Callable[[Notebook, Path], Iterator[Fault]]], Rule]:
    """Make a rule of a function that yields faults; `kinds` are the notebooks that keep it."""

    def register(find: Callable[[Notebook, Path], Iterator[Fault]]) -> Rule:
        @functools.wraps(find)
        def check(notebook: Notebook, path: Path) -> None:
            faults = list(find(notebook, path))
            if faults:
                place, what = faults[0]
                more = f" (and {len(faults) - 1} more of this rule)" if faults[1:] else ""
                raise AssertionError(f"{find.__name__}: cell {place} of {path.name} {what}{more}")

        check.kinds = kinds  # type: ignore[attr-defined]
        RULES.append(check)
        return check

    return register


def rules_of(kind: str) -> list[Rule]:
    """The rules for one kind of notebook."""
    return [rule for rule in RULES if kind in rule.kinds]  # type: ignore[attr-defined]


def kind_of(path: Path) -> str:
    """Whether a notebook is a lesson, a solution or a starter, by its folder."""
    return {"notebooks": LESSON, "solutions": SOLUTION}.get(path.parent.name, STARTER)


def broken(notebook: Notebook, path: Path, kind: str = "") -> dict[str, str]:
    """The rules that a notebook breaks, each with its sentence."""
    found = {}
    for check in rules_of(kind or kind_of(path)):
        try:
            check(notebook, path)
        except AssertionError as problem:
            found[check.__name__] = str(problem)
    return found


# --- parts of a notebook --------------------------------------------------------------------------------------------
def code(notebook: Notebook) -> list[tuple[int, Any]]:
    """The code cells, each with its place among all cells."""
    return [(place, cell) for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def compared(notebook: Notebook) -> list[tuple[int, Any]]:
    """The code cells whose output nbval compares."""
    return [(place, cell) for place, cell in code(notebook) if IGNORED not in tags(cell)]


def text_of(output: Any) -> str:
    """What an output says, in all of its forms."""
    said = [
        output.get("text", ""),
        *(data for form, data in output.get("data", {}).items() if form.startswith("text/")),
    ]
    return "\n".join(map(str, said))


def is_definition(source: str) -> bool:
    """Whether a cell only imports, defines and assigns, so that it has nothing to show."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return all(isinstance(node, kinds) or _is_setting(node) for node in ast.parse(source).body)


def _is_setting(node: ast.stmt) -> bool:
    """`set_seed(...)`, `lesson.used(...)` and `lesson.measure(...)` show nothing by design."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return ast.unparse(node.value.func) in ("set_seed", "lesson.used", "lesson.measure", "trainer.save_model")


# --- what nbval compares --------------------------------------------------------------------------------------------
@rule(LESSON)
def each_cell_is_compared_or_says_why_not(notebook: Notebook, path: Path) -> Iterator[Fault]:
    """nbval skips what a comment or another tag tells it to skip."""
    for place, cell in code(notebook):
        reason = str(cell.metadata.get("ftlab", {}).get("ignored_because", ""))
        if IGNORED in tags(cell) and len(reason) <= 10:
            yield place, f"is ignored, and its metadata do not say why: ignored_because is {reason!r}"
        if IGNORED not in tags(cell) and reason:
            yield place, f"says why it is ignored ({reason!r}), and has no tag {IGNORED}"


@rule(*ALL)
def no_comment_and_no_other_tag_tells_nbval_what_to_do(notebook: Notebook, path: Path) -> Iterator[Fault]:
    for place, cell in enumerate(notebook.cells):
        for tag in tags(cell):
            if not TAGS.fullmatch(tag):
                yield place, f"has the tag {tag!r}; known are {TAGS.pattern}"
        if cell.cell_type == "code" and (found := re.search(r"#\s*((NBVAL|PYTEST_VALIDATE)\w*)", cell.source, re.I)):
            yield place, f"has the comment {found[1]}, which overrules a tag"


@rule(LESSON)
def few_cells_are_ignored(notebook: Notebook, path: Path) -> Iterator[Fault]:
    cells = code(notebook)
    ignored = [place for place, cell in cells if IGNORED in tags(cell)]
    if len(ignored) > len(cells) / 4:
        yield ignored[-1], f"is one of {len(ignored)} ignored cells among {len(cells)}; a quarter may be ignored"


@rule(LESSON)
def a_compared_cell_shows_what_can_be_compared(notebook: Notebook, path: Path) -> Iterator[Fault]:
    """nbval passes a cell that has neither, and skips the picture of a figure."""
    for place, cell in compared(notebook):
        if not cell.outputs and not is_definition(cell.source):
            yield place, f"is compared, and has no output and is no definition: {cell.source.splitlines()[0]!r}"
        for output in cell.outputs:
            shown = set(output.get("data", {})) - NOT_COMPARED
            if output.output_type in ("display_data", "execute_result") and not shown:
                yield (
                    place,
                    f"shows only {', '.join(output.get('data', {})) or 'nothing'}, which nbval does not compare",
                )
            if output.output_type == "stream" and not output.text.strip():
                yield place, "is compared, and has printed nothing but white space"


@rule(*EXECUTED)
def cells_ran_once_and_in_order(notebook: Notebook, path: Path) -> Iterator[Fault]:
    for expected, (place, cell) in enumerate(code(notebook), start=1):
        if cell.execution_count != expected:
            yield place, f"has the execution count {cell.execution_count}; expected {expected}"
        for output in cell.outputs:
            if output.get("execution_count", cell.execution_count) != cell.execution_count:
                yield (
                    place,
                    f"has an output of the execution {output.execution_count}; its own is {cell.execution_count}",
                )


@rule(STARTER)
def a_starter_has_not_run(notebook: Notebook, path: Path) -> Iterator[Fault]:
    for place, cell in code(notebook):
        if cell.outputs or cell.execution_count is not None:
            yield place, "has an output or an execution count, and a starter has none"


# --- what outputs hold ----------------------------------------------------------------------------------------------
@rule(*EXECUTED)
def no_error_and_nothing_on_stderr(notebook: Notebook, path: Path) -> Iterator[Fault]:
    for place, cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield place, f"ends in {output.ename}"
            if output.get("name") == "stderr":
                yield place, f"speaks on stderr: {output.text.strip()[:80]!r}"


@rule(*EXECUTED)
def no_warning_in_an_output(notebook: Notebook, path: Path) -> Iterator[Fault]:
    """Also not on stdout; nor the last breath of a progress bar."""
    for place, cell in code(notebook):
        for output in cell.outputs:
            if found := WARNING.search(text_of(output)):
                yield place, f"shows a warning or a progress bar: {found[0]!r}"


@rule(*EXECUTED)
def outputs_are_free_of_machine_noise(notebook: Notebook, path: Path) -> Iterator[Fault]:
    if set(notebook.metadata) != {"kernelspec", "language_info"} or notebook.metadata.language_info != {
        "name": "python"
    }:
        yield 0, "stands in a notebook with metadata beyond the kernel and the language"
    for place, cell in enumerate(notebook.cells):
        if odd := set(cell.metadata) - {"tags", "ftlab"}:
            yield place, f"has the metadata {', '.join(sorted(odd))}"
        for output in cell.get("outputs", []):
            noise = r"/(?:tmp|home|root|Users|work)/\w*| at 0x[0-9a-f]+|\d/\d+ \d\d:\d\d"
            if found := re.search(noise, str(output)):
                yield place, f"shows {found[0]!r}, which another machine or run would not"
    if len(nbformat.writes(notebook)) >= 1_000_000:
        yield 0, "stands in a notebook of a megabyte or more"


@rule(*EXECUTED)
def a_figure_has_an_alternative_text(notebook: Notebook, path: Path) -> Iterator[Fault]:
    """And nbval compares it: it is the figure's plain form, too."""
    for place, cell in code(notebook):
        for output in cell.outputs:
            if "image/png" not in output.get("data", {}):
                continue
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if len(alt) <= 20:
                yield place, f"shows a figure whose alternative text is {alt!r}; expected a sentence"
            elif output.data.get("text/plain") != f"[figure] {alt}":
                yield place, "shows a figure whose plain form is not its alternative text, so nbval does not compare it"


@rule(LESSON)
def a_lesson_has_figures(notebook: Notebook, path: Path) -> Iterator[Fault]:
    figures = [
        place for place, cell in code(notebook) if any("image/png" in one.get("data", {}) for one in cell.outputs)
    ]
    if len(figures) < 2:
        yield len(notebook.cells) - 1, f"ends a lesson with {len(figures)} figures; expected two or more"


# --- claims and budgets ---------------------------------------------------------------------------------------------
@rule(LESSON)
def a_claim_s_line_has_the_bound_of_its_code(notebook: Notebook, path: Path) -> Iterator[Fault]:
    """A line that looks like a claim comes from one `lesson.claim`, holds, and says what the code and profile say.

    And each `lesson.claim` that is in no branch has printed its line.
    """
    budget = profiles.table().get(path.stem.partition("_")[2], {}).get("cpu", {})
    for place, cell in code(notebook):
        lines = [found for output in cell.outputs for found in CLAIM.findall(text_of(output))]
        calls = claim_tables.calls_in(cell.source)
        for sign, text, said in lines:
            makers = [call for call in calls if call.makes(text)]
            if len(makers) != 1:
                source = f"that {len(makers)} calls of `lesson.claim` make" if makers else "without `lesson.claim`"
                yield place, f"prints a claim {source}: {text!r}"
                continue
            bound = _bound(makers[0], budget)
            if sign == "✗":
                yield place, f"has a claim that does not hold: {text!r}"
            elif makers[0].stored != (sign != "✓"):
                yield place, f"claims with stored={makers[0].stored} and has printed {sign!r}: {text!r}"
            elif not re.fullmatch(re.escape(bound).replace(claim_tables.VALUE, r"\S+"), said):
                yield place, f"claims {bound!r} and has printed {said!r}: {text!r}"
        for call in calls:
            if call.certain and not any(call.makes(text) for _, text, _ in lines):
                yield place, f"claims what it has not printed: {call.words!r}"


def _bound(call: Any, budget: dict[str, Any]) -> str:
    """The bound in a claim's line, with VALUE for a number that neither the code nor the budget tells."""
    ends = []
    for name in ("at_least", "at_most"):
        if (end := call.keywords.get(name, "None")) != "None":
            try:
                value = ast.literal_eval(end)
            except ValueError:
                value = budget.get(end.removeprefix("budget."))
            ends.append(f"{name.replace('_', ' ')} {claim_tables.VALUE if value is None else f'{value:g}'}")
    return " and ".join(ends)


@rule(LESSON)
def the_stored_budget_is_that_of_the_profile(notebook: Notebook, path: Path) -> Iterator[Fault]:
    """Who changes profiles.toml runs the lesson anew."""
    slug = path.stem.partition("_")[2]
    place, cell = code(notebook)[1]
    shown = "".join(map(text_of, cell.outputs))
    line = re.compile(r"<tr><td[^>]*>(.*?)</td><td[^>]*>(.*?)</td><td[^>]*>(.*?)</td></tr>")
    stored = {name: value for name, value, _ in line.findall(shown)}
    for name, value, _ in line.findall(profiles.resolve(slug, "cpu", {"seed": 0})._repr_html_()):
        if stored.get(name) != value:
            yield place, f"shows the budget {name} as {stored.get(name, 'nothing')}; profiles.toml says {value}"


# --- the form of a lesson -------------------------------------------------------------------------------------------
@rule(LESSON)
def the_first_code_cell_holds_the_annotated_parameters(notebook: Notebook, path: Path) -> Iterator[Fault]:
    (place, first), (next_place, second) = code(notebook)[:2]
    if "parameters" not in tags(first):
        yield place, "is the first cell of code, and has no tag `parameters`"
    declared = {node.target.id: node for node in ast.parse(first.source).body if isinstance(node, ast.AnnAssign)}
    budget = profiles.table()[path.stem.partition("_")[2]]["cpu"]
    if list(declared)[:2] != ["profile", "seed"]:
        yield place, f"begins its parameters with {', '.join(list(declared)[:2])}; expected profile, seed"
    for name, node in declared.items():
        if name not in {"profile", "seed", *profiles.COLUMNS, *budget}:
            yield place, f"has the parameter {name}, which no profile has"
        default = {"profile": "cpu", "seed": 0}.get(name)
        if node.value is None or ast.unparse(node.value) != repr(default):
            yield place, f"sets {ast.unparse(node)}; expected {default!r}, as the profile says"
    if f'begin("{path.stem}", globals())' not in second.source:
        yield next_place, f'does not call begin("{path.stem}", globals()), so the parameters do not reach the lesson'


@rule(LESSON)
def the_header_says_minutes_needs_and_questions(notebook: Notebook, path: Path) -> Iterator[Fault]:
    header = notebook.cells[0].source
    if not header.startswith("# Lesson "):
        yield 0, "does not begin with '# Lesson '"
    for word in ("Takes", "Needs", "You can answer afterwards"):
        if f"**{word}**" not in header:
            yield 0, f"does not say **{word}**"


@rule(LESSON, STARTER)
def code_cells_are_short(notebook: Notebook, path: Path) -> Iterator[Fault]:
    lengths = {place: len(cell.source.splitlines()) for place, cell in code(notebook)}
    for place, length in lengths.items():
        if length > 25:
            yield place, f"has {length} lines of code; at most 25"
    if statistics.median(lengths.values()) >= 12:
        yield (
            max(lengths, key=lengths.__getitem__),
            "stands among cells of code whose median length is 12 lines or more",
        )


@rule(*ALL)
def a_heading_has_a_sentence(notebook: Notebook, path: Path) -> Iterator[Fault]:
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and re.fullmatch(r"#+ .*", cell.source.strip()):
            yield place, f"is a heading alone: {cell.source.strip()!r}"


@rule(LESSON)
def the_test_split_is_opened_through_the_lesson_which_records_it(notebook: Notebook, path: Path) -> Iterator[Fault]:
    for place, cell in code(notebook):
        if re.search(r"(?<!\blesson)\.open_test\(", cell.source):
            yield place, "opens the test split without `lesson.open_test`"


# --- prose ----------------------------------------------------------------------------------------------------------
NAMES = re.compile(
    r"\b[A-Za-z]\w*(?:-\w+)*-\d[\w.]*|\blessons? (?:\d\d(?:, | and | or |-)?)+|\blevel \d\b|^#+ step \d+:",
    re.IGNORECASE,
)
SENTENCE_ENDS = re.compile(r"(?<=[.?!])\s+(?=[A-Z(*`\[])")


@rule(*ALL)
def prose_holds_no_measured_number(notebook: Notebook, path: Path) -> Iterator[Fault]:
    """A number in prose stands in a cell of code, in a budget, beside its source, or is not there."""
    known = Path(profiles.__file__).with_name("profiles.toml").read_text(encoding="utf-8")
    if kind_of(path) != LESSON:
        known += (Path(profiles.__file__).parents[1] / "exercises" / "levels.toml").read_text(encoding="utf-8")
    known += " ".join(without_comments(cell.source) for _, cell in code(notebook))
    allowed = {number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", known)}
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        prose = re.sub(r"^\s*\d+\. ", "", cell.source, flags=re.MULTILINE)  # the points of a list
        for paragraph in re.split(r"\n\s*\n|\n(?=[|*-])", prose):
            for sentence in SENTENCE_ENDS.split(paragraph):
                cited = "](http" in sentence or "tutorial says" in sentence
                for number in () if cited else NUMBER.findall(plain(sentence, settings_tried(path.stem[:2]))):
                    if number.replace(",", "") not in allowed:
                        shown = " ".join(sentence.split())[:80]
                        yield place, f"has the number {number}, which no cell of code has: {shown!r}"


def plain(sentence: str, tried: Collection[str] = ()) -> str:
    """Prose without where links lead, the number of a lesson or a step, names, commands, and the settings `tried`."""
    sentence = re.sub(r"\[\d\d(: [^\]]*\]\()(?=\d\d_)", r"[\1", sentence)  # a lesson by its number and title
    sentence = re.sub(r"\]\([^)]*\)", "]", sentence)
    sentence = re.sub(r"`ftlab [^`]*`", "", sentence)  # a test runs it
    for setting in tried:
        sentence = sentence.replace(setting, "")
    return NAMES.sub("", sentence)


@functools.cache
def settings_tried(lesson: str) -> frozenset[str]:
    """What tests/promises.toml runs of a lesson, as its text asks a reader to set it: `rows=150`."""
    rows = tomllib.loads(Path(__file__).with_name("promises.toml").read_text(encoding="utf-8"))["run"]
    given = [row.get("parameters", {}) for row in rows if row["lesson"] == lesson]
    return frozenset(f"`{name}={value}`" for parameters in given for name, value in parameters.items())


def without_comments(source: str) -> str:
    """Code without its comments, where a measured number may not hide."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return " ".join(token.string for token in tokens if token.type != tokenize.COMMENT)


# --- where it leads, and what it calls ------------------------------------------------------------------------------
@rule(*ALL)
def links_lead_somewhere(notebook: Notebook, path: Path) -> Iterator[Fault]:
    everything = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for place, cell in enumerate(notebook.cells):
        found = (
            links.broken(path, cell.source, everything) if cell.cell_type == "markdown" else links.named(cell.source)
        )
        yield from ((place, f"has a link that leads nowhere: {one}") for one in found)


@rule(*ALL)
def the_installed_libraries_take_each_call(notebook: Notebook, path: Path) -> Iterator[Fault]:
    for name, what in api_rules.faults(api_rules.in_notebook(notebook)):
        yield int(name.removeprefix("cell ")), f"calls what its library has removed or deprecated, in {what}"
