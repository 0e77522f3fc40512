"""Searches and transforms on a Dask cluster of two processes, as the page on clusters has them."""

import functools
import json
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import skmvae
from skmvae import MVAETransformer
from skmvae.architectures import MLP

distributed = pytest.importorskip("distributed")

import joblib
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol import dumps, to_serialize

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.engine_may_use_random,  # Dask draws from it in its threads
]

N_FITS = 3 * 3  # candidates and folds
PATIENCE = 60  # seconds for a worker to start in

X, y = load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread, on local addresses alone.

    Dask writes into the environment, which later tests' processes would inherit.
    """
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
    """For each task that goes to a worker, the bytes that say so and the arrays that it names."""

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
    """What says whether a file is still the one that it was."""
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
    """Its scores in this process, with as many threads as the workers have."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = GridSearchCV(done[0].estimator, done[0].param_grid, cv=3, refit=False, n_jobs=1)
    here.set_params(estimator__mvae__checkpoint_dir=None).fit(X, y)
    torch.set_num_threads(n_threads)
    return scores(here)


def test_a_search_has_the_scores_of_one_process(done, expected):
    found = scores(done[0])
    assert len(found) == 3 + 3
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert len(files(done[1])) == N_FITS


def test_rows_do_not_travel_with_every_task(done):
    messages = done[2]
    assert len(messages.n_bytes) == N_FITS
    folds = 8 * 3 * len(X)  # of the search, which every task has with it
    assert max(messages.n_bytes) < folds + 12_000
    rows = [{k for k, n in arrays.items() if n >= X.nbytes} for arrays in messages.arrays]
    assert all(len(keys) == 1 for keys in rows)
    assert len(set.union(*rows)) == 1
    assert max(messages.answers) < 1000


def test_a_search_that_is_run_again_trains_nothing(cluster, snippets, done, expected):
    before = files(done[1])
    again = scores(run_search(cluster, snippets, done[1], refit=False))
    assert files(done[1]) == before
    for name, values in expected.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def score_or_die(marker, pipe, X, y):
    """The accuracy; the first to come here with some beta kills its process instead.

    It writes down which fits have ended by then, its own among them.
    """
    if pipe["mvae"].beta == 1:
        ended = json.dumps(files(pipe["mvae"].checkpoint_dir))
        try:
            with Path(marker).open("x") as file:
                file.write(ended)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return pipe.score(X, y)


def test_the_candidates_of_a_killed_worker_run_again(cluster, client, snippets, expected, tmp_path):
    folder, marker = tmp_path / "fits", tmp_path / "killed"
    before = client.run(os.getpid)
    scoring = functools.partial(score_or_die, str(marker))
    search = run_search(cluster, snippets, folder, scoring=scoring, refit=False)
    for name, values in expected.items():
        np.testing.assert_array_equal(scores(search)[name], values, err_msg=name)
    # One that had finished was not trained again.
    ended = json.loads(marker.read_text())
    assert ended
    assert ended.items() <= files(folder).items()
    assert len(files(folder)) == N_FITS
    # The worker has a new process.
    client.wait_for_workers(2, timeout=PATIENCE)
    assert len({*client.run(os.getpid).values()} - {*before.values()}) == 1


def test_a_worker_has_one_thread_of_torch(client):
    assert [*client.run(torch.get_num_threads).values()] == [1, 1]


def test_a_message_with_an_estimator_is_its_weights_and_little_more(shared):
    mvae = skmvae.load(shared / "digits.safetensors")
    weights = sum(array.nbytes for array in mvae._state.arrays.values())
    message = dumps({"mvae": to_serialize(mvae)})
    assert weights < sum(memoryview(frame).nbytes for frame in message) < 1.01 * weights
    unfitted = dumps({"mvae": to_serialize(MVAETransformer())})
    assert sum(memoryview(frame).nbytes for frame in unfitted) < 1000


def test_a_progress_bar_shows_the_fits_of_all_workers(client, capfd):
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 has callbacks")
    pytest.importorskip("rich")
    mvae = MVAETransformer(max_iter=1, random_state=0)
    search = GridSearchCV(mvae, {"k": [1, 2]}, cv=2, refit=False)
    bar = callback.ProgressBar(max_propagation_depth=None)
    with joblib.parallel_config("dask"):
        search.set_callbacks(bar).fit(X[:200])
    lines = [line for line in capfd.readouterr().out.splitlines() if "MVAETransformer" in line]
    assert len([line for line in lines if "100%" in line]) == 4, lines


def n_mapped(name):
    """How often this process has mapped a file: a loaded model has its weights there."""
    return Path("/proc/self/maps").read_text().count(name)


def run_transforms(snippets, shared, client):
    names = {"__name__": "__main__", "X": X, "client": client}
    array, frame = snippets["Codes of a Dask array or data frame"]
    for snippet, result in ((array, "array"), (frame, "frame")):
        assert "/shared/" in snippet
        exec(snippet.replace("/shared", str(shared)), names)
        names[result] = names["Z"].compute()
    return names["array"], names["frame"]


@pytest.fixture(scope="module")
def parquet(shared):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X, columns=[f"pixel{i}" for i in range(64)])
    frame.to_parquet(shared / "rows.parquet")
    return shared


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_blocks_and_partitions_become_codes_with_one_model_a_worker(snippets, parquet, client):
    array, frame = run_transforms(snippets, parquet, client)
    codes = np.load(parquet / "codes.npy")
    np.testing.assert_allclose(array, codes, rtol=0, atol=1e-10 * np.abs(codes).max())
    np.testing.assert_allclose(frame, codes, rtol=0, atol=1e-10 * np.abs(codes).max())
    assert [*client.run(n_mapped, "digits.safetensors").values()] == [1, 1]


def test_threads_of_a_worker_share_its_model(snippets, parquet):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as threads,
        distributed.Client(threads) as client,
    ):
        array, frame = run_transforms(snippets, parquet, client)
    codes = np.load(parquet / "codes.npy")
    np.testing.assert_allclose(array, codes, rtol=0, atol=1e-10 * np.abs(codes).max())
    np.testing.assert_allclose(frame, codes, rtol=0, atol=1e-10 * np.abs(codes).max())
