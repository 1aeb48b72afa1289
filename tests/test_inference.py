import itertools
import json
import os
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import processors
from transformers import AutoTokenizer, GPT2ForSequenceClassification, pipeline

from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.evaluation import selective
from ftlab.inference import UNSURE, Classifier
from ftlab.models import loading
from tests.models.saved_models import edit, save, without

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier(classifier_folder) -> Classifier:
    return Classifier(str(classifier_folder), device="cpu")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Short and long by turns, some of them twice, two of them longer than the model reads."""
    reviews = sources.read("mini_reviews")["text"].tolist()
    long = [" ".join(reviews[:30]), " ".join(reviews[30:90])]
    return ["ok", long[0], *reviews[:25], "Ünïcode, 日本語 🙂", reviews[3], long[1], "ok", "x" * 500, *reviews[25:40]]


def refusal(*arguments, **options) -> str:
    with pytest.raises(BadInput) as raised:
        Classifier(*map(str, arguments), **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def one_by_one(folder, texts, labels, **options) -> np.ndarray:
    """What transformers' own pipeline answers to each text alone."""
    pipe = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")
    answers = [{each["label"]: each["score"] for each in pipe([text], truncation=True, **options)[0]} for text in texts]
    return np.array([[answer[label] for label in labels] for answer in answers])


def test_the_answers_are_those_of_a_pipeline_one_text_at_a_time(classifier, classifier_folder, texts):
    answers = classifier(texts)
    expected = one_by_one(classifier_folder, texts, classifier.labels)
    assert classifier.labels == ["bad", "fine", "good"]
    assert answers["text"].tolist() == texts
    np.testing.assert_allclose(answers[["p_bad", "p_fine", "p_good"]], expected, atol=1e-5)
    assert answers["label"].tolist() == [classifier.labels[index] for index in expected.argmax(axis=1)]
    np.testing.assert_allclose(answers["probability"], expected.max(axis=1), atol=1e-5)
    assert answers["label"].nunique() > 1
    assert np.ptp(expected, axis=0).min() > 0.1  # texts that are all alike would prove nothing about their order


def test_a_cut_text_is_the_same_as_in_a_pipeline(classifier_folder, texts):
    short = Classifier(str(classifier_folder), max_length=7, device="cpu")
    expected = one_by_one(classifier_folder, texts, short.labels, max_length=7)
    np.testing.assert_allclose(short.probabilities(texts), expected, atol=1e-5)
    np.testing.assert_allclose(
        short.probabilities(["a film with a long beginning and this end"]),
        short.probabilities(["a film with a long beginning and another one"]),
        atol=1e-6,
    )


@pytest.mark.parametrize("tokens", [1, 64, 300, 10**6])
def test_the_size_of_the_batches_changes_no_answer(classifier, texts, tokens):
    expected = classifier.probabilities(texts)
    np.testing.assert_allclose(classifier.probabilities(texts, tokens=tokens), expected, atol=1e-5)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


def test_the_order_of_the_texts_is_that_of_the_answers(classifier, texts):
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = classifier.probabilities([texts[place] for place in order])
    np.testing.assert_allclose(shuffled, classifier.probabilities(texts)[order], atol=1e-5)


def test_no_texts_are_no_answers(classifier):
    assert classifier.probabilities([]).shape == (0, 3)
    answers = classifier([])
    assert len(answers) == 0
    assert list(answers.columns) == list(classifier(["a film"]).columns)


@pytest.mark.parametrize("nothing", ["", "  \n\t ", None, 5, float("nan")], ids=repr)
def test_a_text_with_nothing_in_it_is_refused_with_its_place(classifier, nothing):
    with pytest.raises(BadInput) as raised:
        classifier(["a film", "another", nothing, "", "more"])
    assert str(raised.value) == f"text 2 is {nothing!r}; expected a text with something in it"


