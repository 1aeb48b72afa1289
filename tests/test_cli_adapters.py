"""`ftlab generate` and `ftlab merge` with adapters that PEFT alone has saved."""

import json
import os
import subprocess
import sys

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from ftlab.adapters import lora as adapters
from tests.command_line import ftlab
from tests.merging.merge_cases import save_adapter, save_base

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base", "llama", initializer_range=0.5, vocab_size=640)


@pytest.fixture
def adapter(base, tmp_path):
    return save_adapter(tmp_path / "adapter", base, size=0.3)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("Rain.\nA quiet film\n", encoding="utf-8")
    return path


def test_generate_asks_for_the_record_once_and_the_flag_writes_it(capsys, base, adapter, prompts):
    ask = ["generate", base, prompts, "--adapter", adapter, "--max-new-tokens", 4, "--json"]
    code, out, err = ftlab(capsys, *ask)
    assert (code, out, len(err)) == (2, "", 1)
    assert "has no base.json" in err[0]
    assert "add --record-base" in err[0]
    code, first, err = ftlab(capsys, *ask, "--record-base")
    assert (code, err) == (0, [])
    assert json.loads((adapter / "base.json").read_text(encoding="utf-8"))["name"] == "base"
    assert ftlab(capsys, *ask) == (0, first, [])
    assert ftlab(capsys, *ask, "--record-base") == (0, first, [])


def test_merge_says_that_there_is_no_record_and_the_flag_writes_it(capsys, base, adapter, tmp_path):
    code, out, _ = ftlab(capsys, "merge", base, adapter, tmp_path / "out")
    assert code == 0
    assert "nothing but its shapes says that it was trained on this base; `--record-base` writes that down" in out
    assert not (adapter / "base.json").exists()
    code, out, _ = ftlab(capsys, "merge", base, adapter, tmp_path / "again", "--record-base", "--json")
    assert code == 0
    assert json.loads(out)["notes"] == []
    assert adapters.require_base(adapter, str(base))["name"] == "base"


def test_a_record_is_not_written_for_a_model_that_the_adapter_does_not_fit(capsys, base, adapter, prompts, tmp_path):
    other = save_base(tmp_path / "other", "phi", vocab_size=640)
    for command in (
        ["generate", other, prompts, "--adapter", adapter, "--record-base"],
        ["merge", other, adapter, tmp_path / "out", "--record-base"],
    ):
        code, out, err = ftlab(capsys, *command)
        assert (code, out, len(err)) == (2, "", 1)
        assert str(other) in err[0]
        assert not (adapter / "base.json").exists()
    code, _, err = ftlab(capsys, "generate", base, prompts, "--record-base")
    assert (code, err) == (
        2,
        ["ftlab: --record-base needs an adapter; name its folder with --adapter, or leave --record-base out"],
    )


@pytest.mark.parametrize("head", [True, False])
def test_a_classifier_s_adapter_is_refused_by_both_in_the_same_words(capsys, base, prompts, tmp_path, head):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.config.pad_token_id = 0
    lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    get_peft_model(model, lora).save_pretrained(tmp_path / "adapter")
    if not head:  # as if only its factors had been saved
        path = tmp_path / "adapter" / "adapter_config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"modules_to_save": None}), encoding="utf-8"
        )
        from safetensors.torch import load_file, save_file

        weights = tmp_path / "adapter" / "adapter_model.safetensors"
        save_file({key: one for key, one in load_file(weights).items() if "lora_" in key}, weights)
    adapters.record_base(tmp_path / "adapter", str(base))
    said = []
    for command in (
        ["generate", base, prompts, "--adapter", tmp_path / "adapter"],
        ["merge", base, tmp_path / "adapter", tmp_path / "out"],
    ):
        code, out, err = ftlab(capsys, *command)
        assert (code, out, len(err)) == (2, "", 1)
        said.append(err[0])
    assert "a classifier (task_type SEQ_CLS)" in said[0]
    assert said[0].replace(str(base), "") == said[1].replace(str(base.resolve()), "")


def test_no_warning_of_a_library_stands_on_stderr(base, adapter, prompts):
    """An old config, and patterns that match nothing: the commands know what will be read, and say nothing."""
    path = adapter / "adapter_config.json"
    held = json.loads(path.read_text(encoding="utf-8")) | {
        "merge_weights": False,
        "enable_lora": None,
        "rank_pattern": {"^v_proj": 8},
    }
    path.write_text(json.dumps(held), encoding="utf-8")
    command = [sys.executable, "-m", "ftlab.cli", "generate", base, prompts, "--adapter", adapter, "--record-base"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command), "--max-new-tokens", "2"], env=one_thread, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
