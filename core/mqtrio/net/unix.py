"""Unix sockets: the file at which one listens, and who is at the other end."""

import errno
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from mqtrio.hooks.credentials import PeerCredentials

#: Seconds between two tries while another process opens a socket in the same folder, and tries.
AGAIN: Final = 0.01
TRIES: Final = 100

# struct ucred of Linux.
_CREDENTIALS: Final = struct.Struct("3i")


class SocketFile:
    """The file of a Unix socket that we have made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = _identity(path)

    def restrict(self, mode: int, owner: str, group: str) -> None:
        """Give it to a user and a group ("": as it is), with these permissions; raises OSError."""
        uid, gid = _id_of_user(owner), _id_of_group(group)
        if uid != -1 or gid != -1:
            os.chown(self.path, uid, gid, follow_symlinks=False)
        self.path.chmod(mode)

    def remove(self) -> None:
        """Remove it, unless it is gone or somebody else's by now.

        Before the socket is closed: as long as it answers, nobody takes its place.
        """
        with suppress(OSError):
            if _identity(self.path) == self._made:
                self.path.unlink()


async def listen(
    name: str, mode: int, owner: str, group: str, backlog: int
) -> tuple[socket.socket, SocketFile]:
    """Listen on a Unix socket.

    A socket that nobody listens on any more, left by a crash, is removed. Everything else that is
    there stays. Raises OSError.
    """
    path = Path(name)
    async with _alone(path.parent):
        sock = _bind(path)
        file = SocketFile(path)
        try:
            # Before `listen`: until then nobody can connect, whatever the permissions are.
            file.restrict(mode, owner, group)
            sock.listen(backlog)
        except BaseException:
            file.remove()
            sock.close()
            raise
        return sock, file


def credentials(sock: socket.socket) -> PeerCredentials | None:
    """Who has connected, None where the system does not tell; raises OSError."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    told = sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    return PeerCredentials(*_CREDENTIALS.unpack(told))


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    """Keep other brokers from opening a socket in this folder meanwhile.

    Two that start at the same moment would both take an old file for stale, and the second one
    would remove what the first one has just made.
    """
    import fcntl  # not on Windows, which has no such sockets either

    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await trio.sleep(AGAIN)
        else:
            raise OSError(errno.EBUSY, f"another process keeps the folder {folder} locked")
        yield
    finally:
        os.close(lock)


def _bind(path: Path) -> socket.socket:
    """Bind a socket, in place of a stale one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            sock.bind(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, "a file is there that is no socket; it is not removed")
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "another process listens there")
    path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    """Whether somebody listens on a socket; raises OSError where that can't be found out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # and has so many waiting that there is no room for one more
        return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _id_of_user(name: str) -> int:
    import pwd  # not on Windows

    try:
        return pwd.getpwnam(name).pw_uid if name else -1
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no user {name!r}") from None


def _id_of_group(name: str) -> int:
    import grp  # not on Windows

    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no group {name!r}") from None
