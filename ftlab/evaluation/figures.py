"""Figures in one style: labelled axes, one colour for each method, and an alt text.

The colours are those of Okabe and Ito, which differ in the common colour blindnesses
(https://jfly.uni-koeln.de/color/), with brown for their yellow. The background is white and opaque, so that a figure is
readable in a dark theme too.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY, BROWN = "#cc79a7", "#56b4e9", "#8c564b"
DARK, MUTED, FAINT = "#4d4d4d", "#8c8c8c", "#d4d4d4"
INK, ACCENT = BLUE, VERMILION
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BROWN, DARK, "#000000", MUTED)
MARKERS = "osD^vP<>*hX"

STYLE: Any = {  # Matplotlib's rcParams
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.facecolor": "white",
    "figure.labelsize": 10,
    "savefig.facecolor": "white",
    "savefig.pad_inches": 0.15,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}

METHODS = {  # the colour and marker of each method and split, in every lesson
    "full fine-tuning": (BLUE, "o"),
    "first layers frozen": (GREEN, "s"),
    "head only": (PURPLE, "D"),
    "frozen encoder": (SKY, "^"),
    "lora": (VERMILION, "P"),
    "lora on q, v": (ORANGE, "X"),
    "qlora": (BROWN, "*"),
    "tf-idf": (DARK, "v"),
    "majority class": (MUTED, "<"),
    "base": ("#000000", "s"),
    "training": (MUTED, "s"),
    "validation": (BLUE, "o"),
    "test": (VERMILION, "^"),
}
OTHER_NAMES = {
    "full": "full fine-tuning", "all of it": "full fine-tuning", "fine-tuned": "full fine-tuning",
    "tuned": "full fine-tuning", "sentence vectors": "frozen encoder", "majority": "majority class",
    "adapter": "lora", "all linear": "lora", "q, v": "lora on q, v", "base model": "base",
}  # fmt: skip
MAIN = ("full fine-tuning", "first layers frozen", "head only", "frozen encoder")  # highlighted among many models


@contextmanager
def style() -> Iterator[None]:
    """Return a context, and a decorator, in which Matplotlib draws in the style of the course."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        yield


@style()
def show(figure: Figure, alt: str) -> None:
    """Display `figure` in the notebook as a PNG with `alt` as its text, and close it.

    The text is also the plain form of the output: a screen reader and a terminal use it, and nbval compares it. So it
    must not contain measured numbers.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    display(
        {"image/png": buffer.getvalue(), "text/plain": f"[figure] {alt}"},
        metadata={"image/png": {"alt": alt}},
        raw=True,
    )


def method_styles(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the colour and the marker of each of `names`, in their order.

    A method of `METHODS` has its own. Others get colours and markers that no other of `names` has, as long as there are
    any; so does a second name of the same method.

    >>> method_styles(["TF-IDF", "first 4 frozen", "something else"])["first 4 frozen"]
    ('#009e73', 's')
    """
    names = list(dict.fromkeys(names))
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        if (known := METHODS.get(_method(name))) and known not in found.values():
            found[name] = known
    for number, name in enumerate(names):
        if name not in found:
            colours, markers = ({look[part] for look in found.values()} for part in (0, 1))
            found[name] = (
                next((colour for colour in PALETTE if colour not in colours), PALETTE[number % len(PALETTE)]),
                next((marker for marker in MARKERS if marker not in markers), MARKERS[number % len(MARKERS)]),
            )
    return {name: found[name] for name in names}