def test_one_text_alone_is_refused_and_not_read_letter_by_letter(classifier):
    with pytest.raises(BadInput, match="texts is one text, 'a film'; expected a list of texts"):
        classifier("a film")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("tiny-gpt2", "tiny-gpt2 is not a classifier (GPT2LMHeadModel)"),
        ("tiny-distilbert", "tiny-distilbert is not a classifier (DistilBertModel)"),
        ("bert", "there is no model 'bert'; there are "),
        ("./nowhere", "the model folder nowhere does not exist"),
    ],
)
def test_what_is_no_classifier_is_refused(model, message):
    assert message in refusal(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": None}, "names no architecture"),
        ({"model_type": "hopfield9"}, "cannot be loaded"),
        ({"problem_type": "multi_label_classification"}, "predicts several labels at once"),
        ({"id2label": {"0": "stars"}, "label2id": {"stars": 0}}, "predicts one number"),
        (
            {"problem_type": "regression", "id2label": {"0": "stars"}, "label2id": {"stars": 0}},
            "predicts one number",
        ),
    ],
    ids=["no architecture", "unknown", "several labels", "one output", "regression"],
)
def test_a_model_that_answers_otherwise_is_refused_before_its_weights_are_read(
    classifier_folder, tmp_path, change, message
):
    other = tmp_path / "other"
    shutil.copytree(classifier_folder, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    said = refusal(other)
    assert message in said
    assert said.startswith(str(other))


@pytest.mark.parametrize("max_length", [-1, 0, 2, 129, 10**9])
def test_a_max_length_that_the_model_cannot_take_is_refused(classifier_folder, max_length):
    assert refusal(classifier_folder, max_length=max_length) == (
        f"max_length is {max_length}, and {classifier_folder} takes 3 to 128 tokens"
    )


@pytest.mark.parametrize("max_length", [3, 128])
def test_a_max_length_may_touch_its_bounds(classifier_folder, max_length):
    assert len(Classifier(str(classifier_folder), max_length=max_length, device="cpu")(["a film " * 200])) == 1


def test_texts_are_cut_where_the_saved_tokenizer_says(classifier_folder, tmp_path, texts):
    other = tmp_path / "other"
    shutil.copytree(classifier_folder, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.model_max_length = 9
    tokenizer.save_pretrained(other)
    trained_short = Classifier(str(other), device="cpu")
    assert trained_short.max_length == 9
    expected = one_by_one(other, texts, trained_short.labels)
    np.testing.assert_allclose(trained_short.probabilities(texts), expected, atol=1e-5)


@pytest.mark.parametrize("pad", [None, "<|endoftext|>"], ids=["no pad token", "EOS as the pad token"])
def test_a_decoder_finds_the_end_of_each_text_of_a_batch(tmp_path, texts, pad):
    tokenizer = AutoTokenizer.from_pretrained(loading.folder("tiny-gpt2"))
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification.from_pretrained(loading.folder("tiny-gpt2"), num_labels=3)
    if pad:
        tokenizer.pad_token = pad
        model.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        model.score.weight.mul_(20)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    decoder = Classifier(str(tmp_path), device="cpu")
    expected = one_by_one(tmp_path, texts, decoder.labels)
    np.testing.assert_allclose(decoder.probabilities(texts), expected, atol=1e-5)


def save_decoder(folder, tokenizer, **options):
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification.from_pretrained(loading.folder("tiny-gpt2"), num_labels=3, **options)
    with torch.no_grad():
        model.score.weight.mul_(20)
        model.transformer.wte.weight.mul_(20)
        model.transformer.wpe.weight.mul_(20)  # so that a token's position counts
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_decoder_whose_tokenizer_pads_on_the_left_answers_as_to_each_text_alone(tmp_path, texts):
    tokenizer = AutoTokenizer.from_pretrained(loading.folder("tiny-gpt2"), padding_side="left")
    save_decoder(tmp_path, tokenizer)
    decoder = Classifier(str(tmp_path), device="cpu")
    np.testing.assert_allclose(decoder.probabilities(texts), one_by_one(tmp_path, texts, decoder.labels), atol=1e-5)


def test_a_decoder_that_was_trained_with_eos_as_padding_reads_the_token_before_it(tmp_path, texts):
    tokenizer = AutoTokenizer.from_pretrained(loading.folder("tiny-gpt2"))
    save_decoder(tmp_path, tokenizer, pad_token_id=tokenizer.eos_token_id)
    ended = [f"{text[:200]}{tokenizer.eos_token}" for text in texts]
    decoder = Classifier(str(tmp_path), device="cpu")
    expected = one_by_one(tmp_path, ended, decoder.labels)
    np.testing.assert_allclose(decoder.probabilities(ended), expected, atol=1e-5)


def test_a_negative_pad_id_in_a_config_means_none(tmp_path, texts):
    save_decoder(tmp_path, AutoTokenizer.from_pretrained(loading.folder("tiny-gpt2")), pad_token_id=-1)
    decoder = Classifier(str(tmp_path), device="cpu")
    assert decoder.tokenizer.pad_token_id == decoder.model.config.pad_token_id == len(decoder.tokenizer) - 1
    alone = [decoder.probabilities([text])[0] for text in texts]
    np.testing.assert_allclose(decoder.probabilities(texts), alone, atol=1e-5)


def test_an_unknown_word_at_the_end_is_no_padding(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(loading.folder("tiny-distilbert"))
    tokenizer.pad_token = None
    plain = tokenizer.backend_tokenizer
    plain.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    save_decoder(tmp_path, tokenizer)
    texts = ["a film 日本語", "a film", "another film of some length 🙂"]
    assert tokenizer(texts[0])["input_ids"][-1] == tokenizer.unk_token_id
    decoder = Classifier(str(tmp_path), device="cpu")
    np.testing.assert_allclose(decoder.probabilities(texts), one_by_one(tmp_path, texts, decoder.labels), atol=1e-5)


def test_xlnet_reads_the_end_of_a_row_and_is_padded_before_it(tmp_path, texts):
    save(tmp_path, "xlnet", num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]", special_tokens=special
    )
    tokenizer.save_pretrained(tmp_path)
    classifier = Classifier(str(tmp_path), device="cpu")
    assert classifier.tokenizer.padding_side == "left"
    expected = one_by_one(tmp_path, texts, classifier.labels)
    np.testing.assert_allclose(classifier.probabilities(texts), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "albert", "deberta-v2", "llama", "opt", "bloom", "t5"])
def test_every_architecture_answers_as_a_pipeline_one_text_at_a_time(kind, tmp_path, texts):
    save(tmp_path, kind, pad_token_id=1 if kind == "roberta" else 0)
    classifier = Classifier(str(tmp_path), max_length=40, device="cpu")
    expected = one_by_one(tmp_path, texts, classifier.labels, max_length=40)
    assert expected.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(classifier.probabilities(texts), expected, atol=1e-5)


def test_texts_that_a_model_cannot_take_are_one_sentence(tmp_path, texts):
    save(tmp_path, "bart", eos_token_id=599)  # BART answers at EOS, which this tokenizer never writes
    with pytest.raises(BadInput, match="tokenizer that it was trained with"):
        Classifier(str(tmp_path), device="cpu")(texts)


def test_a_classifier_without_its_head_is_refused(classifier_folder, tmp_path):
    shutil.copytree(classifier_folder, tmp_path / "headless")
    without(tmp_path / "headless", "classifier")
    assert "(classifier.bias, classifier.weight, pre_classifier.bias, ... (4 in all))" in refusal(tmp_path / "headless")


def test_a_head_for_more_labels_than_the_config_knows_is_refused(classifier_folder, tmp_path):
    shutil.copytree(classifier_folder, tmp_path / "unnamed")
    edit(tmp_path / "unnamed", id2label=..., label2id=...)
    assert "classifier.bias and 1 more in another shape than its config.json describes: (3,) for (2,)" in refusal(
        tmp_path / "unnamed"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id2label": ..., "label2id": {"bad": 0, "fine": 1, "good": 2}}, ["bad", "fine", "good"]),
        ({"id2label": ..., "label2id": ..., "num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"id2label": {"0": 0, "1": 1, "2": 2}, "label2id": ...}, ["0", "1", "2"]),
    ],
)
def test_labels_are_called_as_the_file_says(classifier, classifier_folder, tmp_path, change, expected):
    shutil.copytree(classifier_folder, tmp_path / "other")
    edit(tmp_path / "other", **change)
    other = Classifier(str(tmp_path / "other"), device="cpu")
    assert other.labels == expected
    assert other.model.config.id2label == dict(enumerate(expected))
    answers = other(["a film", "ok"])
    assert set(answers["label"]) <= set(expected)
    np.testing.assert_allclose(other.probabilities(["a film"]), classifier.probabilities(["a film"]), atol=1e-6)


@pytest.mark.parametrize("names", [{"1": "one", "2": "two", "3": "three"}, {"0": "a", "1": "a", "2": "b"}])
def test_label_names_that_are_not_all_there_are_one_sentence(classifier_folder, tmp_path, names):
    shutil.copytree(classifier_folder, tmp_path / "other")
    edit(tmp_path / "other", id2label=names, label2id=...)
    assert refusal(tmp_path / "other").startswith("the id2label of ")


def test_a_copied_folder_answers_the_same_in_another_process_with_nothing_else(classifier, classifier_folder, tmp_path):
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(classifier_folder, moved)
    code = (
        "import json, sys; from ftlab.inference import Classifier; "
        "print(json.dumps(Classifier('model', device='cpu').probabilities(sys.argv[1:]).tolist()))"
    )
    switches = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "FTLAB_HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "hf"),
    }
    texts = ["a film", "a very much longer text about another film"]
    command = [sys.executable, "-c", code, *texts]
    done = subprocess.run(
        command, cwd=moved.parent, env=os.environ | switches, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), classifier.probabilities(texts), atol=1e-5)
    assert not (tmp_path / "home").exists()


