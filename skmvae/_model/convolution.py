"""K convolutional encoders and decoders as grouped convolutions: activations are (B, K C, H, W)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import ComponentLinear


class ImageShape(NamedTuple):
    channels: int
    height: int
    width: int


class ComponentConv2d(nn.Module):
    """K convolutions, or with ``upsampling_to`` K transposed ones, as one grouped operation.

    The padding is such that a stride of s divides a side by s, rounding up. A transposed
    convolution undoes this: ``upsampling_to`` is the height and width it has to give, s times its
    input's at most.
    """

    def __init__(
        self,
        k: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        gain: float,
        upsampling_to: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.upsampling_to = upsampling_to
        self.padding = kernel_size // 2
        self.std = gain / math.sqrt(in_channels * kernel_size**2)
        if upsampling_to is not None:
            # Each output sees only one in stride^2 of the kernel's weights.
            self.std *= stride
        sizes = (
            (out_channels, in_channels) if upsampling_to is None else (in_channels, out_channels)
        )
        shape = (k, *sizes, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(k, out_channels, dtype=torch.float32))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights that keep the variance, times gain^2, and set the biases to zero."""
        nn.init.normal_(self.weight, std=self.std, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(B, K C_in, H, W), or (B, C_in, H, W) shared by all components -> (B, K C_out, ...)."""
        k = len(self.weight)
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        if self.upsampling_to is None:
            groups = h.shape[1] // self.weight.shape[2]  # k, or 1 where the input is shared
            return F.conv2d(h, weight, bias, self.stride, self.padding, groups=groups)
        missing = [
            target - ((size - 1) * self.stride + 1)
            for target, size in zip(self.upsampling_to, h.shape[-2:], strict=True)
        ]
        return F.conv_transpose2d(
            h, weight, bias, self.stride, self.padding, output_padding=missing, groups=k
        )


class ComponentBatchNorm(nn.Module):
    """Batch normalisation of (B, K C, H, W); each channel of each component has its statistics.

    Where processes share a minibatch, whoever trains sets ``all_reduce``, a sum over them with
    gradients, and the statistics are those of all rows.
    """

    MOMENTUM = 0.1
    EPSILON = 1e-5

    mean: Tensor
    variance: Tensor

    def __init__(self, k: int, channels: int) -> None:
        super().__init__()
        self.all_reduce: Callable[[Tensor], Tensor] | None = None
        self.weight = nn.Parameter(torch.empty(k, channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(k, channels, dtype=torch.float32))
        self.register_buffer("mean", torch.empty(k, channels, dtype=torch.float32))
        self.register_buffer("variance", torch.empty(k, channels, dtype=torch.float32))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Start as the identity."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.mean)
        nn.init.ones_(self.variance)

    def forward(self, h: Tensor) -> Tensor:
        if self.training and self.all_reduce is not None:
            return self._over_slices(h, self.all_reduce)
        # A single value has no variance.
        uses_batch = self.training and h.numel() > h.shape[1]
        return self._normalise(h, uses_batch)

    def _normalise(self, h: Tensor, uses_batch: bool) -> Tensor:
        return F.batch_norm(
            h,
            self.mean.flatten(),
            self.variance.flatten(),
            self.weight.flatten(),
            self.bias.flatten(),
            training=uses_batch,
            momentum=self.MOMENTUM,
            eps=self.EPSILON,
        )

    def _over_slices(self, h: Tensor, all_reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """Normalise as torch does, with sums over all slices of the minibatch."""
        h = h.float()
        n_own = h.new_full((1,), h.numel() // h.shape[1])
        sums = all_reduce(torch.cat([h.sum((0, 2, 3)), n_own]))
        n = sums[-1]
        mean = sums[:-1] / n
        centred = h - mean.view(1, -1, 1, 1)
        variance = all_reduce(centred.square().sum((0, 2, 3))) / n
        if n <= 1.0:
            return self._normalise(h, uses_batch=False)
        with torch.no_grad():
            self.mean.lerp_(mean.view_as(self.mean), self.MOMENTUM)
            unbiased = (variance * n / (n - 1.0)).view_as(self.variance)
            self.variance.lerp_(unbiased, self.MOMENTUM)
        scale = self.weight.flatten() * (variance + self.EPSILON).rsqrt()
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class _ConvStack(nn.Module):
    """Convolutions, each but a plain last one followed by normalisation and a leaky ReLU."""

    def __init__(
        self, k: int, convolutions: Sequence[ComponentConv2d], *, plain_last: bool, options
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        n_active = len(convolutions) - plain_last
        channels = [convolution.bias.shape[1] for convolution in convolutions[:n_active]]
        self.norms = nn.ModuleList(
            ComponentBatchNorm(k, c) if options.batch_norm else nn.Identity() for c in channels
        )
        self.negative_slope = options.negative_slope

    def forward(self, h: Tensor) -> Tensor:
        for i, convolution in enumerate(self.convolutions):
            h = convolution(h)
            if i < len(self.norms):
                h = F.leaky_relu_(self.norms[i](h), self.negative_slope)
        return h


class ConvOptions(NamedTuple):
    """Options that encoder and decoder have in common."""

    channels: tuple[int, ...]
    kernel_size: int
    strides: tuple[int, ...]
    batch_norm: bool
    negative_slope: float

    @property
    def gain(self) -> float:
        """Initial gain of a layer before a leaky ReLU (He et al. 2015)."""
        return math.sqrt(2.0 / (1.0 + self.negative_slope**2))


def image_sizes(image_shape: ImageShape, strides: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width before each convolution and after the last."""
    sizes = [(image_shape.height, image_shape.width)]
    for stride in strides:
        height, width = sizes[-1]
        sizes.append((math.ceil(height / stride), math.ceil(width / stride)))
    return sizes


class ConvEncoder(nn.Module):
    """(B, F) or (K, B, F) -> (K, B, n_outputs): convolutions and one linear layer."""

    def __init__(
        self, k: int, image_shape: ImageShape, n_outputs: int, options: ConvOptions
    ) -> None:
        super().__init__()
        self.k = k
        self.image_shape = image_shape
        channels = (image_shape.channels, *options.channels)
        self.stack = _ConvStack(
            k,
            [
                ComponentConv2d(
                    k,
                    *pair,
                    kernel_size=options.kernel_size,
                    stride=stride,
                    gain=options.gain,
                )
                for pair, stride in zip(pairwise(channels), options.strides, strict=True)
            ],
            plain_last=False,
            options=options,
        )
        height, width = image_sizes(image_shape, options.strides)[-1]
        self.head = ComponentLinear(k, channels[-1] * height * width, n_outputs)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if x.dim() == 3:
            x = x.transpose(0, 1).flatten(1)  # (B, K F): the components' images side by side
        _, height, width = self.image_shape
        h = self.stack(x.unflatten(1, (-1, height, width)))
        return self.head(h.unflatten(1, (self.k, -1)).transpose(0, 1).flatten(2))


class ConvDecoder(nn.Module):
    """(K, B, d) -> (K, B, F): one linear layer and the encoder's convolutions, transposed."""

    def __init__(
        self, k: int, image_shape: ImageShape, latent_dim: int, options: ConvOptions
    ) -> None:
        super().__init__()
        sizes = image_sizes(image_shape, options.strides)
        self.start = (options.channels[-1], *sizes[-1])
        self.stem = ComponentLinear(k, latent_dim, math.prod(self.start), gain=options.gain)
        channels = (image_shape.channels, *options.channels)
        layers = list(zip(pairwise(channels), options.strides, sizes[:-1], strict=True))
        self.stack = _ConvStack(
            k,
            [
                ComponentConv2d(
                    k,
                    n_in,
                    n_out,
                    kernel_size=options.kernel_size,
                    stride=stride,
                    gain=options.gain if i > 0 else 1.0,
                    upsampling_to=size,
                )
                for i, ((n_out, n_in), stride, size) in reversed(list(enumerate(layers)))
            ],
            plain_last=True,
            options=options,
        )
        self.negative_slope = options.negative_slope

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        h = F.leaky_relu_(self.stem(z), self.negative_slope)  # (K, B, C H W)
        k, n_rows, _ = h.shape
        channels, height, width = self.start
        h = h.transpose(0, 1).reshape(n_rows, k * channels, height, width)
        return self.stack(h).unflatten(1, (k, -1)).transpose(0, 1).flatten(2)
