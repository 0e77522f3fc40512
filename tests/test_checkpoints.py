"""A fit that is cut short continues from its checkpoint, bit for bit."""

import logging
import pickle

import numpy as np
import pytest
from scipy import sparse

from skmvae._files import checkpoints
from skmvae._files.checkpoints import Checkpoint
from skmvae._fit import fitting
from skmvae._state import Epoch, TrainingState
from skmvae.architectures import MLP

pytestmark = pytest.mark.cpu


class Cut(Exception):
    """Ends a fit after an epoch, as a crash would."""


class Epochs(logging.Handler):
    """Counts the epochs that are trained, and cuts a fit after one of them."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.messages, self.cut_after = [], None

    def emit(self, record):
        self.messages.append(record.getMessage())
        if self.cut_after is not None and f"epoch {self.cut_after}/" in self.messages[-1]:
            raise Cut

    def trained(self):
        """The number of epochs since the last call."""
        n = sum(message.startswith("epoch") for message in self.messages)
        self.messages.clear()
        return n


@pytest.fixture
def epochs():
    logger, handler = logging.getLogger("skmvae"), Epochs()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "_FRACTION_OF_TIME", np.inf)


@pytest.fixture
def make(make_small, tmp_path):
    def make(**params):
        return make_small(**{"checkpoint_dir": tmp_path / "fits", "verbose": 1} | params)

    return make


def assert_same_fit(found, expected):
    for name, array in expected._state.arrays.items():
        np.testing.assert_array_equal(found._state.arrays[name], array, err_msg=name)
    np.testing.assert_array_equal(found.weights_, expected.weights_)
    assert found.n_iter_ == expected.n_iter_
    for name, values in expected.history_.items():
        assert name == "seconds" or found.history_[name] == values


def cut(mvae, X, epochs, after):
    epochs.cut_after = after
    with pytest.raises(Cut):
        mvae.fit(X)
    epochs.cut_after = None
    epochs.trained()


@pytest.mark.parametrize(
    "params",
    [
        {"early_stopping": True, "n_iter_no_change": 4, "tol": 1e9, "max_iter": 6},  # stops at 5
        {"objective": "averaged", "learning_rate_schedule": "trapezoid"},
        {"objective": "clusters", "architecture": MLP((16,), dropout=0.2)},
        {"neighbor_weight": 0.1},
    ],
    ids=["held-out rows", "trapezoid", "dropout", "neighbours"],
)
def test_a_fit_cut_after_any_epoch_ends_bitwise_as_without_the_cut(
    make, make_small, digits, epochs, params
):
    X, params = digits[0], {"max_iter": 5} | params
    expected = make_small(**params).fit(X)
    for after in (2, 4, 5):
        cut(make(**params), X, epochs, after)  # before the checkpoint of that epoch
    mvae = make(**params).fit(X)
    assert epochs.trained() == 1
    assert_same_fit(mvae, expected)


def test_a_finished_fit_is_found(make, digits, epochs, tmp_path, monkeypatch):
    first = make(neighbor_weight=0.1).fit(digits[0])
    assert epochs.trained() == 2
    monkeypatch.delattr(fitting, "find_neighbours")  # nor is the graph made again
    assert_same_fit(make(neighbor_weight=0.1).fit(digits[0]), first)
    assert epochs.trained() == 0
    assert len(list((tmp_path / "fits").iterdir())) == 1


def test_a_longer_fit_continues_a_shorter_one_if_the_learning_rate_is_constant(
    make, make_small, digits, epochs
):
    X, _ = digits
    make(max_iter=2).fit(X)
    make(max_iter=3).fit(X)
    epochs.trained()
    longer = make(max_iter=5).fit(X)
    assert epochs.trained() == 2
    assert_same_fit(longer, make_small(max_iter=5).fit(X))
    assert_same_fit(make(max_iter=2).fit(X), make_small(max_iter=2).fit(X))
    assert epochs.trained() == 0


@pytest.mark.parametrize(
    "params", [{"learning_rate_schedule": "trapezoid"}, {"objective": "clusters"}], ids=str
)
def test_a_longer_fit_says_why_it_begins_anew(params, make, make_small, digits, epochs):
    X, _ = digits
    make(max_iter=2, **params).fit(X)
    epochs.trained()
    longer = make(max_iter=3, **params).fit(X)
    assert any("its epochs do depends on max_iter" in message for message in epochs.messages)
    assert epochs.trained() == 3
    assert_same_fit(longer, make_small(max_iter=3, **params).fit(X))


@pytest.mark.parametrize("change", [{"random_state": 1}, {"architecture__dropout": 0.1}, {}])
def test_other_parameters_and_other_rows_are_another_fit(make, make_small, digits, epochs, change):
    X = digits[0]
    make().fit(X)
    epochs.trained()
    other = X if change else np.minimum(X, 15.5)
    mvae = make().set_params(**change).fit(other)
    assert epochs.trained() == 2
    assert_same_fit(mvae, make_small().set_params(**change).fit(other))


def test_the_storage_of_the_rows_and_verbose_do_not_matter(make, digits, epochs, tmp_path):
    X, _ = digits
    make().fit(X)
    epochs.trained()
    np.save(tmp_path / "rows.npy", X)
    memory_map = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for same in (np.asfortranarray(X), sparse.csr_array(X), memory_map, np.where(X == 0, -0.0, X)):
        make(verbose=0, beta=np.float64(1), random_state=np.int64(0)).fit(same)
        assert epochs.trained() == 0


def test_the_rate_that_an_architecture_asks_for_is_the_same_fit_by_its_number(make, digits, epochs):
    make(learning_rate=None, learning_rate_schedule="trapezoid").fit(digits[0])
    assert epochs.trained() == 2
    make(learning_rate=3e-3, learning_rate_schedule="trapezoid").fit(digits[0])
    assert epochs.trained() == 0


def test_without_a_seed_the_interrupted_fit_continues(make, digits, epochs):
    X, _ = digits
    cut(make(random_state=None, max_iter=3), X, epochs, after=3)
    mvae = make(random_state=None, max_iter=3).fit(X)
    assert epochs.trained() == 1
    again = make(random_state=None, max_iter=3).fit(X)
    assert epochs.trained() == 0
    assert_same_fit(again, mvae)


def test_a_random_state_gives_the_seed(make, digits, epochs):
    X, _ = digits
    rng = np.random.RandomState(3)
    first, second = make(random_state=rng).fit(X), make(random_state=rng).fit(X)
    assert epochs.trained() == 4  # the generator has moved on
    assert not np.array_equal(first.transform(X), second.transform(X))
    rng = np.random.RandomState(3)
    assert_same_fit(make(random_state=rng).fit(X), first)
    assert_same_fit(make(random_state=rng).fit(X), second)
    assert epochs.trained() == 0


def test_a_warm_start_is_a_fit_of_its_own(make, make_small, digits, epochs):
    X, _ = digits
    expected = make_small(warm_start=True).fit(X).fit(X[:300])
    mvae = make(warm_start=True).fit(X)
    saved = pickle.dumps(mvae)
    cut(mvae, X[:300], epochs, after=2)
    assert mvae.n_iter_ == 2  # of the first fit, which stands
    assert_same_fit(mvae.fit(X[:300]), expected)
    assert epochs.trained() == 1
    assert_same_fit(pickle.loads(saved).fit(X[:300]), expected)
    assert epochs.trained() == 0


def test_the_home_folder_is_found(make, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make(checkpoint_dir="~/my fits/größe").fit(digits[0])
    assert len(list((tmp_path / "my fits" / "größe").iterdir())) == 1


@pytest.mark.parametrize(("expected_seconds", "written"), [(0.0, [1, 2, 3]), (1e9, [3])])
def test_a_checkpoint_that_takes_long_is_written_at_the_end(
    tmp_path, monkeypatch, fitted, expected_seconds, written
):
    monkeypatch.setattr(checkpoints, "_FRACTION_OF_TIME", 1e-3)
    monkeypatch.setattr(checkpoints, "_EXPECTED_SECONDS", expected_seconds)
    checkpoint, made = Checkpoint(tmp_path, "key", 3, can_grow=False), []
    assert checkpoint.read(fitted._state) is None

    def epoch(number):
        def training_state():
            made.append(number)
            return TrainingState({}, {"seed": 0})

        return Epoch((), None, training_state)

    for number in (1, 2, 3):
        checkpoint.begin_epoch()
        assert checkpoint.end_epoch(epoch(number)) is False
        checkpoint._seconds = expected_seconds
    checkpoint.end_fit(epoch(3))
    assert made == written
