"""Write the settings of the broker and of the plugins in the box into docs/configuration.md."""

from pathlib import Path

from mqtrio.config.reference import core_sections, plugin_sections, reference
from mqtrio.installed import find_installed

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
MARK = "a test holds the two together.\n\n"

parts, errors = plugin_sections(find_installed(), "mqtrio")
if errors:
    raise SystemExit("\n".join(errors))
text = PAGE.read_text(encoding="utf-8")
before = text[: text.index(MARK) + len(MARK)]
PAGE.write_text(before + reference([*core_sections(), *parts]) + "\n", encoding="utf-8")
