"""The estimator as a user meets it: attributes, methods, and how they hang together."""

import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import assert_same_to_rounding
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from skmvae import MVAETransformer, _inference
from skmvae._model.objective import OBJECTIVES
from skmvae.architectures import MLP, Conv


def test_fitted_attributes(fitted, digits):
    X, _ = digits
    assert fitted.weights_.shape == (3,)
    np.testing.assert_allclose(fitted.weights_, fitted.mixing_weights(X).mean(0), rtol=1e-5)
    np.testing.assert_allclose(fitted.mean_, X.mean(0), rtol=1e-12)
    assert fitted.scale_ == pytest.approx(np.sqrt(X.var(0).mean()), rel=1e-12)
    assert 0 < fitted.noise_variance_ < 2 * fitted.scale_**2
    assert fitted.n_iter_ == 2
    assert fitted.n_features_in_ == 64
    assert not hasattr(fitted, "feature_names_in_")


def test_history_makes_a_data_frame(fitted):
    frame = pd.DataFrame(fitted.history_)
    names = [
        "loss",
        "reconstruction",
        "kl_latent",
        "kl_mixing",
        "dhsic",
        "learning_rate",
        "seconds",
    ]
    assert list(frame) == names
    assert len(frame) == fitted.n_iter_
    assert all(isinstance(v, float) for values in fitted.history_.values() for v in values)


@pytest.mark.parametrize("k", [1, 3])
def test_dhsic_is_nan_where_it_has_no_weight(k, make_small, digits, tmp_path):
    """Also through a checkpoint and a warm start."""
    X, _ = digits
    mvae = make_small(k=k, beta=0.0, checkpoint_dir=tmp_path, warm_start=True, verbose=1).fit(X)
    assert list(mvae.history_) == list(make_small().fit(X).history_)
    assert np.isnan(mvae.history_["dhsic"]).all()
    assert np.isfinite(mvae.history_["loss"]).all()
    mvae.set_params(beta=2.0).fit(X)
    assert np.isnan(mvae.history_["dhsic"]).tolist() == [True, True, False, False]
    assert make_small(k=k, beta=0.0, checkpoint_dir=tmp_path).fit(X).n_iter_ == 2


def test_bernoulli_has_no_units(make_small, digits):
    mvae = make_small(likelihood="bernoulli").fit(digits[0] / 16)
    assert mvae.scale_ == 1.0
    assert (mvae.mean_ == 0.0).all()
    assert mvae.noise_variance_ is None
    reconstruction = mvae.reconstruct(digits[0] / 16)
    assert reconstruction.min() >= 0.0
    assert reconstruction.max() <= 1.0


def test_codes_are_component_major(fitted, digits):
    """Columns i d to (i + 1) d - 1 are what encoder i alone gives."""
    X = digits[0][:40]
    codes = fitted.transform(X)
    arrays = fitted._state.arrays
    scaled = (X - fitted.mean_) / fitted.scale_
    for i in range(3):
        h = scaled
        for layer in range(2):
            w = arrays[f"encoder.layers.{layer}.weight"][i].astype(float)
            h = h @ w + arrays[f"encoder.layers.{layer}.bias"][i]
            h = np.maximum(h, 0) if layer == 0 else h
        np.testing.assert_allclose(codes[:, 2 * i : 2 * i + 2], h[:, :2], atol=1e-5)


def test_mixing_weights_are_probabilities(fitted, digits):
    weights = fitted.mixing_weights(digits[0])
    assert weights.shape == (500, 3)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)


def test_predict_gives_the_heaviest_component(fitted, digits):
    X, _ = digits
    labels = fitted.predict(X)
    assert labels.shape == (500,)
    assert labels.dtype == np.int64
    assert len(set(labels)) > 1
    weights = fitted.mixing_weights(X)
    np.testing.assert_array_equal(weights[np.arange(500), labels], weights.max(1))


def test_reconstruction_is_the_weighted_sum_of_the_components(fitted, digits):
    X, _ = digits
    alone = np.stack([fitted.reconstruct(X, component=i) for i in range(3)])
    mixed = np.einsum("nk,knf->nf", fitted.mixing_weights(X), alone)
    np.testing.assert_allclose(fitted.reconstruct(X), mixed, atol=1e-4)
    assert len({a.tobytes() for a in alone}) == 3


def test_inverse_transform_decodes_with_the_encoders_ratings(fitted, digits):
    """Each encoder rates its own decoder's output; nothing but Z and fitted state is used."""
    Z = fitted.transform(digits[0])
    alone = []
    for i in range(3):
        one = np.zeros_like(Z)
        one[:, 2 * i : 2 * i + 2] = Z[:, 2 * i : 2 * i + 2]
        alone.append(_decode_component(fitted, one, i))
    ratings = np.stack([_raw_concentration(fitted, alone[i], i) for i in range(3)], axis=1)
    ratings += 1e-3 * ratings.sum(1, keepdims=True)  # the least share of a component
    weights = ratings / ratings.sum(1, keepdims=True)
    expected = np.einsum("nk,knf->nf", weights, np.stack(alone))
    np.testing.assert_allclose(fitted.inverse_transform(Z), expected, atol=2e-3)


