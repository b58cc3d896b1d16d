"""The plugin of the suite's "auth" broker: it lets in and refuses by names that tests choose."""

from typing import Final

from mqtrio import (
    Allow,
    AuthenticateEvent,
    Challenge,
    ConnectionProperties,
    Deny,
    PublishEvent,
    SubscribeEvent,
    hookimpl,
)

#: The authentication method that it knows, and the data that ends its one round of questions.
METHOD: Final = "TEST"
QUESTION: Final = b"question"
ANSWER: Final = b"answer"
WELCOME: Final = b"welcome"

#: Longer than the packets that tests allow.
REASON: Final = "because " * 25
USER_PROPERTIES: Final = tuple((f"name {number}", "value " * 10) for number in range(5))


class Gatekeeper:
    """Anonymous clients come in; `alice` by her password; by method TEST who knows the answer.

    Nobody may use topics with the level `forbidden`. Client identifiers that begin with `refused`
    are refused, and the user `banned` is. To `verbose` CONNACK says more than anybody asked for.
    """

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Allow | Deny | Challenge | None:
        if event.client_id.startswith("refused"):
            return Deny(0x85, reason_string=REASON)
        if event.method is not None:
            return self._exchange(event)
        if event.username is None:
            return Allow()
        if event.username == "verbose":
            return Allow(
                username="verbose",
                properties=ConnectionProperties(
                    reason_string=REASON,
                    user_properties=USER_PROPERTIES,
                    response_information="answers/",
                ),
            )
        if event.username == "banned":
            return Deny(0x8A)
        if event.password == b"secret":
            return Allow(username=event.username)
        return Deny(0x86, reason_string=REASON)

    def _exchange(self, event: AuthenticateEvent) -> Allow | Deny | Challenge | None:
        if event.method != METHOD:
            return None
        if event.data == ANSWER:
            return Allow(authentication_data=WELCOME)
        if event.round == 0 and not event.data:
            return Challenge(QUESTION)
        return Deny(0x87, reason_string=REASON)

    @hookimpl
    def authorize_publish(self, event: PublishEvent) -> Allow | Deny:
        return _unless_forbidden(event.topic)

    @hookimpl
    def authorize_subscribe(self, event: SubscribeEvent) -> Allow | Deny:
        return _unless_forbidden(event.topic_filter)


def _unless_forbidden(topic: str) -> Allow | Deny:
    if "forbidden" in topic.split("/"):
        return Deny(0x87, reason_string=REASON)
    return Allow()
