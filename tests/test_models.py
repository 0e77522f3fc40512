"""Model files: a load returns what was saved, also by earlier versions."""

import json
import math
import pickle
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from safetensors import safe_open
from sklearn.exceptions import NotFittedError

import skmvae
from skmvae import SKOPS_TRUSTED, MVAETransformer
from skmvae.architectures import MLP, Conv

pytestmark = pytest.mark.usefixtures("one_thread")

KEPT = Path(__file__).parent / "models"


class Narrow(MLP):
    """An architecture outside the package."""

    def __init__(self, hidden_layer_sizes=(4,), activation="tanh", dropout=0.0, inner=None):
        super().__init__(hidden_layer_sizes, activation=activation, dropout=dropout)
        self.inner = inner


NARROW = f"{__name__}.Narrow"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def make(make_small):
    return lambda **params: make_small(
        **{"k": 2, "architecture": MLP((8,)), "max_iter": 1, "batch_size": None} | params
    )


@pytest.fixture(scope="module")
def X():
    X = np.random.default_rng(0).normal(size=(60, 5))
    X.flags.writeable = False
    return X


def through_a_file(mvae, path, **options):
    mvae.save(path)
    return skmvae.load(path, **options)


def parameters(mvae):
    """Return all parameters, nested ones too, as strings that differ between types."""
    return {name: repr(value) for name, value in mvae.get_params(deep=True).items()}


