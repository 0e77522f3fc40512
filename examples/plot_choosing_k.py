"""
Choosing the number of components
=================================

``score`` on held-out rows is a lower bound of their log likelihood. It does not depend on the
objective that trained the model, so it compares models of any ``k``, ``latent_dim`` and ``beta``.
The likelihood is one criterion; the accuracy of a classifier on the codes need not follow it.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC

from skmvae import MVAETransformer

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

components = [1, 2, 4, 8]
bounds, accuracies = [], []
for k in components:
    mvae = MVAETransformer(
        k=k, latent_dim=8, objective="elbo", early_stopping=True, max_iter=60, random_state=0
    ).fit(X_train)
    svm = LinearSVC(random_state=0).fit(mvae.transform(X_train), y_train)
    bounds.append(mvae.score(X_test))
    accuracies.append(svm.score(mvae.transform(X_test), y_test))
    print(
        f"k = {k}: {mvae.n_iter_:3} epochs, bound {bounds[-1]:.1f}, accuracy {accuracies[-1]:.3f}"
    )

# %%

figure, (top, bottom) = plt.subplots(2, figsize=(6, 4.2), sharex=True, layout="constrained")
top.plot(components, bounds, "o-")
top.set(ylabel="nats per row", title="bound of the log likelihood, held out")
bottom.plot(components, accuracies, "o-", color="C1")
bottom.set(xlabel="k", ylabel="accuracy", title="linear SVM on the codes", xticks=components)
plt.show()
