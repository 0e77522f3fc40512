"""Encoding, decoding and mixing for all components at once."""

import pytest
import torch
from networks import generator, make_network, permute_components, random

from skmvae._model.network import mix


def test_shapes():
    network = make_network(k=3, n_features=5, latent_dim=2)
    posterior = network.encode(random(7, 5))
    assert posterior.mean.shape == posterior.std.shape == (3, 7, 2)
    assert posterior.concentration.shape == (7, 3)
    assert network.component_means(posterior.mean).shape == (3, 7, 5)
    assert mix(network.component_means(posterior.mean), posterior.concentration).shape == (7, 5)


def test_stacks_of_another_shape_are_refused():
    network = make_network(k=3, n_features=5, latent_dim=2)
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


def test_concentrations_sum_to_one():
    concentration = make_network().encode(random(7, 5)).concentration
    torch.testing.assert_close(concentration.sum(1), torch.ones(7, dtype=torch.float64))
    assert (concentration > 0).all()


def test_one_component_has_weight_exactly_one():
    concentration = make_network(k=1).float().encode(100 * random(50, 5).float()).concentration
    assert torch.equal(concentration, torch.ones(50, 1))


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


def test_mix_is_the_weighted_sum():
    means, weights = random(3, 7, 5), random(7, 3, seed=1).softmax(1)
    expected = torch.stack([sum(weights[b, k] * means[k, b] for k in range(3)) for b in range(7)])
    torch.testing.assert_close(mix(means, weights), expected)


def test_unit_weight_gives_that_component_alone():
    means = random(3, 7, 5)
    for i in range(3):
        weights = torch.zeros(7, 3, dtype=torch.float64)
        weights[:, i] = 1.0
        assert torch.equal(mix(means, weights), means[i])


def test_a_row_acts_on_itself_alone():
    # At a batch as large as the row is wide, weights broadcast over the wrong axis go unseen.
    network = make_network(n_features=5)
    x = random(5, 5)
    changed = x.clone()
    changed[2] += 1.0

    def reconstruct(rows):
        posterior = network.encode(rows)
        return mix(network.component_means(posterior.mean), posterior.concentration)

    difference = (reconstruct(changed) - reconstruct(x)).abs().amax(1)
    assert (difference[[0, 1, 3, 4]] == 0).all()
    assert difference[2] > 1e-3


def test_mixing_weights_of_a_row_weigh_that_row():
    means, weights = random(3, 5, 5), random(5, 3, seed=1).softmax(1)
    changed = weights.clone()
    changed[2] = changed[2].flip(0)
    difference = (mix(means, changed) - mix(means, weights)).abs().amax(1)
    assert (difference[[0, 1, 3, 4]] == 0).all()
    assert difference[2] > 1e-3


def test_encoding_one_input_a_component_equals_encoding_it_shared():
    network = make_network()
    x = random(7, 5)
    for shared, each in zip(
        network.encode(x), network.encode(x.expand(3, 7, 5).clone()), strict=True
    ):
        torch.testing.assert_close(shared, each)


def test_permuting_components_permutes_the_posterior_and_leaves_the_mixture():
    network, x, order = make_network(), random(7, 5), [2, 0, 1]
    before = network.encode(x)
    mixture = mix(network.component_means(before.mean), before.concentration)
    permute_components(network, order)
    after = network.encode(x)
    torch.testing.assert_close(after.mean, before.mean[order])
    torch.testing.assert_close(after.concentration, before.concentration[:, order])
    torch.testing.assert_close(
        mix(network.component_means(after.mean), after.concentration), mixture
    )


def test_bernoulli_means_are_probabilities():
    means = make_network(likelihood="bernoulli").component_means(100 * random(3, 7, 2))
    assert ((means >= 0) & (means <= 1)).all()


def test_without_dropout_encoding_does_not_use_the_generator():
    network, x, g = make_network(), random(7, 5), generator()
    assert torch.equal(network.encode(x, g).mean, network.encode(x).mean)
    assert torch.equal(g.get_state(), generator().get_state())
