"""Change messages and subscriptions on their way: an example of a plugin that transforms."""

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from attrs import define

from mqtrio import (
    ConfigurationError,
    Drop,
    FilterMap,
    Plugin,
    PublishEvent,
    PublishProperties,
    ReasonCode,
    ReconfigureEvent,
    Reject,
    SubscribeEvent,
    check_topic,
    check_topic_filter,
    filter_covers,
    hookimpl,
    required_setting,
    setting,
    split_shared,
)

_CAPTURE: Final = re.compile(r"\{([0-9]+)\}")
_PLACEHOLDER: Final = re.compile("%[cu]")
_DROPPED: Final = Drop(why="a rule drops it")
_BAD_TOPIC: Final = Reject(
    ReasonCode.TOPIC_NAME_INVALID, why="the rewritten topic would be empty or begin with $"
)
_BAD_FILTER: Final = Reject(
    ReasonCode.TOPIC_FILTER_INVALID, why="the rewritten filter would be empty or begin with $"
)


@define(frozen=True, kw_only=True)
class RewriteRule:
    """What becomes of the messages to some topics, and of the subscriptions to them."""

    topic: str = required_setting("topic filter that says which topics the rule is for")
    to: str | None = setting(
        None, "the topic in its place; {1}, {2}, ... are what the wildcards stand for"
    )
    maximum_qos: Literal[0, 1, 2] = setting(2, "highest QoS of messages and subscriptions")
    retain: Literal["keep", "strip"] = setting(
        "keep", "strip: messages are passed on, but not retained"
    )
    default_expiry: int | None = setting(
        None, "expiry of messages that have none", minimum=1, maximum=0xFFFF_FFFF, unit="seconds"
    )
    maximum_expiry: int | None = setting(
        None, "longest expiry of messages", minimum=1, maximum=0xFFFF_FFFF, unit="seconds"
    )
    remove_user_properties: tuple[str, ...] = setting((), "names of user properties to take out")
    add_user_properties: Mapping[str, str] = setting(
        {},
        "user properties to add, after that; %c and %u are the publisher's identifier and username",
    )
    drop: bool = setting(False, "drop the messages: they are acknowledged and go nowhere")

    def __attrs_post_init__(self) -> None:
        _check("topic", check_topic_filter, self.topic)
        if self.to is None:
            return
        wildcards = [level for level in self.topic.split("/") if level in ("+", "#")]
        _check("to", check_topic, self.to)
        levels = self.to.split("/")
        for place, level in enumerate(levels):
            capture = _CAPTURE.fullmatch(level)
            if capture is None:
                if _CAPTURE.search(level):
                    raise ConfigurationError(f"to: {level!r}: a capture must be a whole level")
            elif not 1 <= int(capture[1]) <= len(wildcards):
                raise ConfigurationError(f"to: {level}: the filter has {len(wildcards)} wildcards")
            elif wildcards[int(capture[1]) - 1] == "#" and place + 1 < len(levels):
                raise ConfigurationError(f"to: {level} stands for # and must be the last level")


def _check(name: str, check: Callable[[str], None], text: str) -> None:
    try:
        check(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {text!r}: {error}") from None


@define(frozen=True, kw_only=True)
class RewriteSettings:
    """What is changed."""

    rules: tuple[RewriteRule, ...] = setting((), "rules; the first that fits is applied")


class _Topics:
    """From the topics (or topic filters) of a rule to those in their place."""

    def __init__(self, rule: RewriteRule, to: str) -> None:
        self._from = rule.topic.split("/")
        self._to = [
            int(capture[1]) if (capture := _CAPTURE.fullmatch(level)) else level
            for level in to.split("/")
        ]
        self._dollar = to.startswith("$")

    def new(self, old: str) -> str | None:
        """What stands in the place of `old`, which lies inside of the rule's filter.

        None if it would be what a capture may not make: nothing, or a topic that begins with `$`,
        which the client was not asked about.
        """
        levels = ["+", "#"] if old == "#" else old.split("/")
        captured = [
            levels[place:] if level == "#" else levels[place : place + 1]
            for place, level in enumerate(self._from)
            if level in ("+", "#")
        ]
        made: list[str] = []
        for part in self._to:
            made += [part] if isinstance(part, str) else captured[part - 1]
        new = "/".join(made)
        return new if new and new.startswith("$") is self._dollar else None


_Ready: TypeAlias = tuple[int, RewriteRule, _Topics | None]


class Rewrite(Plugin[RewriteSettings]):
    """Applies the first rule whose filter fits; see docs/plugins/rewrite.md."""

    api = 1

    def __init__(self, settings: RewriteSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self._use(settings)

    def _use(self, settings: RewriteSettings) -> None:
        self.settings = settings
        self._ready: list[_Ready] = [
            (number, rule, None if rule.to is None else _Topics(rule, rule.to))
            for number, rule in enumerate(settings.rules)
        ]
        self._by_filter = FilterMap((ready[1].topic, ready) for ready in self._ready)

    @hookimpl
    def reconfigure(self, event: ReconfigureEvent) -> Callable[[], None]:
        """Use new rules from now on. Subscriptions stay what they were made."""
        return lambda: self._use(event.settings)

    @hookimpl
    def transform_publish(self, event: PublishEvent) -> PublishEvent | Drop | Reject | None:
        """Change a message, whoever publishes it."""
        fitting = self._by_filter.find_all(event.topic)
        if not fitting:
            return None
        _, rule, topics = min(fitting, key=lambda ready: ready[0])
        if rule.drop:
            return _DROPPED
        topic = event.topic if topics is None else topics.new(event.topic)
        if topic is None:
            return _BAD_TOPIC
        return event.changed(
            topic=topic,
            qos=min(event.qos, rule.maximum_qos),
            retain=event.retain and rule.retain == "keep",
            properties=_properties(rule, event),
        )

    @hookimpl
    def transform_subscribe(self, event: SubscribeEvent) -> SubscribeEvent | Reject | None:
        """Change a subscription that lies inside of a rule's filter in the same way."""
        _, pattern = split_shared(event.topic_filter)
        if self._by_filter.covering(pattern) is None:
            return None
        _, rule, topics = next(
            ready for ready in self._ready if filter_covers(ready[1].topic, pattern)
        )
        new = pattern if topics is None else topics.new(pattern)
        if new is None:
            return _BAD_FILTER
        shared = event.topic_filter[: len(event.topic_filter) - len(pattern)]
        return event.changed(topic_filter=shared + new, qos=min(event.qos, rule.maximum_qos))


def _properties(rule: RewriteRule, event: PublishEvent) -> PublishProperties | None:
    """The properties of a message after a rule."""
    old = event.properties
    user_properties = old.user_properties if old is not None else ()
    if rule.remove_user_properties:
        user_properties = tuple(
            pair for pair in user_properties if pair[0] not in rule.remove_user_properties
        )
    if rule.add_user_properties:
        names = {"%c": event.client_id, "%u": event.username or ""}
        user_properties += tuple(
            (name, _PLACEHOLDER.sub(lambda mark: names[mark[0]], value))
            for name, value in rule.add_user_properties.items()
        )
    expiry = old.message_expiry_interval if old is not None else None
    if expiry is None:
        expiry = rule.default_expiry
    if rule.maximum_expiry is not None:
        expiry = rule.maximum_expiry if expiry is None else min(expiry, rule.maximum_expiry)
    new = event.with_properties(user_properties=user_properties, message_expiry_interval=expiry)
    return old if new == (old or PublishProperties()) else new
