"""A plugin for the MQTT broker mqtrio: lets only JSON through."""

from mqtrio_json_guard.plugin import JsonGuardPlugin as JsonGuardPlugin
from mqtrio_json_guard.plugin import JsonGuardSettings as JsonGuardSettings
