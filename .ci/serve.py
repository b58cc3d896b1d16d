"""Run a shell line that ends in a running broker, check that it answers, interrupt it.

`serve.py LINE [PORT]`: exit code 0 if the broker sent a CONNACK and ended well on SIGINT.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

CONNECT = bytes.fromhex("100c00044d5154540402003c0000")  # 3.1.1, clean session, keep alive 60
CONNACK = bytes.fromhex("20020000")
DISCONNECT = bytes.fromhex("e000")
START_SECONDS = 240  # the line may install first
STOP_SECONDS = 15


def answers(port: int) -> bool:
    """Whether something on the port lets a client in."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(CONNECT)
            answer = client.recv(4)
            client.sendall(DISCONNECT)
            return answer == CONNACK
    except OSError:
        return False


def broker_of(shell: int) -> int:
    """The process that the shell waits for, or the shell itself if it has become the broker."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[1]) == shell:
            return int(stat.parent.name)
    return shell


def main() -> int:
    """See the module."""
    line, port = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1883
    if answers(port):
        print(f"something else answers on port {port}: stop it first")
        return 1
    print(f"$ {line}", flush=True)
    shell = subprocess.Popen(["bash", "-c", line], start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    try:
        while not answers(port):
            if shell.poll() is not None:
                print(f"the line ended with {shell.returncode}")
                return 1
            if time.monotonic() > deadline:
                print(f"nothing answered on port {port} within {START_SECONDS} s")
                return 1
            time.sleep(0.2)
        print("the broker answers; interrupting it", flush=True)
        os.kill(broker_of(shell.pid), signal.SIGINT)
        code = shell.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"the broker did not end within {STOP_SECONDS} s")
        return 1
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    print(f"it ended with exit code {code}")
    return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
