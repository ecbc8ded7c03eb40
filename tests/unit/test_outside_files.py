"""Whatever is done to a file that a setting names, it is read or refused by its path: never a traceback."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core import outside
from squadron.core.errors import InputError, SquadronError
from squadron.core.folder import Folder
from squadron.core.outside import read_content, read_text_lines
from squadron.llm.backends.scripted import ScriptedChat
from squadron.llm.settings import ScriptedModel
from squadron.methods.actor_reasoner.memory import Memory
from squadron.methods.coordination.config import FleetConfig, ModelConfig
from squadron.methods.coordination.fleet import read_fleet
from squadron.methods.coordination.model import GraphVae
from squadron.methods.coordination.training import load_planner, save_planner
from squadron.methods.flame.demos import parse_shard, write_shard
from squadron.sim.driving.recorded import read_recorded
from squadron.sim.fleet.maps import GridMap, read_map, read_starts, read_tasks
from squadron.sim.manipulation.expert import Episode
from tests.unit.test_driving_recorded import GOOD

FLOOR = GridMap(np.ones((3, 4), bool))
EXAMPLES = int(os.environ.get("SQUADRON_FUZZ", 30))
Read = Callable[[Path], Any]


def remembered(folder: Path) -> bytes:
    memory, draw = Memory(8, 4), np.random.default_rng(0)
    for style in range(3):
        for action in range(2):
            memory.write(style, draw.random(5) * 100, draw.random(4).astype(np.float32), action, f"a car {action}")
    memory.save(folder / "memory.safetensors")
    return (folder / "memory.safetensors").read_bytes()


def planner(folder: Path, name: str) -> bytes:
    config = ModelConfig(hidden=4, layers=1, heads=1, latent=2)
    save_planner(Folder(folder), config, GraphVae(config).state_dict())
    return (folder / name).read_bytes()


def recording(folder: Path) -> bytes:
    images, states, actions = (
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros((3, 8), np.float32),
        np.zeros((3, 8), np.float32),
    )
    episodes = [Episode(images, states, actions, True)] * 2
    write_shard(Folder(folder), "home.parquet", ModelConfig(), 4, episodes)
    return (folder / "home.parquet").read_bytes()


ROUTES = b'{"route": [[0, 0], [3, 4]]}\n{"route": [[1, 0], [3.5, 4], [1, 1e2]]}\n'
SAID = b'{"messages": [{"role": "user", "content": "hi"}], "text": "ho"}\n'
FILES: dict[str, tuple[Callable[[Path], bytes], str, Read]] = {
    "map": (lambda _: b"type octile\nheight 3\nwidth 4\nmap\n....\n.@S.\n..E.\n", "floor.map", read_map),
    "starts": (lambda _: b"# four\n4\n0\n3\n8\n11\n", "a.agents", lambda path: read_starts(path, FLOOR)),
    "tasks": (lambda _: b"2\n0,3,5\n11,8\n", "a.tasks", lambda path: read_tasks(path, FLOOR)),
    "routes": (lambda _: ROUTES, "routes.jsonl", lambda path: read_fleet(FleetConfig(routes=str(path)))),
    "traffic": (lambda _: GOOD.encode(), "made.xml", read_recorded),
    "packed traffic": (lambda _: gzip.compress(GOOD.encode(), mtime=0), "made.xml.gz", read_recorded),
    "memory": (remembered, "memory.safetensors", Memory.load),
    "planner's settings": (lambda folder: planner(folder, "config.json"), "config.json",
                           lambda path: load_planner(Folder(path.parent))),
    "planner": (lambda folder: planner(folder, "model.safetensors"), "model.safetensors",
                lambda path: load_planner(Folder(path.parent))),
    "recording": (recording, "home.parquet", lambda path: parse_shard(read_content(path), str(path))),
    "replay": (lambda _: SAID, "said.jsonl", lambda path: ScriptedChat(ScriptedModel(name="x", replay=str(path)))),
}  # fmt: skip
"""How each kind of file is made, what it is called, and how it is read."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    found = {}
    for kind, (make, name, _) in FILES.items():
        path = tmp_path_factory.mktemp("kind") / name
        content = make(path.parent)
        found[kind] = (path, content)
    return found


def read_or_refused(kind: str, path: Path, content: bytes | None) -> None:
    """Raises whatever is no SquadronError that names the file."""
    if path.is_file():
        path.unlink()
    if content is not None:
        path.write_bytes(content)
    try:
        FILES[kind][2](path)
    except SquadronError as refused:
        assert path.name in str(refused) or str(path.parent) in str(refused), refused


@pytest.mark.parametrize("kind", FILES)
def test_a_whole_file_is_read_and_one_of_another_kind_is_refused(
    kind: str, made: dict[str, tuple[Path, bytes]]
) -> None:
    path, content = made[kind]
    path.write_bytes(content)
    FILES[kind][2](path)
    odd = [b"", b"\0" * 64, b"\xff\xfe\0", b"{}", b"[]", b"null\n", b"[" * 10_000, b"9" * 5_000, b"\x1f\x8b\x08", None]
    for other in [*odd, *(text for name, (_, text) in made.items() if name != kind)]:
        read_or_refused(kind, path, other)
    path.unlink(missing_ok=True)
    path.mkdir()
    read_or_refused(kind, path, None)
    path.rmdir()


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_by_its_path(
    kind: str, made: dict[str, tuple[Path, bytes]], data: st.DataObject
) -> None:
    path, content = made[kind]
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["cut", "flip", "insert", "repeat", "number", "swap"]))
    if how == "cut":
        damaged = content[:at]
    elif how == "flip":
        damaged = content[:at] + bytes([content[at] ^ (1 << data.draw(st.integers(0, 7)))]) + content[at + 1 :]
    elif how == "insert":
        damaged = content[:at] + data.draw(st.binary(min_size=1, max_size=8)) + content[at:]
    elif how == "repeat":
        end = data.draw(st.integers(at, len(content)))
        damaged = content[:end] + content[at:]
    elif how == "number":
        odd = [b"-1", b"nan", b"1e999", b"9" * 400, b"null", b'""', b"[]", b"{}", b"true", b"0.5"]
        places = [match.span() for match in re.finditer(rb"\d+(\.\d+)?", content)] or [(at, at)]
        start, end = data.draw(st.sampled_from(places))
        damaged = content[:start] + data.draw(st.sampled_from(odd)) + content[end:]
    else:
        end = data.draw(st.integers(at, len(content)))
        damaged = content[:at] + content[end:]
    read_or_refused(kind, path, damaged)


def test_what_is_packed_to_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "MOST_BYTES", 2**20)
    (path := tmp_path / "bomb.map").write_bytes(gzip.compress(b"." * 2**21))
    with pytest.raises(InputError, match="larger than 1 MB"):
        read_content(path)


def test_lines_are_those_of_the_text_and_nothing_else_ends_one(tmp_path: Path) -> None:
    (path := tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\x0cb\xe2\x80\xa8c\r\n\r\nd\n")
    assert read_text_lines(path) == ["a\x0cb\u2028c", "", "d", ""]
    path.write_bytes(b"a\nb\n\xff")
    with pytest.raises(InputError, match="not UTF-8") as refused:
        read_text_lines(path)
    assert refused.value.where.endswith("a.txt, line 3")
    for odd in ("no\0name", tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="cannot be read"):
            read_content(odd)
