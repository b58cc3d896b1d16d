"""The broker seen from the wire: streams in memory, virtual time."""
