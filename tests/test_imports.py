"""Imports run one way: from higher floors to lower ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skmvae

PACKAGE = Path(skmvae.__file__).parent

# From the ground up: a module imports what is on lower floors, and its neighbours in its folder.
FLOORS = (
    {"_model", "_process", "_tables", "_validation", "_version"},
    {"_runtime", "_show_versions"},
    {"_distributed"},
    {"_rows", "_state", "architectures"},
    {"_saved", "metrics"},
    {"_files", "_fit", "_inference"},
    {"_parameters"},
    {"_transformer"},
    {"_imputer", "_loading", "datasets", "distributed", "onnx", "plotting"},
    {"__init__"},
)

# Below the shell everything is plain torch, testable on tensors alone.
MAY_IMPORT_SKLEARN = {
    "_fit.callbacks",
    "_imputer",
    "_parameters",
    "_rows.parts",
    "_rows.projection",
    "_transformer",
    "_validation",
    "architectures",
    "datasets",
    "metrics",
    "onnx",
    "plotting",
}


def imports(module):
    """(our modules, other top-level packages, private names of scikit-learn) that it imports."""
    ours, others, private = set(), set(), set()
    folders = module.split(".")[:-1]
    for node in ast.walk(
        ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text())
    ):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = folders[: len(folders) + 1 - node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            ours.update(".".join([*folder, name]) for name in names)
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
            path = [*node.module.split("."), *(alias.name for alias in node.names)]
            if path[0] == "sklearn" and any(part.startswith("_") for part in path):
                private.add(".".join(path))
        elif isinstance(node, ast.Import):
            others.update(alias.name.split(".")[0] for alias in node.names)
    return ours, others, private


MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")
)


def room(module):
    """The file, or the folder, that stands on a floor."""
    return module.split(".")[0]


def floor(module):
    (found,) = (i for i, rooms in enumerate(FLOORS) if room(module) in rooms)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_down(module):
    ours, others, private = imports(module)
    for other in ours:
        if room(other) != room(module):
            assert floor(other) < floor(module), other
    assert "skmvae" not in others
    assert ("matplotlib" in others) == (module == "plotting")
    assert ("sklearn" in others) <= (module in MAY_IMPORT_SKLEARN)
    assert not private


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
import skmvae, skmvae.architectures, skmvae.datasets, skmvae.distributed
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
others = ("matplotlib", "pandas", "polars", "skops", "safetensors", "PIL", "rich")
for name in (*others, "onnx", "onnxscript"):
    sys.modules[name] = None
import skmvae, skmvae.architectures, skmvae.datasets, skmvae.onnx
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
