"""
A table with missing values and categories
==========================================

The mixture takes numbers, and NaN for what is missing. A ``ColumnTransformer`` in front scales and
encodes, as for any other estimator. This example makes the wine table harder: it removes a tenth of
the values and cuts one column into three named levels.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skmvae import MVAETransformer
from skmvae.plotting import LatentSpaceDisplay

wine = load_wine(as_frame=True)
X, y = wine.data, wine.target
X = X.mask(np.random.default_rng(0).random(X.shape) < 0.1)
X["alcohol"] = pd.cut(X["alcohol"], [0, 12.5, 13.5, 20], labels=["low", "medium", "high"]).astype(
    object
)
print(X.iloc[:4, :5].to_string())

# %%

prepare = make_column_transformer(
    (StandardScaler(), make_column_selector(dtype_include="number")),
    (OneHotEncoder(sparse_output=False), ["alcohol"]),  # a column of its own for "missing"
)
mvae = MVAETransformer(k=2, latent_dim=4, max_iter=50, random_state=0)
for name, steps in {
    "M-VAE, 2 x 4 codes": [mvae],
    "PCA, 8": [SimpleImputer(), PCA(8)],
    "all columns": [SimpleImputer()],
}.items():
    pipe = make_pipeline(prepare, *steps, LogisticRegression(max_iter=1000))
    scores = cross_val_score(pipe, X, y, cv=5)
    print(f"{name:20} accuracy {scores.mean():.3f} +- {scores.std():.3f}")

# %%
# On a table as small as this one, simple features are hard to beat. The codes still give a map of
# the rows.

table = prepare.fit_transform(X)
LatentSpaceDisplay.from_estimator(mvae.fit(table), table, y)
plt.show()