def assert_same_arrays(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def assert_same_model(found, expected, X, *, timed=True):
    """Compare bit for bit; where epochs were run twice (not ``timed``) their seconds differ."""
    assert type(found) is MVAETransformer
    assert vars(found).keys() == vars(expected).keys()
    for name in ("n_iter_", "noise_variance_", "n_features_in_", "scale_", "_split_seed"):
        assert repr(getattr(found, name)) == repr(getattr(expected, name)), name
    columns = expected.history_.keys() - (set() if timed else {"seconds"})
    for name in columns:
        np.testing.assert_equal(found.history_[name], expected.history_[name], err_msg=name)
    assert found.history_.keys() == expected.history_.keys()
    assert {type(value) for column in found.history_.values() for value in column} == {float}
    assert_same_arrays(found._state.arrays, expected._state.arrays)
    both = [{"mean": mvae.mean_, "weights": mvae.weights_} for mvae in (found, expected)]
    assert_same_arrays(*both)
    for rows in (X, np.asarray(X, np.float32)):
        Z = expected.transform(rows)
        assert found.transform(rows).dtype == Z.dtype
        np.testing.assert_array_equal(found.transform(rows), Z)
    for method, rows in (("inverse_transform", Z), ("mixing_weights", X), ("score_samples", X)):
        np.testing.assert_array_equal(getattr(found, method)(rows), getattr(expected, method)(rows))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"architecture": MLP((6, 4), activation="tanh", dropout=0.25)},
        {"likelihood": "bernoulli", "objective": "clusters", "weight_concentration_prior": 0.3},
        {"architecture": Conv((1, 1, 5), (3,), kernel_size=1, strides=(1,), batch_norm=False)},
        {"early_stopping": True, "validation_fraction": 0.25, "learning_rate_schedule": "constant"},
    ],
    ids=str,
)
def test_a_model_returns_bitwise(make, X, path, params):
    X = 1.0 / (1.0 + np.exp(-X))
    mvae = make(**params).fit(X)
    found = through_a_file(mvae, path)
    assert_same_model(found, mvae, X)
    assert parameters(found) == parameters(mvae)
    assert found.set_params(max_iter=2).fit(X).n_iter_ == 2
    frame = pd.DataFrame(X, columns=["größe", "", 'a"b\\', "\n", "模型"])
    found = through_a_file(mvae.fit(frame), path)
    assert found.feature_names_in_.dtype == object
    assert list(found.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(found.transform(frame), mvae.transform(frame))


def test_all_parameters_return_with_their_types(make, X, path, tmp_path):
    # Those of the next fit, which need not be those of the last.
    changed = {"k": 7, "latent_dim": 3, "beta": 0.1 + 0.2, "kl_weight": 5e-324, "tol": -0.0}
    changed |= {"objective": "mixture", "weight_concentration_prior": 1e300, "max_iter": 10**20}
    changed |= {"architecture": MLP(None, activation="gelu", dropout=0.5), "batch_size": 17}
    changed |= {"early_stopping": True, "warm_start": True, "checkpoint_dir": "größe"}
    changed |= {"random_state": 2**32 - 1, "verbose": True}
    mvae = make().fit(X).set_params(**changed)
    assert parameters(through_a_file(mvae, path)) == parameters(mvae)
    # Those of NumPy and paths return as plain values.
    given = {"k": np.int64(2), "tol": np.float64(1e-3), "early_stopping": np.bool_(False)}
    given |= {"objective": np.str_("melbo"), "checkpoint_dir": tmp_path / "checkpoints"}
    plain = [2, 1e-3, False, "melbo", str(tmp_path / "checkpoints")]
    architecture = MLP((np.int32(8), np.int64(4)), dropout=np.float16(0.5))
    mvae = make(architecture=architecture, **given).fit(X)
    found = through_a_file(mvae, path)
    assert [repr(getattr(found, name)) for name in given] == list(map(repr, plain))
    assert repr(found.architecture) == "MLP(dropout=0.5, hidden_layer_sizes=(8, 4))"
    assert_same_model(found, mvae, X)


@pytest.mark.cpu
def test_a_history_with_columns_that_change_returns(make, X, path):
    """An epoch without a value for a column has NaN there, for example after a warm start."""
    mvae = make(warm_start=True).fit(X)
    mvae.set_params(early_stopping=True).fit(X)
    assert math.isnan(mvae.history_["validation_loss"][0])
    found = through_a_file(mvae, path)
    assert_same_model(found, mvae, X)
    np.testing.assert_array_equal(found.fit(X).transform(X), mvae.fit(X).transform(X))
    assert found.n_iter_ == mvae.n_iter_ == 3


@pytest.mark.cpu
def test_partial_fit_continues_bitwise_also_after_a_save_over_the_own_file(make, X, path):
    """The arrays of a loaded model are mapped from the file that it replaces."""
    mvae = make().fit(X[:40]).partial_fit(X[40:])
    found = through_a_file(through_a_file(mvae, path), path)
    assert_same_model(found, mvae, X)
    for _ in range(2):
        assert_same_model(found.partial_fit(X[:30]), mvae.partial_fit(X[:30]), X, timed=False)
    assert_same_model(through_a_file(found, path), mvae, X, timed=False)
    pruned = mvae.prune(sorted(mvae.weights_)[1])
    assert_same_model(through_a_file(pruned, path), pruned, X)


def test_an_unfitted_estimator_and_a_subclass_cannot_be_saved(make, X, path):
    mvae = make().fit(X)
    mvae.__class__ = type("Mine", (MVAETransformer,), {})
    with pytest.raises(TypeError, match="not a Mine; save that with joblib"):
        mvae.save(path)
    with pytest.raises(NotFittedError):
        make().save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"random_state": np.random.RandomState(0)}, r"random_state=RandomState\(MT19937\)"),
        ({"architecture": Narrow(inner=Narrow(inner=print))}, "architecture__inner__inner=<built"),
        ({"architecture": type("Local", (MLP,), {})((8,))}, "Local"),  # cannot be imported
        ({"tol": math.inf}, "tol"),
    ],
    ids=["RandomState", "nested function", "Local", "infinity"],
)
def test_what_a_file_cannot_hold_is_refused_by_name(make, X, path, params, named):
    path.write_bytes(b"old")
    mvae = make().fit(X).set_params(**params)
    with pytest.raises(ValueError, match=named):
        mvae.save(path)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_an_architecture_of_another_package_has_to_be_trusted(make, X, path):
    mvae = make(architecture=Narrow((8,), inner=MLP((3,)))).fit(X)
    mvae.save(path)
    for trusted in ((), ["elsewhere.Narrow"], [f"{__name__}.Other"]):
        with pytest.raises(ValueError, match=f"its architecture is '{NARROW}'") as raised:
            skmvae.load(path, trusted=trusted)
        assert str(path) in str(raised.value)
        assert f"trusted=['{NARROW}']" in str(raised.value)
    found = skmvae.load(path, trusted=[NARROW])
    assert type(found.architecture) is type(found._state.architecture) is Narrow
    assert found.get_params()["architecture__inner__hidden_layer_sizes"] == (3,)
    assert_same_model(found, mvae, X)


