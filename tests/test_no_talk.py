"""With the profiles smoke and cpu, and the assets in the cache, nothing that the course runs talks to another machine.

`tests.network_log` counts the attempts. The runs have a network of their own in which nothing answers, so that an
attempt, if there is one, reaches nobody. By day one lesson runs in smoke; at night all of them do, and one in cpu.
`python -m tests.network_log ftlab run` counts those of all lessons in cpu.
"""

import csv
import shutil
import subprocess
import sys

import pytest

from ftlab.models import loading
from ftlab.serving import extra
from tests import isolation, network_log
from tests.nightly import cases

# A network with nothing but the loopback interface, which llama.cpp's server needs.
ALONE = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
# By day one lesson with a training in it; at night the whole course, where 06 has the converter and llama.cpp, and one
# lesson with real weights.
LESSONS = [(lesson, "smoke") for lesson in ["03", "00", "01", "04", "05", "06", "02"][: cases(few=1, nightly=7)]]
LESSONS += [pytest.param("02", "cpu", marks=pytest.mark.assets)] * cases(few=0, nightly=1)
TALK = """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(type=kind) as one:
        one.settimeout(0.2)
        try:
            one.connect(("192.0.2.1", 80))
        except OSError:
            pass
try:
    socket.getaddrinfo("example.invalid", 80)
except OSError:
    pass
"""
IN_C = """
import ctypes, socket
libc = ctypes.CDLL(None)
libc.connect(libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0), b"\\x02\\0\\0\\x50\\xc0\\0\\x02\\x01" + bytes(8), 16)
"""


@pytest.fixture(scope="module")
def alone():
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        isolation.lacking("needs unshare and ip for a network of its own")
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode != 0:
        isolation.lacking("may not have a network of its own here")
    return ALONE


def ftlab(*arguments):
    return [sys.executable, "-m", "ftlab.cli", *map(str, arguments)]


def seen(alone, *command):
    return network_log.watched([*alone, *command], strace=network_log.STRACE is not None)


def test_an_attempt_is_counted_in_a_process_and_in_its_child(alone):
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TALK!r}])"
    for code, processes in ((TALK, 1), (child, 2)):
        found = network_log.watched([*alone, sys.executable, "-c", code])
        assert found.processes == processes
        assert found.attempts == [
            "socket.connect '192.0.2.1 80'", "socket.connect '192.0.2.1 80'", "socket.getaddrinfo 'example.invalid'"
        ]  # fmt: skip


def test_an_attempt_that_python_does_not_see_is_counted_by_the_system(alone):
    if network_log.STRACE is None:
        isolation.lacking("needs strace to see what a library in C does")
    found = seen(alone, sys.executable, "-c", IN_C)
    assert found.attempts == ["by the system: 192.0.2.1 80"]


def test_what_stays_on_the_machine_is_no_attempt(alone):
    code = (
        "import socket; socket.getaddrinfo('localhost', 1); server = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(server.getsockname())"
    )
    found = network_log.watched([*alone, sys.executable, "-c", code])
    assert found.code == 0, found.output
    assert found.attempts == []
    assert found.local >= 2


def test_a_cell_that_asks_another_machine_is_counted(alone, tmp_path):
    """The counter reaches the kernels in which lessons run."""
    import nbformat

    cells = [nbformat.v4.new_code_cell(TALK, id="talk")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "P"}})
    nbformat.write(notebook, tmp_path / "talk.ipynb")
    code = (
        "import sys; from pathlib import Path; from ftlab.course.execution import execute; folder = Path(sys.argv[1]); "
        "execute(folder / 'talk.ipynb', folder / 'done.ipynb', {}, settings={}, results=folder, failed='')"
    )
    found = network_log.watched([*alone, sys.executable, "-c", code, str(tmp_path)])
    assert found.code == 0, found.output
    assert "socket.connect '192.0.2.1 80'" in found.attempts
    assert "socket.getaddrinfo 'example.invalid'" in found.attempts


@pytest.mark.parametrize(("lesson", "profile"), LESSONS)
def test_a_lesson_asks_no_other_machine(alone, lesson, profile, tmp_path):
    found = seen(alone, *ftlab("run", lesson, "--profile", profile, "--out", tmp_path / "out"))
    assert found.code == 0, found.output
    assert found.attempts == []
    assert found.processes >= 2  # the command and the kernel


def test_the_command_line_asks_no_other_machine(alone, tmp_path, classifier_folder):
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *([f"row {row} is a row", row % 2] for row in range(40))])
    adapter = tmp_path / "adapter"
    saved_adapter(adapter)
    commands = {
        "audit": [tmp_path / "rows.csv", "--tokenizer", "tiny-distilbert", "--html", tmp_path / "rows.html"],
        "predict": [classifier_folder, tmp_path / "rows.csv", "--out", tmp_path / "answers.csv"],
        "merge": ["tiny-llama", adapter, tmp_path / "merged"],
        "check": ["level1", "--work", tmp_path / "work"],
    }
    if cases(few=0, nightly=1) and extra.installed(extra.CONVERTER, extra.LLAMA_CPP):
        commands["export"] = ["tiny-llama", tmp_path / "model.gguf"]
    ended = [3 if name == "check" else 0 for name in commands]  # 3: nothing was handed in
    # In one process: so many starts of Python and of torch would take longer than what they do.
    calls = [[name, *map(str, arguments)] for name, arguments in commands.items()]
    code = f"from ftlab import cli\nprint([cli.main(call) for call in {calls!r}])"
    found = seen(alone, sys.executable, "-c", code)
    assert found.code == 0, found.output
    assert found.attempts == []
    assert found.output.splitlines()[-1] == str(ended)


def test_the_doctor_asks_once_whether_the_hub_is_there_and_nobody_else(alone):
    found = network_log.watched([*alone, *ftlab("doctor", "--json")])
    assert found.attempts == ["socket.getaddrinfo 'huggingface.co'"]


def saved_adapter(folder):
    from peft import LoraConfig, get_peft_model

    from ftlab.adapters import lora

    adapted = get_peft_model(
        loading.causal_lm("tiny-llama"), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    lora.save(adapted, folder, "tiny-llama")
