"""The process in which llama.cpp runs: `python llama_cpp_process.py SETTINGS` prints the server's address, and serves.

llama.cpp stops a whole process when one of its assertions fails, and writes its log past Python to stderr. In a process
of its own it does neither to the program that asks. It ends when its stdin is closed, so when its parent ends.
This file is run by its path and imports nothing of ftlab, so it starts in an instant.
"""

from __future__ import annotations

import json
import os
import sys

ADDRESS = "ftlab-address "  # what the line with the address begins with
ERRORS = 1  # llama.cpp's verbosity at which errors alone are in its log


def serve(settings: dict[str, str | int | bool | None]) -> None:
    """Start llama.cpp's server with `settings` (see `llama_cpp.Engine`), print its address, and wait."""
    import xllamacpp

    given = xllamacpp.CommonParams()
    given.model.path = settings["file"]
    given.model_alias = {settings["name"]}
    given.hostnames = ["127.0.0.1"]
    given.port = settings["port"]  # 0: any that is free
    given.cors_origins = "localhost"  # a browser lets no page of another site read an answer
    given.n_parallel = settings["slots"]
    given.n_ctx = settings["context"]  # of all slots together
    given.fit_params = False  # it would shorten the context without a word where memory is short
    given.warmup = False
    given.verbosity = ERRORS
    if settings["threads"] is not None:
        given.cpuparams.n_threads = given.cpuparams_batch.n_threads = settings["threads"]
    # Greedy unless a request says otherwise. A GGUF file may carry sampling settings, and llama.cpp takes them for what
    # the user has left open. All is marked as given, so it takes none.
    given.sampling.temp = 0.0
    given.sampling.user_sampling_config = sum(xllamacpp.common_params_sampling_config)
    if settings["exact"]:
        given.cache_type_k = given.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        given.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        given.cache_ram_mib = 0  # no answer depends on an earlier one
    try:
        server = xllamacpp.Server(given)
    except RuntimeError as problem:
        sys.exit(str(problem))
    print(ADDRESS + server.listening_address, flush=True)
    os.dup2(2, 1)  # nobody reads stdout any more
    sys.stdin.read()
    os._exit(0)  # the server's own end waits for a request that runs, and for ever


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
