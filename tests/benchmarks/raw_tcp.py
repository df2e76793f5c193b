"""One side of a bare TCP transfer: what no program on this machine can be faster than.

`receive` prints its port, takes one connection, answers a byte at its end and prints its own CPU
time; `send` connects, writes from a resident buffer of 1 MiB, awaits that byte and prints the
seconds from the first byte to the answer and its CPU time.
"""

from __future__ import annotations

import resource
import socket
import sys
import time

WRITE = 1 << 20


def receive() -> None:
    buffer = bytearray(WRITE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
    before = cpu()
    with connection:
        while connection.recv_into(buffer):
            pass
        connection.sendall(b".")
    print(cpu() - before, flush=True)


def send(port: str, size: str) -> None:
    buffer = bytes(WRITE)
    left = int(size)
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        before, began = cpu(), time.perf_counter()
        while left:
            count = min(left, WRITE)
            connection.sendall(buffer if count == WRITE else buffer[:count])
            left -= count
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != b".":
            raise SystemExit("the receiver went away")
        seconds = time.perf_counter() - began
    print(seconds, cpu() - before, flush=True)


def cpu() -> float:
    """Seconds of user and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:])
