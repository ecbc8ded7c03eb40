"""A Model Context Protocol server of 2025, by the standard library alone: it says unasked that its tools have changed.
With the word `leak` it refuses to start, and says its key."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

SCHEMA = {"type": "object", "properties": {}}
tools = [{"name": "learn", "description": "Learn another skill", "inputSchema": SCHEMA}]


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


for line in sys.stdin:
    asked = json.loads(line)
    method, answer = asked["method"], None
    if "id" not in asked:
        continue
    if method == "initialize" and "leak" not in sys.argv:
        about = {"name": "upstream", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        answer = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": about}
    elif method == "tools/list":  # page by page
        page = int(asked.get("params", {}).get("cursor", 0))
        answer = {"tools": tools[page : page + 1]} | ({"nextCursor": str(page + 1)} if page + 1 < len(tools) else {})
    elif method == "tools/call":
        tools.append({"name": "convert", "description": "Convert an amount of money", "inputSchema": SCHEMA})
        send(method="notifications/tools/list_changed")
        answer = {"content": [{"type": "text", "text": "learnt"}]}
    if answer is None:
        send(id=asked["id"], error={"code": -32601, "message": f"no {method} with {os.environ.get('UPSTREAM_KEY')}"})
    else:
        send(id=asked["id"], result=answer)
