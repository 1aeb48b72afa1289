"""`python -m ftlab.exercises.starters`: write the exercises, which are the solutions without their answers.

In a solution, a code cell with the tags `todo` and `step:<name>` begins with a comment `# TODO`, and is the answer to a
step of its level. The starter keeps the comment and the names that later cells need, each `...`. A cell with the tag
`solution-only` is left out, and all others are copied.

Later cells need what a copied cell reads, and what another todo cell reads if the comment names it, `like this`.
"""

from __future__ import annotations

import ast
import re
import symtable
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.errors import BadInput, CourseError
from ftlab.exercises.manifest import Level, levels

EXERCISES, SOLUTIONS = "exercises", "solutions"
TODO, STEP, SOLUTION_ONLY = "todo", "step:", "solution-only"
BLANK = "..."
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
SCOPES = (*DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def exercises_folder() -> Path:
    """Return the folder of the exercises: in the repository that ftlab is installed from, else in the current folder.

    Raises:
        BadInput: there is no such folder.
    """
    for base in (Path(__file__).resolve().parents[2], Path.cwd(), Path.cwd().parent):
        if any((base / EXERCISES / SOLUTIONS).glob("level[0-9]_*.ipynb")):
            return base / EXERCISES
    raise BadInput(f"there is no folder {EXERCISES}/{SOLUTIONS} with notebooks here; work in the folder of the course")


def solution_file(level: Level) -> Path:
    """Return the path of the notebook that solves `level`. Raises BadInput if it is missing."""
    path = exercises_folder() / SOLUTIONS / f"{level.notebook}.ipynb"
    if not path.is_file():
        raise BadInput(f"there is no solution of {level.name} at {path}; restore it from the repository of the course")
    return path


def solution_cells(level: Level) -> dict[str, str]:
    """Return the code that solves each step of `level`, by the name of the step, without its `# TODO`.

    Raises:
        BadInput: there is no solution, or its cells are not tagged as a starter needs it.
    """
    path = solution_file(level)
    cells = _todo_cells(_read(path), path.name, level.steps)
    return {name: _parts(cell.source, f"{path.name}, step {name}")[1].strip() for name, cell in cells.items()}


def starter(solution: Any, steps: Collection[str], name: str = "the solution") -> Any:
    """Return the starter of a notebook: a copy without answers, outputs and execution counts.

    Args:
        solution: the notebook that solves the level; it is not changed.
        steps: the names that its todo cells may have.
        name: what errors call the notebook.

    Raises:
        BadInput: a todo cell has no step of `steps`, does not begin with `# TODO` or is no Python, a step stands twice,
            or a cell that stays needs what only a todo cell imports.
    """
    from ftlab.course.refresh import strip_noise

    kept = strip_noise(solution)
    kept.cells = [cell for cell in kept.cells if SOLUTION_ONLY not in _tags(cell)]
    _todo_cells(kept, name, steps)
    for cell in kept.cells:
        if cell.cell_type == "markdown":  # a starter stands one folder higher, and links from there
            cell.source = cell.source.replace("](../", "](")
    codes = [cell for cell in kept.cells if cell.cell_type == "code"]
    trees = [_parsed(cell.source, name) for cell in codes]
    for number, (cell, tree) in enumerate(zip(codes, trees, strict=True)):
        cell.outputs, cell.execution_count = [], None
        if TODO in _tags(cell):
            comment, _ = _parts(cell.source, name)
            needed = _needed(tree, number, trees, [TODO in _tags(one) for one in codes], comment)
            cell.source = f"{comment}\n{_blanked(tree, cell.source, needed)}"
    _require_imports(codes, trees, name)
    return kept


def write_starters(wanted: Sequence[Level] = ()) -> list[Path]:
    """Write the starter of each level in `wanted` (all by default) into the folder of the exercises, and return them.

    Raises:
        BadInput: a solution is missing, or no starter can be made of it; or the folder cannot be written.
    """
    made = _generated(wanted)  # all of them, before the first is written
    for path, text in made.items():
        with files.atomic(path, error=BadInput) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(made)


def compare(wanted: Sequence[Level] = ()) -> list[str]:
    """Return the names of the starters that are missing, or are not what their solutions make of them today.

    `wanted` are the levels to compare, all by default. Raises BadInput as `write_starters` does.
    """
    made = _generated(wanted)
    return [path.name for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def _generated(wanted: Sequence[Level]) -> dict[Path, str]:
    import nbformat

    texts = {}
    for level in wanted or tuple(levels().values()):
        path = solution_file(level)
        made = starter(_read(path), level.steps, path.name)
        texts[exercises_folder() / path.name] = nbformat.writes(made).rstrip("\n") + "\n"
    return texts


def _read(path: Path) -> Any:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as problem:
        raise BadInput(f"{path} is no notebook that can be read ({type(problem).__name__}); restore it") from problem


def _tags(cell: Any) -> Sequence[str]:
    return cell.metadata.get("tags", [])


def _todo_cells(notebook: Any, name: str, steps: Collection[str]) -> dict[str, Any]:
    """Return the todo cells by step."""
    found: dict[str, Any] = {}
    for cell in notebook.cells:
        if TODO not in _tags(cell):
            continue
        named = [tag.removeprefix(STEP) for tag in _tags(cell) if tag.startswith(STEP)]
        if len(named) != 1 or named[0] not in steps or cell.cell_type != "code":
            raise BadInput(
                f"{name}: a cell tagged {TODO} has the steps {named}; expected a code cell with one tag "
                f"{STEP}<name>, of {', '.join(steps)}"
            )
        if named[0] in found:
            raise BadInput(f"{name}: two cells are tagged {STEP}{named[0]}; join them, or name another step")
        found[named[0]] = cell
    return found


def _parts(source: str, name: str) -> tuple[str, str]:
    """Return the comment that a todo cell begins with, and its code."""
    lines = source.splitlines()
    length = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if not source.startswith("# TODO"):
        raise BadInput(
            f"{name}: a cell tagged {TODO} begins with {lines[:1]}; expected a comment that begins with # TODO"
        )
    return "\n".join(lines[:length]), "\n".join(lines[length:])


def _parsed(source: str, name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as problem:
        line = (problem.text or "").strip()[:60]
        raise BadInput(f"{name}: the line {line!r} is no Python ({problem.msg}); expected plain Python") from problem


def _imports(tree: ast.AST) -> set[str]:
    """Return the names that imports bind."""
    found = [name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for name in node.names]
    return {(name.asname or name.name).partition(".")[0] for name in found}


def _reads(body: Iterable[ast.stmt]) -> set[str]:
    """Return the names that statements read before they assign them: what must be there when they run."""
    reads, there = set[str](), set[str]()
    for node in body:
        if isinstance(node, (ast.For, ast.With)):
            first: list[ast.AST] = (
                [node.iter] if isinstance(node, ast.For) else [one.context_expr for one in node.items]
            )
            targets = [node.target] if isinstance(node, ast.For) else [one.optional_vars for one in node.items]
            for header in first:
                reads |= _names(header) - there
            there |= {name for target in targets if target is not None for names in _bound(target) for name in names}
            reads |= _reads([*node.body, *getattr(node, "orelse", [])]) - there
        else:
            reads |= _names(node) - there
        there |= {name for names in _bound(node) for name in names} | _imports(node)
    return reads


def _names(node: ast.AST) -> set[str]:
    """Return the names of the notebook that `node` reads, also from inside a function or a comprehension."""
    top = symtable.symtable(ast.unparse(node), "cell", "exec")
    found = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    found |= {
        one.target.id for one in ast.walk(node) if isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name)
    }
    scopes = top.get_children()
    while scopes:
        scope = scopes.pop()
        found |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global() and symbol.is_referenced()}
        scopes += scope.get_children()
    return found


def _bound(node: ast.AST) -> Iterator[list[str]]:
    """Yield the names that `node` assigns in the notebook; those of a tuple together."""
    if isinstance(node, SCOPES):
        if isinstance(node, DEFINITIONS):
            yield [node.name]
    elif isinstance(node, ast.AugAssign):
        yield from _bound(node.value)
    elif isinstance(node, (ast.Name, ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Store):
        yield [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    else:
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)


def _needed(tree: ast.Module, number: int, trees: Sequence[ast.Module], todo: Sequence[bool], comment: str) -> set[str]:
    """Return the names of the todo cell `number` for which the starter has a blank: see the top of this module."""
    mine = {name for node in tree.body for names in _bound(node) for name in names}
    named = {name for name in mine if re.search(rf"`{name}\b", comment)}
    given = [node for one, left in zip(trees, todo, strict=True) if not left for node in one.body]
    needed = mine & set().union(*(_names(node) for node in given if isinstance(node, DEFINITIONS)))
    needed |= {node.name for node in tree.body if isinstance(node, DEFINITIONS)} & named
    for later, left in zip(trees[number + 1 :], todo[number + 1 :], strict=True):
        needed |= mine & _reads(later.body) & (named if left else mine)
        mine -= {name for node in later.body for names in _bound(node) for name in names}
    return needed


def _blanked(tree: ast.Module, source: str, needed: set[str]) -> str:
    """Return what the starter has instead of the code of a todo cell."""
    blanks: list[tuple[str, bool]] = []  # lines, and whether they are a function
    done = set[str]()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name in needed:
                blanks.append((_stub(node, source), True))
            continue
        for names in _bound(node):
            if wanted := [name for name in names if name in needed - done]:
                done.update(wanted)
                blanks.append((f"{', '.join(wanted)} = {', '.join([BLANK] * len(wanted))}", False))
    text = ""
    for number, (lines, function) in enumerate(blanks):
        apart = number and (function or blanks[number - 1][1])
        text += ("\n\n\n" if apart else "\n" if number else "") + lines
    return text or BLANK


def _stub(node: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> str:
    """Return a function with its signature and docstring, and `...` for its body."""
    lines, first = source.splitlines(), node.body[0]
    begin = min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1
    if ast.get_docstring(node) is not None:
        return "\n".join([*lines[begin : first.end_lineno], " " * first.col_offset + BLANK])
    head = lines[begin : first.lineno]
    head[-1] = head[-1].encode()[: first.col_offset].decode()
    while not head[-1].strip() or head[-1].lstrip().startswith("#"):  # a comment on the answer
        head.pop()
    head[-1] = head[-1].rstrip()
    return "\n".join(head) + (f" {BLANK}" if head[-1].endswith(":") else f"\n    {BLANK}")


def _require_imports(codes: Sequence[Any], before: Sequence[ast.Module], name: str) -> None:
    """Raise BadInput if a cell of the starter needs what only a todo cell of the solution imports."""
    after = [_parsed(cell.source, name) for cell in codes]
    dropped = set().union(*map(_imports, before)) - set().union(*map(_imports, after))
    if lost := sorted(dropped & set().union(*(_reads(tree.body) for tree in after))):
        raise BadInput(
            f"{name}: a cell of the starter needs {lost[0]}, which only a todo cell imports; import it elsewhere"
        )


if __name__ == "__main__":
    try:
        for made in write_starters():
            print(made)
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
