"""Whole fits of several ranks: one model, of the rows of all, or the same refusal everywhere."""

import io
import re
from contextlib import redirect_stdout
from functools import partial

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


small = partial(small_estimator, k=3, max_iter=3, precision="float32")


def shard(rows, rank, sizes):
    ends = np.cumsum(sizes)
    return rows[ends[rank] - sizes[rank] : ends[rank]]


def fitted(say, rank, mvae, rows, sizes):
    mvae = skmvae.distributed.fit(mvae, shard(rows, rank, sizes), timeout=60)
    return mvae, joblib.hash({name: v for name, v in vars(mvae).items() if name != "device"})


def the_model(folder, mvae, rows, sizes):
    """Of all ranks, that have it to the bit."""
    found = values(fitted, len(sizes), folder, mvae, rows, sizes)
    assert len({digest for _, digest in found}) == 1
    return found[0][0]


@pytest.mark.parametrize("sizes", [[150, 150], [1, 200, 99]])
def test_it_is_one_model_of_the_rows_of_all(sizes, tmp_path):
    mvae = the_model(tmp_path, small(), X, sizes)
    np.testing.assert_allclose(mvae.mean_, X.mean(axis=0), rtol=1e-12)
    assert mvae.scale_ == pytest.approx(np.sqrt(X.var(axis=0).mean()), rel=1e-12)
    np.testing.assert_allclose(mvae.weights_, mvae.mixing_weights(X).mean(axis=0), rtol=1e-6)
    assert mvae.n_iter_ == 3
    assert len(mvae.history_["loss"]) == 3
    # As good as that of one process: the shuffling differs, and so does the last digit's luck.
    alone = small().fit(X)
    assert mvae.history_["loss"][-1] == pytest.approx(alone.history_["loss"][-1], rel=0.02)


FITS = {
    "sparse": (small(), sparse.csr_matrix(X)),
    "data frame": (small(), pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])),
    "float32": (small(), X.astype(np.float32)),
    "bernoulli": (small(likelihood="bernoulli", objective="averaged"), X / 16),
    "dropout": (small(architecture=MLP((16,), dropout=0.3)), X),
    "images": (small(architecture=Conv((1, 8, 8), channels=(4, 8), strides=(2, 2))), X),
    "early stopping": (small(early_stopping=True, max_iter=30, n_iter_no_change=2, tol=5.0), X),
    "one component": (small(k=1), X),
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
    if kind == "data frame":
        assert list(found.feature_names_in_) == list(rows.columns)


def test_a_fit_repeats_to_the_bit(tmp_path):
    digests = set()
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        mvae = the_model(folder, small(), X, [120, 180])
        digests.add(joblib.hash(mvae._state.arrays))
    assert len(digests) == 1


def test_a_warm_start_goes_on(tmp_path):
    mvae = small().fit(X).set_params(warm_start=True)
    found = the_model(tmp_path, mvae, X, [120, 180])
    assert found.n_iter_ == 6
    assert found.history_["loss"][:3] == mvae.history_["loss"]
    assert found.history_["loss"][3] < mvae.history_["loss"][0]


def with_parameters_of_its_own(say, rank, folder):
    own = {"checkpoint_dir": folder, "random_state": 1} if rank == 0 else {"random_state": None}
    mvae = skmvae.distributed.fit(small(**own), shard(X, rank, [150, 150]))
    return joblib.hash(mvae._state.arrays)


def test_of_some_parameters_that_of_rank_0_counts(tmp_path):
    first, second = values(with_parameters_of_its_own, 2, tmp_path, tmp_path / "checkpoints")
    assert first == second
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_with_early_stopping_a_checkpoint_is_of_the_same_shards(tmp_path):
    """Other shards hold out other rows, and none is judged by rows that it was trained on."""
    folder = tmp_path / "checkpoints"
    mvae = small(early_stopping=True, checkpoint_dir=folder)
    for i, (sizes, n_fits) in enumerate([([150, 150], 1), ([150, 150], 1), ([100, 200], 2)]):
        (tmp_path / str(i)).mkdir()
        the_model(tmp_path / str(i), mvae, X, sizes)
        assert len(list(folder.iterdir())) == n_fits


def loud(say, rank):
    with redirect_stdout(io.StringIO()) as printed:
        skmvae.distributed.fit(small(verbose=1), shard(X, rank, [150, 150]))
    return printed.getvalue()


def test_rank_0_alone_prints(tmp_path):
    first, second = values(loud, 2, tmp_path)
    assert first.count("epoch") == 3
    assert second == ""


def stopped_by_a_callback(say, rank):
    callback = pytest.importorskip("sklearn.callback")

    class Stop(callback.FitCallback):
        n_calls = 0

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, **hooks):
            pass

        def on_fit_task_end(self, estimator, context, **hooks):
            self.n_calls += 1
            return self.n_calls == 2

    stop = Stop()
    mvae = small().set_callbacks(stop)
    skmvae.distributed.fit(mvae, shard(X, rank, [150, 150]))
    return stop.n_calls, mvae.n_iter_


