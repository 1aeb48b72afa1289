"""A saved classifier in use: load it once, and label many texts in batches, in their order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.data import streams
from ftlab.errors import BadInput
from ftlab.models import batches, devices, label_names, loading, model_files
from ftlab.wording import one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

UNSURE = "unsure"  # in place of a label: a person should decide


class Classifier:
    """A fine-tuned classifier, loaded once.

    A model that a lesson saved reads special tokens in a text as text; any other model reads them as its tokenizer
    does, as in `pipeline`.

    Args:
        model: a folder that a lesson saved, or any name that `loading.folder` takes.
        max_length: in tokens; longer texts are truncated. By default the length that the folder's tokenizer names
            (the one of the training), or else the number of the model's positions.
        device: by default the GPU if there is one.
        dtype: by default the stored one, which gives the answers of `pipeline`. Half precision is faster where the
            machine computes in it (`devices.answer_dtype`). It changes probabilities by hundredths (0.04 at most in
            `benchmarks/classification.py`), and slightly with the other texts of the batch.

    Raises:
        BadInput: `model` is not a classifier, predicts several labels at once or a number, or lacks weights or names
            of labels; or `max_length` does not fit it.
    """

    def __init__(
        self,
        model: str,
        *,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        from transformers import AutoConfig

        loading.check(model)
        folder = loading.folder(model)
        names = label_names.read(model_files.read_json(folder / "config.json"), model)
        named = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
        try:
            config = AutoConfig.from_pretrained(folder, **named, trust_remote_code=False)
        except Exception as problem:  # an architecture that transformers does not know, or impossible values
            raise BadInput(
                f"{model} cannot be loaded ({one_line(problem)}); give a folder that lesson 02 saved"
            ) from problem
        written = config.architectures
        architectures = [name for name in written if isinstance(name, str)] if isinstance(written, list) else []
        if not architectures:
            raise BadInput(
                f"{model} names no architecture, so it may not be a classifier; write its class into its config.json "
                '("architectures": ["BertForSequenceClassification"], for example), or give a folder that lesson 02 '
                "saved"
            )
        if not any("SequenceClassification" in name for name in architectures):
            raise BadInput(
                f"{model} is not a classifier ({', '.join(architectures)}): it has no head for labels; give a folder "
                "that lesson 02 saved"
            )
        if len(names) < 2 or config.problem_type in ("regression", "multi_label_classification"):
            kind = "several labels at once" if len(names) > 1 else "one number"
            raise BadInput(f"{model} predicts {kind}; expected a model that gives each text one of its labels")
        self.labels: list[str] = names  # in the order of their ids
        self.tokenizer = loading.tokenizer(model, pad_token_id=config.pad_token_id)
        least, most = self.tokenizer.num_special_tokens_to_add() + 1, loading.max_positions(model)
        if max_length is not None and not least <= max_length <= most:
            raise BadInput(f"max_length is {max_length}, and {model} takes {least} to {most} tokens")
        self.max_length = max_length or most
        self.model = self._load(model, named, device or devices.best_device(), dtype)

    def _load(
        self, model: str, named: dict[str, Any], device: torch.device | str, dtype: torch.dtype | None
    ) -> PreTrainedModel:
        """Return the model, whose config gets the names of the labels, `named`, on `device` and in `dtype`."""
        from transformers import AutoModelForSequenceClassification

        loaded = loading.load(AutoModelForSequenceClassification, model, dtype=dtype or "auto", **named)
        loading.match_pad_token(loaded, self.tokenizer)  # a decoder finds the end of a text by the pad token
        return loaded.to(device).eval()

    def probabilities(self, texts: Sequence[str], *, tokens: int = batches.TOKENS) -> np.ndarray:
        """Compute the probability of each label for each text.

        Args:
            texts: strings that are not blank.
            tokens: the most tokens in a batch, padding included.

        Returns:
            (texts, labels) float32, in the order of `texts` and of `labels`.

        Raises:
            BadInput: a text is not a string or is blank; or a probability is NaN, as in float16 when a model's values
                are too large for it.
        """
        if isinstance(texts, str):
            raise BadInput(f"texts is one text, {texts[:40]!r}; expected a list of texts")
        for place, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise BadInput(f"text {place} is {text!r}; expected a text with something in it")
        if not len(texts):
            return np.empty((0, len(self.labels)), dtype=np.float32)
        encodings = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        found = self._answers(encodings, tokens)
        if not np.isfinite(found).all():
            place = int(np.argmin(np.isfinite(found).all(axis=1)))
            raise BadInput(
                f"the probabilities of text {place}, {texts[place][:40]!r}, are NaN in {self.model.dtype}; load the "
                "model in torch.float32 (without --half), and if they are NaN there too, train it again"
            )
        return found

    def _answers(self, encodings: Any, tokens: int) -> np.ndarray:
        """Return the probabilities of tokenized texts. Raises BadInput for input that the model refuses."""
        import torch

        try:
            return batches.run(self.model, self.tokenizer, encodings, batches.softmax, tokens=tokens)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, IndexError) as problem:  # a text without EOS, for example
            raise BadInput(
                f"a {type(self.model).__name__} cannot use its tokenizer's output for these texts "
                f"({one_line(problem)}); give it the tokenizer that it was trained with"
            ) from problem

    def __call__(self, texts: Sequence[str], *, unsure_below: float = 0.0) -> pd.DataFrame:
        """Label each text.

        Args:
            texts: as for `probabilities`.
            unsure_below: where no label has at least this probability, the label is UNSURE, and the probability is
                that of the best label. `selective.threshold` finds a value; `selective.NEVER` leaves each text to a
                person.

        Returns:
            One row for each text, in their order: text, label, probability of that label, `p_<label>` of each label.

        Raises:
            BadInput: `unsure_below` is neither a probability nor NEVER, or it is above 0 and UNSURE is a label of the
                model; or as `probabilities`.
        """
        if not (0 <= unsure_below <= 1 or unsure_below == math.inf):
            raise BadInput(f"unsure_below is {unsure_below}; expected a probability, from 0 to 1")
        if unsure_below > 0 and UNSURE in self.labels:
            raise BadInput(
                f"{UNSURE!r} is a label of the model, so it cannot also mark the texts that are left to a person; "
                "leave out --unsure-below (unsure_below), or rename the label in the model's config.json (id2label, "
                "label2id)"
            )
        found = self.probabilities(texts)
        best = found.argmax(axis=1)
        table = pd.DataFrame(
            {
                "text": list(texts),
                "label": [self.labels[index] for index in best],
                "probability": found[np.arange(len(found)), best],
            }
        )
        table["label"] = table["label"].where(table["probability"] >= unsure_below, UNSURE)
        return table.assign(**{f"p_{name}": found[:, index] for index, name in enumerate(self.labels)})

    def label_rows(
        self, parts: Iterable[pd.DataFrame], column: str = "text", *, unsure_below: float = 0.0
    ) -> Iterator[pd.DataFrame]:
        """Label the rows of tables, one table at a time.

        Args:
            parts: tables with a column of texts.
            column: the name of that column.
            unsure_below: as for calling the classifier.

        Yields:
            Each table with the columns prediction, probability and `p_<label>`. They are empty in a row whose text is
            missing or blank.

        Raises:
            BadInput: a table has one of these columns already; or as for calling the classifier.
        """
        added = ["prediction", "probability", *(f"p_{name}" for name in self.labels)]
        for part in parts:
            if taken := [name for name in added if name in part.columns]:
                raise BadInput(f"the rows already have a column {taken[0]!r}, which ftlab writes; rename it")
            texts = pd.Series(streams.texts(part, column), index=part.index, dtype="str")
            there = (texts.str.strip() != "").to_numpy()
            answers = self(texts[there].tolist(), unsure_below=unsure_below).rename(columns={"label": "prediction"})
            answers.index = np.flatnonzero(there)  # by place: several rows may have one index
            yield part.reset_index(drop=True).join(answers[added]).set_axis(part.index)
