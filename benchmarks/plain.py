"""docs/plain, the scripts without ftlab, against the lessons: the same rows, the same settings, how good and how fast?

The lesson's side runs the code cells of the notebook, up to the one that trains. The four trainings run side by side,
each in a process with one thread, and the seconds are those of the processor, which other load changes little. What
makes the lessons fast on a CPU is what the scripts lack: bf16 where the processor has it, quick attention and dropout,
and logits only where a token is supervised.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import runpy
import sys
import tempfile
import time
import tokenize
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ftlab.course.bench import alone

REPOSITORY = Path(__file__).resolve().parents[1]
LESSONS = {"classification": "02_text_classification", "lora": "05_lora_phi2"}


def measure() -> dict[str, Any]:
    """Return, for each script, what it and its lesson reached and took, and whether the script keeps to the lesson."""
    from ftlab import files
    from ftlab.course import handout

    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # of the processes below
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as base, ThreadPoolExecutor() as side_by_side:
        started = {}
        for name, given in handout.write(Path(base) / "rows").items():
            script = REPOSITORY / "docs" / "plain" / f"{name}.py"
            source = script.read_text(encoding="utf-8")
            found[name] = {
                "model": given.model,
                "rows": given.sizes,
                "rows_sha256": {path.stem: files.sha256(path) for path in sorted(given.folder.iterdir())},
                "script_sha256": sha256(source),
                "script_code_lines": len(code(source)),
            }
            plain = ("script", script, given.weights, given.folder, Path(base) / name)
            lesson = ("lesson", LESSONS[name], Path(base) / LESSONS[name])
            started[name] = [side_by_side.submit(alone, __file__, *asked) for asked in (plain, lesson)]
        for name, (plain, lesson) in started.items():
            of_script, of_lesson = plain.result(), lesson.result()
            found[name] |= {
                "script": of_script,
                "lesson": of_lesson,
                "script_over_lesson_seconds": round(of_script["cpu_seconds"] / of_lesson["cpu_seconds"], 2),
            }
    measures = {"classification": "accuracy", "lora": "loss_after"}
    return {
        **found,
        "bars": {
            f"{name}: the script is within the lesson's interval": within(
                found[name]["script"][measured], found[name]["lesson"][measured]
            )
            for name, measured in measures.items()
        }
        | {f"{name}: at most 50 lines of code": found[name]["script_code_lines"] <= 50 for name in measures},
    }


def within(value: float, interval: dict[str, float]) -> bool:
    """Return whether `value` lies in `interval`, ends included."""
    return interval["low"] <= value <= interval["high"]


def code(source: str) -> list[str]:
    """Return the lines of a Python module that have code, without comments: no blank lines, and not its docstring.

    >>> code("x = 1  # one\\n\\n# two\\ny = 2\\n")
    ['x = 1', 'y = 2']
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    first = ast.parse(source).body[0]
    if isinstance(first, ast.Expr):  # the docstring
        lines[first.lineno - 1 : first.end_lineno] = []
    return [line.rstrip() for line in lines if line.strip()]


def sha256(source: str) -> str:
    """Return the SHA-256 of the code of a Python module, so that a better comment changes no result."""
    return hashlib.sha256("\n".join(code(source)).encode()).hexdigest()


def _clocked() -> dict[str, float]:
    """Let each `Trainer.train` add its seconds to the dict that is returned."""
    from transformers import Trainer

    took = {"cpu_seconds": 0.0, "wall_seconds": 0.0}
    train = Trainer.train

    def clocked(*given: Any, **named: Any) -> Any:
        began = time.process_time(), time.perf_counter()
        try:
            return train(*given, **named)
        finally:
            took["cpu_seconds"] += time.process_time() - began[0]
            took["wall_seconds"] += time.perf_counter() - began[1]

    Trainer.train = clocked
    return took


def _script(path: str, *arguments: str) -> dict[str, Any]:
    """Run a script as its reader does, offline, and read what it printed."""
    from ftlab.course import lesson

    lesson.go_offline_unless(False)
    took, printed = _clocked(), io.StringIO()
    sys.argv = [path, *arguments]
    with contextlib.redirect_stdout(printed):
        runpy.run_path(path, run_name="__main__")
    said = printed.getvalue()
    patterns = {
        "accuracy": r"test accuracy ([\d.]+)",
        "f1_macro": r"macro F1 ([\d.]+)",
        "loss_before": r"held-out loss ([\d.]+) before",
        "loss_after": r"([\d.]+) after",
    }
    found = {name: re.search(pattern, said) for name, pattern in patterns.items()}
    return {name: float(match[1]) for name, match in found.items() if match} | _rounded(took) | {"precision": "fp32"}


def _lesson(name: str, folder: str) -> dict[str, Any]:
    """Run the code cells of a lesson up to the one that trains, and judge the model as the lesson does."""
    os.environ |= {"FTLAB_RUN_FOLDER": folder, "FTLAB_HEADLESS": "1"}
    from ftlab.course.lesson import go_offline_unless
    from ftlab.evaluation import comparison, losses
    from ftlab.evaluation.predictions import predict_rows
    from ftlab.models import devices

    go_offline_unless(False)
    took = _clocked()
    notebook = json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}

    def judge(what: str, model: Any) -> None:
        """The part of lesson 05's function that is compared: the held-out loss."""
        with devices.in_dtype(model, devices.answer_dtype()):
            names["held_out"][what] = losses.row_losses(model, names["tokenizer"], names["unseen"])

    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        with contextlib.redirect_stdout(sys.stderr):
            exec(compile(source, name, "exec"), names)
        if "def judge(" in source:
            names["judge"] = judge
        if "trainer.train(" in source:
            break
    seed, found = names["budget"].seed, {"precision": "bf16" if devices.mixed_precision()["bf16"] else "fp32"}
    if "held_out" in names:
        judge("adapter", names["wrapped"])
        before, after = names["held_out"]["base"], names["held_out"]["adapter"]
        scores = {
            "loss_before": losses.mean_loss(before, seed=seed),
            "loss_after": losses.mean_loss(after, seed=seed),
            "change": losses.difference(before, after, seed=seed),
        }
    else:
        test = names["lesson"].open_test(names["splits"], "judge the lesson's model beside the script's")
        answers = predict_rows(names["trainer"], test, test.map(names["tokenize"], batched=True))
        scores = comparison.scores(answers, seed=seed)
        scores = {measured: scores[measured] for measured in ("accuracy", "f1_macro")}
    intervals = {
        measured: {end: round(getattr(score, end), 4) for end in ("value", "low", "high")}
        for measured, score in scores.items()
    }
    return intervals | _rounded(took) | found


def _rounded(took: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 1) for name, seconds in took.items()}


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    print(json.dumps({"script": _script, "lesson": _lesson}[sys.argv[1]](*sys.argv[2:])))
