"""Distributions that exist for a test only: their metadata and modules in a folder on the path."""

import importlib
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest


class Site:
    """A folder of installed distributions, like site-packages; made by the fixture `site`.

    A process of a test sees them with `PYTHONPATH` set to `folder`.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    def install(
        self, distribution: str, plugins: Mapping[str, str], code: str = "", version: str = "1.2"
    ) -> None:
        """Install a distribution with one module, called like it with underscores, of this code.

        `plugins`: name of an entry point -> name in the module.
        """
        module = distribution.replace("-", "_")
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = [f"{name} = {module}:{value}" for name, value in plugins.items()]
        (info / "entry_points.txt").write_text("\n".join(["[mqtrio.plugins]", *lines, ""]))
        (self.folder / f"{module}.py").write_text(textwrap.dedent(code))
        importlib.invalidate_caches()
        # Registers the removal of the module at the end of the test, if it gets imported.
        self._monkeypatch.setitem(sys.modules, module, sys)
        del sys.modules[module]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An empty site-packages, to install distributions with plugins in."""
    return Site(tmp_path / "site", monkeypatch)
