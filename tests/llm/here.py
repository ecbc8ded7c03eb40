"""What stands for Ray Serve: a model in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel

from squadron.serve.chat import ChatServer
from squadron.serve.service import Context, Event


class Here:
    """Answers by a chat server of this process."""

    def __init__(self, server: ChatServer) -> None:
        self.server = server

    async def ask(self, service: str, method: str, request: BaseModel, client: str) -> Any:
        return await getattr(self.server, method)(request)

    def stream(self, service: str, method: str, request: BaseModel, context: Context) -> AsyncIterator[list[Event]]:
        parts: AsyncIterator[list[Event]] = getattr(self.server, method)(request, context)
        return parts

    async def ready(self) -> list[str]:
        return []
