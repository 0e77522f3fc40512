"""The estimator as a user meets it: its attributes, its methods and their relations."""

import pickle
from copy import copy, deepcopy

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import assert_same_to_rounding
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
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
    assert fitted.n_features_in_ == 64
    assert not hasattr(fitted, "feature_names_in_")
    frame = pd.DataFrame(fitted.history_)
    terms = ["loss", "reconstruction", "kl_latent", "kl_mixing", "dhsic"]
    assert list(frame) == [*terms, "learning_rate", "seconds"]
    assert len(frame) == fitted.n_iter_ == 2


def test_bernoulli_has_no_units(make_small, digits):
    mvae = make_small(likelihood="bernoulli").fit(digits[0] / 16)
    assert (mvae.scale_, mvae.noise_variance_, set(mvae.mean_)) == (1.0, None, {0.0})
    reconstruction = mvae.reconstruct(digits[0] / 16)
    assert 0.0 <= reconstruction.min() < reconstruction.max() <= 1.0


def test_dhsic_is_nan_where_beta_is_zero(make_small, digits, tmp_path):
    """A checkpoint and a warm start keep it."""
    X, _ = digits
    mvae = make_small(beta=0.0, checkpoint_dir=tmp_path, warm_start=True, verbose=1).fit(X)
    assert list(mvae.history_) == list(make_small().fit(X).history_)
    assert np.isnan(mvae.history_["dhsic"]).all()
    assert np.isfinite(mvae.history_["loss"]).all()
    mvae.set_params(beta=2.0).fit(X)
    assert np.isnan(mvae.history_["dhsic"]).tolist() == [True, True, False, False]
    assert make_small(beta=0.0, checkpoint_dir=tmp_path).fit(X).n_iter_ == 2


def test_codes_are_component_major_and_reconstructions_weighted_sums(fitted, digits):
    X, _ = digits
    weights, labels, codes = fitted.mixing_weights(X), fitted.predict(X), fitted.transform(X)
    for i in range(3):
        expected = _encode_component(fitted, X, i)[:, :2]
        np.testing.assert_allclose(codes[:, 2 * i : 2 * i + 2], expected, atol=1e-5)
    assert weights.shape == (500, 3)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    assert labels.dtype == np.int64
    assert len(set(labels)) > 1
    np.testing.assert_array_equal(weights[np.arange(500), labels], weights.max(1))
    alone = np.stack([fitted.reconstruct(X, component=i) for i in range(3)])
    mixed = np.einsum("nk,knf->nf", weights, alone)
    np.testing.assert_allclose(fitted.reconstruct(X), mixed, atol=1e-4)
    assert len({a.tobytes() for a in alone}) == 3


def test_inverse_transform_weighs_each_decoder_by_its_own_encoder(fitted, digits):
    """Nothing but Z and the fitted state is used: no rows, no draws."""
    Z = fitted.transform(digits[0])
    alone = [_decode_component(fitted, Z, i) for i in range(3)]
    raw = [_encode_component(fitted, alone[i], i)[:, -1] for i in range(3)]
    concentration = np.logaddexp(0, np.stack(raw, axis=1)) + 1e-6
    concentration += 1e-3 * concentration.sum(1, keepdims=True)  # the smallest weight
    weights = concentration / concentration.sum(1, keepdims=True)
    expected = np.einsum("nk,knf->nf", weights, np.stack(alone))
    np.testing.assert_allclose(fitted.inverse_transform(Z), expected, atol=2e-3)
    for extreme in (1e6, -1e6):
        assert np.isfinite(fitted.inverse_transform(np.full((2, 6), extreme))).all()


def _encode_component(mvae, X, i):
    """Mean, raw standard deviation and raw concentration of component i, in NumPy."""
    arrays, h = mvae._state.arrays, (X - mvae.mean_) / mvae.scale_
    for layer in range(2):
        name = f"encoder.layers.{layer}"
        h = h @ arrays[f"{name}.weight"][i].astype(float) + arrays[f"{name}.bias"][i]
        h = np.maximum(h, 0) if layer == 0 else h
    return h


