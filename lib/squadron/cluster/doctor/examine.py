"""The examination: of this machine, or of every node of a cluster. Findings come as they are made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from squadron.cluster.doctor.collectives import Backend, check_group
from squadron.cluster.doctor.facts import check_facts, find_facts
from squadron.cluster.doctor.finding import Finding, failed, ok, warning
from squadron.cluster.doctor.installation import check_same_versions, find_installation
from squadron.cluster.doctor.network import MODE, Target, check_reach, check_token, partners
from squadron.cluster.doctor.storage import check_shared, check_storage, measure_storage
from squadron.core.errors import SquadronError
from squadron.core.folder import Folder

TIMEOUT_S = 90.0
"""For so long a node may take to answer, the start of its process included."""
_LOAD = """
import json
from squadron.core import registry
print(json.dumps([registry.load_job(name).name for name in registry.list_jobs()]))
"""


def examine_machine(run: str | None) -> Iterator[Finding]:
    """Of this machine alone, on which a Ray is started for it."""
    with _loading_jobs() as jobs:
        started, ray_finding = time.monotonic(), None
        counted, gpus = None, None
        try:
            from squadron.cluster.doctor.nodes import find_places
            from squadron.core.cluster import connect

            cluster = connect(None)
            here = find_places()[0]
            counted, gpus = here.counted, here.gpus
            ray_finding = ok("Ray", f"answers after {_answer_s(started):.1f} s: {cluster}")
        except (SquadronError, OSError) as error:
            ray_finding = _as_finding("Ray", error)
        yield from check_facts(find_facts(), counted, gpus, strict=False)
        yield _current_folder()
        if run is not None:
            yield check_storage(measure_storage(run), run)
        yield ray_finding
        yield _collect_jobs(jobs)


def examine_cluster(address: str, run: str | None, timeout_s: float = TIMEOUT_S) -> Iterator[Finding]:
    """Of every node of the cluster at `address`, and of what lies between them. Raises SquadronError if it does not
    answer at all."""
    from squadron.cluster.doctor.nodes import ask, check_clocks, find_places, find_skews
    from squadron.core.cluster import connect

    started = time.monotonic()
    cluster = connect(address)
    places = find_places()
    yield ok("Ray", f"answers after {_answer_s(started):.1f} s: {cluster}")
    yield check_token(os.environ.get(MODE, "").lower() == "token", [place.address for place in places])
    all_examiners = {place.name: place.examiner() for place in places}
    facts, silent = ask({name: one.facts.remote() for name, one in all_examiners.items()}, timeout_s)
    yield from silent
    examiners = {name: all_examiners[name] for name in facts}
    places = [place for place in places if place.name in facts]
    for place in places:
        for finding in check_facts(facts[place.name], place.counted, place.gpus, strict=True):
            yield finding.on(place.name)
    yield from check_same_versions(find_installation(), {name: one.installation for name, one in facts.items()})
    yield from check_clocks(find_skews(examiners))
    yield from _examine_ports(places, examiners, timeout_s)
    if run is not None:
        yield from _examine_storage(examiners, run, timeout_s)
    yield from _examine_group("gloo", [(place, examiners[place.name]) for place in places], timeout_s)
    yield from _examine_cards(places, timeout_s)


def _examine_ports(places: list[Any], examiners: Mapping[str, Any], timeout_s: float) -> Iterator[Finding]:
    from squadron.cluster.doctor.nodes import ask

    workers, silent = ask({name: one.listen.remote() for name, one in examiners.items()}, timeout_s)
    yield from silent
    targets = [
        [Target(place.address, what, port) for what, port in {**place.ports, "a worker": workers[place.name]}.items()]
        for place in places
        if place.name in workers
    ]
    asked = {
        place.name: [target for other in partners(len(targets), number) for target in targets[other]]
        for number, place in enumerate(one for one in places if one.name in workers)
    }
    unreached, silent = ask({name: examiners[name].reach.remote(to) for name, to in asked.items()}, timeout_s)
    yield from silent
    yield from check_reach(unreached, sum(map(len, asked.values())))


def _examine_storage(examiners: Mapping[str, Any], run: str, timeout_s: float) -> Iterator[Finding]:
    """All nodes use the folder at once, as those of a run do."""
    from squadron.cluster.doctor.nodes import ask

    measured, silent = ask({name: one.measure.remote(run) for name, one in examiners.items()}, timeout_s)
    yield from silent
    for name, storage in measured.items():
        yield check_storage(storage, run).on(name)
    folder, token = Folder(run) / f".doctor-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    try:
        folder.write_bytes("token", token.encode())
        sees, silent = ask(
            {
                name: one.see.remote(folder.url, token, f"by-{number}")
                for number, (name, one) in enumerate(examiners.items())
            },
            timeout_s,
        )
        yield from silent
        written = set(folder.ls())
        for number, name in enumerate(examiners):
            if not sees.get(name, "silent") and f"by-{number}" not in written:
                sees[name] = "what this node has written there is not seen by the driver"
        yield from check_shared(sees, run)
    except SquadronError as error:
        yield _as_finding("shared folder", error)
    finally:
        with suppress(Exception):  # a store's driver raises what it likes, and what is left over is small
            folder.remove()


def _examine_group(backend: Backend, members: list[tuple[Any, Any]], timeout_s: float) -> Iterator[Finding]:
    from squadron.cluster.doctor.nodes import ask

    if not members:
        return
    port, silent = ask({members[0][0].name: members[0][1].free_port.remote()}, timeout_s)
    if silent:
        yield from silent
        return
    store = f"{members[0][0].address}:{next(iter(port.values()))}"
    refs = {
        f"{place.name} #{rank}": one.all_reduce.remote(
            backend, store, rank, len(members), place.address, timeout_s - 10
        )
        for rank, (place, one) in enumerate(members)
    }
    ranks, silent = ask(refs, timeout_s)
    yield check_group(backend, list(ranks.values()), [one.node.rpartition(" #")[0] for one in silent])


def _examine_cards(places: list[Any], timeout_s: float) -> Iterator[Finding]:
    """NCCL between all cards of the cluster, if none is in use."""
    import ray

    cards = [(place, number) for place in places for number in range(int(place.gpus))]
    if not cards:
        return
    free = ray.available_resources().get("GPU", 0.0)
    if free < len(cards):
        fix = "run the doctor again when the cluster has nothing to do"
        yield warning("nccl all-reduce", f"{free:g} of {len(cards)} cards are free: not tried", fix)
        return
    yield from _examine_group("nccl", [(place, place.examiner(gpus=1)) for place, _ in cards], timeout_s)


def _answer_s(started: float) -> float:
    """Seconds until a task is done on the node that this process is connected to. Raises SquadronError if that takes
    too long."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    try:
        ask = ray.remote(num_cpus=0)(lambda: "answers").options(scheduling_strategy=here)
        ray.get(ask.remote(), timeout=60)
    except ray.exceptions.GetTimeoutError:
        fix = "see `ray status`, or start the cluster again"
        raise SquadronError("a task was not done after 60 s", fix=fix) from None
    return time.monotonic() - started


