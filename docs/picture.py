"""README's picture, docs/results.png, drawn from committed results: `python docs/picture.py`.

Left: accuracy against training rows, with the range over seeds. Right: a language model's answers before and after
instruction tuning, with 95 % confidence intervals.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ftlab.course import bench

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = Path(__file__).resolve().with_name("results.png")
CURVE_ON = "rotten_tomatoes"
LESSON = "04_gpt2_instruction_tuning"
SHOWN = {"exact match": "right answers\n(exact match)", "stopped": "answers\nthat stop"}  # measure: its label
STAMP = "Drawn from"  # in the file: a hash of the plotted numbers


def curve() -> pd.DataFrame:
    """Return what the left panel plots: for each model and number of rows the mean, lowest and highest accuracy."""
    runs = pd.DataFrame(bench.stored("learning_curve")["result"][CURVE_ON]["runs"])
    over_seeds = runs.groupby(["model", "rows"])["accuracy"]
    return over_seeds.agg(["mean", "min", "max"]).reset_index()


def before_and_after() -> pd.DataFrame:
    """Return what the right panel plots: for each measure and model the value and its interval.

    Raises:
        ValueError: the stored first run lacks a value.
    """
    lesson = bench.stored("first_run")["result"]["lessons"].get(LESSON, {})
    metrics = lesson.get("metrics", {})
    rows = []
    for measure in SHOWN:
        for model in ("base", "tuned"):
            name = f"{model}_{measure}"
            found = [metrics.get(key) for key in (name, f"{name}_low", f"{name}_high")]
            if None in found:
                raise ValueError(f"the stored first run lacks {name} of {LESSON}, or its interval; run `make bench`")
            rows.append([measure, model, *found])
    return pd.DataFrame(rows, columns=["measure", "model", "value", "low", "high"])


def draw(curve: pd.DataFrame, answers: pd.DataFrame) -> Figure:
    """Return the figure of both panels; `curve` and `answers` are as the functions of those names return them."""
    import matplotlib.pyplot as plt

    from ftlab.evaluation import figures

    big = {"font.size": 13, "axes.titlesize": 14, "lines.linewidth": 2.4}
    with figures.style(), plt.rc_context(big):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(1.25, 1))
        _draw_curve(left, curve)
        _draw_answers(right, answers)
        figure.supxlabel(
            "bands: range over seeds; lines on bars: 95 % confidence intervals", fontsize=11, color="#4d4d4d"
        )
        return figure


def write(file: Path = FILE) -> bool:
    """Draw the picture into `file`, if it shows other numbers than are stored. Return whether it was drawn."""
    plotted = curve(), before_and_after()
    stamp = hash_of(*plotted)
    if stamp == drawn_from(file):
        return False
    import matplotlib.pyplot as plt

    figure = draw(*plotted)
    figure.savefig(file, dpi=135, metadata={STAMP: stamp, "Software": None})
    plt.close(figure)
    return True


def drawn_from(file: Path = FILE) -> str | None:
    """Return the hash of the numbers that the picture in `file` shows; None if there is no picture."""
    if not file.is_file():
        return None
    from PIL import Image

    with Image.open(file) as image:
        return image.info.get(STAMP)


def hash_of(*tables: pd.DataFrame) -> str:
    """Return a hash of the numbers in `tables`, to six digits."""
    text = "\n".join(table.to_csv(index=False, float_format="%.6g") for table in tables)
    return hashlib.sha256(text.encode()).hexdigest()


def _draw_curve(axis: Axes, curve: pd.DataFrame) -> None:
    from ftlab.evaluation import figures

    names = list(curve.groupby("model")["mean"].max().sort_values(ascending=False).index)
    for name, (colour, marker) in figures.method_styles(names).items():
        line = curve[curve["model"] == name]
        axis.fill_between(line["rows"], 100 * line["min"], 100 * line["max"], color=colour, alpha=0.15, linewidth=0)
        axis.plot(line["rows"], 100 * line["mean"], color=colour, marker=marker)
        last = line.iloc[-1]
        axis.annotate(
            f"{name}, {100 * last['mean']:.0f} %", (last["rows"], 100 * last["mean"]), xytext=(10, 0),
            textcoords="offset points", va="center", fontweight="bold",
        )  # fmt: skip
    figures.log_axis(axis, curve["rows"], "training rows (log scale)")
    axis.set_xlim(curve["rows"].min() * 0.9, curve["rows"].max() * 1.15)
    axis.axhline(50, color=figures.MUTED, linestyle=":", linewidth=1.5)
    axis.annotate("chance", (curve["rows"].min(), 50), xytext=(0, 4), textcoords="offset points", color=figures.DARK)
    axis.set(ylabel="accuracy on unseen reviews (%)", title="Fine-tuning a classifier", ylim=(48, 82))


def _draw_answers(axis: Axes, answers: pd.DataFrame) -> None:
    from ftlab.evaluation import figures

    looks = {"base": ("before", figures.MUTED), "tuned": ("after", figures.BLUE)}
    for offset, (model, (label, colour)) in zip((-0.2, 0.2), looks.items(), strict=True):
        bars = answers[answers["model"] == model].set_index("measure").loc[list(SHOWN)][["value", "low", "high"]] * 100
        places = [place + offset for place in range(len(bars))]
        errors = [bars["value"] - bars["low"], bars["high"] - bars["value"]]
        axis.bar(places, bars["value"], 0.36, color=colour, label=label)
        axis.errorbar(places, bars["value"], errors, fmt="none", ecolor="black", elinewidth=1.5, capsize=4)
        for place, value, high in zip(places, bars["value"], bars["high"], strict=True):
            axis.annotate(
                f"{value:.0f} %", (place, high), xytext=(0, 4), textcoords="offset points", ha="center",
                fontweight="bold",
            )  # fmt: skip
    axis.set_xticks(range(len(SHOWN)), SHOWN.values())
    axis.set(ylabel="share of unseen rows (%)", title="Instruction tuning", ylim=(0, 122))
    axis.set_yticks(range(0, 101, 25))
    axis.legend(loc="upper left", ncols=2, borderaxespad=0)


if __name__ == "__main__":
    try:
        print(FILE.name if write() else f"{FILE.name} shows what is stored")
    except ValueError as problem:
        sys.exit(f"{FILE.name}: {problem}")