@pytest.fixture
def part() -> pd.DataFrame:
    rows = {"n": [1, 2, 3, 4], "text": ["a film", None, "  ", "two hours that I will never get back"], "label": "mine"}
    return pd.DataFrame(rows, index=[7, 5, 9, 2])


def test_rows_keep_their_columns_and_get_the_answers_to_their_texts(classifier, part):
    (answered,) = classifier.label_rows([part])
    pd.testing.assert_frame_equal(answered[list(part.columns)], part)
    there = [0, 3]
    expected = classifier(part["text"].iloc[there].tolist())
    assert answered["prediction"].iloc[there].tolist() == expected["label"].tolist()
    for name in ("probability", "p_bad", "p_fine", "p_good"):
        np.testing.assert_allclose(answered[name].iloc[there], expected[name], atol=1e-5)
    without = answered.drop(columns=part.columns).iloc[[1, 2]]
    assert list(without.columns) == ["prediction", "probability", "p_bad", "p_fine", "p_good"]
    assert without.isna().all(axis=None)


@pytest.mark.parametrize("index", [[0, 0, 0, 0], ["a", "b", "a", "b"], [3, 3, 1, 1]], ids=str)
def test_rows_stay_apart_where_several_have_one_index(classifier, part, index):
    (plain,) = classifier.label_rows([part.reset_index(drop=True)])
    (answered,) = classifier.label_rows([part.set_axis(index)])
    assert answered.index.tolist() == index
    pd.testing.assert_frame_equal(answered.reset_index(drop=True), plain)


