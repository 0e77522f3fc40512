"""The web service of the page on deployment, in a process of its own, with many clients."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

PAGE = Path(__file__).parents[1] / "docs" / "deploy.md"
N_CLIENTS, N_REQUESTS = 4, 10

DEADLINE = 120  # seconds, also on a busy machine


def blocks():
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return [block for block in found if "http" in block]


@pytest.fixture
def service(fitted, tmp_path):
    """The process, its port, and where its standard error goes."""
    fitted.save(tmp_path / "model.safetensors")
    (tmp_path / "service.py").write_text(blocks()[0])
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "service.py"],
            cwd=tmp_path,
            env={**os.environ, "PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    clock = threading.Timer(DEADLINE, process.kill)  # ends reads of the service, too
    clock.start()
    with process:
        try:
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), log.read_text()
            yield process, int(line.rpartition(":")[2]), log
        finally:
            clock.cancel()
            process.kill()


def ask(connection, body, **headers):
    connection.request("POST", "/", body, headers)
    response = connection.getresponse()
    return response.status, json.load(response)


def connect(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)


def test_many_clients_get_their_own_codes_and_the_service_ends_cleanly(service, fitted, digits):
    process, port, log = service
    X = digits[0][: N_CLIENTS * N_REQUESTS].reshape(N_CLIENTS, N_REQUESTS, -1)
    together = threading.Barrier(N_CLIENTS)

    def client(rows):
        with closing(connect(port)) as connection:
            together.wait(DEADLINE)
            answers = [ask(connection, json.dumps({"rows": [row.tolist()]})) for row in rows]
        assert {status for status, _ in answers} == {200}
        return [answer["codes"][0] for _, answer in answers]

    with ThreadPoolExecutor(N_CLIENTS) as threads:
        found = np.array(list(threads.map(client, X)))
    expected = fitted.transform(X.reshape(-1, X.shape[-1])).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())

    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0
    assert process.stdout.read() == ""
    lines = [line for line in log.read_text().splitlines() if "Request timed out" not in line]
    assert len(lines) == N_CLIENTS * N_REQUESTS
    assert all('"POST / HTTP/1.1" 200' in line for line in lines)


def test_wrong_requests_are_answered_and_the_service_continues(service, fitted, digits):
    process, port, log = service
    for body, message, *length in [
        ("rows", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ('{"rows": [[1, 2], [3]]}', "inhomogeneous"),
        (f'{{"rows": [[1e999{", 0" * 63}]]}}', "infinity"),
        (json.dumps({"rows": [[0.0] * 63]}), "63 features"),
        (None, "Content-Length must be given", -1),  # refused before it is sent
        (None, "Content-Length must be given", 2**20 + 1),
    ]:
        headers = {"Content-Length": str(length[0])} if length else {}
        with closing(connect(port)) as connection:
            status, answer = ask(connection, body, **headers)
        assert status == 400
        assert message in answer["error"]

    names = {"X": digits[0]}
    exec(blocks()[1].replace(":8000", f":{port}"), names)
    np.testing.assert_allclose(names["codes"], fitted.transform(digits[0][:2]), atol=1e-10)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 0
    assert "Traceback" not in log.read_text()
