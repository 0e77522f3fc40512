"""What belongs to the user: the process-wide generators and switches."""

import logging
import random

import numpy as np
import torch


def process_wide_state():
    """Every process-wide generator and switch, in a form that == compares."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy.random": (keys.tobytes(), position, has_gauss, gauss),
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "torch threads": torch.get_num_threads(),
        "torch default dtype": torch.get_default_dtype(),
        "torch matmul precision": torch.get_float32_matmul_precision(),
        "torch deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad mode": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "logging": (logging.root.level, len(logging.root.handlers)),
    }
