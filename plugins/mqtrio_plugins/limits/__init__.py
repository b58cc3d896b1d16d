"""Bounds on what a client, a user or an address may do: connections, messages, subscriptions."""

from mqtrio_plugins.limits.plugin import Limiter as Limiter
from mqtrio_plugins.limits.settings import Bounds as Bounds
from mqtrio_plugins.limits.settings import ClientBounds as ClientBounds
from mqtrio_plugins.limits.settings import LimitsSettings as LimitsSettings
