"""
A table with holes: filled, and classified
==========================================

NaN is a value that was not observed, in ``fit`` and in every other method. The mixture learns from
what was observed, ``transform`` encodes rows with holes, and ``impute`` fills them. Here a third of
the breast cancer table is removed at random, and the true values tell how well it is filled.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmvae import MVAEImputer, MVAETransformer

table, y = load_breast_cancer(return_X_y=True, as_frame=True)
X = (table - table.mean()) / table.std()
rng = np.random.default_rng(0)
missing = rng.random(X.shape) < 0.33
holes = X.mask(missing)
print(holes.iloc[:4, :4].round(2).to_string())

# %%
# ``MVAEImputer`` is a step like scikit-learn's imputers: it fits a mixture of four components, and
# fills each hole with the mean of what the row's other values leave possible. An error of 1 is that
# of the column's mean.

imputers = {
    "mean": SimpleImputer(),
    "KNNImputer": KNNImputer(n_neighbors=10),
    "IterativeImputer": IterativeImputer(max_iter=30, tol=1e-2, random_state=0),
    "MVAEImputer": MVAEImputer(random_state=0),
}
for name, imputer in imputers.items():
    filled = imputer.fit_transform(holes)
    error = np.sqrt(np.mean(np.square(np.asarray(filled) - X.to_numpy())[missing]))
    print(f"{name:17} error {error:.3f}")

# %%
# A data frame that is given to ``impute`` comes back as one. With a ``random_state`` it is a draw
# in place of the mean: several of them show how sure the filling is. True values should be within
# the draws' spread as often as it says.

mvae = MVAETransformer(latent_dim=10, objective="elbo", max_iter=60, random_state=0).fit(holes)
draws = np.stack([mvae.impute(holes, 20, random_state=seed).to_numpy() for seed in range(20)])
low, high = np.quantile(draws, [0.1, 0.9], axis=0)
truth = X.to_numpy()
inside = ((low <= truth) & (truth <= high))[missing].mean()
print(f"{inside:.2f} of the true values are between the 0.1 and the 0.9 quantile of 20 draws")

column = X.columns.get_loc("mean area")
rows = np.flatnonzero(missing[:, column])[:40]
rows = rows[np.argsort(truth[rows, column])]
figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
ax.vlines(range(len(rows)), low[rows, column], high[rows, column], lw=4, alpha=0.4, label="draws")
ax.plot(mvae.impute(holes).to_numpy()[rows, column], "_", ms=8, color="C0", label="mean")
ax.plot(truth[rows, column], ".", color="C1", label="removed value")
ax.set(xlabel="rows", ylabel="mean area, standardised", xticks=[], title="Holes of one column")
ax.legend()
plt.show()

# %%
# Codes of rows with holes are features like others, and need no filling. With all labels, on a
# table as nearly linear as this one, filled columns are the better features. The imputers and the
# mixture are fitted within each fold.

steps = {
    "codes of the holes": MVAETransformer(objective="elbo", max_iter=30, random_state=0),
    "filled, mean": SimpleImputer(),
    "filled, IterativeImputer": imputers["IterativeImputer"],
}
for name, step in steps.items():
    pipe = make_pipeline(step, StandardScaler(), LogisticRegression(C=0.1))
    scores = cross_val_score(pipe, holes, y, cv=3)
    print(f"{name:25} accuracy {scores.mean():.3f} +- {scores.std():.3f}")
