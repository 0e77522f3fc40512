"""
A grid search over beta in a pipeline
=====================================

The mixture is one step of a pipeline; a search reaches its parameters, and those of its
architecture, by their names. ``beta`` weighs the dHSIC penalty, which is so small that values
from 1 to 100 may well make no difference: the table shows it.
"""

import pandas as pd
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer

X, y = load_digits(return_X_y=True)
pipe = Pipeline(
    [
        ("mvae", MVAETransformer(k=3, latent_dim=8, max_iter=25, random_state=0)),
        ("svm", LinearSVC(random_state=0)),
    ]
).set_params(mvae__architecture__hidden_layer_sizes=(200, 200))
search = GridSearchCV(pipe, {"mvae__beta": [0, 1, 100, 10_000]}, cv=3).fit(X, y)

results = pd.DataFrame(search.cv_results_)
print(results[["param_mvae__beta", "mean_test_score", "std_test_score"]].to_string(index=False))

# %%
# The spread over the folds is the yardstick for differences.

figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.errorbar(
    [str(beta) for beta in results["param_mvae__beta"]],
    results["mean_test_score"],
    results["std_test_score"],
    fmt="o",
    capsize=4,
)
ax.set(xlabel="beta", ylabel="accuracy, mean and spread over folds", title="linear SVM on codes")
plt.show()
