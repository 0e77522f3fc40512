"""Rows in Zarr and in memory maps, as the page on clusters has them."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skmvae import MVAETransformer
from skmvae.architectures import MLP

pytestmark = pytest.mark.cpu


def test_rows_of_zarr_are_written_and_trained_on_in_chunks(snippets, tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    X = load_digits().data.astype(np.float32)
    kept = zarr.create_array("rows.zarr", shape=X.shape, chunks=(600, 64), dtype="float32")
    kept[:] = X
    mapped, in_chunks = snippets["More rows than memory, on one machine"]
    fast = "MVAETransformer(architecture=MLP((16,)), max_iter=1, "
    names = {"MLP": MLP}
    exec(mapped.replace("MVAETransformer(", fast), names)
    expected = MVAETransformer(architecture=MLP((16,)), max_iter=1, random_state=0).fit(X)
    expected = expected.transform(X)
    found = names["mvae"].transform(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    exec(in_chunks.replace("MVAETransformer(", fast), names)
    assert names["mvae"].n_iter_ == 9
