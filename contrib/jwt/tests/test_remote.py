"""Keys of a server: down, slow, garbage, rotating. Nobody who connects waits for it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trio
import trio.testing

from contrib.jwt.tests.kit import Kit
from mqtrio.testing import open_harness
from mqtrio_jwt import Jwt, JwtSettings
from mqtrio_jwt.fetch import FetchError, fetch
from mqtrio_jwt.remote import MOST_UNKNOWN, RemoteKeys

URL = "https://id.example/keys"
ISSUER = "https://id.example/realm"


class Server:
    """What answers fetches: `answers[url]` is bytes, an error, or a function."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[float, str]] = []
        self.delay = 0.0
        self.running = 0
        self.most = 0

    async def fetch(self, url: str, timeout: float) -> bytes:
        self.asked.append((trio.current_time(), url))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(min(self.delay, timeout))
            if self.delay > timeout:
                raise FetchError("too slow")
            answer = self.answers[url]
            if isinstance(answer, Exception):
                raise answer
            data: bytes = answer
            return data
        finally:
            self.running -= 1


def plugin_for(server: Server, **given: Any) -> Jwt:
    settings: dict[str, Any] = {"algorithms": ("ES256", "RS256"), "jwks_url": URL} | given
    return Jwt(JwtSettings(**settings), name="jwt", fetch=server.fetch)


async def code(harness: Any, token: bytes) -> int:
    client = harness.new_client("c")
    began = trio.current_time()
    connack = await client.try_connect(password=token)
    assert trio.current_time() == began  # nobody waits
    if connack.reason_code == 0:
        await client.disconnect()
    return int(connack.reason_code)


async def test_a_server_that_is_down_and_comes_up(kit: Kit) -> None:
    server = Server(**{URL: FetchError("down")})
    async with open_harness(plugins=[plugin_for(server)]) as harness:
        token = kit.token("ES256", {"kid": "k"})
        await trio.sleep(1)
        assert await code(harness, token) == 0x88
        await trio.sleep(60)
        assert 4 <= len(server.asked) <= 7  # less and less often
        server.answers[URL] = kit.key_set("ES256", kid="k")
        await trio.sleep(100)
        assert await code(harness, token) == 0
        # Down again: the last good set stays.
        server.answers[URL] = FetchError("down")
        await trio.sleep(4000)
        assert await code(harness, kit.token("ES256", {"kid": "k"}, lifetime=9000)) == 0


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"<html>", b"{}", b'{"keys": 1}', b'{"keys": []}', b"\xff", b'{"keys":' * 10_000),
        b'{"keys": [{"kty": "RSA", "key_ops": null}]}',
        b'{"keys": [{"kty": "EC", "key_ops": 5, "alg": "ES256"}]}',
        b'{"keys": [{"kty": "EC", "crv": [], "use": {}, "alg": []}]}',
        b'{"keys": [{"kty": "EC", "crv": [], "x": 1, "y": null}]}',
        b'{"keys": [{"kty": "EC", "crv": "P-256", "x": 1, "y": null}]}',
    ],
)
async def test_garbage_changes_nothing(answer: bytes, kit: Kit) -> None:
    server = Server(**{URL: kit.key_set("ES256", kid="k")})
    async with open_harness(plugins=[plugin_for(server, refresh=10)]) as harness:
        await trio.sleep(1)
        server.answers[URL] = answer
        await trio.sleep(100)
        assert len(server.asked) > 3
        assert await code(harness, kit.token("ES256", {"kid": "k"})) == 0


async def test_a_secret_of_a_server_is_none(kit: Kit) -> None:
    server = Server(**{URL: kit.key_set("ES256", "HS256")})
    async with open_harness(plugins=[plugin_for(server)]) as harness:
        await trio.sleep(1)
        assert await code(harness, kit.token("ES256")) == 0
        assert await code(harness, kit.token("HS256")) == 0x86


async def test_a_slow_server_is_waited_for_by_nobody(kit: Kit) -> None:
    server = Server(**{URL: kit.key_set("ES256")})
    server.delay = 9
    async with open_harness(plugins=[plugin_for(server)]) as harness:
        await trio.sleep(5)
        assert await code(harness, kit.token("ES256")) == 0x88
        await trio.sleep(5)
        assert await code(harness, kit.token("ES256")) == 0


async def test_keys_that_rotate(kit: Kit) -> None:
    server = Server(**{URL: kit.key_set("ES256", kid="old")})
    async with open_harness(plugins=[plugin_for(server, refresh=3600, refetch=30)]) as harness:
        await trio.sleep(100)
        old, new = kit.token("ES256", {"kid": "old"}), kit.token("RS256", {"kid": "new"})
        server.answers[URL] = kit.key_set("RS256", kid="new")
        assert await code(harness, old) == 0
        assert await code(harness, new) == 0x86  # the set is fetched again for it
        await trio.sleep(1)
        assert await code(harness, new) == 0
        assert await code(harness, old) == 0x86
        assert len(server.asked) == 2
        # The next one so soon has to wait for `refetch`.
        server.answers[URL] = kit.key_set("ES256", kid="newer")
        newer = kit.token("ES256", {"kid": "newer"})
        assert await code(harness, newer) == 0x86
        await trio.sleep(20)
        assert len(server.asked) == 2
        await trio.sleep(15)
        assert await code(harness, newer) == 0


