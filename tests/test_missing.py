"""Rows with holes, from end to end: NaN is a value that was not observed."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from networks import small_estimator
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_wine
from sklearn.impute import SimpleImputer
from sklearn.metrics import adjusted_rand_score
from torch import nn

import skmvae
from skmvae import plotting
from skmvae._state import NetworkState
from skmvae.architectures import ComponentLinear, Conv
from skmvae.metrics import neighbor_purity, reconstruction_error
from skmvae.onnx import export

OBJECTIVES = ("melbo", "averaged", "elbo", "mixture", "clusters")


def table(n=200, n_features=5, fraction=0.3, seed=0):
    """Rows near a plane, with holes; row 3 has nothing else."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2)) @ rng.normal(size=(2, n_features)) + 0.1 * rng.normal(
        size=(n, n_features)
    )
    X[rng.random(X.shape) < fraction] = np.nan
    X[3] = np.nan
    return X


def in_unit_interval(X):
    return (X - np.nanmin(X)) / (np.nanmax(X) - np.nanmin(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_method_takes_rows_with_holes(objective, likelihood, dtype):
    X = in_unit_interval(table()).astype(dtype)
    before = X.copy()
    mvae = small_estimator(objective=objective, likelihood=likelihood, max_iter=2).fit(X)
    found = [mvae.transform(X), mvae.mixing_weights(X), mvae.reconstruct(X), mvae.impute(X, 4)]
    found += [mvae.reconstruct(X, component=1), mvae.impute(X, 4, random_state=0)]
    for values in (*found, mvae.score_samples(X)):
        assert values.dtype == dtype
        assert np.isfinite(values).all()
    assert np.isfinite(mvae.score(X))
    assert mvae.predict(X).shape == (200,)
    assert np.isfinite(mvae.partial_fit(X).transform(X)).all()
    np.testing.assert_array_equal(X, before)


def test_options_of_fit_take_rows_with_holes(tmp_path):
    X = table(n=150, n_features=9)
    conv = Conv((1, 3, 3), channels=(4,), strides=(1,))
    for params in (
        {"neighbor_weight": 0.1, "early_stopping": True},
        {"architecture": conv},
        {"objective": "clusters", "checkpoint_dir": tmp_path, "precision": "bfloat16"},
    ):
        mvae = small_estimator(max_iter=2, **params).fit(X)
        assert np.isfinite(mvae.transform(X)).all()
        assert not np.isnan(mvae.impute(X, 3)).any()
        assert all(type(loss) is float for loss in mvae.history_["loss"])


@pytest.mark.cpu
def test_a_fit_of_rows_with_holes_goes_on_from_its_checkpoint(tmp_path):
    X = table()
    params = {"learning_rate_schedule": "constant", "neighbor_weight": 0.1}
    expected = small_estimator(max_iter=4, **params).fit(X)
    small_estimator(max_iter=2, checkpoint_dir=tmp_path, **params).fit(X)
    found = small_estimator(max_iter=4, checkpoint_dir=tmp_path, **params).fit(X)
    assert found.history_["loss"] == expected.history_["loss"]
    np.testing.assert_array_equal(found.transform(X), expected.transform(X))


@pytest.mark.cpu
def test_units_are_those_of_what_was_observed():
    X = table(n=2000)
    mvae = small_estimator(max_iter=1).fit(X)
    np.testing.assert_allclose(mvae.mean_, np.nanmean(X, axis=0), rtol=1e-12)
    assert mvae.scale_ == pytest.approx(np.sqrt(np.nanmean((X - mvae.mean_) ** 2)), rel=1e-12)


def test_one_hole_in_the_last_row_is_seen():
    X = np.nan_to_num(table(n=1500))
    X[-1, 2] = np.nan
    mvae = small_estimator(max_iter=1).fit(X)
    assert np.isfinite(mvae.impute(X)).all()


def test_noise_variance_counts_observed_values_alone():
    """Where three values in four are missing, counting them would make it a quarter."""
    rng = np.random.default_rng(0)
    X = 5.0 + 2.0 * rng.normal(size=(2000, 4))
    X[rng.random(X.shape) < 0.75] = np.nan
    mvae = small_estimator(latent_dim=1, kl_weight=100.0, max_iter=20).fit(X)
    assert mvae.noise_variance_ == pytest.approx(4.0, rel=0.1)


@pytest.mark.cpu
def test_what_a_nan_looks_like_and_how_rows_are_stored_does_not_matter(tmp_path):
    X = table()
    other = X.copy()
    other.view(np.uint64)[np.isnan(X)] ^= 2**63 + 12345  # sign and payload
    masked = np.ma.masked_array(np.where(np.isnan(X), 1e9, X), np.isnan(X))
    mvae = small_estimator(max_iter=2, checkpoint_dir=tmp_path).fit(X)
    expected = mvae.transform(X)
    for same in (other, masked, torch.tensor(X), sparse.csr_array(X), pa_table(X), pl.DataFrame(X)):
        found = small_estimator(max_iter=2).fit(same)
        np.testing.assert_allclose(found.transform(same), expected, atol=1e-5)
        again = small_estimator(max_iter=2, checkpoint_dir=tmp_path).fit(same)
        assert again.history_["seconds"] == mvae.history_["seconds"]  # found by its checkpoint


def pa_table(X):
    columns = [pa.array(column, mask=np.isnan(column)) for column in X.T]
    return pa.table(dict(zip("abcdefghi", columns, strict=False)))


@pytest.mark.cpu
def test_integers_with_holes_are_taken_from_every_container():
    X = np.random.default_rng(0).integers(9, size=(50, 3)).astype(float)
    X[::7, 1] = np.nan
    rows = [[None if np.isnan(v) else int(v) for v in row] for row in X]
    integers = np.ma.masked_array(np.nan_to_num(X).astype(int), np.isnan(X))
    expected = small_estimator(max_iter=1).fit(X).transform(X)
    for same in (rows, integers, pd.DataFrame(rows).astype("Int64"), np.array(rows, dtype=object)):
        np.testing.assert_array_equal(
            small_estimator(max_iter=1).fit(same).transform(same), expected
        )


@pytest.mark.cpu
def test_rows_without_holes_are_as_before_beside_rows_with_some():
    X = np.nan_to_num(table())
    mvae = small_estimator(max_iter=2, objective="elbo").fit(table())
    beside = np.vstack([X, table()])
    for method in ("transform", "mixing_weights", "reconstruct", "score_samples"):
        found = getattr(mvae, method)(beside)[: len(X)]
        np.testing.assert_allclose(found, getattr(mvae, method)(X), rtol=1e-9, atol=1e-12)


def test_a_row_of_nothing_has_the_priors_code():
    X = table()
    mvae = small_estimator(max_iter=3, objective="mixture").fit(X)
    nothing = X[3:4]
    assert (mvae.transform(nothing) == 0.0).all()
    np.testing.assert_allclose(mvae.mixing_weights(nothing)[0], mvae.weights_, rtol=1e-6)
    assert mvae.score_samples(nothing)[0] == pytest.approx(0.0, abs=1e-9)  # p = 1
    expected = mvae.sample(20_000, 0).mean(0)
    np.testing.assert_allclose(mvae.impute(nothing, 20_000)[0], expected, atol=0.05)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_column_without_a_value(likelihood):
    X = in_unit_interval(table())
    X[:, 2] = np.nan
    mvae = small_estimator(max_iter=2, likelihood=likelihood).fit(X)
    assert mvae.mean_[2] == 0.0
    for rows in (mvae.impute(X), mvae.reconstruct(X), mvae.sample(5), mvae.impute(X, 2, 0)):
        assert np.isfinite(rows).all()
    for rows in (mvae.impute(X), mvae.impute(X, 2, 0), mvae.sample(5, noise=True)):
        assert (rows[:, 2] == 0.0).all()
    complete = np.nan_to_num(X, nan=0.5)
    assert np.isfinite(mvae.transform(complete)).all()
    assert (mvae.impute(complete) == complete).all()


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_column_whose_values_come_with_a_later_chunk(likelihood):
    X = np.random.default_rng(0).uniform(0.4, 1.0, size=(200, 3))
    offset = 100.0 if likelihood == "gaussian" else 0.0
    X[:, 1] += offset
    first = X.copy()
    first[:, 1] = np.nan
    mvae = small_estimator(likelihood=likelihood).partial_fit(first)
    assert (mvae.impute(first)[:, 1] == 0.0).all()
    for _ in range(60):
        mvae.partial_fit(X)
    assert 0.4 < mvae.impute(first)[:, 1].mean() - offset < 0.9


def test_a_column_that_is_missing_only_later():
    X = np.nan_to_num(table(n=500), nan=0.0)
    mvae = small_estimator(max_iter=30, objective="elbo").fit(X)
    holes = X.copy()
    holes[:, 4] = np.nan
    error = (mvae.impute(holes) - X)[:, 4].std()
    assert error < X[:, 4].std()


def test_nothing_at_all_is_refused_and_nothing_is_lost():
    mvae = small_estimator(max_iter=1).fit(table())
    before = mvae.transform(table())
    for fit in (mvae.fit, mvae.partial_fit, small_estimator().partial_fit):
        for nothing in (np.full((5, 5), np.nan), sparse.csr_array(np.full((5, 5), np.nan))):
            with pytest.raises(ValueError, match=r"no value was observed.*at least one row"):
                fit(nothing)
    np.testing.assert_array_equal(mvae.transform(table()), before)


@pytest.mark.parametrize("objective", ["mixture", "clusters"])
def test_rows_of_nothing_are_no_part_and_teach_nothing(objective):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    X = 0.3 * rng.normal(size=(400, 5)) + np.where(y[:, None] == 0, -2.0, 2.0)
    is_empty = rng.random(400) < 0.3
    X[is_empty] = np.nan
    mvae = small_estimator(objective=objective, max_iter=15).fit(X)
    found = mvae.predict(X)[~is_empty]
    assert adjusted_rand_score(found, y[~is_empty]) == 1.0
    np.testing.assert_allclose(mvae.weights_, np.bincount(found) / len(found), atol=0.01)


def test_what_is_stored_twice_in_sparse_rows_is_one_hole():
    twice = sparse.csr_array(([np.nan, np.nan, 1.0, 2.0], [0, 0, 1, 1], [0, 3, 4]), shape=(2, 2))
    mvae = small_estimator(max_iter=1).fit(twice)
    np.testing.assert_array_equal(mvae.mean_, [0.0, 1.5])
    filled = mvae.impute(twice).toarray()
    assert filled[0, 1] == 1.0
    assert np.isfinite(filled).all()


def test_infinity_is_no_hole():
    X = table()
    mvae = small_estimator(max_iter=1).fit(X)
    X[5, 1] = -np.inf
    for method in (mvae.fit, mvae.partial_fit, mvae.transform, mvae.impute, mvae.score):
        with pytest.raises(ValueError, match="infinity"):
            method(X)


# ---- Filling


class Linear(BaseEstimator):
    """A mixture of probabilistic PCAs."""

    def build(self, n_features, latent_dim, k):
        return Plain(k, n_features, 2 * latent_dim + 1), Plain(k, latent_dim, n_features)


class Plain(nn.Module):
    def __init__(self, k, n_in, n_out):
        super().__init__()
        self.linear = ComponentLinear(k, n_in, n_out)

    def forward(self, h, generator=None):
        return self.linear(h)


def gaussians():
    """An estimator whose density is 0.3 N(b_0, W_0 W_0' + v I) + 0.7 N(b_1, ...), and those."""
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(2, 2, 4)), np.array([[0.0] * 4, [3.0, -2.0, 1.0, 2.0]])
    mvae = small_estimator(latent_dim=2, architecture=Linear(), max_iter=1)
    mvae.fit(rng.normal(size=(50, 4)))
    state = mvae._state
    raw_variance = np.log(np.expm1(0.25 - 1e-4))
    # The encoders say N(0, 1) of all rows, apart from rounding.
    encoder_bias = np.zeros((2, 1, 5))
    encoder_bias[:, :, 2:] = np.log(np.expm1(1.0))
    arrays = {
        "encoder.linear.weight": np.zeros((2, 4, 5)),
        "encoder.linear.bias": encoder_bias,
        "decoder.linear.weight": W,
        "decoder.linear.bias": b[:, None],
        "likelihood.raw_variance": np.array(raw_variance),
    }
    values = vars(state) | {
        "arrays": {name: array.astype(np.float32) for name, array in arrays.items()},
        "mean": np.zeros(4),
        "scale": 1.0,
        "shares": np.array([0.3, 0.7]),
    }
    mvae._state = NetworkState(**values)
    covariances = np.einsum("kdf,kdg->kfg", W, W) + 0.25 * np.eye(4)
    return mvae, b, covariances


def conditional(x, means, covariances, shares):
    """Mean and covariance of the missing columns of x, given the others, and log p of those."""
    hole = np.isnan(x)
    moments, log_p = [], []
    for m, C, s in zip(means, covariances, shares, strict=True):
        S = C[np.ix_(~hole, ~hole)]
        d = (x - m)[~hole]
        gain = C[np.ix_(hole, ~hole)] @ np.linalg.inv(S)
        moments.append((m[hole] + gain @ d, C[np.ix_(hole, hole)] - gain @ C[np.ix_(~hole, hole)]))
        log_det = np.linalg.slogdet(2 * np.pi * S)[1]
        log_p.append(np.log(s) - 0.5 * (log_det + d @ np.linalg.inv(S) @ d))
    r = np.exp(log_p - np.logaddexp(*log_p))
    mean = sum(w * m for w, (m, _) in zip(r, moments, strict=True))
    second = sum(w * (C + np.outer(m, m)) for w, (m, C) in zip(r, moments, strict=True))
    return mean, second - np.outer(mean, mean), np.logaddexp(*log_p)


X_WITH_HOLES = np.array(
    [[0.5, np.nan, 0.2, np.nan], [np.nan, -1.0, np.nan, 1.5], [2.0, -1.0, np.nan, 1.0]]
)


def test_the_mean_of_holes_and_the_score_are_those_of_gaussian_mixtures():
    mvae, means, covariances = gaussians()
    filled, scores = mvae.impute(X_WITH_HOLES, 20_000), mvae.score_samples(X_WITH_HOLES, 20_000)
    for x, found, score in zip(X_WITH_HOLES, filled, scores, strict=True):
        mean, _, log_p = conditional(x, means, covariances, [0.3, 0.7])
        np.testing.assert_allclose(found[np.isnan(x)], mean, atol=0.04)
        np.testing.assert_array_equal(found[~np.isnan(x)], x[~np.isnan(x)])
        assert score == pytest.approx(log_p, abs=0.06)


def test_draws_have_the_distribution_of_the_holes():
    mvae, means, covariances = gaussians()
    x = X_WITH_HOLES[0]
    draws = np.array([mvae.impute([x], 200, random_state=seed)[0] for seed in range(1500)])
    assert (draws[:, [0, 2]] == x[[0, 2]]).all()
    mean, covariance, _ = conditional(x, means, covariances, [0.3, 0.7])
    np.testing.assert_allclose(draws[:, [1, 3]].mean(0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(draws[:, [1, 3]].T), covariance, atol=0.12)
    np.testing.assert_array_equal(mvae.impute([x], 200, random_state=3)[0], draws[3])


def test_draws_of_binary_columns_are_binary():
    X = (np.random.default_rng(0).random((100, 4)) < 0.3).astype(float)
    X[::2, 1] = np.nan
    mvae = small_estimator(likelihood="bernoulli", max_iter=3).fit(X)
    assert set(np.unique(mvae.impute(X, 5, random_state=0))) == {0.0, 1.0}
    assert 0.0 < mvae.impute(X, 5)[0, 1] < 1.0


@pytest.mark.cpu
def test_filling_does_not_depend_on_how_many_rows_or_draws_are_taken_at_once(monkeypatch):
    X = table()
    mvae = small_estimator(max_iter=3, objective="elbo").fit(X)
    mean, draw = mvae.impute(X, 50), mvae.impute(X, 50, random_state=1)
    monkeypatch.setitem(skmvae._rows.scaled._BLOCK_ROWS, "cpu", 7)
    np.testing.assert_allclose(mvae.impute(X, 50), mean, rtol=1e-9)
    np.testing.assert_allclose(mvae.impute(X, 50, random_state=1), draw, rtol=1e-9)
    np.testing.assert_allclose(mvae.impute(X[:99], 50, random_state=1), draw[:99], rtol=1e-9)
    monkeypatch.setattr(skmvae._inference, "_OUTPUTS_A_ROW", 30)
    np.testing.assert_allclose(mvae.impute(X, 50), mean, rtol=1e-9)


def frame_of(X):
    """A pandas frame with a column of each kind, and names and an index of its own."""
    frame = pd.DataFrame(X, columns=list("abcde"), index=np.arange(len(X)) + 7)
    return frame.assign(
        a=frame.a.astype("Float32"),
        b=frame.b.round().astype("Int64"),
        c=frame.c.astype(np.float32),
        d=np.arange(len(X)),
    )


def test_a_data_frame_comes_back_as_one():
    frame = frame_of(table())
    before = frame.copy()
    filled = small_estimator(max_iter=1).fit(frame).impute(frame, 4)
    types = ["Float32", "float64", "float32", "int64", "float64"]
    assert filled.dtypes.astype(str).to_list() == types
    assert filled.index.equals(frame.index)
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(
        filled[frame.notna()], frame[frame.notna()], check_dtype=False, check_exact=True
    )
    pd.testing.assert_frame_equal(frame, before)


def test_polars_and_pyarrow_come_back_as_they_came():
    frame = pl.DataFrame(frame_of(table())[["b", "c", "d", "e"]])
    frame = frame.with_columns(pl.col("c", "e").fill_nan(None))
    mvae = small_estimator(max_iter=1).fit(frame)
    filled = mvae.impute(frame, 4)
    assert filled.schema == {"b": pl.Float64, "c": pl.Float32, "d": pl.Int64, "e": pl.Float64}
    assert filled.null_count().sum_horizontal()[0] == 0
    for name in frame.columns:
        seen = frame[name].is_not_null()
        assert (filled[name].filter(seen) == frame[name].filter(seen)).all()
    arrow = mvae.impute(frame.to_arrow(), 4)
    batch = frame.to_arrow().to_batches()[0]
    assert small_estimator(max_iter=1).fit(batch).impute(batch).schema == arrow.schema
    assert arrow.schema.types == [pa.float64(), pa.float32(), pa.int64(), pa.float64()]
    assert pl.DataFrame(arrow).equals(filled)


def test_sparse_rows_stay_sparse():
    X = table()
    X[X < 0.3] = 0.0
    mvae = small_estimator(max_iter=1).fit(X)
    rows = sparse.csr_array(X)
    filled = mvae.impute(rows, 4)
    np.testing.assert_array_equal(filled.toarray(), mvae.impute(X, 4))
    np.testing.assert_array_equal(rows.toarray(), X)


# ---- Elsewhere


def test_threads_may_fill_at_once():
    X = table()
    mvae = small_estimator(max_iter=2).fit(X)
    expected = mvae.impute(X, 8)
    for _ in range(3):
        fresh = copy.deepcopy(mvae)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _, fresh=fresh: fresh.impute(X, 8), range(8)):
                np.testing.assert_array_equal(found, expected)


def test_saved_models_know_what_to_put_for_holes(tmp_path):
    X = in_unit_interval(table())
    X[:, 4] = np.nan
    mvae = small_estimator(likelihood="bernoulli", max_iter=2).fit(X)
    mvae.save(tmp_path / "model.safetensors")
    loaded = skmvae.load(tmp_path / "model.safetensors")
    for method in ("transform", "impute", "score_samples"):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(mvae, method)(X))


