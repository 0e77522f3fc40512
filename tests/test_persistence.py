"""Pickle, joblib and skops: saved estimators return bitwise, and damaged ones are refused."""

import copy
import pickle
from functools import partial
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skmvae import SKOPS_TRUSTED, MVAETransformer
from skmvae.architectures import MLP


def through_joblib(estimator, path, mmap_mode=None):
    joblib.dump(estimator, path / "model.joblib")
    return joblib.load(path / "model.joblib", mmap_mode=mmap_mode)


def through_skops(estimator, path):
    skops.io.dump(estimator, path / "model.skops")
    return skops.io.load(path / "model.skops", trusted=SKOPS_TRUSTED)


WAYS = {
    "pickle": lambda estimator, path: pickle.loads(pickle.dumps(estimator)),
    "cloudpickle": lambda estimator, path: pickle.loads(cloudpickle.dumps(estimator)),
    "deepcopy": lambda estimator, path: copy.deepcopy(estimator),
    "joblib": through_joblib,
    "joblib memory map": partial(through_joblib, mmap_mode="r"),
    "skops": through_skops,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_saving_gives_bitwise_the_same(way, fitted, digits, tmp_path):
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
    unfitted = MVAETransformer(k=2, beta=3.0)
    assert WAYS[way](unfitted, tmp_path).get_params() == unfitted.get_params()


@pytest.mark.parametrize("way", ["pickle", "skops"])
def test_paths_are_saved_as_strings(way, make_small, tmp_path):
    """Windows cannot load a PosixPath, and skops refuses it."""
    mvae = make_small(checkpoint_dir=tmp_path / "fits")
    assert WAYS[way](mvae, tmp_path).checkpoint_dir == str(tmp_path / "fits")
    assert isinstance(mvae.checkpoint_dir, Path)


def test_skops_needs_to_trust_our_types_alone(fitted, digits, tmp_path):
    X, y = digits
    pipe = make_pipeline(clone(fitted), LinearSVC(random_state=0)).fit(X, y)
    pipe[0].partial_fit(X)
    skops.io.dump(pipe, tmp_path / "pipe.skops")
    untrusted = skops.io.get_untrusted_types(file=tmp_path / "pipe.skops")
    absent = {"skmvae.architectures.Conv", "skmvae._imputer.MVAEImputer"}
    assert set(untrusted) == set(SKOPS_TRUSTED) - absent
    loaded = skops.io.load(tmp_path / "pipe.skops", trusted=SKOPS_TRUSTED)
    np.testing.assert_array_equal(loaded.predict(X), pipe.predict(X))


def test_a_pickle_is_as_large_as_the_parameters_and_needs_no_torch(digits):
    mvae = MVAETransformer(max_iter=1, random_state=0).fit(digits[0])
    n_bytes = sum(array.nbytes for array in mvae._state.arrays.values())
    saved = pickle.dumps(mvae)
    assert len(saved) < 1.1 * n_bytes
    assert b"torch" not in saved


@pytest.mark.cpu
def test_a_model_with_the_device_of_another_machine_computes_on_the_cpu(make_small, digits):
    mvae = make_small().fit(digits[0])
    expected = mvae.transform(digits[0])
    mvae.set_params(device="cuda:7")
    with pytest.warns(UserWarning, match="Computing on the CPU"):
        codes = pickle.loads(pickle.dumps(mvae)).transform(digits[0])
    np.testing.assert_array_equal(codes, expected)


WEIGHT = "encoder.layers.0.weight"


def in_network(name, value):
    return lambda saved, network: object.__setattr__(network, name, value)


def in_arrays(name, value):
    return lambda saved, network: network.arrays.__setitem__(name, value)


DAMAGES = [
    (lambda s, n: (s.pop("history_"), s.pop("beta")), "lacks beta, history_"),
    (lambda s, n: s.update(_state={"arrays": {}}), "must be a NetworkState, got dict"),
    (lambda s, n: n.arrays.pop(WEIGHT), f"lacks {WEIGHT}"),
    (in_arrays("extra", np.zeros(3)), "unknown arrays: extra"),
    (in_arrays(WEIGHT, np.zeros((3, 64, 15), np.float32)), rf"{WEIGHT} .* \(3, 64, 16\), got"),
    (in_arrays(WEIGHT, np.zeros((3, 64, 16))), f"{WEIGHT} .* must be float32 .* got float64"),
    (in_network("k", 4), r"must be float32 \(4, "),
    (in_network("likelihood", "cauchy"), "^likelihood of the fitted state is not valid"),
    (in_network("scale", "big"), "^scale of the fitted state is not valid: 'big'"),
    (lambda s, n: object.__delattr__(n, "mean"), "the fitted state lacks mean"),
    (lambda s, n: s.update(weights_=np.zeros((7, 2))), r"weights_ .* float64 \(3,\), got"),
    (lambda s, n: s["history_"]["loss"].pop(), r"history_ .* the lengths \[1, 2\]"),
    (lambda s, n: s.update(n_features_in_=99), "n_features_in_ .* is 99"),
    (in_network("format_version", 99), "format version 99; skmvae .* reads version 1"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGES, ids=[m for _, m in DAMAGES])
def test_damaged_states_are_refused_by_name(change, message, fitted):
    fresh, saved = MVAETransformer(), copy.deepcopy(fitted).__getstate__()
    before = dict(vars(fresh))
    change(saved, saved["_state"])
    with pytest.raises(ValueError, match=message):
        fresh.__setstate__(saved)
    assert vars(fresh) == before


def test_custom_architectures_travel_with_cloudpickle(make_small, digits):
    class Narrow(MLP):
        def build(self, n_features, latent_dim, k):
            return MLP((4,)).build(n_features, latent_dim, k)

    mvae = make_small(architecture=Narrow()).fit(digits[0])
    loaded = pickle.loads(cloudpickle.dumps(mvae))
    np.testing.assert_array_equal(loaded.transform(digits[0]), mvae.transform(digits[0]))


def test_a_state_of_an_earlier_version_is_translated(fitted, digits):
    """It lacks parameters, has attributes that follow from others, and names a column otherwise."""
    saved = fitted.__getstate__()
    del saved["learning_rate_schedule"], saved["checkpoint_dir"]
    saved["scale_"] = saved["mean_"] = "anything"
    history = {"kl_weights" if n == "kl_mixing" else n: v for n, v in fitted.history_.items()}
    loaded = object.__new__(MVAETransformer)
    loaded.__setstate__({**saved, "history_": history})
    assert loaded.learning_rate_schedule == "constant"
    assert loaded.checkpoint_dir is None
    assert loaded.history_ == fitted.history_
    assert loaded.scale_ == fitted.scale_
    np.testing.assert_array_equal(loaded.transform(digits[0]), fitted.transform(digits[0]))
