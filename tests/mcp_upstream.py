"""A Model Context Protocol server with a few tools, which gets one more when it is asked to."""

from __future__ import annotations

import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("upstream", log_level="ERROR")


@server.tool(description="Tell what the weather will be in a city")
def get_weather(city: str) -> str:
    return f"sunny in {city}"


@server.tool(description="Say which key this server was given")
def show_key() -> str:
    return os.environ.get("UPSTREAM_KEY", "none")


def convert_currency(amount: float) -> str:
    return f"{2 * amount:g}"


@server.tool(description="Learn another skill")
async def learn(ctx: Context) -> str:
    server.add_tool(convert_currency, description="Convert an amount of money")
    await ctx.notify_tools_changed()  # to clients of 2026, which have asked to be told
    await ctx.session.send_tool_list_changed()  # to those before
    return "learnt"


if __name__ == "__main__":
    server.run("streamable-http", port=int(sys.argv[1])) if len(sys.argv) > 1 else server.run("stdio")
