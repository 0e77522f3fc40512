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

N_FITS = 3 * 3  # candidates and folds
PATIENCE = 60  # seconds for a worker to start in

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
        client.wait_for_workers(2, timeout=PATIENCE)
        yield client


class Messages(SchedulerPlugin):
    """Record the size of each task for a worker, and the arrays that it refers to."""

    name = "messages"

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.n_bytes = []
        self.arrays = []
        self.answers = []

    def transition(self, key, start, finish, *args, **kwargs):
        if "fit_and_score" not in key:
            return
        task = self.scheduler.tasks[key]
        if finish == "processing":
            self.n_bytes.append(len(pickle.dumps(task.run_spec)))
            self.arrays.append({d.key: d.nbytes for d in task.dependencies})
        if finish == "memory":
            self.answers.append(task.nbytes)


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


def scores(search):
    return {n: v for n, v in search.cv_results_.items() if n.endswith("test_score")}


@pytest.fixture(scope="module")
def done(cluster, snippets, tmp_path_factory):
    """The search of the page, its folder and its messages."""
    folder = tmp_path_factory.mktemp("search") / "fits"
    messages = Messages(cluster.scheduler)
    cluster.scheduler.add_plugin(messages)
    search = run_search(cluster, snippets, folder, refit=False)
    cluster.scheduler.remove_plugin(messages.name)
    return search, folder, messages


@pytest.fixture(scope="module")
def expected(done):
    """Return the scores of that search in this process, with one thread like the workers."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = GridSearchCV(done[0].estimator, done[0].param_grid, cv=3, refit=False, n_jobs=1)
    here.set_params(estimator__mvae__checkpoint_dir=None).fit(X, y)
    torch.set_num_threads(n_threads)
    return scores(here)


def test_a_search_has_the_scores_of_one_process_and_is_not_trained_again(
    cluster, snippets, done, expected
):
    found, before = scores(done[0]), files(done[1])
    assert len(found) == 3 + 3
    assert len(before) == N_FITS
    again = scores(run_search(cluster, snippets, done[1], refit=False))
    assert files(done[1]) == before
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def test_rows_do_not_travel_with_every_task(done):
    messages = done[2]
    assert len(messages.n_bytes) == N_FITS
    folds = 8 * 3 * len(X)  # of the search, which every task has with it
    assert max(messages.n_bytes) < folds + 12_000
    rows = [{k for k, n in arrays.items() if n >= X.nbytes} for arrays in messages.arrays]
    assert all(len(keys) == 1 for keys in rows)
    assert len(set.union(*rows)) == 1
    assert max(messages.answers) < 1000


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
