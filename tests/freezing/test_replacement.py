"""The module before the first layer is found, and only if nothing else uses its output."""

import copy

import pytest
import torch
from transformers import NanoChatConfig, NanoChatModel, OPTConfig, OPTModel

from ftlab.freezing import plans, replacement
from tests.models.tiny_classifiers import build

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("distilbert", "distilbert.embeddings"), ("bert", "bert.embeddings"), ("roberta", "roberta.embeddings"),
        ("gpt2", "transformer.drop"), ("llama", "model.embed_tokens"), ("phi", "model.embed_dropout"),
    ],
)  # fmt: skip
def test_the_input_module_computes_the_hidden_states_of_the_first_layer(name, expected):
    model = build(name)
    found = replacement.input_module(model.base_model, plans.structure(model).layers)
    assert found is model.get_submodule(expected)


def test_looking_for_it_leaves_the_model_as_it_was_and_draws_no_random_number():
    model, state = build("bert").train(), torch.get_rng_state()
    replacement.input_module(model.base_model, plans.structure(model).layers)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.bert.embeddings.dropout.training
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) for module in model.modules()
    )


def test_where_no_module_gives_the_hidden_states_there_is_none():
    """OPT adds positions to the output of its embedding outside any module."""
    body = OPTModel(OPTConfig(ffn_dim=32, word_embed_proj_dim=16, **SIZES))
    assert replacement.input_module(body, body.decoder.layers) is None


def test_a_module_that_runs_behind_the_layers_too_is_none():
    """NanoChat uses the same normalisation before and after its layers."""
    body = NanoChatModel(NanoChatConfig(num_key_value_heads=2, intermediate_size=32, **SIZES))
    assert replacement.input_module(body, body.layers) is None


class Body(torch.nn.Module):
    """Two layers; with `return_again` the embeddings are also added to the output."""

    def __init__(self, return_again):
        super().__init__()
        self.embeddings = torch.nn.Embedding(5, 8)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8) for _ in range(2)])
        self.return_again = return_again

    def forward(self, input_ids):
        embedded = hidden = self.embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return (hidden + embedded if self.return_again else hidden,)


def test_embeddings_that_are_used_again_are_none():
    body = Body(return_again=False)
    assert replacement.input_module(body, body.layers) is body.embeddings
    body = Body(return_again=True)
    assert replacement.input_module(body, body.layers) is None


def interrupted_inside(layer, given):
    with replacement.replaced({layer: replacement.pass_on}):
        assert layer(given) is given
        raise KeyboardInterrupt


def test_modules_compute_as_before_behind_the_block_even_after_an_interrupt():
    layer, given = torch.nn.Linear(3, 3), torch.ones(1, 3)
    before = layer(given)
    with pytest.raises(KeyboardInterrupt):
        interrupted_inside(layer, given)
    assert torch.equal(layer(given), before)


def test_a_forward_that_a_library_had_put_there_is_there_again():
    """accelerate, for one, sets a module's own `forward` for its hooks."""
    first, second, given = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.ones(1, 3)

    def doubled(hidden):
        return 2 * torch.nn.Linear.forward(first, hidden)

    first.forward = doubled
    before = [layer(given) for layer in (first, second)]
    with pytest.raises(KeyboardInterrupt):
        interrupted_inside(first, given)
    with replacement.replaced({first: replacement.pass_on, second: replacement.pass_on}):
        with replacement.replaced({second: lambda hidden: -hidden, first: lambda hidden: -hidden}):
            assert torch.equal(first(given), -given)
            assert torch.equal(second(given), -given)
        assert first(given) is given
        assert second(given) is given
    assert first.forward is doubled
    assert "forward" not in vars(second)
    assert all(torch.equal(layer(given), out) for layer, out in zip((first, second), before, strict=True))


def test_a_stand_in_stands_in_while_it_is_asked_and_a_copy_then_computes_with_its_own_weights():
    layer, given, asked = torch.nn.Linear(3, 3), torch.ones(1, 3), [True]
    with replacement.replaced({layer: replacement.forward_while(lambda: asked[0], layer, replacement.pass_on)}):
        twin = copy.deepcopy(layer)
        assert layer(given) is twin(given) is given
        asked[0] = False
        with torch.no_grad():
            twin.weight.zero_()
        assert torch.equal(layer(given), torch.nn.functional.linear(given, layer.weight, layer.bias))
        assert torch.equal(twin(given)[0], layer.bias)