def _decode_component(mvae, Z, i):
    a, h = mvae._state.arrays, Z[:, 2 * i : 2 * i + 2]
    h = np.maximum(h @ a["decoder.layers.0.weight"][i] + a["decoder.layers.0.bias"][i], 0)
    h = h @ a["decoder.layers.1.weight"][i] + a["decoder.layers.1.bias"][i]
    return h * mvae.scale_ + mvae.mean_


def _raw_concentration(mvae, X, i):
    a, h = mvae._state.arrays, (X - mvae.mean_) / mvae.scale_
    h = np.maximum(h @ a["encoder.layers.0.weight"][i] + a["encoder.layers.0.bias"][i], 0)
    h = h @ a["encoder.layers.1.weight"][i] + a["encoder.layers.1.bias"][i]
    return np.logaddexp(0, h[:, -1]) + 1e-6


def test_inverse_transform_is_nearly_as_good_as_the_true_weights(make_small, digits):
    X, _ = digits
    mvae = make_small(k=4, latent_dim=8, max_iter=60, architecture=MLP((64,))).fit(X)
    true = ((mvae.reconstruct(X) - X) ** 2).sum(1).mean()
    rated = ((mvae.inverse_transform(mvae.transform(X)) - X) ** 2).sum(1).mean()
    alone = np.stack([mvae.reconstruct(X, component=i) for i in range(4)])
    uniform = ((alone.mean(0) - X) ** 2).sum(1).mean()
    assert rated < true + 0.5 * (uniform - true)


def test_extreme_codes_decode_to_finite_rows(fitted):
    assert np.isfinite(fitted.inverse_transform(np.full((2, 6), 1e6))).all()
    assert np.isfinite(fitted.inverse_transform(np.full((2, 6), -1e6))).all()


