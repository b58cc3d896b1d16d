"""What permissions have said of a will, for a broker that has to publish it without them."""

from mqtrio.hooks.answers import Allow, Deny, Permissions
from mqtrio.hooks.asked import Asked
from mqtrio.hooks.calls import PermissionCall
from mqtrio.hooks.combine import ALLOW, NOBODY_ALLOWED, Steps, authorize
from mqtrio.hooks.events import PublishEvent, SubscribeEvent


def ruling_of(hooks: Asked, event: PublishEvent, permissions: Permissions) -> Steps[str]:
    """What a client's permissions alone say of a message: "allow", "deny" or "none".

    For one that is published when they are gone; see `Ruled`.
    """
    call = PermissionCall(hooks.permissions["authorize_publish"], permissions.authorize_publish)
    decided = authorize((call,), event)
    if not isinstance(decided, (Allow, Deny)):
        decided = yield from decided
    if decided is NOBODY_ALLOWED:
        return "none"
    return "allow" if isinstance(decided, Allow) else "deny"


class Ruled:
    """Permissions that are gone, of which is known what they have said: see `ruling_of`."""

    __slots__ = ("ruling",)

    def __init__(self, ruling: str) -> None:
        self.ruling = ruling

    def authorize_publish(self, event: PublishEvent) -> Allow | Deny | None:
        """Say again what they have said."""
        if self.ruling == "none":
            return None
        return ALLOW if self.ruling == "allow" else Deny(why="the client's permissions forbade it")

    def authorize_subscribe(self, event: SubscribeEvent) -> Allow | Deny | None:
        """Have no opinion."""
        return None
