"""Hypothesis strategies: any packet of any version that can stand on the wire."""

from typing import TypeVar

from hypothesis import strategies as st

from mqtrio.reasons import ALLOWED
from mqtrio.wire.packets import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    Will,
)

T = TypeVar("T")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
binaries = st.binary(max_size=20)
packet_ids = st.integers(1, 0xFFFF)
four_bytes = st.one_of(st.integers(0, 300), st.integers(0, 0xFFFFFFFF))
two_bytes = st.integers(0, 0xFFFF)
topics = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=20
)
filters = texts.filter(lambda text: not text.startswith("$share/"))
user_properties = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)


def maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    """A value or None."""
    return st.none() | strategy


def _properties_of_publish(sender: str) -> st.SearchStrategy[PublishProperties | None]:
    found = st.builds(
        PublishProperties,
        payload_format_indicator=maybe(st.integers(0, 1)),
        message_expiry_interval=maybe(four_bytes),
        content_type=maybe(texts),
        response_topic=maybe(topics),
        correlation_data=maybe(binaries),
        user_properties=user_properties,
        subscription_identifiers=(
            st.lists(st.integers(1, 268_435_455), max_size=3).map(tuple)
            if sender == "server"
            else st.just(())
        ),
        topic_alias=maybe(st.integers(1, 0xFFFF)) if sender != "will" else st.none(),
    )
    # No properties are None, not an object without any.
    return maybe(found).map(lambda value: None if value == PublishProperties() else value)


def publishes(version: int, sender: str) -> st.SearchStrategy[Publish]:
    """PUBLISH from "client" or "server"."""

    def finish(packet: Publish) -> Publish:
        if packet.qos == 0:
            packet.packet_id = 0
            packet.dup = False
        if packet.properties is not None and packet.properties.topic_alias == 7:
            packet.topic = ""
        return packet

    return st.builds(
        Publish,
        topic=topics,
        payload=st.binary(max_size=300),
        qos=st.integers(0, 2),
        retain=st.booleans(),
        dup=st.booleans(),
        packet_id=packet_ids,
        properties=_properties_of_publish(sender) if version == 5 else st.none(),
    ).map(finish)


def connects(version: int) -> st.SearchStrategy[Connect]:
    """CONNECT."""
    v5 = version == 5
    will = st.builds(
        Will,
        topic=topics,
        payload=binaries,
        qos=st.integers(0, 2),
        retain=st.booleans(),
        delay_interval=four_bytes if v5 else st.just(0),
        properties=_properties_of_publish("will") if v5 else st.none(),
    )
    method = st.tuples(st.none(), st.none())
    if v5:
        method |= st.tuples(texts, maybe(binaries))
    return st.builds(
        lambda method, username, password, **rest: Connect(
            version=version,
            username=username,
            password=None if username is None and not v5 else password,
            authentication_method=method[0],
            authentication_data=method[1],
            **rest,
        ),
        method,
        maybe(texts),
        maybe(binaries),
        client_id=texts,
        clean_start=st.booleans(),
        keep_alive=two_bytes,
        will=maybe(will),
        **(
            {
                "session_expiry_interval": maybe(four_bytes),
                "receive_maximum": maybe(st.integers(1, 0xFFFF)),
                "maximum_packet_size": maybe(st.integers(1, 0xFFFFFFFF)),
                "topic_alias_maximum": two_bytes,
                "request_response_information": st.booleans(),
                "request_problem_information": st.booleans(),
                "user_properties": user_properties,
            }
            if v5
            else {}
        ),
    )


def connacks(version: int) -> st.SearchStrategy[ConnAck]:
    """CONNACK."""
    if version != 5:
        present = st.booleans() if version == 4 else st.just(False)
        return st.builds(ConnAck, present, st.integers(0, 5))
    return st.builds(
        lambda method, **rest: ConnAck(
            authentication_method=method[0], authentication_data=method[1], **rest
        ),
        st.tuples(st.none(), st.none()) | st.tuples(texts, maybe(binaries)),
        session_present=st.booleans(),
        reason_code=st.sampled_from(sorted(ALLOWED[2])),
        session_expiry_interval=maybe(four_bytes),
        receive_maximum=maybe(st.integers(1, 0xFFFF)),
        maximum_qos=maybe(st.integers(0, 1)),
        retain_available=maybe(st.booleans()),
        maximum_packet_size=maybe(st.integers(1, 0xFFFFFFFF)),
        assigned_client_identifier=maybe(texts),
        topic_alias_maximum=maybe(two_bytes),
        reason_string=maybe(texts),
        user_properties=user_properties,
        wildcard_subscription_available=maybe(st.booleans()),
        subscription_identifiers_available=maybe(st.booleans()),
        shared_subscription_available=maybe(st.booleans()),
        server_keep_alive=maybe(two_bytes),
        response_information=maybe(texts),
        server_reference=maybe(texts),
    )


