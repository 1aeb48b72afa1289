"""Export a language model to GGUF, the format of llama.cpp and Ollama, and keep it only if it answers the same.

The official converter of llama.cpp writes the file. It is then read back and compared with the folder that it was made
from (`export_certificate`). An adapter is merged first, with a certificate of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ftlab import files
from ftlab.adapters import config as adapter_config
from ftlab.adapters import lora
from ftlab.data import alpaca_chat, chat
from ftlab.errors import BadInput, CheckFailed
from ftlab.evaluation.prompt_formats import NO_FORMAT
from ftlab.inference.generator import require_language_model
from ftlab.merging import certificate as merge_certificate
from ftlab.models import generation, loading
from ftlab.serving import converter, export_certificate, extra, gguf_files, llama_cpp, modelfile
from ftlab.wording import one_line

if TYPE_CHECKING:
    from ftlab.merging.certificate import Certificate
    from ftlab.serving.export_certificate import ExportCertificate

SUFFIX, MODELFILE, RECORD = ".gguf", ".Modelfile", ".certificate.json"
DEFAULT_TYPE = "f16"
MOST_CONTEXT = 8192  # tokens: a longer context costs Ollama memory, also where no chat needs it


@dataclass(frozen=True)
class Exported:
    """An export: the `file`, its certificate, and that of the merge if an adapter was merged first.

    `modelfile` is the file for `ollama create`. It is None, with the reason in `no_modelfile`, if the language of
    Ollama's templates cannot express the chat template.
    """

    file: Path
    certificate: ExportCertificate
    merged: Certificate | None
    modelfile: Path | None
    no_modelfile: str = ""


def export(
    model: str | Path,
    out: Path,
    *,
    type: str = DEFAULT_TYPE,
    adapter: Path | None = None,
    record_base: bool = False,
    prompts: Sequence[str],
) -> Exported:
    """Export `model` to the new file `out`, with a certificate and a Modelfile beside it.

    Args:
        model: a causal language model: any name that `loading.folder` takes, or the folder of an adapter that names
            its base.
        out: the file to write. It ends in .gguf.
        type: how the weights are stored, one of `converter.TYPES`.
        adapter: the folder of a LoRA adapter to merge into `model` first.
        record_base: record the base in the adapter's folder if it has no such record.
        prompts: unseen texts to compare on.

    Returns:
        What was written.

    Raises:
        BadInput: `out` exists or cannot be written, another process writes it, the disk is too small, the extra `serve`
            is missing, or the converter does not know the model. Nothing is written then.
        CheckFailed: the file does not do what the model does. Nothing is kept.
    """
    extra.require(extra.CONVERTER, extra.LLAMA_CPP)
    if type not in converter.TYPES:
        raise BadInput(f"the type is {type!r}; expected one of {', '.join(converter.TYPES)}")
    place = _place(out)
    base, adapter = _base_and_adapter(model, adapter, lora.record_fitting_base if record_base else lora.require_base)
    if record_base and adapter is None:
        raise BadInput("--record-base needs an adapter; name its folder with --adapter, or leave --record-base out")
    folder = loading.folder(base)
    converter.require_known(folder)
    with files.scratch(place.parent, BadInput) as work, _alone(place):
        _require_disk(place, folder, type, merging=adapter is not None)
        merged = None
        if adapter is not None:
            merged = merge_certificate.merge_with_certificate(folder, adapter, work / "merged", prompts)
            folder = work / "merged"
        made = work / place.name
        converter.convert(folder, made, type)
        found = certify(made, folder, prompts)
        if failures := found.failures():
            raise CheckFailed(f"the export of {model} does not do what the model does: {failures[0]}; nothing was kept")
        written, reason = _modelfile(made, folder)
        record = {"file": place.name, "merge": merged.record() if merged else None, **found.record()}
        files.write_json(work / _beside(place, RECORD).name, record)
        with files.explained(place, BadInput):
            if written:
                (work / _beside(place, MODELFILE).name).write_text(written, encoding="utf-8", newline="\n")
            made.chmod(0o644)
            _require_free(place)
            for path in (_beside(place, RECORD), *([_beside(place, MODELFILE)] if written else []), place):
                (work / path.name).replace(path)  # the model last: where it is, all is
    return Exported(place, found, merged, _beside(place, MODELFILE) if written else None, reason)


def certify(file: Path, model: str | Path, prompts: Sequence[str]) -> ExportCertificate:
    """Compare the GGUF `file`, which may come from any converter, with the folder or name `model`.

    `prompts` are unseen texts. Returns the certificate, passed or not. Raises BadInput as `export_certificate.certify`.
    """
    extra.require(extra.LLAMA_CPP)
    return export_certificate.certify(Path(file), loading.folder(str(model)), prompts)


def _place(out: Path) -> Path:
    """Return the absolute path of the file to write. Raises BadInput unless it and what lies beside it are new."""
    place, there = files.named_path(str(out), "another file")
    if place.name == SUFFIX:
        raise BadInput(f"{out} has no name before {SUFFIX}; give one, such as {place.with_name('model' + SUFFIX)}")
    if place.suffix != SUFFIX:
        raise BadInput(f"{out} does not end in {SUFFIX}, by which llama.cpp and Ollama know their files; add it")
    if there and place.is_dir():
        raise BadInput(f"{out} is a folder; give the name of a new file in it")
    place = place.absolute()
    _require_free(place)
    return place


def _require_free(place: Path) -> None:
    for path in (place, _beside(place, MODELFILE), _beside(place, RECORD)):
        if files.named_path(str(path), "a shorter name")[1] or path.is_symlink():
            raise BadInput(f"{path} exists, and an export overwrites nothing; give another name, or remove it")


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the lock of `place` in a block. Raises BadInput if another process holds it, or has just written `place`."""
    path = place.with_name(files.LOCK + sha256(place.name.encode()).hexdigest()[:12])  # `files` sweeps such names
    with files.explained(place, BadInput):
        lock = files.acquire_lock(path, wait=1)  # one that sweeps has it for a moment
    if lock is None:
        raise BadInput(f"{files.holder(path)} is exporting to {place}; give another name, or wait until it has ended")
    try:
        _require_free(place)
        yield
    finally:
        files.release_lock(lock)


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(place.stem + suffix)


