"""At rest: every way of saving gives bitwise the same estimator; damaged ones are refused."""

import copy
import io
import pickle

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import skmvae
from skmvae import SKOPS_TRUSTED, MVAETransformer
from skmvae.architectures import MLP


def through_joblib(estimator, path):
    joblib.dump(estimator, path / "model.joblib")
    return joblib.load(path / "model.joblib")


def through_memory_map(estimator, path):
    joblib.dump(estimator, path / "model.joblib")
    loaded = joblib.load(path / "model.joblib", mmap_mode="r")
    if hasattr(estimator, "n_iter_"):
        assert all(isinstance(a, np.memmap) for a in loaded._state.arrays.values() if a.ndim)
    return loaded


def through_skops(estimator, path):
    skops.io.dump(estimator, path / "model.skops")
    return skops.io.load(path / "model.skops", trusted=SKOPS_TRUSTED)


WAYS = {
    "pickle": lambda estimator, path: pickle.loads(pickle.dumps(estimator)),
    "cloudpickle": lambda estimator, path: pickle.loads(cloudpickle.dumps(estimator)),
    "deepcopy": lambda estimator, path: copy.deepcopy(estimator),
    "joblib": through_joblib,
    "joblib memory map": through_memory_map,
    "skops": through_skops,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_bitwise_the_same(way, fitted, digits, tmp_path):
    X, _ = digits
    loaded = WAYS[way](fitted, tmp_path)
    Z = fitted.transform(X)
    np.testing.assert_array_equal(loaded.transform(X), Z)
    np.testing.assert_array_equal(loaded.inverse_transform(Z), fitted.inverse_transform(Z))
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    np.testing.assert_array_equal(loaded.weights_, fitted.weights_)
    assert loaded.history_ == fitted.history_
    assert repr(loaded.get_params()) == repr(fitted.get_params())
    assert loaded.set_params(max_iter=1).fit(X).n_iter_ == 1


@pytest.mark.parametrize("way", WAYS)
def test_unfitted_estimators_too(way, tmp_path):
    loaded = WAYS[way](MVAETransformer(k=2, beta=3.0), tmp_path)
    assert loaded.get_params() == MVAETransformer(k=2, beta=3.0).get_params()


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_paths_are_saved_as_strings(way, is_fitted, make_small, digits, tmp_path):
    """Windows cannot load a PosixPath, and skops will not."""
    folder = tmp_path / "fits"
    mvae = make_small(checkpoint_dir=folder)
    if is_fitted:
        mvae.fit(digits[0])
    loaded = WAYS[way](mvae, tmp_path)
    assert mvae.get_params()["checkpoint_dir"] is folder
    assert loaded.checkpoint_dir == str(folder)
    assert b"pathlib" not in pickle.dumps(mvae)


def test_an_unfitted_estimator_with_a_note():
    mvae = MVAETransformer(k=2)
    mvae.note_ = "mine"
    assert pickle.loads(pickle.dumps(mvae)).note_ == "mine"


def test_skops_needs_to_trust_our_types_alone(fitted, digits, tmp_path):
    X, y = digits
    pipe = make_pipeline(clone(fitted), LinearSVC(random_state=0)).fit(X, y)
    pipe[0].partial_fit(X)
    skops.io.dump(pipe, tmp_path / "pipe.skops")
    untrusted = skops.io.get_untrusted_types(file=tmp_path / "pipe.skops")
    assert set(untrusted) == set(SKOPS_TRUSTED) - {"skmvae.architectures.Conv"}
    loaded = skops.io.load(tmp_path / "pipe.skops", trusted=SKOPS_TRUSTED)
    np.testing.assert_array_equal(loaded.predict(X), pipe.predict(X))


def test_a_file_is_as_large_as_the_weights(digits, tmp_path):
    X, _ = digits
    mvae = MVAETransformer(max_iter=2, random_state=0).fit(X)
    weights = sum(array.nbytes for array in mvae._state.arrays.values())
    assert len(pickle.dumps(mvae)) < 1.1 * weights
    joblib.dump(mvae, tmp_path / "model.joblib")
    assert (tmp_path / "model.joblib").stat().st_size < 1.1 * weights
    many = pickle.dumps(mvae.fit(np.tile(X, (10, 1))))
    assert len(many) < 1.1 * weights


def torch_objects(value, seen):
    """Everything of torch that can be reached from a value."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    if type(value).__module__.split(".")[0] == "torch":
        return [value]
    children = []
    if isinstance(value, dict):
        children = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set):
        children = list(value)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        children = list(vars(value).values())
    return [found for child in children for found in torch_objects(child, seen)]


def test_nothing_of_torch_is_kept(fitted):
    assert torch_objects(fitted, set()) == []
    assert torch_objects({"a": [torch.zeros(1)]}, set())  # the search finds what there is


@pytest.mark.cpu
def test_a_model_of_a_gpu_works_without_one(make_small, digits):
    mvae = make_small().fit(digits[0])
    expected = mvae.transform(digits[0])
    mvae.set_params(device="cuda:7")
    with pytest.warns(UserWarning, match="Computing on the CPU"):
        codes = pickle.loads(pickle.dumps(mvae)).transform(digits[0])
    np.testing.assert_array_equal(codes, expected)


def test_deep_copies_have_weights_of_their_own(fitted, digits):
    copied = copy.deepcopy(fitted)
    copied._state.arrays["encoder.layers.0.weight"][:] = 0.0
    assert not np.array_equal(copied.transform(digits[0]), fitted.transform(digits[0]))


def damaged(fitted, change):
    """The state of a fitted estimator after ``change(state, network state)``."""
    state = copy.deepcopy(fitted).__getstate__()
    network = state["_state"]
    change(state, network)
    return state


def remove(name):
    return lambda state, network: state.pop(name)


def in_network(name, value):
    return lambda state, network: object.__setattr__(network, name, value)


def in_arrays(name, value):
    return lambda state, network: network.arrays.__setitem__(name, value)


WEIGHT = "encoder.layers.0.weight"
DAMAGES = [
    (remove("_state"), "lacks _state"),
    (remove("weights_"), "lacks weights_"),
    (remove("latent_dim"), "lacks latent_dim"),
    (lambda s, n: (s.pop("history_"), s.pop("beta")), "lacks beta, history_"),
    (lambda s, n: s.update(_state={"arrays": {}}), "must be a NetworkState, got dict"),
    (lambda s, n: n.arrays.pop(WEIGHT), f"lacks {WEIGHT}"),
    (in_arrays("extra", np.zeros(3)), "unknown arrays: extra"),
    (in_arrays(WEIGHT, np.zeros((3, 64, 15), np.float32)), rf"{WEIGHT} .* \(3, 64, 16\), got"),
    (in_arrays(WEIGHT, np.zeros((3, 64, 16))), f"{WEIGHT} .* must be float32 .* got float64"),
    (in_arrays(WEIGHT, np.full((3, 64, 16), None)), f"{WEIGHT} .* must be float32 .* got object"),
    (in_arrays(WEIGHT, [1.0, 2.0]), f"{WEIGHT} .* got list"),
    (in_network("mean", np.zeros(5)), r"mean .* \(64,\), got"),
    (in_network("k", 4), r"must be float32 \(4, "),
    (in_network("latent_dim", 5), "must be float32"),
    (in_network("likelihood", "cauchy"), "^likelihood of the fitted state is not valid"),
    (in_network("k", "three"), "^k of the fitted state is not valid: 'three'"),
    (in_network("scale", "big"), "^scale of the fitted state is not valid: 'big'"),
    (in_network("architecture", "mlp"), "^architecture of the fitted state is not valid"),
    (in_network("arrays", None), "^arrays of the fitted state is not valid: None"),
    (lambda s, n: object.__delattr__(n, "mean"), "the fitted state lacks mean"),
    (lambda s, n: object.__delattr__(n, "format_version"), "lacks format_version"),
    (lambda s, n: s.update(weights_=np.zeros((7, 2))), r"weights_ .* float64 \(3,\), got"),
    (lambda s, n: s["history_"]["loss"].pop(), r"history_ .* the lengths \[1, 2\]"),
    (lambda s, n: s.update(n_features_in_=99), "n_features_in_ .* is 99"),
    (in_network("format_version", 99), "format version 99; skmvae .* reads version 1"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGES, ids=[m for _, m in DAMAGES])
def test_damaged_states_are_refused_by_name(change, message, fitted):
    fresh = MVAETransformer()
    before = dict(vars(fresh))
    with pytest.raises(ValueError, match=message):
        fresh.__setstate__(damaged(fitted, change))
    assert vars(fresh) == before


def test_a_damaged_file_is_refused_on_loading(fitted):
    broken = copy.deepcopy(fitted)
    broken._state.arrays.pop(WEIGHT)
    with pytest.raises(ValueError, match=f"lacks {WEIGHT}"):
        pickle.loads(pickle.dumps(broken))


def test_a_truncated_file_is_refused(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    content = (tmp_path / "model.joblib").read_bytes()
    with pytest.raises(Exception):  # noqa: B017, PT011 (which one is joblib's affair)
        joblib.load(io.BytesIO(content[: len(content) // 2]))


def test_the_state_says_what_wrote_it(fitted):
    assert fitted._state.skmvae_version == skmvae.__version__
    assert fitted._state.format_version == 1


def test_custom_architectures_travel_with_cloudpickle(make_small, digits):
    class Narrow(MLP):
        def build(self, n_features, latent_dim, k):
            return MLP((4,)).build(n_features, latent_dim, k)

    mvae = make_small(architecture=Narrow()).fit(digits[0])
    loaded = pickle.loads(cloudpickle.dumps(mvae))
    np.testing.assert_array_equal(loaded.transform(digits[0]), mvae.transform(digits[0]))


def test_a_file_from_before_schedules_loads_as_it_was(fitted, digits):
    saved = fitted.__getstate__()
    del saved["learning_rate_schedule"]
    loaded = object.__new__(MVAETransformer)
    loaded.__setstate__(saved)
    assert loaded.learning_rate_schedule == "constant"
    np.testing.assert_array_equal(loaded.transform(digits[0]), fitted.transform(digits[0]))
