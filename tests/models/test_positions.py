import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

from ftlab.inference import Classifier
from ftlab.models import loading, meta, positions
from tests.models.saved_models import config, save

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = 64  # of each table
OPTIONS = {
    "bert": {}, "distilbert": {}, "electra": {}, "albert": {}, "gpt2": {},
    "roberta": {"pad_token_id": 1}, "opt": {"pad_token_id": 1}, "bart": {"pad_token_id": 1},
    "deberta-v2": {"position_biased_input": True}, "mpt": {},
}  # fmt: skip
UNLIMITED = ("bloom", "t5", "xlnet")


def read(kind, tokens, **options):
    torch.manual_seed(0)
    model = AutoModel.from_config(config(kind, **options)).eval()
    ids = torch.full((1, tokens), 5)
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **inputs)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_model_reads_as_many_tokens_as_are_said_and_not_one_more(kind):
    most = positions.most_tokens(meta.from_config(AutoModel, config(kind, **OPTIONS[kind])))
    read(kind, most, **OPTIONS[kind])
    with pytest.raises((IndexError, RuntimeError)):
        read(kind, most + 1, **OPTIONS[kind])


def test_positions_of_padding_are_no_token_s():
    assert positions.most_tokens(meta.from_config(AutoModel, config("roberta", pad_token_id=1))) == ROWS - 2
    assert positions.most_tokens(meta.from_config(AutoModel, config("roberta", pad_token_id=3))) == ROWS - 4


@pytest.mark.parametrize("kind", UNLIMITED)
def test_distances_have_no_end(kind):
    assert positions.most_tokens(meta.from_config(AutoModel, config(kind))) is None
    read(kind, 200)


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_rotary_positions_go_as_far_as_they_were_trained(kind):
    assert positions.most_tokens(meta.from_config(AutoModel, config(kind))) == ROWS


@pytest.mark.parametrize(
    ("limit", "expected"), [(int(1e30), ROWS - 2), (1e30, ROWS - 2), (9, 9), (None, ROWS - 2), (-1, ROWS - 2)]
)
def test_the_tokenizer_may_say_less_and_not_more(limit, expected, tmp_path):
    save(tmp_path, "roberta", pad_token_id=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.model_max_length = limit
    tokenizer.save_pretrained(tmp_path)
    assert loading.max_positions(str(tmp_path)) == expected
    assert type(loading.max_positions(str(tmp_path))) is int


@pytest.mark.parametrize("kind", ["roberta", "opt", "bloom", "t5", "gpt2", "xlnet"])
def test_a_very_long_text_is_cut_at_the_model_s_end_though_its_tokenizer_names_none(kind, tmp_path):
    save(tmp_path, kind, pad_token_id=1 if kind in ("roberta", "opt") else 0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path)
    classifier = Classifier(str(tmp_path), device="cpu")
    assert classifier.probabilities(["a film " * 300, "a film"]).shape == (2, 2)


def test_of_a_model_that_reads_images_too_the_positions_and_the_layers_of_the_text_count(tmp_path):
    text = {"vocab_size": 600, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "head_dim": 8,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 96}  # fmt: skip
    image = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "image_size": 56, "patch_size": 14}  # fmt: skip
    described = Gemma3Config(text_config=text, vision_config=image, mm_tokens_per_image=4)
    assert positions.most_tokens(meta.from_config(AutoModelForImageTextToText, described)) == 96
    Gemma3ForConditionalGeneration(described).save_pretrained(tmp_path)
    loading.tokenizer("tiny-gpt2").save_pretrained(tmp_path)
    assert loading.depth(str(tmp_path)) == 3
