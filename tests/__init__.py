"""Tests mirror the code; bench measures it and conformance holds it against the standard."""
