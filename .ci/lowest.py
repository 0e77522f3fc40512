"""Print constraints.txt with the lowest version of every package that pyproject.toml names.

Packages named as arguments keep the version of constraints.txt.
"""

import re
import sys
import tomllib
from pathlib import Path

root = Path(__file__).resolve().parent.parent
project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"].values()
requirements = project["dependencies"] + [line for extra in extras for line in extra]
floors = dict(line.lower().split(">=") for line in requirements if ">=" in line)

for line in (root / "constraints.txt").read_text().splitlines():
    name = re.split("==|$", line.lower())[0]
    keep = name not in floors or name in sys.argv[1:]
    print(line if keep else f"{name}=={floors[name]}")