@style()
def label_order(labels: pd.Series, first: int) -> Figure:
    """Draw the label of each row, in the order of the file, as a thin line; mark the first rows.

    Args:
        labels: one for each row.
        first: how many rows from the top are marked.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.patches import Patch

    names = sorted(labels.unique())
    figure, axis = plt.subplots(figsize=(8, 1.9))
    codes = labels.map({name: index for index, name in enumerate(names)}).to_numpy()
    strip = axis.imshow(codes[np.newaxis, :], aspect="auto", cmap="cividis", interpolation="nearest")
    axis.axvline(first, color=VERMILION, linewidth=3)
    axis.annotate(
        f"first {first:,} rows", (first, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
        textcoords="offset points", color=VERMILION, ha="left" if first < len(labels) / 2 else "right",
    )  # fmt: skip
    axis.set(yticks=[], xlabel="row of the file")
    axis.set_title("Labels in the order of the file", pad=20)
    shown = names if len(names) <= 6 else [names[0], "...", names[-1]]
    colours = [strip.cmap(place) for place in np.linspace(0, 1, len(shown))]
    patches = [Patch(color=colour, label=name) for name, colour in zip(shown, colours, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(shown))
    return figure


@style()
def token_lengths(lengths: pd.DataFrame, max_length: int) -> Figure:
    """Draw a histogram of the tokens per row, and the share of rows that each max_length does not truncate.

    Args:
        lengths: with a column tokens.
        max_length: is marked in both panels.

    Returns:
        The figure; its axes end at the 99th percentile.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    tokens = np.sort(lengths["tokens"].to_numpy())
    longest = float(np.quantile(tokens, 0.99))
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.hist(tokens, bins=60, range=(0, longest), color=BLUE)
    left.set(xlabel="tokens per row (to the 99th percentile)", ylabel="rows", title="Histogram of row lengths")
    right.plot(tokens, np.arange(1, len(tokens) + 1) / len(tokens), color=BLUE)
    right.set(
        xlabel="max_length in tokens",
        ylabel="share of rows not truncated",
        title="Cumulative distribution",
        xlim=(0, longest),
        ylim=(0, 1),
    )
    for axis in (left, right):
        axis.axvline(max_length, color=VERMILION, linestyle="--", label=f"max_length {max_length}")
        axis.legend()
    return figure


@style()
def training_curves(log_history: list[dict[str, float]], metric: str = "f1") -> Figure:
    """Draw training and validation loss, and the validation score, by epoch.

    Args:
        log_history: `trainer.state.log_history`.
        metric: is logged as `eval_` and this name; "f1" is the macro F1.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    evals = [entry for entry in log_history if "eval_loss" in entry]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    _draw_losses(left, log_history)
    name = "macro F1" if metric == "f1" else metric
    right.plot([e["epoch"] for e in evals], [e[f"eval_{metric}"] for e in evals], "o-", color=METHODS["validation"][0])
    right.set(xlabel="epoch", ylabel=f"{name} on validation rows", title=f"Validation {name}", ylim=(0, 1))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.grid()
    return figure


@style()
def learning_rates(table: pd.DataFrame, planned: float, guess: float | None = None) -> Figure:
    """Draw loss and macro F1 on validation rows against the learning rate, with 95 % confidence intervals.

    Args:
        table: of `learning_rates.compare`: a line for each rate. A rate at which training diverged is a cross on the
            axis of the loss.
        planned: the rate that is marked by a vertical line.
        guess: the loss of a model that gives each label the same probability, a dashed level.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    colour, marker = METHODS["validation"]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    drawn = table.dropna(subset=["loss"])
    panels = {
        "loss": ("cross-entropy loss in nats", "Validation loss"),
        "macro F1": ("macro F1", "Validation macro F1"),
    }
    for axis, (column, (label, title)) in zip(axes, panels.items(), strict=True):
        reach = [drawn[column] - drawn[f"{column} low"], drawn[f"{column} high"] - drawn[column]]
        axis.errorbar(drawn.index, drawn[column], yerr=reach, fmt=f"{marker}-", color=colour, capsize=4)
        axis.axvline(planned, color=MUTED, linestyle=":", label="planned rate")
        log_axis(axis, table.index, "learning rate (log scale)")
        axis.set(ylabel=label, title=title)
        axis.margins(x=0.1)
    axes[1].set_ylim(0, 1.02)
    if guess is not None:
        axes[0].axhline(guess, color=DARK, linestyle="--", linewidth=1.2, label="guessing")
    diverged = table.index[table["loss"].isna()]
    if len(diverged):
        foot = axes[0].get_xaxis_transform()
        axes[0].plot(
            diverged, [0] * len(diverged), "x", color=VERMILION, transform=foot, clip_on=False, markersize=9,
            markeredgewidth=2.5, label="diverged",
        )  # fmt: skip
    for axis in axes:
        axis.legend()
    return figure


