"""What the broker and its writer process say to each other: lengths and marshalled values.

Both ends are the same program in the same Python, and nobody else has the socket.
"""

import marshal
import struct
from typing import Any, Final

HEADER: Final = struct.Struct("<I")

#: No back references: looking for them costs more than they save.
_FORMAT: Final = 2


def frame(value: Any) -> bytes:
    """Write plain values as one frame."""
    body = marshal.dumps(value, _FORMAT)
    return HEADER.pack(len(body)) + body


def unframe(body: bytes) -> Any:
    """Read the body of a frame."""
    return marshal.loads(body)
