"""The conformance suite: what the standards ask of a server, asserted on the wire.

`python -m tests.conformance` runs it against our broker, or against any other (`--host`, `--port`),
and prints the matrix of rules; docs/conformance.md explains it.
"""
