"""Components that specialise: ideas for an objective, each trained once and briefly on MNIST.

    python benchmarks/paper/tried.py

Hints and no results: one seed, and 4 epochs where nothing else is said. Trains on 50,000 of the
training images and judges on the other 10,000; no test image is used. The network is the paper's.
Matrix products are in bfloat16, and one thread is used, whatever the machine has. LabelSpreading
came later than the other measures: the committed results of some ideas lack it.
"""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from common import Results
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import LinearSVC
from torch.nn import functional as F

from skmvae._fit.epoch import _clear_vanished_moments
from skmvae._machine.runtime import keep_freed_memory, make_generator, matrix_products
from skmvae._model.dhsic import dhsic
from skmvae._model.distributions import dirichlet_kl, draw_normal, normal_kl
from skmvae._model.network import Posterior, mix
from skmvae._model.objective import log_likelihood_bound
from skmvae._state import NetworkState, new_network
from skmvae.architectures import MLP
from skmvae.datasets import fetch_mnist

CPU = torch.device("cpu")
LABELLED_ROWS = 20_000  # of "SVM" and "KNN"
WORST_STEP = 1.45  # its length: a fifth of the root mean square distance from the mean image


@dataclass(frozen=True)
class Idea:
    """How to train; the defaults are "melbo" with KL weight 1. Weights of terms are in nats."""

    k: int = 4
    latent_dim: int = 20
    epochs: int = 4
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: str = "constant"  # or "cosine", "one-cycle"
    dropout: float = 0.0  # of the encoders' pixels
    dropout_falls: bool = False  # to none, at three quarters of the steps
    gate: str = "softplus"  # gives the weights w as the package does; or "softmax"
    balance: float = 0.0  # of KL(mean of w over the batch || (1/K, ..., 1/K))
    entropy: float = 0.0  # of the entropy of each row's w
    # Of KL_k, in the shares r_k, 1 - r_k and 1/K; r is w, or the responsibilities by transport.
    kl_own: float = 0.0
    kl_foreign: float = 0.0
    kl_even: float = 1.0
    temperature: float | None = None  # of optimal transport; None for no transport
    last_temperature: float | None = None  # where it falls, geometrically
    shares: float | None = None  # of KL(shares || (1/K, ..., 1/K)); None for exactly even shares
    spread: float = 0.0  # part of each row that all components get alike
    gate_evidence: float = 0.0  # of log w in the evidence
    gate_learns: float = 0.0  # of the cross-entropy of w with the responsibilities
    smooth: float = 0.0  # of KL(w at x || w at x + the worst step): virtual adversarial training
    start: str = "random"  # or "k-means": each decoder starts at a centre


ENTROPY = {"balance": 20.0, "entropy": 5.0}
ONE_CYCLE = {"schedule": "one-cycle", "learning_rate": 2e-3}
TWO_WEIGHTS = {"balance": 20.0, "gate": "softmax", "dropout": 0.2, "kl_even": 0.0, **ONE_CYCLE}
TRANSPORT = {"gate_learns": 1.0}
OF_TEN = {"k": 10, "balance": 30.0, "entropy": 5.0}
TRANSPORT_OF_TEN = {"k": 10, "gate_learns": 10.0, "kl_own": 1.0}
OWN_KL = {**TRANSPORT_OF_TEN, "kl_even": 0.0}

