"""Private names of huggingface_hub: the client of its requests, and the listing that it keeps of a repository.

A listing of files is requested without a time limit, so a server that takes the connection and sends nothing would be
waited for without end; the description of a file is waited for six times a minute. And after an answer that says when
to ask again, the library sleeps as long as it was told.
HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT, the public settings, end none of these waits. Of the listing,
`get_cached_repo_tree` gives all but the SHA-256 of files in Git LFS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

XET = {  # how often and for how long hf_xet asks a server that does not answer; unset, it takes minutes
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2",
    "HF_XET_CLIENT_RETRY_MAX_DURATION": "60s",
}
LONGEST_WAIT = 60  # seconds that a hub may ask for before the next request; a longer wait is left to the user
WAITING = (429, 503)  # the statuses that say when to ask again


class BoundedClient:
    """What makes a client that waits for each piece of a download as long as HF_HUB_DOWNLOAD_TIMEOUT says."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory

    def __call__(self) -> Any:
        """Return a client as the factory makes it, with these limits."""
        client = self._factory()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], _limit],
            "response": [*hooks["response"], _refuse_long_wait],
        }
        return client


def bound_requests() -> None:
    """Limit the time of huggingface_hub's downloads and of the waits between them, as long as this process lives."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    for name, value in XET.items():
        os.environ.setdefault(name, value)
    if not isinstance(_http._GLOBAL_CLIENT_FACTORY, BoundedClient):
        set_client_factory(BoundedClient(_http._GLOBAL_CLIENT_FACTORY))


def listed_hashes(repository: Path, commit: str) -> dict[str, tuple[str | None, str]]:
    """Return the SHA-256 of each file of a commit (None unless it is in Git LFS) and its Git blob hash, as listed.

    Args:
        repository: its folder in the hub's cache.
        commit: its hash. If its listing is not in the cache, the result is empty.
    """
    from huggingface_hub import _tree_cache

    listed = _tree_cache.read_tree_cache(str(repository), commit) or {}
    return {name: (file.lfs_sha256, file.blob_id) for name, file in listed.items()}


def causes(problem: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, the last one first."""
    at: BaseException | None = problem
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__


def ran_out_of_time(problem: BaseException) -> bool:
    """Return whether `problem` says that a server sent nothing for too long."""
    import httpx2

    return isinstance(problem, httpx2.TimeoutException)


def was_cut_off(problem: BaseException) -> bool:
    """Return whether `problem` says that a connection ended before the whole answer had come."""
    import httpx2

    return isinstance(problem, (httpx2.RemoteProtocolError, httpx2.ReadError))


def is_of_xet(problem: BaseException) -> bool:
    """Return whether `problem` was raised by hf_xet, which gets large files from a server of its own.

    It has no error class of its own: what its Rust code reports is a RuntimeError.
    """
    return type(problem) is RuntimeError and "CAS Client Error" in str(problem)


def _limit(request: Any) -> None:
    from huggingface_hub import constants

    if request.method not in ("GET", "HEAD"):  # an upload may take its time
        return
    most = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if request.method == "HEAD":  # the description of a file, for which the library has a setting of its own
        most = max(most, constants.HF_HUB_ETAG_TIMEOUT)
    given = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        part: min(given.get(part) or most, most) for part in ("connect", "read", "write", "pool")
    }


def _refuse_long_wait(response: Any) -> None:
    from huggingface_hub.utils import _http

    if response.status_code not in WAITING:
        return
    limit = _http.parse_ratelimit_headers(response.headers)
    asked = limit.reset_in_seconds if limit and not limit.remaining else _http._parse_retry_after(response.headers)
    if asked is not None and asked > LONGEST_WAIT:
        _http.hf_raise_for_status(response)
