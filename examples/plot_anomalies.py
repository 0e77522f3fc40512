"""
Anomaly scores
==============

``score_samples`` is a lower bound of a row's log likelihood, and unusual rows have a low bound. The
model here is fitted on benign tumours only and scores other tumours, benign and malignant. Training
uses the labels only to choose its rows.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmvae import MVAETransformer

X, y = load_breast_cancer(return_X_y=True)
benign, malignant = X[y == 1], X[y == 0]
X_train, X_test = train_test_split(benign, random_state=0)
rows = np.vstack([X_test, malignant])
is_anomaly = np.r_[np.zeros(len(X_test)), np.ones(len(malignant))]

models = {
    "M-VAE": MVAETransformer(
        k=2, latent_dim=5, objective="elbo", max_iter=60, early_stopping=True, random_state=0
    ),
    "PCA": PCA(5),
    "isolation forest": IsolationForest(random_state=0),
}

# %%

figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
for name, model in models.items():
    scores = make_pipeline(StandardScaler(), model).fit(X_train).score_samples(rows)
    RocCurveDisplay.from_predictions(is_anomaly, -scores, name=name, ax=ax)
ax.set_title("malignant among benign tumours")
plt.show()