@contextmanager
def _loading_jobs() -> Iterator[subprocess.Popen[str]]:
    """All jobs are imported next to the other checks: that takes seconds."""
    words = [sys.executable, "-c", _LOAD]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    loading = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield loading
    finally:
        loading.kill()
        loading.communicate()


def _collect_jobs(loading: subprocess.Popen[str]) -> Finding:
    try:
        out, complaints = loading.communicate(timeout=120)
        return ok("jobs", ", ".join(json.loads(out.splitlines()[-1])))
    except subprocess.TimeoutExpired:
        return failed("jobs", "they were not imported after two minutes", "look at the disk that Python is on")
    except (ValueError, IndexError):
        last = complaints.strip().splitlines()[-1:] or ["no message"]
        return failed(
            "jobs", f"they cannot be imported: {last[0][:300]}", "pip install what is missing, or this checkout anew"
        )


def _current_folder() -> Finding:
    """Runs go to ./runs unless told otherwise."""
    try:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
            Folder(place).write_json("probe.json", {})
    except (SquadronError, OSError) as error:
        return _as_finding("run folders", error)
    return ok("run folders", f"can be written in {Path.cwd()}")


def _as_finding(check: str, error: SquadronError | OSError) -> Finding:
    if isinstance(error, SquadronError):
        text = f"{error.what} ({error.where})" if error.where else error.what
        return failed(check, text, error.fix)
    return failed(check, error.strerror or str(error), f"look at {error.filename}" if error.filename else "see above")
