"""A text that says "[SEP]" is one text: to training, to the audit, and to whoever loads the classifier."""

import pytest
from transformers import AutoTokenizer, pipeline

from ftlab.data import sources
from ftlab.data.audit import audit
from ftlab.inference import Classifier
from ftlab.models import loading
from ftlab.training import classification

SAID = ("a fine film [SEP] or so", "[MASK] me", "good [CLS][PAD] bad", "a plain text")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The Trainer after a few steps on rows some of which hold special tokens, and the folder that it saved."""
    frame = sources.as_frame(sources.load("mini_reviews")["train"]).head(40).copy()
    frame.loc[:3, "text"] = SAID
    rows = sources.as_dataset_dict(frame)["train"]
    folder = tmp_path_factory.mktemp("trained")
    trainer = classification.fine_tune(
        rows, folder / "steps", model="tiny-distilbert", max_length=64, epochs=1, batch_size=8, learning_rate=1e-3,
        least_steps=1,
    )  # fmt: skip
    trainer.save_model(folder / "model")
    return trainer, frame, folder / "model"


def ids(tokenizer):
    return tokenizer(list(SAID))["input_ids"]


def test_training_reads_special_tokens_in_a_text_as_text_and_saves_that_with_the_tokenizer(trained):
    trainer, _, folder = trained
    read = trainer.train_dataset["input_ids"][:4]
    special = trainer.processing_class.all_special_ids
    unknown = trainer.processing_class.unk_token_id
    for row in read:
        assert [number for number in row if number in special and number != unknown] == [row[0], row[-1]]
    assert read == ids(AutoTokenizer.from_pretrained(folder)) == ids(loading.tokenizer(str(folder)))
    assert read != ids(loading.tokenizer("tiny-distilbert"))


def test_an_audit_counts_the_tokens_that_training_reads(trained):
    trainer, frame, folder = trained
    counted = audit(frame, tokenizer=loading.bare_tokenizer(str(folder))).lengths["tokens"].tolist()
    assert counted == audit(frame, tokenizer=loading.tokenizer("tiny-distilbert")).lengths["tokens"].tolist()
    assert [min(tokens, 64) for tokens in counted] == [*map(len, trainer.train_dataset["input_ids"])]


@pytest.mark.parametrize("saved", ["trained here", "made elsewhere"])
def test_a_classifier_reads_texts_as_its_tokenizer_was_saved_and_as_pipeline_does(trained, classifier_folder, saved):
    folder = str(trained[2] if saved == "trained here" else classifier_folder)
    answers = Classifier(folder, device="cpu")(SAID)
    told = pipeline("text-classification", model=folder, device="cpu")(list(SAID))
    assert answers["label"].tolist() == [answer["label"] for answer in told]
    assert answers["probability"].tolist() == pytest.approx([answer["score"] for answer in told], abs=1e-5)
