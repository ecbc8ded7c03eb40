"""Tools of several servers, found by what they are to do; what has not changed is not read again."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from squadron.core.folder import Folder
from squadron.llm.chat import Closing
from squadron.retrieval.documents import Document
from squadron.retrieval.index import Change, SearchIndex
from squadron.serve.tools.config import ToolsConfig

if TYPE_CHECKING:
    from mcp.types import Tool

_WORD_ENDS = re.compile(r"[_\-./]+|(?<=[a-z0-9])(?=[A-Z])")


class FoundTool(BaseModel):
    """A tool with what its server says of it."""

    server: str
    name: str
    description: str
    input_schema: dict[str, Any]


class ToolIndex(Closing):
    """An index of tools, in a temporary folder. Searches go on with the old one while another is made."""

    def __init__(self, config: ToolsConfig) -> None:
        self._mode = config.mode
        self._embedder = None if config.mode == "bm25" else config.embedder
        self._folder = tempfile.TemporaryDirectory(prefix="squadron-tools-")
        self._texts: dict[str, str] = {}
        self._held: tuple[SearchIndex | None, dict[str, FoundTool]] = (None, {})

    def update(self, tools: Mapping[str, Sequence[Tool]]) -> Change:
        """Take in the tools that servers have now; texts that are new alone are embedded."""
        found = {
            json.dumps([server, tool.name]): FoundTool(
                server=server, name=tool.name, description=tool.description or "", input_schema=tool.input_schema
            )
            for server, listed in tools.items()
            for tool in listed
        }
        texts = {key: tool_text(tool) for key, tool in found.items()}
        changed = [Document(key, text) for key, text in texts.items() if self._texts.get(key) != text]
        removed = self._texts.keys() - texts.keys()
        index, done = self._held[0], Change(added=0, changed=0, removed=len(removed), embedded=0)
        if not texts:
            index = None
        elif index is None:
            index = SearchIndex.build(Folder(self._folder.name), changed, embedder=self._embedder)
            done = done.model_copy(update={"added": len(changed)})
        elif changed or removed:
            index, done = index.update(changed, removed)
        self._held, self._texts = (index, found), texts
        return done

    def search(self, query: str, k: int) -> list[FoundTool]:
        """The `k` tools that fit best, the best first; by words, those that share one with the query."""
        index, tools = self._held
        if index is None:
            return []
        found = index.search([query], k, self._mode)
        return [tools[index.document(place).id] for place in found.places_QK[0].tolist() if place >= 0]

    def close(self) -> None:
        if self._held[0] is not None:
            self._held[0].close()
        self._folder.cleanup()


def tool_text(tool: FoundTool) -> str:
    """What a tool is found by: its name, also as words, its description, and its parameters with theirs."""
    lines = [f"{tool.name} ({' '.join(_WORD_ENDS.split(tool.name))}): {tool.description}"]
    properties = tool.input_schema.get("properties")
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        about = schema.get("description", "") if isinstance(schema, dict) else ""
        lines.append(f"{name}: {about}" if about else str(name))
    return "\n".join(lines)
