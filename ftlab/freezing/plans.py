"""Freeze layers of a model: a plan of what trains, applied to the model, and the proof that it was kept.

A model has these parts, in the order in which a row passes them: embeddings, layers 1 to n, what is behind the layers
(BERT's pooler, GPT-2's last normalisation), and the head. The parts are found by running a few tokens, so it does not
matter what an architecture calls them.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.errors import BadInput, TrainingFailed
from ftlab.models import loading_report

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

POLICIES = ("full", "first_layers", "head", "gradual", "layerwise")
EMBEDDINGS, BEHIND, HEAD = "embeddings", "behind the layers", "head"
OPTIMIZER_BYTES = 12  # fp32 for each trained parameter: its gradient, and AdamW's two moments


@dataclass(frozen=True)
class Structure:
    """The parts of a model, in the order in which a row passes them: {part: {parameter's name: parameter}}."""

    layers: torch.nn.ModuleList
    parts: dict[str, dict[str, torch.nn.Parameter]]
    modules: dict[str, list[torch.nn.Module]]  # the same parts as modules, for those that can be frozen


@dataclass(frozen=True)
class Plan:
    """Which parameters train and which are frozen. Made, and applied to the model, by `freeze`."""

    policy: str
    architecture: str
    frozen_layers: int  # besides the embeddings; -1: these train too
    parts: dict[str, int]  # parameters of each part
    trains: dict[str, bool]
    in_front: frozenset[str]  # parameter names of the embeddings and the frozen layers
    frozen: frozenset[str]  # these, and the other frozen parameter names
    trained: frozenset[str]

    @property
    def total(self) -> int:
        """The number of parameters of the model."""
        return sum(self.parts.values())

    @property
    def trainable(self) -> int:
        """The number of parameters that train."""
        return sum(count for part, count in self.parts.items() if self.trains[part])

    @property
    def share(self) -> float:
        """The share of the parameters that trains."""
        return self.trainable / self.total

    @property
    def memory_saved(self) -> int:
        """The bytes that freezing saves in fp32: frozen parameters have no gradient and none of AdamW's two moments.

        Activations are saved too and not counted: frozen layers below the first trained one need no backward pass.
        """
        return OPTIMIZER_BYTES * (self.total - self.trainable)

    @property
    def depth(self) -> int:
        """The number of layers of the model."""
        return len(self.parts) - len({EMBEDDINGS, BEHIND, HEAD} & self.parts.keys())

    def table(self) -> pd.DataFrame:
        """Return one line for each part: how many parameters it has, and whether it trains."""
        lines = [{"part": part, "parameters": count, "trains": self.trains[part]} for part, count in self.parts.items()]
        return pd.DataFrame(lines).set_index("part")

    def __str__(self) -> str:
        return f"{self.policy}: {self.trainable:,} of {self.total:,} parameters train ({self.share:.1%})"

    def verify(
        self,
        before: Mapping[str, str],
        after: Mapping[str, str],
        optimizer: torch.optim.Optimizer | None = None,
        model: PreTrainedModel | None = None,
    ) -> pd.DataFrame:
        """Prove from hashes that frozen tensors did not change in training and the others did.

        Args:
            before: `fingerprints` before training.
            after: those after training.
            optimizer: of the training; with it, prove that it holds no frozen tensor.
            model: the trained model, given if and only if `optimizer` is.

        Returns:
            One line for each claim, with the number of its tensors.

        Raises:
            TrainingFailed: a claim is false; the message names the first tensors that contradict it.
            BadInput: only one of `optimizer` and `model` is given, or a fingerprint is missing.
        """
        if (optimizer is None) != (model is None):
            raise BadInput(
                "give the optimizer and the model, or neither; one alone does not show which tensors it holds"
            )
        for name, seen in (("before", before), ("after", after)):
            if lacking := sorted((self.frozen | self.trained) - seen.keys()):
                raise BadInput(f"the fingerprints {name} training lack {lacking[0]}; take them of the planned model")
        moved = {name for name in self.frozen | self.trained if before[name] != after[name]}
        claims = [
            ("frozen, and unchanged to the last bit", self.frozen, self.frozen & moved, "moved"),
            ("meant to train, and moved", self.trained, self.trained - moved, "did not move"),
        ]
        if optimizer is not None and model is not None:
            held = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
            inside = {name for name, tensor in model.named_parameters() if id(tensor) in held}
            claims.append(("frozen, and not in the optimizer", self.frozen, self.frozen & inside, "are in it"))
        for claim, tensors, wrong, what in claims:
            if wrong:
                shown = ", ".join(sorted(wrong)[:3]) + (", ..." if len(wrong) > 3 else "")
                raise TrainingFailed(
                    f"the freezing was not kept: of {len(tensors)} tensors that should be {claim}, {len(wrong)} "
                    f"{what} ({shown}); freeze before the optimizer is made, and let nothing else set requires_grad"
                )
        return pd.DataFrame(
            [{"tensors": len(tensors), "of them": claim} for claim, tensors, _, _ in claims if tensors]
        ).set_index("of them")


def freeze(model: PreTrainedModel, policy: str = "full", frozen_layers: int | None = None) -> Plan:
    """Choose what of `model` trains by `policy`, set `requires_grad`, and return the plan. Call it before the Trainer.

    - "full": everything trains.
    - "first_layers": the embeddings and the first `frozen_layers` layers are frozen; the rest trains.
    - "head": only the head trains (feature extraction), and what is behind the layers if its weights are not
      pretrained (a pooler: `loading_report.start_fresh_head`).
    - "gradual": the head first, then one more layer each epoch, from the last to the first; the embeddings at the end
      (ULMFiT, Howard and Ruder 2018). Here everything may train; `training.layerwise.GradualUnfreezing` unfreezes it.
    - "layerwise": everything trains, earlier layers at a lower rate (`training.layerwise.layerwise_groups`).

    Frozen parts stay in evaluation mode, even after `model.train()`: they have no dropout, so their output for a row is
    the same each time. Calling it again makes a new plan of the same model.

    Raises BadInput for an unknown policy, too many or negative `frozen_layers`, a policy that leaves nothing to train,
    and a model whose layers are not found.
    """
    if policy not in POLICIES:
        raise BadInput(f"there is no policy {policy!r}; there are {', '.join(POLICIES)}")
    found = structure(model)
    depth, architecture = len(found.layers), type(model).__name__
    if policy != "first_layers" and frozen_layers is not None:
        raise BadInput(f"policy {policy!r} takes no frozen_layers; leave it out, or choose policy 'first_layers'")
    if policy == "first_layers" and frozen_layers is None:
        raise BadInput(
            f"policy 'first_layers' needs frozen_layers; {architecture} has {depth} layers: expected 0 to {depth}"
        )
    if frozen_layers is not None and not (type(frozen_layers) is int and 0 <= frozen_layers <= depth):
        raise BadInput(f"frozen_layers is {frozen_layers!r}; {architecture} has {depth} layers: expected 0 to {depth}")
    layers = {"first_layers": frozen_layers, "head": depth}.get(policy)
    stays = set() if layers is None else {EMBEDDINGS, *(layer_name(number) for number in range(1, layers + 1))}
    if policy == "head" and not loading_report.fresh_tensors(model) & found.parts.get(BEHIND, {}).keys():
        stays.add(BEHIND)
    trains = {part: part not in stays for part in found.parts}
    if not any(trains.values()):
        raise BadInput(
            f"policy {policy!r} leaves nothing of {architecture} to train: the model has no head of its own (a "
            "language model's head is often its embedding); choose another policy, or a model with a classifier head"
        )
    for part, parameters in found.parts.items():
        for parameter in parameters.values():
            parameter.requires_grad = trains[part]
    for part, modules in found.modules.items():
        for module in modules:
            _stay_in_evaluation(module) if part in stays else _follow_the_model(module, model.training)
    return Plan(
        policy=policy,
        architecture=architecture,
        frozen_layers=-1 if layers is None else layers,
        parts={part: sum(tensor.numel() for tensor in tensors.values()) for part, tensors in found.parts.items()},
        trains=trains,
        in_front=frozenset(name for part in stays - {BEHIND} for name in found.parts.get(part, ())),
        frozen=frozenset(name for part in stays for name in found.parts.get(part, ())),
        trained=frozenset(name for part, tensors in found.parts.items() if part not in stays for name in tensors),
    )


def fingerprints(model: torch.nn.Module) -> dict[str, str]:
    """Return the SHA-256 of the bytes of each parameter of `model`, by name: equal hashes mean that no bit differs."""
    import torch

    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()
        for name, tensor in model.named_parameters()
    }


def layer_name(number: int) -> str:
    """Return the name of the part of layer `number`; the first layer is 1."""
    return f"layer {number}"


def structure(model: PreTrainedModel) -> Structure:
    """Find the parts of `model`, and return them as a `Structure`.

    A few tokens run through the model. A module that ran before the first layer belongs to the embeddings; one that ran
    after the last layer is behind the layers; what is outside the pretrained body is the head. A parameter that two
    parts share (a tied embedding) belongs to the first. Raises BadInput if there is not exactly one stack of layers, or
    if a module of the body did not run.
    """
    body: Any = getattr(model, "base_model", None)
    layers = _layers(model, body)
    inside = {id(module) for layer in layers for module in layer.modules()}
    before, behind = _around(model, body, layers)
    of_head = [module for module in model.children() if module is not body] if body is not model else []
    modules = {EMBEDDINGS: before} | {layer_name(n): [layer] for n, layer in enumerate(layers, start=1)}
    modules |= {BEHIND: behind, HEAD: of_head}
    if stray := [
        name for name, module in body.named_modules()
        if id(module) not in inside and next(module.parameters(recurse=False), None) is not None
        and not any(module is known for known in (*before, *behind))
    ]:  # fmt: skip
        raise BadInput(
            f"{type(model).__name__} cannot be taken apart: {stray[0] or 'its body'} did not run with its layers"
        )
    names: dict[int, str] = {id(parameter): name for name, parameter in model.named_parameters()}
    parts: dict[str, dict[str, Any]] = {}
    for part, those in modules.items():
        owned = {}
        for parameter in (parameter for module in those for parameter in module.parameters()):
            if (name := names.pop(id(parameter), None)) is not None:
                owned[name] = parameter
        if part == HEAD:  # parameters of the model itself belong to the head too
            owned |= {name: parameter for name, parameter in model.named_parameters() if id(parameter) in names}
        if owned:
            parts[part] = owned
    return Structure(layers, parts, modules)


def _layers(model: Any, body: Any) -> torch.nn.ModuleList:
    """Return the one stack of layers in the body: a list of as many modules as the config's num_hidden_layers."""
    import torch

    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    there = [] if body is None else [(n, m) for n, m in body.named_modules() if isinstance(m, torch.nn.ModuleList)]
    stacks = [(name, module) for name, module in there if len(module) == depth]
    outer = [(name, module) for name, module in stacks if not any(name.startswith(f"{other}.") for other, _ in stacks)]
    if len(outer) != 1:
        found = ", ".join(f"{name} ({len(module)})" for name, module in there[:4]) or "no list of modules at all"
        raise BadInput(
            f"{type(model).__name__} is an architecture whose layers are not found: expected one list of "
            f"{depth or 'its'} layers, as in BERT, GPT-2 or Llama, and it has {found}; freeze it by hand, with "
            "requires_grad"
        )
    return outer[0][1]


def _around(model: Any, body: Any, layers: torch.nn.ModuleList) -> tuple[list[torch.nn.Module], list[torch.nn.Module]]:
    """Return the body's modules that run before the layers, and those that run after them, dropout included."""
    order: list[torch.nn.Module] = []
    inside = {id(module) for layer in layers for module in layer.modules()}
    watched = [
        module
        for module in body.modules()
        if id(module) not in inside and not any(m is layers for m in module.modules())
    ]
    hooks = [m.register_forward_pre_hook(lambda module, _: order.append(module)) for m in (*watched, layers[0])]
    try:
        run_few_tokens(body)
    finally:
        for hook in hooks:
            hook.remove()
    if layers[0] not in order:
        raise BadInput(f"{type(model).__name__} is an architecture whose layers did not run; freeze it by hand")
    first = order.index(layers[0])
    return _distinct(order[:first]), _distinct(m for m in order[first + 1 :] if m is not layers[0])


def run_few_tokens(body: Any) -> torch.Tensor:
    """Return the output of `body` for four tokens, without dropout or gradients; the training modes are restored."""
    import torch

    modes = [(module, module.training) for module in body.modules()]
    try:
        with torch.no_grad():
            for module, _ in modes:
                module.training = False
            return body(input_ids=torch.ones((1, 4), dtype=torch.long, device=next(body.parameters()).device))[0]
    finally:
        for module, mode in modes:
            module.training = mode


def _distinct(modules: Iterable[Any]) -> list[Any]:
    return list({id(module): module for module in modules}.values())


def _stay_in_evaluation(module: torch.nn.Module) -> None:
    """Keep dropout off in `module` while it is frozen, although Trainer calls `model.train()` before each step."""
    for inner in module.modules():
        inner.eval()
        inner.train = types.MethodType(_no_change, inner)


def _no_change(module: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    return module


def _follow_the_model(module: torch.nn.Module, training: bool) -> None:
    for inner in module.modules():
        vars(inner).pop("train", None)
    module.train(training)
