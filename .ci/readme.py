"""Print one of README.md's two set-up lines: `readme.py 1`. What is tested is what stands there."""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def set_up_lines() -> list[str]:
    """The two lines of the block under the mark."""
    text = README.read_text(encoding="utf-8")
    block = re.search(r"<!-- set-up:[^>]*-->\s*```sh\n(.*?)```", text, re.DOTALL)
    if block is None:
        raise SystemExit("README.md has no set-up block")
    lines = [line for line in block.group(1).splitlines() if line and not line.startswith("#")]
    if len(lines) != 2:
        raise SystemExit(f"README.md's set-up block has {len(lines)} lines instead of two")
    return lines


if __name__ == "__main__":
    print(set_up_lines()[int(sys.argv[1]) - 1])
