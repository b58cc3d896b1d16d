"""Who may publish and subscribe to what, by rules: in TOML, or in Mosquitto's acl_file."""

from mqtrio_plugins.acl.plugin import Acl as Acl
from mqtrio_plugins.acl.settings import AclRule as AclRule
from mqtrio_plugins.acl.settings import AclSettings as AclSettings
