"""Plugins in the box. They import only mqtrio, as anybody's do: examples to copy."""
