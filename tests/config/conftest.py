"""Fixtures of this folder."""

from tests.installing import site as site
