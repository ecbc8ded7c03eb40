"""The whole state of a federated run in one file a round, so that a killed run resumes as if nothing had happened.

    round-00012.npz         the model, the strategy's memory, configurations, history; written whole or not at all
    clients/1003-00009.npz  the state that client 1003 left behind in round 9
    best.npz                the model of the best round
    history.json            the history again, for people

Nothing is pickled: a strategy is taken apart by `memory`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from squadron.core import console
from squadron.core.config import flatten as flatten_settings
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.federated.memory import put_back, take_apart
from squadron.federated.records import BufferTable, flatten, read_npz, unflatten, write_npz

_VERSION = 2


@dataclass
class ServerState:
    """All that the rest of a run depends on, besides the strategy."""

    round: int
    arrays: ArrayRecord
    configs: RecordDict
    history: list[Any]
    made_with: dict[str, Any]  # a resumed run must match it
    born: dict[str, str]  # what the strategy had at its beginning, as `take_apart` says it
    clients: dict[int, int] = field(default_factory=dict)  # node id -> round that left its state


def prepare_save(
    folder: Folder, state: ServerState, strategy: Strategy, changed: dict[int, bytes], keep: int
) -> Callable[[], None]:
    """Take down the state after a round; calling the result writes it, also while the next round is under way.

    `changed` holds the states of the clients that changed in this round, by node id. What the last `keep` rounds do
    not need is removed after the write.
    """
    number = state.round
    state.clients.update(dict.fromkeys(changed, number))
    buffers = BufferTable()
    about = {
        "version": _VERSION,
        "round": state.round,
        "made_with": state.made_with,
        "records": flatten(RecordDict({"arrays": state.arrays, **state.configs}), buffers),
        "strategy": take_apart(strategy, buffers, state.born).tree,
        "history": list(state.history),
        "clients": list(state.clients.items()),
    }

    def write() -> None:
        for node_id, data in changed.items():
            (folder / "clients").write_bytes(_client_file(node_id, number), data)
        folder.write_bytes(_round_file(number), write_npz(buffers.by_name, about))
        folder.write_json("history.json", {"history": about["history"]})
        _remove_old(folder, number - keep + 1, bool(changed))

    return write


def load_state(
    folder: Folder, strategy: Strategy, made_with: dict[str, Any], born: dict[str, str], grid: Any = None
) -> tuple[ServerState, dict[int, bytes]] | None:
    """The newest whole state with the states of its clients, its strategy's memory put back into `strategy`. Those that
    are damaged are passed over with a warning.

    None if nothing is saved. Raises ConfigError if the state was made with other settings, InputError if all that is
    saved is damaged.
    """
    damage: InputError | None = None
    for number in sorted(_rounds(folder), reverse=True):
        name = _round_file(number)
        try:
            arrays, about = read_npz(folder.read_bytes(name), folder.file(name))
            clients = {int(node_id): int(round_) for node_id, round_ in about["clients"]}
            states = {n: (folder / "clients").read_bytes(_client_file(n, r)) for n, r in clients.items()}
        except InputError as error:
            console.say(f"[yellow]{console.plain(f'{error.where}: {error.what}; an earlier round is used')}[/yellow]")
            damage = error
            continue
        if about.get("version") != _VERSION:
            fix = "use another folder, or resume with the version that saved it"
            raise ConfigError("this round was saved by another version", where=folder.file(name), fix=fix)
        _refuse_other(about["made_with"], made_with, folder.file(name))
        try:
            put_back(strategy, about["strategy"], arrays, grid)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = f"what the strategy kept cannot be put back: {error!r}"
            fix = "remove this file to go on from the round before"
            raise InputError(what, where=folder.file(name), fix=fix) from error
        records = unflatten(about["records"], arrays)
        model = cast(ArrayRecord, records.pop("arrays"))
        return ServerState(about["round"], model, records, about["history"], made_with, born, clients), states
    if damage is not None:
        raise damage
    return None


def newest_round(folder: Folder) -> int:
    """The number of the newest round that is saved; 0 if there is none."""
    return max(_rounds(folder), default=0)


def save_best(folder: Folder, arrays: ArrayRecord, about: dict[str, Any]) -> None:
    """Keep the model of the best round so far, with what made it the best."""
    buffers = BufferTable()
    records = flatten(RecordDict({"arrays": arrays}), buffers)
    folder.write_bytes("best.npz", write_npz(buffers.by_name, {**about, "records": records}))


def load_best(folder: Folder) -> tuple[ArrayRecord, dict[str, Any]] | None:
    """The model of the best round and what made it the best; None if none was kept."""
    if not folder.exists("best.npz"):
        return None
    arrays, about = read_npz(folder.read_bytes("best.npz"), folder.file("best.npz"))
    return cast(ArrayRecord, unflatten(about.pop("records"), arrays)["arrays"]), about


def _refuse_other(saved: dict[str, Any], now: dict[str, Any], where: str) -> None:
    before, after = _settings(saved), _settings(_as_json(now))
    changed = [key for key in {**before, **after} if json.dumps(before.get(key)) != json.dumps(after.get(key))]
    if changed:
        shown = "; ".join(f"{key}: saved {before.get(key)!r}, now {after.get(key)!r}" for key in changed[:5])
        raise ConfigError(
            f"the saved federated run was made with other settings: {shown}",
            where=where,
            fix="use another folder for the new settings, or go back to the old ones",
        )


def _settings(made_with: dict[str, Any]) -> dict[str, Any]:
    """Settings by name; what kind of strategy it is comes first."""
    flat = flatten_settings(made_with)
    return {key.replace(".attributes", "").replace(".class", ""): value for key, value in flat.items()}


def _remove_old(folder: Folder, oldest: int, clients_too: bool) -> None:
    for number in _rounds(folder):
        if number < oldest:
            folder.remove(_round_file(number))
    if not clients_too:
        return
    files: dict[int, list[int]] = {}
    for name in (folder / "clients").ls():
        if match := re.fullmatch(r"(\d+)-(\d+)\.npz", name):
            files.setdefault(int(match[1]), []).append(int(match[2]))
    for node_id, rounds in files.items():
        needed = max((r for r in rounds if r <= oldest), default=0)
        for number in rounds:
            if number < needed:
                (folder / "clients").remove(_client_file(node_id, number))


def _rounds(folder: Folder) -> list[int]:
    return [int(match[1]) for name in folder.ls() if (match := re.fullmatch(r"round-(\d+)\.npz", name))]


def _round_file(number: int) -> str:
    return f"round-{number:05d}.npz"


def _client_file(node_id: int, number: int) -> str:
    return f"{node_id}-{number:05d}.npz"


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