# "balance" and "entropy" are followed by nats, "transport" by its temperature in nats. Own, foreign
# and even KL are the three of `Idea`, with weight 1 where no number follows; the evidence that
# transport goes by has the own KL alone.
IDEAS = (
    ("melbo", Idea()),
    ("melbo", Idea(epochs=10)),
    ("balance 20", Idea(balance=20.0)),
    ("balance 20", Idea(balance=20.0, epochs=10)),
    ("balance 100", Idea(balance=100.0)),
    ("balance 20, batch 64", Idea(balance=20.0, batch_size=64)),
    ("balance 20, one-cycle learning rate", Idea(balance=20.0, **ONE_CYCLE)),
    ("balance 20, cosine learning rate", Idea(balance=20.0, schedule="cosine")),
    ("balance 20, dropout 0.2", Idea(balance=20.0, dropout=0.2)),
    ("balance 20, dropout falling from 0.4", Idea(balance=20.0, dropout=0.4, dropout_falls=True)),
    ("balance 20, KL weight 0.5", Idea(balance=20.0, kl_even=0.5, epochs=10)),
    (
        "balance 20, KL weight 0.5, dropout 0.2, cosine learning rate",
        Idea(balance=20.0, kl_even=0.5, dropout=0.2, schedule="cosine"),
    ),
    (
        "balance 20, KL weight 2, cosine learning rate",
        Idea(balance=20.0, kl_even=2.0, schedule="cosine"),
    ),
    ("balance 20, entropy 5", Idea(**ENTROPY)),
    ("balance 20, entropy 5, softmax", Idea(**ENTROPY, gate="softmax")),
    (
        "balance 20, softmax, own and foreign KL 0.25, dropout 0.2, one-cycle",
        Idea(**TWO_WEIGHTS, kl_own=0.25, kl_foreign=0.25),
    ),
    (
        "balance 20, softmax, own KL 0.25, foreign KL 1, dropout 0.2, one-cycle",
        Idea(**TWO_WEIGHTS, kl_own=0.25, kl_foreign=1.0),
    ),
    (
        "balance 20, softmax, own and foreign KL 0.5, dropout 0.2, one-cycle",
        Idea(**TWO_WEIGHTS, kl_own=0.5, kl_foreign=0.5),
    ),
    ("transport 10, even KL", Idea(**TRANSPORT, temperature=10.0)),
    ("transport 17, even KL", Idea(**TRANSPORT, temperature=17.0)),
    ("transport 30, even KL", Idea(**TRANSPORT, temperature=30.0)),
    (
        "transport 10, even KL, 30 % shared evenly",
        Idea(**TRANSPORT, temperature=10.0, spread=0.3),
    ),
    ("balance 30, entropy 5", Idea(**OF_TEN)),
    ("balance 30, entropy 5, softmax", Idea(**OF_TEN, gate="softmax")),
    (
        "balance 30, entropy 5, softmax, dropout 0.3, one-cycle",
        Idea(**OF_TEN, gate="softmax", dropout=0.3, **ONE_CYCLE),
    ),
    (
        "balance 100, softmax, one-cycle",
        Idea(k=10, balance=100.0, gate="softmax", **ONE_CYCLE),
    ),
    (
        "elbo, balance 30, entropy 5, d = 10",
        Idea(**OF_TEN, latent_dim=10, kl_own=1.0, kl_even=0.0),
    ),
    ("transport 2, own and even KL", Idea(**TRANSPORT_OF_TEN, temperature=2.0)),
    ("transport 5, own and even KL", Idea(**TRANSPORT_OF_TEN, temperature=5.0)),
    ("transport 10, own and even KL", Idea(**TRANSPORT_OF_TEN, temperature=10.0)),
    (
        "transport falling from 30 to 3, own and even KL",
        Idea(**TRANSPORT_OF_TEN, temperature=30.0, last_temperature=3.0),
    ),
    (
        "transport 5, 20 nats on the shares, own and even KL",
        Idea(**TRANSPORT_OF_TEN, temperature=5.0, shares=20.0),
    ),
    (
        "transport 5, 5 nats on the shares, own and even KL",
        Idea(**TRANSPORT_OF_TEN, temperature=5.0, shares=5.0),
    ),
    (
        "transport 5, 5 log w in the evidence, own and even KL",
        Idea(**TRANSPORT_OF_TEN, temperature=5.0, gate_evidence=5.0),
    ),
    (
        "transport 5, own and even KL 2",
        Idea(k=10, gate_learns=10.0, kl_own=2.0, kl_even=2.0, temperature=5.0),
    ),
    (
        "transport 5, own and even KL, batch 512, learning rate 0.002",
        Idea(**TRANSPORT_OF_TEN, temperature=5.0, batch_size=512, learning_rate=2e-3, epochs=8),
    ),
    (
        "transport 5, own and even KL, one-cycle learning rate",
        Idea(**TRANSPORT_OF_TEN, temperature=5.0, schedule="one-cycle", learning_rate=3e-3),
    ),
    (
        "transport 5, own and even KL, dropout 0.2",
        Idea(**TRANSPORT_OF_TEN, temperature=5.0, dropout=0.2),
    ),
    (
        "transport 10, own and even KL, dropout falling from 0.5",
        Idea(**TRANSPORT_OF_TEN, temperature=10.0, dropout=0.5, dropout_falls=True),
    ),
    (
        "transport 5, own KL, d = 10, dropout 0.2",
        Idea(**OWN_KL, temperature=5.0, latent_dim=10, dropout=0.2),
    ),
    ("transport 10, own KL, d = 10", Idea(**OWN_KL, temperature=10.0, latent_dim=10)),
    ("transport 10, own KL", Idea(**OWN_KL, temperature=10.0, epochs=10)),
    (
        "transport 10, own KL, w learns at 1",
        Idea(k=10, gate_learns=1.0, kl_own=1.0, kl_even=0.0, temperature=10.0),
    ),
    (
        "transport 5, own KL, w learns at 1",
        Idea(k=10, gate_learns=1.0, kl_own=1.0, kl_even=0.0, temperature=5.0),
    ),
    (
        "transport 10, own KL, w learns at 1",
        Idea(gate_learns=1.0, kl_own=1.0, kl_even=0.0, temperature=10.0),
    ),
    (
        "transport 20, own KL, w learns at 1",
        Idea(gate_learns=1.0, kl_own=1.0, kl_even=0.0, temperature=20.0),
    ),
    (
        "transport 10, own and even KL, start from k-means",
        Idea(**TRANSPORT_OF_TEN, temperature=10.0, start="k-means"),
    ),
    (
        "transport 10, own KL, 10 log w in the evidence, smooth w",
        Idea(**OWN_KL, temperature=10.0, gate_evidence=10.0, smooth=10.0),
    ),
)