def test_one_component_is_a_plain_vae(make_small, digits):
    X, _ = digits
    mvae = make_small(k=1).fit(X)
    assert (mvae.mixing_weights(X) == 1.0).all()
    np.testing.assert_array_equal(mvae.reconstruct(X), mvae.reconstruct(X, component=0))
    np.testing.assert_array_equal(mvae.inverse_transform(mvae.transform(X)), mvae.reconstruct(X))
    assert mvae.history_["dhsic"] == [0.0, 0.0]
    assert mvae.history_["kl_mixing"] == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_their_input(dtype, fitted, digits):
    X = digits[0].astype(dtype)
    Z = fitted.transform(X)
    for result in (Z, fitted.mixing_weights(X), fitted.reconstruct(X), fitted.score_samples(X)):
        assert result.dtype == dtype
    assert fitted.inverse_transform(Z).dtype == dtype


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float16, np.longdouble, object])
def test_other_dtypes_give_float64(dtype, make_small, digits):
    X = digits[0].astype(dtype)
    mvae = make_small().fit(X)
    assert mvae.transform(X).dtype == np.float64
    np.testing.assert_array_equal(mvae.transform(X), mvae.transform(X.astype(np.float64)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_do_not_depend_on_each_other(dtype, fitted, digits):
    X = digits[0].astype(dtype)
    for method in (
        fitted.transform,
        fitted.mixing_weights,
        fitted.reconstruct,
        fitted.score_samples,
        lambda X: fitted.inverse_transform(fitted.transform(X)),
    ):
        together = method(X)
        assert_same_to_rounding(np.concatenate([method(X[:77]), method(X[77:])]), together)
        assert_same_to_rounding(method(X[::-1])[::-1], together)
        assert_same_to_rounding(method(X[123:124])[0], together[123])


def test_float32_and_float64_agree_to_the_rounding_of_float32(fitted, digits):
    X, _ = digits
    for method in (fitted.transform, fitted.mixing_weights, fitted.reconstruct):
        assert_same_to_rounding(method(X).astype(np.float32), method(X.astype(np.float32)))


@pytest.mark.parametrize(
    ("shape", "k"), [((2, 5), 3), ((3, 5), 10), ((30, 1), 3), ((1, 1), 3), ((5, 20_000), 2)]
)
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_tables_of_extreme_shapes(shape, k, likelihood, make_small):
    X = np.random.default_rng(0).random(shape)
    mvae = make_small(k=k, likelihood=likelihood).fit(X)
    assert mvae.transform(X).shape == (shape[0], 2 * k)
    for rows in (mvae.reconstruct(X), mvae.inverse_transform(mvae.transform(X))):
        assert rows.shape == shape
    assert np.isfinite(mvae.score_samples(X)).all()
    assert mvae.sample(2, random_state=0).shape == (2, shape[1])


def test_x_is_never_modified_and_never_aliased(make_small, digits):
    X = np.array(digits[0])
    before = X.copy()
    mvae = make_small().fit(X)
    for result in (mvae.transform(X), mvae.reconstruct(X), mvae.mixing_weights(X)):
        assert not np.shares_memory(result, X)
        result[:] = np.nan
    np.testing.assert_array_equal(X, before)
    assert np.isfinite(mvae.transform(X)).all()


def test_units_and_offsets_do_not_matter(make_small, digits):
    X, _ = digits
    plain, scaled = make_small().fit(X), make_small().fit(X * 1e8 + 1e9)
    np.testing.assert_allclose(scaled.transform(X * 1e8 + 1e9), plain.transform(X), atol=1e-3)
    assert scaled.noise_variance_ == pytest.approx(plain.noise_variance_ * 1e16, rel=1e-3)
    # A density in units of 1e8: log p is lower by n_features log 1e8.
    shift = 64 * np.log(1e8)
    assert scaled.score(X * 1e8 + 1e9) == pytest.approx(plain.score(X) - shift, abs=1e-1)


def test_an_offset_takes_no_digits(make_small):
    """Integers and lists are not rounded to float32 before they are centred; nor are samples."""
    X = (10**9 + np.random.default_rng(0).integers(0, 10, (50, 2))).astype(np.int64)
    for rows in (X, X.tolist()):
        mvae = make_small().fit(rows)
        assert mvae.scale_ == pytest.approx(X.std(0).mean(), rel=0.1)
    assert len(np.unique(mvae.sample(50, random_state=0)[:, 0])) > 40


def test_many_draws_are_taken_a_few_at_a_time(fitted, digits, monkeypatch):
    """100 draws in parts of 7 are 100 draws: the bound of each part, averaged as densities."""
    X = digits[0][:10]
    inference = fitted._inference()
    whole = inference.log_likelihood_bound(X, 100)
    monkeypatch.setattr(_inference, "_OUTPUTS_A_ROW", 7 * 3 * 64)
    assert_same_to_rounding(inference.log_likelihood_bound(X, 100), whole)


def test_sample_has_the_units_of_x_and_repeats(fitted, digits):
    first, again = fitted.sample(300, random_state=3), fitted.sample(300, random_state=3)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (300, 64)
    assert first.dtype == np.float64
    assert not np.array_equal(first, fitted.sample(300, random_state=4))
    assert not np.array_equal(fitted.sample(), fitted.sample())
    assert fitted.sample(1).shape == (1, 64)


def test_sample_follows_the_generative_process(fitted):
    """w ~ Dir(1/3, 1/3, 1/3), z ~ N(0, I): moments over many draws, against NumPy."""
    rng = np.random.default_rng(0)
    n = 20_000
    w, Z = rng.dirichlet([1 / 3] * 3, n), rng.standard_normal((n, 6))
    alone = np.stack([_decode_component(fitted, Z, i) for i in range(3)])
    expected = np.einsum("nk,knf->nf", w, alone)
    sample = fitted.sample(n, random_state=0)
    spread = expected.std(0).max()
    np.testing.assert_allclose(sample.mean(0), expected.mean(0), atol=0.05 * spread)
    np.testing.assert_allclose(sample.std(0), expected.std(0), atol=0.05 * spread)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_samples_of_one_component_are_its_decoder_s_output(likelihood, make_small, digits):
    """The same seed gives the same codes: with the weights they make the mixture's rows."""
    mvae = make_small(likelihood=likelihood).fit(digits[0] / 16)
    alone = np.stack([mvae.sample(20, random_state=5, component=i) for i in range(3)])
    assert alone.dtype == np.float64
    rng = np.random.default_rng(5)
    w, Z = rng.dirichlet([1 / 3] * 3, 20), rng.standard_normal((20, 6))
    assert_same_to_rounding(np.einsum("nk,knf->nf", w, alone), mvae.sample(20, random_state=5))
    if likelihood == "gaussian":
        expected = np.stack([_decode_component(mvae, Z, i) for i in range(3)])
        assert_same_to_rounding(alone, expected)


def test_samples_of_the_only_component(make_small, digits):
    mvae = make_small(k=1).fit(digits[0])
    np.testing.assert_array_equal(
        mvae.sample(5, random_state=0, component=np.int64(0)), mvae.sample(5, random_state=0)
    )


CONV = Conv((1, 8, 8), channels=(4, 6), strides=(2, 2))
# What makes of the shares of a row's concentration its mixing weights.
LEAST_SHARE = 1e-3


def with_weights(mvae, *weights):
    """A copy in which it is known which components are light."""
    mvae = deepcopy(mvae)
    mvae.weights_ = np.array(weights)
    return mvae


def of_components(columns, kept, latent_dim=2):
    return np.hstack([columns[:, latent_dim * i : latent_dim * (i + 1)] for i in kept])


@pytest.fixture(
    scope="module",
    params=[
        (MLP((16,)), "gaussian"),
        (MLP((16,)), "bernoulli"),
        (CONV, "gaussian"),
        (CONV, "bernoulli"),
    ],
    ids=["MLP-gaussian", "MLP-bernoulli", "Conv-gaussian", "Conv-bernoulli"],
)
def any_fitted(request, digits):
    architecture, likelihood = request.param
    return MVAETransformer(
        k=3,
        latent_dim=2,
        architecture=architecture,
        likelihood=likelihood,
        max_iter=2,
        random_state=0,
    ).fit(digits[0] / 16)


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        ((0.5, 0.009, 0.491), [0, 2]),
        ((0.005, 0.3, 0.695), [1, 2]),
        ((0.001, 0.99, 0.009), [1]),
        ((0.4, 0.5, 0.1), [0, 1, 2]),
    ],
)
def test_a_pruned_estimator_is_what_is_kept(weights, kept, any_fitted, digits):
    X, n_kept = digits[0] / 16, len(kept)
    mvae = with_weights(any_fitted, *weights)
    pruned = mvae.prune()
    assert type(pruned) is MVAETransformer
    assert pruned.k == n_kept
    codes = pruned.transform(X)
    assert_same_to_rounding(codes, of_components(mvae.transform(X), kept))
    for new, old in enumerate(kept):
        assert_same_to_rounding(
            pruned.reconstruct(X, component=new), mvae.reconstruct(X, component=old)
        )
    shares = mvae.mixing_weights(X)[:, kept] * (1 + 3 * LEAST_SHARE) - LEAST_SHARE
    shares /= shares.sum(1, keepdims=True)
    expected = (shares + LEAST_SHARE) / (1 + n_kept * LEAST_SHARE)
    np.testing.assert_allclose(pruned.mixing_weights(X), expected, atol=1e-9)
    np.testing.assert_allclose(pruned.weights_, mvae.weights_[kept] / sum(mvae.weights_[kept]))
    assert pruned.weights_.sum() == pytest.approx(1.0, rel=1e-12)
    for rows in (pruned.reconstruct(X), pruned.inverse_transform(codes), pruned.sample(3)):
        assert rows.shape[1] == 64
    assert np.isfinite(pruned.score_samples(X)).all()


