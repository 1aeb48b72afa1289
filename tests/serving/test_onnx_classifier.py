"""A classifier in an ONNX file answers as `Classifier`, or there is no file."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch

from ftlab.data import sources
from ftlab.errors import BadInput, CheckFailed
from ftlab.inference import Classifier
from ftlab.models import batches, loading
from ftlab.serving import extra, onnx_classifier
from ftlab.serving.onnx_classifier import OnnxCertificate, OnnxClassifier, export
from tests.conftest import REPOSITORY
from tests.models.saved_models import edit, rewrite, save
from tests.nightly import few_by_day

pytestmark = pytest.mark.usefixtures("one_thread")
for module in onnx_classifier.MODULES:
    pytest.importorskip(module, reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    reviews = sources.read("mini_reviews")["text"].tolist()
    return ["ok", *reviews[:8], "Ünïcode, 日本語 🙂", " ".join(reviews[:30]), "a [SEP] b"]


@pytest.fixture(scope="module")
def exported(classifier_folder, tmp_path_factory, texts):
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return file, export(str(classifier_folder), file, texts)


def test_an_export_answers_as_the_classifier_whatever_the_batches(exported, classifier_folder, texts):
    file, certificate = exported
    assert certificate.ok is True
    assert (certificate.texts, certificate.equal_labels) == (len(texts) + 1, len(texts) + 1)
    assert certificate.line().startswith(
        f"equal answers: {len(texts) + 1} of {len(texts) + 1} texts (one of them long)"
    )
    expected = Classifier(str(classifier_folder), device="cpu").probabilities(texts)
    assert np.ptp(expected, axis=0).min() > 0.1
    onnx = OnnxClassifier(str(classifier_folder), file)
    for tokens in (1, 64, 10**6):
        np.testing.assert_allclose(onnx.probabilities(texts, tokens=tokens), expected, atol=1e-5)


def test_its_table_is_that_of_the_classifier(exported, classifier_folder, texts):
    own, onnx = Classifier(str(classifier_folder), device="cpu"), OnnxClassifier(str(classifier_folder), exported[0])
    assert (onnx.labels, onnx.max_length) == (own.labels, own.max_length)
    assert onnx(texts)["label"].tolist() == own(texts)["label"].tolist()
    short = {"max_length": 7}
    np.testing.assert_allclose(
        OnnxClassifier(str(classifier_folder), exported[0], **short).probabilities(texts),
        Classifier(str(classifier_folder), device="cpu", **short).probabilities(texts),
        atol=1e-5,
    )
    with pytest.raises(BadInput, match="text 1 is ' '; expected a text with something in it"):
        onnx(["a film", " "])
    rows = pd.DataFrame({"text": ["good", "", None, "bad"]})
    (table,), (expected,) = onnx.label_rows([rows]), own.label_rows([rows])
    pd.testing.assert_frame_equal(table, expected, rtol=1e-4)


def test_onnxruntime_calls_nobody_and_leaves_no_id_of_this_computer(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {name: str(tmp_path) for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME")}
    for first in ("ftlab", "ftlab.serving.onnx_classifier"):
        code = f"import {first}, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'; import onnxruntime"
        subprocess.run([sys.executable, "-c", code], env=environment | home, cwd=REPOSITORY, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind", few_by_day(["roberta", "deberta-v2", "gpt2", "llama", "modernbert"], "roberta", "gpt2", "modernbert")
)
def test_architectures_whose_answers_are_equal(kind, tmp_path, texts):
    others = {"roberta": {"pad_token_id": 1}, "modernbert": {"cls_token_id": 1, "sep_token_id": 2}}
    save(tmp_path / "model", kind, **{"pad_token_id": 0, **others.get(kind, {})})
    assert export(str(tmp_path / "model"), tmp_path / "model.onnx", texts).ok


def lengths_compared(model, file, texts, monkeypatch) -> list[int]:
    """The tokens of each text that an export would compare."""
    found = []
    answers = Classifier._answers

    def spied(self, encodings, tokens):
        found.extend(map(len, encodings["input_ids"]))
        return answers(self, encodings, tokens)

    def stop(*_):
        raise BadInput("enough")

    monkeypatch.setattr(Classifier, "_answers", spied)
    monkeypatch.setattr(onnx_classifier, "_write", stop)
    assert refusal(model, file, texts) == "enough"
    return found


def test_few_short_texts_are_compared_at_the_whole_length_of_the_model_too(classifier_folder, tmp_path, monkeypatch):
    lengths = lengths_compared(classifier_folder, tmp_path / "a.onnx", ["good film", "bad film"], monkeypatch)
    assert len(lengths) == 3
    assert max(lengths) == Classifier(str(classifier_folder), device="cpu").max_length > 100


def test_a_model_with_many_positions_is_compared_on_a_bounded_text(tmp_path, texts, monkeypatch):
    save(tmp_path / "model", "gpt2", n_positions=32768)
    edit_tokenizer(tmp_path / "model", model_max_length=32768)
    monkeypatch.setattr(batches, "TOKENS", 300)
    assert Classifier(str(tmp_path / "model"), device="cpu").max_length == 32768
    assert max(lengths_compared(tmp_path / "model", tmp_path / "a.onnx", texts * 20, monkeypatch)) == 300


def test_eight_bits_are_measured_and_never_passed(exported, classifier_folder, tmp_path, texts):
    file = tmp_path / "int8.onnx"
    certificate = export(str(classifier_folder), file, texts, int8=True)
    assert certificate.ok is None
    assert certificate.line().startswith("int8, measured and not certified: ")
    assert file.stat().st_size == certificate.size < exported[1].size
    assert 1e-5 < certificate.largest_difference < 0.5
    answers = OnnxClassifier(str(classifier_folder), file).probabilities(texts)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("difference", [0.01, float("nan")])
def test_other_answers_are_no_pass(difference):
    certificate = OnnxCertificate(texts=3, largest_difference=difference, equal_labels=3, size=10, int8=False)
    assert certificate.ok is False
    assert certificate.line().startswith("OTHER ANSWERS: 3 of 3")


def test_an_export_without_the_attention_mask_is_not_kept(classifier_folder, tmp_path, texts, monkeypatch):
    session = onnx_classifier._Session.__call__

    def maskless(self, attention_mask, **inputs):
        return session(self, attention_mask=attention_mask.new_ones(attention_mask.shape), **inputs)

    monkeypatch.setattr(onnx_classifier._Session, "__call__", maskless)
    with pytest.raises(CheckFailed, match=r"answers otherwise than the model .* so it was not kept; use `Classifier`"):
        export(str(classifier_folder), tmp_path / "model.onnx", texts)
    assert not list(tmp_path.iterdir())


def edit_tokenizer(folder, **change):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")


@pytest.fixture
def copied(classifier_folder, tmp_path):
    shutil.copytree(classifier_folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_copied_model_is_the_same_model(exported, copied):
    assert OnnxClassifier(str(copied), exported[0])(["a film"])["label"].notna().all()


@pytest.mark.parametrize("what", ["weights", "config", "tokens", "columns"])
def test_a_file_of_another_model_is_refused(exported, copied, what):
    if what == "weights":
        rewrite(copied, lambda tensors: {name: tensor + 1e-6 for name, tensor in tensors.items()})
    elif what == "config":
        edit(copied, activation="relu")
    elif what == "columns":
        edit_tokenizer(copied, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    else:
        tokenizer = loading.tokenizer(str(copied))
        tokenizer.add_tokens(["quizzically"])
        tokenizer.save_pretrained(copied)
    with pytest.raises(BadInput, match=r"was not made from .* as it is now .* export it again") as raised:
        OnnxClassifier(str(copied), exported[0])
    assert "\n" not in str(raised.value)


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 0x40
    return bytes(changed)


def saved_again(content: bytes) -> bytes:
    """As by a program that changes the graph and keeps the metadata."""
    import onnx

    graph = onnx.load_from_string(content)
    graph.doc_string = "optimized"
    return graph.SerializeToString()


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: flipped(whole, len(whole) // 2),  # in a weight
        lambda whole: flipped(whole, -1),
        lambda whole: whole + b"\0",
        saved_again,
    ],
    ids=["empty", "half", "cut", "weight", "seal", "longer", "saved again"],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(exported, classifier_folder, tmp_path, change, capfd):
    (tmp_path / "other.onnx").write_bytes(change(exported[0].read_bytes()))
    with pytest.raises(
        BadInput, match=r"other\.onnx is not as `onnx_classifier\.export` wrote it: .*; export it again"
    ):
        OnnxClassifier(str(classifier_folder), tmp_path / "other.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_sealed_file_is_read_by_every_reader_of_onnx(exported):
    import onnx

    onnx.checker.check_model(onnx.load(exported[0]))


def test_what_onnx_runtime_cannot_compute_is_one_sentence(exported, classifier_folder):
    onnx = OnnxClassifier(str(classifier_folder), exported[0])
    encodings = {"input_ids": [[10**6, 1]], "attention_mask": [[1, 1]]}
    for given in (encodings, {"input_ids": [[1, 2]]}):
        with pytest.raises(BadInput, match=r"ONNX Runtime cannot run .*model\.onnx \(.*\); use `Classifier`") as raised:
            onnx.model(**{name: torch.tensor(rows) for name, rows in given.items()})
        assert "\n" not in str(raised.value)


def test_exports_at_once_wait_for_each_other_and_leave_logging_as_it_was(
    classifier_folder, tmp_path, texts, monkeypatch
):
    inside, most, found = [], [], []

    def slow(*_, **__):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()
        raise ValueError("enough")

    def work(number: int) -> None:
        found.append(refusal(classifier_folder, tmp_path / f"{number}.onnx", texts[:1]))

    monkeypatch.setattr(torch.onnx, "export", slow)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert len(found) == 3
    assert logging.root.manager.disable == logging.NOTSET


def test_no_file_and_a_folder_are_refused(classifier_folder, tmp_path):
    with pytest.raises(BadInput, match=r"cannot be looked at .*File name too long"):
        OnnxClassifier(str(classifier_folder), "a" * 300)
    for file in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(BadInput, match="there is no ONNX file "):
            OnnxClassifier(str(classifier_folder), file)


def refusal(*arguments, **options) -> str:
    with pytest.raises(BadInput) as raised:
        export(*map(str, arguments[:2]), *arguments[2:], **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(classifier_folder, exported, tmp_path, texts):
    out = tmp_path / "out" / "model.onnx"
    assert "exists already; give another name" in refusal(classifier_folder, exported[0], texts)
    assert "texts is []; expected a list of texts" in refusal(classifier_folder, out, [])
    assert "texts is None; expected a list of texts" in refusal(classifier_folder, out, None)
    assert "; expected a list of texts" in refusal(classifier_folder, out, (text for text in texts))
    assert "texts is 'a film'; expected a list" in refusal(classifier_folder, out, "a film")
    assert "text 1 is ''; expected a text" in refusal(classifier_folder, out, ["a film", ""])
    assert "text 1 is None; expected a text" in refusal(classifier_folder, out, ["a film", None])
    assert "is not a classifier" in refusal("tiny-gpt2", out, texts)
    save(tmp_path / "t5", "t5")
    assert "is an encoder-decoder (T5ForSequenceClassification)" in refusal(tmp_path / "t5", out, texts)
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be written (a file is in the way)" in refusal(classifier_folder, tmp_path / "file" / "a.onnx", texts)
    assert not out.parent.exists()


def test_an_exporter_that_fails_is_one_sentence(classifier_folder, tmp_path, texts, monkeypatch):
    import torch

    def fail(*_, **__):
        raise RuntimeError("a page of\nadvice") from ValueError("data-dependent\nbranch")

    monkeypatch.setattr(torch.onnx, "export", fail)
    said = refusal(classifier_folder, tmp_path / "model.onnx", texts)
    assert said.endswith("cannot be exported to ONNX (ValueError: data-dependent branch); use `Classifier`")
    assert not list(tmp_path.iterdir())


def test_a_model_larger_than_an_onnx_file_is_refused_first(classifier_folder, tmp_path, texts, monkeypatch):
    monkeypatch.setattr(onnx_classifier, "LARGEST", 1000)
    assert "and an ONNX file holds 2 GiB; use `Classifier`" in refusal(classifier_folder, tmp_path / "a.onnx", texts)


def test_without_the_extra_one_sentence_says_how_to_get_it(classifier_folder, tmp_path, texts, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    assert "install the extra `serve`" in refusal(classifier_folder, tmp_path / "a.onnx", texts)
    with pytest.raises(BadInput, match="install the extra `serve`"):
        OnnxClassifier(str(classifier_folder), tmp_path / "a.onnx")
