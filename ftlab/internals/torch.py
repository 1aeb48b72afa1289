"""Private names of PyTorch: whether a backward pass is going on, and the names that its wrappers put before tensors.

What has to be imported with the module is in `torch_dispatch`.
"""

from __future__ import annotations

# What torch.compile and FSDP put before the names of tensors in a state dict. Neither name is documented.
COMPILED, FSDP = "_orig_mod.", "_fsdp_wrapped_module."


def in_backward_pass() -> bool:
    """Return whether the code runs inside of a backward pass of this thread.

    Gradient checkpoints run layers again there. PyTorch asks the same way (`torch.autograd.graph`), without a public
    name for it.
    """
    import torch

    return torch._C._current_graph_task_id() != -1