def binary(X):
    return (np.asarray(X) > 0).astype(np.float64)


def make_kept():
    """Write the files under tests/models; only ever by the version that is in their names.

    In the folder tests: python -c "import test_models; test_models.make_kept()"
    """
    X = np.random.default_rng(0).normal(size=(60, 5))
    frame = pd.DataFrame(X, columns=list("abcde"))
    params = {"k": 2, "latent_dim": 2, "max_iter": 2, "random_state": 0}
    mvae = MVAETransformer(architecture=MLP((8,)), **params)
    mvae.fit(frame).partial_fit(frame).save(KEPT / "v0_1_gaussian.safetensors")
    images = binary(np.random.default_rng(1).normal(size=(60, 16)))
    conv = Conv((1, 4, 4), (2, 3), strides=(2, 1))
    mvae = MVAETransformer(likelihood="bernoulli", architecture=conv, **params)
    mvae.fit(images).save(KEPT / "v0_1_bernoulli_conv.safetensors")
    make_kept_of_0_2(frame)
    for name in AS_WRITTEN:
        mvae = skmvae.load(KEPT / f"{name}.safetensors")
        (KEPT / f"{name}.pkl").write_bytes(pickle.dumps(mvae, protocol=4))
        joblib.dump(mvae, KEPT / f"{name}.joblib", compress=3)
        skops.io.dump(mvae, KEPT / f"{name}.skops", compression=zipfile.ZIP_DEFLATED)


def make_kept_of_0_2(frame):
    frame = frame.mask(np.random.default_rng(2).random(frame.shape) < 0.2)
    mvae = MVAETransformer(
        2,
        2,
        objective="mixture",
        neighbor_weight=1 / 16,
        architecture=MLP((8,)),
        max_iter=2,
        random_state=0,
    )
    mvae.fit(frame).partial_fit(frame).save(KEPT / "v0_2_holes.safetensors")


OTHER_WAYS = {
    "pkl": lambda path: pickle.loads(path.read_bytes()),
    "joblib": joblib.load,
    "skops": lambda path: skops.io.load(path, trusted=SKOPS_TRUSTED),
}


# By file: its checksum, codes of three rows and weights_, as the version that wrote it had them.
AS_WRITTEN = {
    "v0_1_gaussian": (
        "15f2b7ba5ade4ad553b9cd866281e6b32e5769d372f115c1536e25f54801ba9d",
        [
            [0.4149939, -0.18973536, 0.90479972, 0.88161425],
            [-0.03112131, -0.09608704, 0.48949446, 0.1481529],
            [-1.09506209, -0.40951801, 0.51601904, 0.446981],
        ],
        [0.57640915, 0.42359085],
    ),
    "v0_1_bernoulli_conv": (
        "8c61c060ee15966d3fbe3f82aaaa878728dcddb716927f529c7ee77201626ff6",
        [
            [-0.15959795, -0.04864693, -0.28222714, -0.04184884],
            [0.26487281, 0.0708083, 0.05098625, -0.16115221],
            [0.91260741, -0.00762302, 0.09970695, -0.01292557],
        ],
        [0.47087896, 0.52912104],
    ),
    "v0_2_holes": (
        "818b699e448842632ba4640ba2a265a6125c5be104f9122dbf356b4ea03b4d24",
        [
            [0.33170000, -0.17178208, 0.93279215, 0.74660031],
            [-0.04106105, -0.06708040, 0.58619846, 0.11633923],
            [-1.17783837, -0.51013116, 0.59304998, 0.42665254],
        ],
        [0.57430698, 0.42569302],
    ),
}


