"""TLS in a broker: what clients of others do with it, what hooks see, and reloads."""

import logging
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import trio
from paho.mqtt.enums import CallbackAPIVersion
from trio.testing import MockClock, memory_stream_pair

import mqtrio
from contrib.tls.tests.authority import Authority, Issued
from mqtrio import Listener, hookimpl
from mqtrio.broker import Broker
from mqtrio.cli.entry import main
from mqtrio.net.addresses import BoundAddress
from mqtrio_tls import (
    ClientCertificates,
    ClientCertificatesSettings,
    Tls,
    TlsClient,
    TlsLayer,
    TlsListener,
    client_context,
    server_context,
)

MOSQUITTO = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="missing: mosquitto_pub (mosquitto-clients)"
)
OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="missing: openssl")

CONNECT = bytes.fromhex("10 0c 0004 4d515454 04 02 003c 0000")
CONNACK = bytes.fromhex("20 02 00 00")
PATIENCE = 20


class Watching:
    """Lets everybody in, and notes who they are."""

    def __init__(self) -> None:
        self.clients: list[mqtrio.ClientFacts] = []
        self.refused: list[str] = []

    @hookimpl
    def client_connected(self, event: mqtrio.ClientConnectedEvent) -> None:
        self.clients.append(event.client)

    @hookimpl
    def connection_refused(self, event: mqtrio.ConnectionRefusedEvent) -> None:
        self.refused.append(event.why)


def tls(ca: Authority, **options: Any) -> TlsListener:
    issued = ca.issue("localhost", "127.0.0.1", file="server")
    return TlsListener(certificate=issued.certificate, key=issued.key, **options)


def mutual(ca: Authority) -> dict[str, Any]:
    return {"client_certificates": "required", "client_ca": ca.file}


def by_certificate(what: Any = "cn") -> ClientCertificates:
    settings = ClientCertificatesSettings(username_from=what)
    return ClientCertificates(settings, name="client_certificates")


@asynccontextmanager
async def opened(options: TlsListener, *plugins: object) -> AsyncIterator[tuple[Broker, Watching]]:
    watching = Watching()
    listener = Listener(url="mqtts://127.0.0.1:0", tls=options)
    with trio.fail_after(PATIENCE):
        async with mqtrio.open_broker(listener, plugins=[*plugins, watching]) as broker:
            yield broker, watching


