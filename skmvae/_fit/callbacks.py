"""scikit-learn's fit callbacks: each epoch is a task, which they see begin and end.

They are experimental there, and exist from scikit-learn 1.9 on. All that knows them is in this
file, and with it the names that are not public: ``_init_callback_context``, which scikit-learn
documents for authors of estimators, and the attributes in which it keeps what is attached.
"""

from __future__ import annotations

from collections.abc import Callable

from .._state import Epoch, Trained
from .observers import Observer

__all__ = ["CallbackSupportMixin", "FitTask", "with_callbacks", "without_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing can be attached."""

    def with_callbacks(method):
        """Leave the method as it is."""
        return method


_ATTACHED = frozenset(
    {
        "_skl_callbacks",
        "_parent_callback_ctx",
        "_callback_fit_ctx",
        "_skl_callbacks_to_teardown",
    }
)


def without_callbacks(attributes: dict) -> dict:
    """The attributes of an estimator that may be saved or copied."""
    return {name: value for name, value in attributes.items() if name not in _ATTACHED}


class FitTask(Observer):
    """An observer that tells callbacks of a fit and its epochs, each of which is a task to them.

    ``attributes`` makes those of the estimator if the fit stopped at the end of an epoch.
    """

    def __init__(self, estimator, X, y, attributes: Callable[[Trained], dict]) -> None:
        self._hooks = {"estimator": estimator, "X": X, "y": y}
        self._attributes = attributes
        self._context = None
        if hasattr(estimator, "_init_callback_context"):
            self._context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
            self._context.call_on_fit_task_begin(**self._hooks)

    def begin_epoch(self) -> None:
        if self._context is not None:
            self._task = self._context.subcontext(task_name="epoch")
            self._task.call_on_fit_task_begin(**self._hooks)

    def end_epoch(self, epoch: Epoch) -> bool:
        return self._context is not None and self._end(self._task, epoch)

    def end_fit(self, epoch: Epoch) -> None:
        if self._context is not None:
            self._end(self._context, epoch)

    def _end(self, task, epoch: Epoch) -> bool:
        """Whether a callback asks to stop. Attributes are made only if one wants them."""
        return task.call_on_fit_task_end(
            **self._hooks,
            reconstruction_attributes=lambda: without_callbacks(self._attributes(epoch.trained())),
        )
