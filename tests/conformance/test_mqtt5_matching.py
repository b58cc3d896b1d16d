"""MQTT 5: which topics a topic filter matches."""

from tests.conformance.peer import Peers, topic
from tests.conformance.rules import needs, rule


async def _matches(peer: Peers, topic_filter: str, matching: list[str], others: list[str]) -> None:
    """Of all these topics exactly the `matching` ones arrive."""
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(topic_filter)
        for name in others + matching + others:
            await q.publish(name, b"x", 1)
        for name in matching:
            await p.message(topic=name)
        await p.nothing(after=q)


@rule("X-5-TOPIC-2")
async def test_what_wildcards_match(peer: Peers) -> None:
    t = topic()
    await _matches(
        peer, f"{t}/a/#", [f"{t}/a", f"{t}/a/", f"{t}/a/b/c"], [f"{t}/ab", t, f"{t}/A/b"]
    )
    await _matches(peer, f"{t}/a/+", [f"{t}/a/", f"{t}/a/b"], [f"{t}/a", f"{t}/a/b/c", f"{t}/a//"])
    await _matches(peer, f"{t}/+/c", [f"{t}//c", f"{t}/b/c"], [f"{t}/c", f"{t}/b/c/", f"{t}/b/C"])
    await _matches(peer, f"{t}/+/#", [f"{t}/", f"{t}/a", f"{t}/a/b"], [t])
    await _matches(peer, f"{t}//", [f"{t}//"], [t, f"{t}/", f"{t}///"])
    await _matches(peer, f"+/{t}", [f"/{t}", f"x/{t}"], [t])


@rule("MQTT-4.7.3-4")
async def test_topics_are_compared_as_they_are(peer: Peers) -> None:
    t = topic()
    await _matches(peer, f"{t}/é", [f"{t}/é"], [f"{t}/e\u0301", f"{t}/É", f"{t}/e", f"{t}/é "])
    await _matches(
        peer, f"{t}/a b", [f"{t}/a b"], [f"{t}/a%20b", f"{t}/ab", f"{t}/a B", f"{t}/ a b"]
    )
    await _matches(peer, f"{t}/e\u0301", [f"{t}/e\u0301"], [f"{t}/é"])


@rule("MQTT-4.7.2-1", "X-5-TOPIC-1")
async def test_leading_wildcards_do_not_match_dollar_topics(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        for topic_filter in ("#", "+/#", "+/+", "+/broker/#"):
            await p.subscribe(topic_filter)
        name = topic()
        await p.publish(name, b"marker", 1)
        while True:
            got = await p.message()
            assert not got.topic.startswith("$")
            if got.topic == name:
                break


@rule("MQTT-4.7.2-1", "X-5-TOPIC-1")
@needs("auth")
async def test_dollar_topics_of_clients(peer: Peers) -> None:
    """On a broker that lets clients publish to topics that begin with $."""
    name = "$" + topic()
    async with peer() as p, peer() as named, peer() as q:
        await p.connect()
        await named.connect()
        await q.connect()
        for topic_filter in ("#", "+/#", "+/+/+", "+/+/+/x"):
            await p.subscribe(topic_filter)
        await named.subscribe(name.partition("/")[0] + "/#")
        await q.publish(name + "/x", b"x", 1)
        await named.message(topic=name + "/x")
        marker = topic()
        await q.publish(marker, b"marker", 1)
        while (got := await p.message()).topic != marker:
            assert not got.topic.startswith("$")
