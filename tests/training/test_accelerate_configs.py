"""configs/accelerate/: each file means to accelerate what its first line promises, and nothing in it is ignored."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin, is_deepspeed_available
from accelerate.utils.fsdp_utils import fsdp2_apply_ac
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torch.distributed.fsdp import StateDictType
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
COMMAND = ["-m", "ftlab", "train", "lora", "--profile", "gpu"]
FILES = {  # distributed type, processes, machines, mixed precision
    "deepspeed_zero3": (DistributedType.DEEPSPEED, 8, 1, "bf16"),
    "eight_gpus_ddp": (DistributedType.MULTI_GPU, 8, 1, "bf16"),
    "eight_gpus_fsdp2": (DistributedType.FSDP, 8, 1, "bf16"),
    "one_gpu": (DistributedType.NO, 1, 1, "bf16"),
    "two_cpu_processes": (DistributedType.MULTI_CPU, 2, 1, "no"),
    "two_nodes": (DistributedType.MULTI_GPU, 16, 2, "bf16"),
}
# The argument group of `accelerate launch` that holds the keys of a nested table.
NESTED = {"fsdp_config": "FSDP Arguments", "deepspeed_config": "DeepSpeed Arguments"}

each_file = pytest.mark.parametrize("name", FILES)


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another training on this machine changes nothing: neither its port, nor variables that a launcher has set."""
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for variable in ("ACCELERATE_USE_CPU", "WORLD_SIZE", "LOCAL_RANK", "RANK"):
        monkeypatch.delenv(variable, raising=False)


def file(name: str) -> Path:
    return CONFIGS / f"{name}.yaml"


def launched(path: Path, *options: str) -> argparse.Namespace:
    """Return the arguments with which accelerate would start the processes for this file; start none."""
    args = launch_command_parser().parse_args(["--config_file", str(path), *options, *COMMAND])
    return _validate_launch_command(args)[0]


def unknown_keys(path: Path) -> list[str]:
    """Return the keys of a file that accelerate does not know, also those of its nested tables."""
    groups = {
        group.title: {action.dest for action in group._group_actions}
        for group in launch_command_parser()._action_groups
    }
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    top = [key for key in config if key not in ClusterConfig.__dataclass_fields__]
    nested = [key for table, group in NESTED.items() for key in config.get(table, {}) if key not in groups[group]]
    return top + nested


def planted(folder: Path, name: str, old: str, new: str) -> Path:
    """Return a copy of a file in which `old` is written as `new`."""
    text = file(name).read_text(encoding="utf-8")
    assert text.count(old) == 1
    copy = folder / f"{name}.yaml"
    copy.write_text(text.replace(old, new), encoding="utf-8")
    return copy


def deepspeed_environment() -> dict[str, str]:
    args = launched(file("deepspeed_zero3"))
    args.deepspeed_fields_from_accelerate_config = "zero_stage"  # `launch_command` fills this in
    return prepare_deepspeed_cmd_env(args)[1]


def test_the_folder_holds_these_files_and_no_other() -> None:
    assert {path.name for path in CONFIGS.iterdir()} == {f"{name}.yaml" for name in FILES}


@each_file
def test_the_first_line_alone_says_when_to_take_the_file(name: str) -> None:
    first, second, *_ = file(name).read_text(encoding="utf-8").splitlines()
    assert first.startswith("# Take this ")
    assert first.endswith(".")
    assert not second.startswith("#")


@each_file
def test_accelerate_reads_the_intended_type_processes_machines_and_precision(name: str) -> None:
    config = load_config_from_file(str(file(name)))
    read = (config.distributed_type, config.num_processes, config.num_machines, config.mixed_precision)
    assert read == FILES[name]
    assert config.use_cpu is (name == "two_cpu_processes")


@each_file
def test_the_command_of_the_course_starts_ftlab_with_the_settings_of_the_file(name: str) -> None:
    args = launched(file(name))
    kind, processes, machines, precision = FILES[name]
    assert (args.num_processes, args.num_machines, args.mixed_precision) == (processes, machines, precision)
    assert args.multi_gpu is (kind is DistributedType.MULTI_GPU)
    assert args.use_fsdp is (kind is DistributedType.FSDP)
    assert args.use_deepspeed is (kind is DistributedType.DEEPSPEED)
    assert (args.module, args.training_script, args.training_script_args) == (True, "ftlab", COMMAND[2:])


@each_file
def test_every_key_is_one_that_accelerate_knows(name: str) -> None:
    assert unknown_keys(file(name)) == []


def test_a_misspelt_key_is_refused_by_accelerate_and_by_the_check_above(tmp_path: Path) -> None:
    wrong = planted(tmp_path, "eight_gpus_ddp", "num_processes:", "num_proceses:")
    assert unknown_keys(wrong) == ["num_proceses"]
    with pytest.raises(ValueError, match=r"unknown keys \(\['num_proceses'\]\)"):
        launched(wrong)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("eight_gpus_fsdp2", "fsdp_reshard_after_forward:", "fsdp_reshard_after_foward:"),
        ("deepspeed_zero3", "zero_stage:", "zero_stge:"),
        ("deepspeed_zero3", "zero_stage:", "num_processes:"),  # a key of accelerate, in the wrong table
    ],
)
def test_a_misspelt_nested_key_is_ignored_by_accelerate_and_refused_by_the_check(
    name: str, old: str, new: str, tmp_path: Path
) -> None:
    wrong = planted(tmp_path, name, f"  {old}", f"  {new}")
    launched(wrong)  # no error: that is why the check looks into the tables
    assert unknown_keys(wrong) == [new.removesuffix(":")]