def _acknowledgements(version: int) -> list[st.SearchStrategy[Packet]]:
    kinds = ((PubAck, 4), (PubRec, 5), (PubRel, 6), (PubComp, 7))
    if version != 5:
        return [st.builds(make, packet_ids) for make, _ in kinds]
    return [
        st.builds(
            make, packet_ids, st.sampled_from(sorted(ALLOWED[kind])), maybe(texts), user_properties
        )
        for make, kind in kinds
    ]


def _subscribes(version: int) -> st.SearchStrategy[Packet]:
    qos = st.integers(0, 2)
    if version != 5:
        request = st.builds(SubscriptionRequest, filters, qos)
        return st.builds(
            Subscribe, packet_ids, st.lists(request, min_size=1, max_size=4).map(tuple)
        )
    request = st.builds(
        SubscriptionRequest, filters, qos, st.booleans(), st.booleans(), st.integers(0, 2)
    )
    return st.builds(
        Subscribe,
        packet_ids,
        st.lists(request, min_size=1, max_size=4).map(tuple),
        st.integers(0, 268_435_455),
        user_properties,
    )


def from_client(version: int) -> st.SearchStrategy[Packet]:
    """Any packet that a client may send after its CONNECT."""
    topic_filters = st.lists(filters, min_size=1, max_size=4).map(tuple)
    kinds: list[st.SearchStrategy[Packet]] = [
        publishes(version, "client"),
        *_acknowledgements(version),
        _subscribes(version),
        st.builds(
            Unsubscribe, packet_ids, topic_filters, user_properties if version == 5 else st.just(())
        ),
        st.builds(PingReq),
    ]
    if version == 5:
        kinds += [
            st.builds(
                Disconnect,
                st.sampled_from(sorted(ALLOWED[14])),
                maybe(four_bytes),
                maybe(texts),
                user_properties,
                maybe(texts),
            ),
            st.builds(
                Auth,
                st.sampled_from([0x18, 0x19]),
                texts,
                maybe(binaries),
                maybe(texts),
                user_properties,
            ),
        ]
    else:
        kinds.append(st.builds(Disconnect))
    return st.one_of(kinds)


def from_server(version: int) -> st.SearchStrategy[Packet]:
    """Any packet that a server may send."""
    kinds: list[st.SearchStrategy[Packet]] = [
        connacks(version),
        publishes(version, "server"),
        *_acknowledgements(version),
        st.builds(PingResp),
    ]
    if version != 5:
        granted = [0, 1, 2, 0x80] if version == 4 else [0, 1, 2]
        codes = st.lists(st.sampled_from(granted), min_size=1, max_size=4).map(tuple)
        return st.one_of(
            *kinds,
            st.builds(SubAck, packet_ids, codes),
            st.builds(UnsubAck, packet_ids, st.just(())),
        )
    for make, kind in ((SubAck, 9), (UnsubAck, 11)):
        codes = st.lists(st.sampled_from(sorted(ALLOWED[kind])), min_size=1, max_size=4).map(tuple)
        kinds.append(st.builds(make, packet_ids, codes, maybe(texts), user_properties))
    kinds += [
        st.builds(
            Disconnect,
            st.sampled_from(sorted(ALLOWED[14])),
            st.none(),
            maybe(texts),
            user_properties,
            maybe(texts),
        ),
        st.builds(
            Auth,
            st.sampled_from([0x00, 0x18]),
            texts,
            maybe(binaries),
            maybe(texts),
            user_properties,
        ),
        st.just(Auth()),
    ]
    return st.one_of(kinds)
