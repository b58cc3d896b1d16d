"""What holds for clients by the listener that they came by: who is asked, who gets in, where."""

from collections.abc import Collection, Iterable
from typing import Final

from mqtrio.engine.link import PeerFacts
from mqtrio.engine.mount import MountPoint
from mqtrio.errors import ConfigurationError
from mqtrio.hooks.calls import Calls
from mqtrio.hooks.explain import Entrance
from mqtrio.hooks.manager import HookManager
from mqtrio.settings import Listener


class Door:
    """One listener's rules. `calls` are whom `authenticate` names, as they are plugged in now."""

    __slots__ = ("allow_anonymous", "authenticate", "calls", "mount")

    def __init__(
        self,
        allow_anonymous: bool | None = None,
        authenticate: tuple[str, ...] | None = None,
        mount_point: str = "",
    ) -> None:
        self.allow_anonymous = allow_anonymous
        self.authenticate = authenticate
        self.calls: Calls = ()
        self.mount = MountPoint(mount_point) if mount_point else None


#: The rules of a listener of which nothing is said, and of streams that a program brings.
ANY_DOOR: Final = Door()


class Doors:
    """The rules of all listeners, by their URLs."""

    def __init__(self, hooks: HookManager) -> None:
        self._hooks = hooks
        self._doors: dict[str, Door] = {}

    def check(
        self,
        listeners: Iterable[tuple[Listener, bool]],
        plugins: Collection[str],
        authenticators: Collection[str],
    ) -> None:
        """Raise ConfigurationError for rules that can't be, where there are these plugins.

        That is a rule that names a plugin that is not there or doesn't authenticate, or one that
        lets anybody in from other machines though nobody has said so.
        """
        for listener, outside in listeners:
            _check_names(listener, plugins, authenticators)
            asked = authenticators if listener.authenticate is None else listener.authenticate
            if outside and listener.allow_anonymous is None and not asked:
                raise ConfigurationError(_OPEN.format(listener.url))

    def set(self, listeners: Iterable[tuple[Listener, bool]]) -> None:
        """These rules hold from now on: each listener, and whether other machines can reach it.

        Raises like `check`, and has changed nothing then.
        """
        rules = list(listeners)
        able = [call.plugin for call in self._hooks.authenticate]
        self.check(rules, self._hooks.plugins, able)
        doors: dict[str, Door] = {}
        for listener, outside in rules:
            door = Door(listener.allow_anonymous, listener.authenticate, listener.mount_point)
            self._resolve(door)
            if outside and door.allow_anonymous is None:
                door.allow_anonymous = False
            doors[listener.url] = door
        self._doors = doors

    def of(self, url: str) -> Door:
        """The rules of a listener."""
        return self._doors.get(url, ANY_DOOR)

    def authenticators(self, url: str) -> Calls:
        """Who is asked about clients of a listener, in this order."""
        return self._calls(self.of(url))

    def anonymous_allowed(self, peer: PeerFacts) -> bool:
        """Whether a client that nobody authenticated may use the listener it came by.

        Where nothing is said, those of this machine may, unless somebody authenticates there; nor
        may they if who should do it has been unplugged.
        """
        door = self.of(peer.listener)
        if door.allow_anonymous is not None:
            return door.allow_anonymous
        return peer.local and not (door.authenticate or self._calls(door))

    def entrance(self, url: str, local: bool) -> Entrance:
        """The rules of a listener as explanations need them; `local` as in PeerFacts."""
        door = self.of(url)
        anonymous = self.anonymous_allowed(PeerFacts(address="", listener=url, local=local))
        return Entrance(anonymous, door.authenticate, door.mount)

    def refresh(self) -> None:
        """Plugins that authenticate have come or gone."""
        for door in self._doors.values():
            self._resolve(door)

    def _calls(self, door: Door) -> Calls:
        return self._hooks.authenticate if door.authenticate is None else door.calls

    def _resolve(self, door: Door) -> None:
        by_plugin = {call.plugin: call for call in self._hooks.authenticate}
        door.calls = tuple(by_plugin[name] for name in door.authenticate or () if name in by_plugin)


def _check_names(
    listener: Listener, plugins: Collection[str], authenticators: Collection[str]
) -> None:
    for name in listener.authenticate or ():
        if name not in authenticators:
            known = ", ".join(map(repr, authenticators)) or "none"
            what = "implements no authenticate" if name in plugins else "isn't there"
            raise ConfigurationError(
                f"listener {listener.url}: authenticate names the plugin {name!r}, which {what}; "
                f"plugins that authenticate are: {known}"
            )


_OPEN: Final = (
    "listener {}: other machines can reach it and nobody authenticates the clients. Give the "
    "broker a plugin that does, listen on 127.0.0.1 only, or set allow_anonymous = true for this "
    "listener (--allow-anonymous on the command line) to let everybody in"
)
