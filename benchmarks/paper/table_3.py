"""Table III and Figure 5: CIFAR-10, the first 10,000 training images, d = 256, K = 4.

    python benchmarks/paper/table_3.py --epochs 40 --seeds 1

RMSE is defined as in the paper: the root of the mean sum of squares of an image.

Inception score (equation 15): this script trains the classifier, on the other 40,000 training
images. It scores reconstructions of the test images, as the authors' code does, samples, and the
test images themselves. Scores under Google's Inception network, such as the paper's, cannot be
compared with these; the ratio to the score of the test images can.

Images from ``SKMVAE_DATA`` are a JPEG copy of CIFAR-10, and the settings of every result say so.
"""

import os

import joblib
import numpy as np
import torch
from common import HERE, MODELS, Results, arguments, fitted, make_model
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F

from skmvae.architectures import Conv
from skmvae.datasets import fetch_cifar10
from skmvae.metrics import effective_components, inception_score, reconstruction_error

N_TRAIN, K, LATENT_DIM = 10_000, 4, 256
N_IMAGES = 12
# The default network of Conv, spelt out because the settings of a result record it.
CHANNELS, STRIDES = [32, 64, 64, 128, 128], [2, 1, 2, 1, 1]
# One VAE of these widths has as many parameters as K of the above (27.5 million).
WIDE_CHANNELS = [108, 215, 215, 430, 430]


def data_name():
    return "CIFAR-10, JPEG copy" if os.environ.get("SKMVAE_DATA") else "CIFAR-10"


def models(epochs, seed):
    """Settings by the name of the row: the mixture, single VAEs, other KL weights."""
    names = {}
    for objective in ("melbo", "elbo"):
        for kl_weight in (1.0, 0.25):
            model = {"k": K, "objective": objective, "kl_weight": kl_weight}
            names[f"M-VAE, {objective}, KL weight {kl_weight:g}"] = model
    for d in (LATENT_DIM, K * LATENT_DIM):
        for kl_weight in (1.0, 1.0 / K):
            model = {"k": 1, "latent_dim": d, "kl_weight": kl_weight}
            names[f"VAE, d = {d}, KL weight {kl_weight:g}"] = model
    names[f"VAE, d = {LATENT_DIM}, as many parameters"] = {"k": 1, "channels": WIDE_CHANNELS}
    common = {
        "data": data_name(),
        "latent_dim": LATENT_DIM,
        "objective": "melbo",
        "kl_weight": 1.0,
        "channels": CHANNELS,
        "strides": STRIDES,
        "epochs": epochs,
        "seed": seed,
    }
    return {name: {**common, **settings} for name, settings in names.items()}


def main():
    parsed = arguments(__doc__, epochs=40)
    cifar = fetch_cifar10()
    judge = Judge.of(cifar)
    results = Results("cifar10")
    results.get({"features": "real test images"}, lambda: judge.score(cifar.X_test))
    results.get({"features": "classifier"}, lambda: {"accuracy": judge.accuracy(cifar)})
    for seed in range(parsed.seeds):
        for settings in models(parsed.epochs, seed).values():
            results.get(settings, lambda s=settings: evaluate(s, cifar, judge))
    draw(next(iter(models(parsed.epochs, 0).values())), cifar)


def untrained(settings, **params):
    channels, strides = tuple(settings["channels"]), tuple(settings["strides"])
    architecture = Conv((3, 32, 32), channels, strides=strides)
    return make_model(settings, architecture=architecture, batch_size=64, verbose=1, **params)


def model_of(settings, cifar):
    return fitted(settings, lambda: untrained(settings), cifar.X_train[:N_TRAIN])


def evaluate(settings, cifar, judge):
    mvae = model_of(settings, cifar)
    reconstruction = np.clip(mvae.reconstruct(cifar.X_test), 0.0, 1.0)
    samples = np.clip(mvae.sample(len(cifar.X_test), random_state=0), 0.0, 1.0)
    of_samples = judge.score(samples.astype(np.float32))
    return {
        "RMSE": reconstruction_error(cifar.X_test, reconstruction, kind="root_sum"),
        **judge.score(reconstruction),
        **{f"{name} of samples": value for name, value in of_samples.items()},
        "effective components": effective_components(mvae.weights_),
        "fit seconds": float(sum(mvae.history_["seconds"])),
    }


