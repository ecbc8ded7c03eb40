"""A Model Context Protocol server over others: it lists their tools, follows their changes, and finds the few that an
agent needs.

An agent whose context holds hundreds of tools reads all of them at every turn. Behind this server it reads two:
`search_tools`, which gives the best ones with their schemas, and `call_tool`, which forwards a call to its server.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from squadron import __version__
from squadron.core import console
from squadron.core.errors import SquadronError
from squadron.core.masking import mask_text
from squadron.serve.tools.config import ToolsConfig, ToolServer, filled_in
from squadron.serve.tools.index import FoundTool, ToolIndex

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp import Client
    from mcp.server import MCPServer
    from mcp.types import CallToolResult, Tool

MOST = 50
"""Tools that one search gives at most."""
_PAGES = 1000
_AGAIN_S, _LATEST_S = 1.0, 60.0
"""After so long a server that is lost is tried again; each time twice as long."""


class SearchResult(BaseModel):
    """The tools that fit best, the best first, and servers whose tools are not there now, each with why."""

    tools: list[FoundTool]
    unavailable: dict[str, str]


def serve_tools(config: ToolsConfig) -> None:
    """Answer agents until they leave, or this process is ended. Raises ConfigError where a secret is not set."""
    for name, server in config.servers.items():
        _secrets(name, server)
    import anyio

    anyio.run(_serve, config)


async def _serve(config: ToolsConfig) -> None:
    with ToolIndex(config) as index:
        async with Gateway(config, index) as gateway:
            server = tools_server(gateway)
            if config.port is None:
                await server.run_stdio_async()
            else:  # the transport refuses requests for any other host name
                console.complain(f"Tools are found at http://127.0.0.1:{config.port}/mcp")
                await server.run_streamable_http_async(host="127.0.0.1", port=config.port)


def tools_server(gateway: Gateway) -> MCPServer[Any]:
    """What agents connect to, over a gateway that is open."""
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

    server: MCPServer[Any] = MCPServer("squadron-tools", version=__version__, log_level="WARNING")

    async def search_tools(query: str, k: int = 5) -> SearchResult:
        if not query.strip() or not 1 <= k <= MOST:
            raise ToolError(f"query must say what the tool is to do, and k be 1 to {MOST}")
        return await gateway.search(query, k)

    async def call_tool(server: str, name: str, arguments: dict[str, Any] | None = None) -> Any:
        try:
            return await gateway.call(server, name, arguments or {})
        except SquadronError as error:
            raise ToolError(str(error)) from None

    what = "Find tools by what they are to do, in a few words. Gives the best with server, name and input schema."
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    server.add_tool(search_tools, description=what, annotations=reads)
    if gateway.config.calls:
        what = "Call a tool that search_tools has found, by its server and name, with arguments by its input schema."
        writes = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=True)
        server.add_tool(call_tool, description=what, annotations=writes, structured_output=False)
    return server


class Gateway:
    """Connections to servers, and the index of their tools. `async with` opens them."""

    def __init__(self, config: ToolsConfig, index: ToolIndex) -> None:
        self.config, self.index = config, index
        self.unavailable: dict[str, str] = {}
        self._clients: dict[str, Client] = {}
        self._tools: dict[str, list[Tool]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Gateway:
        import anyio

        self._writing = anyio.Lock()
        self._settled = {name: anyio.Event() for name in self.config.servers}
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        for name, server in self.config.servers.items():
            group.start_soon(self._keep, name, server)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def search(self, query: str, k: int) -> SearchResult:
        """The best tools of the servers that are there. The first search waits until all are, or cannot be."""
        import anyio

        with anyio.move_on_after(self.config.start_timeout_s):
            for settled in self._settled.values():
                await settled.wait()
        starting = {name: "it is still starting" for name, event in self._settled.items() if not event.is_set()}
        found = await anyio.to_thread.run_sync(self.index.search, query, k)
        return SearchResult(tools=found, unavailable=starting | self.unavailable)

    async def call(self, server: str, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """What a tool of a server answers. Raises UnknownTool for one that is not listed, or a server that is not
        there."""
        from mcp import MCPError

        if not any(tool.name == name for tool in self._tools.get(server, ())):
            raise UnknownTool(f"{server} lists no tool {name}", fix="take server and name from search_tools")
        client = self._clients.get(server)
        if client is None:
            why = self.unavailable.get(server, "it is not connected")
            raise UnknownTool(f"{server} is not there now: {why}")
        try:
            return await client.call_tool(name, arguments, read_timeout_seconds=self.config.call_timeout_s)
        except MCPError as error:
            raise UnknownTool(mask_text(f"{server} did not answer: {error.message}")) from None

    async def _keep(self, name: str, server: ToolServer) -> None:
        """Stay connected to a server, and follow its tools."""
        import anyio

        wait_s = _AGAIN_S
        while True:
            try:
                async with _connect(name, server, self.config) as (client, changed):
                    self._clients[name] = client
                    await self._follow(name, client, changed)
            except Exception as error:  # of any kind: other people's programs
                if name in self._clients:
                    wait_s = _AGAIN_S
                self._clients.pop(name, None)
                why = mask_text(_reason(error))
                if why != self.unavailable.get(name):  # once, not at every attempt
                    console.complain(f"[yellow]{console.plain(name)}: {console.plain(why)}[/yellow]")
                self.unavailable[name] = why
                await self._take_in(name, [])
                self._settled[name].set()
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LATEST_S)

    async def _follow(self, name: str, client: Client, changed: Changed) -> None:
        """List the tools now, whenever the server says that they have changed, and now and then."""
        import anyio

        async with changed.announced_by(client):
            while True:
                with anyio.fail_after(self.config.start_timeout_s):
                    tools = await _list_tools(client)
                self.unavailable.pop(name, None)
                await self._take_in(name, tools)
                self._settled[name].set()
                await changed.wait(self.config.refresh_s)

    async def _take_in(self, name: str, tools: list[Tool]) -> None:
        import anyio

        async with self._writing:
            if tools != self._tools.get(name, []):
                self._tools[name] = tools
                await anyio.to_thread.run_sync(self.index.update, dict(self._tools))


class UnknownTool(SquadronError):
    """A call that cannot be forwarded, or was not answered."""


class Changed:
    """Whether a server has said that its tools are others now."""

    def __init__(self) -> None:
        import anyio

        self._event = anyio.Event()

    async def heed(self, message: Any) -> None:
        """A message of a server of before 2026, which says so unasked; or an error of the connection."""
        from mcp.types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification | Exception):
            self._event.set()

    async def wait(self, most_s: float) -> None:
        """Until it has, or for so long."""
        import anyio

        with anyio.move_on_after(most_s):
            await self._event.wait()
        self._event = anyio.Event()

    @asynccontextmanager
    async def announced_by(self, client: Client) -> AsyncIterator[None]:
        """While inside, a server of 2026 or later tells this of changes, which it does where it is asked to."""
        import anyio
        from mcp import MCPError
        from mcp.client.subscriptions import ListenNotSupportedError

        async def listen() -> None:
            try:
                async with client.listen(tools_list_changed=True) as events:
                    async for _ in events:
                        self._event.set()
            except (ListenNotSupportedError, MCPError, TimeoutError):
                return  # it says so unasked, or never: its tools are listed now and then

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            yield
            group.cancel_scope.cancel()


@asynccontextmanager
async def _connect(name: str, server: ToolServer, config: ToolsConfig) -> AsyncIterator[tuple[Client, Changed]]:
    from mcp import Client, StdioServerParameters
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client
    from mcp.types import Implementation

    changed, given = Changed(), _secrets(name, server)
    async with AsyncExitStack() as stack:
        transport: Any
        if server.url is not None:
            http = await stack.enter_async_context(create_mcp_http_client(headers=given))
            transport = streamable_http_client(server.url, http_client=http)
        else:
            assert server.command is not None
            transport = StdioServerParameters(
                command=server.command,
                args=list(server.args),
                env=given,
                cwd=server.cwd,
                encoding_error_handler="replace",
            )
        client = Client(
            transport,
            message_handler=changed.heed,
            client_info=Implementation(name="squadron-tools", version=__version__),
            read_timeout_seconds=config.start_timeout_s,
            cache=None,
        )
        yield await stack.enter_async_context(client), changed


def _secrets(name: str, server: ToolServer) -> dict[str, str]:
    """The environment of a server's process, or the headers of its requests."""
    kind = "headers" if server.url is not None else "env"
    return filled_in(getattr(server, kind), f"mcpServers.{name}.{kind}")


async def _list_tools(client: Client) -> list[Tool]:
    """All tools of a server, page by page; of several with one name the first."""
    tools: dict[str, Tool] = {}
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            tools.setdefault(tool.name, tool)
        cursor = page.next_cursor
        if cursor is None:
            return list(tools.values())
    raise UnknownTool(f"its list of tools has more than {_PAGES:,} pages")


def _reason(error: BaseException) -> str:
    """What went wrong, of the first of several."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return str(error).strip().partition("\n")[0] or type(error).__name__
