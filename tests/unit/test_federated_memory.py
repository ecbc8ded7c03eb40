"""What a strategy keeps between rounds goes on exactly in another process, or is refused with its place."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg

from squadron.core.errors import ConfigError
from squadron.federated.memory import put_back, take_apart
from squadron.federated.records import BufferTable
from tests.federated_memories import STRATEGIES, Stateful, play, save

_RESUME = """
import json, sys
from pathlib import Path
from squadron.federated.memory import put_back, take_apart
from squadron.federated.records import BufferTable, read_npz
from tests.federated_memories import STRATEGIES, play
said = {}
for name, kind in STRATEGIES.items():
    arrays, tree = read_npz(Path(sys.argv[1], name).read_bytes(), name)
    strategy = kind()
    settings = take_apart(strategy, BufferTable()).settings()
    put_back(strategy, tree, arrays)
    said[name] = [json.dumps(settings), play(strategy, 3, 4)]
print(json.dumps(said))
"""


def test_two_rounds_and_two_more_in_another_process_are_four_to_the_bit(tmp_path: Path) -> None:
    said, settings = {}, {}
    for name, kind in STRATEGIES.items():
        strategy = kind()
        memory = take_apart(strategy, BufferTable())
        settings[name] = json.dumps(memory.settings())
        play(strategy, 1, 1)
        save(strategy, memory.born)
        play(strategy, 2, 2)
        (tmp_path / name).write_bytes(save(strategy, memory.born))
        said[name] = play(strategy, 3, 4)
    words = [sys.executable, "-c", _RESUME, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    for name, (made_with, resumed) in json.loads(done.stdout).items():
        assert resumed == said[name], name
        assert made_with == settings[name], name


class Shelf(FedAvg):
    """Keeps one thing."""

    def __init__(self, thing: Any) -> None:
        super().__init__()
        self.thing = thing


def a_tuple_that_holds_itself() -> Any:
    inner: list[Any] = []
    whole = (inner,)
    inner.append(whole)
    return whole


ROWS, WEIGHT, LOCK = np.ones((3, 3)), torch.ones(3, requires_grad=True), threading.Lock()


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (threading.Lock(), r"strategy\.thing is a _thread\.lock"),
        ({"a": [threading.Event()]}, r"strategy\.thing\['a'\]\[0\]\._cond\._lock is a _thread"),
        (iter([1]), r"strategy\.thing is a builtins\.list_iterator"),
        (random.SystemRandom(), r"strategy\.thing is a random\.SystemRandom"),
        (np.array([None]), r"strategy\.thing is an array of Python objects"),
        ([ROWS, ROWS[0]], r"strategy\.thing\[1\] shares its memory with strategy\.thing\[0\]"),
        ([ROWS.T, ROWS], "shares its memory"),
        ([WEIGHT, WEIGHT.detach()[1:]], "shares its memory"),
        (WEIGHT * 2, r"strategy\.thing is a tensor with a history"),
        (torch.eye(2).to_sparse(), "unusual layout"),
        (a_tuple_that_holds_itself(), "holds itself"),
        (type("Many", (list,), {})(), r"strategy\.thing is a .*Many"),
        (ValueError("x"), r"strategy\.thing is a builtins\.ValueError"),
        (memoryview(b"a"), r"strategy\.thing is a builtins\.memoryview"),
        (lambda lock=LOCK: lock, r"strategy\.thing \(defaults\)\[0\] is a _thread\.lock"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_cannot_be_kept_is_refused_before_the_first_round_with_its_place(thing: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        take_apart(Shelf(thing), BufferTable())
    assert refused.value.fix


def test_what_is_made_in_a_round_and_cannot_be_made_again_is_refused_when_it_is_saved() -> None:
    strategy = Shelf(None)
    born = take_apart(strategy, BufferTable()).born
    for made in (torch.nn.Linear(2, 2), lambda: 1, Stateful(), type("Local", (), {})()):
        strategy.thing = made
        with pytest.raises(ConfigError, match=r"strategy\.thing is a .*, made in a round"):
            take_apart(strategy, BufferTable(), born)


def test_the_advice_for_what_cannot_be_kept_works() -> None:
    strategy = Shelf(Stateful())
    memory = take_apart(strategy, BufferTable())
    strategy.thing.count = 7
    tree = json.loads(json.dumps(take_apart(strategy, BufferTable(), memory.born).tree))
    put_back(again := Shelf(Stateful()), tree, {})
    assert again.thing.count == 7


_SYSTEM = {"is": "part", "name": "os.system"}
_PATH = {"is": "path", "class": "os.system", "value": "true"}


@pytest.mark.parametrize(
    "planted",
    [
        _SYSTEM,
        {"is": "partial", "n": 90, "parts": {"func": _SYSTEM, "args": None, "keywords": None, "more": None}},
        {"is": "method", "n": 90, "name": "system", "of": {"is": "part", "name": "os"}},
        {"is": "function", "n": 90, "name": "subprocess.getoutput"},
        {"is": "object", "n": 90, "class": "subprocess.Popen", "attributes": {}},
        {"is": "defaultdict", "n": 90, "factory": {"is": "part", "name": "subprocess.Popen"}, "items": []},
        {"is": "part", "name": "builtins.eval"},
        _PATH,
        {"is": "torch dtype", "value": "load"},
    ],
    ids=lambda node: f"{node['is']} {node.get('name', '')}",
)
def test_a_file_can_name_no_function_that_the_strategy_does_not_use_itself(planted: dict[str, Any]) -> None:
    strategy = Shelf([1])
    tree = json.loads(json.dumps(take_apart(strategy, BufferTable()).tree))
    tree["strategy"]["attributes"]["thing"] = planted
    with pytest.raises((ConfigError, KeyError)):
        put_back(Shelf([1]), tree, {})


def test_a_file_can_set_no_variable_that_the_strategy_does_not_use_itself() -> None:
    tree = json.loads(json.dumps(take_apart(Shelf(1), BufferTable()).tree))
    before = json.dumps
    with pytest.raises(ConfigError, match="json:dumps"):
        put_back(Shelf(1), tree | {"json:dumps": {"is": "part", "name": "builtins.print"}}, {})
    assert json.dumps is before


class Chooser(FedAvg):
    """Takes another function in a round, as its code says."""

    def __init__(self) -> None:
        super().__init__()
        self.middle: Any = np.mean

    def turn(self) -> None:
        self.middle = np.median


def test_a_function_that_a_round_chooses_is_kept_where_the_code_says_it() -> None:
    strategy = Chooser()
    born = take_apart(strategy, BufferTable()).born
    strategy.turn()
    tree = json.loads(json.dumps(take_apart(strategy, BufferTable(), born).tree))
    put_back(again := Chooser(), tree, {})
    assert again.middle is np.median
    strategy.middle = np.std
    with pytest.raises(ConfigError, match=r"strategy\.middle is a numpy\.std"):
        take_apart(strategy, BufferTable(), born)


def test_a_constant_of_its_code_is_a_setting_and_what_the_code_assigns_is_not() -> None:
    class Constant(FedAvg):
        rate, rounds = 0.1, 0

        def configure_train(self, *arguments: Any) -> Any:
            self.rounds += 1
            return []

    found = take_apart(Constant(), BufferTable()).settings()["constants"]
    assert [name.rpartition(":")[2] for name in found] == ["rate"] and list(found.values()) == ["0.1"]
