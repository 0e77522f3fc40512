"""
==========================================
Digits: codes as features for a classifier
==========================================

The mixture of variational autoencoders (VAEs) learns codes from unlabelled images, and a linear
support vector machine or a nearest-neighbour classifier is trained on the codes. PCA and a single
VAE with the same number of columns are the baselines. All three see the same training rows.

The images are scikit-learn's own 8 x 8 digits: 898 to train on and 899 to test. On a data set this
small PCA is hard to beat.
"""

import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer
from skmvae.plotting import ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)

# %%
# Three ways to 40 columns
# ------------------------

K, LATENT_DIM = 4, 10

features = {
    "M-VAE, 4 x 10": MVAETransformer(k=K, latent_dim=LATENT_DIM, random_state=0),
    "single VAE, 40": MVAETransformer(k=1, latent_dim=K * LATENT_DIM, random_state=0),
    "PCA, 40": PCA(K * LATENT_DIM, random_state=0),
}
classifiers = {"LinearSVC": LinearSVC(random_state=0), "KNN (5)": KNeighborsClassifier(5)}

print(f"{len(X_train)} training rows, {len(X_test)} test rows, accuracy on the test rows\n")
print(f"{'features':16}" + "".join(f"{name:>11}" for name in classifiers) + f"{'seconds':>10}")
for name, transformer in features.items():
    start = time.perf_counter()
    transformer.fit(X_train)
    seconds = time.perf_counter() - start
    row = f"{name:16}"
    for classifier in classifiers.values():
        # Fit only the classifier here, since the transformer is fitted already. Usually you would
        # fit the whole pipeline at once.
        pipe = Pipeline([("codes", transformer), ("classifier", classifier)])
        classifier.fit(transformer.transform(X_train), y_train)
        row += f"{pipe.score(X_test, y_test):11.3f}"
    print(f"{row}{seconds:10.1f}", flush=True)

# %%
# What the components learned
# ---------------------------
# The mixture's reconstruction is the sum of the components' reconstructions, weighted row by row.

mvae = features["M-VAE, 4 x 10"]
print("\nmean mixing weights:", np.round(mvae.weights_, 3))

shown = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]
display = ReconstructionDisplay.from_estimator(mvae, X_test[shown], image_shape=(8, 8))
display.figure_.savefig("digits_pipeline.png", dpi=120)
print("picture saved as digits_pipeline.png")
