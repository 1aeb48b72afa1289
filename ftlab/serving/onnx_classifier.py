"""A saved classifier on ONNX Runtime, which needs no PyTorch to compute: export it, check it, label texts with it.

The file is checked before it is kept: its probabilities are compared with those of `Classifier` in float32. In 8 bits
(dynamic quantization: int8 weights, and activations that are rounded to 8 bits batch by batch) they are another model's
probabilities, so the comparison is reported and never passed.

Sources: *torch.export-based ONNX Exporter* (docs.pytorch.org), *Quantize ONNX Models* (onnxruntime.ai/docs).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab import files
from ftlab.errors import BadInput, CheckFailed
from ftlab.inference import Classifier
from ftlab.models import batches, loading
from ftlab.serving import extra
from ftlab.wording import one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MODULES = (extra.ONNX_RUNTIME, "onnx", "onnxscript")
# Of a probability in float32. Correct exports of twenty architectures with random weights, and of a trained MiniLM on
# 400 reviews, differed by 3e-6 at most.
TOLERANCE = 1e-4
OPSET = 23  # the first with an operator for attention, which ONNX Runtime computes in one piece: a tenth of the time
# With OPSET the exporter (PyTorch 2.13) puts rotary positions into an operator that ONNX Runtime cannot run for several
# texts at once.
OPSET_OF_ROTARY = 22
LARGEST = 2**31 - 1  # bytes of an ONNX file with its weights inside: the limit of protobuf
SEAL = "ftlab.seal"  # the key of the last metadata: two SHA-256, of what the file was made from, and of all before it
DIGITS = 64  # of a SHA-256
_EXPORTING = threading.Lock()  # the exporter patches PyTorch and transformers while it works


@dataclass(frozen=True)
class OnnxCertificate:
    """How an ONNX file answers beside the `Classifier` that it was made from, on the same texts.

    `texts` is their number, the long one of `export` included, `largest_difference` that of a probability,
    `equal_labels` the number of texts that get the same label, and `size` that of the file in bytes. `int8` says
    whether the file computes in 8 bits.
    """

    texts: int
    largest_difference: float
    equal_labels: int
    size: int
    int8: bool

    @property
    def ok(self) -> bool | None:
        """Whether the answers are equal within TOLERANCE; None in 8 bits, where they are measured and not judged."""
        return None if self.int8 else self.largest_difference <= TOLERANCE  # NaN is above any tolerance

    def line(self) -> str:
        """Return the comparison in one line."""
        verdict = {True: "equal answers", False: "OTHER ANSWERS", None: "int8, measured and not certified"}[self.ok]
        return (
            f"{verdict}: {self.equal_labels:,} of {self.texts:,} texts (one of them long) get the same label; largest "
            f"difference of a probability {self.largest_difference:.1e}; {self.size / 1e6:,.1f} MB"
        )


class OnnxClassifier(Classifier):
    """A saved classifier whose model runs on ONNX Runtime, on the CPU in float32; all else is as in `Classifier`.

    Labels, tokenizer and max_length come from the model's folder.

    Args:
        model: as for `Classifier`.
        file: what `export` wrote for this model.
        max_length: as for `Classifier`.

    Raises:
        BadInput: the extra `serve` is not installed, `file` is not as `export` wrote it or was made from another model,
            or `Classifier` refuses `model`.
    """

    def __init__(self, model: str, file: Path | str, *, max_length: int | None = None) -> None:
        extra.require(extra.ONNX_RUNTIME)
        self.file, _ = files.named_path(str(file), "the ONNX file that `onnx_classifier.export` wrote")
        super().__init__(model, max_length=max_length, device="cpu")

    def _load(
        self, model: str, named: dict[str, Any], device: torch.device | str, dtype: torch.dtype | None
    ) -> PreTrainedModel:
        """Return the session of ONNX Runtime, which can be called like a model."""
        content = _content(self.file)
        if content[-2 * DIGITS : -DIGITS].decode() != _fingerprint(model, self.tokenizer):
            raise BadInput(
                f"{self.file} was not made from {model} as it is now (its weights, config and tokenizer); export it "
                "again with `onnx_classifier.export`"
            )
        return _Session(content, self.file)  # it has what `batches.run` uses of a model


class _Session:
    """A session of ONNX Runtime with what `batches.run` uses of a model of transformers."""

    def __init__(self, content: bytes, file: Path) -> None:
        import onnxruntime
        import torch

        self.device, self.dtype = torch.device("cpu"), torch.float32
        self._file = file
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # fatal alone: an error comes as an exception, too
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # each fault has a class of its own, and none is derived from ValueError
            raise self._refusal(problem) from problem
        self._inputs = {one.name for one in self._session.get_inputs()}  # a column without effect is not in the graph

    def eval(self) -> _Session:
        return self

    def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
        import torch

        given = {name: tensor.numpy() for name, tensor in inputs.items() if name in self._inputs}
        try:
            return SimpleNamespace(logits=torch.from_numpy(self._session.run(None, given)[0]))
        except Exception as problem:
            raise self._refusal(problem) from problem

    def _refusal(self, problem: Exception) -> BadInput:
        return BadInput(f"ONNX Runtime cannot run {self._file} ({one_line(problem)[:200]}); use `Classifier`")


def export(model: str, file: Path | str, texts: Sequence[str], *, int8: bool = False) -> OnnxCertificate:
    """Write the classifier `model` into an ONNX file, and compare its answers with those of `Classifier`.

    Args:
        model: as for `Classifier`.
        file: where the ONNX file will be.
        texts: for the comparison; take some that the model will really meet. They are read as far as TOKENS of
            `models.batches`, so that memory is bounded. One more is made of them, which is as long as that, or as long
            as the model takes.
        int8: whether to compute in 8 bits: a quarter of the size, and faster, but other answers. The returned
            certificate says how many labels change.

    Returns:
        The comparison, in batches and one text at a time.

    Raises:
        BadInput: the extra `serve` is not installed, `file` exists or cannot be written, there are no texts, or the
            model cannot be exported.
        CheckFailed: the answers are not those of `Classifier`; no file is kept.
    """
    extra.require(*MODULES)
    target, taken = files.named_path(str(file), "another name for the ONNX file")
    if taken:
        raise BadInput(f"{target} exists already; give another name, or delete it first")
    if isinstance(texts, str) or not isinstance(texts, Sized) or not len(texts):
        raise BadInput(f"texts is {texts!r:.40}; expected a list of texts for the comparison")
    import torch

    classifier = Classifier(model, device="cpu", dtype=torch.float32)
    _require_exportable(classifier, model)
    length = classifier.max_length = min(classifier.max_length, batches.TOKENS)
    probes = [*texts, _long_text(classifier, texts)]
    expected = classifier.probabilities(probes)  # which refuses a text with nothing in it
    with files.atomic(target, error=BadInput) as partial:
        with _EXPORTING, _silence():
            _write(classifier, model, partial)
            if int8:
                _quantize(partial)
        _seal(partial, _fingerprint(model, classifier.tokenizer))
        exported = OnnxClassifier(model, partial, max_length=length)
        certificate = _compared(exported, probes, expected, size=partial.stat().st_size, int8=int8)
        if certificate.ok is False:
            raise CheckFailed(
                f"the ONNX file of {model} answers otherwise than the model ({certificate.line()}), so it was not "
                "kept; use `Classifier`"
            )
    return certificate


def _long_text(classifier: Classifier, texts: Sequence[str]) -> str:
    """Return the texts one after the other, and again and again, until the classifier truncates them."""
    joined = " ".join(map(str, texts))
    tokens = len(classifier.tokenizer(joined, add_special_tokens=False)["input_ids"])
    return " ".join([joined] * (classifier.max_length // max(1, tokens) + 1))


def _require_exportable(classifier: Classifier, model: str) -> None:
    """Raise BadInput for a model that an ONNX file cannot hold, or that would compute without its own checks."""
    if classifier.model.config.is_encoder_decoder:  # which finds EOS by a check that depends on the texts
        raise BadInput(
            f"{model} is an encoder-decoder ({type(classifier.model).__name__}), which is not exported to ONNX; use "
            "`Classifier`"
        )
    size = 4 * sum(parameter.numel() for parameter in classifier.model.parameters())
    if size > LARGEST:
        raise BadInput(
            f"{model} has {size / 1e9:.1f} GB of weights in float32, and an ONNX file holds 2 GiB; use `Classifier`"
        )


def _write(classifier: Classifier, model: str, file: Path) -> None:
    """Export the model of a classifier: from the columns of its tokenizer to logits, for any number of rows and tokens.

    Raises BadInput if PyTorch's exporter cannot.
    """
    import torch

    network = classifier.model

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            return self.network(**dict(zip(names, given, strict=True))).logits

    encodings = classifier.tokenizer(["one text", "and another one"])
    columns = {name: encodings[name] for name in batches.MODEL_INPUTS if name in encodings}
    example = batches.pad(classifier.tokenizer, columns)
    names = list(example)
    rotary = getattr(network.config.get_text_config(), "rope_parameters", None)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens")
    try:
        torch.onnx.export(
            Logits().eval(),
            tuple(example.values()),
            str(file),
            input_names=names,
            output_names=["logits"],
            opset_version=OPSET_OF_ROTARY if rotary else OPSET,
            dynamo=True,
            dynamic_shapes=(tuple({0: rows, 1: tokens} for _ in names),),
            external_data=False,
            verbose=False,
        )
    except OSError:
        raise
    except Exception as problem:  # of many kinds: each part of a model can fail in its own way
        cause = problem.__cause__ or problem  # the outer one is a page of advice to developers
        raise BadInput(
            f"{model} cannot be exported to ONNX ({type(cause).__name__}: {one_line(str(cause))[:200]}); use "
            "`Classifier`"
        ) from problem


def _quantize(file: Path) -> None:
    """Quantize the weights of `file` to int8, each output of a layer with a scale of its own.

    One scale for a whole matrix is as fast, and changes more labels.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Its default list has "Attention" too, by which it means an older operator than that of OPSET.
    kinds = ["MatMul", "Gemm", "Gather"]
    quantize_dynamic(file, file, op_types_to_quantize=kinds, weight_type=QuantType.QInt8, per_channel=True)