def _decode_component(mvae, Z, i):
    a, h = mvae._state.arrays, Z[:, 2 * i : 2 * i + 2]
    h = np.maximum(h @ a["decoder.layers.0.weight"][i] + a["decoder.layers.0.bias"][i], 0)
    h = h @ a["decoder.layers.1.weight"][i] + a["decoder.layers.1.bias"][i]
    return h * mvae.scale_ + mvae.mean_


def test_one_component_is_a_plain_vae(make_small, digits):
    X, _ = digits
    mvae = make_small(k=1).fit(X)
    assert (mvae.mixing_weights(X) == 1.0).all()
    np.testing.assert_array_equal(mvae.reconstruct(X), mvae.reconstruct(X, component=0))
    np.testing.assert_array_equal(mvae.inverse_transform(mvae.transform(X)), mvae.reconstruct(X))
    alone = mvae.sample(5, random_state=0, component=np.int64(0))
    np.testing.assert_array_equal(alone, mvae.sample(5, random_state=0))
    assert mvae.history_["dhsic"] == mvae.history_["kl_mixing"] == [0.0, 0.0]
    assert mvae.prune(0.999).k == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool, np.longdouble, object])
def test_results_are_float32_for_float32_and_float64_for_all_else(dtype, fitted, digits):
    X = digits[0].astype(dtype)
    Z, expected = fitted.transform(X), np.float32 if dtype == np.float32 else np.float64
    for result in (Z, fitted.mixing_weights(X), fitted.reconstruct(X), fitted.score_samples(X)):
        assert result.dtype == expected
    assert fitted.inverse_transform(Z).dtype == expected
    np.testing.assert_array_equal(Z, fitted.transform(X.astype(expected)))


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


def test_units_and_offsets_do_not_matter(make_small, digits):
    X, _ = digits
    plain, scaled = make_small().fit(X), make_small().fit(X * 1e8 + 1e9)
    np.testing.assert_allclose(scaled.transform(X * 1e8 + 1e9), plain.transform(X), atol=1e-3)
    assert scaled.noise_variance_ == pytest.approx(plain.noise_variance_ * 1e16, rel=1e-3)
    # A density in units of 1e8: log p is lower by n_features log 1e8.
    shift = 64 * np.log(1e8)
    assert scaled.score(X * 1e8 + 1e9) == pytest.approx(plain.score(X) - shift, abs=1e-1)
    # float32 has no digit left beside an offset of 1e9; samples keep theirs, too.
    X = (10**9 + np.random.default_rng(0).integers(0, 10, (50, 2))).astype(np.int64)
    mvae = make_small().fit(X.tolist())
    assert mvae.scale_ == pytest.approx(X.std(0).mean(), rel=0.1)
    assert len(np.unique(mvae.sample(50, random_state=0)[:, 0])) > 40


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_samples_of_one_component_are_the_output_of_its_decoder(likelihood, make_small, digits):
    """The same seed gives the same codes, whichever component decodes them."""
    mvae = make_small(likelihood=likelihood).fit(digits[0] / 16)
    alone = np.stack([mvae.sample(20, random_state=5, component=i) for i in range(3)])
    assert alone.dtype == np.float64
    assert mvae.sample().shape == (1, 64)
    assert not np.array_equal(mvae.sample(), mvae.sample())
    rows, component = mvae.sample(20, random_state=5, return_component=True)
    assert set(component) == {0, 1, 2}
    assert_same_to_rounding(rows, alone[component, np.arange(20)])
    np.testing.assert_array_equal(rows, mvae.sample(20, random_state=5))
    if likelihood == "gaussian":
        Z = np.tile(np.random.default_rng(5).standard_normal((20, 2)), 3)
        expected = np.stack([_decode_component(mvae, Z, i) for i in range(3)])
        assert_same_to_rounding(alone, expected)


def test_under_averaged_samples_blend_all_components(make_small, digits):
    mvae = make_small(objective="averaged").fit(digits[0])
    rng = np.random.default_rng(5)
    w, Z = rng.dirichlet([1 / 3] * 3, 20), rng.standard_normal((20, 6))
    alone = [_decode_component(mvae, Z, i) for i in range(3)]
    assert_same_to_rounding(mvae.sample(20, random_state=5), np.einsum("nk,knf->nf", w, alone))
    component = mvae.sample(2, component=np.uint8(1), return_component=True)[1]
    assert component.tolist() == [1, 1]
    assert component.dtype == np.int64
    with pytest.raises(ValueError, match="return_component=True, but rows blend all components"):
        mvae.sample(2, return_component=True)
    with pytest.raises(ValueError, match="noise must be a bool"):
        mvae.sample(2, noise="yes")


