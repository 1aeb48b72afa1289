"""Private names of PyTorch: whether a backward pass is going on, and the names that its wrappers put before tensors.

What has to be imported with the module is in `torch_dispatch`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# What torch.compile and FSDP put before the names of tensors in a state dict. Neither name is documented.
COMPILED, FSDP = "_orig_mod.", "_fsdp_wrapped_module."

# What the table of contents of a sharded checkpoint is made of, by module.
_OF_METADATA = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", "float64", "float32", "bfloat16", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"),
    **dict.fromkeys(("pathlib", "pathlib._local"), ("Path", "PosixPath", "WindowsPath")),
}  # fmt: skip


def in_backward_pass() -> bool:
    """Return whether the code runs inside of a backward pass of this thread.

    Gradient checkpoints run layers again there. PyTorch asks the same way (`torch.autograd.graph`), without a public
    name for it.
    """
    import torch

    return torch._C._current_graph_task_id() != -1


def names_in_shards(contents: Path) -> list[str]:
    """Return what a sharded checkpoint names beyond tensors and its own kind; nothing of that is imported.

    `torch.distributed.checkpoint` opens the table of contents, and what is no tensor in the shards, with pickle; it has
    no public check.

    Args:
        contents: the file .metadata of the checkpoint.

    Raises:
        pickle.UnpicklingError, ValueError, OSError and others: a file is damaged, or lies outside of the folder.
    """
    import io
    import pickle

    import torch

    unknown: list[str] = []

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if name in _OF_METADATA.get(module, ()):
                return super().find_class(module, name)
            unknown.append(f"{module}.{name}")
            raise pickle.UnpicklingError(f"it names {module}.{name}")

    with contents.open("rb") as file:
        try:
            metadata = Reader(file).load()
        except pickle.UnpicklingError:
            if not unknown:
                raise
            return unknown
    for index, stored in metadata.storage_data.items():
        if Path(stored.relative_path).name != str(stored.relative_path):
            raise ValueError(f"a shard is at {stored.relative_path}")
        if type(metadata.state_dict_metadata[index.fqn]).__name__ == "BytesStorageMetadata":
            with (contents.parent / stored.relative_path).open("rb") as shard:
                shard.seek(stored.offset)
                unknown += torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(shard.read(stored.length)))
    return unknown