def test_rows_without_any_text_get_no_label_and_need_none(classifier):
    (answered,) = classifier.label_rows([pd.DataFrame({"text": [None, ""]}, dtype=object)])
    assert answered["prediction"].isna().all()


@pytest.mark.parametrize("name", ["prediction", "probability", "p_fine"])
def test_a_column_that_an_answer_would_overwrite_is_refused(classifier, part, name):
    with pytest.raises(BadInput) as raised:
        list(classifier.label_rows([part.assign(**{name: 1})]))
    assert str(raised.value) == f"the rows already have a column {name!r}, which ftlab writes; rename it"


def test_no_more_than_two_tables_are_alive_whatever_the_number_of_rows(classifier):
    alive: list[weakref.ref] = []

    def parts():
        for number in range(12):
            made = pd.DataFrame({"text": [f"film {number}"]})
            alive.append(weakref.ref(made))
            yield made

    for answered in itertools.islice(classifier.label_rows(parts()), 12):
        alive.append(weakref.ref(answered))
        assert sum(each() is not None for each in alive) <= 4  # this one and the one before, with and without answers
    assert len(alive) == 24


def test_what_is_not_sure_enough_is_labelled_so_and_keeps_its_probability(classifier, texts):
    plain = classifier(texts)
    middle = float(plain["probability"].median())
    careful = classifier(texts, unsure_below=middle)
    sure = plain["probability"] >= middle
    assert 0 < sure.sum() < len(texts)
    assert careful["label"][sure].tolist() == plain["label"][sure].tolist()
    assert set(careful["label"][~sure]) == {UNSURE}
    pd.testing.assert_frame_equal(careful.drop(columns="label"), plain.drop(columns="label"))
    assert set(classifier(texts, unsure_below=selective.NEVER)["label"]) == {UNSURE}  # however sure the model is
    rows = pd.concat(classifier.label_rows([pd.DataFrame({"text": texts})], unsure_below=middle))
    assert rows["prediction"].tolist() == careful["label"].tolist()


