"""Run tests/faults with many trials of each fault, for the table of docs/reliability.md.

    python benchmarks/faults.py                               # all files: 15 minutes on two cores
    python benchmarks/faults.py test_memory.py test_ranks.py  # only these files

Print what pytest prints, and save for each file the seconds and the numbers of tests that passed,
failed or were skipped.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from machine import print_machine, save

ROOT = Path(__file__).parents[1]
TRIALS = {
    "SKMVAE_TRIALS": 40,  # signals and kills of each kind
    "SKMVAE_FLIPS": 500,  # flipped bits of a model file, and of a checkpoint
    "SKMVAE_CALLS": 200,  # calls in each of 8 threads
    "SKMVAE_EXAMPLES": 300,  # tables that hypothesis generates for each method
    "SKMVAE_SOAK": 2000,  # rounds of fit, save, load and partial_fit
}


def main():
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        environment = os.environ | {name: str(number) for name, number in TRIALS.items()}
        files = [f"tests/faults/{name}" for name in sys.argv[1:]] or ["tests/faults"]
        command = [sys.executable, "-m", "pytest", "-q", *files, f"--junitxml={report}"]
        result = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
    figures = {"machine": print_machine(), "trials": TRIALS}
    for name in sorted({case.get("classname") for case in cases}):
        of_file = [case for case in cases if case.get("classname") == name]
        outcomes = Counter(case[0].tag if len(case) else "passed" for case in of_file)
        seconds = round(sum(float(case.get("time")) for case in of_file))
        figures[name.rpartition(".")[2]] = {**outcomes, "seconds": seconds}
    save("faults", figures)
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
