"""Figures of what one thing costs in another: learning and forgetting by rank, coverage and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ftlab.evaluation.figures import ACCENT, INK, MUTED, looks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure


def ranks(points: pd.DataFrame, live: pd.DataFrame | None = None) -> Figure:
    """What adapters learn and forget by their rank: mean and range over seeds, full fine-tuning as a level.

    `points` has a line for each run: targets ("full" for full fine-tuning), rank, loss_change (held-out loss less the
    base's) and forgetting (perplexity of the general text over the base's); `live` the same, drawn as crosses.
    """
    import matplotlib.pyplot as plt

    styles = looks(points["targets"])
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    labels = {"loss_change": "held-out loss, less the base's", "forgetting": "perplexity, times the base's"}
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for name, (colour, marker) in styles.items():
            here = points[points["targets"] == name]
            if name == "full":
                axis.axhline(here[column].mean(), color=colour, linestyle="--", label=name)
                axis.axhspan(here[column].min(), here[column].max(), color=colour, alpha=0.12)
                continue
            by_rank = here.groupby("rank")[column]
            axis.plot(by_rank.mean(), color=colour, marker=marker, label=name)
            axis.fill_between(by_rank.mean().index, by_rank.min(), by_rank.max(), color=colour, alpha=0.15)
        if live is not None:
            axis.plot(live["rank"], live[column], "x", color="black", markersize=11, markeredgewidth=2.5)
        axis.set(xscale="log", xlabel="rank (logarithmic)", ylabel=label)
        axis.set_xticks(ticks := sorted(points["rank"].dropna().unique()), [f"{rank:g}" for rank in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_title("What is learned: lower is more")
    axes[1].set_title("What is forgotten: higher is more")
    bands = "bands: range over seeds"
    axes[1].legend(title=f"{bands}\ncross: this run" if live is not None else bands)
    figure.tight_layout()
    return figure


def coverage(curves: Mapping[str, pd.DataFrame], threshold: float, wanted: float) -> Figure:
    """Accuracy of what is answered against the share that is, for each split; the threshold that was chosen is marked.

    `curves` are tables of `selective.coverage`: threshold, coverage and accuracy.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for (name, curve), (colour, marker) in zip(curves.items(), ((MUTED, "s"), (INK, "o")), strict=False):
        axis.plot(curve["coverage"], curve["accuracy"], drawstyle="steps-post", color=colour, label=name)
        chosen = curve[curve["threshold"] >= threshold].tail(1)
        axis.plot(chosen["coverage"], chosen["accuracy"], marker, color=colour, markersize=9)
    axis.axhline(wanted, color=ACCENT, linestyle="--", label="wanted")
    axis.set(
        xlabel="coverage: share of texts that get an answer",
        ylabel="accuracy of these answers",
        title="What being unsure buys",
        xlim=(0, 1.02),
    )
    axis.grid(alpha=0.3)
    axis.legend(title="marked: the threshold chosen")
    return figure


def bars(values: Mapping[str, float], label: str, title: str) -> Figure:
    """A bar for each of a few ways, the first at the top, with its value at the end; the axis is called `label`."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 0.6 + 0.45 * len(values)))
    drawn = axis.barh(list(values)[::-1], list(values.values())[::-1], color=INK)
    axis.bar_label(drawn, fmt="%.3g", padding=3)
    axis.set(xlabel=label, title=title)
    axis.margins(x=0.12)
    return figure