class Data(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    X_held_out: np.ndarray
    y_held_out: np.ndarray


def main():
    torch.set_num_threads(1)
    keep_freed_memory()
    data = load()
    results = Results("tried")
    for _, idea in IDEAS:
        results.get(asdict(idea), lambda i=idea: figures(i, train(i, data.X), data))


def load():
    mnist = fetch_mnist()
    order = np.random.default_rng(12345).permutation(60_000)
    rows, held_out = order[:50_000], order[50_000:]
    return Data(
        mnist.X_train[rows], mnist.y_train[rows], mnist.X_train[held_out], mnist.y_train[held_out]
    )


def train(idea, X):
    """The network, after all epochs."""
    network = untrained(idea, X.shape[1])
    if idea.start == "k-means":
        start_at(network, KMeans(idea.k, random_state=idea.seed).fit(X).cluster_centers_)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    generator = make_generator(idea.seed + 1000, CPU)
    rng = np.random.default_rng(idea.seed)
    rows = torch.from_numpy(X)
    n_steps = idea.epochs * math.ceil(len(rows) / idea.batch_size)
    batches = (
        batch
        for _ in range(idea.epochs)
        for batch in torch.from_numpy(rng.permutation(len(rows))).split(idea.batch_size)
    )
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(idea, step, n_steps)
        optimizer.zero_grad()
        loss(network, idea, rows[batch], step, n_steps, generator).backward()
        optimizer.step()
        if (step + 1) % 256 == 0:
            _clear_vanished_moments(optimizer)
    return network


def untrained(idea, n_features):
    state = NetworkState(
        architecture=MLP((500, 500)),
        n_features=n_features,
        latent_dim=idea.latent_dim,
        k=idea.k,
        likelihood="bernoulli",
        weight_concentration_prior=1 / idea.k,
        mean=np.zeros(n_features),
        scale=1.0,
        arrays={},
    )
    return new_network(state, make_generator(idea.seed, CPU), CPU)


@torch.no_grad()
def start_at(network, centres):
    """Decoders whose output, before training, is about one centre each."""
    logits = torch.logit(torch.from_numpy(centres), eps=1e-3)
    network.decoder.layers[-1].bias.copy_(logits.unsqueeze(1))


def learning_rate(idea, step, n_steps):
    if idea.schedule == "constant":
        return idea.learning_rate
    if idea.schedule == "cosine":
        return idea.learning_rate * (0.5 * (1 + math.cos(math.pi * step / n_steps)))
    warm_up, rest = 0.1 * n_steps, 0.9 * n_steps
    fall = 0.5 * (1 + math.cos(math.pi * max(0, step - warm_up) / rest))
    return idea.learning_rate * (min(1.0, (step + 1) / warm_up) * fall)


def loss(network, idea, x, step, n_steps, generator):
    with matrix_products("bfloat16", CPU):
        posterior = encode(network, idea, dropped(idea, x, step, n_steps, generator))
        z = draw_normal(posterior.mean, posterior.std, generator)
        output = network.decode(z)
    kl = normal_kl(posterior.mean, posterior.std)  # (K, B)
    log_prob = network.likelihood.log_prob(x, output)  # (K, B)
    r = w = posterior.concentration.T
    if idea.temperature is not None:
        evidence = log_prob - idea.kl_own * kl + idea.gate_evidence * w.log()
        r = responsibilities(idea, evidence.detach(), step / n_steps)
    total = -(r * log_prob).sum(0).mean()
    total = total + ((idea.kl_own * r + idea.kl_foreign * (1 - r)) * kl).sum(0).mean()
    if idea.kl_even:  # a term of zeros changes the layout of gradients, and thus what rounds off
        total = total + idea.kl_even * kl.mean(0).mean()
    if idea.temperature is None:
        total = total + of_weights(idea, posterior.concentration)
    else:
        total = total - idea.gate_learns * (r * w.log()).sum(0).mean()
    if idea.smooth:
        total = total + idea.smooth * roughness(network, idea, x, w.T.detach(), generator).mean()
    return total + dhsic(z)


def roughness(network, idea, x, weights, generator):
    """KL(weights || w(x + d)), (B,), d being the step of one length that changes w most."""

    def change(step):
        w = encode(network, idea, x + step).concentration
        return (weights * (weights.log() - w.log())).sum(1)

    step = 0.1 * F.normalize(torch.randn(x.shape, generator=generator), dim=1)
    (gradient,) = torch.autograd.grad(change(step.requires_grad_()).sum(), step)
    return change(WORST_STEP * F.normalize(gradient, dim=1))


def dropped(idea, x, step, n_steps, generator):
    """The pixels that encoders see."""
    left = max(0.0, 1 - step / (0.75 * n_steps)) if idea.dropout_falls else 1.0
    dropout = idea.dropout * left
    if dropout == 0.0:
        return x
    return x * (torch.rand(x.shape, generator=generator) >= dropout) / (1 - dropout)


def encode(network, idea, x):
    """The posterior, with the gate of the idea and the floors of the package."""
    if idea.gate == "softplus":
        return network.encode(x)
    raw = network.encoder(x).to(x.dtype)
    mean, raw_std, logits = raw.split((idea.latent_dim, idea.latent_dim, 1), dim=-1)
    weights = F.softmax(logits.squeeze(-1).T, dim=-1)
    std = F.softplus(raw_std.contiguous()) + 1e-6
    return Posterior(mean, std, (1 - 1e-3) * weights + 1e-3 / idea.k)


def responsibilities(idea, evidence, progress):
    """(K, B), level over the batch: Sinkhorn's iterations on exp(evidence / temperature)."""
    last = idea.last_temperature or idea.temperature
    temperature = idea.temperature * (last / idea.temperature) ** progress
    logits = evidence.T / temperature
    offsets = torch.zeros(idea.k)
    for _ in range(5):
        log_shares = torch.log(idea.k * F.softmax(logits + offsets, dim=1).mean(0))
        if idea.shares is None:
            offsets = offsets - log_shares
        else:
            strength = idea.shares / temperature
            offsets = offsets + (-strength * log_shares - offsets) / (1 + strength)
    r = F.softmax(logits + offsets, dim=1).T
    return (1 - idea.spread) * r + idea.spread / idea.k


def of_weights(idea, weights):
    """What the loss says of the weights (B, K) alone."""
    total = dirichlet_kl(weights, 1 / idea.k).mean() if idea.gate == "softplus" else 0.0
    share = weights.mean(0)
    total = total + idea.balance * ((share * share.log()).sum() + math.log(idea.k))
    return total - idea.entropy * (weights * weights.log()).sum(1).mean()


def figures(idea, network, data):
    """Every measure of a network, to three digits."""
    codes, *_ = applied(network, idea, data.X[:LABELLED_ROWS])
    held_out, weights, errors, errors_alone = applied(network, idea, data.X_held_out)
    share = weights.mean(0)
    values = {
        "effective components": np.exp(-(share * np.log(share)).sum()),
        "largest weight": weights.max(1).mean(),
        "MSE": errors.mean(),
        "MSE of the best component": errors_alone.mean(0).min(),
        "bound": bound(network, data.X_held_out[:1000]),
        **agreement(weights.argmax(1), data.y_held_out),
    }
    with warnings.catch_warnings():
        # How often a classifier iterates is a setting, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        values |= many_labels(codes, held_out, data)
        values |= {"scaled SVM, 100": hundred_labels(codes, held_out, data)}
        values |= spreading(held_out, data.y_held_out)
    values = {name: round(float(value), 3) for name, value in values.items()}
    return {**values, "weights": [round(float(weight), 3) for weight in share]}


@torch.inference_mode()
def applied(network, idea, X):
    """Codes, weights, and squared errors of the mixture and of each component, row by row."""
    blocks = []
    for x in torch.from_numpy(X).split(1000):
        posterior = encode(network, idea, x)
        means = network.component_means(posterior.mean)
        mixture = mix(means, posterior.concentration)
        blocks.append(
            (
                posterior.mean.transpose(0, 1).flatten(1),
                posterior.concentration,
                (mixture - x).square().sum(1),
                (means - x).square().sum(-1).T,
            )
        )
    return [torch.cat(parts).numpy() for parts in zip(*blocks, strict=True)]


@torch.inference_mode()
def bound(network, X):
    """Mean of the package's bound of log p(x) with 16 draws."""
    eps = torch.randn((network.k, 16, network.latent_dim), generator=make_generator(0, CPU))
    blocks = torch.from_numpy(X).split(100)
    return torch.cat([log_likelihood_bound(network, x, eps) for x in blocks]).mean()


def agreement(components, y):
    """Of the heaviest component of each row with its digit."""
    counts = contingency_matrix(y, components)
    digits, matched = linear_sum_assignment(counts, maximize=True)
    return {
        "accuracy of components": counts[digits, matched].sum() / len(y),
        "purity of components": counts.max(0).sum() / len(y),
        "NMI of components": normalized_mutual_info_score(y, components),
    }


def many_labels(codes, held_out, data):
    """In per cent; nearest neighbours of 4,000 held-out rows."""
    y, y_held_out = data.y[:LABELLED_ROWS], data.y_held_out
    svm = LinearSVC(random_state=0, max_iter=300).fit(codes, y)
    knn = KNeighborsClassifier(5).fit(codes, y)
    return {
        "SVM": 100 * svm.score(held_out, y_held_out),
        "KNN": 100 * knn.score(held_out[:4000], y_held_out[:4000]),
    }


def hundred_labels(codes, held_out, data):
    """The scaled SVM of few labels: mean of five draws."""
    scaler = StandardScaler().fit(codes)
    scaled, scaled_held_out = scaler.transform(codes), scaler.transform(held_out)
    scores = []
    for draw in range(5):
        rows = labelled_rows(data.y[:LABELLED_ROWS], 100, draw)
        svm = LinearSVC(C=0.01, random_state=0).fit(scaled[rows], data.y[rows])
        scores.append(100 * svm.score(scaled_held_out, data.y_held_out))
    return np.mean(scores)


def spreading(codes, y):
    """From some of the held-out rows to the others: means of two draws."""
    values = {}
    for n_labels in (100, 1_000):
        scores = []
        for draw in range(2):
            rows = labelled_rows(y, n_labels, draw)
            labels = np.full(len(y), -1)
            labels[rows] = y[rows]
            model = LabelSpreading(kernel="knn", n_neighbors=8, max_iter=50).fit(codes, labels)
            scores.append(100 * (model.transduction_ == y)[labels == -1].mean())
        values[f"LabelSpreading, {n_labels}"] = np.mean(scores)
    return values


def labelled_rows(y, n_labels, draw):
    """As many of each digit."""
    rng = np.random.default_rng(draw)
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(y == digit), n_labels // 10, replace=False)
            for digit in range(10)
        ]
    )


if __name__ == "__main__":
    main()
