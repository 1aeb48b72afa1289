"""Figures with labelled axes and a text for those who do not see them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, ACCENT, MUTED = "#1f77b4", "#d95f02", "#9aa0a6"  # told apart in the common colour blindnesses, and in grey


def show(figure: Figure, alt: str) -> None:
    """Display a figure in the notebook as a PNG with `alt` as its text, and close it.

    The text is also the plain form of the output, so that a screen reader, a terminal and nbval have something to
    compare; keep measured numbers out of it.
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


def label_order(labels: pd.Series, first: int) -> Figure:
    """One thin line a row, coloured by label, in the order of the file; the first n rows are marked."""
    import matplotlib.pyplot as plt
    import numpy as np

    names = sorted(labels.unique())
    figure, axis = plt.subplots(figsize=(9, 1.5))
    codes = labels.map({name: index for index, name in enumerate(names)}).to_numpy()
    axis.imshow(codes[np.newaxis, :], aspect="auto", cmap="cividis", interpolation="nearest")
    axis.axvline(first, color="white", linewidth=2)
    axis.annotate(f"first {first:,}", (first, 0.3), xytext=(8, 0), textcoords="offset points", color="white")
    axis.set(
        yticks=[],
        xlabel="row of the file",
        title=f"Label of each row, in the order of the file: {_dark_to_light(names)}",
    )
    return figure


def token_lengths(lengths: pd.DataFrame, max_length: int) -> Figure:
    """A histogram of the tokens in each row, and the share of rows that each max_length keeps whole."""
    import matplotlib.pyplot as plt
    import numpy as np

    tokens = np.sort(lengths["tokens"].to_numpy())
    longest = float(np.quantile(tokens, 0.99))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    left.hist(tokens, bins=60, range=(0, longest), color=INK)
    left.set(xlabel="tokens in a row", ylabel="rows", title="How long the texts are (up to the 99th percentile)")
    right.plot(tokens, np.arange(1, len(tokens) + 1) / len(tokens), color=INK)
    right.set(
        xlabel="max_length",
        ylabel="share of rows kept whole",
        title="What each max_length keeps",
        xlim=(0, longest),
        ylim=(0, 1),
    )
    for axis in (left, right):
        axis.axvline(max_length, color=ACCENT, linestyle="--", label=f"max_length {max_length}")
        axis.legend()
    figure.tight_layout()
    return figure


def training_curves(log_history: list[dict[str, float]], metric: str = "f1") -> Figure:
    """Loss on training and validation rows, and the validation score, by epoch, from `trainer.state.log_history`."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    evals = [entry for entry in log_history if "eval_loss" in entry]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    _draw_losses(left, log_history)
    right.plot([e["epoch"] for e in evals], [e[f"eval_{metric}"] for e in evals], "o-", color=INK)
    right.set(xlabel="epoch", ylabel=f"{metric} on validation", title="The score that chooses the epoch", ylim=(0, 1))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.tight_layout()
    return figure


def losses(log_history: list[dict[str, float]]) -> Figure:
    """Loss on training and validation rows by epoch, from `trainer.state.log_history`."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.2))
    _draw_losses(axis, log_history)
    return figure


