"""Shortcuts: what predicts the label without the meaning of a text. Its length, a single word, or its form.

Each is fitted simply, scored on rows that it was not fitted to, and set beside a model of all words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.audit import linear_model, personal_data, text_form
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

GAIN_OF_A_SHORTCUT = 0.2  # a shortcut corrects at least this share of the most-frequent-label baseline's errors
SHARE_OF_A_SHORTCUT = 0.6  # and has at least this share of the gain of TF-IDF over that baseline
STANDARD_ERRORS = 4  # and a gain larger than chance explains, although many shortcuts are tried
TELL_AS_MUCH = 0.98  # of a shortcut's accuracy, by all words but the most telling ones: the words tell it anyway
MOST_TELLING = 20  # words, for these may be the shortcut itself: a tag, an address
MOST_TALLIES = 10_000_000  # classes times words that are counted
FEWEST_OF_A_VALUE = 5  # rarer values of a feature count as one
OF_A_CLASS = 0.3  # a value that this share of a class has gives the class away,
SURE = 0.9  # if it removes this share of the doubt that the row is of this class,
CHANCE = 1e-5  # and if as many rows drawn at random would be of this class less often than this
WORDS = ("first word", "last word")  # many questions of a class begin alike, so they are named only if
OF_A_CLASS_BY_WORD = 0.8  # one word stands there in this share of a class
CONTENT = (*WORDS, "digits", "links", "language")  # part of what a text says: they may mark one class of many
PRIVATE, LOOKED_AT = "[private]", 10  # a word that is not shown; texts in which it is looked for
LISTED = 4  # features that a finding describes, and values of each
# With such labels, it is the language itself that is asked for, and most of the form belongs to it.
OF_NO_LANGUAGE = ["space around the text", "emoji"]
LANGUAGES = """
arabic bengali bulgarian catalan chinese croatian czech danish dutch english estonian finnish french german greek
hebrew hindi hungarian indonesian italian japanese korean latvian lithuanian norwegian persian polish portuguese
romanian russian serbian slovak slovenian spanish swahili swedish tamil thai turkish ukrainian urdu vietnamese
deutsch englisch español français italiano português ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it
ja ko lt lv nl no pl pt ro ru sk sl sr sv sw ta th tr uk ur vi zh ara deu eng fra hin ita jpn kor nld pol por rus
spa tha tur vie zho bash c c++ c# css go haskell html java javascript json kotlin markdown perl php python r ruby
rust scala shell sql swift typescript xml yaml
"""


@dataclass(frozen=True)
class Judging:
    """The labelled training rows, and how well all words and the most frequent label predict their labels."""

    table: Table
    rows: pd.DataFrame
    labels: np.ndarray
    fold: np.ndarray
    tfidf: float

    @cached_property
    def majority(self) -> float:
        """The share of the most frequent label."""
        return float(np.bincount(self.labels).max() / len(self.labels))

    @cached_property
    def distinct(self) -> np.ndarray:
        """The first row of each cluster of copies and near-copies: the others are no further evidence."""
        return np.unique(self.table.train_clusters[self.table.labelled], return_index=True)[1]

    @cached_property
    def words(self) -> csr_matrix:
        """(rows, vocabulary) how often each word is in each text."""
        return self.table.counts[np.flatnonzero(self.table.labelled)]

    @cached_property
    def one_token(self) -> tuple[float, np.ndarray]:
        """The accuracy of a guess by a single word, and the most telling words (see `_one_token`)."""
        return _one_token(self.words, self.labels, self.fold)

    @cached_property
    def told_by_other_words(self) -> np.ndarray:
        """(rows,) whether TF-IDF without the most telling words is right."""
        rest = self.words[:, np.setdiff1d(np.arange(self.words.shape[1]), self.one_token[1][:MOST_TELLING])]
        if not rest.nnz:
            return np.zeros(len(self.labels), dtype=bool)
        probabilities = linear_model.out_of_fold(linear_model.tfidf(rest), self.labels, self.fold)
        return probabilities.argmax(axis=1) == self.labels

    def weighed(self, found: Finding, rows: np.ndarray, accuracy: float) -> Finding:
        """Return the finding on a shortcut, as a mere note if the other words tell the labels of its rows as well.

        Then it may be part of the task, as the length and the signs of code are where code is told from prose.

        Args:
            found: a warning.
            rows: (rows,) whether the shortcut speaks on a row.
            accuracy: of its guess on these rows.
        """
        others = float(self.told_by_other_words[rows].mean())
        if others < TELL_AS_MUCH * accuracy:
            return found
        told = f"the other words (all but the {MOST_TELLING} most telling) are right in {others:.1%} of its rows"
        return replace(found, severity="info", what=f"{found.what}; {told}, so it may be part of the task")

    @property
    def against(self) -> str:
        """What the accuracy of a shortcut stands beside, in words."""
        return f"against {self.majority:.1%} for the most frequent label and {self.tfidf:.1%} for all words"

    def is_shortcut(self, accuracy: float) -> bool:
        """Whether a guess with this accuracy predicts too much of the labels."""
        gain, majority = accuracy - self.majority, self.majority
        chance = STANDARD_ERRORS * (majority * (1 - majority) / len(self.distinct)) ** 0.5
        return bool(
            gain >= max(GAIN_OF_A_SHORTCUT * (1 - majority), chance)
            and gain >= SHARE_OF_A_SHORTCUT * (self.tfidf - majority)
        )


def check(judging: Judging) -> tuple[list[Finding], pd.DataFrame]:
    """Return the shortcuts that predict too much, and the accuracy of each guess on held-out rows."""
    length = _length_alone(judging.rows["text"].str.len().to_numpy(), judging.labels, judging.fold)
    token, telling_words = judging.one_token
    found, everywhere = [], np.ones(len(judging.labels), dtype=bool)
    if judging.is_shortcut(length):
        what = f"length alone predicts {length:.1%} of the labels, {judging.against}"
        found.append(judging.weighed(finding("length_shortcut", what, count=len(judging.rows)), everywhere, length))
    if judging.is_shortcut(token):
        word = int(telling_words[0])
        present = judging.words[:, word].toarray()[:, 0] > 0
        judging.table.cached("telling word", lambda: word)
        name = _shown(judging.table.words.vocabulary[word], judging.rows["text"][present])
        what = f"one word, {name!r}, predicts {token:.1%} of the labels, {judging.against}"
        evidence = pd.DataFrame({"id": judging.rows["id"][present], "word": name})
        usual = float(np.bincount(judging.labels[present]).max() / present.sum())
        found.append(judging.weighed(finding("token_shortcut", what, evidence=evidence), present, usual))
    forms = _forms(judging)
    telling = [form for form in forms if len(form.telling)]
    if telling:
        found.append(_shape_shortcut(judging, telling))
    shown = telling or forms[:1]
    guesses = [
        ("the most frequent label", judging.majority),
        ("length alone", length),
        ("one word alone", token),
        *((f"{form.name} alone", form.accuracy) for form in shown),
        ("TF-IDF over all words", judging.tfidf),
    ]
    table = pd.DataFrame(guesses, columns=["guess by", "accuracy"])
    return found, table.assign(accuracy=table["accuracy"].round(3))


def telling_word(table: Table) -> int:
    """Return the number, in the vocabulary of `table`, of the word of token_shortcut: its name may be a secret."""
    return int(table.cached("telling word", lambda: None))


def _shown(word: str, texts: pd.Series) -> str:
    """The word as a report may show it: without what is part of a secret or of a person's number."""
    return PRIVATE if any(word in personal_data.pieces(text) for text in texts.head(LOOKED_AT)) else word


