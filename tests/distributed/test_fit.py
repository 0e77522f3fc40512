"""Whole fits of several ranks: one model, of the rows of all, or the same refusal everywhere."""

import io
import re
import tempfile
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch.distributed as dist
from networks import small_estimator
from processes import run, values
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from torch import nn

import skmvae.distributed
from skmvae.architectures import MLP, Conv

X = load_digits().data[:300]
FRAME = pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
HALVES = [150, 150]

small = partial(small_estimator, k=3, max_iter=3, precision="float32")


def shard(rows, rank, sizes):
    ends = np.cumsum(sizes)
    return rows[ends[rank] - sizes[rank] : ends[rank]]


def fitted(say, rank, mvae, rows, sizes):
    mvae = skmvae.distributed.fit(mvae, shard(rows, rank, sizes), timeout=60)
    return mvae, joblib.hash({name: v for name, v in vars(mvae).items() if name != "device"})


def the_model(folder, mvae, rows, sizes):
    """Return the model of all ranks, that have it to the bit."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    found = values(fitted, len(sizes), folder, mvae, rows, sizes)
    assert len({digest for _, digest in found}) == 1
    return found[0][0]


@pytest.mark.parametrize("sizes", [HALVES, [1, 200, 99]])
def test_it_is_one_model_of_the_rows_of_all_and_repeats_to_the_bit(sizes, tmp_path):
    mvae, again = (the_model(tmp_path, small(), X, sizes) for _ in range(2))
    assert joblib.hash(mvae._state.arrays) == joblib.hash(again._state.arrays)
    np.testing.assert_allclose(mvae.mean_, X.mean(axis=0), rtol=1e-12)
    assert mvae.scale_ == pytest.approx(np.sqrt(X.var(axis=0).mean()), rel=1e-12)
    np.testing.assert_allclose(mvae.weights_, mvae.mixing_weights(X).mean(axis=0), rtol=1e-6)
    assert mvae.n_iter_ == len(mvae.history_["loss"]) == 3
    # The shuffling differs from that of one process, and so does the last digit's luck.
    alone = small().fit(X)
    assert mvae.history_["loss"][-1] == pytest.approx(alone.history_["loss"][-1], rel=0.02)


FITS = {
    "sparse": (small(), sparse.csr_matrix(X)),
    "data frame": (small(), FRAME),
    "neighbours": (small(neighbor_weight=0.1), X),
    "table of pyarrow": (small(), pa.table(dict(FRAME))),  # whose columns are its values
    "bernoulli": (small(likelihood="bernoulli", objective="averaged"), X / 16),
    "dropout": (small(architecture=MLP((16,), dropout=0.3)), X),
    "images": (small(architecture=Conv((1, 8, 8), channels=(4, 8), strides=(2, 2))), X),
    "early stopping": (small(early_stopping=True, max_iter=30, n_iter_no_change=2, tol=5.0), X),
    "any seed": (small(random_state=None), X),
    "bfloat16": (small(precision="bfloat16"), X),
}


@pytest.mark.parametrize("kind", FITS)
def test_all_ranks_end_alike(kind, tmp_path):
    mvae, rows = FITS[kind]
    found = the_model(tmp_path, mvae, rows, [120, 180])
    assert np.isfinite(found.transform(rows)).all()
    if kind == "early stopping":
        assert found.n_iter_ < 30
        assert np.isfinite(found.history_["validation_loss"]).all()
    if kind in ("data frame", "table of pyarrow"):
        assert list(found.feature_names_in_) == list(FRAME.columns)


def test_components_start_from_the_parts_of_the_rows_of_rank_0(tmp_path):
    """The second rank has rows of one digit alone: they are of one part, as they are of rank 0."""
    digits = load_digits()
    first = digits.data[:600] / 16
    zeros = digits.data[600:][digits.target[600:] == 0] / 16
    mvae = small(k=10, latent_dim=4, likelihood="bernoulli", objective="clusters", max_iter=15)
    mvae = the_model(tmp_path, mvae, np.vstack([first, zeros]), [len(first), len(zeros)])
    assert len(np.unique(mvae.predict(first))) > 7
    assert np.bincount(mvae.predict(zeros)).max() > 0.9 * len(zeros)
    assert mvae.weights_[mvae.predict(zeros)[0]] > 1.5 / 10


def test_units_are_those_of_what_all_ranks_observed(tmp_path):
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.4, np.nan, X)
    holes[:120, 5] = np.nan  # a column of which the first rank has no value
    holes[130:200] = np.nan  # rows of which the second rank has no value
    mvae = the_model(tmp_path, small(neighbor_weight=0.1), holes, [120, 180])
    np.testing.assert_allclose(mvae.mean_, np.nanmean(holes, axis=0), rtol=1e-12, atol=1e-12)
    squares = np.square(holes - mvae.mean_)
    assert mvae.scale_ == pytest.approx(np.sqrt(np.nanmean(squares)), rel=1e-12)
    assert not np.isnan(mvae.impute(holes)).any()
    has_value = ~np.isnan(holes).all(axis=1)
    weights = mvae.mixing_weights(holes)[has_value].mean(axis=0)
    np.testing.assert_allclose(mvae.weights_, weights, rtol=1e-6)
    alone = small(neighbor_weight=0.1).fit(holes)
    assert mvae.history_["loss"][-1] == pytest.approx(alone.history_["loss"][-1], rel=0.05)


def test_a_warm_start_goes_on(tmp_path):
    mvae = small().fit(X).set_params(warm_start=True)
    found = the_model(tmp_path, mvae, X, [120, 180])
    assert found.n_iter_ == 6
    assert found.history_["loss"][:3] == mvae.history_["loss"]
    assert found.history_["loss"][3] < mvae.history_["loss"][0]


def with_parameters_of_its_own(say, rank, folder):
    own = {"checkpoint_dir": folder, "random_state": 1} if rank == 0 else {"random_state": None}
    with redirect_stdout(io.StringIO()) as printed:
        mvae = skmvae.distributed.fit(small(verbose=1, **own), shard(X, rank, HALVES))
    ranks = [None, None]
    dist.all_gather_object(ranks, rank)  # the caller's own group works on
    n_groups = len(dist.distributed_c10d._world.pg_map)
    return joblib.hash(mvae._state.arrays), printed.getvalue().count("epoch"), ranks, n_groups


def test_rank_0_chooses_seed_and_checkpoint_and_prints_and_no_group_is_left(tmp_path):
    folder = tmp_path / "checkpoints"
    (first, *rest), (second, *others) = values(with_parameters_of_its_own, 2, tmp_path, folder)
    assert first == second
    assert rest == [3, [0, 1], 1]
    assert others == [0, [0, 1], 1]
    assert len(list(folder.iterdir())) == 1


def test_with_early_stopping_a_checkpoint_is_of_the_same_shards(tmp_path):
    """Other shards hold out other rows, and none is judged by rows that it was trained on."""
    folder = tmp_path / "checkpoints"
    mvae = small(early_stopping=True, checkpoint_dir=folder)
    for sizes, n_fits in [(HALVES, 1), (HALVES, 1), ([100, 200], 2)]:
        the_model(tmp_path, mvae, X, sizes)
        assert len(list(folder.iterdir())) == n_fits


def stopped_by_a_callback(say, rank):
    callback = pytest.importorskip("sklearn.callback")

    class Stop(callback.FitCallback):
        n_calls = 0
        setup = teardown = on_fit_task_begin = lambda *args, **hooks: None

        def on_fit_task_end(self, estimator, context, **hooks):
            self.n_calls += 1
            return self.n_calls == 2

    stop = Stop()
    mvae = small().set_callbacks(stop)
    skmvae.distributed.fit(mvae, shard(X, rank, HALVES))
    return stop.n_calls, mvae.n_iter_


def test_callbacks_see_rank_0_and_stop_all(tmp_path):
    pytest.importorskip("sklearn.callback")
    first, second = values(stopped_by_a_callback, 2, tmp_path)
    assert first == (3, 2)  # two epochs and the fit
    assert second == (0, 2)


def refused(say, rank, cases):
    """Fit what each rank is given, on an estimator that is fitted already."""
    params, rows, sizes = cases[rank]
    mvae = small().fit(FRAME).set_params(**params)
    before = vars(mvae).copy()
    try:
        skmvae.distributed.fit(mvae, shard(rows, rank, sizes), timeout=60)
    except Exception as error:
        return f"{type(error).__name__}: {error}", vars(mvae) == before
    return "fitted", False


WITH_INFINITY = np.where(np.arange(300)[:, None] == 299, np.inf, X)
# What each rank has, and how the error reads on rank 0 and, where it differs, on rank 1.
BAD = {
    "infinity on rank 1": (
        [({}, WITH_INFINITY, HALVES)] * 2,
        r"RuntimeError: rank 1 failed with ValueError: Input X contains infinity",
        r"ValueError: Input X contains infinity",
    ),
    "no value on rank 1": (
        [({}, np.where(np.arange(300)[:, None] < 150, X, np.nan), HALVES)] * 2,
        r"RuntimeError: rank 1 failed with ValueError: X contains NaN alone",
        r"ValueError: X contains NaN alone",
    ),
    "no rows": (
        [({}, X, [300, 0])] * 2,
        r"RuntimeError: rank 1 failed with ValueError: Found array with 0 sample",
        r"ValueError: Found array with 0 sample",
    ),
    "another beta": (
        [({}, X, HALVES), ({"beta": 7.0}, X, HALVES)],
        r"ValueError: rank 1 has another beta than rank 0: 7.0 against 1.0",
    ),
    "other columns": (
        [({}, X, HALVES), ({}, X[:, 1:], HALVES)],
        r"ValueError: rank 1 has another number of columns than rank 0: \(63,\)",
    ),
    "a warm start with other columns": (
        [({"warm_start": True}, FRAME[FRAME.columns[::-1]], HALVES)] * 2,
        r"ValueError: The feature names should match",
    ),
    "a parameter": (
        [({"beta": -1.0}, X, HALVES)] * 2,
        r"ValueError: The 'beta' parameter of MVAETransformer must be",
    ),
    "divergence": (
        [({"learning_rate": 1e30}, X, HALVES)] * 2,
        r"DivergenceError: Training diverged",
    ),
    "too small a minibatch": (
        [({"batch_size": 1}, X, HALVES)] * 2,
        r"ValueError: batch_size=1 is less than the number of ranks, 2",
    ),
    "a row to train on": (
        [({"early_stopping": True}, X, [1, 299])] * 2,
        r"ValueError: early_stopping=True needs rows to train on",
        r"RuntimeError: rank 0 failed with ValueError: early_stopping=True needs rows",
    ),
    "not in [0, 1]": (
        [({"likelihood": "bernoulli"}, X, HALVES)] * 2,
        r"ValueError: likelihood='bernoulli' needs X in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_a_rank_refuses_ends_all_by_name(kind, tmp_path):
    cases, first, *second = BAD[kind]
    found = values(refused, 2, tmp_path, cases)
    for (message, unchanged), pattern in zip(found, [first, *(second or [first])], strict=True):
        assert re.match(pattern, message), message
        assert unchanged


class Normalised(MLP):
    """An architecture with a layer that would look at a rank's rows alone."""

    def build(self, n_features, latent_dim, k):
        encoder, decoder = super().build(n_features, latent_dim, k)
        encoder.norm = nn.BatchNorm1d(3, track_running_stats=False, affine=False)
        return encoder, decoder


def test_a_layer_that_normalises_a_shard_by_itself_is_refused(tmp_path):
    mvae = small(architecture=Normalised((16,)))
    for outcome in run(fitted, 2, tmp_path, mvae, X, HALVES):
        assert isinstance(outcome.error, ValueError)
        assert "encoder.norm of the architecture is a BatchNorm1d" in str(outcome.error)


def test_a_missing_group_a_pipeline_and_no_timeout_are_refused():
    with pytest.raises(RuntimeError, match="works in a process group"):
        skmvae.distributed.fit(small(), X)
    with pytest.raises(TypeError, match="takes an MVAETransformer, not a Pipeline"):
        skmvae.distributed.fit(make_pipeline(small()), X)
    for timeout in (0, "soon", np.inf):
        with pytest.raises(ValueError, match="timeout must be a number in"):
            skmvae.distributed.fit(small(), X, timeout=timeout)