@style()
def losses(log_history: list[dict[str, float]]) -> Figure:
    """Draw training and validation loss by epoch, from `trainer.state.log_history`, and return the figure.

    `log_history` has an entry for each logged step and evaluation.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.2))
    _draw_losses(axis, log_history)
    return figure


def _draw_losses(axis: Axes, log_history: list[dict[str, float]]) -> None:
    train = [(entry["epoch"], entry["loss"]) for entry in log_history if "loss" in entry]
    evals = [(entry["epoch"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    axis.plot(*zip(*train, strict=True), color=METHODS["training"][0], label="training")
    axis.plot(*zip(*evals, strict=True), "o-", color=METHODS["validation"][0], label="validation")
    axis.set(xlabel="epoch", ylabel="cross-entropy loss in nats", title="Training and validation loss")
    axis.grid()
    axis.legend()


@style()
def before_and_after(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the loss of each passage under each model against its loss under the first model.

    Args:
        tables: a table of `forgetting.passage_losses` for each model; the first is the model before training.

    Returns:
        The figure; points above the dashed line lost, points below it gained.

    Raises:
        BadInput: there are not one to three models after the first.
    """
    import matplotlib.pyplot as plt

    (first, before), *others = tables.items()
    _require_one_to_three([name for name, _ in others])
    looks = method_styles(name for name, _ in others)
    figure, axis = plt.subplots(figsize=(6, 4.5))
    ends = [before["loss"].min(), before["loss"].max()]
    axis.plot(ends, ends, color=MUTED, linestyle="--", label="no change")
    for name, table in others:
        colour, marker = looks[name]
        axis.scatter(before["loss"], table["loss"], color=colour, marker=marker, s=24, alpha=0.8, label=name)
    axis.set(
        xlabel=f"loss of a passage in nats per token, {first}",
        ylabel="loss in nats per token, after training",
        title="Loss per passage before and after training",
    )
    axis.grid()
    axis.legend()
    return figure


@style()
def scores(table: pd.DataFrame, title: str = "Baselines") -> Figure:
    """Draw the accuracy of each model as a dot with its confidence interval, the best at the top.

    Args:
        table: with columns model, accuracy, low and high (the ends of the interval).
        title: of the figure.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    table = table.sort_values("accuracy").reset_index(drop=True)
    looks = method_styles(table["model"])
    figure, axis = plt.subplots(figsize=(7, 1.0 + 0.45 * len(table)))
    for place, (_, line) in enumerate(table.iterrows()):
        reach = [[line["accuracy"] - line["low"]], [line["high"] - line["accuracy"]]]
        axis.errorbar(line["accuracy"], place, xerr=reach, fmt="o", color=looks[line["model"]][0], capsize=4)
    axis.set(xlabel="accuracy on the test rows, with 95 % confidence interval", title=title)
    axis.set_yticks(table.index, table["model"])
    axis.set_ylim(-0.6, len(table) - 0.4)
    axis.grid(axis="x")
    return figure


@style()
def confusion(predictions: pd.DataFrame, label_names: Sequence[str]) -> Figure:
    """Draw the confusion matrix: in each cell the number of rows, and their share of the true label as its colour.

    Args:
        predictions: a prediction table, with columns label and prediction.
        label_names: the labels, in the order of the axes.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt
    import seaborn
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(predictions["label"], predictions["prediction"], labels=list(label_names))
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    size = 1.9 + 0.55 * len(label_names)
    figure, axis = plt.subplots(figsize=(size + 0.6, size))
    seaborn.heatmap(
        shares, annot=counts, fmt=",d", cmap="Blues", vmin=0, vmax=1, ax=axis, square=True, linewidths=1,
        xticklabels=label_names, yticklabels=label_names, cbar_kws={"label": "share of the true label", "shrink": 0.8},
    )  # fmt: skip
    axis.set(xlabel="predicted label", ylabel="true label", title="Confusion matrix")
    return figure