def test_a_pruned_estimator_keeps_all_else(make_small, digits):
    X = pd.DataFrame(digits[0], columns=[f"pixel{i}" for i in range(64)])
    mvae = make_small(early_stopping=True, random_state=np.random.RandomState(0)).fit(X)
    mvae.set_output(transform="pandas")
    mvae = with_weights(mvae, 0.5, 0.001, 0.499)
    pruned = mvae.prune()
    np.testing.assert_array_equal(pruned.mean_, mvae.mean_)
    for name in ("scale_", "noise_variance_", "history_", "n_iter_", "n_features_in_"):
        assert getattr(pruned, name) == getattr(mvae, name)
    np.testing.assert_array_equal(pruned.feature_names_in_, mvae.feature_names_in_)
    assert pruned._split_seed == mvae._split_seed
    assert vars(pruned).keys() == vars(mvae).keys()
    assert list(pruned.transform(X).columns) == [f"mvaetransformer{i}" for i in range(4)]
    parameters, expected = pruned.get_params(), mvae.get_params() | {"k": 2}
    assert repr(parameters | {"random_state": 0}) == repr(expected | {"random_state": 0})
    assert parameters["random_state"].randint(10**9) == mvae.random_state.randint(10**9)


def test_pruning_leaves_the_estimator_alone(fitted):
    mvae = with_weights(fitted, 0.5, 0.001, 0.499)
    before, content = dict(vars(mvae)), pickle.dumps(mvae)
    for pruned in (mvae.prune(), mvae.prune(0.0)):
        arrays = {**pruned._state.arrays, "mean": pruned._state.mean}
        for name, array in {**mvae._state.arrays, "mean": mvae._state.mean}.items():
            assert not np.shares_memory(arrays[name], array)
            arrays[name][...] = np.nan
        pruned.weights_[:] = np.nan
        pruned.mean_[:] = np.nan
        pruned.history_["loss"].append(np.nan)
        pruned.architecture.hidden_layer_sizes = (7,)
        pruned._state.architecture.hidden_layer_sizes = (7,)
    assert vars(mvae).keys() == before.keys()
    assert all(vars(mvae)[name] is value for name, value in before.items())
    assert pickle.dumps(mvae) == content


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("threshold", [0.0, 0, np.float32(0.001)])
def test_pruning_nothing_gives_an_equal_copy(k, threshold, make_small, digits):
    mvae = make_small(k=k).fit(digits[0])
    pruned = mvae.prune(threshold)
    assert pruned is not mvae
    assert pickle.dumps(pruned) == pickle.dumps(deepcopy(mvae))
    np.testing.assert_array_equal(pruned.weights_, mvae.weights_)


