"""The cost of merging an adapter from file to file: seconds against a plain copy, memory, and PEFT's merge.

The checkpoint has phi-2's shape, with random fp16 weights in shards; the LoRA has rank 16 on q_proj and v_proj. Both
are made here and removed afterwards. Copy and merge run in turn, four times, each in a process of its own after its
imports, and the fastest counts, because other load only ever makes it slower. Both end when every file is on the disk
(fsync). PEFT merges in memory and needs the whole model there, so it is compared on two layers of the same shape, where
the merged tensors are compared too.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab.course import records
from ftlab.course.bench import alone

LAYERS, FEWER_LAYERS = 32, 2  # of phi-2, and of the comparison with PEFT
SHAPE = {"hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32, "vocab_size": 51200}
RANK, TARGETS = 16, ["q_proj", "v_proj"]
SHARD_BYTES = 10**9
ROUNDS = 4
MOST_GB, MOST_TIMES = 1.5, 1.3


def measure(layers: int = LAYERS) -> dict[str, Any]:
    """Return seconds and peak memory of copy and merge, of PEFT's merge on fewer layers, and which bars they meet.

    With fewer `layers`, or if the disk has no room for twice the checkpoint, the bars are for the smaller size; the
    settings in the result give its number of layers.
    """
    with _made(layers) as (folder, made):
        rounds = []
        for _ in range(ROUNDS):
            rounds.append({way: alone(__file__, way, folder) for way in ("copy", "merge")})
    with _made(FEWER_LAYERS) as (folder, fewer):
        beside = {way: alone(__file__, way, folder) for way in ("merge", "peft")}
        equal = alone(__file__, "compare", folder)
    best = {way: min((one[way] for one in rounds), key=lambda found: found["seconds"]) for way in ("copy", "merge")}
    times = best["merge"]["seconds"] / best["copy"]["seconds"]
    peak = max(one["merge"]["peak_above_interpreter_mb"] for one in rounds) / 1000
    return {
        "settings": {"shape": SHAPE, "rank": RANK, "targets": TARGETS, "asked_for_layers": layers, **made},
        "ways": best,
        "seconds_of_each_round": [{way: found["seconds"] for way, found in one.items()} for one in rounds],
        "merge_over_copy": round(times, 3),
        "peak_above_interpreter_gb": round(peak, 3),
        "peft_on_fewer_layers": {**fewer, "ours": beside["merge"], "peft": beside["peft"], **equal},
        "bars": {
            f"at most {MOST_GB} GB above the interpreter": peak <= MOST_GB,
            f"at most {MOST_TIMES} times the seconds of a copy": times <= MOST_TIMES,
            "PEFT's tensors to one unit in the last place": equal["largest_difference_in_ulps"] <= 1,
        },
    }


@contextmanager
def _made(layers: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A temporary folder with a base and its adapter, and their description."""
    folder = Path(tempfile.mkdtemp(prefix="ftlab-merge-"))
    try:
        room = shutil.disk_usage(folder).free * 0.9 / 2  # the base, and one copy at a time
        while layers > 1 and _parameters(layers) * 2 > room:
            layers -= 1
        yield folder, alone(__file__, "make", folder, layers)
    finally:
        shutil.rmtree(folder)


def _parameters(layers: int) -> int:
    """The number of parameters of a model of this shape, within a few thousandths."""
    hidden, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    return 2 * SHAPE["vocab_size"] * hidden + layers * (4 * hidden**2 + 2 * hidden * inner)


