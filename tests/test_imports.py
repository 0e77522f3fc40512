"""Imports run one way: these edges and no other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skmvae

PACKAGE = Path(skmvae.__file__).parent

EDGES = {
    "__init__": {"_fit.epoch", "_show_versions", "_transformer", "_version"},
    "_transformer": {
        "_files.checkpoints",
        "_files.keys",
        "_files.models",
        "_files.tensors",
        "_fit.callbacks",
        "_fit.epoch",
        "_fit.schedules",
        "_fit.training",
        "_inference",
        "_machine.group",
        "_machine.rows",
        "_machine.runtime",
        "_model.distributions",
        "_model.objective",
        "_state",
        "_validation",
        "_version",
        "architectures",
    },
    "_inference": {
        "_machine.rows",
        "_machine.runtime",
        "_model.distributions",
        "_model.network",
        "_model.objective",
        "_state",
    },
    "_state": {"_machine.runtime", "_model.distributions", "_model.network", "_version"},
    "_validation": set(),
    "_show_versions": {"_version"},
    "_version": set(),
    "architectures": {"_model.convolution", "_model.layers", "_validation"},
    "datasets": set(),
    "distributed": {
        "_files.keys",
        "_machine.group",
        "_machine.runtime",
        "_transformer",
        "_validation",
    },
    "metrics": {"_machine.runtime", "_model.dhsic", "_validation"},
    "onnx": {"_files.writing", "_machine.runtime", "_state", "_transformer"},
    "plotting": {"_transformer", "_validation"},
    "_fit.__init__": set(),
    "_fit.training": {
        "_fit.epoch",
        "_machine.group",
        "_machine.rows",
        "_machine.runtime",
        "_model.network",
        "_state",
    },
    "_fit.epoch": {
        "_fit.batches",
        "_fit.graphs",
        "_fit.schedules",
        "_machine.group",
        "_machine.rows",
        "_machine.runtime",
        "_machine.shares",
        "_model.network",
        "_model.objective",
        "_state",
    },
    "_fit.schedules": set(),
    "_fit.batches": {"_machine.rows"},
    "_fit.graphs": {"_machine.runtime"},
    "_fit.callbacks": set(),
    "_files.__init__": set(),
    "_files.checkpoints": {"_files.tensors", "_machine.runtime", "_state"},
    "_files.keys": set(),
    "_files.models": {"_files.tensors", "_state", "_version"},
    "_files.tensors": {"_files.writing"},
    "_files.writing": set(),
    "_model.__init__": set(),
    "_model.objective": {
        "_machine.runtime",
        "_machine.shares",
        "_model.dhsic",
        "_model.distributions",
        "_model.network",
    },
    "_model.network": {"_model.distributions"},
    "_model.convolution": {"_machine.group", "_model.layers"},
    "_model.layers": set(),
    "_model.distributions": set(),
    "_model.dhsic": set(),
    "_machine.__init__": set(),
    "_machine.group": {"_machine.runtime"},
    "_machine.shares": {"_machine.group"},
    "_machine.rows": {"_machine.group", "_machine.runtime"},
    "_machine.runtime": set(),
}

# Below the shell everything is plain torch, testable on tensors alone.
MAY_IMPORT_SKLEARN = {
    "_fit.callbacks",
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


def test_every_module_is_listed():
    found = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")
    }
    assert found == EDGES.keys()


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
