"""What answers behind the gateway: replicas on Ray Serve, and the gateway's way to them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from squadron.core.errors import SquadronError
from squadron.core.host import use_threads
from squadron.core.masking import mask_logs, mask_text
from squadron.core.work import CalledOff, Turns, Work, doing, in_thread
from squadron.serve.admission import Busy
from squadron.serve.service import Context, Event

_ATTEMPTS = 3


class Replicas:
    """Brings requests to replicas. One that dies meanwhile is replaced, and another is asked: answering changes
    nothing, so that asking again is safe. Whoever stops waiting ends the work of the replica."""

    def __init__(self, handles: dict[str, Any]) -> None:
        self._handles = handles

    async def ask(self, service: str, method: str, request: BaseModel, client: str) -> BaseModel:
        """What a replica answers. Raises Busy, and SquadronError for a request that cannot be answered."""
        from ray.exceptions import RayActorError

        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(RayActorError):
                return await self._ask_once(service, method, request, client)
        return await self._ask_once(service, method, request, client)

    async def _ask_once(self, service: str, method: str, request: BaseModel, client: str) -> BaseModel:
        from ray.serve.exceptions import BackPressureError

        response = self._handles[service].answer.remote(method, request, client)
        try:
            answer: BaseModel | SquadronError = await response
        except BackPressureError:
            raise Busy from None
        except asyncio.CancelledError:
            response.cancel()
            raise
        if isinstance(answer, SquadronError):
            raise answer
        return answer

    async def stream(
        self, service: str, method: str, request: BaseModel, context: Context
    ) -> AsyncIterator[list[Event]]:
        """An answer in parts. A replica that takes the place of one that died gives the same answer, by its seed, and
        leaves out what has been sent."""
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError

        sent = 0
        handle = self._handles[service].options(stream=True)
        for left in reversed(range(_ATTEMPTS)):
            response = handle.stream.remote(method, request, replace(context, skip=sent))
            try:
                async for events in response:
                    if isinstance(events, SquadronError):
                        raise events
                    yield events
                    sent += sum(event.characters for event in events)
                return
            except BackPressureError:
                raise Busy from None
            except RayActorError:
                if not left:
                    raise
            except (asyncio.CancelledError, GeneratorExit):
                response.cancel()
                raise

    async def ready(self) -> list[str]:
        """Services without a running replica, by what Ray Serve's own checks of them have found: none is asked."""
        from ray import serve

        status = await asyncio.to_thread(serve.status)
        return [name for name, handle in self._handles.items() if not _runs(status, handle)]


def _runs(status: Any, handle: Any) -> bool:
    application = status.applications.get(handle.app_name)
    deployment = application and application.deployments.get(handle.deployment_name)
    return bool(deployment and (deployment.replica_states.get("RUNNING") or deployment.status == "HEALTHY"))


class Replica:
    """Holds what a service has loaded. Work that nobody waits for any more, or that has taken `timeout_s`, ends at its
    next step (`core/work.py`)."""

    def __init__(self, build: Callable[[], Any], cpus: float, timeout_s: float) -> None:
        mask_logs()
        use_threads(max(1, int(cpus)))
        self._loaded, self._timeout_s, self._turns = build(), timeout_s, Turns()

    async def answer(self, method: str, request: BaseModel, client: str) -> BaseModel | SquadronError:
        """The answer, or what was wrong with the request. Raises TimeoutError."""
        call = getattr(self._loaded, method)
        try:
            async with asyncio.timeout(self._timeout_s):
                with doing(Work(client, self._timeout_s, self._turns)):
                    if inspect.iscoroutinefunction(call):
                        answer: BaseModel = await call(request)
                    else:
                        answer = await in_thread(call, request)
        except SquadronError as error:
            return error
        except TimeoutError:
            raise
        except Exception:
            raise _masked() from None
        return answer

    async def stream(self, method: str, request: BaseModel, context: Context) -> AsyncIterator[Any]:
        """The answer in parts, or what was wrong with the request. Raises TimeoutError."""
        work = Work(context.client, self._timeout_s, self._turns)
        try:
            with doing(work):
                async with contextlib.aclosing(getattr(self._loaded, method)(request, context)) as parts:
                    async for events in parts:
                        yield events
                        work.check()
        except CalledOff:
            raise TimeoutError from None
        except SquadronError as error:
            yield error
        except TimeoutError:
            raise
        except Exception:
            raise _masked() from None


def _masked() -> RuntimeError:
    """A mistake of ours as it is told to the gateway and to Ray, which write it down in processes of their own."""
    return RuntimeError(mask_text(traceback.format_exc()))
