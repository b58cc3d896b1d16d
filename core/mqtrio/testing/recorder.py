"""A plugin that records what it is told, and answers as a test says."""

from collections.abc import Callable, Mapping
from typing import Any

from mqtrio.hooks.events import Event
from mqtrio.hooks.specs import HOOKS, hookimpl


class HookRecorder:
    """Implements the hooks that are named (none: all that observe) and records every call.

        recorder = HookRecorder("published", "dropped", answers={"authorize_publish": Allow()})

    `answers`: hook -> what it answers, or a function of the event that makes the answer, which may
    be an `async def` where the hook may wait. A hook that stands in `answers` is implemented too.
    """

    def __init__(self, *hooks: str, answers: Mapping[str, Any] | None = None) -> None:
        answers = answers or {}
        #: Hook and event of each call, in order.
        self.calls: list[tuple[str, Any]] = []
        for hook in {**dict.fromkeys(hooks), **answers} or _OBSERVING:
            setattr(self, hook, hookimpl(self._recording(hook, answers.get(hook))))

    def _recording(self, hook: str, answer: Any) -> Callable[[Any], Any]:
        def record(event: Event) -> Any:
            self.calls.append((hook, event))
            return answer(event) if callable(answer) else answer

        return record

    @property
    def hooks(self) -> list[str]:
        """The names of the hooks that were called, in order."""
        return [hook for hook, _ in self.calls]

    def of(self, hook: str) -> list[Any]:
        """The events of one hook, in order."""
        return [event for name, event in self.calls if name == hook]

    def clear(self) -> None:
        """Forget what was recorded."""
        self.calls.clear()


_OBSERVING = tuple(name for name, hook in HOOKS.items() if hook.kind == "observe")
