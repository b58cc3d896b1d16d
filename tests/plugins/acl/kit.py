"""Policies to ask, without a broker."""

from typing import Any

from mqtrio import Allow
from mqtrio_plugins.acl import AclRule, AclSettings
from mqtrio_plugins.acl.plugin import read_policy
from mqtrio_plugins.acl.policy import Policy


def policy(*rules: AclRule, **settings: Any) -> Policy:
    return read_policy("acl", AclSettings(rules=rules, **settings))


def may(
    policy: Policy, what: str, topic: str, client_id: str = "c", user: str | None = "u"
) -> bool:
    """Whether a client may `publish` or `read` a topic, or `subscribe` to a filter."""
    grants = policy.grants(client_id, user)
    if what == "publish":
        return isinstance(grants.write.find(topic), Allow)
    if what == "read":
        return isinstance(grants.read.find(topic), Allow)
    return isinstance(grants.read.covering(topic)[0], Allow)
