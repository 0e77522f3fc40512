"""The least a training step can cost: its matrix products, and one pass of Adam.

On a CPU both are measured in isolation. On a GPU both are computed: the products from the measured
peak or the measured bandwidth, whichever takes longer, and Adam from the bandwidth.
"""

import torch
from contenders import HIDDEN
from machine import seconds_of


def layers(n_features, latent_dim):
    """(inputs, outputs) of each layer of one component."""
    encoder = [(n_features, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * latent_dim + 1)]
    decoder = [(latent_dim, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, n_features)]
    return encoder + decoder


def n_parameters(n_features, latent_dim, k):
    return k * sum((n_in + 1) * n_out for n_in, n_out in layers(n_features, latent_dim))


def flops(n_features, latent_dim, k, batch_size):
    """Operations of a step's products: forward, backward to inputs (not to X) and to parameters."""
    sizes = [n_in * n_out for n_in, n_out in layers(n_features, latent_dim)]
    return 2 * batch_size * k * (3 * sum(sizes) - sizes[0])


class Floor:
    """``run(n)`` gives the seconds of n steps that do nothing else."""

    def __init__(self, *, n_features, latent_dim, k, batch_size, precision):
        dtype = getattr(torch, precision)
        self._layers = []
        for i, (n_in, n_out) in enumerate(layers(n_features, latent_dim)):
            h = torch.randn(*(() if i == 0 else (k,)), batch_size, n_in).to(dtype)
            w = torch.randn(k, n_in, n_out).to(dtype)
            gradient = torch.randn(k, batch_size, n_out).to(dtype)
            self._layers.append((h.expand(k, batch_size, n_in), w, gradient, torch.empty_like(w)))
        sizes = layers(n_features, latent_dim)
        shapes = [(k, n_in, n_out) for n_in, n_out in sizes] + [(k, 1, n_out) for _, n_out in sizes]
        parameters = [torch.randn(shape, requires_grad=True) for shape in shapes]
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape)
        self._adam = torch.optim.Adam(parameters, fused=True)

    def run(self, n_steps):
        return [a + b for a, b in zip(self.products(n_steps), self.adam(n_steps), strict=True)]

    def products(self, n_steps):
        return seconds_of(self._multiply, n_steps)

    def adam(self, n_steps):
        return seconds_of(self._adam.step, n_steps)

    def _multiply(self):
        for h, w, _, _ in self._layers:
            torch.bmm(h, w)
        for i, (h, w, gradient, out) in reversed(list(enumerate(self._layers))):
            torch.bmm(h.mT, gradient, out=out)
            if i > 0:
                torch.bmm(gradient, w.mT)


class DeviceFloor:
    """``Floor`` for a GPU, computed from its measured peak (FLOP/s) and bandwidth (bytes/s)."""

    def __init__(self, *, n_features, latent_dim, k, batch_size, precision):
        dtype = getattr(torch, precision)
        peak, bandwidth = _peak(dtype), _bandwidth()
        n = n_parameters(n_features, latent_dim, k)
        # The products read the parameters twice and write their gradients once; activations are
        # small beside them.
        products = max(
            flops(n_features, latent_dim, k, batch_size) / peak, 3 * n * dtype.itemsize / bandwidth
        )
        # Adam reads parameters, gradients and two moments, and writes parameters and moments.
        self._seconds = products + 7 * 4 * n / bandwidth

    def run(self, n_steps):
        return [self._seconds] * n_steps


def _on_device(function):
    """Seconds of one call on a GPU, the mean of fifty after one to warm up."""
    function()
    return seconds_of(function, 50, "cuda")[0]


def _peak(dtype):
    n = 8192
    a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
    return 2 * n**3 / _on_device(lambda: a @ b)


def _bandwidth():
    n_bytes = 2**30
    a = torch.empty(n_bytes, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return 2 * n_bytes / _on_device(lambda: b.copy_(a))
