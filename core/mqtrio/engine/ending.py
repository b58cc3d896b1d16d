"""Ending what clients have, from outside: connections, sessions, what credentials have let in."""

from typing import TYPE_CHECKING, Final

from mqtrio.reasons import ALLOWED, ReasonCode
from mqtrio.state.session import LOCAL_PREFIX

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core

CONNACK: Final = 2


class Whom:
    """The clients that are meant: of one client identifier, of one username, or of both."""

    __slots__ = ("client_id", "username")

    def __init__(self, client_id: str | None, username: str | None) -> None:
        if client_id is None and username is None:
            raise ValueError("say whom: client_id, username, or both")
        self.client_id = client_id
        self.username = username

    def meant(self, client_id: str, username: str | None) -> bool:
        """Whether this client is one of them."""
        if client_id.startswith(LOCAL_PREFIX):
            return False  # the program's own
        if self.client_id is not None and client_id != self.client_id:
            return False
        return self.username is None or username == self.username


def disconnect(
    core: "Core", whom: Whom, reason_code: int, why: str, server_reference: str | None
) -> int:
    """End the connections that hold sessions; returns how many there were."""
    holders = core.sessions.holders
    if whom.client_id is not None:
        holder = holders.get(whom.client_id)
        found = [] if holder is None else [holder]
    else:
        found = list(holders.values())
    found = [each for each in found if whom.meant(each.client_id, each.username)]
    for connection in found:
        core.turn(connection.disconnect, reason_code, why, server_reference)
    return len(found)


def revoke(core: "Core", whom: Whom, reason_code: int, why: str, drop: bool, will: bool) -> int:
    """End all that these clients have got by their credentials, also on their way in.

    Returns how many clients that were. `drop` ends their sessions too, `will` says whether their
    wills are published.
    """
    ended: set[str] = set()
    for connection in list(core.connections):
        client = connection.client
        if connection.connect is None or not whom.meant(client.client_id, client.username):
            continue
        ended.add(client.client_id)
        core.turn(_cut, connection, reason_code, why, will)
    for session in list(core.sessions.by_id.values()):
        if not whom.meant(session.client_id, session.username):
            continue
        if not will:
            core.turn(core.wills.cancel, session.client_id)
        if drop and core.sessions.by_id.get(session.client_id) is session:
            ended.add(session.client_id)
            core.turn(core.sessions.remove, session)
    return len(ended)


def _cut(connection: "Connection", reason_code: int, why: str, will: bool) -> None:
    """End a connection, whether it is let in already or not."""
    if connection.closed:
        return
    if not will:
        connection.forget_will()
    if connection.announced or connection.session is not None:
        connection.disconnect(reason_code, why)
        return
    code = reason_code if reason_code in ALLOWED[CONNACK] else ReasonCode.NOT_AUTHORIZED
    connection.core.refuse(connection, code, why)
