"""Topic aliases: small numbers that stand for topics on one connection (3.3.2.3.4).

Each direction has a table of its own, and both end with the connection [MQTT-3.3.2-7].
"""

from mqtrio.errors import ProtocolError
from mqtrio.reasons import ReasonCode


class IncomingAliases:
    """The aliases that a peer uses towards us: 1 to `maximum`, which we announced (0: none).

    `bytes` is the length of all topics that have one.
    """

    __slots__ = ("maximum", "bytes", "_topics")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.bytes = 0
        self._topics: dict[int, str] = {}

    def resolve(self, topic: str, alias: int | None) -> str:
        """Return the topic that a PUBLISH means; `alias` is None if it carries no alias.

        An alias that comes with a topic means that topic from now on. Raises ProtocolError: 0x94
        for an alias that is 0 or above the maximum [MQTT-3.3.2-8, -9], 0x82 for an empty topic
        without an alias, or with one that means nothing yet.
        """
        if alias is None:
            if not topic:
                raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "a PUBLISH without topic or alias")
            return topic
        if not 0 < alias <= self.maximum:
            raise ProtocolError(
                ReasonCode.TOPIC_ALIAS_INVALID,
                f"topic alias {alias} is not within 1 to {self.maximum}"
                if self.maximum
                else f"topic alias {alias}, but none is allowed",
            )
        if topic:
            self.bytes += len(topic) - len(self._topics.get(alias, ""))
            self._topics[alias] = topic
            return topic
        known = self._topics.get(alias)
        if known is None:
            raise ProtocolError(
                ReasonCode.PROTOCOL_ERROR, f"topic alias {alias} stands for nothing"
            )
        return known


class OutgoingAliases:
    """The aliases that we use towards a peer: 1 to `maximum`, which the peer allows (0: none).

    The first topics that come have them for as long as the connection lasts. To hand them on would
    pay only where topics come in runs, and costs bytes where they don't.
    """

    __slots__ = ("maximum", "_aliases", "_free")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._aliases: dict[str, int] = {}
        self._free: list[int] = []  # given back by forget

    def use(self, topic: str) -> tuple[int, bool]:
        """Return the alias to send with a topic, and whether it is new to the peer.

        A new one goes out with the topic, a known one with an empty topic. The alias is 0 if all
        are taken: the topic goes without. Whoever asks must send the packet, or call forget.
        """
        alias = self._aliases.get(topic)
        if alias is not None:
            return alias, False
        if len(self._aliases) >= self.maximum:
            return 0, False
        alias = self._free.pop() if self._free else len(self._aliases) + 1
        self._aliases[topic] = alias
        return alias, True

    def forget(self, topic: str) -> None:
        """Take back a new alias because the packet with it was not sent after all."""
        alias = self._aliases.pop(topic, None)
        if alias is not None:
            self._free.append(alias)
