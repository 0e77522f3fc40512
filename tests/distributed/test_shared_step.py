"""A step of several ranks is the step of one process on the union of their rows."""

from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from networks import objective, settings, small_network
from processes import minibatches, values

from skmvae._distributed.group import Group, ranks
from skmvae._fit.step import Trainer
from skmvae._model import network as network_module
from skmvae._model import objective as objective_module
from skmvae._model.distributions import draw_log_dirichlet, draw_normal
from skmvae._model.minibatch import Minibatch
from skmvae._model.network import MixtureVAE
from skmvae._model.objective import OBJECTIVES
from skmvae._rows.parts import Parts
from skmvae._rows.scaled import ScaledRows
from skmvae.architectures import Conv

N_ROWS, BATCH_SIZE = 70, 16
SHARDS = {1: [70], 2: [31, 39], 3: [3, 26, 41]}  # of 3 rows in 5 minibatches: some have none


def make_network(kind):
    if not kind.startswith("conv"):
        likelihood = "bernoulli" if kind == "bernoulli" else "gaussian"
        return small_network(k=3, n_features=16, likelihood=likelihood, hidden=(12,))
    architecture = Conv((1, 4, 4), channels=(4, 6), strides=(2, 1))
    network = MixtureVAE(architecture, n_features=16, latent_dim=2, k=3, likelihood="gaussian")
    draws = torch.Generator().manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters(draws)
    return network


def rows(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, 16)).astype(np.float32)
    if kind.startswith("holes"):
        X[rng.random(X.shape) < 0.3] = np.nan
    return 1 / (1 + np.exp(-X)) if kind == "bernoulli" else X


def parts_of(X):
    """Parts by the first column."""
    return np.digitize(X[:, 0], [-0.5, 0.5])


class Pairs:
    """Partners within each shard: 0 and 1, 2 and 3, and so on; the last may have none."""

    def __init__(self, sizes):
        self._partners = np.concatenate(
            [
                start + np.where((np.arange(n) ^ 1) < n, np.arange(n) ^ 1, np.arange(n))
                for start, n in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)
            ]
        )

    def draw(self, rows, rng):
        return self._partners[rows]


def trained(kind, name, X, group, sizes, trainer_class=Trainer, n_epochs=2):
    """Terms of each epoch and of an evaluation, gradients of the last step, and the state."""
    network = make_network(kind)
    fill = np.linspace(-1.0, 1.0, 16) if kind.startswith("holes") else None
    scaled = ScaledRows(X, 0.0, 1.0, torch.device("cpu"), fill=fill)
    weight = 0.3 if kind.endswith("neighbours") else 0.0
    chosen = settings(
        objective=objective(name, beta=5.0, neighbor_weight=weight),
        batch_size=BATCH_SIZE,
        max_iter=n_epochs,
    )
    trainer = trainer_class(
        network,
        scaled,
        chosen,
        n_training=len(X),
        seed=3,
        neighbours=Pairs(sizes) if weight else None,
        parts=Parts(parts_of(X), np.array([0.2, 0.5, 0.3])) if kind == "parts" else None,
        group=group,
    )
    few = mock.patch.object(objective_module, "_GRAM_ROWS", 5)
    with few if kind == "few rows in dHSIC" else nullcontext():
        terms = [trainer.run_epoch(np.arange(len(X)), "") for _ in range(n_epochs)]
        terms.append(trainer.evaluate(np.arange(len(X)), ""))
    gradients = {name: p.grad.numpy().copy() for name, p in network.named_parameters()}
    state = {name: t.numpy().copy() for name, t in network.state_dict().items()}
    return np.array(terms), gradients, state


def of_rank(say, rank, kind, name, sizes):
    start = sum(sizes[:rank])
    with ranks(60) as group:
        own = rows(kind)[start : start + sizes[rank]]
        return trained(kind, name, own, group, sizes[rank : rank + 1])


