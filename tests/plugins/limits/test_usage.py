"""Token buckets and the table of who is remembered, without a broker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtrio_plugins.limits import Bounds
from mqtrio_plugins.limits.plugin import network_of
from mqtrio_plugins.limits.usage import Bucket, Table


def test_a_burst_and_then_the_rate() -> None:
    bucket = Bucket("", 2.0, 3, 0.0)
    assert [bucket.take(1, 10.0) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
    assert bucket.take(1, 11.0) == 0.5  # a second pays for two
    assert not bucket.full(12.0)
    assert bucket.full(14.0)


def test_a_token_is_not_taken_from_an_empty_bucket() -> None:
    bucket = Bucket("", 0.5, 2, 0.0)
    assert [bucket.take_one(0.0) for _ in range(4)] == [True, True, False, False]
    assert [bucket.take_one(1.9), bucket.take_one(2.0), bucket.take_one(2.1)] == [
        False,
        True,
        False,
    ]


def test_the_burst_is_a_seconds_worth_if_not_said() -> None:
    assert [Bucket("", 0.1, None, 0.0).take_one(0.0) for _ in range(1)] == [True]
    bucket = Bucket("", 3.0, None, 0.0)
    assert [bucket.take_one(0.0) for _ in range(4)] == [True, True, True, False]


@given(
    st.floats(0.1, 100),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 20)), max_size=30),
)
def test_who_keeps_the_pauses_keeps_the_rate(
    rate: float, burst: int, uses: list[tuple[float, int]]
) -> None:
    """Whatever is taken: in any time no more goes through than the burst and what came in."""
    bucket = Bucket("", rate, burst, 0.0)
    now, taken = 0.0, 0
    for wait, amount in uses:
        now += wait
        taken += amount
        now += bucket.take(amount, now)
        assert taken <= burst + rate * now + 1e-6 * (1 + taken)


def test_the_table_forgets_who_is_gone() -> None:
    table = Table("address", Bounds(message_rate=1.0, message_burst=2), 10)
    kept = table.get("here", 0.0)
    kept.enter("x")
    for number in range(100):
        table.get(f"{number}", float(number)).meters[0].take(1, float(number))
    assert len(table) <= 4  # a token is back after a second
    assert table.get("here", 100.0) is kept


def test_the_table_is_bounded_whoever_comes() -> None:
    table = Table("address", Bounds(message_rate=0.001), 10)
    for number in range(1000):
        usage = table.get(f"{number}", 0.0)
        usage.meters[0].take(1, 0.0)  # not forgettable for a quarter of an hour
        if number < 5:
            usage.enter("x")
        assert len(table) <= 10 + 5 + 1
    assert all(table.get(f"{number}", 0.0).there for number in range(5))


def test_what_is_used_is_moved_behind() -> None:
    table = Table("user", Bounds(message_rate=0.001), 4)
    for name in "abcd":
        table.get(name, 0.0).meters[0].take(1, 0.0)
    busy = table.get("a", 0.0)
    for name in "efg":
        table.get("a", 0.0)
        table.get(name, 0.0).meters[0].take(1, 0.0)
    assert table.get("a", 0.0) is busy


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:2", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a pipe", "a pipe"),
    ],
)
def test_addresses(address: str, name: str) -> None:
    assert network_of(address, 64) == name
