"""A caller learns from a public function's docstring what goes in, what comes out, and what can go wrong."""

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ftlab

FOLDER = Path(ftlab.__file__).parent
COMPLETE = 0.9  # of the public functions and methods


def public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The public functions and methods of a module, with their names."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{prefix}{node.name}.")
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node


def raised(function: ast.FunctionDef) -> set[str]:
    """The exceptions that a function raises itself, and not in a function inside it."""
    found, waiting = set(), list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = error.id if isinstance(error, ast.Name) else getattr(error, "attr", "")
            found |= {name} if name[:1].isupper() else set()
        waiting += ast.iter_child_nodes(node)
    return found


def missing(function: ast.FunctionDef) -> list[str]:
    """What a docstring does not say: a parameter, what is returned, an exception."""
    text, given = ast.get_docstring(function) or "", function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [each.arg for each in (given.vararg, given.kwarg) if each]
    lacks = [
        name
        for name in names
        if name not in ("self", "cls")
        and not name.startswith("_")
        and not re.search(rf"`\**{name}\b|^\s*([\w*]+, )*\**{name}(, [\w*]+)*:", text, re.MULTILINE)
    ]
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    returns = ast.unparse(function.returns) if function.returns else "None"
    told = re.search(r"\b(returns?|yields?|gives?)\b", text, re.IGNORECASE)
    if returns not in ("None", "NoReturn") and not told and not decorators & {"property", "cached_property"}:
        lacks.append("what is returned")
    return [*lacks, *(error for error in raised(function) if error not in text)]


def test_nine_in_ten_public_functions_say_what_a_caller_needs():
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        module = path.relative_to(FOLDER).with_suffix("").as_posix()
        for name, function in public(ast.parse(path.read_text(encoding="utf-8")).body, f"{module}:"):
            found[name] = missing(function)
    incomplete = {name: lacks for name, lacks in found.items() if lacks}
    assert len(incomplete) <= (1 - COMPLETE) * len(found), incomplete


EXAMPLES = [
    path
    for path in sorted(FOLDER.rglob("*.py"))
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_the_examples_in_docstrings_are_true(path):
    name = ".".join(("ftlab", *path.relative_to(FOLDER).with_suffix("").parts)).removesuffix(".__init__")
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def defined(path: Path) -> set[str]:
    """The names of a module: defined there, or imported."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def test_what_a_docstring_a_comment_or_a_message_points_to_is_there():
    """`module.name` in backticks, where the module is ours; modules of libraries are in internals."""
    ours = [path for path in FOLDER.rglob("*.py") if "internals" not in path.parts]
    names = {path.stem: defined(path) for path in ours}
    names |= {
        path.parent.name: {other.stem for other in path.parent.glob("*.py")} for path in ours if path.stem == "__init__"
    }
    names["ftlab"] |= {path.name for path in FOLDER.iterdir()}
    del names["config"]  # more often that of a model, in transformers
    lost = [
        f"{path.relative_to(FOLDER)}: {module}.{name}"
        for path in ours
        for module, name in re.findall(r"`([a-z_]+)\.([A-Za-z_]+)[`(]", path.read_text(encoding="utf-8"))
        if module in names and name not in names[module]
    ]
    assert lost == []