async def test_a_flood_of_unknown_keys_is_one_fetch_now_and_then(kit: Kit) -> None:
    server = Server(**{URL: kit.key_set("ES256", kid="k")})
    server.delay = 1
    async with open_harness(plugins=[plugin_for(server, refetch=30)]) as harness:
        await trio.sleep(50)
        for second in range(90):
            for number in range(3):
                token = kit.token("ES256", {"kid": f"{second}-{number}"})
                assert await code(harness, token) == 0x86
            await trio.sleep(1)
        assert len(server.asked) <= 5
        assert server.most == 1
        # One and the same unknown key is not looked for again at all.
        await trio.sleep(200)
        before = len(server.asked)
        for _ in range(10):
            await code(harness, kit.token("ES256", {"kid": "same"}))
            await trio.sleep(10)
        assert len(server.asked) == before + 1


def test_names_of_unknown_keys_are_bounded(kit: Kit) -> None:
    async def main() -> None:
        server = Server(**{URL: kit.key_set("ES256", kid="k")})
        plugin = plugin_for(server)
        remote = RemoteKeys(plugin.settings, plugin.log, server.fetch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remote.run)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(MOST_UNKNOWN + 10):
                assert remote.find("ES256", str(number)) == []
            assert len(remote._unknown) == MOST_UNKNOWN
            nursery.cancel_scope.cancel()

    trio.run(main)


async def test_an_issuer_says_where_its_keys_are(kit: Kit) -> None:
    where = f"{ISSUER}/.well-known/openid-configuration"
    document = {"issuer": ISSUER, "jwks_uri": URL}
    server = Server(**{where: json.dumps(document).encode(), URL: kit.key_set("ES256")})
    plugin = plugin_for(server, jwks_url=None, oidc=ISSUER)
    async with open_harness(plugins=[plugin]) as harness:
        await trio.sleep(1)
        assert [url for _, url in server.asked] == [where, URL]
        assert await code(harness, kit.token("ES256", iss=ISSUER)) == 0
        assert await code(harness, kit.token("ES256")) == 0x86  # iss must be the issuer


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": URL},
        {"issuer": f"{ISSUER}/", "jwks_uri": URL},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": "http://id.example/keys"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER, "jwks_uri": 1},
        [],
    ],
)
async def test_discovery_documents_that_are_not_believed(document: Any, kit: Kit) -> None:
    where = f"{ISSUER}/.well-known/openid-configuration"
    server = Server(**{where: json.dumps(document).encode(), URL: kit.key_set("ES256")})
    plugin = plugin_for(server, jwks_url=None, oidc=ISSUER)
    async with open_harness(plugins=[plugin]) as harness:
        await trio.sleep(1)
        assert [url for _, url in server.asked] == [where]
        assert await code(harness, kit.token("ES256", iss=ISSUER)) == 0x88


# -- fetching itself, from a real server

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server of HTTP on this machine; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                pass  # the client has had enough

        def log_request(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/keys?x=1"
        finally:
            server.shutdown()
            thread.join()


def plain(status: int, body: bytes, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b"x")
        time.sleep(0.05)


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(bytes(65_536))


def test_fetch() -> None:
    with serving(plain(200, b"hello")) as url:
        assert fetch(url, 10) == b"hello"


#: Answers -> seconds that it may take, and what is said.
FETCHES: dict[str, tuple[Answer, float, str]] = {
    "missing": (plain(404, b""), 10, "status 404"),
    "elsewhere": (plain(302, b"", Location="http://127.0.0.1:1/"), 10, "status 302"),
    "broken off": (plain(200, b"x", **{"Content-Length": "9"}), 10, "breaks off|IncompleteRead"),
    "dripping": (drip, 0.3, "too long|timed out"),
    "silent": (lambda request: time.sleep(1), 0.2, "timed out"),
    "endless": (endless, 10, "larger than"),
}


@pytest.mark.parametrize("case", FETCHES)
def test_fetches_that_fail(case: str) -> None:
    answer, timeout, said = FETCHES[case]
    with serving(answer) as url:
        began = time.monotonic()
        with pytest.raises(FetchError, match=said) as caught:
            fetch(url, timeout)
        assert time.monotonic() - began < timeout + 5
    assert "127.0.0.1" in str(caught.value)


def test_nobody_there() -> None:
    with pytest.raises(FetchError, match="refused"):
        fetch("http://127.0.0.1:1/keys", 10)


@pytest.mark.trio(run=trio.run)
async def test_the_whole_way_from_a_real_server(kit: Kit) -> None:
    with serving(plain(200, kit.key_set("ES256", kid="k"))) as url:
        settings = JwtSettings(algorithms=("ES256",), jwks_url=url, allow_http=True)
        async with open_harness(plugins=[Jwt(settings, name="jwt")]) as harness:
            token = kit.token("ES256", {"kid": "k"})
            with trio.fail_after(30):
                while await _code(harness, token) == 0x88:  # noqa: ASYNC110 - it can't tell us
                    await trio.sleep(0.01)
            assert await _code(harness, token) == 0


async def _code(harness: Any, token: bytes) -> int:
    client = harness.new_client("c")
    connack = await client.try_connect(password=token)
    if connack.reason_code == 0:
        await client.disconnect()
    return int(connack.reason_code)
