"""A file larger than memory: `ftlab train classify --stream` on 5 GB of texts, and the most memory that it takes.

The same training on a hundredth of the file is measured beside it: what grows with the file would show.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
GIGABYTES = 5.0
STEPS, BATCH_SIZE = 40, 16
WORDS = 200  # of a text
SETTINGS = {"validation_rows": 200, "test_rows": 500, "batch_size": BATCH_SIZE, "max_length": 64}


def measure() -> dict[str, Any]:
    """Return rows, seconds and peak memory of a training on 5 GB and on a hundredth of it, and the bars."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: _trained(Path(folder), gigabytes)
            for name, gigabytes in (("small", GIGABYTES / 100), ("large", GIGABYTES))
        }
    from ftlab.course.trainings import HELD

    growth = found["large"]["peak_mb"] / found["small"]["peak_mb"]
    return {
        "settings": {**SETTINGS, "steps": STEPS, "model": "minilm", "held": HELD},
        **found,
        "memory of the large file over the small one": round(growth, 3),
        "bars": {
            "at most 1.3 times the memory for a hundred times the rows": growth <= 1.3,
            "at most a third of the file in memory": found["large"]["peak_mb"] <= 1000 * GIGABYTES / 3,
        },
    }


def _trained(folder: Path, gigabytes: float) -> dict[str, Any]:
    file, out = folder / f"{gigabytes:g}.csv", folder / f"out {gigabytes:g}"
    rows = _write(file, gigabytes)
    options = [part for name, value in SETTINGS.items() for part in ("-p", name, str(value))]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ftlab", "train", "classify", "--stream", "--data", str(file), "--max-steps", str(STEPS),
         "--json", "--out", str(out), *options],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    seconds = time.monotonic() - began
    file.unlink()
    if done.returncode:
        raise RuntimeError(f"ftlab train ends with {done.returncode}:\n{done.stderr[-3000:]}")
    record = json.loads((out / "02_text_classification" / "record.json").read_text(encoding="utf-8"))
    return {
        "gigabytes": gigabytes, "rows": rows, "training_rows": record["data"]["train"]["rows"],
        "seconds": round(seconds, 1), "peak_mb": record["peak_memory_mb"],
    }  # fmt: skip


def _write(file: Path, gigabytes: float) -> int:
    """Write texts made of the words of real reviews, with their labels, and return their number."""
    from ftlab.data import sources

    reviews = sources.read("rotten_tomatoes")
    words = {label: " ".join(texts).split() for label, texts in reviews.groupby("label")["text"]}
    labels, draw, rows = sorted(words), random.Random(0), 0
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened)
        table.writerow(["text", "label"])
        written, enough = 0, gigabytes * 1e9
        while written < enough:
            label = labels[draw.randrange(len(labels))]
            first = draw.randrange(len(words[label]) - WORDS)
            text = f"{rows} {' '.join(words[label][first : first + WORDS])}"
            table.writerow([text, label])
            written, rows = written + len(text) + len(label) + 3, rows + 1
    return rows
