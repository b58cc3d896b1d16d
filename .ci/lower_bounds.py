"""Print the lower bounds of mqtrio's dependencies, and of those of contrib/, for pip to install."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    found = set()
    for project in (ROOT / "pyproject.toml", *ROOT.glob("contrib/*/pyproject.toml")):
        found |= set(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])
    print(*sorted(each.replace(">=", "==") for each in found if not each.startswith("mqtrio")))
