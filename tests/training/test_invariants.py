import pandas as pd
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from ftlab.data import sources
from ftlab.models import loading
from ftlab.training import invariants

SHAPE = {
    "vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
DROPOUT = {"attention_dropout": 0.3, "embedding_dropout": 0.3, "mlp_dropout": 0.3, "classifier_dropout": 0.3}
BUILDERS = {
    "DistilBERT": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=600, dim=32, hidden_dim=64, n_layers=2, n_heads=2)
    ),
    "BERT": lambda: BertForSequenceClassification(BertConfig(**SHAPE)),
    "RoBERTa": lambda: RobertaForSequenceClassification(RobertaConfig(**SHAPE)),
    "ModernBERT": lambda: ModernBertForSequenceClassification(ModernBertConfig(**SHAPE, **ENDS, **DROPOUT)),
}


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tokenizer("tiny-distilbert")


@pytest.fixture(scope="module")
def rows(tokenizer):
    reviews = sources.load("mini_reviews")["train"].select(range(16))
    return reviews.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=32), batched=True)


def build(name, mended=True):
    torch.manual_seed(0)
    model = BUILDERS[name]()
    if mended:
        model.accepts_loss_kwargs = False
    return model


@pytest.mark.parametrize("name", BUILDERS)
def test_accumulated_batches_make_the_step_of_one_batch(name, rows, tokenizer):
    table = invariants.accumulation(lambda: build(name), rows, tokenizer)
    assert list(zip(table["batch size"], table["accumulation"], strict=True)) == list(invariants.WAYS)
    assert invariants.spread(table) < 1e-5
    assert (table["gradient norm"] > 0).all()


@pytest.mark.parametrize("name", ["DistilBERT", "BERT", "RoBERTa"])
def test_as_shipped_the_step_still_grows_with_the_batches_accumulated(name, rows, tokenizer):
    table = invariants.accumulation(lambda: build(name, mended=False), rows, tokenizer, ways=((16, 1), (4, 4)))
    ratios = table.iloc[1] / table.iloc[0]
    assert invariants.spread(table) == pytest.approx(3.0, rel=1e-3), (
        f"{name} as shipped no longer scales its loss and gradient by the 4 accumulated batches (spread "
        f"{invariants.spread(table):.2g}): this version of transformers fixed huggingface/transformers#47688, so "
        "`model.accepts_loss_kwargs = False` in lesson 02 and in ftlab.training.classification can go"
    )
    assert ratios["gradient norm"] == pytest.approx(4, rel=1e-3)


def test_the_loss_is_that_of_the_rows_without_dropout(rows, tokenizer):
    model = build("BERT").eval()
    batch = tokenizer.pad(
        {"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"]}, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = model(**batch, labels=torch.tensor(rows["label"])).loss.item()
    table = invariants.accumulation(lambda: build("BERT"), rows, tokenizer, ways=((16, 1),))
    assert table["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_spread_is_the_larger_of_the_two_disagreements():
    table = pd.DataFrame({"loss": [1.0, 1.1, 1.0], "gradient norm": [2.0, 2.0, 3.0], "accumulation": [1, 2, 4]})
    assert invariants.spread(table) == pytest.approx(0.5)
    assert invariants.spread(table.head(1)) == 0