def test_components_are_drawn_and_scored_with_their_shares(make_small, digits):
    X, n = digits[0], 20_000
    mvae = with_weights(make_small().fit(X), 0.7, 0.25, 0.05)
    _, component = mvae.sample(n, random_state=0, return_component=True)
    np.testing.assert_allclose(np.bincount(component) / n, mvae.weights_, atol=0.015)
    of_one = []
    for i in range(3):
        shares = np.full(3, 1e-30)
        shares[i] = 1.0
        of_one.append(with_weights(mvae, *shares).score_samples(X))
    expected = logsumexp(np.stack(of_one), axis=0, b=mvae.weights_[:, np.newaxis])
    np.testing.assert_allclose(mvae.score_samples(X), expected, rtol=1e-6)
    pruned = mvae.prune(0.1)
    np.testing.assert_allclose(pruned._state.shares, [0.7 / 0.95, 0.25 / 0.95])


def test_noise_is_that_of_the_likelihood(make_small, digits):
    X = digits[0] / 16
    rows = make_small(likelihood="bernoulli").fit(X).sample(400, 0, component=0, noise=True)
    assert set(np.unique(rows)) == {0.0, 1.0}
    mvae = make_small().fit(100 * X)
    noise = mvae.sample(400, 0, component=0, noise=True) - mvae.sample(400, 0, component=0)
    assert noise.var() == pytest.approx(mvae.noise_variance_, rel=0.05)


