"""What a server tells about itself: Prometheus metrics, and a line of JSON for every request."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_GONE = 499
"""What is noted where a client has gone before there was an answer, as nginx does."""
_log = logging.getLogger("squadron.serve.requests")


class Meter:
    """Counts requests to these paths, and to all others together. What was asked is not looked at."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = frozenset(paths)
        self.registry = CollectorRegistry()
        self._requests = Counter("squadron_requests", "Requests answered", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "squadron_request_seconds", "From request to the end of its answer", ["path"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._first = Histogram(
            "squadron_first_byte_seconds", "From request to the beginning of its answer", ["path"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter("squadron_tokens", "Tokens read and written", ["kind"], registry=self.registry)
        self._ongoing = Gauge("squadron_ongoing_requests", "Requests at work", registry=self.registry)

    def text(self) -> bytes:
        """All of it in Prometheus' own form."""
        return generate_latest(self.registry)

    def count_tokens(self, prompt: int, completion: int) -> None:
        """Tokens of one answer."""
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("completion").inc(completion)

    def summary(self) -> list[dict[str, Any]]:
        """Requests and mean seconds by path, for the server's page."""
        rows: dict[str, dict[str, Any]] = {}
        for metric in self.registry.collect():
            for sample in metric.samples:
                path = sample.labels.get("path")
                if path is None:
                    continue
                row = rows.setdefault(path, {"path": path, "requests": 0, "errors": 0, "seconds": 0.0})
                if sample.name == "squadron_requests_total":
                    row["requests"] += int(sample.value)
                    row["errors"] += int(sample.value) if int(sample.labels["status"]) >= 400 else 0
                elif sample.name == "squadron_request_seconds_sum":
                    row["seconds"] = sample.value
        return sorted(rows.values(), key=lambda row: row["path"])

    def begin(self) -> None:
        self._ongoing.inc()

    def end(self, scope: Any, status: int, first_s: float, seconds: float) -> None:
        """Count a request that has been answered."""
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._ongoing.dec()
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        self._first.labels(path).observe(first_s)
        line = {"path": path, "status": status, "seconds": round(seconds, 4), "key": scope.get("key", "")}
        _log.info(json.dumps(line | scope.get("told", {})))


class Metered:
    """The application, with every request counted."""

    def __init__(self, app: Any, meter: Meter) -> None:
        self._app, self._meter = app, meter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, first = time.perf_counter(), 0, 0.0
        scope["told"] = {}

        async def note(message: Any) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status, first = message["status"], time.perf_counter() - started
            await send(message)

        self._meter.begin()
        try:
            await self._app(scope, receive, note)
        except asyncio.CancelledError:
            status = status or _GONE
            raise
        except Exception:  # answered outside of here
            status = status or 500
            raise
        finally:
            self._meter.end(scope, status, first, time.perf_counter() - started)
