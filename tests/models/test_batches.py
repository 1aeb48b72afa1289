import numpy as np
import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from ftlab.data import sources
from ftlab.models import batches, loading

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tokenizer("tiny-distilbert")


@pytest.fixture(scope="module")
def texts():
    """Rows of every length that the model can take, the longest and the shortest among them, in no order."""
    reviews = sources.load("mini_reviews")["train"]["text"][:12]
    return [reviews[0], "no", " ".join(reviews), *reviews[1:6], "", " ".join(reviews[::-1]), *reviews[6:]]


@pytest.fixture(scope="module")
def encodings(tokenizer, texts):
    return tokenizer(texts, truncation=True, max_length=128)


@pytest.fixture
def classifier():
    return loading.encoder("tiny-distilbert", ["negative", "neutral", "positive"])


def one_at_a_time(model, encodings, read):
    """The plain way: each row alone, without padding."""
    model.eval()
    answers = []
    for row in range(len(encodings["input_ids"])):
        inputs = {name: torch.tensor([encodings[name][row]]) for name in encodings}
        with torch.no_grad():
            answers.append(read(model(**inputs), inputs["attention_mask"])[0].numpy())
    return np.stack(answers)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("names", [batches.MODEL_INPUTS, ("input_ids", "token_type_ids"), ("input_ids",)])
def test_rows_are_padded_as_the_tokenizer_pads_them(tokenizer, texts, side, names):
    tokenizer.padding_side = side
    encodings = tokenizer(texts[:7], truncation=True, max_length=40, return_token_type_ids=True)
    columns = {name: encodings[name] for name in names}
    found, expected = batches.pad(tokenizer, columns), tokenizer.pad(dict(columns), return_tensors="pt")
    tokenizer.padding_side = "right"
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) and found[name].dtype == torch.int64 for name in found)


def test_a_row_without_tokens_is_all_padding(tokenizer):
    found = batches.pad(tokenizer, {"input_ids": [[], [7, 8]]})
    assert torch.equal(found["input_ids"], torch.tensor([[tokenizer.pad_token_id] * 2, [7, 8]]))
    assert torch.equal(found["attention_mask"], torch.tensor([[0, 0], [1, 1]]))


@pytest.mark.parametrize("tokens", [1, 7, 64, 2048])
@pytest.mark.parametrize("seed", range(5))
def test_batches_hold_each_row_once_and_no_more_than_the_tokens_unless_a_row_is_alone(tokens, seed):
    lengths = np.random.default_rng(seed).integers(0, 130, size=200).tolist()
    made = list(batches.by_length(lengths, tokens))
    assert sorted(place for batch in made for place in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) * max(lengths[place] for place in batch) <= tokens or len(batch) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_rows_come_first_and_equal_ones_in_their_order(seed):
    lengths = np.random.default_rng(seed).integers(1, 30, size=100).tolist()
    order = [place for batch in batches.by_length(lengths, 64) for place in batch]
    assert order == sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))


def test_a_batch_is_as_full_as_the_tokens_allow():
    assert list(batches.by_length([4, 4, 4, 4, 4], tokens=8)) == [[0, 1], [2, 3], [4]]
    assert list(batches.by_length([2, 9, 3], tokens=6)) == [[1], [2, 0]]
    assert list(batches.by_length([], tokens=6)) == []


@pytest.mark.parametrize("tokens", [1, 100, 300, 100_000])
def test_answers_come_in_the_order_of_the_rows_and_as_from_each_row_alone(classifier, tokenizer, encodings, tokens):
    lengths = [len(ids) for ids in encodings["input_ids"]]
    assert max(lengths) == 128  # as many as the model has positions
    assert min(lengths) == 2
    assert "token_type_ids" not in encodings
    found = batches.run(classifier, tokenizer, encodings, batches.softmax, tokens=tokens)
    assert found.dtype == np.float32
    assert found.shape == (len(lengths), 3)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    assert np.abs(found - one_at_a_time(classifier, encodings, batches.softmax)).max() < 1e-5