def _base_and_adapter(
    model: str | Path, adapter: Path | None, prove: Callable[[Path, str], object]
) -> tuple[str, Path | None]:
    """Return the base and the adapter to merge into it; `model` may be an adapter's folder that names its base.

    `prove` raises BadInput unless the adapter was trained on the base.
    """
    name = str(model)
    path = files.named_path(name, "a model's name or folder")[0]
    is_adapter = (path / lora.CONFIG).is_file() and not (path / "config.json").is_file()
    if not is_adapter:
        require_language_model(name)
        if adapter is not None:
            adapter = files.named_path(str(adapter), "the folder of an adapter")[0].absolute()
            prove(adapter, name)
        return name, adapter
    if adapter is not None:
        raise BadInput(f"{model} is an adapter, and so is {adapter}; name the base first, and one adapter")
    return _base_of(path, prove), path.absolute()


def _base_of(adapter: Path, prove: Callable[[Path, str], object]) -> str:
    """Return the name or the folder of the base that `adapter` names and that `prove` accepts."""
    record = adapter_config.read_record(adapter)
    named = [record["name"] if record else "", adapter_config.read(adapter).base_model_name_or_path or ""]
    reason = "it names no base"
    for name in filter(None, named):
        if name in loading.MODELS or loading.comes_from_hub(name) or Path(name).is_dir():
            try:
                require_language_model(name)
                prove(adapter, name)
            except BadInput as problem:
                reason = str(problem).partition(";")[0]
                continue
            return name
        reason = f"its base, {name}, is no folder here and no model of the course"
    more = "" if record else " --record-base"
    raise BadInput(
        f"{adapter} is an adapter, and {reason}; name its base: ftlab export BASE OUT{SUFFIX} --adapter {adapter}{more}"
    )


def _require_disk(place: Path, folder: Path, type: str, *, merging: bool) -> None:
    """Raise BadInput unless the disk has room for the export, and for the merged model while it is made."""
    needed = converter.bytes_needed(folder, type)
    if merging:
        needed += sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    free = shutil.disk_usage(place.parent).free
    if free < needed:
        raise BadInput(
            f"the export needs {needed / 1e9:.3g} GB{' with the merged model' if merging else ''}, and the disk of "
            f"{place.parent} has {free / 1e9:.3g} GB free; free some space there, or choose a file on another disk"
        )


def _modelfile(made: Path, folder: Path) -> tuple[str | None, str]:
    """Return the text of the Modelfile for the file `made` from `folder`, or None and the reason."""
    tokenizer = loading.bare_tokenizer(str(folder))
    try:
        text = modelfile.modelfile(
            made.name,
            tokenizer,
            alpaca_chat.trained_format(folder, tokenizer) if chat.of_folder(folder) else NO_FORMAT,
            generation.end_tokens_of_folder(folder, tokenizer),
            adds_bos=gguf_files.read(made).adds_bos,
            context=_context(folder),
        )
    except BadInput as problem:
        return None, one_line(problem)
    return text, ""


def _context(folder: Path) -> int:
    """Return the context for Ollama, in tokens: one in which llama.cpp computes the positions of the model in `folder`.

    Some models (Phi's longrope) have other positions in long texts. llama.cpp takes them by the context that it is
    started for, and would so compute short texts otherwise than transformers.
    """
    most = min(loading.max_positions(str(folder)), MOST_CONTEXT)
    positions = getattr(loading.config(str(folder)).get_text_config(), "rope_parameters", None) or {}
    if positions.get("rope_type") != "longrope":
        return most
    short = positions["original_max_position_embeddings"]
    return min(most, llama_cpp.longest_context(short) or short)
