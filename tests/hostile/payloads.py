"""What somebody hands to a learner: payloads that leave a mark if they run."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a terminal obeys: the title, a cleared screen, the bell, one-byte CSI (C1); and what reverses a line.
TERMINAL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe"
MARKUP = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
MARKDOWN = "| [x](javascript:alert(1)) ![x](http://192.0.2.1/x.png) `\n# owned"
TEMPLATE = "{{ 7 * 7 }}{% raw %}{}{0.__class__}"
FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", " =1", "\uff1d1+1")


class Bomb:
    """Makes the file `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def obeyed(text: str) -> list[str]:
    """What a terminal would obey in `text`: control characters except line ends and tabs, and bidi controls."""
    bidi = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    return [
        hex(ord(one))
        for one in text
        if (ord(one) < 32 and one not in "\n\t") or 0x7F <= ord(one) < 0xA0 or ord(one) in bidi
    ]


def safetensors(header: Any, *, body: bytes = bytes(16), length: int | None = None) -> bytes:
    """A safetensors file with this `header`, which says of itself that it has this `length`."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def edited(path: Path, **values: Any) -> None:
    """Change values of the JSON object in the file `path`."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


Change = Callable[[Path], object]
