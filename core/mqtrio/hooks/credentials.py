"""Who is at the other end of a Unix socket."""

from attrs import define


@define(frozen=True)
class PeerCredentials:
    """Which process has connected to a Unix socket, as the system vouches for it (SO_PEERCRED).

    As it was when it connected, and in the broker's own name spaces: `pid` is 0 for a process
    outside of them, `uid` and `gid` are the system's overflow ids (65534) there.
    """

    pid: int
    uid: int
    gid: int