def test_callbacks_see_rank_0_and_stop_all(tmp_path):
    pytest.importorskip("sklearn.callback")
    first, second = values(stopped_by_a_callback, 2, tmp_path)
    assert first == (3, 2)  # two epochs and the fit
    assert second == (0, 2)


# What each rank is refused, and how that reads there and elsewhere.


def refused(say, rank, cases):
    """Fit what each rank is given, on an estimator that is fitted already."""
    params, rows, sizes = cases[rank]
    mvae = small().fit(X).set_params(**params)
    before = vars(mvae).copy()
    try:
        skmvae.distributed.fit(mvae, shard(rows, rank, sizes), timeout=60)
    except Exception as error:
        return f"{type(error).__name__}: {error}", vars(mvae) == before
    return "fitted", False


HALVES = [150, 150]
WITH_NAN = np.where(np.arange(300)[:, None] == 299, np.nan, X)
BAD = {
    "NaN on rank 1": (
        [({}, WITH_NAN, HALVES)] * 2,
        r"RuntimeError: rank 1 failed with ValueError: Input X contains NaN",
        r"ValueError: Input X contains NaN",
    ),
    "no rows": (
        [({}, X, [300, 0])] * 2,
        r"RuntimeError: rank 1 failed with ValueError: Found array with 0 sample",
        r"ValueError: Found array with 0 sample",
    ),
    "another beta": (
        [({}, X, HALVES), ({"beta": 7.0}, X, HALVES)],
        r"ValueError: rank 1 has another beta than rank 0: 7.0 against 1.0",
        r"ValueError: rank 1 has another beta than rank 0: 7.0 against 1.0",
    ),
    "other columns": (
        [({}, X, HALVES), ({}, X[:, 1:], HALVES)],
        r"ValueError: rank 1 has another number of columns than rank 0: \(63,\)",
        r"ValueError: rank 1 has another number of columns than rank 0: \(63,\)",
    ),
    "a parameter": (
        [({"beta": -1.0}, X, HALVES)] * 2,
        r"ValueError: The 'beta' parameter of MVAETransformer must be",
        r"ValueError: The 'beta' parameter of MVAETransformer must be",
    ),
    "divergence": (
        [({"learning_rate": 1e30}, X, HALVES)] * 2,
        r"DivergenceError: Training diverged",
        r"DivergenceError: Training diverged",
    ),
    "too small a minibatch": (
        [({"batch_size": 1}, X, HALVES)] * 2,
        r"ValueError: batch_size=1 is less than the number of ranks, 2",
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
        r"ValueError: likelihood='bernoulli' needs X in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_a_rank_refuses_ends_all_by_name(kind, tmp_path):
    cases, *expected = BAD[kind]
    for (message, unchanged), pattern in zip(
        values(refused, 2, tmp_path, cases), expected, strict=True
    ):
        assert re.match(pattern, message), message
        assert unchanged


def of_tables(say, rank):
    """Tables of pyarrow, whose ``columns`` are their values."""
    rows = shard(X[:, 20:30], rank, [150, 150])
    table = pa.table({f"x{i}": column for i, column in enumerate(rows.T)})
    mvae = skmvae.distributed.fit(small(), table, timeout=60)
    return list(mvae.feature_names_in_)


def test_tables_of_pyarrow_have_the_same_columns(tmp_path):
    first, second = values(of_tables, 2, tmp_path)
    assert first == second == [f"x{i}" for i in range(10)]


def columns_of_a_warm_start(say, rank):
    frame = pd.DataFrame(X[:, 20:30], columns=list("abcdefghij"))
    mvae = small(warm_start=True).fit(frame)
    codes = mvae.transform(frame)
    try:
        skmvae.distributed.fit(mvae, shard(frame[list("jihgfedcba")], rank, [150, 150]))
    except (ValueError, RuntimeError) as error:
        return str(error), np.array_equal(mvae.transform(frame), codes)
    return "fitted", False


def test_a_warm_start_goes_on_with_the_same_columns(tmp_path):
    for message, unchanged in values(columns_of_a_warm_start, 2, tmp_path):
        assert "feature names should match" in message
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


def test_without_a_group_there_is_no_fit():
    with pytest.raises(RuntimeError, match="works in a process group"):
        skmvae.distributed.fit(small(), X)


def test_an_estimator_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="takes an MVAETransformer, not a Pipeline"):
        skmvae.distributed.fit(make_pipeline(small()), X)


@pytest.mark.parametrize("timeout", [0, -1.0, "soon", np.inf])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ValueError, match="timeout must be a number in"):
        skmvae.distributed.fit(small(), X, timeout=timeout)


def groups_left(say, rank):
    skmvae.distributed.fit(small(), shard(X, rank, HALVES))
    skmvae.distributed.fit(small(), shard(X, rank, HALVES))
    total = [None, None]
    dist.all_gather_object(total, rank)  # the caller's own group works on
    return total, len(dist.distributed_c10d._world.pg_map)


def test_the_groups_of_a_fit_go_with_it(tmp_path):
    assert values(groups_left, 2, tmp_path) == [([0, 1], 1), ([0, 1], 1)]
