"""A way around some modules of a model, for as long as a block lasts."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ftlab.freezing import plans

if TYPE_CHECKING:
    import torch


@contextmanager
def replaced(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Inside the block the modules compute what these functions do.

    After it each module has the `forward` that it had: its class's, or one of its own that a library (accelerate, PEFT)
    or an outer block had put there.
    """
    before = [(module, vars(module).get("forward")) for module in forwards]
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, own in before:
            if own is None:
                vars(module).pop("forward", None)
            else:
                module.forward = own


def unless(module: Any, stand_in: Callable[..., Any], asked: Callable[[], bool]) -> Callable[..., Any]:
    """A forward for `module` that does what `stand_in` does while `asked()`, and else what the module does now."""
    own = vars(module).get("forward")

    def forward(this: Any, *arguments: Any, **options: Any) -> Any:
        if asked():
            return stand_in(*arguments, **options)
        return type(this).forward(this, *arguments, **options) if own is None else own(*arguments, **options)

    return types.MethodType(forward, module)  # a method: a deep copy of the module then calls the copy's own forward


def pass_on(hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    """The forward of a layer that is left out."""
    return hidden_states


def entrance(body: Any, layers: Any) -> Any:
    """The module whose output the first layer takes as its hidden states (BERT: its embeddings), or None.

    Where there is one, and nothing but the first layer uses what it gives, features may take its place, and what it is
    made of need not run. Whether something else uses it shows: other hidden states, handed out there or by the first
    layer, must lead to the same end.
    """
    import torch

    outputs: list[tuple[Any, Any]] = []
    taken: list[torch.Tensor] = []
    inside = {module for layer in layers for module in layer.modules()}
    around = [module for module in body.modules() if module not in inside and layers not in module.modules()]
    hooks = [m.register_forward_hook(lambda module, _, output: outputs.append((module, output))) for m in around]
    hooks.append(
        layers[0].register_forward_pre_hook(
            lambda _, arguments, options: taken.append(arguments[0] if arguments else options.get("hidden_states")),
            with_kwargs=True,
        )
    )
    try:
        plans.run_few_tokens(body)
    finally:
        for hook in hooks:
            hook.remove()
    # The last of them: BERT's embeddings and not the dropout in them, which gives the same tensor where it is off.
    found = next((module for module, output in reversed(outputs) if output is taken[0] is not None), None)
    if found is None:
        return None
    other = torch.linspace(-1, 1, taken[0].numel()).to(taken[0]).view_as(taken[0])
    ends = []
    for forwards in ({found: lambda *_, **__: other, layers[0]: pass_on}, {layers[0]: lambda *_, **__: other}):
        with replaced(forwards):
            ends.append(plans.run_few_tokens(body))
    return found if torch.equal(*ends) else None