def test_a_component_at_the_threshold_is_kept(fitted):
    mvae = with_weights(fitted, 0.25, 0.5, 0.25)
    assert mvae.prune(0.25).k == 3
    assert mvae.prune(np.nextafter(0.25, 1.0)).k == 1


def test_one_component_is_never_pruned(make_small, digits):
    assert make_small(k=1).fit(digits[0]).prune(0.999).k == 1


@pytest.mark.parametrize(("prior", "expected"), [(None, 1 / 2), (0.7, 0.7)])
def test_the_prior_of_a_pruned_estimator(prior, expected, make_small, digits):
    mvae = make_small(weight_concentration_prior=prior).fit(digits[0])
    pruned = with_weights(mvae, 0.5, 0.001, 0.499).prune()
    assert pruned._state.weight_concentration_prior == expected
    assert pruned.weight_concentration_prior is prior


def test_pruned_estimators_are_saved_and_cloned(any_fitted, digits):
    X = digits[0] / 16
    pruned = with_weights(any_fitted, 0.5, 0.001, 0.499).prune()
    loaded = pickle.loads(pickle.dumps(pruned))
    np.testing.assert_array_equal(loaded.transform(X), pruned.transform(X))
    np.testing.assert_array_equal(loaded.score_samples(X), pruned.score_samples(X))
    assert clone(pruned).k == 2
    assert clone(pruned).fit_transform(X).shape == (500, 4)
    weights = sum(array.nbytes for array in any_fitted._state.arrays.values())
    assert sum(array.nbytes for array in pruned._state.arrays.values()) < 0.7 * weights


def test_pruned_estimators_are_trained_further(any_fitted, digits):
    X = digits[0] / 16
    pruned = with_weights(any_fitted, 0.5, 0.001, 0.499).prune()
    codes = pruned.transform(X)
    pruned.set_params(warm_start=True, max_iter=3).fit(X)
    assert pruned.n_iter_ == len(pruned.history_["loss"]) == 5
    assert pruned.history_["loss"][:2] == any_fitted.history_["loss"]
    assert pruned.transform(X).shape == codes.shape
    assert not np.array_equal(pruned.transform(X), codes)
    np.testing.assert_array_equal(pruned.weights_, pruned.mixing_weights(X).mean(0))


def test_training_further_starts_from_what_was_kept(make_small, digits):
    mvae = make_small(early_stopping=True).fit(digits[0])
    pruned = with_weights(mvae, 0.5, 0.001, 0.499).prune()
    codes = pruned.transform(digits[0])
    pruned.set_params(warm_start=True, learning_rate=1e-30).fit(digits[0])
    assert pruned.n_iter_ == 4
    np.testing.assert_array_equal(pruned.transform(digits[0]), codes)


def test_score_is_the_mean_of_score_samples(fitted, digits):
    X, y = digits
    assert fitted.score(X) == pytest.approx(fitted.score_samples(X).mean(), rel=1e-6)
    assert fitted.score(X, y) == fitted.score(X)


def test_more_draws_tighten_the_bound(fitted, digits):
    values = [fitted.score_samples(digits[0], n_draws=n).mean() for n in (1, 8, 64)]
    assert values[0] < values[1] < values[2]


def test_score_does_not_depend_on_how_the_model_was_trained(fitted, digits):
    X, _ = digits
    other = clone(fitted).fit(X)
    before = other.score(X)
    other.set_params(beta=1e6, kl_weight=0.1, objective="elbo", batch_size=7)
    assert other.score(X) == before