class Union(Group):
    """One process that takes its rows as the ranks take theirs, minibatch by minibatch."""

    def __init__(self, sizes):
        self._sizes = sizes

    def own_shuffler(self, shuffler):
        seed = int(shuffler.integers(2**63))
        orders = [np.random.default_rng([seed, rank]).permutation(n) for rank, n in self.each()]
        self._in_turn = self.of_all(orders)
        return self

    def permutation(self, indices):
        return indices[self._in_turn]

    def own_generator(self, generator):
        """Return one for each rank, that draws for the rows which that has."""
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        seeds = [np.random.SeedSequence([seed, rank]).generate_state(1) for rank, _ in self.each()]
        return [torch.Generator().manual_seed(int(seed[0])) for seed in seeds]

    def each(self):
        return enumerate(self._sizes)

    def of_all(self, orders):
        """Return the rows of all, when each rank takes its own in this order."""
        ends = minibatches(self._sizes, BATCH_SIZE).cumsum(1)
        starts = np.cumsum([0, *self._sizes[:-1]])
        steps = [
            np.split(start + order, end[:-1])
            for start, order, end in zip(starts, orders, ends, strict=True)
        ]
        return np.concatenate([part for step in zip(*steps, strict=True) for part in step])


class UnionTrainer(Trainer):
    def evaluate(self, held_out, where):
        orders = [np.arange(n) for _, n in self._group.each()]
        return super().evaluate(held_out[self._group.of_all(orders)], where)

    def _minibatches(self, indices, partners=None, labels=None):
        steps = minibatches(self._group._sizes, BATCH_SIZE).T
        ends = steps.sum(1).cumsum()[:-1]
        for i, sizes in enumerate(steps):
            self._sizes = sizes.tolist()
            own = np.split(indices, ends)[i]
            inputs = {"x": self._batches._rows[own]}
            if partners is not None:
                other = np.split(partners, ends)[i]
                both = np.concatenate([own, other])
                inputs = {"x": self._batches._rows[both], "ids": torch.from_numpy(both)}
            if labels is not None and self._step_number < self._n_held_steps:
                inputs["held"] = torch.from_numpy(np.split(labels, ends)[i])
            yield inputs, Minibatch.whole(sum(self._sizes))

    def _terms(self, inputs, minibatch, generator, dropout_generator=None):
        def of_each(draw, dim):
            def draw_all(*tensors_and_generators):
                *tensors, generators = tensors_and_generators
                parts = zip(*(t.split(self._sizes, dim) for t in tensors), generators, strict=True)
                return torch.cat([draw(*part) for part in parts], dim)

            return draw_all

        with (
            mock.patch.object(network_module, "draw_normal", of_each(draw_normal, 1)),
            mock.patch.object(
                objective_module, "draw_log_dirichlet", of_each(draw_log_dirichlet, 0)
            ),
        ):
            return super()._terms(inputs, minibatch, generator, dropout_generator)


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        *(("gaussian", name, 3) for name in OBJECTIVES),
        ("gaussian", "melbo", 1),
        ("gaussian", "averaged", 2),
        ("bernoulli", "mixture", 2),
        ("few rows in dHSIC", "melbo", 3),
        ("neighbours", "melbo", 1),
        ("neighbours", "elbo", 3),
        ("holes", "averaged", 3),
        ("holes", "mixture", 2),
        ("holes with neighbours", "melbo", 2),
        ("parts", "mixture", 2),
        ("parts", "clusters", 3),
        ("conv", "melbo", 2),
        ("conv", "melbo", 3),
        ("conv with neighbours", "melbo", 2),
    ],
)
def test_a_step_is_that_of_one_process(kind, name, size, tmp_path):
    sizes = SHARDS[size]
    found = values(of_rank, size, tmp_path, kind, name, sizes)
    terms, gradients, state = trained(kind, name, rows(kind), Union(sizes), sizes, UnionTrainer)
    # A bias before a batch normalisation has no gradient, and Adam makes steps of rounding.
    drifts = kind.startswith("conv")
    largest = max(abs(gradient).max() for gradient in gradients.values())
    for own_terms, own_gradients, own_state in found:
        np.testing.assert_allclose(own_terms[:-1], terms[:-1], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(own_terms[-1], terms[-1], rtol=1e-2 if drifts else 1e-4)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(
                own_gradients[name], gradient, rtol=1e-3, atol=1e-4 * largest, err_msg=name
            )
        for name, array in state.items():
            assert own_state[name].tobytes() == found[0][2][name].tobytes(), name
            atol = 3e-2 if drifts else 3e-4
            np.testing.assert_allclose(own_state[name], array, rtol=1e-2, atol=atol, err_msg=name)