def test_one_gpu_shows_the_process_one_gpu() -> None:
    command, environment = prepare_simple_launcher_cmd_env(launched(file("one_gpu")))
    assert command == [sys.executable, *COMMAND]
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_ddp_starts_eight_processes_on_this_machine() -> None:
    args = launched(file("eight_gpus_ddp"))
    environment = prepare_multi_gpu_env(args)
    assert args.nproc_per_node == "8"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert "ACCELERATE_USE_FSDP" not in environment


def test_the_processes_are_told_of_fsdp2_with_full_sharding(monkeypatch: pytest.MonkeyPatch) -> None:
    args = launched(file("eight_gpus_fsdp2"))
    environment = prepare_multi_gpu_env(args)
    assert args.nproc_per_node == "8"
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    settings = {name: value for name, value in environment.items() if name.startswith("FSDP_")}
    assert settings["FSDP_VERSION"] == "2"
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()  # as Accelerator makes it in each process
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.state_dict_type is StateDictType.SHARDED_STATE_DICT
    assert plugin.cpu_ram_efficient_loading is True
    assert plugin.activation_checkpointing is False


class Layer(torch.nn.Module):
    """A layer with dropout between its weights and its output."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 16)
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dropout(self.linear(rows)))


class OneLayer(torch.nn.Module):
    """What accelerate needs of a model to find its layers."""

    _no_split_modules = ("Layer",)

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layer = Layer(dropout)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layer(rows)


@pytest.mark.parametrize(("dropout", "same"), [(0.0, True), (0.5, False)])
def test_activation_checkpointing_of_fsdp2_needs_dropout_zero_as_the_file_says(dropout: float, same: bool) -> None:
    """If accelerate keeps the random state one day, the second reason in the file is outdated."""
    model = OneLayer(dropout)
    weight = model.layer.linear.weight
    rows = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))

    def gradient() -> torch.Tensor:
        torch.manual_seed(1)
        weight.grad = None
        model(rows).square().sum().backward()
        assert weight.grad is not None
        return weight.grad

    plain = gradient()
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    fsdp2_apply_ac(SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)), model)
    assert isinstance(model.layer, CheckpointWrapper)
    assert torch.allclose(gradient(), plain) is same


def test_the_processes_are_told_of_zero3_and_take_the_rest_from_training_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in deepspeed_environment().items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 3
    assert plugin.zero3_init_flag is True
    assert plugin.zero3_save_16bit_model is True
    assert (plugin.offload_optimizer_device, plugin.offload_param_device) == ("none", "none")
    assert (plugin.gradient_accumulation_steps, plugin.gradient_clipping) == ("auto", "auto")
    plugin.set_mixed_precision("bf16")
    assert plugin.deepspeed_config["bf16"] == {"enabled": True}


@pytest.mark.skipif(is_deepspeed_available(), reason="with DeepSpeed installed this would start a training")
def test_without_deepspeed_the_file_is_read_and_accelerate_refuses_before_a_process_starts() -> None:
    args = launch_command_parser().parse_args(["--config_file", str(file("deepspeed_zero3")), *COMMAND])
    with pytest.raises(ImportError, match="DeepSpeed is not installed"):
        launch_command(args)


def test_two_nodes_take_the_rank_and_the_address_from_the_command_line() -> None:
    args = launched(file("two_nodes"), "--machine_rank", "1", "--main_process_ip", "192.0.2.77")
    prepare_multi_gpu_env(args)
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert args.rdzv_endpoint == "192.0.2.77:29500"
    assert "machine_rank" not in yaml.safe_load(file("two_nodes").read_text(encoding="utf-8"))
    assert launched(file("two_nodes")).machine_rank == 0


def test_two_nodes_name_the_rendezvous_that_accelerate_uses_whatever_the_file_says(tmp_path: Path) -> None:
    assert load_config_from_file(str(file("two_nodes"))).rdzv_backend == launched(file("two_nodes")).rdzv_backend
    other = planted(tmp_path, "two_nodes", "rdzv_backend: static", "rdzv_backend: c10d")
    assert launched(other).rdzv_backend == "static"  # the comment in the file says so
    assert launched(other, "--rdzv_backend", "c10d").rdzv_backend == "c10d"


def test_two_cpu_processes_start_with_the_command_in_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MPI accelerate starts one process for MULTI_CPU. If that changes, the comment in the file is outdated."""
    alone, environment = prepare_simple_launcher_cmd_env(launched(file("two_cpu_processes")))
    assert alone == [sys.executable, *COMMAND]
    assert environment["ACCELERATE_USE_CPU"] == "True"
    assert "WORLD_SIZE" not in environment

    both = launched(file("two_cpu_processes"), "--multi_gpu")
    assert "ACCELERATE_USE_CPU" not in prepare_multi_gpu_env(both)
    assert (both.multi_gpu, both.nproc_per_node) == (True, "2")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert prepare_multi_gpu_env(both)["ACCELERATE_USE_CPU"] == "true"
    text = file("two_cpu_processes").read_text(encoding="utf-8")
    assert "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu" in text