@pytest.mark.parametrize("objective", ["mixture", "clusters"])
def test_samples_have_the_density_that_is_scored(objective):
    """Two parts of unequal share: with equal shares, or blends, samples would score otherwise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 3)) + np.where(rng.random((3000, 1)) < 0.1, 12.0, 0.0)
    mvae = MVAETransformer(2, 1, objective=objective, architecture=MLP((32,)), random_state=0)
    mvae.fit(X[:2000])
    samples, held_out = (
        mvae.score_samples(rows, n_draws=100)
        for rows in (mvae.sample(2000, 0, noise=True), X[2000:])
    )
    assert samples.mean() == pytest.approx(held_out.mean(), abs=0.25)
    # One part in ten: log 2 - H(0.1) = 0.37 nats are lost with equal shares.
    equal = with_weights(mvae, 0.5, 0.5).score_samples(X[2000:], n_draws=100)
    assert held_out.mean() - equal.mean() == pytest.approx(0.37, abs=0.05)


CONV = Conv((1, 8, 8), channels=(4, 6), strides=(2, 2))


def with_weights(mvae, *weights):
    """Return a copy with known ``weights_``, which are the shares of its components."""
    mvae = deepcopy(mvae)
    mvae.weights_ = np.array(weights)
    mvae._state = mvae._state.with_shares(mvae.weights_)
    return mvae


@pytest.mark.parametrize("params", [{}, {"architecture": CONV, "likelihood": "bernoulli"}], ids=str)
@pytest.mark.parametrize(
    ("weights", "kept"), [((0.5, 0.009, 0.491), [0, 2]), ((0.001, 0.99, 0.009), [1])]
)
def test_a_pruned_estimator_is_what_is_kept(weights, kept, params, make_small, digits):
    X, n_kept = digits[0] / 16, len(kept)
    mvae = with_weights(make_small(**params).fit(X), *weights)
    pruned = mvae.prune()
    assert type(pruned) is MVAETransformer
    assert pruned.k == n_kept
    codes = pruned.transform(X)
    whole = mvae.transform(X).reshape(len(X), 3, 2)
    assert_same_to_rounding(codes, whole[:, kept].reshape(len(X), -1))
    for new, old in enumerate(kept):
        assert_same_to_rounding(
            pruned.reconstruct(X, component=new), mvae.reconstruct(X, component=old)
        )
    least = 1e-3  # before the weights of a row are normalised
    raw = mvae.mixing_weights(X)[:, kept] * (1 + 3 * least) - least
    expected = (raw / raw.sum(1, keepdims=True) + least) / (1 + n_kept * least)
    np.testing.assert_allclose(pruned.mixing_weights(X), expected, atol=1e-9)
    np.testing.assert_allclose(pruned.weights_, mvae.weights_[kept] / sum(mvae.weights_[kept]))
    assert pruned.weights_.sum() == pytest.approx(1.0, rel=1e-12)
    for rows in (pruned.reconstruct(X), pruned.inverse_transform(codes), pruned.sample(3)):
        assert rows.shape[1] == 64
    assert np.isfinite(pruned.score_samples(X)).all()


def test_a_pruned_estimator_keeps_all_else(make_small, digits):
    X = pd.DataFrame(digits[0], columns=[f"pixel{i}" for i in range(64)])
    mvae = make_small(early_stopping=True).fit(X).set_output(transform="pandas")
    mvae = with_weights(mvae, 0.5, 0.001, 0.499)
    pruned = mvae.prune()
    for name in ("mean_", "scale_", "noise_variance_", "history_", "n_iter_", "feature_names_in_"):
        np.testing.assert_equal(getattr(pruned, name), getattr(mvae, name), err_msg=name)
    assert vars(pruned).keys() == vars(mvae).keys()
    assert list(pruned.transform(X).columns) == [f"mvaetransformer{i}" for i in range(4)]
    assert repr(pruned.get_params()) == repr(mvae.get_params() | {"k": 2})
    assert clone(pruned).k == 2
    for prior, expected in ((None, 1 / 2), (0.7, 0.7)):
        mvae = make_small(weight_concentration_prior=prior, max_iter=1).fit(X)
        pruned = with_weights(mvae, 0.5, 0.001, 0.499).prune()
        assert pruned._state.weight_concentration_prior == expected
        assert pruned.weight_concentration_prior is prior


def test_pruning_leaves_the_estimator_alone(fitted):
    mvae = with_weights(fitted, 0.5, 0.001, 0.499)
    content = pickle.dumps(mvae)
    for pruned in (mvae.prune(), mvae.prune(0.0)):
        for array in (*pruned._state.arrays.values(), pruned.mean_, pruned.weights_):
            array[...] = np.nan
        pruned.history_["loss"].append(np.nan)
        pruned.architecture.hidden_layer_sizes = (7,)
    assert pickle.dumps(mvae) == content
    mvae = with_weights(fitted, 0.25, 0.5, 0.25)
    assert mvae.prune(np.nextafter(0.25, 1.0)).k == 1
    for threshold in (0, 0.25):  # a component at the threshold is kept
        assert pickle.dumps(mvae.prune(threshold)) == pickle.dumps(deepcopy(mvae))


def test_training_continues_from_the_kept_components(fitted, digits):
    pruned = with_weights(fitted, 0.5, 0.001, 0.499).prune()
    before = pruned.reconstruct(digits[0])
    pruned.set_params(warm_start=True, learning_rate=1e-30).fit(digits[0])
    assert_same_to_rounding(pruned.reconstruct(digits[0]), before)
    pruned.set_params(learning_rate=1e-3, max_iter=3).fit(digits[0])
    assert not np.allclose(pruned.reconstruct(digits[0]), before)
    assert pruned.n_iter_ == len(pruned.history_["loss"]) == 2 + 2 + 3
    assert pruned.history_["loss"][:2] == fitted.history_["loss"]


def test_score_is_the_mean_of_score_samples_however_the_model_was_trained(
    fitted, digits, monkeypatch
):
    X, y = digits
    assert fitted.score(X) == pytest.approx(fitted.score_samples(X).mean(), rel=1e-6)
    assert fitted.score(X, y) == fitted.score(X)
    other = copy(fitted).set_params(beta=1e6, kl_weight=0.1, objective="elbo", batch_size=7)
    assert other.score(X) == fitted.score(X)
    # The bounds of 7 draws at a time are averaged as densities to the bound of 100 draws.
    whole = fitted.score_samples(X[:10], n_draws=100)
    monkeypatch.setattr(_inference, "_OUTPUTS_A_ROW", 7 * 3 * 64)
    assert_same_to_rounding(fitted.score_samples(X[:10], n_draws=100), whole)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_score_is_a_lower_bound_of_a_known_density(objective, make_small):
    """Held-out Gaussian rows: no model scores above the truth by more than the draws' error."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 2)) @ np.array([[2.0, 0.0], [1.0, 0.5]])
    train, test = X[:2500], X[2500:]
    truth = GaussianMixture(1, random_state=0).fit(X).score(test)
    mvae = make_small(objective=objective, max_iter=12, learning_rate=2e-2).fit(train)
    score = mvae.score_samples(test, n_draws=1000).mean()
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


