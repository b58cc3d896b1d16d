"""The command line: `mqtrio serve`, also as `python -m mqtrio`.

Only here a process is treated as ours alone: signals, resource limits, the garbage collector and
the handlers of the log are never touched by the library.
"""

from mqtrio.cli.entry import main

__all__ = ["main"]
