"""Two machines and a cable between them that a test can pull.

The machines are network namespaces of Linux (namespaces(7)). A third namespace is what lies
between them: it forwards packets, and with the cable pulled it drops them without a word. Nothing
else changes for either machine, no link goes down and no address is lost, as when something breaks
further away than the next switch.

Sockets belong to the namespace of the thread that makes them, wherever they are used later. So both
machines can be threads of the test itself:

    with network() as net:
        with net.far.inside():
            listener = Listener(app, net.far.address)
        with serving(listener), net.near.inside():
            execer = connect(listener.url)
        net.pull()

Processes that are started inside belong there too.

The namespaces have no names, and nothing in them can be seen from outside: several tests may have
their own at once, with the same addresses. They are held by descriptors alone, so the kernel takes
them away, with all that is in them, when the test ends, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from parts import all_parts, need

_CLONE_NEWNET = 0x40000000  # linux/sched.h

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Attributes:
        address: Its IPv4 address.
    """

    address: str
    _namespace: int

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and what it starts, be on the machine. Other threads stay."""
        with _inside(self._namespace):
            yield


@dataclass(frozen=True)
class Network:
    """Two machines that can reach each other until the cable is pulled."""

    near: Machine
    far: Machine
    _between: int

    def pull(self) -> None:
        """Pull the cable: from now on, what the machines send each other is lost."""
        self._forward(False)

    def plug(self) -> None:
        """Put the cable back."""
        self._forward(True)

    def _forward(self, on: bool) -> None:
        with _inside(self._between), open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1" if on else "0")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make two machines and the cable. Needs root; without, the test is skipped, or fails."""
    if os.geteuid() != 0 and not all_parts():
        pytest.skip("network namespaces need root")
    with contextlib.ExitStack() as stack:
        near, between, far = (stack.enter_context(_namespace()) for _ in range(3))
        net = Network(Machine("10.0.1.2", near), Machine("10.0.2.2", far), between)
        with _inside(between):
            for link, machine in (("to-near", net.near), ("to-far", net.far)):
                namespace = f"/proc/{os.getpid()}/fd/{machine._namespace}"
                _ip(f"link add {link} type veth peer name eth0 netns {namespace}")
                _ip(f"address add {_gateway(machine)}/24 dev {link}")
                _ip(f"link set {link} up")
        for machine in (net.near, net.far):
            with machine.inside():
                _ip("link set lo up")
                _ip(f"address add {machine.address}/24 dev eth0")
                _ip("link set eth0 up")
                _ip(f"route add default via {_gateway(machine)}")
        net.plug()
        yield net


def _gateway(machine: Machine) -> str:
    return machine.address.rpartition(".")[0] + ".1"


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    """Make a network namespace; a descriptor holds it."""
    made: list[int | OSError] = []

    def make() -> None:
        # In a thread of its own, which takes its membership with it when it ends.
        try:
            _call(_libc.unshare, _CLONE_NEWNET)
            made.append(_own())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (namespace,) = made
    if isinstance(namespace, OSError):
        raise RuntimeError(f"no network namespaces here: {namespace}") from namespace
    try:
        yield namespace
    finally:
        os.close(namespace)


@contextlib.contextmanager
def _inside(namespace: int) -> Iterator[None]:
    outside = _own()
    try:
        _call(_libc.setns, namespace, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call(_libc.setns, outside, _CLONE_NEWNET)
    finally:
        os.close(outside)


def _own() -> int:
    """Return a descriptor of this thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _call(function: ctypes._NamedFuncPointer, *args: int) -> None:
    if function(*args):
        error = ctypes.get_errno()
        raise OSError(error, f"{function.__name__}: {os.strerror(error)}")


def _ip(arguments: str) -> None:
    """Run ip(8) in this thread's namespace."""
    ran = subprocess.run(
        [need("ip"), *arguments.split()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"ip {arguments}: {ran.stdout}")
