"""Other processes, however they are started: the same model there, or an error, but no waiting."""

import functools
import multiprocessing

import numpy as np
import pytest
import torch
from networks import small_estimator

from skmvae import MVAETransformer

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)

# A process that takes longer, in seconds, waits for ever.
PATIENCE = 30

FEW = np.random.default_rng(0).normal(size=(50, 4))
MANY = np.random.default_rng(1).normal(size=(600, 200)).astype(np.float32)  # for two threads


small = functools.partial(small_estimator, max_iter=2)


def fit_few(seed=0):
    return small(random_state=seed).fit(FEW).transform(FEW)


def assert_same_model(found, expected):
    """The tolerance is that between numbers of threads; another seed is far outside it."""
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-4 * np.abs(expected).max())


def test_a_spawned_process_can_fit():
    """The ranks of test_ranks come from a forkserver."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_same_model(pool.apply_async(fit_few).get(120), fit_few())


# Jobs that fork.


def use_in_forked_process(n_threads, computes):
    """Compute or not, and then fork; return how the children fared, by what they were asked."""
    torch.set_num_threads(n_threads)
    mvae = small(batch_size=300)
    codes = mvae.fit(MANY).transform(MANY) if computes else None

    def fit():
        found = small(batch_size=300).fit(MANY).transform(MANY)
        assert codes is None or np.allclose(found, codes, atol=1e-4)

    def transform():
        assert_same_model(mvae.transform(MANY), codes)

    outcomes = {use.__name__: in_fork(use) for use in ([fit, transform] if computes else [fit])}
    fit()
    return outcomes


def in_fork(function):
    """Return whether the function works in a fork, what it raises, or whether it waits."""
    fork = multiprocessing.get_context("fork")
    reports = fork.SimpleQueue()

    def report():
        try:
            function()
            reports.put("works")
        except BaseException as error:
            reports.put(f"{type(error).__name__}: {error}")

    child = fork.Process(target=report)
    child.start()
    child.join(PATIENCE)
    if child.is_alive():
        child.kill()
        return "waits for ever"
    return reports.get() if child.exitcode == 0 else f"ends with {child.exitcode}"


@needs_fork
@pytest.mark.parametrize(("n_threads", "computes"), [(2, False), (1, True)])
def test_a_process_that_is_forked_before_torch_has_computed_in_threads_works(
    n_threads, computes, start
):
    outcomes = start(use_in_forked_process, n_threads=n_threads, computes=computes).result()
    assert {str(outcome) for outcome in outcomes.values()} == {"works"}


@needs_fork
def test_a_process_that_is_forked_after_torch_has_computed_in_threads_says_so(start):
    """torch would wait there for threads that were not forked."""
    outcomes = start(use_in_forked_process, n_threads=2, computes=True).result()
    for name, outcome in outcomes.items():
        assert str(outcome).startswith("RuntimeError: This process was forked"), (name, outcome)
        assert "'spawn'" in str(outcome), name


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_forked_process_says_that_it_cannot_use_the_gpu(digits, device):
    def use():
        MVAETransformer(max_iter=1, device=device).fit(digits[0])

    use()
    assert "'spawn'" in in_fork(use)
