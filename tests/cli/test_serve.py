"""`mqtrio serve` as a process: it starts, serves, stops, and says what keeps it from starting."""

import json
import signal
import socket
from pathlib import Path

import pytest
import trio

from tests.cli.serving import CONNACK, CONNECT, connect, run, serve
from tests.installing import Site

ANY_PORT = "mqtt://127.0.0.1:0"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_a_signal_and_exits_with_0(number: signal.Signals) -> None:
    async with serve("--listen", ANY_PORT) as server:
        stream = await connect(await server.address())
        server.process.send_signal(number)
        async with stream:
            assert await stream.receive_some() == b""  # MQTT 3 knows no goodbye but the end
        assert await server.end() == 0
        assert f"{number.name}: stopping" in server.log
        assert "Traceback" not in server.log


async def test_connects_and_disconnects_are_logged() -> None:
    async with serve("--listen", ANY_PORT) as server:
        async with await connect(await server.address()):
            await server.wait_for(r"info mqtrio\.connections connected .*127\.0\.0\.1")
        await server.wait_for(r"info mqtrio\.connections disconnected .*")


async def test_it_listens_on_each_address_that_is_named() -> None:
    async with serve("--listen", ANY_PORT, "--listen", ANY_PORT) as server:
        await server.wait_for(r"(?s)listening on .*listening on ")
        ports = {line.rpartition(":")[2] for line in server.log.splitlines() if "listening" in line}
        assert len(ports) == 2
        for port in ports:
            await (await connect(("127.0.0.1", int(port)))).aclose()


async def test_it_does_as_its_configuration_says(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    path.write_text(f'[[listener]]\nurl = "{ANY_PORT}"\n[log]\nformat = "json"\n')
    async with serve(path) as server:
        found = await server.wait_for(r".*listening on [^\n]*")
        entry = json.loads(found[0])
        assert entry["level"] == "info"
        port = int(entry["message"].rpartition(":")[2])
        await (await connect(("127.0.0.1", port))).aclose()
        server.process.terminate()
        assert await server.end() == 0
        assert all(json.loads(line)["time"] for line in server.log.splitlines())


async def test_any_address_may_be_served_to_anybody_where_that_is_said() -> None:
    async with serve("--listen", "mqtt://0.0.0.0:0", "--allow-anonymous") as server:
        _, port = await server.address()
        await (await connect(("127.0.0.1", port))).aclose()


def test_any_address_is_not_served_to_anybody_by_default() -> None:
    ended = run("serve", "--listen", "mqtt://0.0.0.0:0")
    assert ended.returncode == 2
    assert "mqtt://0.0.0.0:0" in ended.stderr
    assert "allow_anonymous" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_two_processes_share_a_port(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"

    def configure(port: int) -> None:
        path.write_text(f'[[listener]]\nurl = "mqtt://127.0.0.1:{port}"\nreuse_port = true\n')

    configure(0)
    async with serve(path) as one:
        address = await one.address()
        configure(address[1])
        async with serve(path) as other:
            await other.address()
            # The system chooses by the client's port: to miss one of them takes bad luck indeed.
            for _ in range(64):
                await (await connect(address)).aclose()
            for server in (one, other):
                await server.wait_for(r"mqtrio\.connections connected")


async def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "mqtrio.sock"
    async with serve("--listen", f"unix://{path}") as server:
        await server.wait_for(f"listening on unix://{path}")
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(CONNECT)
            assert await stream.receive_some() == CONNACK
        server.process.terminate()
        assert await server.end() == 0
        assert "Traceback" not in server.log
    assert not path.exists()


async def test_a_unix_socket_that_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "mqtrio.sock"
    async with serve("--listen", f"unix://{path}") as server:
        await server.wait_for(f"listening on unix://{path}")
        server.process.kill()
    async with serve("--listen", f"unix://{path}") as server:
        await server.wait_for(f"listening on unix://{path}")
        ended = await trio.to_thread.run_sync(run, "serve", "--listen", f"unix://{path}")
        assert ended.returncode == 2
        assert "another process listens there" in ended.stderr
        await (await trio.open_unix_socket(path)).aclose()


def test_an_address_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", "--listen", f"mqtt://127.0.0.1:{port}")
    assert ended.returncode == 2
    assert f"mqtt://127.0.0.1:{port}" in ended.stderr
    assert "in use" in ended.stderr
    assert "Errno" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_configuration_is_told_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    path.write_text('[limits]\nreceive_maximum = "10"\n[session]\nowner = "nobody"\nonwer = 1\n')
    ended = run("serve", path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.replace(f"{tmp_path}/", "").splitlines() == [
        "mqtrio: 3 errors in the configuration:",
        '  broker.toml:2: limits.receive_maximum: "10" is a string; '
        "allowed: a whole number, from 1 to 65535",
        '  broker.toml:4: session.owner: "nobody" is none of them; allowed: "user" or "any"',
        "  broker.toml:5: session.onwer: unknown; did you mean owner?",
    ]


def test_a_configuration_that_is_not_there() -> None:
    ended = run("serve", "absent.toml")
    assert ended.returncode == 2
    assert ended.stderr == "mqtrio: absent.toml: can't be read: No such file or directory\n"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="only on Windows: there is no SIGHUP")
async def test_sighup_reads_the_configuration_again(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    listener = '[[listener]]\nurl = "mqtt://127.0.0.1:0"\n'
    path.write_text(f"{listener}[plugin.anonymous]\n")
    async with serve(path) as server:
        stream = await connect(await server.address())

        # An invalid file changes nothing and says why.
        path.write_text(f'{listener}[limits]\nsessions = "many"\n')
        server.process.send_signal(signal.SIGHUP)
        await server.wait_for(r"not reloaded, .*broker\.toml:4: limits\.sessions: ")

        # A right one is in force, for the log too, and who is connected stays.
        path.write_text(
            f'{listener}[[listener]]\nurl = "mqtt://127.0.0.1:0/"\n[plugin.anonymous]\n'
            '[plugin.log_messages]\n[log]\nformat = "json"\n'
        )
        server.process.send_signal(signal.SIGHUP)
        found = await server.wait_for(r'"message": "listening on mqtt://127\.0\.0\.1:(\d+)"')
        await (await connect(("127.0.0.1", int(found[1])))).aclose()
        await stream.send_all(bytes.fromhex("c0 00"))
        assert await stream.receive_some() == bytes.fromhex("d0 00")
        await stream.aclose()
        server.process.terminate()
        assert await server.end() == 0


CRASHING = """
import mqtrio

class Crashing(mqtrio.Plugin[None]):
    api = 1

    @mqtrio.hookimpl
    async def run(self, event):
        raise LookupError("no such host")
"""


@pytest.mark.parametrize("required", [True, False])
async def test_a_required_plugin_that_fails_for_good_is_an_exit_code(
    required: bool, tmp_path: Path, site: Site
) -> None:
    site.install("crashing", {"crashing": "Crashing"}, CRASHING)
    path = tmp_path / "broker.toml"
    path.write_text(
        f'[[listener]]\nurl = "{ANY_PORT}"\n[limits]\nplugin_restarts = 0\n'
        f"[plugin.crashing]\nrequired = {str(required).lower()}\n"
    )
    async with serve(path) as server:
        if required:
            assert await server.end() == 1
            assert "the plugin is required: the broker stops" in server.log
            return
        await server.wait_for("the broker goes on without it")
        await (await connect(await server.address())).aclose()
        server.process.terminate()
        assert await server.end() == 0