async def run(*command: object, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return await trio.run_process(
        [str(word) for word in command],
        stdin=data,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


def owns(issued: Issued | None) -> tuple[object, ...]:
    return () if issued is None else ("--cert", issued.certificate, "--key", issued.key)


async def mosquitto_pub(
    ca: Authority, address: BoundAddress, issued: Issued | None = None, *more: object
) -> "subprocess.CompletedProcess[bytes]":
    where = ("-h", "localhost", "-p", address.port, "--cafile", ca.file)
    return await run("mosquitto_pub", *where, *owns(issued), "-t", "a", "-m", "hello", *more)


async def secure(
    ca: Authority, address: BoundAddress, issued: Issued | None = None
) -> "trio.SSLStream[trio.SocketStream]":
    own: dict[str, Any] = {}
    if issued is not None:
        own = {"certificate": issued.certificate, "key": issued.key}
    context = client_context(TlsClient(ca=ca.file, **own))
    context.sslobject_class = ssl.SSLObject
    stream = await trio.open_tcp_stream("127.0.0.1", address.port)
    return trio.SSLStream(stream, context, server_hostname="localhost")


async def connects(ca: Authority, address: BoundAddress, issued: Issued | None = None) -> bool:
    async with await secure(ca, address, issued) as stream:
        await stream.send_all(CONNECT)
        return bytes(await stream.receive_some()) == CONNACK


# -- clients of others -----------------------------------------------------------------------------


@MOSQUITTO
async def test_mosquitto(ca: Authority) -> None:
    async with opened(tls(ca)) as (broker, watching):
        async with broker.subscribe("a") as messages:
            done = await mosquitto_pub(ca, broker.listeners[0], None, "-q", 2)
            assert (done.returncode, done.stderr) == (0, b"")
            assert (await messages.receive()).payload == b"hello"
    (client,) = watching.clients
    assert client.tls is not None
    assert client.tls.version == "TLSv1.3"
    assert client.tls.server_name == "localhost"


@MOSQUITTO
async def test_mosquitto_with_a_certificate(ca: Authority, make_ca: Any) -> None:
    door = ca.issue("door.example", common_name="door", file="door")
    stranger = make_ca("stranger").issue("door", common_name="door", file="stranger")
    async with opened(tls(ca, **mutual(ca)), by_certificate()) as (broker, watching):
        address = broker.listeners[0]
        done = await mosquitto_pub(ca, address, door, "-u", "somebody", "-q", 1)
        assert (done.returncode, done.stderr) == (0, b"")
        for issued in (None, stranger):
            assert (await mosquitto_pub(ca, address, issued, "-q", 1)).returncode != 0
    (client,) = watching.clients
    assert client.username == "door"
    assert client.tls is not None
    assert client.tls.certificate is not None
    assert client.tls.certificate.common_name == "door"
    assert watching.refused[0] == "tls: the client shows no certificate"
    assert watching.refused[1].startswith("tls: the client's certificate is not accepted")


@pytest.mark.parametrize("with_certificate", [False, True])
async def test_paho(ca: Authority, with_certificate: bool) -> None:
    door = ca.issue("door.example", common_name="door", file="door")
    options = tls(ca, **mutual(ca)) if with_certificate else tls(ca)

    def talk(port: int) -> list[bytes]:
        received: list[bytes] = []
        client = paho.Client(CallbackAPIVersion.VERSION2, "paho")
        client.tls_set(
            str(ca.file),
            str(door.certificate) if with_certificate else None,
            str(door.key) if with_certificate else None,
        )

        def on_message(client: paho.Client, userdata: object, message: Any) -> None:
            received.append(message.payload)
            if len(received) == 20:
                client.disconnect()

        def on_subscribe(client: paho.Client, *rest: object) -> None:
            for number in range(20):
                client.publish("a", b"%d" % number * 5000, qos=number % 3)

        client.on_message = on_message
        client.on_subscribe = on_subscribe
        client.connect("localhost", port)
        client.subscribe("a", 2)
        client.loop_forever()
        return received

    plugins = [by_certificate()] if with_certificate else []
    async with opened(options, *plugins) as (broker, seen):
        received = await trio.to_thread.run_sync(talk, broker.listeners[0].port)
    assert sorted(received) == sorted(b"%d" % number * 5000 for number in range(20))
    assert seen.clients[0].username == ("door" if with_certificate else None)


@OPENSSL
@pytest.mark.parametrize(
    ("minimum", "spoken", "good"),
    [
        ("1.2", "-tls1_1", False),
        ("1.2", "-tls1_2", True),
        ("1.2", "-tls1_3", True),
        ("1.3", "-tls1_2", False),
        ("1.3", "-tls1_3", True),
    ],
)
async def test_the_floor(ca: Authority, minimum: str, spoken: str, good: bool) -> None:
    async with opened(tls(ca, minimum_version=minimum)) as (broker, watching):
        # With level 0, or a client would not even propose the old ones.
        command = ("openssl", "s_client", "-connect", f"localhost:{broker.listeners[0].port}")
        done = await run(
            *command, spoken, "-CAfile", ca.file, "-cipher", "ALL:@SECLEVEL=0", "-alpn", "mqtt"
        )
    assert (done.returncode == 0) is good
    assert (b"ALPN protocol: mqtt" in done.stdout) is good
    old = "tls: the peer speaks no version of TLS that is allowed here"
    assert good or watching.refused == [old]


@OPENSSL
async def test_openssl_resumes(ca: Authority, tmp_path: Path) -> None:
    async with opened(tls(ca)) as (broker, _):
        command = (
            *("openssl", "s_client", "-connect", f"localhost:{broker.listeners[0].port}"),
            *("-CAfile", ca.file, "-tls1_2"),
        )
        kept = tmp_path / "session"
        await run(*command, "-sess_out", kept)
        done = await run(*command, "-sess_in", kept)
    assert b"Reused, TLSv1.2" in done.stdout


# -- who is at the door ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "username"),
    [
        ("cn", "door"),
        ("san-dns", "door.example"),
        ("san-uri", "urn:example:door"),
        ("subject", r"CN=door,O="),
    ],
)
async def test_where_the_username_comes_from(ca: Authority, what: str, username: str) -> None:
    from cryptography import x509

    door = ca.issue_like(
        ca.issue("door.example", common_name="door", file="door"),
        x509.DNSName("door.example"),
        x509.UniformResourceIdentifier("urn:example:door"),
    )
    async with opened(tls(ca, **mutual(ca)), by_certificate(what)) as (broker, watching):
        assert await connects(ca, broker.listeners[0], door)
    found = watching.clients[0].username
    assert found is not None
    if what == "subject":
        assert re.match("CN=door,OU=.*,O=", found)
    else:
        assert found == username


async def test_a_certificate_without_such_a_name_lets_nobody_in(ca: Authority) -> None:
    door = ca.issue("door.example", file="door")
    async with opened(tls(ca, **mutual(ca)), by_certificate("san-uri")) as (broker, watching):
        assert not await connects(ca, broker.listeners[0], door)
    assert not watching.clients


async def test_others_are_asked_about_who_has_none(ca: Authority) -> None:
    class Others:
        @hookimpl
        def authenticate(self, event: mqtrio.AuthenticateEvent) -> mqtrio.Allow:
            return mqtrio.Allow(username="somebody")

    options = tls(ca, client_certificates="optional", client_ca=ca.file)
    door = ca.issue("door.example", common_name="door", file="door")
    async with opened(options, by_certificate(), Others()) as (broker, watching):
        assert await connects(ca, broker.listeners[0], door)
        assert await connects(ca, broker.listeners[0])
    assert [client.username for client in watching.clients] == ["door", "somebody"]


async def test_a_client_goes_when_its_certificate_expires(
    ca: Authority, autojump_clock: MockClock
) -> None:
    """In memory, in virtual time; and so the layer works on a stream, too."""
    from datetime import UTC, datetime, timedelta

    ends = datetime.now(UTC) + timedelta(hours=1)
    door = ca.issue("d.example", common_name="door", file="door", not_after=ends)
    server = server_context(tls(ca, **mutual(ca)))
    client = client_context(TlsClient(ca=ca.file, certificate=door.certificate, key=door.key))
    client.sslobject_class = ssl.SSLObject
    watching = Watching()
    async with mqtrio.open_broker([], plugins=[by_certificate(), watching]) as broker:
        async with trio.open_nursery() as nursery:
            near, far = memory_stream_pair()
            peer = mqtrio.PeerFacts(address="192.0.2.7", listener="test", local=True)
            nursery.start_soon(
                broker._network.serve_stream,
                far,
                peer,
                [lambda: TlsLayer(server, server_side=True)],
            )
            stream = trio.SSLStream(near, client, server_hostname="localhost")
            # Without keep alive.
            await stream.send_all(bytes.fromhex("10 0c 0004 4d515454 04 02 0000 0000"))
            assert bytes(await stream.receive_some()) == CONNACK
            began = trio.current_time()
            assert await stream.receive_some() == b""
            assert 3500 < trio.current_time() - began <= 3601
    assert watching.clients[0].username == "door"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (CONNECT, "tls: plain MQTT is spoken to the TLS port"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "tls: plain HTTP is spoken to the TLS port"),
        (b"\x16\x03\x01\x00\x05hello", "tls: "),
        (bytes(200), "tls: this is not TLS"),
    ],
)
async def test_the_log_says_what_is_spoken_instead(
    ca: Authority, caplog: pytest.LogCaptureFixture, said: bytes, text: str
) -> None:
    async with opened(tls(ca)) as (broker, watching):
        address = broker.listeners[0]
        async with await secure(ca, address) as good:
            await good.send_all(CONNECT)
            assert bytes(await good.receive_some()) == CONNACK
            async with await trio.open_tcp_stream("127.0.0.1", address.port) as bad:
                await bad.send_all(said)
                while await bad.receive_some():
                    pass
            await good.send_all(b"\xc0\x00")
            assert bytes(await good.receive_some()) == b"\xd0\x00"
    assert watching.refused[0].startswith(text)
    assert text in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_log_says_that_tls_is_spoken_to_a_plain_listener(ca: Authority) -> None:
    watching = Watching()
    async with mqtrio.open_broker("mqtt://127.0.0.1:0", plugins=[watching]) as broker:
        with pytest.raises((trio.BrokenResourceError, ssl.SSLError)), trio.fail_after(PATIENCE):
            await connects(ca, broker.listeners[0])
    assert watching.refused == ["this is TLS, spoken to a listener of MQTT"]


