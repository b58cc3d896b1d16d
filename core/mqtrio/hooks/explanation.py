"""Who decided about one publish or subscribe, and why: plain values.

Nothing in here holds a password, authentication data or a payload.
"""

from attrs import define, field

#: Stands in `decided_by` for the broker itself: its settings, or its rule where no plugin decides.
BROKER = "broker"


@define(frozen=True, kw_only=True)
class Question:
    """What is to be explained: one client that publishes to a topic or subscribes to a filter.

    Exactly one of `publish` and `subscribe` is given. `username` is who the client is; with
    `authenticate` it is who it says that it is: the way from the first connection on is asked for
    then, with `password` (None: none). Raises ValueError for what can't be asked.
    """

    client_id: str
    username: str | None = None
    publish: str | None = None
    subscribe: str | None = None
    qos: int = 0
    retain: bool = False
    payload: bytes = field(default=b"", repr=False)
    address: str = ""
    listener: str = ""
    protocol_version: int = 5
    authenticate: bool = False
    password: bytes | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if (self.publish is None) == (self.subscribe is None):
            raise ValueError("give either a topic to publish to or a topic filter to subscribe to")
        if self.qos not in (0, 1, 2):
            raise ValueError(f"qos must be 0, 1 or 2, not {self.qos!r}")
        if self.protocol_version not in (3, 4, 5):
            raise ValueError(
                f"protocol_version must be 3, 4 or 5 (MQTT 3.1, 3.1.1, 5), "
                f"not {self.protocol_version!r}"
            )
        if self.subscribe is not None and (self.retain or self.payload):
            raise ValueError("retain and payload belong to a publish")
        if self.password is not None and not self.authenticate:
            raise ValueError("a password means nothing unless authenticate is asked for")


@define(frozen=True, kw_only=True)
class PluginAnswer:
    """What one plugin answered to one hook.

    `answer` is the name of the answer ("Allow", "Deny", "None", "changed", "filter", …), what a
    failed hook did ("raised", "timeout", "answer") or "not asked": somebody before it has decided.
    `detail` is what the answer holds. `seconds` is how long it took, with what it waited for.
    """

    plugin: str
    answer: str
    detail: str = ""
    why: str = ""
    seconds: float = 0.0
    failed: bool = False

    @property
    def asked(self) -> bool:
        """Whether the plugin was asked at all."""
        return self.answer != NOT_ASKED


NOT_ASKED = "not asked"


@define(frozen=True, kw_only=True)
class HookDecision:
    """What has come of the answers of all plugins to one hook, by the rules of docs/hooks.md.

    `hook` is "broker" for what the broker decides by its settings, without a plugin. `decided_by`
    names the plugins whose answers were decisive ("permissions": those of the client's Allow), or
    "broker". `allowed` is False where it ends here.
    """

    hook: str
    decision: str
    allowed: bool
    decided_by: tuple[str, ...] = (BROKER,)
    detail: str = ""
    why: str = ""
    answers: tuple[PluginAnswer, ...] = ()


@define(frozen=True, kw_only=True)
class Explanation:
    """The answer to a Question: the decisions in their order, the last one is what counts.

    `client_id` and `username` are those that the client has after authentication. `topic` (of a
    subscription the topic filter) and `qos` are what is left of the request after all plugins; a
    message that is dropped on purpose, and a subscription through which nothing can pass, are not
    `allowed`.
    """

    allowed: bool
    client_id: str
    username: str | None
    action: str
    asked: str
    topic: str
    qos: int
    decisions: tuple[HookDecision, ...]

    @property
    def decisive(self) -> HookDecision:
        """What forbids it; where it is allowed, what allows it."""
        for decision in self.decisions:
            if not decision.allowed:
                return decision
        for decision in self.decisions:
            if decision.hook.startswith("authorize"):
                return decision
        return self.decisions[-1]
