"""Instruction data from Python's standard library: what is this function, class or method for?

The answers are the docstrings. They are read from the source files without importing a module: some modules open a
window or a browser on import.

Docstrings differ between versions of Python, and the training data of a lesson must not. So the rows of Python
MADE_WITH are shipped in rows/python_docstrings.jsonl (made by `as_lines(pairs())`), and the lessons read that file.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from ftlab.data import duplicates

MADE_WITH = "3.11.7"  # the Python whose docstrings are shipped
LEAST, MOST = 40, 400  # characters of an answer: shorter ones say little, longer ones are manuals
# Tests, whole programs, and modules that are not in every Python from 3.11 on.
LEFT_OUT = {
    "antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data", "test", "this", "tkinter",
    "turtle", "turtledemo",
}  # fmt: skip
# Decorators of names that are not called: properties, and the forms of `typing`.
NOT_CALLED = {
    "property", "cached_property", "DynamicClassAttribute", "setter", "getter", "deleter", "_SpecialForm",
    "_LiteralSpecialForm",
}  # fmt: skip
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def pairs() -> pd.DataFrame:
    """Return columns id, module, instruction, input (the call) and output (the first paragraph of the docstring).

    There is one row for each public function, class and method whose first paragraph has LEAST to MOST characters, in
    the order of the modules' names. Of equal and nearly equal docstrings (`duplicates.near`) the first is kept, so that
    no answer is learned from another module. The rows depend on the version of Python that runs.
    """
    return _pairs().copy()


def as_lines(table: pd.DataFrame) -> str:
    """Return `table`, the rows of `pairs`, as JSON Lines in ASCII, as they are shipped."""
    return "".join(f"{json.dumps(row)}\n" for row in table.to_dict("records"))


@cache
def _pairs() -> pd.DataFrame:
    lines = []
    for module, path in _modules():
        for name, node in _public(ast.parse(path.read_text(encoding="utf-8"))):
            answer = _first_paragraph(ast.get_docstring(node) or "")
            if not LEAST <= len(answer) <= MOST:
                continue
            full = f"{module}.{name}"
            lines.append(
                {
                    "id": f"python-{full}",
                    "module": module.partition(".")[0],
                    "instruction": f"What is `{full}` for?",
                    "input": _call(name, node),
                    "output": answer,
                }
            )
    table = pd.DataFrame(lines).drop_duplicates("id")  # a property and its setter share a name
    alike = pd.Series(duplicates.near_copies(table["output"].tolist()), table.index)
    return table[~alike.duplicated()].reset_index(drop=True)


def _modules() -> Iterator[tuple[str, Path]]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in sorted(sys.stdlib_module_names - LEFT_OUT):
        if name.startswith("_"):
            continue
        if (library / f"{name}.py").is_file():
            yield name, library / f"{name}.py"
        for path in sorted((library / name).rglob("*.py")):
            parts = path.relative_to(library).with_suffix("").parts
            if not any((part.startswith("_") and part != "__init__") or part in ("test", "tests") for part in parts):
                yield ".".join(part for part in parts if part != "__init__"), path


def _public(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{prefix}{node.name}.")


def _call(name: str, node: Definition) -> str:
    """The call: `copy(src, dst, *, follow_symlinks=True)`; a class by its `__init__`, a property by its name."""
    bound = "." in name
    if isinstance(node, ast.ClassDef):
        starts = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not starts:
            return f"class {name}"
        node, bound = starts[0], True
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
    if marks & NOT_CALLED:
        return name
    if bound and "staticmethod" not in marks and (before := node.args.posonlyargs or node.args.args):
        del before[0]  # the object itself, or its class
    return f"{name}({ast.unparse(node.args)})"


def _first_paragraph(docstring: str) -> str:
    """The first paragraph on one line, or "" if it is a signature, an example or a heading."""
    paragraph = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    if not re.match(r"[A-Z].*\w", paragraph) or re.search(r">>>|->|::|^[A-Z]?\w*\(|:$", paragraph):
        return ""
    return paragraph if paragraph.endswith((".", "!", "?")) else f"{paragraph}."
