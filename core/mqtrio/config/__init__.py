"""Configurations, from TOML or from a program's mappings: strictly typed, all errors at once.

`load_config` reads a whole configuration with its plugins; `settings_from` takes the broker's own
settings by keyword. The only place that needs cattrs.
"""

from mqtrio.config.configuration import Configuration as Configuration
from mqtrio.config.configuration import load_config as load_config
from mqtrio.config.configuration import read_configuration as read_configuration
from mqtrio.config.configuration import settings_from as settings_from
from mqtrio.config.document import Document as Document
from mqtrio.config.document import read_settings as read_settings
from mqtrio.config.document import read_toml as read_toml
from mqtrio.config.plugins import PluginSpec as PluginSpec
from mqtrio.config.problems import InvalidSettings as InvalidSettings
from mqtrio.config.problems import Problem as Problem
from mqtrio.config.reference import reference as reference
