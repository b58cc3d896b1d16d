"""Reading base64url and JSON to the letter: what can be read in two ways is refused."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final, NoReturn

#: Digits of a whole number.
LONGEST_NUMBER: Final = 30

_BASE64URL = re.compile("[A-Za-z0-9_-]*")


def decode_base64url(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515, 2). Raises ValueError for anything else."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("this is not base64url")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(data).decode().rstrip("=") != text:
        raise ValueError("this is not base64url as it is written")
    return data


def read_json(data: bytes) -> Any:
    """Read JSON in which no name stands twice. Raises ValueError."""
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("this JSON is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("this is not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("this is not JSON") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in this JSON")
    return found


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("a number of this JSON has too many digits")
    return int(text)


def _no_constant(text: str) -> NoReturn:
    raise ValueError("JSON has no NaN and no infinity")


def is_name(text: str) -> bool:
    """Whether MQTT may have this as a username or client identifier, and a log may show it."""
    return bool(text) and text.isprintable() and len(text.encode(errors="replace")) <= 65_535
