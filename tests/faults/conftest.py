"""Fixtures of the fault tests."""

import numpy as np
import pytest
from jobs import Job


@pytest.fixture
def start(tmp_path):
    """Start jobs, and end them with the test."""
    jobs = []

    def start_job(function, **arguments):
        jobs.append(Job(tmp_path / f"job{len(jobs)}", function, arguments))
        return jobs[-1]

    yield start_job
    for job in jobs:
        job.end()


@pytest.fixture
def rng(request):
    """Draw random times, other ones in each test."""
    return np.random.default_rng([*request.node.name.encode()])
