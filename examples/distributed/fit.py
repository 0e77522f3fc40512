"""One fit by several processes, each with rows of its own.

python -m torch.distributed.run --standalone --nproc-per-node 2 examples/distributed/fit.py
"""

import numpy as np
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import skmvae.distributed
from skmvae import MVAETransformer


def main():
    dist.init_process_group("gloo")  # "nccl" for GPUs
    rank, size = dist.get_rank(), dist.get_world_size()
    X, y = load_digits(return_X_y=True)
    train, test = slice(0, 1200), slice(1200, None)

    # Take this rank's shard as a slice: only these rows of a memory map are ever read.
    shard = np.array_split(X[train], size)[rank]
    mvae = MVAETransformer(k=4, max_iter=20, random_state=0, verbose=1)
    skmvae.distributed.fit(mvae, shard)

    # Every rank has the same model now. One is enough to judge it.
    if rank == 0:
        knn = KNeighborsClassifier().fit(mvae.transform(X[train]), y[train])
        accuracy = knn.score(mvae.transform(X[test]), y[test])
        print(f"{size} ranks, accuracy of nearest neighbours on the codes: {accuracy:.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
