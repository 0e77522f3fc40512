"""
Data frames in and out
======================

After ``set_output(transform="pandas")`` the codes are a data frame with named columns and the index
of the input. ``history_`` is a dict of lists, ready for ``pandas.DataFrame``.
"""

import pandas as pd
from matplotlib import pyplot as plt
from sklearn.datasets import load_iris

from skmvae import MVAETransformer

iris = load_iris(as_frame=True)
mvae = MVAETransformer(k=2, latent_dim=2, max_iter=40, random_state=0)
codes = mvae.set_output(transform="pandas").fit_transform(iris.data)
print(codes.head().round(2).to_string())

# %%

print(mvae.feature_names_in_)
print(codes.groupby(iris.target_names[iris.target]).mean().round(2).to_string())

# %%

history = pd.DataFrame(mvae.history_)
print(history.tail(3).round(3).to_string())
figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
history[["loss", "reconstruction", "kl_latent"]].plot(xlabel="epoch", ylabel="nats per row", ax=ax)
plt.show()
