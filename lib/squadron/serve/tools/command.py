"""`squadron tools`: a Model Context Protocol server that finds tools of others."""

from __future__ import annotations

import argparse

HELP = "offer one tool to agents that finds the tools of other servers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `tools` takes."""
    parser.add_argument("config", help="file (YAML or JSON) with mcpServers, as agents are configured")
    parser.add_argument("settings", nargs="*", help="mode=bm25, calls=false, port=8001 …")


def command(options: argparse.Namespace) -> None:
    """Take in the tools of other Model Context Protocol servers and offer one that searches them, on standard input
    and output, or by streamable HTTP on a port of this machine."""
    from squadron.core.config import load_config
    from squadron.serve.tools.config import ToolsConfig
    from squadron.serve.tools.server import serve_tools

    serve_tools(load_config(ToolsConfig, options.config, options.settings))
