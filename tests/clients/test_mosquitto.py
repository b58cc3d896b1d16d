"""mosquitto_pub, mosquitto_sub and mosquitto_rr: the command line tools that everybody has."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import pytest

from tests.clients.paho_peer import V4, V5, paho
from tests.clients.serving import MIB, PATIENCE, Running, topic
from tests.conformance.peer import unique

MISSING = [
    tool
    for tool in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr", "stdbuf")
    if shutil.which(tool) is None
]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"missing: {', '.join(MISSING)} (Debian: mosquitto-clients, coreutils)"
)

#: What is before each message in the output of `Subscriber`, and how one looks.
MARK = "=> "
FORMAT = f"{MARK}%t|%q|%r|%p"


@pytest.fixture(params=["mqttv31", "mqttv311", "mqttv5"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def command(broker: Running, tool: str, *arguments: object) -> list[str]:
    """The command line of a tool, with what all of them need."""
    return [tool, "-h", broker.host, "-p", str(broker.port), *map(str, arguments)]


def pub(broker: Running, *arguments: object, data: bytes | None = None) -> None:
    """Run mosquitto_pub, with `data` as its standard input; it must succeed."""
    done = subprocess.run(
        command(broker, "mosquitto_pub", *arguments),
        input=b"" if data is None else data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


class Subscriber:
    """A running mosquitto_sub that has subscribed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Subscribed"):
                return
        raise AssertionError("mosquitto_sub ended before it had subscribed")

    def receive(self) -> list[str]:
        """The next message: topic, QoS, retain flag, payload."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return line[len(MARK) : -1].split("|", 3)
        raise AssertionError("mosquitto_sub ended")

    def rest(self) -> list[list[str]]:
        """Its messages until it ends by itself, after as many as its -C says."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()
        assert self.process.wait(PATIENCE) == 0
        return [line[len(MARK) :].split("|", 3) for line in lines if line.startswith(MARK)]

    def payloads_until(self, last: str) -> list[str]:
        """The payloads before the one that is `last`."""
        payloads = []
        while (payload := self.receive()[3]) != last:
            payloads.append(payload)
        return payloads

    def payloads(self) -> list[str]:
        return [message[3] for message in self.rest()]


