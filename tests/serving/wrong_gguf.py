"""Wrong GGUF files, made from right ones: what a faulty converter, or a person with a tool, would leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Change = Callable[[Any], Any]


def rewrite(
    source: Path,
    target: Path,
    values: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Change] | None = None,
    architecture: str | None = None,
    added: Mapping[str, Any] | None = None,
) -> Path:
    """Write the GGUF file `source` again as `target`, with changes, and return `target`.

    Args:
        source: the file.
        target: another one.
        values: new values of its head by name; None takes one out, and a function changes it.
        tensors: changes of tensors by name. A change gets the array as it is stored, and returns one, or None to leave
            the tensor out.
        added: further tensors, as arrays of float32.
        architecture: another one; the names that begin with the old one change too.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    old = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture or old)
    left = dict(values or {})
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = field.contents()
        if name in left:
            change = left.pop(name)
            value = change(value) if callable(change) else change
        if value is None:
            continue
        if architecture and name.startswith(f"{old}."):
            name = f"{architecture}{name[len(old) :]}"
        writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for name, value in left.items():
        kind = gguf.GGUFValueType.get_type(value)
        writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        data = (tensors or {}).get(tensor.name, lambda numbers: numbers)(np.array(tensor.data))
        if data is not None:
            raw = None if data.dtype == np.float32 else tensor.tensor_type
            writer.add_tensor(tensor.name, np.ascontiguousarray(data), raw_dtype=raw)
    for name, data in (added or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def tensor(source: Path, name: str) -> Any:
    """Return the tensor `name` of the file `source`, as it is stored."""
    import gguf

    return next(np.array(one.data) for one in gguf.GGUFReader(source).tensors if one.name == name)


def swapped(source: Path, one: str, other: str) -> dict[str, Change]:
    """Return the changes that swap two tensors of `source`."""
    first, second = tensor(source, one), tensor(source, other)
    return {one: lambda numbers: second, other: lambda numbers: first}


def permuted(heads: int) -> Change:
    """Return a change that orders the rows of a query or key as the converter does for Llama's rotary positions."""

    def change(numbers: Any) -> Any:
        return (
            numbers.reshape(heads, 2, numbers.shape[0] // heads // 2, *numbers.shape[1:])
            .swapaxes(1, 2)
            .reshape(numbers.shape)
        )

    return change
