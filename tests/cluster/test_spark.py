"""Spark, as the pages on clusters have it."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="needs PySpark"),
    pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow"),
    pytest.mark.skipif(shutil.which("java") is None, reason="needs Java"),
]

LOCAL = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
BEFORE = """
import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

settings = {
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}
spark = SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
X = np.load("/shared/X.npy")
frame = spark.createDataFrame(pd.DataFrame({"row": list(X)}))
"""
AFTER = """
np.save("codes.npy", np.stack(Z.toPandas()["codes"]))
spark.stop()
"""


def test_a_column_of_rows_becomes_one_of_codes(snippets, shared, run_in_child, tmp_path):
    [snippet] = snippets["Codes of a Spark column"]
    script = (BEFORE + snippet + AFTER).replace("/shared", str(shared))
    run_in_child(script, timeout=180, **LOCAL)
    found, expected = np.load(tmp_path / "codes.npy"), np.load(shared / "codes.npy")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("local_mode", [False, True])
def test_a_torch_distributor_fits_one_estimator(
    snippets, shared, run_in_child, check_fit_of_two_ranks, local_mode
):
    train, _, with_spark = snippets["Starting it"]
    with_spark = with_spark.replace("local_mode=False", f"local_mode={local_mode}")
    script = BEFORE.replace("local[1]", "local[2]") + train + with_spark + "spark.stop()\n"
    run_in_child(script.replace("/shared", str(shared)), timeout=180, **LOCAL)
    check_fit_of_two_ranks()
