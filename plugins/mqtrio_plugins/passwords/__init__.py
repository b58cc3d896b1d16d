"""Users and their passwords, in a file: who they are is decided here, what they may do is not."""

from mqtrio_plugins.passwords.plugin import Passwords as Passwords
from mqtrio_plugins.passwords.plugin import PasswordsSettings as PasswordsSettings
