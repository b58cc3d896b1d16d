"""Bytes <-> packets of MQTT 3.1, 3.1.1 and 5.0. Pure: no I/O, no clock, no log."""
