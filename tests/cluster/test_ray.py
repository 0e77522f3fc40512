"""Ray, as the pages on clusters have it."""

import importlib.util

import numpy as np
import pytest

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray"),
]

# On local addresses alone; nothing is reported to anybody.
BEFORE = """
import os
from pathlib import Path
import numpy as np
import ray

ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
X = np.load("/shared/X.npy")

def witness(n_rows):
    n_models = Path("/proc/self/maps").read_text().count("digits.safetensors")
    return {"process": np.full(n_rows, os.getpid()), "n_models": np.full(n_rows, n_models)}
"""
SEARCH = """
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from skmvae import MVAETransformer

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
mvae = MVAETransformer(max_iter=1, random_state=0)
pipe = Pipeline([("mvae", mvae), ("svm", LinearSVC(random_state=0))])
search = GridSearchCV(pipe, {"mvae__beta": [0, 100]}, cv=2, refit=False)
alone = search.fit(X, y).cv_results_["mean_test_score"]
"""
AFTER_SEARCH = """
np.testing.assert_allclose(search.cv_results_["mean_test_score"], alone, atol=0.01)
ray.shutdown()
"""
AFTER = """
found = Z.take_all()
np.save("codes.npy", np.stack([row["codes"] for row in found]))
np.save("n_models.npy", [row["n_models"] for row in found])
print({row["process"] for row in found})
ray.shutdown()
"""


def test_batches_become_codes_with_one_model_an_actor(snippets, shared, run_in_child, tmp_path):
    [snippet] = snippets["Codes of a Ray data set"]
    assert snippet.count("return {") == 1
    watched = snippet.replace("return {", 'return {**witness(len(batch["data"])), ')
    script = (BEFORE + watched + AFTER).replace("/shared", str(shared))
    run_in_child(script, timeout=120, RAY_USAGE_STATS_ENABLED="0")
    # Actors return batches in any order.
    found, expected = np.load(tmp_path / "codes.npy"), np.load(shared / "codes.npy")
    found, expected = (codes[np.lexsort(codes.T)] for codes in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert (np.load(tmp_path / "n_models.npy") == 1).all()


def test_a_search_has_the_scores_of_one_process(snippets, shared, run_in_child):
    [snippet] = snippets["A grid search on Ray"]
    script = (BEFORE + SEARCH + snippet + AFTER_SEARCH).replace("/shared", str(shared))
    run_in_child(script, timeout=120, RAY_USAGE_STATS_ENABLED="0")


@pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="needs ray[default]")
@pytest.mark.skipif(importlib.util.find_spec("pydantic") is None, reason="needs ray[train]")
def test_ray_train_fits_one_estimator(snippets, shared, run_in_child, check_fit_of_two_ranks):
    train, with_ray, _ = snippets["Starting it"]
    before = BEFORE.replace("include_dashboard=False", "dashboard_host='127.0.0.1'")
    script = (before + train + with_ray).replace("/shared", str(shared))
    run_in_child(script, timeout=180, RAY_USAGE_STATS_ENABLED="0")
    check_fit_of_two_ranks()
