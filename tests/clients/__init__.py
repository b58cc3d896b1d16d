"""Clients that others wrote, against `python -m mqtrio serve` on a real socket."""
