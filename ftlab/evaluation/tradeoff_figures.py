"""Figures of trade-offs: learning rates, learning and forgetting by LoRA rank, few-shot prompts, coverage, bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ftlab.evaluation.figures import BLUE, DARK, log_axis, method_styles, style

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure


@style()
def sweep(tried: pd.DataFrame, chosen: pd.DataFrame) -> Figure:
    """Draw the held-out loss against the learning rate, a panel for each task and a line for each method.

    Args:
        tried: a line for each run: task, targets (the method), learning_rate and loss_change (the loss on validation
            rows minus the base model's, in nats per token).
        chosen: task, targets and learning_rate of the choices, which get a ring.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(tried["task"]))
    figure, axes = plt.subplots(1, len(tasks), figsize=(4 * len(tasks), 3.9), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for name, (colour, marker) in method_styles(tried["targets"]).items():
            here = tried[(tried["task"] == task) & (tried["targets"] == name)].set_index("learning_rate")["loss_change"]
            axis.plot(here.sort_index(), color=colour, marker=marker, label=name)
            best = chosen[(chosen["task"] == task) & (chosen["targets"] == name)]["learning_rate"]
            axis.plot(here[here.index.isin(best)], "o", color=DARK, markersize=14, fillstyle="none")
        axis.set_xscale("log")
        axis.set(xlabel="learning rate (log scale)", ylabel="change from the base, nats per token", title=task)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3,
        title="loss on validation rows, ring: the chosen rate",
    )  # fmt: skip
    return figure


@style()
def ranks(points: pd.DataFrame, live: pd.DataFrame | None = None) -> Figure:
    """Draw the held-out loss and the perplexity ratio by LoRA rank, with full fine-tuning as a level.

    Args:
        points: a line for each run: targets ("full" for full fine-tuning), rank, loss_change (held-out loss minus the
            base model's, in nats per token) and forgetting (perplexity of the general text over the base model's).
        live: the same for this run, drawn as a cross.

    Returns:
        The figure; lines are means over seeds, bands their range.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.9))
    panels = {
        "loss_change": ("Held-out loss", "change from the base, nats per token"),
        "forgetting": ("Perplexity ratio of the general text", "perplexity over the base model's"),
    }
    for axis, (column, (title, label)) in zip(axes, panels.items(), strict=True):
        for name, (colour, marker) in method_styles(points["targets"]).items():
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
        log_axis(axis, points["rank"].dropna(), "rank r (log scale)")
        axis.set(ylabel=label, title=title)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3,
        title="mean and range over seeds" + (", cross: this run" if live is not None else ""),
    )  # fmt: skip
    return figure


@style()
def few_shot(points: pd.DataFrame, live: pd.DataFrame | None = None, score: str = "exact match") -> Figure:
    """Draw the score of a model against the number of worked examples in its prompt, with the tuned model as a level.

    Args:
        points: a line for each prompt and each draw of its examples: template ("tuned" for the tuned model), examples,
            and score; of the tuned model also low and high, the ends of its confidence interval.
        live: template, examples and score of this run, drawn as crosses.
        score: the name of the score.

    Returns:
        The figure; lines are means over the draws, bands their range. The band of the tuned model is its interval.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for name, (colour, marker) in method_styles(points["template"]).items():
        here = points[points["template"] == name]
        if name == "tuned":
            axis.axhline(here["score"].mean(), color=colour, linestyle="--", label="tuned, with its interval")
            axis.axhspan(here["low"].min(), here["high"].max(), color=colour, alpha=0.12)
        else:
            over_draws = here.groupby("examples")["score"]
            axis.plot(over_draws.mean(), color=colour, marker=marker, label=f"{name} prompt")
            axis.fill_between(over_draws.mean().index, over_draws.min(), over_draws.max(), color=colour, alpha=0.15)
        if live is not None and len(own := live[live["template"] == name]):
            axis.plot(own["examples"], own["score"], "x", color=colour, markersize=11, markeredgewidth=2.5)
    axis.set_xticks(sorted({*points["examples"].dropna().astype(int)}))
    axis.set(xlabel="worked examples in the prompt", ylabel=score, title="Few-shot prompts and a tuned model")
    axis.set_ylim(0, 1.02)
    axis.grid()
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside upper center", ncols=3,
        title="prompts: mean and range over draws of examples" + (", crosses: this run" if live is not None else ""),
    )  # fmt: skip
    return figure


@style()
def coverage(curves: Mapping[str, pd.DataFrame], threshold: float, wanted: float) -> Figure:
    """Draw accuracy against coverage: the accuracy on the answered texts against the share that is answered.

    Args:
        curves: a table of `selective.coverage` for each split, with columns threshold, coverage and accuracy.
        threshold: the chosen one, marked on each curve.
        wanted: the target accuracy, a dashed line.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for name, (colour, marker) in method_styles(curves).items():
        curve = curves[name]
        axis.plot(curve["coverage"], curve["accuracy"], drawstyle="steps-post", color=colour, label=name)
        chosen = curve[curve["threshold"] >= threshold].tail(1)
        axis.plot(chosen["coverage"], chosen["accuracy"], marker, color=colour, markersize=9)
    axis.axhline(wanted, color=DARK, linestyle="--", linewidth=1.2, label="target accuracy")
    axis.set(
        xlabel="coverage: share of texts answered",
        ylabel="accuracy on the answered texts",
        title="Accuracy against coverage",
        xlim=(0, 1.02),
    )
    axis.grid()
    axis.legend(title="marker: chosen threshold")
    return figure


@style()
def bars(values: Mapping[str, float], label: str, title: str) -> Figure:
    """Draw a horizontal bar for each of `values`, the first at the top, with its value at the end.

    `label` names the quantity and its unit on the axis; `title` is the figure's. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.4 * len(values)))
    drawn = axis.barh(list(values)[::-1], list(values.values())[::-1], color=BLUE)
    axis.bar_label(drawn, fmt="%.3g", padding=3)
    axis.set(xlabel=label, title=title)
    axis.margins(x=0.12)
    return figure