def _draw_losses(axis: Axes, log_history: list[dict[str, float]]) -> None:
    train = [(entry["epoch"], entry["loss"]) for entry in log_history if "loss" in entry]
    evals = [(entry["epoch"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    axis.plot(*zip(*train, strict=True), color=MUTED, label="training")
    axis.plot(*zip(*evals, strict=True), "o-", color=INK, label="validation")
    axis.set(xlabel="epoch", ylabel="cross-entropy loss", title="Loss")
    axis.legend()


def before_and_after(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The loss of each passage under each model against that under the first one, which is the line.

    `tables` holds a table of `forgetting.passage_losses` for each model.
    """
    import matplotlib.pyplot as plt

    (first, before), *others = tables.items()
    styles = [(INK, "o"), (ACCENT, "^"), (MUTED, "s")]
    _require_at_most(len(styles), [name for name, _ in others])
    figure, axis = plt.subplots(figsize=(6, 4.5))
    ends = [before["loss"].min(), before["loss"].max()]
    axis.plot(ends, ends, color=MUTED, linestyle="--", label="nothing forgotten")
    for (name, table), (colour, marker) in zip(others, styles, strict=False):
        axis.scatter(before["loss"], table["loss"], color=colour, marker=marker, s=22, alpha=0.8, label=name)
    axis.set(xlabel=f"loss of a passage, {first}", ylabel="the same after training", title="What was forgotten")
    axis.legend()
    return figure


def scores(table: pd.DataFrame) -> Figure:
    """A dot with its interval for each model: columns model, accuracy, low and high; best at the top."""
    import matplotlib.pyplot as plt

    table = table.sort_values("accuracy").reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(8, 0.6 + 0.55 * len(table)))
    reach = [table["accuracy"] - table["low"], table["high"] - table["accuracy"]]
    axis.errorbar(table["accuracy"], table.index, xerr=reach, fmt="o", color=INK, capsize=4)
    axis.set(
        yticks=table.index, xlabel="accuracy on the test split, with its 95 % confidence interval", title="The ladder"
    )
    axis.set_yticklabels(table["model"])
    axis.set_ylim(-0.6, len(table) - 0.4)
    axis.grid(axis="x", alpha=0.3)
    return figure


def confusion(predictions: pd.DataFrame, label_names: Sequence[str]) -> Figure:
    """A heatmap of true label against prediction: each row's shares, with the counts written in."""
    import matplotlib.pyplot as plt
    import seaborn
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(predictions["label"], predictions["prediction"], labels=list(label_names))
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    size = 2.4 + 0.8 * len(label_names)
    figure, axis = plt.subplots(figsize=(size + 1, size))
    seaborn.heatmap(
        shares, annot=counts, fmt="d", cmap="Blues", vmin=0, vmax=1, ax=axis, square=True,
        xticklabels=label_names, yticklabels=label_names, cbar_kws={"label": "share of the true label"},
    )  # fmt: skip
    axis.set(xlabel="predicted label", ylabel="true label", title="Rows by true and predicted label")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against confidence in bins, one line for each table of `calibration.reliability`; rows beneath."""
    import matplotlib.pyplot as plt
    import numpy as np

    styles = [(MUTED, "s"), (INK, "o"), (ACCENT, "^")]
    _require_at_most(len(styles), list(tables))
    figure, (top, foot) = plt.subplots(2, 1, figsize=(6, 5.5), sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="as sure as right")
    for (name, table), (colour, marker) in zip(tables.items(), styles[-len(tables) :], strict=True):
        top.plot(table["confidence"], table["accuracy"], color=colour, marker=marker, label=name)
        # A bin without rows has no line in the table; here it is drawn, as empty.
        bins = round(1 / (table["high"] - table["low"]).iloc[0])
        rows = np.zeros(bins)
        rows[(table["low"] * bins).round().astype(int)] = table["rows"]
        foot.stairs(rows, np.arange(bins + 1) / bins, color=colour)
    lowest = min(table["low"].min() for table in tables.values())
    top.set(ylabel="accuracy", title="How often it is right when it is so sure", xlim=(lowest, 1), ylim=(0, 1.02))
    foot.set(xlabel="confidence", ylabel="rows", title="How many rows have that confidence")
    top.legend()
    figure.tight_layout()
    return figure


def learning_curve(points: pd.DataFrame, live: pd.DataFrame | None = None) -> Figure:
    """Score against training rows, a line with its range over seeds for each model, and the points of this run.

    `points` has a line for each run: model, rows, seed and accuracy; `live` the same, drawn as crosses.
    """
    import matplotlib.pyplot as plt

    if live is not None and live.empty:
        live = None
    styles = [(ACCENT, "o"), (INK, "s"), (MUTED, "^")]
    names = list(dict.fromkeys([*points["model"], *(live["model"] if live is not None else ())]))
    _require_at_most(len(styles), names)
    figure, axis = plt.subplots(figsize=(8, 4))
    for name, (colour, marker) in zip(names, styles, strict=False):
        over_seeds = points[points["model"] == name].groupby("rows")["accuracy"]
        mean = over_seeds.mean()
        axis.plot(mean.index, mean, color=colour, marker=marker, label=name)
        axis.fill_between(mean.index, over_seeds.min(), over_seeds.max(), color=colour, alpha=0.15)
        if live is not None and len(here := live[live["model"] == name]):
            axis.plot(here["rows"], here["accuracy"], "x", color=colour, markersize=11, markeredgewidth=2.5)
    rows = sorted(points["rows"].unique())
    axis.set(
        xscale="log",
        xlabel="training rows (logarithmic)",
        ylabel="accuracy on the test rows,\nmean and range over seeds",
        title="How much is enough?",
    )
    axis.set_xticks(rows, [f"{number:,}" for number in rows])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", title="crosses: this run" if live is not None else None)
    return figure


def score_by_seconds(table: pd.DataFrame, score: str = "macro F1") -> Figure:
    """Mean score against mean seconds of training, a panel for each number of rows; what nothing beats is joined.

    Bars are the 95 % confidence interval of the mean over seeds.

    `table` is a `policies.summary` with columns model, rows, score, low, high and seconds (lines without are left out).
    Joined are the models that no other one beats in both score and time (the Pareto front).
    """
    import matplotlib.pyplot as plt

    table = table.dropna(subset=["seconds"])
    sizes = sorted(table["rows"].unique())
    styles = looks(table["model"].unique())
    figure, axes = plt.subplots(1, len(sizes), figsize=(3.6 * len(sizes) + 1.5, 3.8), sharey=True, squeeze=False)
    for axis, rows in zip(axes[0], sizes, strict=True):
        here = table[table["rows"] == rows].sort_values("seconds")
        front = here[here["score"] >= here["score"].cummax()]
        axis.plot(front["seconds"], front["score"], color=MUTED, linewidth=1.2)
        for _, line in here.iterrows():
            reach = [[line["score"] - line["low"]], [line["high"] - line["score"]]]
            colour, marker = styles[line["model"]]
            axis.errorbar(line["seconds"], line["score"], yerr=reach, fmt=marker, color=colour, label=line["model"],
                          capsize=2, elinewidth=1)  # fmt: skip
        axis.set(xscale="log", xlabel="seconds of training (logarithmic)", title=f"{rows:,} training rows")
        axis.set_xticks(ticks := [1, 3, 10, 30, 100, 300], [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlim(here["seconds"].min() / 1.8, here["seconds"].max() * 1.8)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"{score}, mean over seeds,\nwith its 95 % confidence interval")
    axes[0][-1].legend(fontsize=8, bbox_to_anchor=(1.02, 1), loc="upper left")
    figure.tight_layout()
    return figure


def score_by_rows(table: pd.DataFrame, live: pd.DataFrame | None = None, score: str = "macro F1") -> Figure:
    """Mean score against training rows, a line for each model, and this run's means as crosses.

    `table` and `live` are summaries (`policies.summary`) with columns model, rows and score.
    """
    import matplotlib.pyplot as plt

    styles = looks([*table["model"], *(live["model"] if live is not None else ())])
    figure, axis = plt.subplots(figsize=(8.5, 4.5))
    for name, (colour, marker) in styles.items():
        line = table[table["model"] == name].sort_values("rows")
        axis.plot(line["rows"], line["score"], color=colour, marker=marker, label=name)
        if live is not None and len(here := live[live["model"] == name]):
            axis.plot(here["rows"], here["score"], "x", color=colour, markersize=11, markeredgewidth=2.5)
    rows = sorted(table["rows"].unique())
    axis.set(xscale="log", xlabel="training rows (logarithmic)", ylabel=f"{score}, mean over seeds")
    axis.set_xticks(rows, [f"{number:,}" for number in rows])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left", title="crosses: this run")
    return figure


def looks(models: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """A colour and a marker for each model, in order: told apart by either."""
    import seaborn

    names = list(dict.fromkeys(models))
    return dict(
        zip(names, zip(seaborn.color_palette("colorblind", len(names)), "osD^vP<>X*", strict=False), strict=False)
    )


def _dark_to_light(names: Sequence[str]) -> str:
    """What the colours stand for, where the labels have them in the order of their names."""
    return f"{names[0]} (dark){',' if len(names) == 2 else ' to'} {names[-1]} (light)"


def _require_at_most(styles: int, names: Sequence[str]) -> None:
    if not 1 <= len(names) <= styles:
        raise BadInput(f"there are {len(names)} lines to draw; expected 1 to {styles}, which one can tell apart")