class Judge:
    """A small residual network, trained on images that no M-VAE is trained on."""

    EPOCHS = 12

    @classmethod
    def of(cls, cifar):
        path = MODELS / "judge.joblib"
        judge = cls()
        if path.exists():
            judge._network.load_state_dict(
                {name: torch.from_numpy(a) for name, a in joblib.load(path).items()}
            )
        else:
            judge.fit(cifar.X_train[N_TRAIN:], cifar.y_train[N_TRAIN:])
            path.parent.mkdir(exist_ok=True)
            state = judge._network.state_dict()
            joblib.dump({name: tensor.numpy() for name, tensor in state.items()}, path)
        return judge

    def __init__(self):
        torch.manual_seed(0)
        self._network = nn.Sequential(
            _convolution(3, 48, 1),
            _convolution(48, 96, 2),
            _Residual(96),
            _convolution(96, 192, 2),
            _Residual(192),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(192, 10),
        )

    def fit(self, X, y, batch_size=128):
        rng = np.random.default_rng(0)
        n_steps = self.EPOCHS * (len(X) // batch_size)
        optimizer = torch.optim.AdamW(self._network.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=n_steps)
        self._network.train()
        for epoch in range(self.EPOCHS):
            order = rng.permutation(len(X))[: len(X) // batch_size * batch_size]
            right = 0
            for rows in order.reshape(-1, batch_size):
                x, target = _augmented(X[rows], rng), torch.from_numpy(y[rows])
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = self._network(x)
                loss = F.cross_entropy(logits.float(), target, label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                right += int((logits.argmax(1) == target).sum())
            print(f"classifier: epoch {epoch + 1}, {right / len(order):.3f}", flush=True)

    @torch.inference_mode()
    def probabilities(self, X):
        self._network.eval()
        images = torch.from_numpy(np.ascontiguousarray(X)).view(-1, 3, 32, 32)
        logits = torch.cat([self._network(part) for part in images.split(500)])
        return logits.softmax(dim=1).double().numpy()

    def accuracy(self, cifar):
        return float((self.probabilities(cifar.X_test).argmax(1) == cifar.y_test).mean())

    def score(self, X):
        mean, std = inception_score(self.probabilities(X))
        return {"inception score": mean, "inception score, std": std}


def _convolution(n_in, n_out, stride):
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


class _Residual(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(n_channels, n_channels, 1), _convolution(n_channels, n_channels, 1)
        )

    def forward(self, x):
        return x + self.layers(x)


def _augmented(X, rng):
    """Images shifted by up to four pixels, half of them mirrored."""
    x = F.pad(torch.from_numpy(X).view(-1, 3, 32, 32), (4, 4, 4, 4), mode="reflect")
    top, left = rng.integers(0, 9, 2)
    x = x[:, :, top : top + 32, left : left + 32]
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5).view(-1, 1, 1, 1)
    return torch.where(mirrored, x.flip(-1), x)


def draw(settings, cifar):
    """Figure 5: test images and their reconstructions."""
    mvae = model_of(settings, cifar)
    X = cifar.X_test[:N_IMAGES]
    rows = {"test images": X, "mixture": mvae.reconstruct(X)}
    figure, axes = plt.subplots(len(rows), N_IMAGES, figsize=(N_IMAGES * 0.8 + 1, 1.8))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            ax.imshow(np.clip(image.reshape(3, 32, 32).transpose(1, 2, 0), 0, 1))
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.subplots_adjust(left=0.1, right=0.99, top=0.98, bottom=0.02, wspace=0.05, hspace=0.05)
    figure.savefig(HERE / "results" / "figure_5.png", dpi=110)


if __name__ == "__main__":
    main()
