"""Calls of the pinned libraries as they are installed: no name that is gone, no argument that is unknown or deprecated.

Everything is read from the installed libraries: names by importing them, arguments from signatures, and what is
deprecated from their own source: `deprecate_kwarg`, the warnings that they give, what they pop for the sake of old code
("BC"), and docstrings that say so.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat

from tests import pages

CHECKED = (
    "accelerate", "bitsandbytes", "datasets", "evaluate", "huggingface_hub", "matplotlib", "numpy", "pandas", "peft",
    "safetensors", "scipy", "seaborn", "sklearn", "torch", "transformers", "trl",
)  # fmt: skip
WARNERS = {"warn", "warning", "warning_once", "warn_once", "warn_deprecated"}
GOING = re.compile(r" (?:is|are|has been|have been|was) (?:now )?deprecated", re.IGNORECASE)
DOCUMENTED = re.compile(
    r"^ *(\w+) ?(?:\([^)]*\))?: *\n? *(\W*(?:This \w+ is )?deprecated\b.*)", re.MULTILINE | re.IGNORECASE
)
OLD = re.compile(r"#.*\b(BC|backward\w* compat\w*)\b", re.IGNORECASE)
UNKNOWN, MISSING = object(), object()  # what the source does not tell; what a library does not have


# --- code that is checked -------------------------------------------------------------------------------------------
def in_notebook(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """The code cells of a notebook, each with its number."""
    cells = [(f"cell {place}", cell) for place, cell in enumerate(notebook.cells)]
    return [(name, cell.source) for name, cell in cells if cell.cell_type == "code"]


def files(repository: Path) -> list[Path]:
    """Every other file with code for a reader or for the package: modules, scripts, and pages with Python blocks."""
    scripts = [
        *(repository / "ftlab").rglob("*.py"), *(repository / "docs").rglob("*.py"),
        *(repository / "benchmarks").rglob("*.py"),
    ]  # fmt: skip
    return sorted([*scripts, *pages.markdown_files(repository)])


def in_file(path: Path) -> list[tuple[str, str]]:
    """The code of a module, or the Python blocks of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return [("", text)]
    found = [(f"block {number}", code) for number, code in enumerate(pages.blocks(text, "python"), start=1)]
    return [(name, code) for name, code in found if not code.startswith(("!", "%"))]  # a shell's


# --- the rule -------------------------------------------------------------------------------------------------------
def faults(parts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each call and import that the installed libraries refuse, warn of, or no longer have.

    Args:
        parts: the code of one notebook, module or page, each part with its name; a name that one part imports is known
            in those after it.

    Yields:
        The name of the part, and what is wrong in it.
    """
    known: dict[str, Any] = {}
    for name, source in parts:
        reader = _Reader(known)
        reader.read(ast.parse(textwrap.dedent(source)))
        yield from ((name, found) for found in reader.faults)


class _Reader(ast.NodeVisitor):
    """Goes through code in the order in which it runs: functions last, when the names of their module are known."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known
        self.faults: list[str] = []
        self._local: dict[str, Any] = {}  # the arguments of the functions around
        self._later: list[tuple[Sequence[ast.AST], dict[str, Any]]] = []

    def read(self, tree: ast.AST) -> None:
        self.visit(tree)
        outside = self.known
        while self._later:
            body, self._local = self._later.pop(0)
            self.known = {**outside, **self._local}
            for node in body:
                self.visit(node)
        self.known = outside

    def _say(self, node: ast.AST, found: Iterator[str]) -> None:
        self.faults += [f"line {getattr(node, 'lineno', 1)}: {one}" for one in found]

    def visit_Import(self, node: ast.Import) -> None:
        self._say(node, _imported(node, self.known))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._say(node, _imported(node, self.known))

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)  # which makes each target unknown
        if isinstance(node.targets[0], ast.Name):
            self.known[node.targets[0].id] = _value(node.value, self.known)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.known[node.id] = UNKNOWN

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.known[node.name] = UNKNOWN
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
        names = [one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)]
        self._later.append((node.body, {**self._local, **dict.fromkeys(names, UNKNOWN)}))

    def visit_Lambda(self, node: ast.Lambda) -> None:
        names = [one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)]
        self._later.append(([node.body], {**self._local, **dict.fromkeys(names, UNKNOWN)}))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = _value(node.value, self.known)
        known = isinstance(owner, ModuleType) and owner.__name__.partition(".")[0] in CHECKED
        if known and _resolve(owner, node.attr) is MISSING:
            self._say(node, iter([f"{owner.__name__} has no {node.attr}"]))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = _value(node.func, self.known)
        if callable(called) and called is not UNKNOWN:
            self._say(node, _called(called, node, self.known))


