"""The least a training step can cost: its matrix products, and one pass of Adam over the weights.

On a CPU both are measured in isolation. On a GPU the products cost their arithmetic at the measured
peak or their bytes at the measured bandwidth, whichever takes longer, and Adam its bytes.
"""

import time

import torch
from contenders import HIDDEN


def layers(n_features, latent_dim):
    """(inputs, outputs) of each layer of one component."""
    encoder = [(n_features, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * latent_dim + 1)]
    decoder = [(latent_dim, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, n_features)]
    return encoder + decoder


def n_parameters(n_features, latent_dim, k):
    return k * sum((n_in + 1) * n_out for n_in, n_out in layers(n_features, latent_dim))


def flops(n_features, latent_dim, k, batch_size):
    """Of a step's products: forward, and backward to inputs (but not to X) and to weights."""
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
        return _times(self._multiply, n_steps)

    def adam(self, n_steps):
        return _times(self._adam.step, n_steps)

    def _multiply(self):
        for h, w, _, _ in self._layers:
            torch.bmm(h, w)
        for i, (h, w, gradient, out) in reversed(list(enumerate(self._layers))):
            torch.bmm(h.mT, gradient, out=out)
            if i > 0:
                torch.bmm(gradient, w.mT)


class DeviceFloor:
    """The same of a GPU, from its measured peak (FLOP/s) and bandwidth (bytes/s)."""

    def __init__(self, *, n_features, latent_dim, k, batch_size, precision):
        dtype = getattr(torch, precision)
        peak, bandwidth = _peak(dtype), _bandwidth()
        n = n_parameters(n_features, latent_dim, k)
        weight_bytes = n * dtype.itemsize
        # Weights are read twice and their gradients written once; activations are small beside.
        products = max(
            flops(n_features, latent_dim, k, batch_size) / peak, 3 * weight_bytes / bandwidth
        )
        # Reads weights, gradients and two moments, writes weights and moments, in float32.
        self._seconds = products + 7 * 4 * n / bandwidth

    def run(self, n_steps):
        return [self._seconds] * n_steps


def _times(function, n_times):
    times = []
    for _ in range(n_times):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def _on_device(function, n_times=50):
    """Seconds of one call on a GPU, in a queue of many."""
    function()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(n_times):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / n_times


def _peak(dtype):
    n = 8192
    a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
    return 2 * n**3 / _on_device(lambda: a @ b)


def _bandwidth():
    n_bytes = 2**30
    a = torch.empty(n_bytes, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return 2 * n_bytes / _on_device(lambda: b.copy_(a))