def _seal(file: Path, made_from: str) -> None:
    """Append metadata to `file`: what it was made from, and the SHA-256 of all that stands before that."""
    import onnx

    last = onnx.ModelProto()  # of two protobuf messages one after the other, a reader makes one
    onnx.helper.set_model_props(last, {SEAL: made_from + "0" * DIGITS})
    content = file.read_bytes() + last.SerializeToString()
    file.write_bytes(content[:-DIGITS] + _sha256(content[:-DIGITS]))


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _fingerprint(model: str, tokenizer: Any) -> str:
    """Return a hash of all that an exported graph depends on: weights, config, and what the tokenizer gives to it."""
    folder = loading.folder(model)
    given = (tokenizer.pad_token_id, len(tokenizer), tokenizer.model_input_names)
    parts = (loading.weights_sha256(folder), files.sha256(folder / "config.json"), str(given))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _content(file: Path) -> bytes:
    """Return the content of `file`. Raises BadInput unless it is what `export` wrote."""
    if not file.is_file():
        raise BadInput(f"there is no ONNX file {file}; write one with `onnx_classifier.export`")
    try:
        content = file.read_bytes()
    except OSError as problem:
        raise BadInput(f"{file} cannot be read ({problem.strerror}); give a file that you may read") from problem
    if content[-DIGITS:] != _sha256(content[:-DIGITS]):
        raise BadInput(
            f"{file} is not as `onnx_classifier.export` wrote it: it is damaged, was changed, or comes from another "
            "program; export it again"
        )
    return content


def _compared(
    exported: OnnxClassifier, texts: Sequence[str], expected: np.ndarray, *, size: int, int8: bool
) -> OnnxCertificate:
    """Compare the answers to `texts` with the `expected` ones: in batches, and each text alone."""
    found = [exported.probabilities(texts), exported.probabilities(texts, tokens=1)]
    return OnnxCertificate(
        texts=len(texts),
        largest_difference=float(max(np.abs(each - expected).max() for each in found)),
        equal_labels=int((found[0].argmax(axis=1) == expected.argmax(axis=1)).sum()),
        size=size,
        int8=int8,
    )


@contextmanager
def _silence() -> Iterator[None]:
    """Silence what exporter and quantizer write to developers: warnings and log lines below an error."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
