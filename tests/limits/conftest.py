"""Tests of limits take virtual time, but for those that start a broker of their own."""

from tests.testing.conftest import pytest_itemcollected as pytest_itemcollected
