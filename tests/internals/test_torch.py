"""What breaks at PyTorch's next release."""

import pytest
import torch
from torch.distributed.fsdp import _common_utils as fsdp
from torch.utils import _python_dispatch, flop_counter, weak

from ftlab.internals import torch as torch_internals
from ftlab.internals import torch_dispatch


def test_a_backward_pass_is_told_from_a_forward_pass():
    assert hasattr(torch._C, "_current_graph_task_id"), (
        "torch no longer has _C._current_graph_task_id: ftlab.internals.torch.in_backward_pass needs another way"
    )
    seen = []
    start = torch.ones(2, requires_grad=True)
    end = (start * 2).sum()
    end.register_hook(lambda gradient: seen.append(torch_internals.in_backward_pass()))
    seen.append(torch_internals.in_backward_pass())
    end.backward()
    seen.append(torch_internals.in_backward_pass())
    assert seen == [False, True, False], "torch no longer says rightly whether a backward pass is going on"


def test_wrappers_put_these_names_before_a_tensor_s():
    names = torch.compile(torch.nn.Linear(2, 2)).state_dict()
    assert all(name.startswith(torch_internals.COMPILED) for name in names), (
        f"torch.compile names tensors {list(names)}: ftlab.internals.torch.COMPILED is another prefix now"
    )
    assert f"{fsdp.FSDP_WRAPPED_MODULE}." == torch_internals.FSDP, (
        "FSDP names tensors otherwise: ftlab.internals.torch.FSDP is another prefix now"
    )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (_python_dispatch, "TorchDispatchMode"), (torch.overrides, "TorchFunctionMode"),
        (flop_counter, "flop_registry"), (weak, "WeakIdKeyDictionary"),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"),
    ],
)  # fmt: skip
def test_the_counter_of_steps_finds_what_it_needs(module, name):
    assert hasattr(module, name), (
        f"torch no longer has {module.__name__}.{name}: ftlab.internals.torch_dispatch needs another way to it"
    )


class Seen(torch_dispatch.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        told = torch_dispatch.name_of(func), torch_dispatch.writes_to_its_inputs(func)
        self.operations.append((*told, torch_dispatch.flops(func, args, kwargs or {}, out)))
        return out


def test_a_dispatch_mode_sees_each_operation_with_its_name_its_kind_and_its_flops():
    one = torch.ones(3, 4, device="meta")
    other = one.T
    with Seen() as seen:
        (one @ other).add_(1)
    assert seen.operations == [("mm", False, 2 * 3 * 4 * 3), ("add_", True, 0)], (
        "torch describes operations otherwise: name_of, writes_to_its_inputs or flops of "
        "ftlab.internals.torch_dispatch need another way"
    )


def test_a_weak_dictionary_tells_equal_tensors_apart():
    one, other = torch.ones(2), torch.ones(2)
    held = torch_dispatch.WeakIdKeyDictionary()
    held[one.untyped_storage()] = held[other.untyped_storage()] = None
    assert one.untyped_storage() in held, "torch's WeakIdKeyDictionary no longer knows the storage of a tensor"
    del other
    assert len(held) == 1, "torch's WeakIdKeyDictionary no longer forgets a storage that is gone"


def test_the_fused_kernel_of_a_cpu_runs_on_the_meta_device_and_computes_attention():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 5, 8)
    found = torch_dispatch.fused_attention_on_cpu(query, key, value, is_causal=True, attn_mask=None, scale=None)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.allclose(found, wanted, atol=1e-6), "torch's fused kernel of a CPU takes other arguments now"
    hollow = [tensor.to("meta") for tensor in (query, key, value)]
    assert torch_dispatch.fused_attention_on_cpu(
        *hollow, is_causal=False, attn_mask=None, scale=None
    ).shape == query.shape  # fmt: skip
