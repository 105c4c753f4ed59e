"""What a server counts, and how Prometheus is told: the one door to prometheus_client.

Counting needs no library, and is done by :class:`.Server`, once for each command and connection.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from ..errors import ConnectError, StartOSError, TransportClosed, WsepError
from ..lazy import importing

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector

__all__ = [
    "Histogram",
    "Metrics",
    "exposition",
    "failure_reason",
]

# Upper bounds in seconds, inclusive: from a command on this machine, which takes a few
# milliseconds, to one that is started through several servers.
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """How often something took how long. Not thread-safe.

    Attributes:
        sum: Seconds, of all together.
    """

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(_BOUNDS) + 1)  # the last: longer than any bound

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.sum += seconds
        self._counts[bisect_left(_BOUNDS, seconds)] += 1

    def buckets(self) -> list[tuple[str, int]]:
        """Return upper bounds in seconds, the last one ``+Inf``, and how many took no longer."""
        total = 0
        buckets = []
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return buckets


@dataclass
class Metrics:
    """What a server has done until one moment, as :meth:`.Server.metrics` says it.

    Attributes:
        connections: How many WebSockets are open.
        sessions: How many terminal sessions there are.
        accepted: How many WebSockets there have been.
        started: How many commands have been started.
        failed: How many could not be, by :func:`failure_reason`.
        received: Bytes of input that clients have sent.
        sent: Bytes of output that clients were sent.
        start: How long it took to start a command.
        attach: How long it took to attach to a session that was there.
    """

    connections: int = 0
    sessions: int = 0
    accepted: int = 0
    started: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    received: int = 0
    sent: int = 0
    start: Histogram = field(default_factory=Histogram)
    attach: Histogram = field(default_factory=Histogram)


def failure_reason(error: Exception) -> str:
    """Return in a word why a command could not be started.

    The words are few, whatever clients ask for, as a label's have to be: the name of an errno, such
    as ``ENOENT``; ``connection``, to a server further on; ``refused``, by a rule or a limit of the
    server's; ``internal`` for what should not happen.
    """
    if isinstance(error, StartOSError):
        return errno.errorcode.get(error.errno or 0, "refused")
    if isinstance(error, (ConnectError, TransportClosed)):
        return "connection"
    return "refused" if isinstance(error, WsepError) else "internal"


def exposition(metrics: Metrics) -> tuple[str, bytes]:
    """Return the media type and the text of Prometheus's text format.

    Raises:
        ImportError: prometheus_client, the extra ``metrics``, is not there.
    """
    with importing:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    # Not the library's own registry, which is the program's that embeds the server.
    registry = CollectorRegistry()
    registry.register(cast("Collector", _Snapshot(metrics)))
    return CONTENT_TYPE_LATEST, generate_latest(registry)


class _Snapshot:
    """What the registry calls for numbers.

    No subclass of the library's Collector: that would have to be made in each call, as the library
    is imported there, and classes are dropped by the garbage collector alone.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return _families(self._metrics)


def _families(metrics: Metrics) -> Iterator[Metric]:
    with importing:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

    yield GaugeMetricFamily("wsep_open_connections", "WebSockets.", metrics.connections)
    yield GaugeMetricFamily("wsep_sessions", "Terminal sessions.", metrics.sessions)
    yield CounterMetricFamily("wsep_connections", "WebSockets so far.", metrics.accepted)
    yield CounterMetricFamily("wsep_commands_started", "Commands started.", metrics.started)
    failed = CounterMetricFamily(
        "wsep_commands_failed", "Commands that could not be started.", labels=["reason"]
    )
    for reason, count in sorted(metrics.failed.items()):
        failed.add_metric([reason], count)
    yield failed
    moved = CounterMetricFamily(
        "wsep_bytes", "Bytes of commands' input and output.", labels=["direction"]
    )
    moved.add_metric(["in"], metrics.received)
    moved.add_metric(["out"], metrics.sent)
    yield moved
    for name, text, histogram in (
        ("wsep_start_seconds", "Time to start a command.", metrics.start),
        ("wsep_attach_seconds", "Time to attach to a session.", metrics.attach),
    ):
        yield HistogramMetricFamily(
            name, text, buckets=histogram.buckets(), sum_value=histogram.sum
        )