def _imported(node: ast.Import | ast.ImportFrom, known: dict[str, Any]) -> Iterator[str]:
    module = getattr(node, "module", None)
    for alias in node.names:
        name = module or alias.name
        if name.partition(".")[0] not in CHECKED:
            if isinstance(node, ast.ImportFrom) or alias.asname or "." not in name:
                known[alias.asname or alias.name.partition(".")[0]] = UNKNOWN
            continue
        try:
            there = importlib.import_module(name)
        except ImportError:
            yield f"there is no module {name}"
            continue
        if isinstance(node, ast.Import):
            top = name.partition(".")[0]
            known[alias.asname or top] = there if alias.asname else importlib.import_module(top)
        elif (found := _resolve(there, alias.name)) is MISSING:
            yield f"{name} has no {alias.name}"
        else:
            known[alias.asname or alias.name] = found


def _resolve(owner: Any, name: str) -> Any:
    """An attribute or a submodule of `owner`, or MISSING."""
    try:
        return getattr(owner, name)
    except (AttributeError, ImportError):
        pass
    try:
        return importlib.import_module(f"{owner.__name__}.{name}")
    except (ImportError, AttributeError):
        return MISSING


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """What an expression is, as far as the source tells: an object of a library, a class's instance, or a dict."""
    if isinstance(node, ast.Name):
        return known.get(node.id, UNKNOWN)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, known)
        if isinstance(owner, Instance):
            return getattr(owner.kind, node.attr, UNKNOWN)
        if owner is UNKNOWN or isinstance(owner, dict):
            return UNKNOWN
        found = _resolve(owner, node.attr)
        return UNKNOWN if found is MISSING else found
    if isinstance(node, ast.Dict):
        return {key.value: UNKNOWN for key in node.keys if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "dict":
            return {word.arg: UNKNOWN for word in node.keywords if word.arg}
        made = _value(node.func, known)
        if inspect.isclass(made) and made.__module__.partition(".")[0] in CHECKED:
            return Instance(made)
    return UNKNOWN


class Instance:
    """Something that a class of a library made."""

    def __init__(self, kind: type) -> None:
        self.kind = kind


def _called(called: Any, node: ast.Call, known: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(called, Instance | dict) or getattr(builtins, getattr(called, "__name__", ""), None) is called:
        return
    name = ast.unparse(node.func)
    words = [word.arg for word in node.keywords if word.arg]
    for word in node.keywords:
        if word.arg is None and isinstance(value := _value(word.value, known), dict):
            words += [key for key in value if isinstance(key, str)]
    accepted, anything = parameters(called)
    going = deprecated(called)
    for word in words:
        if word in going:
            yield f"{name}({word}=...) is deprecated ({going[word]})"
        elif word not in accepted and not anything:
            yield f"{name} takes no {word}"
    if getattr(called, "__name__", "") == "pipeline" and node.args and isinstance(node.args[0], ast.Constant):
        task = node.args[0].value
        if task not in _tasks() and not str(task).startswith("translation_"):
            yield f"{name} has no task {task!r}"


# --- what the libraries say -----------------------------------------------------------------------------------------
@functools.cache
def _tasks() -> frozenset[str]:
    from transformers.pipelines import get_supported_tasks

    return frozenset(get_supported_tasks())


@functools.cache
def parameters(called: Any) -> tuple[frozenset[str], bool]:
    """The names that a function or class takes, and whether it also takes names that are unknown."""
    if getattr(called, "__name__", "") == "from_pretrained":
        return _of_from_pretrained(called), not _of_from_pretrained(called)
    try:
        found = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # written in C
        return frozenset(), True
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in found)
    return frozenset(one.name for one in found), anything


@functools.cache
def _of_from_pretrained(called: Any) -> frozenset[str]:
    """What the `from_pretrained` of a model takes: what its source reads, and what is a setting of a configuration."""
    import transformers

    owner = getattr(called, "__self__", None)
    models = (transformers.PreTrainedModel, *_auto_models())
    if not (inspect.isclass(owner) and issubclass(owner, models)):
        return frozenset()
    names = {"revision", "token", "cache_dir", "force_download", "local_files_only", "proxies", "subfolder"}
    for function in (transformers.PreTrainedModel.from_pretrained, _auto_models()[0].from_pretrained):
        source = _source(function)
        names |= set(re.findall(r"kwargs(?:\.pop|\.get|\.setdefault)?[(\[]\s*\"(\w+)\"", source))
        names |= set(re.findall(r"^\s+\"(\w+)\",$", source, re.MULTILINE))  # a tuple of names
        names |= set(inspect.signature(function).parameters)
    for config in _configurations():
        names |= set(inspect.signature(config).parameters) | {name for name in dir(config()) if name[0] != "_"}
    return frozenset(names)


@functools.cache
def _auto_models() -> tuple[type, ...]:
    import transformers

    return (transformers.AutoModelForCausalLM.__mro__[1],)


def _configurations() -> Iterator[type]:
    import transformers

    for kind in ("DistilBert", "Bert", "Roberta", "GPT2", "Phi", "Llama", "Qwen2"):
        yield getattr(transformers, f"{kind}Config")


@functools.cache
def deprecated(called: Any) -> Mapping[str, str]:
    """The arguments of a function or class that its library calls deprecated, each with the library's words."""
    found: dict[str, str] = {}
    accepted, anything = parameters(called)
    for place in _places(called):
        for name, words in _said(place).items():
            if name in accepted or anything or name in _kwarg_names(place):
                found.setdefault(name, words)
    return found


def _places(called: Any) -> Iterator[Any]:
    """Where an argument of `called` is read: itself, or the constructors of a class and of what it inherits from."""
    if not inspect.isclass(called):
        yield called
        if getattr(called, "__name__", "") == "from_pretrained" and _of_from_pretrained(called):
            import transformers

            yield from (transformers.PreTrainedModel.from_pretrained, _auto_models()[0].from_pretrained)
        return
    for base in called.__mro__:
        if base.__module__.partition(".")[0] in CHECKED:
            yield from (vars(base)[name] for name in ("__init__", "__post_init__", "__new__") if name in vars(base))
            yield base


@functools.cache
def _source(place: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(place)))
    except (OSError, TypeError):
        return ""


