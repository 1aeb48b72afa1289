"""`transformers serve`, started as a person starts it, and requests to any server in the form of OpenAI's."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

STARTS = 90  # seconds; it takes five on an idle machine
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}


@contextmanager
def transformers_serve(log, *arguments, **options):
    """The address of `transformers serve`, which loads the folder that a request names, or that of `arguments`."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with log.open("w", encoding="utf-8") as said:
        command = transformers_command(port, *arguments)
        server = subprocess.Popen(command, env=os.environ | OFFLINE, stdout=said, stderr=said, **options)
        try:
            until = time.monotonic() + STARTS
            while not _answers(address):
                assert server.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < until, log.read_text(encoding="utf-8")
                time.sleep(0.1)
            yield address
        finally:
            server.kill()
            server.wait()


def transformers_command(port, *arguments):
    program = str(Path(sys.executable).with_name("transformers"))
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return [program, "serve", *arguments, *where, "--device", "cpu", "--dtype", "float32"]


def _answers(address):
    try:
        return request(address, "/health")
    except OSError:
        return None


def request(address, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(address).port)
    try:
        text = json.dumps(body) if body else None
        connection.request("POST" if body else "GET", path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said
        return json.loads(said)
    finally:
        connection.close()


def chat(address, model, text, **options):
    """The answer of the server to a person's text, whether it ended by itself, and the tokens of the prompt."""
    messages = [{"role": "user", "content": text}]
    said = request(address, "/v1/chat/completions", {"model": str(model), "messages": messages, **options})
    (choice,) = said["choices"]
    return choice["message"]["content"], choice["finish_reason"] == "stop", said["usage"]["prompt_tokens"]


def complete(address, model, text, **options):
    said = request(address, "/v1/completions", {"model": str(model), "prompt": text, **options})
    (choice,) = said["choices"]
    return choice["text"], choice["finish_reason"] == "stop", said["usage"]["prompt_tokens"]