@style()
def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw a reliability diagram: accuracy against confidence in bins, above a histogram of the confidence.

    Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
        tables: one to three tables of `calibration.reliability`, by the name of the model.

    Returns:
        The figure.

    Raises:
        BadInput: there are not one to three tables.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    _require_one_to_three(list(tables))
    figure, (top, foot) = plt.subplots(2, 1, figsize=(6, 5.5), sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="perfect calibration")
    for name, (colour, marker) in method_styles(tables).items():
        table = tables[name]
        top.plot(table["confidence"], table["accuracy"], color=colour, marker=marker, label=name)
        # A bin without rows has no line in the table; here it is drawn, as empty.
        bins = round(1 / (table["high"] - table["low"]).iloc[0])
        rows = np.zeros(bins)
        rows[(table["low"] * bins).round().astype(int)] = table["rows"]
        foot.stairs(rows, np.arange(bins + 1) / bins, color=colour, linewidth=1.8)
    lowest = min(table["low"].min() for table in tables.values())
    top.set(ylabel="accuracy", title="Reliability diagram", xlim=(lowest, 1), ylim=(0, 1.02))
    foot.set(xlabel="confidence", ylabel="rows", title="Histogram of confidence")
    top.grid()
    top.legend()
    return figure


@style()
def learning_curve(points: pd.DataFrame, live: pd.DataFrame | None = None) -> Figure:
    """Draw accuracy against training rows: mean and range over seeds for each model, and the points of this run.

    Args:
        points: a line for each run, with columns model, rows, seed and accuracy.
        live: the same for this run, drawn as crosses.

    Returns:
        The figure.

    Raises:
        BadInput: there are not one to three models.
    """
    import matplotlib.pyplot as plt

    if live is not None and live.empty:
        live = None
    looks = method_styles([*points["model"], *(live["model"] if live is not None else ())])
    _require_one_to_three(list(looks))
    figure, axis = plt.subplots(figsize=(7.5, 4))
    for name, (colour, marker) in looks.items():
        over_seeds = points[points["model"] == name].groupby("rows")["accuracy"]
        mean = over_seeds.mean()
        axis.plot(mean.index, mean, color=colour, marker=marker, label=name)
        axis.fill_between(mean.index, over_seeds.min(), over_seeds.max(), color=colour, alpha=0.15)
        _draw_crosses(axis, live, name, "rows", "accuracy", colour)
    log_axis(axis, points["rows"], "training rows (log scale)")
    axis.set(ylabel="accuracy on the test rows,\nmean and range over seeds", title="Learning curve")
    axis.legend(title="crosses: this run" if live is not None else None)
    return figure