@pytest.mark.cpu
def test_a_refit_forgets_the_previous_data_unless_it_fails(make_small, digits):
    X = digits[0]
    mvae = make_small().fit(pd.DataFrame(X, columns=[f"pixel{i}" for i in range(64)]))
    before = dict(vars(mvae))
    for bad in (np.full((5, 3), np.nan), "nonsense", np.ones((5, 2, 2))):
        with pytest.raises(ValueError, match=r"NaN|convert|dim"):
            mvae.fit(bad)
    with pytest.raises(ValueError, match="diverged"):
        mvae.set_params(learning_rate=1e38).fit(np.random.default_rng(0).normal(size=(300, 5)))
    mvae.set_params(learning_rate=1e-3)
    assert vars(mvae).keys() == before.keys()
    assert all(vars(mvae)[n] is value for n, value in before.items() if n != "learning_rate")
    mvae.fit(X[:, :10])
    assert mvae.n_features_in_ == 10
    assert not hasattr(mvae, "feature_names_in_")
    np.testing.assert_array_equal(mvae.transform(X[:, :10]), make_small().fit_transform(X[:, :10]))


def highest_rate(mvae, X):
    """The rate of the fourth of ten epochs, by when a trapezoid has risen and not yet fallen."""
    return mvae.set_params(learning_rate=None, max_iter=10).fit(X).history_["learning_rate"][3]


def test_learning_rate_none_is_what_the_architecture_asks_for(make_small, digits):
    X = digits[0][:64]

    class Own(MLP):
        default_learning_rate = 0.01

    class Silent(BaseEstimator):
        def build(self, n_features, latent_dim, k):
            return MLP((8,)).build(n_features, latent_dim, k)

    conv = Conv((1, 8, 8), channels=(4,), strides=(2,))
    wide = Conv((1, 8, 8), channels=(256,), strides=(1,))  # 16,384 numbers to the linear layer
    rates = {None: 3e-3, MLP((8,)): 3e-3, Silent(): 3e-3, conv: 3e-3, wide: 1.5e-3}
    rates[Own((8,))] = 0.01
    for architecture, rate in rates.items():
        mvae = make_small(architecture=architecture, learning_rate_schedule="trapezoid")
        assert highest_rate(mvae, X) == pytest.approx(rate)
        mvae.set_params(learning_rate_schedule="constant")
        assert highest_rate(mvae, X) == pytest.approx(rate / 3)
        mvae = clone(mvae).partial_fit(X)
        assert mvae.history_["learning_rate"] == pytest.approx([rate / 3])


def test_a_learning_rate_that_an_architecture_asks_for_is_checked(make_small, digits):
    class Wrong(MLP):
        default_learning_rate = -1.0

    with pytest.raises(
        ValueError, match=r"default_learning_rate of Wrong\(\) must be .* Got -1\.0"
    ):
        make_small(architecture=Wrong(), learning_rate=None).fit(digits[0])


def test_warm_start_continues(make_small, digits):
    """The second fit begins the schedule again, but not the order of the rows and the noise."""
    X, _ = digits
    params = {"warm_start": True, "max_iter": 5, "learning_rate_schedule": "trapezoid"}
    mvae = make_small(**params).fit(X)
    first, mean, scale, earlier = mvae.history_["loss"], mvae.mean_, mvae.scale_, copy(mvae)
    codes = mvae.transform(X)
    mvae.fit(X[:300])
    assert mvae.n_iter_ == 10
    assert mvae.history_["loss"][:5] == first
    assert mvae.history_["loss"][5] < first[0]
    rates = mvae.history_["learning_rate"]
    assert rates[:4] == pytest.approx(rates[5:9], rel=0.1)
    assert max(rates[:5]) > 1.5 * rates[4]
    np.testing.assert_array_equal(mvae.mean_, mean)
    assert mvae.scale_ == scale
    np.testing.assert_array_equal(earlier.transform(X), codes)  # its arrays were not written to
    mvae = make_small(max_iter=1, warm_start=True, learning_rate=1e-30).fit(X).fit(X)
    first, second = mvae.history_["reconstruction"]
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


