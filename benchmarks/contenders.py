"""The versions that ``speed.py`` compares: ``run(n)`` takes n training steps and times each."""

import itertools
import logging
import time

import numpy as np
import obvious
import torch
from machine import seconds_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skmvae._distributed.group import ALONE
from skmvae._fit import step as fit_step
from skmvae._fit.schedules import SCHEDULES
from skmvae._model.objective import Objective
from skmvae._process import keep_freed_memory
from skmvae._rows.scaled import ScaledRows
from skmvae._runtime import make_generator, resolve_precision
from skmvae._state import NetworkState, new_network
from skmvae.architectures import MLP

HIDDEN = 500


def default_precision(device):
    """What ``precision="auto"`` means on the device."""
    return resolve_precision("auto", torch.device(device))


class Stepwise:
    """``run(n)`` for a class with a method ``step()``."""

    device = "cpu"

    def run(self, n_steps):
        return seconds_of(self.step, n_steps, self.device)


class Ours(Stepwise):
    """The training steps of ``MVAETransformer.fit``."""

    def __init__(
        self,
        X,
        *,
        k,
        latent_dim,
        batch_size,
        precision,
        device,
        hidden=HIDDEN,
        likelihood="bernoulli",
        objective="melbo",
        beta=1.0,
        group=ALONE,
    ):
        self.device = device
        device = torch.device(device)
        state = NetworkState(
            architecture=MLP((hidden, hidden)),
            n_features=X.shape[1],
            latent_dim=latent_dim,
            k=k,
            likelihood=likelihood,
            weight_concentration_prior=1 / k,
            mean=np.zeros(X.shape[1]),
            fill=np.zeros(X.shape[1]),
            scale=1.0,
            shares=None,
            arrays={},
        )
        settings = fit_step.TrainingSettings(
            objective=Objective(objective, beta=beta, kl_weight=1.0, prior=1 / k),
            precision=precision,
            max_iter=1,
            batch_size=batch_size,
            learning_rate=1e-3,
            schedule=SCHEDULES["constant"],
        )
        keep_freed_memory()
        network = new_network(state, make_generator(0, device), device)
        rows = ScaledRows(X, state.mean, state.scale, device)
        self.trainer = fit_step.Trainer(
            network, rows, settings, n_training=len(X), seed=0, group=group
        )
        self.minibatches = self._endless_minibatches(len(X))

    def _endless_minibatches(self, n_rows):
        shuffler = np.random.default_rng(0)
        while True:
            self.trainer._log.clear()
            self.trainer._own_generator = self.trainer._generator
            order = shuffler.permutation(n_rows)
            for n, minibatch in enumerate(self.trainer._minibatches(order), start=1):
                yield minibatch
                if n % fit_step._STEPS_BETWEEN_CLEARING == 0:
                    fit_step._clear_vanished_moments(self.trainer._optimizer)

    def step(self):
        self.trainer._run_step(*next(self.minibatches))


class Obvious(Stepwise):
    """The training loop that goes with ``obvious.py``."""

    def __init__(self, X, *, k, latent_dim, batch_size, device):
        self.device = device
        self.model = obvious.ObviousMVAE(X.shape[1], latent_dim, k, HIDDEN).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        loader = DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=batch_size, shuffle=True)
        self.batches = endless(loader)
        self.total = 0.0

    def step(self):
        (x,) = next(self.batches)
        loss = self.model.loss(x.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.item()


def endless(loader):
    """The minibatches of one epoch after another."""
    while True:
        yield from loader


class Pythae:
    """One VAE of pythae, trained by pythae's own trainer (without its progress bar)."""

    def __init__(self, X, *, latent_dim, batch_size, device):
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
        from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback

        ends = self._ends = []

        class Clock(TrainingCallback):
            def on_train_step_end(self, training_config, **kwargs):
                ends.append(time.perf_counter())

        logging.getLogger("pythae").setLevel(logging.ERROR)
        n_features = X.shape[1]
        config = VAEConfig(
            input_dim=(n_features,), latent_dim=latent_dim, reconstruction_loss="bce"
        )
        encoder, decoder = _pythae_networks(n_features, latent_dim)
        self._trainer = BaseTrainer(
            model=VAE(config, encoder, decoder),
            train_dataset=BaseDataset(torch.from_numpy(X), torch.zeros(len(X))),
            training_config=BaseTrainerConfig(
                per_device_train_batch_size=batch_size,
                learning_rate=1e-3,
                no_cuda=device == "cpu",
            ),
        )
        self._trainer.set_optimizer()
        self._trainer.callback_handler = CallbackHandler([Clock()], self._trainer.model)
        self._dataset = self._trainer.train_loader.dataset
        self._batches = endless(self._trainer.train_loader)

    def run(self, n_steps):
        """One call of the trainer, whose epoch is the next ``n_steps`` minibatches."""
        self._trainer.train_loader = _Part(self._dataset, self._batches, n_steps)
        start = time.perf_counter()
        self._ends.clear()
        self._trainer.train_step(epoch=1)
        return np.diff([start, *self._ends]).tolist()


class _Part:
    """The next minibatches of a loader, as a loader that pythae accepts."""

    def __init__(self, dataset, batches, n_batches):
        self.dataset = dataset
        self._batches = batches
        self._n_batches = n_batches

    def __len__(self):
        return self._n_batches

    def __iter__(self):
        return itertools.islice(self._batches, self._n_batches)


def _pythae_networks(n_features, latent_dim):
    """The layers of the obvious version, as an encoder and a decoder of pythae."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    layers = obvious.VAE(n_features, latent_dim, HIDDEN)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden, self.mean, self.log_var = layers.encoder, layers.mean, layers.std

        def forward(self, x):
            h = self.hidden(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*layers.decoder, nn.Sigmoid())

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    return Encoder(), Decoder()