def three_rows(mvae):
    X = np.linspace(-1.0, 1.0, 3 * mvae.n_features_in_).reshape(3, -1)
    if mvae.likelihood == "bernoulli":
        return binary(X)
    return pd.DataFrame(X, columns=list("abcde"))


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_a_kept_file_is_the_one_that_its_version_wrote(name):
    """Another file in its place would test nothing, nor would one that no test names."""
    endings = ["safetensors", *OTHER_WAYS]
    expected = {f"{name}.{ending}" for name in AS_WRITTEN for ending in endings}
    assert {path.name for path in KEPT.iterdir()} == expected
    with safe_open(KEPT / f"{name}.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["sha256"] == AS_WRITTEN[name][0]
    version = ".".join(name[1:].split("_")[:2]) + ".0"
    about = {"kind": "skmvae model", "format_version": 1, "skmvae_version": version}
    assert json.loads(metadata["about"]) == about


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_a_kept_file_gives_what_it_gave(name, path):
    mvae = skmvae.load(KEPT / f"{name}.safetensors")
    _, codes, weights = AS_WRITTEN[name]
    rows = three_rows(mvae)
    np.testing.assert_allclose(mvae.transform(rows), codes, rtol=1e-4)
    np.testing.assert_allclose(mvae.weights_, weights, rtol=1e-4)
    found = through_a_file(mvae, path)
    np.testing.assert_array_equal(found.transform(rows), mvae.transform(rows))
    n_iter = mvae.n_iter_
    assert mvae.partial_fit(rows).n_iter_ == n_iter + 1
    np.testing.assert_allclose(mvae.transform(rows), codes, atol=0.2)  # a step further


# The version that wrote the file; an older one refuses a file of a newer protocol.
LEAST_SKOPS = pytest.mark.skipif(
    tuple(map(int, skops.__version__.split(".")[:2])) < (0, 16), reason="needs skops 0.16"
)


@pytest.mark.cpu
@pytest.mark.parametrize("ending", ["pkl", "joblib", pytest.param("skops", marks=LEAST_SKOPS)])
@pytest.mark.parametrize("name", AS_WRITTEN)
def test_a_kept_file_of_another_format_is_the_same_model(name, ending):
    expected = skmvae.load(KEPT / f"{name}.safetensors")
    found = OTHER_WAYS[ending](KEPT / f"{name}.{ending}")
    rows = three_rows(expected)
    for _ in range(2):
        assert_same_arrays(found._state.arrays, expected._state.arrays)
        np.testing.assert_array_equal(found.transform(rows), expected.transform(rows))
        assert found.history_["loss"] == expected.history_["loss"]
        assert found.history_.keys() == expected.history_.keys()
        found.partial_fit(rows)
        expected.partial_fit(rows)


def test_the_kept_models_are_all_that_was_saved():
    mvae = skmvae.load(KEPT / "v0_1_gaussian.safetensors")
    params = {"k": 2, "latent_dim": 2, "learning_rate": 3e-3, "max_iter": 2, "random_state": 0}
    assert parameters(mvae) == parameters(MVAETransformer(architecture=MLP((8,)), **params))
    assert list(mvae.feature_names_in_) == list("abcde")
    assert mvae.n_iter_ == 3
    losses = [11.421406302849453, 11.065231715639431, 9.988415813942751]
    assert mvae.history_["loss"] == losses
    assert mvae._training.values["steps"] == 2  # of partial_fit, which began anew after fit
    assert math.isclose(mvae.noise_variance_, 1.0855852124655774)
    mvae = skmvae.load(KEPT / "v0_1_bernoulli_conv.safetensors")
    params |= {"architecture": Conv((1, 4, 4), (2, 3), strides=(2, 1)), "likelihood": "bernoulli"}
    assert parameters(mvae) == parameters(MVAETransformer(**params))
    assert (mvae.noise_variance_, mvae.scale_) == (None, 1.0)
    assert not vars(mvae).keys() & {"feature_names_in_", "_training"}


def test_a_name_may_begin_with_the_home_folder(make, X, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    mvae, name = make().fit(X), "~/größe 模型"
    mvae.save(name)
    assert_same_model(skmvae.load(name), mvae, X)
    assert [path.name for path in tmp_path.iterdir()] == [name[2:]]
