"""The numbered notebooks: where they are, what they are called, which parameters they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlab import files
from ftlab.errors import BadInput


@dataclass(frozen=True)
class LessonFile:
    """A numbered notebook."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the notebook, "02_text_classification"."""
        return self.path.stem

    @property
    def number(self) -> str:
        """Its number, "02"."""
        return self.name.partition("_")[0]

    @property
    def slug(self) -> str:
        """Its name without the number, which is its name in profiles.toml."""
        return self.name.partition("_")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called on the command line."""
        return (self.number, str(int(self.number)), self.name, self.slug)

    def parameters(self) -> list[str]:
        """Return the names in its parameters cell, in order."""
        from papermill import inspect_notebook

        return list(inspect_notebook(self.path))


def notebooks_folder() -> Path:
    """Return the folder of the lessons: in the repository that ftlab is installed from, else in the current folder.

    Raises:
        BadInput: there is no such folder.
    """
    for base in (Path(__file__).resolve().parents[2], Path.cwd(), Path.cwd().parent):
        if any((base / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            return base / "notebooks"
    raise BadInput("there is no notebooks folder here; run ftlab in the folder of the course")


def lessons(wanted: Sequence[str] = ()) -> list[LessonFile]:
    """Return the lessons named in `wanted` (by number, name or path), or all of them, in the order of the course.

    Raises:
        BadInput: a name matches no lesson.
    """
    there = [LessonFile(path) for path in sorted(notebooks_folder().glob("[0-9][0-9]_*.ipynb"))]
    if not wanted:
        return there
    chosen = set()
    for name in wanted:
        fits = [lesson for lesson in there if name in lesson.names]
        if not fits and name.endswith(".ipynb"):
            path, exists = files.named_path(name, "the name of a lesson")
            fits = [each for each in there if (path.samefile(each.path) if exists else name == each.path.name)]
            if exists and not fits:
                raise BadInput(
                    f"{name} is not one of the lessons in {there[0].path.parent}, and ftlab run executes only these; "
                    "run a notebook of your own with papermill"
                )
        if not fits:
            raise BadInput(f"there is no lesson {name!r}; there are {', '.join(lesson.name for lesson in there)}")
        chosen.add(fits[0])
    return [lesson for lesson in there if lesson in chosen]
