"""SCRAM-SHA-256: the RFC's own example, the exchange in MQTT, and who breaks it."""

import hashlib
import hmac
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
import trio

from mqtrio.testing import Harness, Peer, open_harness
from mqtrio.wire.packets import Auth, ConnAck, Disconnect
from mqtrio_plugins.passwords.command import passwd
from mqtrio_plugins.passwords.hashes import parse
from mqtrio_plugins.passwords.scram import (
    METHOD,
    Conversation,
    ScramError,
    ScramSha256,
    saslprep,
)
from tests.plugins.passwords.kit import cheap, passwords

#: RFC 7677, 3.
SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FIRST = f"n,,n=user,r={CLIENT_NONCE}".encode()
CHALLENGE = f"r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
WITHOUT_PROOF = f"c=biws,r={CLIENT_NONCE}{SERVER_NONCE}"
FINAL = f"{WITHOUT_PROOF},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_example_of_rfc_7677() -> None:
    kept = ScramSha256.of(b"pencil", iterations=4096, salt=SALT)
    conversation = Conversation(SERVER_NONCE)
    assert conversation.begin(FIRST) == "user"
    assert conversation.challenge(kept) == CHALLENGE
    assert conversation.finish(FINAL) == SIGNATURE


def test_as_it_stands_in_a_file() -> None:
    kept = ScramSha256.of(b"pencil", iterations=4096)
    assert parse(str(kept)) == kept
    assert kept.verify(b"pencil")
    assert not kept.verify(b"Pencil")
    assert not kept.verify(b"\xff")
    assert repr(kept) == "ScramSha256(iterations=4096)"


@pytest.mark.parametrize(
    "text",
    [
        *("$scram-sha-256$", "$scram-sha-256$4095$AA$AA$AA", "$scram-sha-256$4096$!$!$!"),
        *("$scram-sha-256$4096$AAAA$AAAA$AAAA", "$scram-sha-256$99999999$AAAA$AAAA$AAAA"),
    ],
)
def test_verifiers_that_can_not_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"SCRAM|scram|base64|length"):
        parse(text)


#: RFC 4013, 3, and more.
PREPARED: dict[str, str | None] = {
    "I\u00adX": "IX",
    "user": "user",
    "USER": "USER",
    "\u00aa": "a",
    "\u2168": "IX",
    "\u0007": None,
    "\u06271": None,
    "a\u00a0b": "a b",
    "\ud800": None,
}


@pytest.mark.parametrize("text", PREPARED)
def test_saslprep(text: str) -> None:
    expected = PREPARED[text]
    if expected is None:
        with pytest.raises(ValueError, match="the text"):
            saslprep(text)
    else:
        assert saslprep(text) == expected


#: First messages that are refused.
FIRSTS = [
    *(b"", b"x", b"n", b"n,", b"n,,", b"n,,n=user", b"n,,r=x,n=user", b"n,,n=,r=x", b"n,,n=u,r="),
    *(b"p=tls-unique,,n=user,r=x", b"n,a=root,n=user,r=x", b"n,,m=x,n=user,r=x"),
    *(b"n,,n=us=er,r=x", b"n,,n=\xff,r=x", b"n,,n=a\0b,r=x", b"n,,n=\x07,r=x", b"n,,n=u,r=x,y"),
    b"n,,n=user,r=" + b"x" * 5000,
]


@pytest.mark.parametrize("data", FIRSTS)
def test_first_messages_that_can_not_be(data: bytes) -> None:
    with pytest.raises(ScramError):
        Conversation().begin(data)


@pytest.mark.parametrize(
    ("data", "username"),
    [(b"n,,n=a=2Cb=3Dc,r=x", "a,b=c"), (b"y,,n=user,r=x", "user"), (b"n,a=u,n=u,r=x,e=1", "u")],
)
def test_first_messages(data: bytes, username: str) -> None:
    assert Conversation().begin(data) == username


#: Last messages that are refused: the right one with something else in its place.
FINALS = {
    "empty": b"",
    "no proof": WITHOUT_PROOF.encode(),
    "another header": FINAL.replace(b"biws", b"eSws"),
    "another nonce": FINAL.replace(b"%hv", b"%hw"),
    "our nonce alone": FINAL.replace(CLIENT_NONCE.encode(), b""),
    "another proof": FINAL.replace(b"p=dH", b"p=dI"),
    "no base64": FINAL.replace(b"p=dH", b"p=!!"),
    "a short proof": f"{WITHOUT_PROOF},p=AAAA".encode(),
    "an empty proof": f"{WITHOUT_PROOF},p=".encode(),
    "more attributes": FINAL.replace(b",p=", b",x=1,p="),
}


@pytest.mark.parametrize("case", FINALS)
def test_last_messages_that_are_refused(case: str) -> None:
    conversation = Conversation(SERVER_NONCE)
    conversation.begin(FIRST)
    conversation.challenge(ScramSha256.of(b"pencil", iterations=4096, salt=SALT))
    with pytest.raises(ScramError):
        conversation.finish(FINALS[case])


# -- in MQTT


