"""The plugin: asks the rules, and reads them again when they have changed."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import trio

from mqtrio import (
    Allow,
    CheckSettingsEvent,
    ConfigurationError,
    ConnectionSlot,
    DeliveryEvent,
    DeliveryFilter,
    Deny,
    Plugin,
    PublishEvent,
    ReconfigureEvent,
    RunEvent,
    StartEvent,
    SubscribeEvent,
    hookimpl,
    read_settings,
    split_shared,
)
from mqtrio_plugins.acl.mosquitto import read_acl_file
from mqtrio_plugins.acl.policy import Grants, Policy, Step
from mqtrio_plugins.acl.rules import Rule
from mqtrio_plugins.acl.settings import AclFile, AclRule, AclSettings

#: Messages of the program, of the broker itself and of bridges are nobody's: they are allowed.
_OF_CLIENTS: Final = frozenset({"client", "will"})
_TRUSTED: Final = Allow(remember=True, why="not a client's")
_FILTERED: Final = Allow(why="what the client may not read is not delivered")
_OTHERWISE: Final = {"deny": Deny(why="no rule allows it"), "pass": None}


class Acl(Plugin[AclSettings]):
    """Allows what a rule allows, unless one denies it; see docs/plugins/acl.md."""

    api = 1

    def __init__(self, settings: AclSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.log = logging.getLogger(f"mqtrio.plugins.{name}")
        self._policy = Policy([])
        self._stamps: object = None
        self._grants = ConnectionSlot[Grants | None](lambda: None)

    # -- deciding

    @hookimpl
    def authorize_publish(self, event: PublishEvent) -> Allow | Deny | None:
        """Ask the rules for the topic; the core remembers what was allowed."""
        if event.origin not in _OF_CLIENTS:
            return _TRUSTED
        answer = self._grants_of(event).write.find(event.topic)
        return _OTHERWISE[self.settings.otherwise] if answer is None else answer

    @hookimpl
    def authorize_subscribe(self, event: SubscribeEvent) -> Allow | Deny | None:
        """Allow a filter that lies inside of a granted one."""
        if event.origin not in _OF_CLIENTS:
            return _TRUSTED
        _, pattern = split_shared(event.topic_filter)
        answer, _ = self._grants_of(event).read.covering(pattern)
        if self.settings.subscriptions == "filtered" and not isinstance(answer, Allow):
            return _FILTERED
        return _OTHERWISE[self.settings.otherwise] if answer is None else answer

    @hookimpl
    def compile_delivery(self, event: DeliveryEvent) -> DeliveryFilter | None:
        """Let through what the client may read, where that isn't everything.

        This is asked again when the rules have changed: the filter then drops what is no longer
        allowed.
        """
        if event.origin not in _OF_CLIENTS:
            return None
        grants = self._grants_of(event)
        _, pattern = split_shared(event.topic_filter)
        answer, whole = grants.read.covering(pattern)
        if whole and isinstance(answer, Allow):
            return None
        strangers = self.settings.otherwise == "pass"

        def readable(message: PublishEvent) -> PublishEvent | None:
            answer = grants.read.find(message.topic)
            allowed = strangers if answer is None else isinstance(answer, Allow)
            return message if allowed else None

        return readable

    def _grants_of(self, event: PublishEvent | SubscribeEvent | DeliveryEvent) -> Grants:
        """What the client may do: made once for each connection, and anew for new rules."""
        grants = self._grants.get(event)
        client = event.client
        if (
            grants is None
            or grants.policy is not self._policy
            or grants.username != client.username
        ):
            grants = self._policy.grants(client.client_id, client.username)
            self._grants.set(event, grants)
        return grants

    # -- reading the rules

    @hookimpl
    def check_settings(self, event: CheckSettingsEvent) -> None:
        """Read the rules, and forget them."""
        read_policy(self.name, self.settings)

    @hookimpl
    async def start(self, event: StartEvent) -> None:
        """Read the rules: broken ones keep the broker from starting."""
        self._stamps = _stamps(self.settings)
        self._policy = await trio.to_thread.run_sync(read_policy, self.name, self.settings)

    @hookimpl
    async def reconfigure(self, event: ReconfigureEvent) -> Callable[[], None]:
        """Read the rules of new settings; broken ones leave all as it is."""
        settings: AclSettings = event.settings
        stamps = _stamps(settings)
        policy = await trio.to_thread.run_sync(read_policy, self.name, settings)

        def put_in_force() -> None:
            self.settings = settings
            self._stamps = stamps
            self._policy = policy

        return put_in_force

    @hookimpl
    async def run(self, event: RunEvent) -> None:
        """Read the rules again whenever one of the files has changed."""
        while True:
            await trio.sleep(self.settings.watch)
            settings = self.settings
            stamps = _stamps(settings)
            if stamps == self._stamps:
                continue
            self._stamps = stamps
            try:
                policy = await trio.to_thread.run_sync(read_policy, self.name, settings)
            except ConfigurationError as error:
                self.log.error("the rules stay as they were: %s", error)
                continue
            if settings is self.settings and stamps == self._stamps:  # no reload overtook this one
                self._policy = policy
                event.broker.reconsider()
                self.log.info("the rules have changed")


def read_policy(name: str, settings: AclSettings) -> Policy:
    """Read all rules. Raises ConfigurationError, naming file and line."""
    rules = list(_rules(settings.rules, name))
    if settings.file is not None:
        more = read_settings(settings.file, AclFile).rules
        rules += _rules(more, str(settings.file))
    steps = [Step(rules)]
    if settings.acl_file is not None:
        old = read_acl_file(settings.acl_file)
        steps += [Step(old.topics), Step(old.patterns, strict=True)]
    return Policy(steps)


def _rules(rules: Iterable[AclRule], source: str) -> Iterator[Rule]:
    for number, rule in enumerate(rules, 1):
        yield from rule.rules(f"{source}: rule {number}")


def _stamps(settings: AclSettings) -> list[tuple[int, ...] | None]:
    """What differs when one of the files has been written or replaced."""
    return [_stamp(path) for path in (settings.file, settings.acl_file) if path is not None]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