def test_score_tells_rows_from_noise(make_small, digits):
    X, _ = digits
    mvae = make_small(max_iter=30).fit(X[:400])
    noise = np.random.default_rng(0).permuted(X[400:], axis=1)
    assert (mvae.score_samples(X[400:]) > mvae.score_samples(noise).max()).mean() > 0.9


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_score_is_a_lower_bound_of_a_known_density(objective, make_small):
    """Held-out Gaussian rows: no model scores above the truth by more than the draws' error."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6000, 2)) @ np.array([[2.0, 0.0], [1.0, 0.5]])
    train, test = X[:3000], X[3000:]
    truth = GaussianMixture(1, random_state=0).fit(X).score(test)
    mvae = make_small(objective=objective, max_iter=20, learning_rate=1e-2).fit(train)
    score = mvae.score_samples(test, n_draws=400).mean()
    assert truth - 0.5 < score < truth + 0.02


@pytest.mark.parametrize("objective", ["mixture", "clusters"])
@pytest.mark.cpu
def test_each_component_learns_a_line_of_its_own(objective, make_small):
    """Rows on two lines: one code for each tells more than two codes for both."""
    rng = np.random.default_rng(0)
    line = np.repeat([0, 1], 300)
    directions, offsets = rng.normal(size=(2, 2, 10))
    X = rng.uniform(-2, 2, size=(600, 1)) * directions[line] + offsets[line]
    X += 0.05 * rng.normal(size=X.shape)
    settings = {"architecture": MLP((32,)), "learning_rate": 3e-3, "max_iter": 40}
    mvae = make_small(k=2, latent_dim=1, objective=objective, **settings).fit(X)
    assert adjusted_rand_score(line, mvae.predict(X)) > 0.95
    np.testing.assert_allclose(mvae.weights_, 0.5, atol=0.05)
    assert mvae.mixing_weights(X).max(axis=1).mean() > 0.9
    single = make_small(k=1, latent_dim=2, **settings).fit(X)
    assert mvae.score(X) > single.score(X) + 3.0


@pytest.mark.cpu
def test_minibatches_of_one_row_train_all_components_alike(make_small, digits):
    X, _ = digits
    mvae = make_small(objective="mixture", batch_size=1).fit(X[:50])
    np.testing.assert_allclose(mvae.weights_, 1 / 3, atol=0.1)


def test_feature_names_out(fitted):
    names = fitted.get_feature_names_out()
    assert list(names) == [f"mvaetransformer{i}" for i in range(6)]


@pytest.mark.parametrize(
    ("container", "frame"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)]
)
@pytest.mark.cpu
def test_set_output(container, frame, make_small, digits):
    X, _ = digits
    mvae = make_small().set_output(transform=container)
    out = mvae.fit_transform(X)
    assert isinstance(out, frame)
    assert list(out.columns) == list(mvae.get_feature_names_out())
    np.testing.assert_array_equal(
        out.to_numpy(), clone(mvae).set_output(transform="default").fit_transform(X)
    )


def test_data_frames_in(make_small, digits):
    X = pd.DataFrame(digits[0], columns=[f"pixel{i}" for i in range(64)])
    mvae = make_small().fit(X)
    assert list(mvae.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        mvae.transform(X[X.columns[::-1]])


@pytest.mark.cpu
def test_refit_forgets_the_previous_data(make_small, digits):
    X, _ = digits
    mvae = make_small().fit(pd.DataFrame(X, columns=[f"p{i}" for i in range(64)]))
    mvae.fit(X[:, :10])
    assert mvae.n_features_in_ == 10
    assert not hasattr(mvae, "feature_names_in_")
    np.testing.assert_array_equal(mvae.transform(X[:, :10]), make_small().fit_transform(X[:, :10]))


def test_parameters_set_after_fit_do_not_change_the_fitted_model(make_small, digits):
    X, _ = digits
    mvae = make_small().fit(X)
    codes = mvae.transform(X)
    mvae.set_params(k=7, latent_dim=9, likelihood="bernoulli", architecture=MLP((3,)))
    np.testing.assert_array_equal(mvae.transform(X), codes)
    assert len(mvae.get_feature_names_out()) == 6


def test_a_failed_refit_leaves_the_fitted_estimator(make_small, digits):
    X = pd.DataFrame(digits[0], columns=[f"pixel{i}" for i in range(64)])
    mvae = make_small().fit(X)
    before = dict(vars(mvae))
    codes = mvae.transform(X)
    for bad in (np.full((5, 3), np.nan), "nonsense", np.ones((5, 2, 2))):
        with pytest.raises(ValueError, match=r"NaN|convert|dim"):
            mvae.fit(bad)
    with pytest.raises(ValueError, match="diverged"):
        mvae.set_params(learning_rate=1e38).fit(np.random.default_rng(0).normal(size=(300, 5)))
    mvae.set_params(learning_rate=1e-3)
    assert vars(mvae).keys() == before.keys()
    assert all(
        vars(mvae)[name] is value for name, value in before.items() if name != "learning_rate"
    )
    np.testing.assert_array_equal(mvae.transform(X), codes)


def test_warm_start_continues(make_small, digits):
    X, _ = digits
    mvae = make_small(max_iter=5, warm_start=True).fit(X)
    first, mean, scale = mvae.history_["loss"], mvae.mean_, mvae.scale_
    mvae.fit(X[:300])
    assert mvae.n_iter_ == 10
    assert mvae.history_["loss"][:5] == first
    assert mvae.history_["loss"][5] < first[0]
    np.testing.assert_array_equal(mvae.mean_, mean)
    assert mvae.scale_ == scale


def test_warm_start_begins_the_schedule_again(make_small, digits):
    params = {"warm_start": True, "max_iter": 3, "learning_rate_schedule": "trapezoid"}
    mvae = make_small(**params).fit(digits[0]).fit(digits[0])
    rates = mvae.history_["learning_rate"]
    assert rates[:3] == rates[3:]
    assert max(rates[:3]) > 1.5 * rates[2]


def test_warm_start_does_not_repeat_the_draws(make_small, digits):
    """One epoch, twice: the second has another order of the rows and other noise."""
    X, _ = digits
    mvae = make_small(max_iter=1, warm_start=True, learning_rate=1e-30).fit(X).fit(X)
    first, second = mvae.history_["reconstruction"]
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


def test_warm_start_does_not_touch_the_previous_weights(make_small, digits):
    X, _ = digits
    mvae = make_small(warm_start=True).fit(X)
    previous = mvae._state
    copies = {name: array.copy() for name, array in previous.arrays.items()}
    mvae.fit(X)
    for name, copy in copies.items():
        np.testing.assert_array_equal(previous.arrays[name], copy)


def test_warm_start_with_early_stopping_later_fills_the_gap(make_small, digits):
    X, _ = digits
    mvae = make_small(warm_start=True).fit(X)
    mvae.set_params(early_stopping=True).fit(X)
    assert np.isnan(mvae.history_["validation_loss"][:2]).all()
    assert np.isfinite(mvae.history_["validation_loss"][2:]).all()


def test_warm_start_keeps_what_is_better_on_the_held_out_rows(make_small, digits):
    X, _ = digits
    mvae = make_small(warm_start=True, early_stopping=True, max_iter=5).fit(X)
    before = mvae.transform(X)
    mvae.set_params(max_iter=1, learning_rate=0.5).fit(X)
    assert mvae.history_["validation_loss"][-1] > mvae.history_["validation_loss"][-2]
    assert mvae.n_iter_ == 6
    np.testing.assert_array_equal(mvae.transform(X), before)
    mvae.set_params(max_iter=5, learning_rate=1e-3).fit(X)
    assert not np.array_equal(mvae.transform(X), before)


@pytest.mark.parametrize("random_state", [None, 0, np.random.RandomState(0)])
def test_warm_start_holds_out_the_same_rows(random_state, make_small, digits):
    X, _ = digits
    mvae = make_small(warm_start=True, early_stopping=True, random_state=random_state).fit(X)
    first = mvae._split_seed
    assert mvae.fit(X)._split_seed == first


class WithArray(MLP):
    def __init__(self, table=(0.0,)):
        super().__init__((8,))
        self.table = table


@pytest.mark.parametrize(
    ("before", "after"),
    [(MLP((8,)), MLP([np.int64(8)])), (WithArray(np.zeros(2000)), WithArray([0.0] * 2000))],
)
def test_warm_start_takes_an_architecture_that_means_the_same(before, after, make_small, digits):
    mvae = make_small(warm_start=True, architecture=before).fit(digits[0])
    assert mvae.set_params(architecture=after).fit(digits[0]).n_iter_ == 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WithArray(np.zeros(2000)), WithArray(np.eye(1, 2000, 600)[0])),
        (MLP((4,) * 40), MLP((4,) * 35 + (5,) + (4,) * 4)),
    ],
)
def test_warm_start_sees_what_repr_leaves_out(before, after, make_small, digits):
    mvae = make_small(warm_start=True, architecture=before, max_iter=1).fit(digits[0][:20])
    with pytest.raises(ValueError, match="which had architecture="):
        mvae.set_params(architecture=after).fit(digits[0][:20])


@pytest.mark.parametrize(
    "change",
    [{"k": 2}, {"latent_dim": 3}, {"architecture": MLP((8,))}, {"likelihood": "bernoulli"}],
)
def test_warm_start_refuses_another_shape(change, make_small, digits):
    X = digits[0] / 16
    mvae = make_small(warm_start=True).fit(X)
    (name,) = change
    with pytest.raises(ValueError, match=f"which had {name}="):
        mvae.set_params(**change).fit(X)
    with pytest.raises(ValueError, match="is expecting 64 features"):
        mvae.set_params(**{name: make_small().get_params(deep=False)[name]}).fit(X[:, :5])


def fitted_on(frame, make_small, how):
    """An estimator that goes on from a fit on the frame, by every way that leads to one."""
    mvae = make_small(warm_start=True).fit(frame)
    return {"fit": mvae, "prune": mvae.prune(0.2), "copy": deepcopy(mvae)}[how]


@pytest.mark.parametrize("how", ["fit", "prune", "copy"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_goes_on_with_the_same_columns_in_the_same_order(how, method, make_small):
    frame = load_iris(as_frame=True).data
    mvae = fitted_on(frame, make_small, how)
    codes = mvae.transform(frame)
    for other in (frame[frame.columns[::-1]], frame.rename(columns=str.upper)):
        with pytest.raises(ValueError, match="feature names should match"):
            getattr(mvae, method)(other)
    np.testing.assert_array_equal(mvae.transform(frame), codes)
    assert list(getattr(mvae, method)(frame).feature_names_in_) == list(frame.columns)
    reversed_frame = frame[frame.columns[::-1]]
    afresh = mvae.set_params(warm_start=False).fit(reversed_frame)
    assert list(afresh.feature_names_in_) == list(reversed_frame.columns)


@pytest.mark.parametrize("warm_start", [False, True])
def test_the_remedy_for_another_shape_works(warm_start, make_small, digits):
    """partial_fit goes on whatever warm_start is."""
    X, _ = digits
    mvae = make_small(warm_start=warm_start).fit(X).set_params(k=2)
    remedy = r"had k=3, but now k=2. Set k back, or begin anew: call fit with warm_start=False"
    with pytest.raises(ValueError, match=remedy):
        mvae.partial_fit(X)
    assert mvae.set_params(k=3).partial_fit(X).n_iter_ == 3
    assert mvae.set_params(k=2, warm_start=False).fit(X).partial_fit(X).n_iter_ == 3


@pytest.mark.parametrize(
    ("n_rows", "early_stopping", "batch_size"),
    [(20, False, 32), (450, False, 45), (500, True, 45), (2_000, False, 128)],
)
@pytest.mark.cpu
def test_default_batch_size_follows_the_rows(n_rows, early_stopping, batch_size, make_small):
    """Ten minibatches of the training rows an epoch, each of 32 to 128 rows."""
    X = np.random.default_rng(0).normal(size=(n_rows, 5))
    params = {"early_stopping": early_stopping, "batch_size": None}
    by_rule = make_small(**params).fit(X)
    by_hand = make_small(**params | {"batch_size": batch_size}).fit(X)
    other = make_small(**params | {"batch_size": batch_size - 13}).fit(X)
    assert by_rule.batch_size is None
    assert np.array_equal(by_rule.transform(X), by_hand.transform(X))
    assert not np.array_equal(by_rule.transform(X), other.transform(X))


def test_early_stopping_stops_and_reports(make_small, digits):
    mvae = make_small(early_stopping=True, max_iter=500, n_iter_no_change=3, learning_rate=0.03)
    mvae.fit(digits[0])
    assert mvae.n_iter_ < 500
    assert len(mvae.history_["validation_loss"]) == mvae.n_iter_
    best = min(mvae.history_["validation_loss"])
    assert best < mvae.history_["validation_loss"][-1]


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((20, 3)),
        np.full((20, 3), 0.1),
        np.tile([1.0, 2.0, 3.0], (20, 1)),
        np.ones((1, 3)),
        np.ones((2, 1)),
        np.repeat(np.arange(3.0), 2)[:, None],
    ],
    ids=["zeros", "constant", "equal rows", "one row", "one column", "duplicates"],
)
def test_degenerate_data_train(X, make_small):
    mvae = make_small(latent_dim=5).fit(X)
    assert np.isfinite(mvae.transform(X)).all()
    assert np.isfinite(mvae.reconstruct(X)).all()
    assert np.isfinite(mvae.score(X))
    assert mvae.batch_size == 128


def test_constant_columns_are_reconstructed(make_small):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=200), np.full(200, 1e4)])
    mvae = make_small(max_iter=20).fit(X)
    np.testing.assert_allclose(mvae.reconstruct(X)[:, 1], 1e4, rtol=1e-3)


def test_html_repr(fitted):
    html = fitted._repr_html_()
    assert "MVAETransformer" in html
    assert "latent_dim" in html


@settings(max_examples=30)
@given(data=st.data())
def test_any_finite_data_of_any_shape(data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.int32, np.uint8]))
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 6)))
    bounds = (
        {"min_value": 0, "max_value": 200}
        if np.issubdtype(dtype, np.integer)
        else {"min_value": -1e6, "max_value": 1e6}
    )
    X = data.draw(arrays(dtype, shape, elements=bounds, fill=st.nothing()))
    mvae = MVAETransformer(
        k=data.draw(st.integers(1, 4)),
        latent_dim=data.draw(st.integers(1, 4)),
        objective=data.draw(st.sampled_from(sorted(OBJECTIVES))),
        batch_size=data.draw(st.none() | st.integers(1, 40)),
        architecture=MLP((5,)),
        max_iter=2,
        random_state=0,
    )
    before = X.copy()
    Z = mvae.fit_transform(X)
    np.testing.assert_array_equal(X, before)
    assert Z.shape == (shape[0], mvae.k * mvae.latent_dim)
    assert Z.dtype == (np.float32 if dtype == np.float32 else np.float64)
    for result in (Z, mvae.inverse_transform(Z), mvae.reconstruct(X), mvae.score_samples(X)):
        assert np.isfinite(result).all()


def test_the_html_representation_links_to_the_reference():
    page = "https://skmvae.readthedocs.io/en/latest/generated/skmvae.MVAETransformer.html"
    assert page in MVAETransformer()._repr_html_()
