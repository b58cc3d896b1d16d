"""Print pyproject.toml's dependencies pinned to their lower bounds, for pip to install."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

if __name__ == "__main__":
    with PROJECT.open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    print(*(dependency.replace(">=", "==") for dependency in dependencies))
