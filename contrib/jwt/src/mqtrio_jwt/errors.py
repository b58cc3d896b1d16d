"""Why a token is refused."""

from mqtrio import ReasonCode


class RefusedToken(Exception):
    """A token is no good. The text says why, and nothing of what stands in it.

    `code` is what the client is told; None: what fits the place that the token came from.
    """

    def __init__(self, why: str, code: ReasonCode | None = None) -> None:
        super().__init__(why)
        self.code = code
