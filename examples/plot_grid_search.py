"""
Searches: a grid over beta, and successive halving over epochs
==============================================================

The mixture is one step of a pipeline. A search sets the parameters of the mixture and of its
architecture by name. ``beta`` weighs the dHSIC penalty, which is so small that values from 1 to 100
may well make no difference, as the table shows.
"""

import time

import pandas as pd
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer

X, y = load_digits(return_X_y=True)
pipe = Pipeline(
    [
        ("mvae", MVAETransformer(k=3, latent_dim=8, max_iter=20, random_state=0)),
        ("svm", LinearSVC(random_state=0)),
    ]
)
search = GridSearchCV(pipe, {"mvae__beta": [0, 1, 100, 10_000]}, cv=3).fit(X, y)

results = pd.DataFrame(search.cv_results_)
print(results[["param_mvae__beta", "mean_test_score", "std_test_score"]].to_string(index=False))

# %%
# Compare differences in accuracy with the spread over the folds.

figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.errorbar(
    [str(beta) for beta in results["param_mvae__beta"]],
    results["mean_test_score"],
    results["std_test_score"],
    fmt="o",
    capsize=4,
)
ax.set(xlabel="beta", ylabel="accuracy on the folds", title="linear SVM on codes")
plt.show()

# %%
# Successive halving trains all candidates for a few epochs, the better ones for more, and the best
# ones for all of ``max_resources``. The learning rate of a short fit also rises and falls once, so
# short fits are complete and can be compared.

X, y = X[::3], y[::3]  # fewer rows, to be quick here
grid = {"mvae__latent_dim": [2, 4, 6, 8, 12, 16]}
searches = {
    "grid, 24 epochs": GridSearchCV(pipe.set_params(mvae__max_iter=24), grid, cv=3),
    "halving, 8 to 24": HalvingGridSearchCV(
        pipe, grid, resource="mvae__max_iter", min_resources=8, max_resources=24, cv=3
    ),
}
for name, search in searches.items():
    start = time.perf_counter()
    search.fit(X, y)
    seconds = time.perf_counter() - start
    print(f"{name:18}{seconds:5.1f} s   {search.best_score_:.3f}   {search.best_params_}")