def final(password: bytes, first: bytes, challenge: bytes) -> tuple[bytes, bytes]:
    """A client's last message, and what the server has to answer (RFC 5802, 3)."""
    parts = dict(part.split("=", 1) for part in challenge.decode().split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password, b64decode(parts["s"]), int(parts["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c=biws,r={parts['r']}".encode()
    message = b",".join((first.removeprefix(b"n,,"), challenge, without))
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    verifier = hmac.digest(server_key, message, "sha256")
    return without + b",p=" + b64encode(proof), b"v=" + b64encode(verifier)


async def scram(peer: Peer, name: bytes, password: bytes, **fields: Any) -> ConnAck:
    """Connect by SCRAM; returns CONNACK. What the server proves is checked."""
    first = b"n,,n=" + name + b",r=client"
    await peer.send(
        peer.connect_packet(authentication_method=METHOD, authentication_data=first, **fields)
    )
    auth = await peer.expect(Auth, reason_code=0x18, authentication_method=METHOD)
    assert auth.authentication_data is not None
    last, expected = final(password, first, auth.authentication_data)
    await peer.send(Auth(0x18, METHOD, last))
    connack = await peer.expect(ConnAck)
    assert connack.authentication_data == (expected if connack.reason_code == 0 else None)
    return connack


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    kept = ScramSha256.of(b"pencil", iterations=4096)
    path.write_text(f"ann:{kept}\nbob:{cheap('battery')}\n")
    return path


async def in_(harness: Harness) -> list[str | None]:
    return [client.username for client in harness.broker.clients()]


async def test_by_scram_and_by_password(file: Path) -> None:
    async with open_harness(plugins=[passwords(file)]) as harness:
        for given in ({}, {"username": "ann"}):
            peer = harness.peer("c")
            assert (await scram(peer, b"ann", b"pencil", **given)).reason_code == 0
            assert await in_(harness) == ["ann"]
            await peer.disconnect()


@pytest.mark.trio(run=trio.run)
async def test_plain_passwords_of_who_has_a_verifier(file: Path) -> None:
    async with open_harness(plugins=[passwords(file)]) as harness:
        for name, password, code in (
            ("ann", b"pencil", 0),
            ("ann", b"pencils", 0x86),
            ("bob", b"battery", 0),
            ("eve", b"pencil", 0x86),
        ):
            client = harness.new_client("c")
            connack = await client.try_connect(username=name, password=password)
            assert connack.reason_code == code
            await client.drop()


@pytest.mark.parametrize(
    ("name", "password"),
    [(b"ann", b"wrong"), (b"eve", b"pencil"), (b"bob", b"battery"), (b"ANN", b"pencil")],
)
async def test_who_is_refused_at_the_end(name: bytes, password: bytes, file: Path) -> None:
    """Also users that don't exist, or have no verifier: the first answer looks the same."""
    async with open_harness(plugins=[passwords(file)]) as harness:
        assert (await scram(harness.peer("c"), name, password)).reason_code == 0x87
        assert harness.broker.sessions() == []


async def test_unknown_users_look_like_others(file: Path) -> None:
    async with open_harness(plugins=[passwords(file)]) as harness:
        salts: dict[bytes, set[str]] = {}
        for name in (b"ann", b"eve", b"bob", b"mallory") * 2:
            peer = harness.peer("c")
            data = b"n,,n=" + name + b",r=client"
            await peer.send(
                peer.connect_packet(authentication_method=METHOD, authentication_data=data)
            )
            auth = await peer.expect(Auth)
            assert auth.authentication_data is not None
            _, salt, iterations = auth.authentication_data.decode().split(",")
            assert (len(salt), iterations) == (26, "i=4096")
            salts.setdefault(name, set()).add(salt)
    assert all(len(found) == 1 for found in salts.values())
    assert len(set.union(*salts.values())) == 4


async def test_the_client_may_begin_with_nothing(file: Path) -> None:
    async with open_harness(plugins=[passwords(file)]) as harness:
        peer = harness.peer("c")
        await peer.send(peer.connect_packet(authentication_method=METHOD))
        await peer.expect(Auth, reason_code=0x18)
        first = b"n,,n=ann,r=client"
        await peer.send(Auth(0x18, METHOD, first))
        challenge = (await peer.expect(Auth)).authentication_data
        assert challenge is not None
        await peer.send(Auth(0x18, METHOD, final(b"pencil", first, challenge)[0]))
        await peer.expect(ConnAck, reason_code=0)
        # And again, while it is connected; the last exchange means nothing any more.
        await peer.send(Auth(0x19, METHOD, first))
        challenge = (await peer.expect(Auth)).authentication_data
        assert challenge is not None
        data, proof = final(b"pencil", first, challenge)
        await peer.send(Auth(0x18, METHOD, data))
        await peer.expect(Auth, reason_code=0, authentication_data=proof)
        await peer.send(Auth(0x19, METHOD, data))
        await peer.expect(Disconnect, reason_code=0x87)


@pytest.mark.parametrize(
    "fields",
    [{"username": "bob"}, {"authentication_data": b"n,,n=ann"}, {"authentication_data": b"\xff"}],
)
async def test_who_is_refused_at_the_beginning(fields: dict[str, Any], file: Path) -> None:
    async with open_harness(plugins=[passwords(file)]) as harness:
        given = {"authentication_data": b"n,,n=ann,r=x"} | fields
        refused = await harness.refused("c", authentication_method=METHOD, **given)
        assert refused.reason_code == 0x87


async def test_a_file_without_verifiers_offers_no_scram(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"bob:{cheap('battery')}\n")
    async with open_harness(plugins=[passwords(path)]) as harness:
        refused = await harness.refused("c", authentication_method=METHOD)
        assert refused.reason_code == 0x8C


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path = tmp_path / "users"
    assert passwd(["-c", "--scram", "--iterations", "4096", "-b", str(path), "ann", "pencil"]) == 0
    kept = parse(path.read_text().strip().partition(":")[2])
    assert isinstance(kept, ScramSha256)
    assert kept.verify(b"pencil")
    assert passwd(["--scram", "--iterations", "1", "-b", str(path), "bob", "x"]) == 1
    assert "4,096" in capsys.readouterr().err
    assert passwd(["--scram", "-b", str(path), "b\u00aab", "x"]) == 1
    assert "another one" in capsys.readouterr().err