def _kwarg_names(place: Any) -> set[str]:
    return set(re.findall(r"kwargs\.(?:pop|get)\(\s*\"(\w+)\"", _source(place)))


@functools.cache
def _said(place: Any) -> dict[str, str]:
    """What the source of one function says is deprecated; of a class, what its docstring and its fields say."""
    found: dict[str, str] = {}
    documentation = inspect.getdoc(place) or ""
    # "name (`type`): Deprecated ..." among the arguments of a docstring.
    for name, words in DOCUMENTED.findall(documentation):
        found[name] = words.strip()
    found |= _named(documentation)
    if inspect.isclass(place):
        for name, field in vars(place).get("__dataclass_fields__", {}).items():
            if re.match(r"\W*(this \w+ is )?deprecated", str(field.metadata.get("help", "")), re.IGNORECASE):
                found[name] = field.metadata["help"]
        return found
    source = _source(place)
    if not source:
        return found
    for old, new in re.findall(r"@deprecate_kwarg\(\s*\"(\w+)\"(?:[^)]*?new_name=\"(\w+)\")?", source):
        found[old] = f"use {new}" if new else "deprecate_kwarg"
    lines = source.splitlines()
    for number, line in enumerate(lines):
        above = lines[number - 1] if number else ""
        for name in re.findall(r"kwargs\.(?:pop|get)\(\"(\w+)\"", line):
            if OLD.search(line) or (OLD.search(above) and re.search(rf"\b{name}`* argument", above)):
                found[name] = "kept for old code"
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return found
    for words in _warnings(tree):
        found |= _named(words)
    return found


def _named(words: str) -> dict[str, str]:
    """The argument in backticks before "is deprecated". With a value, `name=value`, it is the value that is so."""
    found = {}
    for match in GOING.finditer(words):
        before = re.split(r"\.\s|\n\n", words[: match.start()])[-1]  # its sentence
        passing = re.match(r"\s*Passing (?:the )?`+(\w+)`+", before)
        if named := passing or re.search(r"`+(?:\w+\.)*(\w+)`+(?: argument| parameter| keyword)*$", before):
            found[named[1]] = " ".join((named[0] + words[match.start() : match.end() + 60]).split())
    return found


def _warnings(tree: ast.AST, loops: Mapping[str, list[str]] | None = None) -> Iterator[str]:
    """The texts of the warnings in a function; those in a loop over written-out names once for each name."""
    loops = dict(loops or {})
    for node in ast.iter_child_nodes(tree):
        inside = loops
        if isinstance(node, ast.For):
            inside = loops | _names_of(node)
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in WARNERS
            and node.args
        ):
            yield from _texts(node.args[0], inside)
        yield from _warnings(node, inside)


def _names_of(loop: ast.For) -> dict[str, list[str]]:
    """The first of the values that a loop over a written-out tuple gives to each of its names."""
    try:
        values = list(ast.literal_eval(loop.iter))
    except (ValueError, TypeError, SyntaxError):
        return {}
    if isinstance(loop.target, ast.Name):
        return {loop.target.id: [str(value) for value in values]}
    names = [target.id for target in getattr(loop.target, "elts", []) if isinstance(target, ast.Name)]
    return {name: [str(value[place]) for value in values] for place, name in enumerate(names)}


def _texts(node: ast.expr, loops: Mapping[str, list[str]]) -> Iterator[str]:
    """A text with its parts in braces filled in from `loops`, where they are known."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    if isinstance(node, ast.BinOp):
        for left in _texts(node.left, loops):
            yield from (left + right for right in _texts(node.right, loops))
    if isinstance(node, ast.JoinedStr):
        count = max([1, *(len(loops[part]) for part in map(_plain, node.values) if part in loops)])
        for number in range(count):
            yield "".join(
                str(part.value)
                if isinstance(part, ast.Constant)
                else (loops.get(_plain(part)) or ["..."] * count)[number]
                for part in node.values
            )


def _plain(part: ast.expr) -> str:
    return ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