# -- configurations --------------------------------------------------------------------------------


def test_a_configuration(ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_PASSWORD", "hunter2")
    file = tmp_path / "broker.toml"
    file.write_text(
        """
[[listener]]
url = "mqtts://127.0.0.1:0"
[listener.tls]
certificate = "server.pem"
key = "server.key"
key_password = { env = "KEY_PASSWORD" }
[[listener.tls.certificates]]
certificate = "other.pem"
names = ["other.example"]

[plugin.client_certificates]
username_from = "san-dns"
"""
    )
    made = mqtrio.load_config(file)
    assert [spec.name for spec in made.plugins] == ["tls", "client_certificates"]
    (listener,) = made.settings.listener
    assert isinstance(listener.tls, TlsListener)
    assert listener.tls.certificate == tmp_path / "server.pem"
    assert listener.tls.certificates[0].names == ("other.example",)
    assert listener.tls.key_password == "hunter2"
    assert "hunter2" not in repr(made)


def test_check_reads_the_files(
    ca: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca.issue("localhost", file="server")
    file = tmp_path / "broker.toml"
    text = """
[[listener]]
url = "mqtts://127.0.0.1"
tls = {{ certificate = "{}", key = "server.key" }}
"""
    file.write_text(text.format("server.pem"))
    assert main(["check", str(file)]) == 0
    assert "plugins: tls" in capsys.readouterr().out
    file.write_text(text.format("missing.pem"))
    assert main(["check", str(file)]) == 2
    missing = tmp_path / "missing.pem"
    assert capsys.readouterr().err.strip() == (
        f"mqtrio: listener mqtts://127.0.0.1: tls: certificate: {missing} can't be read: "
        "No such file or directory"
    )


async def test_two_listeners_with_different_certificates_and_authentication(
    ca: Authority, make_ca: Any
) -> None:
    other = make_ca("other")
    inside = other.issue("localhost", file="inside")
    door = other.issue("door.example", common_name="door", file="door")
    config = {
        "listener": [
            {"url": "mqtts://127.0.0.1:0", "tls": tls(ca), "authenticate": ["anonymous"]},
            {
                "url": "mqtts://127.0.0.1:0/",
                "tls": {
                    "certificate": inside.certificate,
                    "key": inside.key,
                    "client_certificates": "required",
                    "client_ca": other.file,
                },
                "authenticate": ["client_certificates"],
            },
        ],
        "plugin": {"client_certificates": {}, "anonymous": {}},
    }
    watching = Watching()
    with trio.fail_after(PATIENCE):
        async with mqtrio.open_broker(config=config, plugins=[watching]) as broker:
            first, second = broker.listeners
            assert await connects(ca, first)
            assert await connects(other, second, door)
    assert [client.username for client in watching.clients] == [None, "door"]


async def test_certificates_are_reloaded_and_connections_stay(ca: Authority, make_ca: Any) -> None:
    other = make_ca("other")
    options = tls(ca)
    config = {"listener": [{"url": "mqtts://127.0.0.1:0", "tls": options}]}
    with trio.fail_after(PATIENCE):
        async with mqtrio.open_broker(config=config) as broker:
            (address,) = broker.listeners
            async with await secure(ca, address) as stream:
                await stream.send_all(CONNECT)
                assert bytes(await stream.receive_some()) == CONNACK
                renewed = other.issue("localhost", file="renewed")
                # The same file has another certificate now, and not yet its key.
                options.certificate.write_bytes(renewed.certificate.read_bytes())
                with pytest.raises(mqtrio.ConfigurationError, match="does not belong to the cert"):
                    await broker.reload(config)
                assert await connects(ca, address)
                assert options.key is not None
                options.key.write_bytes(renewed.key.read_bytes())
                await broker.reload(config)
                assert await connects(other, address)
                await stream.send_all(b"\xc0\x00")
                assert bytes(await stream.receive_some()) == b"\xd0\x00"


def test_the_plugins_need_no_settings() -> None:
    assert Tls(None, name="tls").name == "tls"
    assert ClientCertificatesSettings().username_from == "cn"


async def test_behind_a_proxy(ca: Authority) -> None:
    """The PROXY header stands in front of the handshake, and may come together with its begin."""
    watching = Watching()
    listener = Listener(
        url="mqtts://127.0.0.1:0",
        tls=tls(ca, **mutual(ca)),
        proxy_protocol=True,
        trusted_proxies=("127.0.0.1",),
    )
    door = ca.issue("door", common_name="door", file="door")
    context = client_context(
        TlsClient(ca=ca.file, certificate=door.certificate, key=door.key),
    )
    header = b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 8883\r\n"
    with trio.fail_after(PATIENCE):
        async with mqtrio.open_broker(listener, plugins=[by_certificate(), watching]) as broker:
            layer = TlsLayer(context, server_side=False, server_name="localhost")
            stream = await trio.open_tcp_stream("127.0.0.1", broker.listeners[0].port)
            async with stream:
                await stream.send_all(header[:10])
                await stream.send_all(header[10:] + layer.send(CONNECT))
                answer = b""
                while not answer:
                    answer = layer.receive(bytes(await stream.receive_some()))
                    said = layer.send(b"")
                    if said:
                        await stream.send_all(said)
                assert answer == CONNACK
    (client,) = watching.clients
    assert (client.address, client.username) == ("203.0.113.7", "door")
    assert client.via == "127.0.0.1"
    assert client.tls is not None


async def test_a_name_with_nul_is_nobodys(ca: Authority) -> None:
    odd = ca.issue("door", common_name="door\0.example", file="odd")
    async with opened(tls(ca, **mutual(ca)), by_certificate()) as (broker, watching):
        assert not await connects(ca, broker.listeners[0], odd)
    assert not watching.clients
    assert watching.refused == ["the name in the client's certificate has a NUL in it"]
