"""Other processes, however they are started: the same model there, or an error, but no waiting."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from networks import small_estimator

from skmvae import MVAETransformer

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)

# Seconds after which a process is taken to wait for ever. torch computes for a part of one.
PATIENCE = 30

FEW = np.random.default_rng(0).normal(size=(50, 4))
MANY = np.random.default_rng(1).normal(size=(600, 200)).astype(np.float32)  # for two threads


def small(**params):
    return small_estimator(**{"max_iter": 2} | params)


def fit_few(seed=0):
    return small(random_state=seed).fit(FEW).transform(FEW)


def fit_many():
    return small(max_iter=1, batch_size=300).fit(MANY).transform(MANY[:10])


def assert_same_model(found, expected):
    """Other numbers of threads round in other ways; another seed would be far from it."""
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def fresh_processes():
    """What they give, by the way that they are started in. At once, since they import torch."""
    methods = {"spawn", "forkserver"} & {*multiprocessing.get_all_start_methods()}
    pools = {method: multiprocessing.get_context(method).Pool(1) for method in methods}
    results = {method: pool.apply_async(fit_few) for method, pool in pools.items()}
    yield results
    for pool in pools.values():
        pool.terminate()
        pool.join()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_fresh_process_can_fit(method, fresh_processes):
    if method not in fresh_processes:
        pytest.skip(f"needs {method}")
    assert_same_model(fresh_processes[method].get(120), fit_few())


def fit_in_threads(seeds):
    """Threads of a worker process."""
    return Parallel(n_jobs=2, backend="threading")(delayed(fit_few)(seed) for seed in seeds)


def test_loky_workers_can_fit_in_threads_of_their_own():
    work = (delayed(fit_in_threads)(seeds) for seeds in ([0, 1], [2, 3]))
    # The same workers as in test_randomness.
    with parallel_config("loky", inner_max_num_threads=torch.get_num_threads()):
        found = [codes for both in Parallel(n_jobs=2)(work) for codes in both]
    for seed in range(4):
        assert_same_model(found[seed], fit_few(seed))
    with pytest.raises(AssertionError):
        assert_same_model(found[0], found[1])


def fit_in_forked_process(expected):
    """A job; its process has not computed in several threads yet."""
    torch.set_num_threads(2)
    outcomes = in_forked_processes([fit_few, fit_many])
    assert outcomes["fit_few"] == "works"
    assert outcomes["fit_many"] == "works"
    # And one that came before does not keep a process from computing.
    assert_same_model(fit_few(), expected)
    return {}


@needs_fork
def test_a_process_that_is_forked_before_torch_has_computed_can_fit(start):
    start(fit_in_forked_process, expected=fit_few().tolist()).result()


def use_in_forked_process(n_threads):
    """A job that computes and then forks. What its own processes do, by what they are asked."""
    torch.set_num_threads(n_threads)
    few, many = small().fit(FEW), small(batch_size=300).fit(MANY)
    few_codes, many_codes = few.transform(FEW), many.transform(MANY)

    def transform_one():
        assert_same_model(few.transform(FEW[:1]), few_codes[:1])

    def transform_many():
        assert_same_model(many.transform(MANY), many_codes)

    def reconstruct_many():
        assert np.isfinite(many.reconstruct(MANY)).all()

    def partial_fit_few():
        few.partial_fit(FEW)

    functions = [fit_few, fit_many, partial_fit_few]
    functions += [transform_one, transform_many, reconstruct_many]
    outcomes = in_forked_processes(functions)
    # The process that forks is none the worse for it.
    np.testing.assert_array_equal(many.transform(MANY), many_codes)
    return {name: np.array(outcome) for name, outcome in outcomes.items()}


def in_forked_processes(functions):
    """Run each in a process of its own: whether it works, what it raises, or whether it waits."""
    processes = [fork(function) for function in functions]
    end = time.monotonic() + PATIENCE
    return {
        function.__name__: outcome(*process, end)
        for function, process in zip(functions, processes, strict=True)
    }


def fork(function):
    """The id of a process that runs the function, and where it says how that went."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, reader
    try:
        function()
        text = "works"
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    os.write(writer, text.encode())
    os._exit(0)


def outcome(process, reader, end):
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return "waits for ever"
        time.sleep(0.01)
    with os.fdopen(reader) as file:
        return file.read() or f"ends with status {ended[1]}"


@needs_fork
def test_a_process_that_is_forked_after_torch_has_computed_in_one_thread_works(start):
    outcomes = start(use_in_forked_process, n_threads=1).result()
    assert {name: str(outcome) for name, outcome in outcomes.items()} == dict.fromkeys(
        outcomes, "works"
    )


@needs_fork
def test_a_process_that_is_forked_after_torch_has_computed_in_threads_works_or_says_so(start):
    """Of the threads only the one that forks goes on there, and torch would wait for the others."""
    outcomes = start(use_in_forked_process, n_threads=2).result()
    for name, outcome in outcomes.items():
        assert str(outcome).startswith(("works", "RuntimeError: ")), (name, outcome)
        if not str(outcome).startswith("works"):
            assert "fork" in str(outcome), (name, outcome)
            assert "'spawn'" in str(outcome), (name, outcome)


def fit_and_transform(digits, device):
    X, _ = digits
    MVAETransformer(max_iter=1, device=device).fit(X).transform(X)


def report_error(function, arguments, reports):
    try:
        function(*arguments)
        reports.put("no error")
    except RuntimeError as error:
        reports.put(str(error))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_forked_process_says_that_it_cannot_use_the_gpu(digits, device):
    fit_and_transform(digits, device)
    fork = multiprocessing.get_context("fork")
    reports = fork.SimpleQueue()
    child = fork.Process(target=report_error, args=(fit_and_transform, (digits, device), reports))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert "'spawn'" in reports.get()
