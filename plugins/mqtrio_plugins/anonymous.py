"""Let clients in that say neither who they are nor a password."""

from uuid import uuid4

from attrs import define

from mqtrio import Allow, AuthenticateEvent, Plugin, hookimpl, setting


@define(frozen=True, kw_only=True)
class AnonymousSettings:
    """Who they are then."""

    username: str | None = setting(None, "username that these clients get; default: none")
    client_id_prefix: str = setting("", "what is put before their client identifiers")


class Anonymous(Plugin[AnonymousSettings]):
    """Allows clients without username, password and authentication method; knows no others."""

    api = 1

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Allow | None:
        """Allow who brings nothing; whoever brings something is for another plugin to judge."""
        if not (event.username is None and event.password is None and event.method is None):
            return None
        client_id = None
        if self.settings.client_id_prefix:
            # A client that leaves its identifier to the broker gets one below the prefix, too.
            client_id = self.settings.client_id_prefix + (event.client_id or uuid4().hex)
        return Allow(username=self.settings.username, client_id=client_id, why="anonymous")
