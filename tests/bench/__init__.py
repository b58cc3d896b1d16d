"""The same load on our broker and on mosquitto in turn: `python -m tests.bench --help`."""