@contextmanager
def subscribed(broker: Running, *arguments: object) -> Iterator[Subscriber]:
    """Run mosquitto_sub for the length of a block; it gives up by itself after PATIENCE."""
    wanted = ("-d", "-F", FORMAT, "-W", int(PATIENCE), *arguments)
    process = subprocess.Popen(
        ["stdbuf", "-oL", *command(broker, "mosquitto_sub", *wanted)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Subscriber(process)
        finally:
            process.kill()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_round_trip(broker: Running, version: str, qos: int) -> None:
    name = topic("room", "1")
    topic_filter = name.replace("room/", "+/")
    with subscribed(broker, "-V", version, "-t", topic_filter, "-q", qos, "-C", 1) as subscriber:
        pub(broker, "-V", version, "-t", name, "-q", qos, "-m", "21.5")
        assert subscriber.rest() == [[name, str(qos), "0", "21.5"]]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_many_messages_keep_their_order(broker: Running, version: str, qos: int) -> None:
    name = topic()
    wanted = [str(number) for number in range(500)]
    with subscribed(broker, "-V", version, "-t", name, "-q", qos, "-C", 500) as subscriber:
        lines = "".join(f"{number}\n" for number in wanted)
        pub(broker, "-V", version, "-t", name, "-q", qos, "-l", data=lines.encode())
        assert subscriber.payloads() == wanted


def test_retained(broker: Running, version: str) -> None:
    name = topic("state")
    pub(broker, "-V", version, "-t", name, "-q", 1, "-r", "-m", "on")
    with subscribed(broker, "-V", version, "-t", name, "-C", 1) as subscriber:
        assert subscriber.rest() == [[name, "0", "1", "on"]]
    pub(broker, "-V", version, "-t", name, "-q", 1, "-r", "-n")
    with subscribed(broker, "-V", version, "-t", name, "-C", 1) as subscriber:
        pub(broker, "-V", version, "-t", name, "-m", "marker")
        assert subscriber.rest() == [[name, "0", "0", "marker"]]


def test_will(broker: Running, version: str) -> None:
    name = topic("will")
    will = ("--will-topic", name, "--will-payload", "gone", "--will-qos", 1)
    with subscribed(broker, "-V", version, "-t", name, "-q", 1, "-C", 1) as watcher:
        with subscribed(broker, "-V", version, "-t", f"{name}/x", *will) as victim:
            victim.process.kill()
            assert watcher.rest() == [[name, "1", "0", "gone"]]


def test_resume_with_queued_messages(broker: Running, version: str) -> None:
    name, client_id = topic(), unique()
    who = ("-V", version, "-i", client_id)
    session = (*who, "-c", "-t", name, "-q", 1)
    subprocess.run(command(broker, "mosquitto_sub", *session, "-E"), check=True, timeout=PATIENCE)
    wanted = [str(number) for number in range(20)]
    for payload in wanted:
        pub(broker, "-V", version, "-t", name, "-q", 1, "-m", payload)
    done = subprocess.run(
        command(broker, "mosquitto_sub", *session, "-C", len(wanted)),
        check=True,
        timeout=PATIENCE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.split() == wanted
    subprocess.run(  # without -c: that ends the session
        command(broker, "mosquitto_sub", *who, "-t", name, "-E"), check=True, timeout=PATIENCE
    )


def test_shared_subscription(broker: Running, version: str) -> None:
    name, count = topic(), 60
    group = f"$share/workers/{name}"
    options = ("-V", version, "-q", 1, "-t", group, "-t", f"{name}/end")
    with (
        subscribed(broker, *options) as one,
        subscribed(broker, *options) as two,
        subscribed(broker, "-V", version, "-q", 1, "-t", name, "-C", count) as everything,
    ):
        lines = "".join(f"{number}\n" for number in range(count))
        pub(broker, "-V", version, "-t", name, "-q", 1, "-l", data=lines.encode())
        assert len(everything.payloads()) == count
        pub(broker, "-V", version, "-t", f"{name}/end", "-m", "end")
        shares = [member.payloads_until("end") for member in (one, two)]
    assert Counter(chain(*shares)) == Counter(map(str, range(count)))
    assert all(shares)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_mebibyte(broker: Running, version: str, qos: int) -> None:
    name = topic()
    payload = (b"0123456789abcde|" * (MIB // 16))[:MIB]
    with subscribed(broker, "-V", version, "-t", name, "-q", qos, "-C", 1) as subscriber:
        pub(broker, "-V", version, "-t", name, "-q", qos, "-s", data=payload)
        ((_, _, _, got),) = subscriber.rest()
        assert got == payload.decode()


def test_a_thousand_subscriptions(broker: Running, version: str) -> None:
    name = topic()
    topics = [f"{name}/{number}" for number in range(1000)]
    filters = chain.from_iterable(("-t", where) for where in topics)
    with subscribed(broker, "-V", version, "-C", len(topics), *filters) as subscriber:
        with paho(broker, V4) as publisher:
            for where in topics:
                publisher.send(where, b"x", 1)
            assert [message[0] for message in subscriber.rest()] == topics


@pytest.mark.parametrize("version_of_responder", [V4, V5])
def test_mosquitto_rr(broker: Running, version_of_responder: int) -> None:
    """mosquitto_rr asks, another client answers."""
    requests, responses = topic("requests"), topic("responses")
    with paho(broker, V5) as responder:
        responder.subscribe(requests, qos=1)
        asking = subprocess.Popen(
            command(
                broker,
                "mosquitto_rr",
                *("-V", "mqttv311" if version_of_responder == V4 else "mqttv5"),
                *("-t", requests, "-e", responses, "-q", 1, "-m", "2 + 3", "-W", int(PATIENCE)),
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        with asking:
            try:
                request = responder.receive()
                assert request.payload == b"2 + 3"
                if version_of_responder == V5:
                    assert request.properties.ResponseTopic == responses
                responder.publish(responses, b"5", 1)
                out, _ = asking.communicate(timeout=PATIENCE)
            finally:
                asking.kill()
    assert (asking.returncode, out) == (0, "5\n")


def test_properties(broker: Running) -> None:
    name = topic()
    show = "%t|%A|%C|%D|%F|%P|%R|%S|%p"
    arguments = ("-V", 5, "-t", name, "-q", 1, "-C", 1, "-D", "subscribe")
    with subscribed(
        broker, *arguments, "subscription-identifier", 42, "-F", f"{MARK}{show}"
    ) as subscriber:
        sent = {
            "content-type": ["text/plain"],
            "correlation-data": ["12"],
            "payload-format-indicator": ["1"],
            "response-topic": ["answers"],
            "user-property": ["name", "value"],
        }
        wanted = chain.from_iterable(("-D", "publish", k, *values) for k, values in sent.items())
        pub(broker, "-V", 5, "-t", name, "-q", 1, "-m", "hello", *wanted)
        ((where, rest),) = ((m[0], m[1:]) for m in subscriber.rest())
    assert where == name
    assert "|".join(rest) == "|text/plain|12|1|name:value|answers|42|hello"
