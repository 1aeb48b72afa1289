"""Replace the forward of some modules of a model inside a `with` block; find the module before the first layer."""

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
    """Inside the block, replace the forward of each module in `forwards` by its function.

    Yields nothing. After the block each module has its original `forward`: its class's, or one of its own that a
    library (accelerate, PEFT) or an outer block had set.
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


def forward_while(condition: Callable[[], bool], module: Any, stand_in: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward for `module` that calls `stand_in` if `condition()`, and otherwise its present forward."""
    own = vars(module).get("forward")

    def forward(this: Any, *arguments: Any, **options: Any) -> Any:
        if condition():
            return stand_in(*arguments, **options)
        return type(this).forward(this, *arguments, **options) if own is None else own(*arguments, **options)

    return types.MethodType(forward, module)  # a method: a deep copy of the module then runs on the copy's weights


def pass_on(hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    """Return `hidden_states`: the forward of a layer that is left out, which ignores `arguments` and `options`."""
    return hidden_states


def input_module(body: Any, layers: Any) -> Any:
    """Find the module of `body` whose output is the input of the first of `layers` (BERT: its embeddings).

    Features can replace it, so that it need not run, if nothing but the first layer uses its output. That is tested:
    the same arbitrary hidden states, returned once by this module and once by the first layer, must give the same
    output of the body.

    Returns:
        The module, or None if there is none or its output is also used elsewhere.
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
    # The last of them: BERT's embeddings and not their dropout, which returns the same tensor while it is off.
    found = next((module for module, output in reversed(outputs) if output is taken[0] is not None), None)
    if found is None:
        return None
    other = torch.linspace(-1, 1, taken[0].numel()).to(taken[0]).view_as(taken[0])
    ends = []
    for forwards in ({found: lambda *_, **__: other, layers[0]: pass_on}, {layers[0]: lambda *_, **__: other}):
        with replaced(forwards):
            ends.append(plans.run_few_tokens(body))
    return found if torch.equal(*ends) else None
