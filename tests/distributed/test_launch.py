"""`accelerate launch` with the configuration for two processes on the CPU, as docs/several_gpus.md shows it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from ftlab import cli
from ftlab.commands import train as commands
from tests import nightly

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "several_gpus.md"
LAUNCH = "accelerate launch --multi_gpu --config_file configs/accelerate/two_cpu_processes.yaml -m ftlab train classify"
SHARDED = (
    "accelerate launch --config_file configs/accelerate/eight_gpus_fsdp2.yaml --num_processes 2 --mixed_precision no "
    "-m ftlab train classify"
)


def launched(command: str, *options: str) -> subprocess.CompletedProcess[str]:
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [accelerate, *command.split()[1:], "--profile", "smoke", *options], cwd=REPOSITORY, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_page_shows_these_commands():
    said = PAGE.read_text(encoding="utf-8")
    assert f"ACCELERATE_USE_CPU=true {LAUNCH}\n" in said
    assert "take `eight_gpus_fsdp2.yaml` with `--num_processes 2 --mixed_precision no`" in said


def test_each_line_of_the_page_is_one_that_both_command_lines_take():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "accelerate launch --" in line]
    assert len(lines) >= 5
    for line in lines:
        asked = launch_command_parser().parse_args(shlex.split(line.partition("accelerate launch ")[2]))
        assert (REPOSITORY / asked.config_file).is_file()
        assert (asked.module, asked.training_script) == (True, "ftlab")
        assert cli._parser().parse_args(asked.training_script_args).what in commands.WHAT


def test_the_launcher_ends_with_the_sentence(tmp_path):
    done = launched(LAUNCH, "-p", "batch_size", "15", "--out", str(tmp_path / "out"))
    sentence = (
        "a step has 15 rows (batch_size 15), and 2 processes cannot share them equally; expected a multiple of 2, "
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count(f"ftlab: {sentence}") == 1  # told by one process
    assert f"traceback : {sentence}" in done.stderr  # the reason in the launcher's own report
    assert not any((tmp_path / "out").glob("*"))


@pytest.mark.skipif(not nightly.NIGHTLY, reason="for the nightly run: test_equality starts the same processes faster")
@pytest.mark.parametrize("command", [LAUNCH, SHARDED])
def test_the_launcher_starts_two_that_train_together(command, tmp_path):
    done = launched(command, "--json", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["processes"] == 2
    assert Path(found["folder"]).is_dir()
