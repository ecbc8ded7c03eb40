"""Workers of several sizes find room together, or are said to find none."""

from __future__ import annotations

import pytest

from squadron.core.cluster import Cluster, Node
from squadron.core.errors import ResourceError
from squadron.core.gang import Room
from squadron.core.placement import Wanted, fit, pack
from squadron.core.profile import PROFILES, Profile, WorkerResources

SMALL, LARGE = Node("a", "10.0.0.1", cpus=2, gpus=0, memory_gb=8), Node("b", "10.0.0.2", cpus=8, gpus=2, memory_gb=64)


def wanted(name: str, count: int = 1, **share: float) -> Wanted:
    return Wanted(name, count, WorkerResources(**share))


@pytest.mark.parametrize(
    ("workers", "placed"),
    [
        ([wanted("a", 2, cpus=1), wanted("b", 1, cpus=8)], [2, 1]),  # the large one first: else no node has eight left
        ([wanted("a", 3, cpus=1), wanted("b", 1, cpus=8)], [2, 1]),
        ([wanted("a", 1, gpus=1), wanted("b", 4, gpus=0.5)], [1, 2]),
        ([wanted("a", 3, gpus=0.6)], [2]),  # a share lies on one card
        ([wanted("a", 20, gpus=0.1, cpus=0.1)], [20]),
        ([wanted("a", 1, gpus=2), wanted("b", 1, gpus=0.1)], [1, 0]),
        ([wanted("a", 1, memory_gb=60), wanted("b", 2, memory_gb=8)], [1, 1]),
        ([wanted("a", 0, cpus=99)], [0]),
    ],
)
def test_as_many_as_find_room_are_placed(workers: list[Wanted], placed: list[int]) -> None:
    assert pack([SMALL, LARGE], workers) == placed


def test_what_fits_alone_but_not_together_is_refused_with_what_is_there() -> None:
    cluster = Cluster((SMALL,))
    cluster.require_together([wanted("serving chat", cpus=1), wanted("serving embedder", cpus=1)])
    cluster.require_together([wanted("serving chat", cpus=2), wanted("serving planner", cpus=0)])
    with pytest.raises(
        ResourceError, match=r"all together ask for 4 CPUs; there is no room for .*\(\d of \d fit\)"
    ) as told:
        cluster.require_together([wanted("serving chat", 2, cpus=1), wanted("serving embedder", 2, cpus=1)])
    assert told.value.where == "10.0.0.1: 2 CPUs, 8 GB of memory" and told.value.fix
    with pytest.raises(ResourceError, match="serving chat asks for 1 worker of 3 CPUs each"):
        cluster.require_together([wanted("serving chat", cpus=3)])


@pytest.mark.parametrize("profile", [one for one in PROFILES.values() if one.cards], ids=lambda one: one.name)
def test_the_workers_of_a_profile_fill_its_cards_and_fit_its_machines(profile: Profile) -> None:
    assert profile.cpus and profile.memory_gb and profile.cards and profile.trainer
    machine = Room(profile.cpus, profile.cards, profile.memory_gb)
    assert fit(machine, profile.trainer) == profile.cards
    assert fit(machine, profile.worker) * profile.worker.gpus == profile.cards
    assert profile.trainers == profile.nodes * profile.cards


def test_a_training_takes_the_workers_that_are_asked_for_else_a_card_each() -> None:
    assert Profile(name="auto").trainers is None
    assert Profile(name="auto", workers=3).trainers == 3
    assert PROFILES["2x8xh100"].trainers == 16
    assert PROFILES["2x8xh100"].model_copy(update={"workers": 4}).trainers == 4
