"""Errors that come in groups: parts of a broker that run side by side may fail side by side."""

from collections.abc import Iterator


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Give the errors in a group, and those in the groups in it."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
