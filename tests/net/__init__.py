"""Tests of the network, on an engine of lines of text (kit.py)."""
