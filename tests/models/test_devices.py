import pytest
import torch

from ftlab.models import devices


@pytest.mark.parametrize(
    ("cuda", "gpu_bf16", "mps", "cpu", "expected"),
    [
        (True, True, False, {}, {"fp16": False, "bf16": True}),
        (True, False, False, {"amx_bf16": True}, {"fp16": True, "bf16": False}),  # the GPU is asked, not the CPU
        (False, True, True, {"avx512_bf16": True}, {"fp16": False, "bf16": False}),
        (False, True, False, {"avx512_bf16": True, "amx_bf16": False}, {"fp16": False, "bf16": True, "use_cpu": True}),
        (False, True, False, {"amx_bf16": True}, {"fp16": False, "bf16": True, "use_cpu": True}),
        (False, True, False, {"avx512_bf16": False, "avx2": True}, {"fp16": False, "bf16": False}),
        (False, True, False, {}, {"fp16": False, "bf16": False}),
    ],
)
def test_half_precision_is_asked_for_only_where_the_device_has_it(monkeypatch, cuda, gpu_bf16, mps, cpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bf16 or including_emulation)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    assert devices.mixed_precision() == expected


def test_a_torch_that_cannot_tell_the_cpu_s_instructions_trains_in_fp32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert devices.mixed_precision() == {"fp16": False, "bf16": False}
