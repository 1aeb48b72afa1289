"""Download one revision of a repository of a model hub into a folder: only files of the given names, so no pickles."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from ftlab import files
from ftlab.errors import AssetError, CourseError
from ftlab.internals.huggingface_hub import (
    bound_requests,
    causes,
    is_of_xet,
    listed_hashes,
    ran_out_of_time,
    was_cut_off,
)
from ftlab.progress import Bar

Kind = Literal["model", "dataset"]
PORTS = {"https": 443, "http": 80}  # of an address that names none; the others are SOCKS, on 1080
SNAPSHOTS = "snapshots"  # the folder of a repository that has its files, by commit
COMPARED = "compared"  # a folder in that of a repository: the names of the files that were compared, by commit


def unreachable() -> str | None:
    """Return why the hub cannot be reached, or None if it takes a connection; behind a proxy, if the proxy does."""
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE turns it off: set it to 0"
    try:
        url = urlsplit(constants.ENDPOINT)
        host, port = _host_and_port(url)
    except ValueError:
        return "its address (HF_ENDPOINT) cannot be read"
    proxy = _proxy(url)
    if proxy:
        try:
            host, port = _host_and_port(urlsplit(proxy if "://" in proxy else f"http://{proxy}"))
        except ValueError:  # whose text may show a part of the password
            return (
                f"the address of the proxy ({url.scheme}_proxy) cannot be read: in its password, write / as %2F, # as "
                "%23 and @ as %40"
            )
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as problem:
        said = problem.strerror or str(problem)
        return f"the proxy {host}:{port} does not answer: {said}" if proxy else said
    return None


def _host_and_port(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or PORTS.get(url.scheme, 1080)


def _proxy(url: SplitResult) -> str | None:
    """The address of the proxy through which this machine reaches `url`, if there is one."""
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    return None if not found or proxy_bypass(url.hostname or "") else found


def instead(kind: Kind) -> str:
    """Return what to use where the hub does not give a model or data set: the end of each message about it."""
    return {
        "model": "use a model that needs no hub (profile cpu has one)",
        "dataset": "use profile cpu, which needs no hub, or a file or data set of the course",
    }[kind]


def folder(repo_id: str, revision: str | None, *, kind: Kind, patterns: list[str]) -> Path:
    """Return the folder of a hub repository at a revision, and download it if the hub's cache lacks it.

    Each file is compared once with the hash that the hub lists for the revision, by the first call that gets so far. A
    file that differs is deleted; one that an earlier call left so is downloaded again at once.

    Args:
        repo_id: namespace/name.
        revision: a commit, branch or tag; None is the main branch.
        kind: of the repository.
        patterns: only files that match one of them are downloaded.

    Raises:
        AssetError: the hub cannot be reached, does not have the revision, asks for its terms to be accepted, breaks off
            or falls silent; a file is not the one that it lists; or the disk is full or read-only.
    """
    from huggingface_hub import snapshot_download

    bound_requests()
    repository = _repository(repo_id, kind)
    with _explained(repo_id, revision, kind):
        dropped: set[str] = set()
        for _ in range(2):
            before = _downloaded(repository)
            path = snapshot_download(
                repo_id,
                repo_type=kind,
                revision=revision,
                allow_patterns=patterns,
                tqdm_class=Bar,
                local_files_only=unreachable() is not None,  # else it tries five times before it looks in the cache
            )
            damaged = _drop_damaged(repository, Path(path).name, before)
            dropped.update(damaged)
            if not any(repository / SNAPSHOTS / Path(path).name / name in before for name in damaged):
                break  # nothing is damaged, or the hub has just sent it so
    if damaged := [name for name in sorted(dropped) if not (Path(path) / name).is_file()]:
        raise AssetError(
            f"{repo_id}: what was downloaded as {', '.join(damaged)} is not the file that the hub lists (the hash "
            f"differs), and it was deleted; try again, or {instead(kind)}"
        )
    return Path(path)


def _repository(repo_id: str, kind: Kind) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"{kind}s--{repo_id.replace('/', '--')}"


def _downloaded(repository: Path) -> set[Path]:
    """The files of a repository that the hub's cache has, of all its commits."""
    return {path for path in (repository / SNAPSHOTS).rglob("*") if path.is_file()}


def _drop_damaged(repository: Path, commit: str, before: set[Path]) -> list[str]:
    """Delete the files of a commit whose hash is not the one that the hub lists; return their names.

    A file that was there `before` and was compared by an earlier call is not read again.
    """
    if not os.access(repository, os.W_OK):  # somebody else's cache: nothing of it was downloaded here
        return []
    snapshot, mark = repository / SNAPSHOTS / commit, repository / COMPARED / f"{commit}.json"
    trusted = {name for name in _compared(mark) if snapshot / name in before}
    listed = listed_hashes(repository, commit)
    new = {name: snapshot / name for name in listed if name not in trusted and (snapshot / name).is_file()}
    if not new:
        return []
    size = sum(map(_size, new.values()))
    with Bar(desc="comparing", total=size, unit="B", unit_scale=True) as progress:
        damaged = [name for name, path in new.items() if not _is_listed(path, *listed[name], progress)]
    for name in damaged:
        (snapshot / name).resolve().unlink(missing_ok=True)  # two names may be links to one file
        (snapshot / name).unlink(missing_ok=True)
    with suppress(CourseError):  # on a full disk, the next call compares them again
        files.write_json(mark, sorted(trusted | (new.keys() - set(damaged))))
    return damaged


