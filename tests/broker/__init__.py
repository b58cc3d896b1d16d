"""The broker as a Python program sees it: `open_broker`, `serve_broker` and what they give."""
