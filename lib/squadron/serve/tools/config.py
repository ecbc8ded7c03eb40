"""Which servers' tools are searched, and how: the `mcpServers` of agents' own configurations, and a few settings.

    mcpServers:
      files: {command: npx, args: [-y, "@modelcontextprotocol/server-filesystem", /data]}
      tickets: {url: "https://tickets.example/mcp", headers: {Authorization: "Bearer ${TICKETS_TOKEN}"}}

Secrets stand in the environment alone, and here by their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator, model_validator

from squadron.core.config import Config
from squadron.core.errors import ConfigError
from squadron.core.masking import mask_text, names_secret, remember_secret
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.retrieval.index import Mode

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAMED = re.compile(r"(?:\w+ )?\$\{\w+\}")
"""A secret by its name, behind the word for its scheme, such as Bearer."""


class ToolServer(Config):
    """A server that is started by a command, or reached at an address (streamable HTTP)."""

    type: Literal["stdio", "http", "streamable-http"] | None = Field(None, description="None: by what is given")
    command: str | None = Field(None, min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field({}, description="beside PATH and HOME; ${NAME} is a variable of this environment")
    cwd: str | None = None
    url: str | None = Field(None, pattern="^https?://")
    headers: dict[str, str] = Field({}, description="of every request; ${NAME} is a variable of this environment")
    disabled: bool = False

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> ToolServer:
        if (self.command is None) == (self.url is None):
            raise ValueError("a server has a command or a url")
        unfit = ("headers",) if self.url is None else ("args", "env", "cwd")
        if given := [name for name in unfit if getattr(self, name)]:
            raise ValueError(f"a server with a {'url' if self.url else 'command'} has no {given[0]}")
        if self.type is not None and (self.type == "stdio") != (self.url is None):
            raise ValueError(f"type {self.type} does not fit a server with a {'url' if self.url else 'command'}")
        return self

    @field_validator("env", "headers")
    @classmethod
    def _names_its_secrets(cls, values: dict[str, str]) -> dict[str, str]:
        for name, value in values.items():
            if names_secret(name, value) and not _NAMED.fullmatch(value):
                raise ValueError(f"{name} is a secret: write ${{NAME}}, and set that variable of the environment")
        return values

    @field_validator("args", "url")
    @classmethod
    def _holds_no_secret(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        words = [value] if isinstance(value, str) else value or ()
        pairs = [f"{first}={second}" for first, second in pairwise(words) if first.startswith("--")]
        if any(mask_text(text) != text for text in (*words, *pairs)):
            raise ValueError("there is a secret in it, which others could read: give it by env or headers")
        return value


class ToolsConfig(Config):
    """A search over the tools of these servers."""

    mcpServers: dict[str, ToolServer] = Field(min_length=1, description="servers by the names that agents see")
    mode: Mode = Field("hybrid", description="bm25: by words, dense: by meaning, hybrid: by both")
    embedder: AnyEmbedder = PackagedEmbedder()
    calls: bool = Field(
        True, description="offer call_tool, which forwards; agents then ask their user about it as one tool"
    )
    start_timeout_s: float = Field(30.0, gt=0, description="that servers have to start and to list their tools")
    call_timeout_s: float = Field(120.0, gt=0, description="that a tool has to answer")
    refresh_s: float = Field(300.0, gt=0, description="after which tools are listed again, said to have changed or not")
    port: int | None = Field(None, ge=1, le=65535, description="of this machine alone; None: standard input and output")

    @property
    def servers(self) -> dict[str, ToolServer]:
        """Those that are not disabled."""
        return {name: server for name, server in self.mcpServers.items() if not server.disabled}


def filled_in(values: Mapping[str, str], where: str) -> dict[str, str]:
    """The values with each `${NAME}` replaced by that variable of the environment, which texts of this process show no
    more. Raises ConfigError naming one that is not set."""

    def value(found: re.Match[str]) -> str:
        text = os.environ.get(found[1], "")
        if not text:
            what = f"the environment variable {found[1]} is not set"
            raise ConfigError(what, where=where, fix=f"export {found[1]}=… before starting")
        remember_secret(text)
        return text

    return {name: _VARIABLE.sub(value, text) for name, text in values.items()}