def _compared(mark: Path) -> list[str]:
    """The names of the files that earlier calls have compared."""
    try:
        names = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_listed(path: Path, sha256: str | None, blob: str, progress: Bar) -> bool:
    """Whether a file is there with the SHA-256 that is listed, or without one with the hash that Git has of it."""
    try:
        start = b"blob %d\0" % _size(path)
        digest = hashlib.sha1(start, usedforsecurity=False) if sha256 is None else hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                progress.update(len(piece))
    except FileNotFoundError:  # another process found it damaged, and deleted it
        return False
    return digest.hexdigest() == (blob if sha256 is None else sha256)


def sizes(repo_id: str, snapshot: Path) -> dict[str, int]:
    """Return the size in bytes of each file of a data set's repository at a commit, whether it is downloaded or not.

    The hub's cache has this list, since `folder` keeps it: without it, one shard of two would look like all of them.

    Args:
        repo_id: namespace/name.
        snapshot: what `folder` returned for it; its name is the commit.

    Raises:
        AssetError: the list is not in the cache.
    """
    from huggingface_hub import errors, get_cached_repo_tree

    try:
        tree = get_cached_repo_tree(repo_id, repo_type="dataset", revision=snapshot.name)
    except errors.CachedRepoTreeNotFoundError as problem:
        raise AssetError(
            f"{repo_id}: the list of its files is not in the hub's cache, so a file may be missing from it; connect to "
            "the hub and run this again"
        ) from problem
    return {file.path: file.size for file in tree}


@contextmanager
def _explained(repo_id: str, revision: str | None, kind: Kind) -> Iterator[None]:
    """Raise each error of a request to the hub as an AssetError of one sentence."""
    from huggingface_hub import constants, errors

    called = {"model": "model", "dataset": "data set"}[kind]
    try:
        yield
    except errors.RevisionNotFoundError as problem:
        raise AssetError(
            f"the hub has {repo_id}, but no revision {revision} of it; check the revision, or {instead(kind)}"
        ) from problem
    except errors.GatedRepoError as problem:
        raise AssetError(
            f"{repo_id} is gated: accept its terms on the hub and run `hf auth login`, or {instead(kind)}"
        ) from problem
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as problem:
        path = " (and there is no such file here)" if kind == "dataset" else ""
        raise AssetError(
            f"the hub has no {called} {repo_id!r}{path}: it was deleted or renamed, or it is private (run `hf auth "
            f"login`); check the name (namespace/name), or {instead(kind)}"
        ) from problem
    except Exception as problem:
        if files.says_disk_is_full(problem) or isinstance(problem, PermissionError):
            cache = Path(constants.HF_HUB_CACHE)
            said = problem if isinstance(problem, PermissionError) else OSError(errno.ENOSPC, files.NO_SPACE)
            raise AssetError(f"{files.explain(said, cache)} (HF_HOME names another)") from problem
        # Where the cache is tried after a failed request, the error is that of the cache, and the request's its cause.
        if what := next(filter(None, map(_what_happened, causes(problem))), ""):
            raise AssetError(
                f"{repo_id} is not complete in the hub's cache and {what}, or {instead(kind)}"
            ) from problem
        # All other errors come from the network, in many classes of several libraries.
        reason = unreachable() or (str(problem).splitlines() or [type(problem).__name__])[0]
        raise AssetError(
            f"{repo_id} is not in the hub's cache and the hub cannot be reached ({reason[:160]}); connect, or "
            f"{instead(kind)}"
        ) from problem


def _what_happened(problem: BaseException) -> str:
    """What the hub did instead of sending the files, and what to do about it; "" if `problem` does not tell."""
    from huggingface_hub import constants, errors

    if isinstance(problem, errors.RemoteEntryNotFoundError):
        return f"the hub does not have {PurePosixPath(problem.response.url.path).name}, which it lists; try again later"
    if isinstance(problem, errors.HfHubHTTPError) and problem.response is not None:
        status = problem.response.status_code
        advice = "run `hf auth login` with a token that may read it" if status in (401, 403) else "try again later"
        return f"the hub answered {status} {problem.response.reason_phrase}".rstrip() + f"; {advice}"
    if ran_out_of_time(problem):
        seconds = f"{constants.HF_HUB_DOWNLOAD_TIMEOUT:g} seconds"
        return (
            f"the hub sent nothing for {seconds}, time after time; try again later (HF_HUB_DOWNLOAD_TIMEOUT sets more)"
        )
    if is_of_xet(problem):
        return "the hub's store of large files (Xet) does not answer; set HF_HUB_DISABLE_XET to 1 and try again"
    if was_cut_off(problem) or (type(problem) is OSError and "Consistency check failed" in str(problem)):
        return "the connection to the hub broke off; try again"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {constants.ENDPOINT} is not one that this machine trusts ({problem.verify_message}); "
            "set SSL_CERT_FILE to your network's certificate (PEM)"
        )
    if isinstance(problem, ssl.SSLError):
        return (
            f"no TLS connection to {constants.ENDPOINT} came about ({problem.reason or problem}); check that address "
            "(HF_ENDPOINT) and the proxy"
        )
    if isinstance(problem, (json.JSONDecodeError, UnicodeDecodeError, errors.FileMetadataError)):
        return (
            f"what answers at {constants.ENDPOINT} is no hub, perhaps the sign-in page of this network; sign in there "
            "and try again"
        )
    return ""
