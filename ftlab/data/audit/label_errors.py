"""Likely label errors, each with the chance that its label is wrong; the list stops where it falls below a half.

The list is of rows whose label is contradicted by a simple model that was fitted to the other rows, as in confident
learning (Northcutt et al. 2021, arXiv 1911.00068). With a weak model most of them are mistakes of the model. To tell
how many, a label is read as the true one, replaced by another one in a share of the rows that nobody knows:

    P(given label) = (1 - wrong) * q + wrong / (classes - 1) * (1 - q)

where q is the model's out-of-fold probability of the given label, sharpened by a power, since a regularised model
is too modest (temperature scaling, Guo et al. 2017; the noise as in Patrini et al. 2017). On rows where the model is
sure, it contradicts about `wrong` of the labels, on the others more: so the rows themselves show both unknowns. All
values on a grid are weighed by their likelihood and a prior, which gives each row its chance and the list its interval.

How many wrong labels such a list finds is counted with planted flips: each row gets another label in turn. Nothing is
fitted again, because the model that judges a row was not fitted to it. `benchmarks/planted/doubtful.py` plants flips
in the rows, fits everything again, and compares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ftlab.data.audit import linear_model
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.table import Table

TRUSTED = 0.2  # label errors are reported if the model corrects at least this share of the baseline's errors
EVEN = 0.5  # the chance at which the list stops
FLOOR = 1 / 3  # there is no list if its precision may be below this: one time in twenty, by its interval
WRONG = np.concatenate([np.geomspace(0.0005, 0.02, 20), np.linspace(0.025, 0.4, 76)])  # shares of wrong labels
USUAL = 0.05  # the prior's mean share of wrong labels; in ten test sets it was 3.4 % (Northcutt et al. 2021b)
POWERS = np.geomspace(0.4, 60, 60)
BINS = np.linspace(-25, 25, 501)  # of the logit of q
MOST_NUMBERS = 1_000_000  # rows times classes that the shares are estimated from, and planted flips counted in
FORM = 0.05  # standard error of the share because no model's doubts have exactly this form (planted flips in reviews)
DRAWS = 4000
FEWEST_SUGGESTED = 100  # rows of one label, to look at them alone


@dataclass(frozen=True)
class Noise:
    """How likely each share of wrong labels is, together with each power of the probabilities.

    Attributes:
        weights: (powers, shares) probabilities that sum to 1.
        chances: (bins, shares) the chance that a label is wrong, by the logit of its q and the share of wrong labels.
    """

    weights: np.ndarray
    chances: np.ndarray

    def chance(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return for each row the chance that its label is wrong, averaged over shares and powers.

        Args:
            probabilities: (rows, classes) out of fold.
            labels: (rows,) codes of the given labels.
        """
        of_bin = self.chances @ self.weights.T  # (bins, powers)
        return sum(of_bin[bins, power] for power, bins in enumerate(_bins(probabilities, labels)))

    def interval(self, probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Return between which shares the wrong ones of these rows lie, nine times in ten."""
        counts = np.array([np.bincount(bins, minlength=len(BINS) + 1) for bins in _bins(probabilities, labels)])
        expected = (counts @ self.chances / len(labels)).clip(0, 1)  # (powers, shares)
        rng = np.random.default_rng(0)
        drawn = rng.choice(expected.ravel(), DRAWS, p=self.weights.ravel())
        drawn = np.clip(drawn + rng.normal(0, FORM, DRAWS), 0, 1)
        low, high = np.quantile(rng.binomial(len(labels), drawn) / len(labels), [0.05, 0.95])
        return float(low), float(high)


def estimate(probabilities: np.ndarray, labels: np.ndarray) -> Noise:
    """Estimate how many labels are wrong, from out-of-fold probabilities.

    Args:
        probabilities: (rows, classes) each row's from a model that was not fitted to it.
        labels: (rows,) codes of the given labels.
    """
    logits = np.append(BINS, BINS[-1] + BINS[1] - BINS[0]) - (BINS[1] - BINS[0]) / 2
    q = (1 / (1 + np.exp(-logits)))[:, None]
    right, wrong = (1 - WRONG) * q, WRONG / (probabilities.shape[1] - 1) * (1 - q)
    places = _some(len(labels), MOST_NUMBERS // probabilities.shape[1])
    counts = np.array(
        [np.bincount(bins, minlength=len(BINS) + 1) for bins in _bins(probabilities[places], labels[places])]
    )
    evidence = counts @ np.log(right + wrong) + np.log(np.gradient(WRONG)) - WRONG / USUAL
    weights = np.exp(evidence - evidence.max())
    return Noise(weights / weights.sum(), wrong / (right + wrong))


def doubted(labels: np.ndarray, probabilities: np.ndarray, noise: Noise | None = None) -> np.ndarray:
    """Return the rows whose label is wrong at even odds or more, by `estimate`: the model prefers another one in each.

    Args:
        labels: (rows,) codes of the given labels.
        probabilities: (rows, classes) out of fold.
        noise: of `estimate`, if it is known already.

    Returns:
        Their positions, the likeliest errors first.
    """
    chances = (noise or estimate(probabilities, labels)).chance(probabilities, labels)
    order = np.argsort(-chances, kind="stable")
    return order[chances[order] >= EVEN]


def check(table: Table, rows: pd.DataFrame, labels: np.ndarray, probabilities: np.ndarray) -> tuple[list[Finding], str]:
    """Find likely label errors, with the share of them that is expected to be wrong.

    Args:
        table: the rows under audit.
        rows: those with a label, with columns id and label.
        labels: (rows,) codes of their labels.
        probabilities: (rows, classes) out of fold.

    Returns:
        The finding, if there is one, and why there is none if the model cannot tell.
    """
    accuracy, majority = float((probabilities.argmax(axis=1) == labels).mean()), np.bincount(labels).max() / len(labels)
    model = f"the simple model is right in {accuracy:.1%} of the rows"
    if accuracy - majority < TRUSTED * (1 - majority):
        return [], f"label errors: {model}, little better than the most frequent label alone"
    if (classes := probabilities.shape[1]) >= linear_model.MANY_CLASSES:  # naive Bayes: too sure, and not by a power
        return [], f"label errors: for {classes} classes the simple model counts words, and its doubts prove too little"
    if accuracy == 1:
        return [], ""
    noise = estimate(probabilities, labels)
    found = doubted(labels, probabilities, noise)
    if not len(found):
        one_sided = _one_sided(table.label_names, labels, probabilities)
        return [], f"label errors: {model}, and {one_sided or 'it finds no label more likely wrong than right'}"
    chances = noise.chance(probabilities[found], labels[found])
    low, high = noise.interval(probabilities[found], labels[found])
    if low < FLOOR:
        said = f"the labels it doubts most may be wrong in {low:.0%} or in {high:.0%} of the cases"
        few = f"from so few doubts it cannot be told which are errors: {said}"
        return [], f"label errors: {model}, and {_one_sided(table.label_names, labels, probabilities) or few}"
    names = np.array(table.label_names, dtype=object)
    suggested = probabilities[found].argmax(axis=1)
    evidence = pd.DataFrame(
        {
            "id": rows["id"].to_numpy()[found],
            "label": names[labels[found]],
            "suggested": names[suggested],
            "confidence": probabilities[found, suggested].astype(float).round(2),
            "chance_wrong": chances.round(2),
        }
    )
    what = (
        f"a label that a simple model contradicts with confidence in {{count}} ({share(len(found), len(rows))}); about "
        f"{chances.mean():.0%} of these labels are expected to be wrong (between {low:.0%} and {high:.0%}), and of all "
        f"wrong labels the list has about {_recall(noise, probabilities, labels):.0%}; the likeliest errors come first"
    )
    return [finding("likely_label_errors", what, evidence=evidence)], ""


def _one_sided(names: list[str], labels: np.ndarray, probabilities: np.ndarray) -> str:
    """Say where the model is sure of one label and the rows have others, unlike for the rest of its labels; or "".

    Errors of one kind look like this, but so do texts whose words speak for another label. How many are errors cannot
    be told: planted in reviews, often far fewer were than by this estimate.
    """
    suggested = probabilities.argmax(axis=1)
    for code in np.flatnonzero(np.bincount(suggested) >= FEWEST_SUGGESTED):
        rows = np.flatnonzero(suggested == code)
        noise = estimate(probabilities[rows], labels[rows])
        doubts = rows[(labels[rows] != code) & (noise.chance(probabilities[rows], labels[rows]) >= EVEN)]
        if len(doubts) and noise.interval(probabilities[doubts], labels[doubts])[0] >= EVEN:
            return (
                f"where it is surest of {names[code]!r}, {len(doubts):,} rows have another label, too many for chance: "
                "either labels of this one kind are wrong, or the words of these texts mislead; read some of them"
            )
    return ""


def _recall(noise: Noise, probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return which share of planted flips would be listed: each row gets another label in turn."""
    places = _some(len(labels), MOST_NUMBERS // probabilities.shape[1])
    classes = probabilities.shape[1]
    flipped = (labels[places] + np.random.default_rng(0).integers(1, classes, len(places))) % classes
    return float((noise.chance(probabilities[places], flipped) >= EVEN).mean())


def _bins(probabilities: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return for each power the bin of each row: that of the logit of q, the sharpened probability of its label."""
    logs = np.log(np.clip(probabilities, 1e-12, 1)).astype(np.float32)
    own = logs[np.arange(len(labels)), labels]
    logs[np.arange(len(labels)), labels] = -np.inf
    most = logs.max(axis=1, keepdims=True)
    rest = logs - most
    logits = (power * (own - most[:, 0]) - np.log(np.exp(power * rest).sum(axis=1)) for power in POWERS)
    return [np.searchsorted(BINS, each) for each in logits]


def _some(rows: int, most: int) -> np.ndarray:
    """Return the positions of all rows, or of `most` rows drawn at random."""
    return np.arange(rows) if rows <= most else np.random.default_rng(0).permutation(rows)[:most]