def form(table: Table) -> pd.DataFrame:
    """Return the form of each labelled text of `table`: a column for each feature, indexed by position in the texts."""
    places = np.flatnonzero(table.labelled)

    def describe() -> pd.DataFrame:
        described = text_form.describe(table.texts["text"].iloc[places].tolist(), table.words, table.counts, places)
        return described.set_index(places)

    return table.cached("form", describe)


def form_features(table: Table, places: np.ndarray) -> csr_matrix:
    """Return the form and the length of texts as features for a linear model.

    Args:
        table: the rows under audit.
        places: (rows,) positions of labelled training rows in its texts.

    Returns:
        (rows, values) 1 where a text has the value; rare values of a feature are one, and a tenth of the rows has each
        value of the length.
    """
    from sklearn.preprocessing import OneHotEncoder

    length = table.texts["text"].iloc[places].str.len().to_numpy()
    described = form(table).loc[places].assign(length=np.digitize(length, np.quantile(length, np.arange(1, 10) / 10)))
    return OneHotEncoder(min_frequency=FEWEST_OF_A_VALUE, dtype=np.float32).fit_transform(described)


@dataclass(frozen=True)
class _Form:
    """A feature of the form, how well it predicts the label, and the values that tell too much.

    `telling` has a line for each such value: value, label (its code), share (of the value's rows with this label),
    rows (with this value), and shown (the value as a report may show it); the most frequent value comes first.
    """

    name: str
    accuracy: float
    predicts: bool  # it is a shortcut for the table as a whole, not for a class alone
    values: np.ndarray
    telling: pd.DataFrame


