"""llama.cpp as an engine: its own HTTP server on the loopback address, in a process of its own.

llama.cpp comes as the Python package xllamacpp (the extra `serve`). What is asked here is what llama.cpp's server
answers to everyone else. Source: *LLaMA.cpp HTTP Server* in the documentation of llama.cpp (tools/server/README.md).
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import math
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ftlab.errors import BadInput
from ftlab.files import named_path, to_json
from ftlab.serving import extra, gguf_files, llama_cpp_process
from ftlab.wording import one_line

CONTEXT = 2048  # tokens of a prompt with its answer, if nothing else is said
BLOCK = 256  # tokens; llama.cpp rounds a context to them, and does not start with a very short one
HOST = "127.0.0.1"
NO_CHAT = (
    "the file has no chat template, and llama.cpp would put a chat into ChatML, which the model may never have seen; "
    "send the prompt in the format of the training to /v1/completions"
)
# A request says all that could make it other than greedy, so the defaults of a server or of a file do not matter.
GREEDY = {
    "temperature": 0.0, "repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "dry_multiplier": 0.0,
    "mirostat": 0,
}  # fmt: skip
_ERROR = re.compile(r"^[\d.]+ E\s+(.*)$", re.MULTILINE)  # a line of llama.cpp's log: time, level, text
KILLED = -9  # the exit code of a process that the system has ended, often because memory was short


@dataclass(frozen=True)
class Written:
    """What llama.cpp wrote after a prompt.

    `ids` are the tokens that it chose; if an end token ended the answer, that is the last of them. `text` is the answer
    without it. `stopped` says whether an end token or a text of `stop` ended the answer, and not max_new_tokens.
    `log_probabilities` has, for each of `ids`, the likeliest tokens at its position with their log-probabilities in
    nats; it is empty if they were not asked for. llama.cpp reports none for a token that leaves a character of several
    bytes unfinished: its place has an empty dict.
    """

    ids: list[int]
    text: str
    stopped: bool
    log_probabilities: list[dict[int, float]]


class Engine:
    """llama.cpp with one GGUF file: a context manager that starts its server and stops it.

    Args:
        file: a GGUF file.
        port: the port on the loopback address; by default any that is free.
        slots: how many prompts are answered at once; others wait.
        context: the most tokens of one prompt with its answer, which llama.cpp rounds up to a multiple of `BLOCK`; by
            default `CONTEXT`. A model with fewer positions has as many, and one with other positions in a long context
            than in a short one (Phi's longrope) has those of the short one.
        threads: of the CPU; by default as many as llama.cpp finds right.
        exact: compute attention in float32, without llama.cpp's cache of earlier prompts. By default llama.cpp works
            with its own settings, which keep keys and values in float16: smaller and faster, and less exact.

    Attributes:
        address: of the server, http://127.0.0.1:PORT.
        context: the most tokens of one prompt with its answer, as it is served.
        has_chat_template: whether the file has one.

    Raises:
        BadInput: by the call, an option that is out of range, a context for which llama.cpp would take other positions
            than the model, or a file that is no GGUF file or is not whole; by `with`, a port that is taken, a model
            that llama.cpp refuses, or a context for which the model has no positions.
    """

    def __init__(
        self,
        file: Path | str,
        *,
        port: int | None = None,
        slots: int = 1,
        context: int | None = None,
        threads: int | None = None,
        exact: bool = False,
    ) -> None:
        extra.require(extra.LLAMA_CPP)
        self.file = named_path(str(file), "a GGUF file")[0].absolute()
        facts = _read(self.file)
        self.has_chat_template = facts.chat_template is not None
        if port is not None and not 1 <= port <= 65535:
            raise BadInput(f"the port is {port}; expected a number from 1 to 65535, such as 8080")
        for name, value in (("slots", slots), ("context", context), ("threads", threads)):
            if value is not None and value < 1:
                raise BadInput(f"{name} is {value}; expected at least 1")
        self.port, self.slots, self.threads, self.exact = port, slots, threads, exact
        self.context = _context(facts, context)
        self._asked = context
        self.address = ""
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def __enter__(self) -> Engine:
        if self.port:
            require_free(self.port)
        settings = {
            "file": str(self.file), "name": self.file.stem, "port": self.port or 0, "slots": self.slots,
            "context": self.context * self.slots, "threads": self.threads, "exact": self.exact,
        }  # fmt: skip
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-P", llama_cpp_process.__file__, to_json(settings, ascii_only=True)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the other
        )  # fmt: skip
        try:
            assert self._process.stdout
            for line in self._process.stdout:
                if line.startswith(llama_cpp_process.ADDRESS):
                    self.address = line.removeprefix(llama_cpp_process.ADDRESS).strip()
                    break
            else:
                raise self._cannot_run(self._reason())
            self._require_context()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop llama.cpp; a second call does nothing."""
        if self._process is not None:
            self._process.kill()  # it has nothing to save
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe
                pipe.close()
            self._process, self.address = None, ""
        if self._log is not None:
            self._log.close()
            self._log = None

    def wait(self) -> None:
        """Wait until llama.cpp ends, which it does not do by itself.

        Raises BadInput when it has.
        """
        assert self._process
        self._process.wait()
        raise BadInput(f"llama.cpp has ended ({self._reason()}); start it again")

    def token_ids(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text` by llama.cpp, with the BOS that the file asks for.

        Args:
            text: any text.
            special: read the special tokens in it as such, as llama.cpp does with all that a person sends; by default
                they are text.
        """
        return self.request("/tokenize", {"content": text, "add_special": True, "parse_special": special})["tokens"]

    def chat_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the text that llama.cpp makes of `messages` by the file's chat template, for the assistant to answer.

        A BOS that llama.cpp adds itself to the ids is left out. Raises BadInput if the file has no chat template, or if
        it refuses the messages.
        """
        if not self.has_chat_template:
            raise BadInput(f"{self.file}: {NO_CHAT}")
        return self.request("/apply-template", {"messages": [dict(one) for one in messages]})["prompt"]

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the ids that the model reads for `messages`, when they come to /v1/chat/completions."""
        return self.token_ids(self.chat_text(messages), special=True)

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        likeliest: int = 0,
        stop: Sequence[str] = (),
    ) -> list[Written]:
        """Write an answer to each prompt greedily, as many at once as there are slots.

        Args:
            prompts: token ids of each prompt, its BOS included.
            max_new_tokens: the most tokens of an answer, its end token included.
            likeliest: of how many tokens the log-probabilities are returned at each position.
            stop: texts that end an answer, besides the end tokens that llama.cpp finds in the file.

        Returns:
            One answer for each prompt, in the order of the prompts.

        Raises:
            BadInput: a prompt is empty, too long for the context, or has an id that is no token of the model.
        """
        if max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {max_new_tokens}; expected at least 1")
        for number, prompt in enumerate(prompts):
            if not len(prompt):
                raise BadInput(f"prompt {number} is empty; give the model something to continue")
            if (wanted := len(prompt) + max_new_tokens) > self.context:
                raise BadInput(
                    f"prompt {number} has {len(prompt):,} tokens, and with {max_new_tokens:,} new ones that makes "
                    f"{wanted:,}; llama.cpp was started for {self.context:,}: shorten the prompt, or give a larger "
                    "context"
                )

        def one(prompt: Sequence[int]) -> Written:
            request = {
                **GREEDY, "prompt": list(prompt), "n_predict": max_new_tokens, "n_probs": likeliest, "stop": list(stop),
                "return_tokens": True, "cache_prompt": False,
            }  # fmt: skip
            answer = self.request("/completion", request)
            ids, reported = answer["tokens"], answer.get("completion_probabilities", [])
            near = [{token["id"]: _number(token["logprob"]) for token in place["top_logprobs"]} for place in reported]
            if likeliest:
                near = _at_their_places(near, [place["id"] for place in reported], ids)
            return Written(ids, answer["content"], answer["stop_type"] in ("eos", "word"), near)

        with ThreadPoolExecutor(max_workers=self.slots) as pool:
            return list(pool.map(one, prompts))

    def _cannot_run(self, reason: str) -> BadInput:
        """Return the error for a start that failed for `reason`."""
        if self.port and "bind" in reason:  # another program has taken the port since it was free
            return _not_free(self.port, "is taken by another program")
        advice = "export the model again with `ftlab export`"
        if re.search("memory|alloc", reason):
            advice = f"give a smaller context than {self.context:,} tokens, or free some memory"
        return BadInput(f"llama.cpp cannot run {self.file} ({reason}); {advice}")

    def _require_context(self) -> None:
        """Read the context that llama.cpp made: shorter than the one asked for if the model has fewer positions."""
        has = self.request("/props")["default_generation_settings"]["n_ctx"]
        if has < 1:
            raise BadInput(f"{self.file} gives its model {has:,} positions; export the model again with `ftlab export`")
        if self._asked is not None and has < self._asked:
            raise BadInput(
                f"the context is {self._asked:,} tokens, and {self.file.name} has positions for {has:,}; give at most "
                "as many"
            )
        self.context = min(has, self.context)

    def request(self, path: str, request: Mapping[str, Any] | None = None) -> Any:
        """Return the server's answer, as JSON, to a request that is sent as JSON.

        Args:
            path: such as /v1/chat/completions.
            request: what to POST; by default the path is read (GET).

        Raises:
            BadInput: the server refuses the request, with its message, answers with no JSON, or has ended.
        """
        if not self.address:
            raise BadInput("llama.cpp is not running; use `with Engine(file) as engine`")
        # Straight to the loopback address: urllib and others would go through a proxy that the environment names.
        connection = http.client.HTTPConnection(HOST, urlsplit(self.address).port or 0)
        try:
            body = None if request is None else to_json(request, ascii_only=True)
            connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            raise BadInput(
                f"llama.cpp ended while it worked on {self.file} ({self._reason()}); start it again, or export the "
                "model again with `ftlab export`"
            ) from problem
        finally:
            connection.close()
        try:
            found = json.loads(said)
        except ValueError as problem:
            raise BadInput(
                f"llama.cpp answers {path} with no JSON ({answer.status} {answer.reason}); ask at /v1/completions or "
                "/v1/chat/completions"
            ) from problem
        if answer.status != http.client.OK:
            raise BadInput(f"llama.cpp refuses the request ({one_line(found['error']['message'])}); change it")
        return found

    @property
    def pid(self) -> int:
        """The number of llama.cpp's process while it runs."""
        assert self._process
        return self._process.pid

    def _reason(self) -> str:
        """Return what llama.cpp's log and exit code say about its end."""
        if self._log is None or self._process is None:
            return "it was stopped"
        with contextlib.suppress(subprocess.TimeoutExpired):  # the log is whole when the process has ended
            if self._process.wait(timeout=5) == KILLED:
                return "the system killed it; memory may be short"
        self._log.seek(0)
        log = self._log.read()
        found = _ERROR.findall(log) or [line for line in log.splitlines() if line.strip()]
        return one_line(found[0]) if found else "it said nothing"


def _number(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN, so llama.cpp writes null


def _at_their_places(
    near: Sequence[dict[int, float]], reported: Sequence[int], ids: Sequence[int]
) -> list[dict[int, float]]:
    """Return one of `near` for each of `ids`, and an empty one where llama.cpp reported none.

    llama.cpp says for which token each is (`reported`), and not at which place. It is the same place whether the
    reported tokens are looked for from the left or from the right; where it is not, the place is left empty.
    """
    left = _places(reported, ids)
    right = [len(ids) - 1 - place for place in _places(reported[::-1], ids[::-1])][::-1]
    placed: list[dict[int, float]] = [{} for _ in ids]
    for values, first, last in zip(near, left, right, strict=True):
        if first == last:
            placed[first] = values
    return placed


def _places(some: Sequence[int], of: Sequence[int]) -> list[int]:
    """Return the first places in `of` at which `some` stand, in their order."""
    places, place = [], -1
    for one in some:
        place = of.index(one, place + 1)
        places.append(place)
    return places


def require_free(port: int) -> None:
    """Raise BadInput, which names a port that is free, if `port` of the loopback address cannot be had."""
    if problem := _bind(port):
        taken = problem.errno == errno.EADDRINUSE
        raise _not_free(port, "is taken by another program" if taken else f"cannot be had ({problem.strerror})")


def is_free(port: int) -> bool:
    """Return whether a server can listen at `port` of the loopback address."""
    return _bind(port) is None


def _not_free(port: int, why: str) -> BadInput:
    other = next((one for one in range(max(port + 1, 8080), 65536) if is_free(one)), None)
    return BadInput(f"port {port} {why}; give another one, such as --port {other or 8080}")


def _bind(port: int) -> OSError | None:
    """Return what the system says against a server at `port` of the loopback address, or None."""
    with socket.socket() as one:
        if sys.platform != "win32":  # there it would take a port from a program that listens
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except OSError as problem:
            return problem
        return None


def longest_context(short: int) -> int:
    """Return the longest context that llama.cpp, which rounds it up, can serve within `short` tokens."""
    return short // BLOCK * BLOCK


def _context(facts: gguf_files.GgufFile, asked: int | None) -> int:
    """Return the context to serve: that of `asked`, or the usual one, rounded as llama.cpp rounds it.

    Phi's longrope has other positions in texts that are longer than its first context. transformers takes them for such
    texts alone, and llama.cpp for all, if it was started for a longer context. Raises BadInput for such a context.
    """
    context = -(-(asked or CONTEXT) // BLOCK) * BLOCK
    if facts.short_context is None or context <= facts.short_context:
        return context
    longest = longest_context(facts.short_context)
    if not longest:
        raise BadInput(
            f"the positions of {facts.path} change beyond {facts.short_context:,} tokens, and llama.cpp serves no "
            f"context of less than {BLOCK}; serve the folder itself (`transformers serve`)"
        )
    if asked is None:
        return longest
    raise BadInput(
        f"the context is {asked:,} tokens, and beyond {facts.short_context:,} llama.cpp computes other positions than "
        f"{facts.path.name} has for short texts; give at most {longest:,}"
    )


def _read(file: Path) -> gguf_files.GgufFile:
    if file.is_dir():
        raise BadInput(
            f"{file} is a folder, and llama.cpp runs one GGUF file; make one with `ftlab export {file} OUT.gguf`, or "
            f"serve the folder as it is: `transformers serve {file}`"
        )
    return gguf_files.read(file)