def _make(folder: Path, layers: str) -> dict[str, Any]:
    """Write the base tensor by tensor, in a few MB of memory, and an adapter as PEFT saves one."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file
    from transformers import GenerationConfig, PhiConfig, PhiForCausalLM

    base, adapter = folder / "base", folder / "adapter"
    base.mkdir()
    config = PhiConfig(num_hidden_layers=int(layers), dtype="float16", architectures=["PhiForCausalLM"], **SHAPE)
    config.save_pretrained(base)
    GenerationConfig().save_pretrained(base)
    with torch.device("meta"):
        tensors = PhiForCausalLM(config).state_dict()
    shards: list[dict[str, Any]] = [{}]
    for name, tensor in tensors.items():
        held = sum(one.numel() * 2 for one in shards[-1].values())
        if shards[-1] and held + tensor.numel() * 2 > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = tensor
    torch.manual_seed(0)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(base / name, shard)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(tensor.numel() * 2 for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM").save_pretrained(adapter)
    factors = {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if module != name and module.endswith(tuple(TARGETS)):
            outs, ins = tensor.shape
            factors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(RANK, ins) / ins**0.5
            factors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(outs, RANK) * 0.02
    save_file(factors, adapter / "adapter_model.safetensors")
    return {
        "layers": int(layers),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "gb": round(total / 1e9, 3),
        "shards": len(shards),
        "changed_tensors": len(factors) // 2,
    }


def _write_shard(path: Path, tensors: dict[str, Any]) -> None:
    import torch

    entries, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * 2
        entries[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors.values():
            for start in range(0, tensor.numel(), 2**23):
                count = min(2**23, tensor.numel() - start)
                file.write((torch.randn(count) * 0.02).half().numpy().data)


def _copy(folder: Path) -> dict[str, Any]:
    base, out = folder / "base", folder / "copy"
    began = time.perf_counter()
    out.mkdir()
    for path in base.iterdir():
        shutil.copyfile(path, out / path.name)
    _on_disk(out)
    return _done(began, out)


def _merge(folder: Path) -> dict[str, Any]:
    from ftlab.merging import merge as merging
    from ftlab.merging import plan as merge_plan

    merge_plan.read(folder / "base", folder / "adapter")  # for its imports; it reads no weights of the base
    out = folder / "merged"
    began = time.perf_counter()
    merging.merge(folder / "base", folder / "adapter", out)
    _on_disk(out)
    return _done(began, out)


def _peft(folder: Path) -> dict[str, Any]:
    """The merge of the tutorials: load, merge_and_unload, save."""
    from peft import PeftModel
    from transformers import PhiForCausalLM

    out = folder / "peft"
    began = time.perf_counter()
    base = PhiForCausalLM.from_pretrained(folder / "base", dtype="auto")
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    merged.save_pretrained(out, max_shard_size=SHARD_BYTES)
    _on_disk(out)
    return _done(began, out)


def _compare(folder: Path) -> dict[str, Any]:
    """Merge by both ways, and compare our tensors with PEFT's in units in the last place."""
    import torch
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import PhiForCausalLM

    from ftlab.merging import merge as merging

    merged = merging.merge(folder / "base", folder / "adapter", folder / "merged")
    base = PhiForCausalLM.from_pretrained(folder / "base", dtype="auto")
    tensors = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().state_dict()
    worst, other = 0, 0
    for path in sorted(merged.folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # safe_open is not a dict
                one, two = (_places(tensor) for tensor in (file.get_tensor(name), tensors[name]))
                gap = (one - two).abs()
                worst, other = max(worst, int(gap.max())), other + int(torch.count_nonzero(gap))
    shutil.rmtree(merged.folder)
    return {"largest_difference_in_ulps": worst, "numbers_that_differ": other}


def _places(tensor: Any) -> Any:
    """The rank of each number among all fp16 numbers, so that neighbours differ by 1."""
    import torch

    bits = tensor.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def _on_disk(out: Path) -> None:
    for path in out.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _done(began: float, out: Path) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    written = sum(path.stat().st_size for path in out.iterdir())
    peak = records.peak_memory_mb()
    shutil.rmtree(out)
    os.sync()  # so that the next process starts with an idle disk
    return {
        "seconds": round(seconds, 2),
        "gb_per_second": round(written / 1e9 / seconds, 2),
        "peak_above_interpreter_mb": round(peak - BEGAN_WITH_MB),
    }


if __name__ == "__main__":
    import psutil

    BEGAN_WITH_MB = psutil.Process().memory_info().rss / 1e6  # before PyTorch and the rest
    from ftlab.progress import quiet

    quiet()
    ways = {"make": _make, "copy": _copy, "merge": _merge, "peft": _peft, "compare": _compare}
    print(json.dumps(ways[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
