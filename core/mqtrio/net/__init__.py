"""Bytes from and to the network: the only part of mqtrio that touches a socket."""
