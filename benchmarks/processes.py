"""One process against two: the same losses, gradients, weights and answers, and what two cost on one machine.

Each of the three trainings runs as `ftlab train` in one process, in two by DDP and in two by FSDP2, all on the CPU
over gloo, started by `accelerate launch`. Dropout is off, since each process would draw its own. A training is also
killed in one of its two processes, and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs" / "accelerate"
TRAININGS: dict[str, dict[str, Any]] = {
    "classify": {"rows": 480, "validation_rows": 100, "test_rows": 200, "epochs": 2, "patience": 9},
    "instruct": {"rows": 99, "validation_rows": 12, "test_rows": 12, "passages": 2},
    "lora": {"rows": 99, "validation_rows": 12, "test_rows": 12, "passages": 2, "max_new_tokens": 8},
}
LESSONS = {"classify": "02_text_classification", "instruct": "04_gpt2_instruction_tuning", "lora": "05_lora_phi2"}
LAUNCH = {
    "DDP": ["--multi_gpu", "--config_file", str(CONFIGS / "two_cpu_processes.yaml")],
    "FSDP2": [
        "--config_file", str(CONFIGS / "eight_gpus_fsdp2.yaml"), "--num_processes", "2", "--mixed_precision", "no",
    ],
}  # fmt: skip
CORES = 2
PATIENCE = 900.0  # seconds


def measure() -> dict[str, Any]:
    """Return, for each training and way, the differences from one process and the seconds; and the killed training."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options = _options(place)
        lines = []
        for what in TRAININGS:
            alone = place / f"{what} in one"
            _run([], what, options[what], alone)
            for way, launch in LAUNCH.items():
                several = place / f"{what} by {way}"
                _run(launch, what, options[what], several)
                lines.append({"training": what, "way": way, **_compared(alone, several, what)})
        killed = _killed(options["classify"], place / "killed", place / "classify by DDP")
    table = pd.DataFrame(lines)
    return {
        "settings": TRAININGS,
        "equality": lines,
        "killed": killed,
        "seconds of DDP over one process": round(float(table[table["way"] == "DDP"]["seconds_ratio"].max()), 2),
        "bars": {
            "losses and gradient norms differ by at most 1e-4": bool(
                (table[["loss", "gradient_norm"]] <= 1e-4).all(axis=None)
            ),
            "weights differ by at most 1e-3": bool((table["weights"] <= 1e-3).all()),
            "each row is answered once": bool(table["rows_answered_once"].all()),
            "a killed training ends as the others do": bool(killed["weights"] <= 1e-3),
        },
    }


def _options(place: Path) -> dict[str, list[str]]:
    """Return the options of each training; the encoder of the classifier gets a copy without dropout."""
    import shutil

    from ftlab import files
    from ftlab.models import loading

    encoder = place / "minilm"
    shutil.copytree(loading.folder("minilm"), encoder)
    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    files.write_json(
        encoder / "config.json", {name: 0.0 if "dropout" in name else value for name, value in config.items()}
    )
    found = {}
    for what, parameters in TRAININGS.items():
        given = parameters | ({"model": str(encoder)} if what == "classify" else {})
        found[what] = [part for name, value in given.items() for part in ("-p", name, str(value))]
    return found


def _command(launch: list[str], what: str, options: list[str], out: Path) -> tuple[list[str], dict[str, str]]:
    train = ["-m", "ftlab", "train", what, "--json", "--out", str(out), *options]
    threads = {"OMP_NUM_THREADS": str(CORES if not launch else 1)}
    if not launch:
        return [sys.executable, *train], {**os.environ, **threads}
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    return [accelerate, "launch", *launch, *train], {**os.environ, **threads, "ACCELERATE_USE_CPU": "true"}


def _run(launch: list[str], what: str, options: list[str], out: Path) -> None:
    command, environment = _command(launch, what, options, out)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=REPOSITORY, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ends with {done.returncode}:\n{done.stderr[-3000:]}")


def _compared(alone: Path, several: Path, what: str) -> dict[str, Any]:
    """Return the largest differences of `several` from `alone`: relative, and of weights absolute."""
    one, two = (_log(out, what) for out in (alone, several))
    answers = [pd.read_csv(next((out / LESSONS[what]).glob("*s.csv"))) for out in (alone, several)]
    return {
        "steps": int(one[-1]["step"]),
        **{
            name: _relative(one, two, key)
            for name, key in (("loss", "loss"), ("gradient_norm", "grad_norm"), ("validation_loss", "eval_loss"))
        },
        "weights": _largest_difference(alone, several, what),
        "rows_answered": len(answers[1]),
        "rows_answered_once": list(answers[0]["id"]) == list(answers[1]["id"]),
        "seconds_in_one": round(one[-1]["train_runtime"], 1),
        "seconds_in_two": round(two[-1]["train_runtime"], 1),
        "seconds_ratio": round(two[-1]["train_runtime"] / one[-1]["train_runtime"], 2),
    }


def _log(out: Path, what: str) -> list[dict[str, Any]]:
    return json.loads((out / LESSONS[what] / "history.json").read_text(encoding="utf-8"))


def _relative(one: list[dict[str, Any]], two: list[dict[str, Any]], key: str) -> float:
    first, second = (np.array([entry[key] for entry in log if key in entry]) for log in (one, two))
    return float(np.max(np.abs(first - second) / np.abs(first)))


def _largest_difference(alone: Path, several: Path, what: str) -> float:
    from safetensors.numpy import load_file

    one, two = (load_file(next((out / LESSONS[what]).glob("*/*model.safetensors"))) for out in (alone, several))
    return max(float(np.abs(one[name] - two[name]).max()) for name in one)


def _killed(options: list[str], out: Path, whole: Path) -> dict[str, Any]:
    """Kill one of two processes after the first checkpoint, resume, and compare with the training that was not cut."""
    command, environment = _command(LAUNCH["DDP"], "classify", options, out)
    launcher = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY, env=environment
    )
    began = time.monotonic()
    while not list(out.glob("*.checkpoints/checkpoint-*/rng_state_1.pth")):
        if launcher.poll() is not None or time.monotonic() > began + PATIENCE:
            raise RuntimeError(f"no checkpoint was written:\n{launcher.communicate()[0][-3000:]}")
        time.sleep(0.05)
    os.kill(_worker(launcher.pid), signal.SIGKILL)
    said = launcher.communicate(timeout=PATIENCE)[0]
    reason = next((line.strip() for line in said.splitlines() if "SIGKILL" in line), "none")
    _run(LAUNCH["DDP"], "classify", [*options, "--resume"], out)
    return {
        "exit_code_of_the_launcher": launcher.returncode,
        "its_reason": reason.partition("(pid")[0].strip() or reason,
        "weights": _largest_difference(whole, out, "classify"),
    }


def _worker(launcher: int) -> int:
    import psutil

    children = psutil.Process(launcher).children(recursive=True)
    return max(child.pid for child in children if "train" in child.cmdline())
