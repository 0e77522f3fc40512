"""What ``speed.py`` compares: ``run(n)`` takes n training steps and gives the seconds of each."""

import logging
import time

import numpy as np
import torch
from obvious import ObviousMVAE
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skmvae._fit import epoch
from skmvae._machine.group import ALONE
from skmvae._machine.rows import ScaledRows
from skmvae._machine.runtime import keep_freed_memory, make_generator
from skmvae._state import NetworkState, new_network
from skmvae.architectures import MLP

HIDDEN = 500


class Stepwise:
    """Times ``step()``; on a GPU, whose queue runs ahead, the mean of all steps of a run."""

    device = "cpu"

    def run(self, n_steps):
        if self.device != "cpu":
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(n_steps):
                self.step()
            torch.cuda.synchronize()
            return [(time.perf_counter() - start) / n_steps] * n_steps
        times = [time.perf_counter()]
        for _ in range(n_steps):
            self.step()
            times.append(time.perf_counter())
        return np.diff(times).tolist()


class Ours(Stepwise):
    """The steps of ``MVAETransformer.fit``, as its training loop makes them."""

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
        objective="melbo",
        group=ALONE,
    ):
        self.device = device
        device = torch.device(device)
        state = NetworkState(
            architecture=MLP((hidden, hidden)),
            n_features=X.shape[1],
            latent_dim=latent_dim,
            k=k,
            likelihood="bernoulli",
            weight_concentration_prior=1 / k,
            mean=np.zeros(X.shape[1]),
            scale=1.0,
            arrays={},
        )
        settings = epoch.TrainingSettings(
            objective=objective,
            beta=1.0,
            kl_weight=1.0,
            weight_concentration_prior=1 / k,
            precision=precision,
            max_iter=1,
            batch_size=batch_size,
            learning_rate=1e-3,
            learning_rate_schedule="constant",
            n_iter_no_change=1,
            tol=0.0,
            verbose=0,
        )
        keep_freed_memory()
        network = new_network(state, make_generator(0, device), device)
        rows = ScaledRows(X, state.mean, state.scale, device)
        self.network = network
        self._trainer = epoch.Trainer(
            network, rows, settings, n_training=len(X), seed=0, group=group
        )
        self._shares = self._endless_shares(len(X))

    def _endless_shares(self, n_rows):
        shuffler = np.random.default_rng(0)
        while True:
            self._trainer._log.clear()
            self._trainer._own_generator = self._trainer._generator
            order = shuffler.permutation(n_rows)
            for n, share in enumerate(self._trainer._minibatches(order), start=1):
                yield share
                if n % epoch._BATCHES_BETWEEN_CLEARING == 0:
                    epoch._clear_vanished_moments(self._trainer._optimizer)

    def step(self):
        self._trainer._run_step(next(self._shares))


class Obvious(Stepwise):
    """The training loop that goes with ``obvious.py``."""

    def __init__(self, X, *, k, latent_dim, batch_size, device):
        self.device = device
        self.model = ObviousMVAE(X.shape[1], latent_dim, k, HIDDEN).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loader = DataLoader(
            TensorDataset(torch.from_numpy(X)), batch_size=batch_size, shuffle=True
        )
        self.batches = iter(self.loader)
        self.total = 0.0

    def step(self):
        try:
            (x,) = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            (x,) = next(self.batches)
        loss = self.model.loss(x.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.item()


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
        self._loader = self._trainer.train_loader
        self._batches = iter(self._loader)

    def run(self, n_steps):
        """One call of the trainer on as many batches, which it takes for an epoch."""
        self._trainer.train_loader = _Part(self, n_steps)
        start = time.perf_counter()
        self._ends.clear()
        self._trainer.train_step(epoch=1)
        return np.diff([start, *self._ends]).tolist()

    def next_batch(self):
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            return next(self._batches)


class _Part:
    """The next batches of a loader, in the guise of a loader."""

    def __init__(self, contender, n_batches):
        self._contender = contender
        self._n_batches = n_batches
        self.dataset = contender._loader.dataset

    def __len__(self):
        return self._n_batches

    def __iter__(self):
        return (self._contender.next_batch() for _ in range(self._n_batches))


def _pythae_networks(n_features, latent_dim):
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Sequential(
                nn.Linear(n_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
            )
            self.mean = nn.Linear(HIDDEN, latent_dim)
            self.log_var = nn.Linear(HIDDEN, latent_dim)

        def forward(self, x):
            h = self.hidden(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(latent_dim, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, n_features),
                nn.Sigmoid(),
            )

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    return Encoder(), Decoder()
