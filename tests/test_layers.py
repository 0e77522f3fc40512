"""K stacked layers equal K torch layers in a loop."""

import pytest
import torch
from torch import nn

from skmvae._model.layers import ComponentLinear, ComponentMLP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def with_parameters(module, seed=0):
    for child in module.modules():
        if isinstance(child, ComponentLinear):
            child.reset_parameters(generator(seed))
            nn.init.normal_(child.bias, generator=generator(seed + 1))
    return module


def loop(layer, h):
    """The same maps, one component after the other."""
    rows = [h if h.dim() == 2 else h[i] for i in range(len(layer.weight))]
    return torch.stack(
        [nn.functional.linear(r, layer.weight[i].T, layer.bias[i, 0]) for i, r in enumerate(rows)]
    )


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_component_linear_equals_a_loop_with_gradients(shape):
    layer = with_parameters(ComponentLinear(3, 7, 4)).double()
    h = torch.randn(shape, generator=generator(2), dtype=torch.float64, requires_grad=True)
    stacked, looped = layer(h), loop(layer, h)
    torch.testing.assert_close(stacked, looped)
    inputs = (h, layer.weight, layer.bias)
    for a, b in zip(
        torch.autograd.grad(stacked.sin().sum(), inputs),
        torch.autograd.grad(looped.sin().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_components_do_not_see_each_other():
    layer = with_parameters(ComponentLinear(3, 7, 4))
    h = torch.randn(3, 5, 7, generator=generator(2))
    before = layer(h)
    h[1] += 1.0
    after = layer(h)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


@pytest.mark.parametrize("gain", [1.0, 2.0**0.5])
def test_initialisation_has_the_gain_and_comes_from_the_generator(gain):
    layer = ComponentLinear(4, 400, 300, gain=gain)
    layer.reset_parameters(generator(0))
    assert layer.weight.std().item() == pytest.approx(gain / 400**0.5, rel=0.01)
    assert layer.bias.abs().max() == 0
    again = ComponentLinear(4, 400, 300, gain=gain)
    again.reset_parameters(generator(0))
    assert torch.equal(layer.weight, again.weight)


def test_mlp_equals_its_layers_in_turn():
    mlp = with_parameters(ComponentMLP(3, (7, 6, 5), torch.tanh, dropout=0.0))
    x = torch.randn(4, 7, generator=generator(2))
    expected = loop(mlp.layers[1], torch.tanh(loop(mlp.layers[0], x)))
    torch.testing.assert_close(mlp(x), expected)


def test_dropout_acts_only_with_a_generator_and_keeps_the_mean():
    mlp = with_parameters(ComponentMLP(2, (7, 2000, 1), torch.relu, dropout=0.25))
    mlp.layers[1].weight.data.fill_(1 / 2000)
    x = torch.randn(4, 7, generator=generator(2))
    assert torch.equal(mlp(x), mlp(x, None))
    dropped = mlp(x, generator(3))
    assert not torch.equal(dropped, mlp(x))
    assert torch.equal(dropped, mlp(x, generator(3)))
    torch.testing.assert_close(dropped, mlp(x), rtol=0.1, atol=0.02)


def test_without_dropout_the_generator_is_not_used():
    mlp = with_parameters(ComponentMLP(2, (7, 6, 1), torch.relu, dropout=0.0))
    g = generator(3)
    mlp(torch.ones(4, 7), g)
    assert torch.equal(g.get_state(), generator(3).get_state())
