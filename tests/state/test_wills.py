"""Pending wills: due in time and in order, cancelled, replaced, and no waste left behind."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mqtrio.state.wills import WillRegistry


def test_a_will_is_due_once() -> None:
    """[MQTT-3.1.2-10]: published, then forgotten."""
    wills: WillRegistry[str] = WillRegistry()
    assert wills.schedule("c", "gone", 10.0) is None
    assert len(wills) == 1
    assert wills.due(9.999) == []
    assert wills.due(10.0) == [("c", "gone")]
    assert wills.due(10.0) == []
    assert len(wills) == 0


def test_an_empty_registry_has_nothing_due() -> None:
    wills: WillRegistry[str] = WillRegistry()
    assert wills.due(float("inf")) == []


def test_a_cancelled_will_is_never_due() -> None:
    """[MQTT-3.1.3-9]."""
    wills: WillRegistry[str] = WillRegistry()
    wills.schedule("a", "will of a", 1.0)
    wills.schedule("b", "will of b", 2.0)
    assert wills.cancel("a") == "will of a"
    assert wills.cancel("a") is None
    assert wills.cancel("nobody") is None
    assert wills.due(5.0) == [("b", "will of b")]


def test_a_client_has_one_will() -> None:
    wills: WillRegistry[str] = WillRegistry()
    wills.schedule("c", "old", 1.0)
    assert wills.schedule("c", "new", 3.0) == "old"
    assert len(wills) == 1
    assert wills.due(2.0) == []
    assert wills.due(3.0) == [("c", "new")]


def test_the_same_time_again_is_another_will() -> None:
    wills: WillRegistry[str] = WillRegistry()
    wills.schedule("c", "old", 1.0)
    wills.cancel("c")
    wills.schedule("c", "new", 1.0)
    assert wills.due(1.0) == [("c", "new")]


def test_wills_come_in_the_order_of_their_times_then_of_their_coming() -> None:
    wills: WillRegistry[int] = WillRegistry()
    for number, due in enumerate([3.0, 1.0, 2.0, 1.0, 3.0]):
        wills.schedule(f"client {9 - number}", number, due)
    assert [will for _, will in wills.due(3.0)] == [1, 3, 2, 0, 4]


def test_a_will_may_be_any_value() -> None:
    """Nothing compares wills, not even those that are due together."""
    wills: WillRegistry[object] = WillRegistry()
    values = [object(), None, {}]
    for number, value in enumerate(values):
        wills.schedule(str(number), value, 1.0)
    assert [will for _, will in wills.due(1.0)] == values


def test_a_client_that_comes_and_goes_leaves_no_waste() -> None:
    wills: WillRegistry[int] = WillRegistry()
    for number in range(10):
        wills.schedule(f"stays {number}", number, 500.0 - number)
    for number in range(10_000):
        wills.schedule("busy", number, 1000.0 + number)
        if number % 2:
            wills.cancel("busy")
        assert len(wills._heap) < 60
    assert [will for _, will in wills.due(600.0)] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["schedule", "schedule", "cancel", "due"]),
            st.sampled_from("abcd"),
            st.integers(0, 20),
        ),
        max_size=60,
    )
)
def test_wills_agree_with_a_dict(steps: list[tuple[str, str, int]]) -> None:
    wills: WillRegistry[int] = WillRegistry()
    model: dict[str, tuple[float, int]] = {}
    for number, (action, client_id, time) in enumerate(steps):
        if action == "schedule":
            replaced = model.get(client_id)
            model[client_id] = (time, number)
            assert wills.schedule(client_id, number, time) == (replaced and replaced[1])
        elif action == "cancel":
            cancelled = model.pop(client_id, None)
            assert wills.cancel(client_id) == (cancelled and cancelled[1])
        else:
            expected = sorted((due, will, who) for who, (due, will) in model.items() if due <= time)
            assert wills.due(time) == [(who, will) for _, will, who in expected]
            for _, _, who in expected:
                del model[who]
        assert len(wills) == len(model)
