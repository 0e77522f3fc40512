"""scikit-learn's callbacks on fits: what they see, that they can stop, that they are not saved."""

import copy

import joblib
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skmvae import DivergenceError
from skmvae._fit.callbacks import without_callbacks

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 has callbacks")


class Recorder:
    """Writes down every hook; asks to stop after some epochs."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events = []
        self.fitted = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
        self.events.append(f"end {context.task_name}")
        if context.task_name != "epoch":
            return None
        self.fitted.append(fitted_estimator)
        return len(self.fitted) == self.stop_after


def bound(mvae, X, y):
    return mvae.score(X)


@pytest.mark.cpu
def test_each_epoch_is_a_task_with_the_fit_as_if_it_stopped_there(make_small, digits):
    recorder = Recorder(stop_after=2)
    mvae = make_small(max_iter=50).set_callbacks(recorder).fit(digits[0])
    epoch = ["begin epoch", "end epoch"]
    assert recorder.events == ["setup", "begin fit", *epoch, *epoch, "end fit", "teardown"]
    assert len(mvae.history_["loss"]) == mvae.n_iter_ == 2
    for n_epochs, seen in enumerate(recorder.fitted, 1):
        alone = make_small(max_iter=n_epochs).fit(digits[0])
        assert seen is not mvae
        assert seen.n_iter_ == n_epochs
        assert_array_equal(seen.transform(digits[0]), alone.transform(digits[0]))
        assert_array_equal(seen.weights_, alone.weights_)
    assert_array_equal(mvae.transform(digits[0]), seen.transform(digits[0]))


@pytest.mark.cpu
def test_a_stop_request_keeps_the_best_weights(make_small, digits):
    params = {"max_iter": 8, "early_stopping": True, "learning_rate": 0.03, "n_iter_no_change": 50}
    recorder = Recorder(stop_after=2)
    mvae = make_small(**params).set_callbacks(recorder).fit(digits[0])
    first, second = mvae.history_["validation_loss"]
    assert first < second  # or the test shows nothing
    expected = recorder.fitted[0].transform(digits[0])
    assert_array_equal(recorder.fitted[1].transform(digits[0]), expected)
    assert_array_equal(mvae.transform(digits[0]), expected)


def test_an_error_tears_down_and_leaves_the_earlier_fit(make_small, digits):
    class Broken(Recorder):
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError("broken")

    recorder, mvae = Recorder(), make_small().fit(digits[0])
    before = mvae.transform(digits[0])
    with pytest.raises(DivergenceError):
        mvae.set_callbacks(recorder).set_params(learning_rate=1e38).fit(digits[0])
    assert recorder.events[-1] == "teardown"
    with pytest.raises(RuntimeError, match="broken"):
        mvae.set_callbacks(Broken()).set_params(learning_rate=1e-3).fit(digits[0])
    assert_array_equal(mvae.transform(digits[0]), before)
    assert not {name for name in vars(mvae) if "callback" in name} - {"_skl_callbacks"}


def test_callbacks_are_not_saved(make_small, digits, tmp_path):
    class Unpicklable(Recorder):
        def __reduce__(self):
            raise TypeError("not to be saved")

    mvae = make_small().set_callbacks(Unpicklable()).fit(digits[0])
    joblib.dump(mvae, tmp_path / "mvae.joblib")
    for again in (joblib.load(tmp_path / "mvae.joblib"), copy.deepcopy(mvae)):
        assert without_callbacks(vars(again)).keys() == vars(again).keys()
        assert_array_equal(again.transform(digits[0]), mvae.transform(digits[0]))
    assert clone(mvae)._skl_callbacks == mvae._skl_callbacks  # as scikit-learn has it


def test_a_monitor_scores_the_epochs_of_candidates_in_other_processes(make_small, digits):
    monitor = callback.ScoringMonitor(scoring={"bound": bound})
    mvae = make_small().set_callbacks(monitor)
    GridSearchCV(mvae, {"k": [1, 2]}, cv=2, n_jobs=2).fit(digits[0][:50])
    logs = monitor.get_logs(select="all")
    epochs = [row for log in logs for row in log.data if row["task_name"] == "epoch"]
    assert len(epochs) == (2 * 2 + 1) * 2
    monitor = callback.ScoringMonitor(scoring={"bound": bound})
    mvae = make_small().set_callbacks(monitor).fit(*digits)
    (log,) = monitor.get_logs(select="all")
    scores = [row["bound"] for row in log.data if row["task_name"] == "epoch"]
    assert len(scores) == 2
    assert scores[-1] == mvae.score(digits[0])
