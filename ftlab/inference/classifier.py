"""A saved classifier at work: load it once, label many texts in batches, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.data import streams
from ftlab.errors import BadInput
from ftlab.models import batches, devices, label_names, loading, model_files

if TYPE_CHECKING:
    import torch

UNSURE = "unsure"  # what stands for a label where a person should look


class Classifier:
    """A fine-tuned classifier, loaded once.

    `model` is a folder that a lesson saved, or any name that `loading.folder` takes. Texts longer than `max_length`
    tokens are cut; by default that is the length that the folder's tokenizer names, which is the one that the model was
    trained with, or as many as the model has positions. It runs on the GPU if there is one, in `dtype`: by default the
    one that it was saved in, in which it answers what `pipeline` does. Half precision is faster where the machine
    computes in it (`devices.answer_dtype`); it moves probabilities by hundredths (0.04 at most in
    `benchmarks/classification.py`) and a little with the other texts of the batch. Special tokens in a text are text
    to what a lesson saved, and to any other model what its tokenizer makes of them, as in `pipeline`. Raises BadInput
    when the folder holds no classifier, one that gives several labels at once or a number, or one whose weights or
    label names are not all there.
    """

    def __init__(
        self,
        model: str,
        *,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        loading.check(model)
        folder = loading.folder(model)
        names = label_names.read(model_files.read_json(folder / "config.json"), model)
        named = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
        try:
            config = AutoConfig.from_pretrained(folder, **named)
        except Exception as problem:  # an architecture that transformers does not know, or values that it cannot have
            reason = " ".join(str(problem).split())[:200]
            raise BadInput(f"{model} cannot be loaded ({reason}); give a folder that lesson 02 saved") from problem
        architectures = config.architectures or []
        if not architectures:
            raise BadInput(
                f"{model} is no classifier that can be told from another model: it names no architecture; write the "
                'class that it was saved from into its config.json ("architectures": ["BertForSequenceClassification"]'
                ", say), or give a folder that lesson 02 saved"
            )
        if not any("SequenceClassification" in name for name in architectures):
            raise BadInput(
                f"{model} is no classifier ({', '.join(architectures)}): it has no head for labels; give a folder that "
                "lesson 02 saved"
            )
        if len(names) < 2 or config.problem_type in ("regression", "multi_label_classification"):
            kind = "several labels at once" if len(names) > 1 else "one number"
            raise BadInput(f"{model} answers with {kind}; expected a model that gives each text one of its labels")
        self.labels: list[str] = names  # in the order of their ids
        self.tokenizer = loading.tokenizer(model, pad_token_id=config.pad_token_id)
        least, most = self.tokenizer.num_special_tokens_to_add() + 1, loading.max_positions(model)
        if max_length is not None and not least <= max_length <= most:
            raise BadInput(f"max_length is {max_length}, and {model} takes {least} to {most} tokens")
        self.max_length = max_length or most
        self.model = loading.load(AutoModelForSequenceClassification, model, dtype=dtype or "auto", **named)
        loading.match_pad_token(self.model, self.tokenizer)  # by which a decoder finds the end of a text
        self.model.to(device or devices.best_device()).eval()

    def probabilities(self, texts: Sequence[str], *, tokens: int = batches.TOKENS) -> np.ndarray:
        """The probability of each label for each text: (texts, labels), in the order of the texts.

        Raises BadInput for a text that is no string or is blank: there is nothing to classify in it; and for answers
        that are no numbers, as float16 gives where a model's values are too large for it.
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
                f"the model's answer to text {place}, {texts[place][:40]!r}, is no number, in {self.model.dtype}; "
                "load it in torch.float32 (without --half), and if that gives none either, train it anew"
            )
        return found

    def _answers(self, encodings: Any, tokens: int) -> np.ndarray:
        """What the model makes of tokenized texts. What it cannot take, such as a text without EOS, is a BadInput."""
        import torch

        try:
            return batches.run(self.model, self.tokenizer, encodings, batches.softmax, tokens=tokens)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, IndexError) as problem:
            reason = " ".join(str(problem).split())[:200]
            raise BadInput(
                f"a {type(self.model).__name__} cannot take what its tokenizer makes of these texts ({reason}); give "
                "it the tokenizer that it was trained with"
            ) from problem

    def __call__(self, texts: Sequence[str], *, unsure_below: float = 0.0) -> pd.DataFrame:
        """One line a text, in their order: text, label, probability (of that label), and `p_<label>` for each label.

        Where no label has a probability of at least `unsure_below` (`selective.threshold` finds one), the label is
        UNSURE, and the probability that of the best. Raises BadInput when `unsure_below` is no probability.
        """
        if not 0 <= unsure_below <= 1:
            raise BadInput(f"unsure_below is {unsure_below}; expected a probability, from 0 to 1")
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
        """Each table of `parts` with the answers for its texts: columns prediction, probability and `p_<label>`.

        A row whose text is missing or blank gets none. Raises BadInput when a table has one of these columns already.
        """
        added = ["prediction", "probability", *(f"p_{name}" for name in self.labels)]
        for part in parts:
            if taken := [name for name in added if name in part.columns]:
                raise BadInput(f"the rows already have a column {taken[0]!r}, which the answers would go to; rename it")
            texts = pd.Series(streams.texts(part, column), index=part.index, dtype="str")
            there = (texts.str.strip() != "").to_numpy()
            answers = self(texts[there].tolist(), unsure_below=unsure_below).rename(columns={"label": "prediction"})[
                added
            ]
            answers.index = part.index[there]
            yield part.join(answers)
