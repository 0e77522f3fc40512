"""Grouped convolutions equal K torch convolutions in a loop, and what follows for the estimator."""

import numpy as np
import pytest
import torch
from networks import assert_same_to_rounding, generator, terms_of
from torch.nn import functional as F

from skmvae import MVAETransformer
from skmvae._model.convolution import ComponentBatchNorm, ComponentConv2d
from skmvae._model.network import MixtureVAE
from skmvae._model.objective import OBJECTIVES, Objective
from skmvae.architectures import Conv

K = 3


def random(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def convolution(n_in, n_out, kernel_size, stride, upsampling_to=None):
    sizes = {"kernel_size": kernel_size, "stride": stride, "upsampling_to": upsampling_to}
    layer = ComponentConv2d(K, n_in, n_out, gain=1.0, **sizes).double()
    for seed, parameter in enumerate(layer.parameters()):
        torch.nn.init.normal_(parameter, generator=generator(seed))
    return layer


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (1, 1), (5, 3)])
def test_a_convolution_is_a_loop_over_components(shared, kernel_size, stride):
    layer = convolution(2, 4, kernel_size, stride)
    h = random(5, 2 if shared else 2 * K, 9, 7)
    inputs = [h] * K if shared else h.chunk(K, dim=1)
    expected = [
        F.conv2d(x, w, b, stride, kernel_size // 2)
        for x, w, b in zip(inputs, layer.weight, layer.bias, strict=True)
    ]
    torch.testing.assert_close(layer(h), torch.cat(expected, dim=1))


@pytest.mark.parametrize("size", [(9, 7), (8, 8)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_transposed_convolution_gives_the_size_it_came_from(size, stride):
    down = convolution(2, 4, 3, stride)
    up = convolution(4, 2, 3, stride, upsampling_to=size)
    h = down(random(5, 2, *size))
    assert up(h).shape == (5, 2 * K, *size)
    # The transpose of a linear map: <A x, y> = <x, A' y> with the same weights and no biases.
    with torch.no_grad():
        up.weight.copy_(down.weight)
        down.bias.zero_()
        up.bias.zero_()
    x, y = random(5, 2 * K, *size, seed=1), random(*h.shape, seed=2)
    left, right = (down(x) * y).sum(), (x * up(y)).sum()
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("upsampling_to", [None, (16, 16)])
def test_initialisation_keeps_the_variance(upsampling_to):
    stride, size = (1, 16) if upsampling_to is None else (2, 8)
    layer = ComponentConv2d(
        K, 32, 64, kernel_size=3, stride=stride, gain=1.0, upsampling_to=upsampling_to
    )
    layer.reset_parameters(generator())
    inner = layer(random(50, 32 * K, size, size).float())[..., 2:-2, 2:-2]
    assert inner.var().item() == pytest.approx(1.0, rel=0.1)


def test_batch_statistics_belong_to_each_component():
    norm = ComponentBatchNorm(K, 2)
    norm.reset_parameters(generator())
    h = random(6, 2 * K, 4, 4).float()
    before = norm(h)
    h[:, 2:4] *= 100.0  # component 1
    after = norm(h)
    assert torch.equal(before[:, :2], after[:, :2])
    assert torch.equal(before[:, 4:], after[:, 4:])
    expected = torch.nn.BatchNorm2d(2 * K)
    expected(before * 0 + random(6, 2 * K, 4, 4).float())
    expected(h)
    torch.testing.assert_close(norm.mean.flatten(), expected.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.variance.flatten(), expected.running_var, rtol=1e-4, atol=1e-5)


def test_a_single_value_is_normalised_by_the_running_statistics():
    norm = ComponentBatchNorm(K, 2)
    norm.reset_parameters(generator())
    assert torch.isfinite(norm(torch.ones(1, 2 * K, 1, 1))).all()


def network(k=K, image_shape=(2, 7, 6), **kwargs):
    architecture = Conv(image_shape, channels=(4, 6), strides=(2, 2), **kwargs)
    n_features = int(np.prod(image_shape))
    mixture = MixtureVAE(
        architecture, n_features=n_features, latent_dim=2, k=k, likelihood="gaussian"
    )
    for seed, module in enumerate(mixture.modules()):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters(generator(seed))
    return mixture


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_encoder_and_decoder_gets_a_gradient(objective):
    """The authors' code never uses its fourth decoder."""
    mixture, chosen = network(), Objective(objective, 1.0, 1.0, 1 / K)
    sum(terms_of(mixture, random(8, 84).float(), chosen, generator())).backward()
    for part in (mixture.encoder, mixture.decoder):
        for name, parameter in part.named_parameters():
            if name.startswith("stack.convolutions") and name.endswith("bias"):
                continue  # batch normalisation subtracts the bias of a convolution
            assert (parameter.grad.flatten(1).abs().sum(1) > 0.0).all(), name


@pytest.fixture(scope="module")
def fitted_conv(digits):
    conv = Conv((1, 8, 8), channels=(8, 8), strides=(2, 2))
    how = {"max_iter": 12, "learning_rate": 1e-2, "batch_size": 50, "random_state": 0}
    return MVAETransformer(k=2, latent_dim=3, architecture=conv, **how).fit(digits[0])


def test_a_convolutional_mixture_learns(fitted_conv, digits):
    X, _ = digits
    residual = np.square(fitted_conv.reconstruct(X) - X).sum()
    assert residual < 0.6 * np.square(X - X.mean(0)).sum()
    assert fitted_conv.transform(X).shape == (500, 6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.cpu
def test_rows_do_not_depend_on_each_other_at_inference(dtype, fitted_conv, digits):
    X = digits[0].astype(dtype)
    for method in ("transform", "reconstruct", "mixing_weights", "score_samples"):
        together = getattr(fitted_conv, method)(X)
        assert_same_to_rounding(getattr(fitted_conv, method)(X[7:9]), together[7:9])
    codes = fitted_conv.transform(X)
    together = fitted_conv.inverse_transform(codes)
    assert_same_to_rounding(fitted_conv.inverse_transform(codes[7:9]), together[7:9])


def test_warm_start_continues_the_running_statistics(digits):
    conv = Conv((1, 8, 8), channels=(4,), strides=(2,))
    how = {"max_iter": 1, "batch_size": 128, "learning_rate": 1e-30, "warm_start": True}
    mvae = MVAETransformer(k=2, architecture=conv, random_state=0, **how).fit(digits[0])
    name = "encoder.stack.norms.0.variance"
    first = mvae._state.arrays[name]
    second = mvae.fit(digits[0])._state.arrays[name]
    # From 1 towards the variance of the activations, a tenth of the rest in each minibatch.
    progress = (1.0 - second) / (1.0 - first)
    np.testing.assert_allclose(progress, (1 - 0.9**8) / (1 - 0.9**4), rtol=0.1)


@pytest.mark.parametrize(("batch_size", "precision"), [(1, "float32"), (32, "bfloat16")])
def test_any_batch_size_and_precision(batch_size, precision, digits):
    conv = Conv((1, 8, 8), channels=(4, 4, 4), strides=(2, 2, 2))  # down to 1 x 1
    how = {"max_iter": 1, "batch_size": batch_size, "precision": precision}
    mvae = MVAETransformer(k=2, architecture=conv, **how).fit(digits[0][:33])
    assert np.isfinite(mvae.transform(digits[0])).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image_shape": (1, 8, 9)}, r"means 72 columns, but X has 64"),
        ({"strides": (2,)}, "'strides' parameter of Conv must be .* one for each of channels"),
        ({"kernel_size": 2}, "'kernel_size' parameter of Conv must be an odd int"),
        ({"channels": (2,) * 5, "strides": (2,) * 5}, r"to 1 x 1 before layer 3, less than its"),
    ],
)
def test_bad_parameters_are_named(parameters, message, digits):
    conv = Conv((1, 8, 8), channels=(4, 4), strides=(2, 2)).set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        MVAETransformer(architecture=conv).fit(digits[0])