@style()
def score_by_seconds(table: pd.DataFrame, score: str = "macro F1", *, highlight: Sequence[str] | None = None) -> Figure:
    """Draw the mean score against the training time, a panel for each number of rows, with the Pareto front.

    The Pareto front joins the models that no other model beats in both score and time.

    Args:
        table: a `seed_comparison.summary`, with columns model, rows, score, low, high and seconds. A model without
            seconds, such as a baseline, is a dashed level.
        score: the name of the score.
        highlight: the models in colour and in the legend; None for `main_models`. The others are grey.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    looks = method_styles(main_models(table["model"]) if highlight is None else highlight)
    timed = table.dropna(subset=["seconds"])
    sizes = sorted(timed["rows"].unique())
    width = max(5.0, min(8.0, 1.5 + 3 * len(sizes)))
    figure, axes = plt.subplots(1, len(sizes), figsize=(width, 3.8), sharey=True, squeeze=False)
    for axis, rows in zip(axes[0], sizes, strict=True):
        here = timed[timed["rows"] == rows].sort_values("seconds")
        front = here[here["score"] >= here["score"].cummax()]
        axis.plot(front["seconds"], front["score"], color=MUTED, linewidth=1.2, label="Pareto front")
        for _, line in here.iterrows():
            reach = [[line["score"] - line["low"]], [line["high"] - line["score"]]]
            named = line["model"] in looks
            colour, marker = looks.get(line["model"], (FAINT, "o"))
            axis.errorbar(
                line["seconds"], line["score"], yerr=reach, fmt=marker, color=colour, capsize=3, elinewidth=1.4,
                markersize=7 if named else 5, label=line["model"] if named else None, zorder=3 if named else 1,
            )  # fmt: skip
        for _, line in table[table["seconds"].isna() & (table["rows"] == rows)].iterrows():
            if line["model"] in looks:
                axis.axhline(line["score"], color=looks[line["model"]][0], linestyle="--", label=line["model"])
        log_axis(axis, [0.1, 0.3, 1, 3, 10, 30, 100, 300], "")
        axis.set_title(f"{rows:,} training rows")
        axis.set_xlim(here["seconds"].min() / 1.8, here["seconds"].max() * 1.8)
    axes[0][0].set_ylabel(f"{score}, mean over seeds\nwith 95 % confidence interval")
    figure.supxlabel("training time in seconds (log scale)")
    found = {label: one for axis in axes[0] for one, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = [name for name in (*looks, "Pareto front") if name in found]
    figure.legend([found[name] for name in names], names, loc="outside upper center", ncols=5)
    return figure


@style()
def score_by_rows(
    table: pd.DataFrame,
    live: pd.DataFrame | None = None,
    score: str = "macro F1",
    *,
    highlight: Sequence[str] | None = None,
) -> Figure:
    """Draw the mean score against training rows, a line for each model, and the means of this run as crosses.

    Args:
        table: a `seed_comparison.summary`, with columns model, rows and score.
        live: the same for this run.
        score: the name of the score.
        highlight: the models in colour and in the legend; None for `main_models`, first of `live`, then of `table`. The
            others are grey.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys([*(live["model"] if live is not None else ()), *table["model"]]))
    looks = method_styles(main_models(names) if highlight is None else highlight)
    figure, axis = plt.subplots(figsize=(7.5, 4.2))
    for name in sorted(names, key=looks.__contains__):  # the highlighted ones are drawn last, above the others
        line = table[table["model"] == name].sort_values("rows")
        if name in looks:
            colour, marker = looks[name]
            axis.plot(line["rows"], line["score"], color=colour, marker=marker, markersize=7, label=name)
        else:
            colour = MUTED
            axis.plot(line["rows"], line["score"], color=FAINT, marker="o", markersize=4, linewidth=1.2)
        _draw_crosses(axis, live, name, "rows", "score", colour)
    log_axis(axis, table["rows"], "training rows (log scale)")
    axis.set(ylabel=f"{score}, mean over seeds", title="Learning curve")
    axis.legend(title="crosses: this run" if live is not None else None)
    return figure


def main_models(names: Iterable[str]) -> list[str]:
    """Return the models to highlight: all `names` if at most four, else the first of each method in `MAIN`.

    >>> main_models(["TF-IDF", "first 4 frozen", "first 5 frozen", "head only", "all of it"])
    ['all of it', 'first 4 frozen', 'head only']
    """
    names = list(dict.fromkeys(names))
    if len(names) <= len(MAIN):
        return names
    return [found[0] for method in MAIN if (found := [name for name in names if _method(name) == method])]


def _method(name: str) -> str:
    """The key of a model in `METHODS`, if it has one."""
    name = re.sub(r"^first \d+ (layers )?frozen$", "first layers frozen", name.lower())
    return OTHER_NAMES.get(name, name)


def _draw_crosses(axis: Axes, live: pd.DataFrame | None, name: str, x: str, y: str, colour: str) -> None:
    if live is not None and len(here := live[live["model"] == name]):
        axis.plot(here[x], here[y], "x", color=colour, markersize=11, markeredgewidth=2.5)


def log_axis(axis: Axes, ticks: Iterable[float], label: str) -> None:
    """Make the x-axis of `axis` logarithmic, with a number at each of `ticks`, a `label` and a grid."""
    axis.set(xscale="log", xlabel=label)
    axis.set_xticks(values := sorted({*ticks}), [f"{value:,.10g}" for value in values])
    axis.minorticks_off()
    axis.grid()


def _require_one_to_three(names: Sequence[str]) -> None:
    if not 1 <= len(names) <= 3:
        raise BadInput(f"there are {len(names)} lines to draw; expected 1 to 3, which a reader can tell apart")
