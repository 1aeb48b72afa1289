"""Python's standard library as instruction data: what is this function, class or method for?

The answers stand in its docstrings, written by those who wrote the code. They are read out of the source files, and no
module is imported: some of them open a window or a browser when they are.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

LEAST, MOST = 40, 400  # characters of an answer: shorter ones say little, longer ones are manuals
# Tests, programs of their own, and what is not in each Python from 3.11 on.
LEFT_OUT = {
    "antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data", "test", "this", "tkinter",
    "turtle", "turtledemo",
}  # fmt: skip
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def pairs() -> pd.DataFrame:
    """Columns id, module, instruction, input (how it is called) and output (the first paragraph of its docstring).

    One row for each public function, class and method whose docstring says something in LEAST to MOST characters; of
    those that share a docstring the first. In the order of the modules' names. Which rows there are depends on the
    version of Python.
    """
    lines, seen = [], set()
    for module, path in _modules():
        for name, node in _public(ast.parse(path.read_text(encoding="utf-8"))):
            answer = _first_paragraph(ast.get_docstring(node) or "")
            if not LEAST <= len(answer) <= MOST or answer in seen:
                continue
            seen.add(answer)
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
    return pd.DataFrame(lines)


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
    """How it is called: `copy(src, dst, *, follow_symlinks=True)`; a class by its `__init__`."""
    if isinstance(node, ast.ClassDef):
        starts = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not starts:
            return f"class {name}"
        node = starts[0]
    arguments = ast.unparse(node.args)
    return f"{name}({re.sub(r'^(self|cls)(, )?', '', arguments)})"


def _first_paragraph(docstring: str) -> str:
    """Its first paragraph on one line; nothing where it is a signature, an example or a heading."""
    paragraph = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    if not re.match(r"[A-Z].*\w", paragraph) or re.search(r">>>|->|::|^[A-Z]?\w*\(|:$", paragraph):
        return ""
    return paragraph if paragraph.endswith((".", "!", "?")) else f"{paragraph}."
