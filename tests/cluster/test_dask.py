"""Searches and transforms on a Dask cluster of two processes, as the page on clusters has them."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skmvae.architectures import MLP

distributed = pytest.importorskip("distributed")

from distributed.diagnostics.plugin import SchedulerPlugin

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.engine_may_use_random,  # Dask draws from it in its threads
]


X, y = load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread, on local addresses; the environment is restored afterwards."""
    environment = dict(os.environ)
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


class Messages(SchedulerPlugin):
    """Record the size of each task for a worker."""

    def __init__(self, scheduler):
        self.scheduler, self.n_bytes = scheduler, []

    def transition(self, key, start, finish, *args, **kwargs):
        if "fit_and_score" in key and finish == "processing":
            self.n_bytes.append(len(pickle.dumps(self.scheduler.tasks[key].run_spec)))


def run_search(cluster, snippets, folder, **options):
    """The search of the page, after one epoch a fit, with more options of GridSearchCV."""
    snippet = snippets["A grid search on Dask"][0]
    for old, new in {
        "max_iter=20": "architecture=MLP((16,)), max_iter=1",
        "/shared/fits": str(folder),
        "tcp://scheduler:8786": cluster.scheduler_address,
        "cv=folds": "cv=folds, **options",
    }.items():
        assert snippet.count(old) == 1, old
        snippet = snippet.replace(old, new)
    names = {"X": X, "y": y, "MLP": MLP, "options": options}
    try:
        exec(snippet, names)
    finally:
        if "client" in names:
            names["client"].close()
    return names["search"]


def files(folder):
    """Identify each file and its last change."""
    stats = {path.name: path.stat() for path in Path(folder).glob("mvae-*")}
    return {name: [stat.st_ino, stat.st_mtime_ns] for name, stat in stats.items()}


def test_a_search_has_the_scores_of_one_process_and_is_not_trained_again(
    cluster, snippets, tmp_path
):
    messages = Messages(cluster.scheduler)
    cluster.scheduler.add_plugin(messages, name="messages")
    search, before = run_search(cluster, snippets, tmp_path, refit=False), files(tmp_path)
    cluster.scheduler.remove_plugin("messages")
    assert len(messages.n_bytes) == 3 * 3
    # Rows do not travel with every task, but the folds of the search do.
    assert max(messages.n_bytes) < 8 * 3 * len(X) + 12_000 < X.nbytes
    assert len(before) == 3 * 3  # candidates and folds
    again = run_search(cluster, snippets, tmp_path, refit=False)
    assert files(tmp_path) == before
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # like the workers
    here = GridSearchCV(search.estimator, search.param_grid, cv=3, refit=False, n_jobs=1)
    here.set_params(estimator__mvae__checkpoint_dir=None).fit(X, y)
    torch.set_num_threads(n_threads)
    names = [name for name in here.cv_results_ if name.endswith("test_score")]
    assert len(names) == 3 + 3
    for name in names:
        for found in (search, again):
            np.testing.assert_array_equal(
                found.cv_results_[name], here.cv_results_[name], err_msg=name
            )


def n_mapped(name):
    """Count the maps of a file in this process: a loaded model has its parameters there."""
    return Path("/proc/self/maps").read_text().count(name)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_blocks_and_partitions_become_codes_with_one_model_a_worker(snippets, shared, client):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X, columns=[f"pixel{i}" for i in range(64)])
    frame.to_parquet(shared / "rows.parquet")
    names, codes = {"__name__": "__main__", "X": X, "client": client}, np.load(shared / "codes.npy")
    for snippet in snippets["Codes of a Dask array or data frame"]:
        assert "/shared/" in snippet
        exec(snippet.replace("/shared", str(shared)), names)
        found = names["Z"].compute()
        np.testing.assert_allclose(found, codes, rtol=0, atol=1e-10 * np.abs(codes).max())
    assert [*client.run(n_mapped, "digits.safetensors").values()] == [1, 1]
    assert [*client.run(torch.get_num_threads).values()] == [1, 1]