@pytest.mark.parametrize("random_state", [None, 0])
def test_warm_start_keeps_what_is_better_on_the_same_held_out_rows(
    random_state, make_small, digits
):
    """The rows that the parameters were trained on are no judges of them."""
    X, params = digits[0], {"random_state": random_state, "max_iter": 5}
    mvae = make_small(warm_start=True, early_stopping=True, **params).fit(X)
    before, split = mvae.transform(X), mvae._split_seed
    mvae.set_params(max_iter=1, learning_rate=0.5).fit(X)
    assert mvae._split_seed == split
    assert mvae.history_["validation_loss"][-1] > mvae.history_["validation_loss"][-2]
    assert mvae.n_iter_ == 6
    np.testing.assert_array_equal(mvae.transform(X), before)
    mvae.set_params(max_iter=5, learning_rate=1e-3).fit(X)
    assert not np.array_equal(mvae.transform(X), before)


@pytest.mark.parametrize("change", [{"k": 2}, {"latent_dim": 3}, {"likelihood": "bernoulli"}])
def test_training_continues_with_the_same_shapes_alone(change, make_small, digits):
    """Parameters that are set after a fit leave what it made; the message has the remedy."""
    X, (name,) = digits[0] / 16, change
    mvae = make_small(warm_start=True).fit(X)
    codes = mvae.transform(X)
    mvae.set_params(**change)
    np.testing.assert_array_equal(mvae.transform(X), codes)
    for method in (mvae.fit, mvae.partial_fit):
        with pytest.raises(ValueError, match=f"had {name}=.*call fit with warm_start=False"):
            method(X)
    assert mvae.set_params(warm_start=False).fit(X).partial_fit(X).n_iter_ == 3
    # The repr of an architecture leaves out the middle of a long tuple.
    sizes = (4,) * 40
    mvae = make_small(warm_start=True, architecture=MLP(sizes), max_iter=1).fit(X[:20])
    assert mvae.set_params(architecture=MLP([np.int64(4)] * 40)).fit(X[:20]).n_iter_ == 2
    with pytest.raises(ValueError, match="which had architecture="):
        mvae.set_params(architecture=MLP((*sizes[:20], 5, *sizes[21:]))).fit(X[:20])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_continues_with_the_same_columns_in_the_same_order(method, make_small):
    frame = load_iris(as_frame=True).data
    mvae = make_small(warm_start=True).fit(frame)
    for estimator in (mvae, mvae.prune(0.2), deepcopy(mvae)):
        for other in (frame[frame.columns[::-1]], frame.rename(columns=str.upper)):
            with pytest.raises(ValueError, match="feature names should match"):
                getattr(estimator, method)(other)
        assert list(getattr(estimator, method)(frame).feature_names_in_) == list(frame.columns)
    other = frame[frame.columns[::-1]]
    assert list(mvae.set_params(warm_start=False).fit(other).feature_names_in_) == list(other)


@pytest.mark.parametrize(
    ("n_rows", "stopping", "size"), [(20, False, 32), (500, True, 45), (2_000, False, 128)]
)
@pytest.mark.cpu
def test_default_batch_size_follows_the_rows(n_rows, stopping, size, make_small):
    """Ten minibatches of the training rows an epoch, each of 32 to 128 rows."""
    X = np.random.default_rng(0).normal(size=(n_rows, 5))
    by_rule, by_hand, other = (
        make_small(early_stopping=stopping, batch_size=given).fit_transform(X)
        for given in (None, size, size - 13)
    )
    assert np.array_equal(by_rule, by_hand)
    assert not np.array_equal(by_rule, other)


@settings(max_examples=30)
@given(data=st.data())
def test_any_finite_data_of_any_shape(data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.int32, np.uint8]))
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 6)))
    low, high = (0, 200) if np.issubdtype(dtype, np.integer) else (-1e6, 1e6)
    bounds = {"min_value": low, "max_value": high}
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