def test_an_onnx_file_takes_holes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    X = in_unit_interval(table()).astype(np.float32)
    mvae = small_estimator(likelihood="bernoulli", objective="mixture", max_iter=2).fit(X)
    export(mvae, tmp_path / "model.onnx")
    codes, weights = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"X": X})
    np.testing.assert_allclose(codes, mvae.transform(X), atol=1e-5)
    np.testing.assert_allclose(weights, mvae.mixing_weights(X), atol=1e-5)


def test_measures_are_of_what_was_observed():
    X = np.array([[1.0, np.nan], [2.0, 4.0]])
    found = [reconstruction_error(X, np.zeros((2, 2)), kind=kind) for kind in ("sum", "mean")]
    assert found == [(1.0 + 4.0 + 16.0) / 2, (1.0 + 4.0 + 16.0) / 3]
    with pytest.raises(ValueError, match="reconstruction contains NaN"):
        reconstruction_error(X, X)
    with pytest.raises(ValueError, match="X has no value that was observed"):
        reconstruction_error(X[:1, 1:], [[0.0]])
    # Complete rows are near by their distance, as they were before there were holes.
    assert neighbor_purity(*load_wine(return_X_y=True)) == pytest.approx(0.668, abs=0.004)
    X, y = load_digits(return_X_y=True)
    X[np.random.default_rng(0).random(X.shape) < 0.5] = np.nan
    means = SimpleImputer().fit_transform(X)
    assert neighbor_purity(X, y) > neighbor_purity(means, y) + 0.05


def test_displays_draw_rows_with_holes():
    X = table(n_features=4)
    mvae = small_estimator(max_iter=1).fit(X)
    plotting.LatentSpaceDisplay.from_estimator(mvae, X)
    for rows in (X[:3], np.ma.masked_invalid(X[:3]), pd.DataFrame(X[:3]).astype("Float64")):
        display = plotting.ReconstructionDisplay.from_estimator(mvae, rows, image_shape=(2, 2))
        np.testing.assert_array_equal(display.original, X[:3])
        for image in (ax.images[0] for ax in display.axes_.flat):
            assert image.get_clim() == (np.nanmin(X[:3]), np.nanmax(X[:3]))
    plotting.ReconstructionDisplay.from_estimator(mvae, X[:3])
