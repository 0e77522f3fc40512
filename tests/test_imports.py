"""Imports run one way: these edges and no other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skmvae

PACKAGE = Path(skmvae.__file__).parent

EDGES = {
    "__init__": {"_epoch", "_show_versions", "_transformer", "_version"},
    "_transformer": {
        "_callbacks",
        "_epoch",
        "_inference",
        "_runtime",
        "_state",
        "_training",
        "_validation",
        "architectures",
    },
    "_callbacks": set(),
    "_inference": {"_network", "_objective", "_runtime", "_state"},
    "_training": {"_epoch", "_network", "_objective", "_runtime"},
    "_epoch": {"_batches", "_graphs", "_network", "_objective", "_runtime"},
    "_batches": {"_runtime"},
    "_graphs": set(),
    "_state": {"_distributions", "_network", "_runtime", "_version"},
    "_objective": {"_dhsic", "_distributions", "_network", "_runtime"},
    "_network": {"_distributions"},
    "architectures": {"_convolution", "_layers", "_validation"},
    "_convolution": {"_layers"},
    "datasets": set(),
    "metrics": {"_dhsic", "_runtime", "_validation"},
    "plotting": {"_transformer", "_validation"},
    "_distributions": set(),
    "_dhsic": set(),
    "_layers": set(),
    "_runtime": set(),
    "_show_versions": {"_version"},
    "_validation": set(),
    "_version": set(),
}

# Below the shell everything is plain torch, testable on tensors alone.
MAY_IMPORT_SKLEARN = {
    "_callbacks",
    "_transformer",
    "_validation",
    "architectures",
    "datasets",
    "metrics",
    "plotting",
}


def imports(module):
    """(our modules, other top-level packages, private names of scikit-learn) that it imports."""
    ours, others, private = set(), set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            ours.update([node.module] if node.module else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
            path = [*node.module.split("."), *(alias.name for alias in node.names)]
            if path[0] == "sklearn" and any(part.startswith("_") for part in path):
                private.add(".".join(path))
        elif isinstance(node, ast.Import):
            others.update(alias.name.split(".")[0] for alias in node.names)
    return ours, others, private


def test_every_module_is_listed():
    assert {path.stem for path in PACKAGE.glob("*.py")} == EDGES.keys()


@pytest.mark.parametrize("module", EDGES)
def test_edges(module):
    ours, others, private = imports(module)
    assert ours == EDGES[module]
    assert "skmvae" not in others
    assert ("matplotlib" in others) == (module == "plotting")
    assert ("sklearn" in others) <= (module in MAY_IMPORT_SKLEARN)
    assert not private


def test_the_edges_have_no_circle():
    remaining = dict(EDGES)
    while remaining:
        leaves = [module for module, edges in remaining.items() if not edges & remaining.keys()]
        assert leaves, f"a circle among {sorted(remaining)}"
        for module in leaves:
            del remaining[module]


IMPORT = """
import json, sys, threading
import torch, sklearn, numpy, scipy, joblib
import sklearn.base, sklearn.utils.validation, sklearn.datasets
def threads():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Threads:"))
import random, warnings, logging
def process():
    return (
        threads(), random.getstate(), numpy.random.get_state()[1].tobytes(),
        torch.get_rng_state().numpy().tobytes(), torch.get_num_threads(),
        warnings.filters[:], logging.root.handlers[:],
    )
before, state = set(sys.modules), process()
import skmvae, skmvae.architectures, skmvae.datasets
assert process() == state, "importing skmvae changed the process"
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - set(sys.stdlib_module_names))))
"""


def test_importing_changes_nothing_and_starts_no_thread():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == '["skmvae"]'


def test_optional_packages_are_not_needed():
    code = """
import sys
for name in ("matplotlib", "pandas", "polars", "skops", "PIL", "rich"):
    sys.modules[name] = None
import skmvae, skmvae.architectures, skmvae.datasets
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_training_leaves_warnings_and_logging_alone():
    code = """
import logging, warnings
import numpy as np, torch
from skmvae import MVAETransformer
from skmvae.architectures import MLP
torch.optim.Adam([torch.ones(1, requires_grad=True)])  # imports SymPy, which adds a filter
filters, handlers = warnings.filters[:], logging.root.handlers[:]
mvae = MVAETransformer(k=2, architecture=MLP((4,)), max_iter=1, verbose=1).fit(np.eye(9))
mvae.transform(np.eye(9))
assert warnings.filters == filters
assert logging.root.handlers == handlers
assert not logging.getLogger("skmvae").handlers
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