def test_a_label_of_the_model_that_is_called_unsure_is_not_mixed_up_with_a_refusal(classifier_folder, tmp_path, part):
    folder = shutil.copytree(classifier_folder, tmp_path / "model")
    edit(folder, id2label={"0": "bad", "1": UNSURE, "2": "good"}, label2id={"bad": 0, UNSURE: 1, "good": 2})
    own = Classifier(str(folder), device="cpu")
    assert own(["a film"])["probability"].iloc[0] > 0
    for call in (own, lambda texts, **options: list(own.label_rows([part], **options))):
        with pytest.raises(BadInput) as raised:
            call(["a film"], unsure_below=0.5)
        assert str(raised.value).startswith("'unsure' is a label of the model, so it cannot also mark the texts")
        assert "leave out --unsure-below" in str(raised.value)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(classifier, probability):
    with pytest.raises(BadInput, match="expected a probability, from 0 to 1"):
        classifier(["a film"], unsure_below=probability)


def test_half_precision_moves_a_probability_a_little_and_no_clear_label(classifier, classifier_folder, texts):
    half = Classifier(str(classifier_folder), device="cpu", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    full, found = classifier.probabilities(texts), half.probabilities(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)  # the softmax itself is in full precision
    assert 0 < np.abs(found - full).max() < 0.05
    best_two = np.sort(full, axis=1)[:, -2:]
    clear = best_two[:, 1] - best_two[:, 0] > 0.1
    assert clear.sum() > len(texts) / 4
    assert (found.argmax(axis=1) == full.argmax(axis=1))[clear].all()


def test_a_model_answers_in_the_precision_that_it_was_saved_in_unless_told(tmp_path, classifier_folder):
    shutil.copytree(classifier_folder, tmp_path / "half")
    Classifier(str(classifier_folder), device="cpu", dtype=torch.bfloat16).model.save_pretrained(tmp_path / "half")
    assert Classifier(str(tmp_path / "half"), device="cpu").model.dtype == torch.bfloat16
    assert Classifier(str(tmp_path / "half"), device="cpu", dtype=torch.float32).model.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_answers_that_are_no_numbers_are_told(tmp_path, classifier_folder, texts, dtype):
    broken = Classifier(str(classifier_folder), device="cpu", dtype=dtype)
    with torch.no_grad():
        broken.model.classifier.bias[0] = float("inf") if dtype == torch.float16 else float("nan")
    with pytest.raises(BadInput) as raised:
        broken(texts[3:])
    assert f"the probabilities of text 0, {texts[3][:40]!r}, are NaN in {dtype}" in str(raised.value)
    assert "torch.float32" in str(raised.value)
