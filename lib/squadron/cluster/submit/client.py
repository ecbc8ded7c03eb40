"""The dashboard of a cluster, as far as jobs need it: submit, look, stop. Ray's own client, with errors for people."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from squadron.cluster.local import find_cluster
from squadron.core.errors import ConfigError, InputError, ResourceError, suggest

logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
RUN, JOB = "squadron_run", "squadron_job"
"""What a submitted job says of itself on the dashboard."""
_CONNECT_S, _ANSWER_S, _HEARTBEAT_S = 10.0, 120.0, 15.0
_LONGEST_ERROR = 400
_NO_TOKEN = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=… with the file that holds the cluster's token"


def find_address(given: str | None) -> str:
    """The dashboard that was named, by a word or by RAY_API_SERVER_ADDRESS; else that of the cluster that
    `squadron cluster up` has started here. Raises ConfigError if there is none, or it is no URL."""
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS")
    if address is None and (cluster := find_cluster()) is not None:
        return cluster.dashboard
    fix = "give that of the cluster's dashboard, such as http://HEAD:8265, or start one by `squadron cluster up`"
    if address is None:
        raise ConfigError("no cluster is named, and none is up on this machine", where="--address", fix=fix)
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"no address of a dashboard: {address}", where="--address", fix=fix)
    return address.rstrip("/")


class Client(JobSubmissionClient):
    """Jobs of the cluster whose dashboard has this address.

    All methods raise ResourceError where the cluster does not answer or wants a token, and InputError for a job that it
    does not know.
    """

    def __init__(self, address: str) -> None:
        with _answering(address), _only(address):
            cluster = find_cluster()
            ours = cluster is not None and cluster.dashboard == address
            headers = {"Authorization": f"Bearer {cluster.token()}"} if cluster is not None and ours else None
            super().__init__(address, headers=headers)

    def submit(self, name: str, entrypoint: str, package: Path, metadata: Mapping[str, str], hook: str | None) -> None:
        """Send a package and begin a job of this name with it. `hook` is called in each of its workers."""
        # For what is asked to stop: an orderly end takes up to eight seconds.
        environment: dict[str, Any] = {"working_dir": str(package), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "20"}}
        if hook is not None:
            environment["worker_process_setup_hook"] = hook
        with _answering(self._address):
            self.submit_job(entrypoint=entrypoint, runtime_env=environment, metadata=dict(metadata), submission_id=name)

    def info(self, name: str) -> JobDetails:
        """What the cluster knows of a job."""
        with _answering(self._address):
            answer = self._do_request("GET", f"/api/jobs/{name}")
            if answer.status_code == 200:
                return JobDetails(**answer.json())
            if answer.status_code != 404:
                self._raise_error(answer)
            known = [str(job.submission_id) for job in self.list_jobs() if job.submission_id]
            raise InputError(f"the cluster knows no job {name!r}", where=self._address, fix=suggest(name, known))

    def running_in(self, run: str) -> str | None:
        """The job that has not ended and whose run folder this is."""
        with _answering(self._address):
            for job in self.list_jobs():
                if (job.metadata or {}).get(RUN) == run and not job.status.is_terminal():
                    return job.submission_id
            return None

    def stop(self, name: str) -> bool:
        """Ask a job to stop; whether it was running."""
        self.info(name)
        with _answering(self._address):
            return bool(self.stop_job(name))

    def log(self, name: str) -> str:
        """All that a job has printed."""
        with _answering(self._address):
            return str(self.get_job_logs(name))

    def is_here(self) -> tuple[bool, int]:
        """Whether all nodes of the cluster are this machine, and how many they are."""
        with _answering(self._address):
            answer = self._do_request("GET", "/nodes?view=summary")
            if answer.status_code != 200:
                self._raise_error(answer)
            nodes = [node for node in answer.json()["data"]["summary"] if node["raylet"].get("state") != "DEAD"]
            here = all(node.get("hostname") == socket.gethostname() for node in nodes)
            return bool(nodes) and here, len(nodes)

    async def tail(self, name: str) -> AsyncIterator[str]:
        """What a job prints, from its beginning, until it ends or the connection does. Raises OSError and
        aiohttp.ClientError; a connection that died is noticed by its missing heartbeat."""
        async with aiohttp.ClientSession(cookies=self._cookies, headers=self._headers) as session:
            url = f"{self._address}/api/jobs/{name}/logs/tail"
            async with session.ws_connect(url, heartbeat=_HEARTBEAT_S, ssl=self._ssl_context or True) as socket:
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        yield message.data

    def _do_request(self, method: str, endpoint: str, **named: Any) -> requests.Response:
        named.setdefault("timeout", (_CONNECT_S, _ANSWER_S))
        return super()._do_request(method, endpoint, **named)


@contextlib.contextmanager
def _only(address: str) -> Iterator[None]:
    """Ray's client heeds its variables more than the address that it is given."""
    name, before = "RAY_API_SERVER_ADDRESS", os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ[name] = address
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _answering(address: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError:
        raise ResourceError("the cluster refuses this client's token", where=address, fix=_NO_TOKEN) from None
    except (ConnectionError, requests.RequestException) as error:
        fix = "check the address, and that the cluster runs; from outside, a port may have to be forwarded"
        raise ResourceError(f"no dashboard answers: {_first(error)}", where=address, fix=fix) from None
    except RuntimeError as error:
        raise ResourceError(f"the cluster has refused: {_last(error)}", where=address) from None


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:_LONGEST_ERROR] or type(error).__name__


def _last(error: Exception) -> str:
    """What Ray's server says last is the error, above it is the way there."""
    return str(error).strip(" .\n").rpartition("\n")[2][:_LONGEST_ERROR]