@pytest.mark.parametrize("deviation", [0.02, 0.3])
@pytest.mark.parametrize("kind", ["fnet", "convbert", "bert"])
def test_rows_share_a_batch_with_padding_only_if_the_model_does_not_read_it(kind, deviation, tokenizer, encodings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = CONFIG_MAPPING[kind](
        vocab_size=len(tokenizer), max_position_embeddings=128, initializer_range=deviation, num_labels=3, **sizes
    )
    model = AutoModelForSequenceClassification.from_config(config)
    expected = one_at_a_time(model, encodings, batches.softmax)
    rows = []
    model.register_forward_hook(lambda model, _, output: rows.append(len(output.logits)))
    for _ in range(2):  # the second time, the model is known
        rows.clear()
        found = batches.run(model, tokenizer, encodings, batches.softmax)
        assert np.abs(found - expected).max() < (1e-4 if kind == "convbert" else 1e-5)
    lengths = [len(ids) for ids in encodings["input_ids"]]
    assert len(rows) == (len(set(lengths)) if kind == "fnet" else len(rows))
    assert max(rows) > 1


def test_token_types_reach_a_model_that_has_them(tokenizer, encodings):
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                   intermediate_size=64, max_position_embeddings=128, initializer_range=0.5)
    )  # fmt: skip
    halves = [[0] * (len(ids) // 2) + [1] * (len(ids) - len(ids) // 2) for ids in encodings["input_ids"]]
    typed = {**encodings, "token_type_ids": halves}
    found = batches.run(model, tokenizer, typed, batches.softmax, tokens=300)
    assert np.abs(found - one_at_a_time(model, typed, batches.softmax)).max() < 1e-5
    assert np.abs(found - batches.run(model, tokenizer, encodings, batches.softmax, tokens=300)).max() > 1e-3


def test_columns_that_are_no_inputs_of_a_model_are_left_out(classifier, tokenizer, encodings, texts):
    more = {**encodings, "label": [0] * len(texts), "text": texts}
    plain = batches.run(classifier, tokenizer, encodings, batches.softmax)
    assert np.array_equal(batches.run(classifier, tokenizer, more, batches.softmax), plain)


def test_a_model_in_training_mode_answers_without_dropout_and_without_gradients(classifier, tokenizer, encodings):
    classifier.train()
    first = batches.run(classifier, tokenizer, encodings, batches.softmax)
    classifier.train()
    assert np.array_equal(batches.run(classifier, tokenizer, encodings, batches.softmax), first)
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_a_model_in_half_precision_answers_in_float32(classifier, tokenizer, encodings):
    exact = batches.run(classifier, tokenizer, encodings, batches.softmax)
    half = batches.run(classifier.bfloat16(), tokenizer, encodings, batches.softmax)
    assert half.dtype == np.float32
    assert np.abs(half - exact).max() < 0.02


def test_mean_pooled_is_the_mean_of_the_real_tokens_at_length_one(tokenizer, encodings):
    encoder = AutoModel.from_pretrained(loading.folder("tiny-distilbert")).eval()
    found = batches.run(encoder, tokenizer, encodings, batches.mean_pooled, tokens=300)
    for row, ids in enumerate(encodings["input_ids"]):
        with torch.no_grad():
            states = encoder(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        mean = states.mean(axis=0)
        assert np.abs(found[row] - mean / np.linalg.norm(mean)).max() < 1e-5
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_first_token_is_the_state_of_each_row_s_first_token_at_length_one(tokenizer, encodings):
    encoder = AutoModel.from_pretrained(loading.folder("tiny-distilbert")).eval()
    found = batches.run(encoder, tokenizer, encodings, batches.first_token, tokens=300)
    for row, ids in enumerate(encodings["input_ids"]):
        with torch.no_grad():
            state = encoder(input_ids=torch.tensor([ids])).last_hidden_state[0, 0].numpy()
        assert np.abs(found[row] - state / np.linalg.norm(state)).max() < 1e-5


def test_mean_pooled_does_not_see_what_stands_under_padding():
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])

    class Output:
        last_hidden_state = states

    before = batches.mean_pooled(Output, mask)
    states[1, 2:] = 1e6
    assert torch.equal(batches.mean_pooled(Output, mask), before)
    mean = states[1, :2].mean(dim=0)
    assert torch.allclose(before[1], mean / mean.norm(), atol=1e-6)


@pytest.mark.parametrize("kind", ["big_bird", "bigbird_pegasus"])
def test_a_model_that_forgets_its_sparse_attention_over_a_short_text_is_told_of_it_again(kind, tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "bigbird_pegasus":
        sizes = {"d_model": 32} | {
            f"{part}_{name}": size
            for part in ("encoder", "decoder")
            for name, size in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 64))
        }
    config = CONFIG_MAPPING[kind](
        vocab_size=len(tokenizer), max_position_embeddings=256, attention_type="block_sparse", block_size=4,
        num_random_blocks=1, num_labels=3, **sizes,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=0.3) if "norm" not in name.lower() else None
    end = config.eos_token_id
    long, other, short = ([*(5 + (step * number) % 200 for number in range(size)), end]
                          for step, size in ((7, 199), (11, 150), (3, 9)))  # fmt: skip

    def answer(*rows):
        return batches.run(model, tokenizer, {"input_ids": list(rows)}, batches.softmax)

    before, shortest = answer(long)[0], answer(short)[0]
    assert np.array_equal(answer(long)[0], before)
    together = answer(short, long, other)
    assert np.allclose(together[:2], [shortest, before], atol=1e-6)
    assert np.allclose(together[2], answer(other)[0], atol=1e-6)
