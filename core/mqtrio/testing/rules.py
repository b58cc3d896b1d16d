"""How the contracts say what is broken."""

import reprlib
from collections.abc import Sequence


def rule(holds: object, text: str) -> None:
    """Raise AssertionError with the text of a rule that does not hold."""
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(text)


def same(what: str, got: object, wanted: object) -> None:
    """Raise AssertionError unless `got` is `wanted`; long values are shortened."""
    __tracebackhide__ = True
    if got != wanted:
        raise AssertionError(f"{what} is {_SHORT.repr(got)}, and must be {_SHORT.repr(wanted)}")


def named(names: Sequence[object]) -> str:
    """Write a list for a text."""
    return ", ".join(map(str, names)) or "none"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12
_SHORT.maxlevel = 4
