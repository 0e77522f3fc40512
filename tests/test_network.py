"""Encoding, decoding and mixing for all components at once."""

import pytest
import torch
from networks import make_network, random

from skmvae._model.network import mix


def test_shapes_and_stacks_of_another_shape():
    network = make_network(k=3, n_features=5, latent_dim=2)
    posterior = network.encode(random(7, 5))
    assert posterior.mean.shape == posterior.std.shape == (3, 7, 2)
    assert posterior.concentration.shape == (7, 3)
    assert network.component_means(posterior.mean).shape == (3, 7, 5)
    each = network.encode(random(7, 5).expand(3, 7, 5).clone())  # one input a component
    for found, expected in zip(each, posterior, strict=True):
        torch.testing.assert_close(found, expected)
    narrow = make_network(k=3, n_features=1, latent_dim=2)
    network.decoder = narrow.decoder  # would broadcast
    with pytest.raises(
        ValueError, match=r"decoder .* gave shape \(3, 7, 1\); expected \(3, 7, 5\)"
    ):
        network.decode(random(3, 7, 2))
    network.encoder = make_network(k=3, n_features=5, latent_dim=1).encoder
    with pytest.raises(
        ValueError, match=r"encoder .* gave shape \(3, 7, 3\); expected \(3, 7, 5\)"
    ):
        network.encode(random(7, 5))


def test_no_concentration_comes_near_zero():
    """KL(Dir(a) || Dir(c)) has a pole there; the least share is 1e-3 / (1 + 1e-3 K)."""
    network = make_network()
    with torch.no_grad():
        network.encoder.layers[-1].bias[..., -1] = torch.tensor([[-1e4], [0.0], [1e4]])
    concentration = network.encode(random(7, 5)).concentration
    assert concentration.min().item() == pytest.approx(1e-3 / 1.003, rel=1e-6)
    torch.testing.assert_close(concentration.sum(1), torch.ones(7, dtype=torch.float64))


@pytest.mark.parametrize("raw", [-200.0, 200.0])
def test_saturated_heads_stay_positive_and_finite(raw):
    network = make_network().float()
    network.encoder.layers[-1].weight.data.zero_()
    network.encoder.layers[-1].bias.data.fill_(raw)
    posterior = network.encode(random(4, 5).float())
    assert (posterior.std > 0).all()
    assert (posterior.concentration > 0).all()
    assert posterior.mean.isfinite().all()
    for value in (posterior.std, posterior.concentration):
        assert value.log().isfinite().all()


@pytest.mark.parametrize("n", [5, 7])
def test_mix_is_the_weighted_sum(n):
    """With as many rows as columns, weights broadcast over the wrong axis go unseen."""
    means, weights = random(3, n, 5), random(n, 3, seed=1).softmax(1)
    expected = torch.stack([sum(weights[b, k] * means[k, b] for k in range(3)) for b in range(n)])
    torch.testing.assert_close(mix(means, weights), expected)