def _forms(judging: Judging) -> list[_Form]:
    """Judge each feature of the form, the most accurate first."""
    described = form(judging.table)
    names = {name.strip().casefold() for name in judging.table.label_names}
    if names <= {*LANGUAGES.split()}:
        described = described[OF_NO_LANGUAGE]
    judged = [_judge(judging, str(name), described[name]) for name in described]
    return sorted(judged, key=lambda each: -each.accuracy)


def _judge(judging: Judging, name: str, values: pd.Series) -> _Form:
    codes, kinds = pd.factorize(values)
    frequent = np.argsort(-np.bincount(codes), kind="stable")  # the rarest count as one
    size = int(judging.labels.max()) + 1
    enough = (np.bincount(codes)[frequent] >= FEWEST_OF_A_VALUE).sum()
    kept = frequent[: min(enough, MOST_TALLIES // (size * linear_model.FOLDS))]
    number = np.full(len(kinds), len(kept))
    number[kept] = np.arange(len(kept))
    codes = number[codes]
    shape = (linear_model.FOLDS, len(kept) + 1, size)
    cells = np.ravel_multi_index((judging.fold, codes, judging.labels), shape)
    tallies = np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)
    having = tallies.sum(axis=0)
    right = 0
    for tally in tallies:
        seen = having - tally
        guess = np.where(seen.any(axis=1), seen.argmax(axis=1), seen.sum(axis=0).argmax())
        right += tally[np.arange(len(guess)), guess].sum()
    once = np.bincount(cells[judging.distinct], minlength=tallies.size).reshape(shape).sum(axis=0)
    telling, predicts = _tell(judging, name, right / len(codes), having[: len(kept)], once[: len(kept)])
    telling = telling.assign(value=np.asarray(kinds)[kept][telling.index])
    texts, word = judging.rows["text"], name in WORDS
    shown = [_shown(value, texts[(values == value).to_numpy()]) if word else value for value in telling["value"]]
    telling = telling.assign(shown=np.array(shown, dtype=object))
    return _Form(name, right / len(codes), predicts, np.asarray(values), telling)


def _tell(
    judging: Judging, name: str, accuracy: float, having: np.ndarray, once: np.ndarray
) -> tuple[pd.DataFrame, bool]:
    """Choose the values that tell too much, and say whether the feature is a shortcut for the table as a whole.

    A feature tells too much if it is such a shortcut; its telling values then remove half of the doubt about the class.
    Or one value marks rows of one class, which the accuracy over many classes hardly shows.

    Args:
        judging: the rows.
        name: of the feature.
        accuracy: of a guess by this feature.
        having: (values, classes) the number of rows of each class with each value.
        once: the same, of copies one.
    """
    of_class = np.bincount(judging.labels, minlength=having.shape[1])
    prior = of_class / len(judging.labels)
    label = having.argmax(axis=1)
    cell = np.arange(len(having)), label
    share = having[cell] / having.sum(axis=1)
    lift = (share - prior[label]) / (1 - prior[label])
    wanted = OF_A_CLASS_BY_WORD if name in WORDS else OF_A_CLASS
    marks = (having[cell] >= wanted * of_class[label]) & (lift >= SURE) & (prior[label] ** once[cell] < CHANCE)
    predicts = judging.is_shortcut(accuracy)
    if name in WORDS:
        predicts = predicts and bool(marks.any())
        chosen = marks & predicts
    elif predicts:
        chosen = lift >= min(0.5, lift.max())
    else:
        chosen = marks & (name not in CONTENT)
    telling = pd.DataFrame({"label": label, "share": share, "rows": having.sum(axis=1)})[chosen]
    return telling.sort_values("rows", ascending=False, kind="stable"), predicts


def _shape_shortcut(judging: Judging, forms: list[_Form]) -> Finding:
    """One finding for all features that tell too much. A row is listed with the one that predicts best."""
    names = np.array([personal_data.without_private(name) for name in judging.table.label_names], dtype=object)
    said, lines = [], []
    for each in forms:
        columns = (each.telling["shown"], names[each.telling["label"]], each.telling["share"])
        examples = [f"{value}: {share:.0%} {label}" for value, label, share in zip(*columns, strict=True)]
        more = f", and {len(examples) - LISTED} more" if len(examples) > LISTED else ""
        listed = f"({'; '.join(examples[:LISTED])}{more})"
        guess = f"a guess by the {each.name} alone is right in {each.accuracy:.1%} of the rows {listed}"
        said.append(guess if each.predicts else f"a class is given away by the {each.name} {listed}")
        place = pd.Index(each.telling["value"]).get_indexer(pd.Index(each.values))
        has = place >= 0
        of_rows = each.telling.iloc[place[has]]
        line = pd.DataFrame({"id": judging.rows["id"].to_numpy()[has], "form": each.name})
        lines.append(line.assign(value=of_rows["shown"].to_numpy(), typical_of=names[of_rows["label"]]))
    evidence = pd.concat(lines, ignore_index=True).drop_duplicates("id")
    if also := [each.name for each in forms[LISTED:]]:
        said = [*said[:LISTED], f"likewise for {', '.join(also)}"]
    found = finding("shape_shortcut", f"{'; '.join(said)}; {judging.against}", evidence=evidence)
    typical = evidence.set_index("id")["typical_of"].reindex(judging.rows["id"]).to_numpy()
    named = judging.rows["id"].isin(evidence["id"]).to_numpy()
    right = float((typical[named] == names[judging.labels[named]]).mean())
    return judging.weighed(found, named, right)


def _length_alone(characters: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> float:
    """Return the accuracy of a small decision tree whose only feature is the number of characters."""
    from sklearn.tree import DecisionTreeClassifier

    features = np.log1p(characters).reshape(-1, 1)
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)
    return float((linear_model.out_of_fold(features, labels, fold, tree).argmax(axis=1) == labels).mean())


def _one_token(words: object, labels: np.ndarray, fold: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the accuracy of guessing by whether a text contains the best single word, and the ids of the best words.

    For the accuracy, the word is chosen on the other folds and scored on the fold, as a model would be. The words that
    are returned are the best ones over all rows, the best first.
    """
    from scipy.sparse import csr_matrix

    size = int(labels.max()) + 1
    present = csr_matrix(words) > 0
    # A word that predicts many labels is frequent, so the rarest are left out if there are too many to count.
    frequent = np.argsort(-np.bincount(present.indices, minlength=present.shape[1]), kind="stable")
    frequent = np.sort(frequent[: max(1, MOST_TALLIES // size)])
    present = present[:, frequent]
    tallies = []  # for each fold, (classes, words): the rows of the class that contain the word
    for number in range(linear_model.FOLDS):
        inside = np.flatnonzero(fold == number)
        onehot = csr_matrix((np.ones(len(inside)), (labels[inside], np.arange(len(inside)))), (size, len(inside)))
        tallies.append((onehot @ present[inside].astype(np.float64)).toarray())
    totals = np.array([np.bincount(labels[fold == number], minlength=size) for number in range(linear_model.FOLDS)])
    having, all_rows = np.sum(tallies, axis=0), totals.sum(axis=0)
    right = 0.0
    for number in range(linear_model.FOLDS):
        seen, there = having - tallies[number], (all_rows - totals[number])[:, None]
        word = int((seen.max(axis=0) + (there - seen).max(axis=0)).argmax())
        with_word, without = seen[:, word].argmax(), (there[:, 0] - seen[:, word]).argmax()
        right += tallies[number][with_word, word] + totals[number][without] - tallies[number][without, word]
    best = np.argsort(-(having.max(axis=0) + (all_rows[:, None] - having).max(axis=0)), kind="stable")
    return float(right / len(labels)), frequent[best]
