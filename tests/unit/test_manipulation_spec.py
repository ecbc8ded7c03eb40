"""Environments of the manipulation tasks: drawn from the published ranges, reproducible, switchable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import InputError
from squadron.sim.manipulation.spec import (
    COLOURS,
    EVAL,
    TEST,
    TRAIN,
    VARIATIONS,
    EnvironmentSpec,
    Factors,
    sample_environment,
)
from squadron.sim.manipulation.view import TEXTURES

TASKS = st.sampled_from(sorted(VARIATIONS))
CLIENTS = st.integers(0, 10_000)
FACTORS = tuple(Factors.model_fields)

FACTOR_OF_FIELD = {
    "light_rgb": {"light_colour"},
    "distractors": {"distractors"},
    "cameras": {"camera_pose"},
    "friction": {"friction"},
    "table": {"table_colour", "table_texture"},
    "background": {"background_texture"},
}


def drawn(task: str, factors: Factors) -> int:
    """How many different environments twenty clients get."""
    specs = (sample_environment(task, client_id, 0, factors) for client_id in range(20))
    return len({spec.model_dump_json(exclude={"client_id"}) for spec in specs})


def test_there_are_fourteen_factors_and_three_splits() -> None:
    assert len(FACTORS) == 14
    assert [*TRAIN, *EVAL, *TEST] == list(range(420))


@given(task=TASKS, client_id=CLIENTS, seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_every_factor_lies_in_its_range(task: str, client_id: int, seed: int) -> None:
    spec = sample_environment(task, client_id, seed)
    variation = VARIATIONS[task]
    assert spec.objects.keys() == variation.objects.keys()
    for name, item in spec.objects.items():
        allowed = variation.objects[name]
        assert item.surface.colour in COLOURS.values()
        assert 1 <= item.surface.texture <= TEXTURES
        assert (allowed.size or (1.0, 1.0))[0] <= item.size <= (allowed.size or (1.0, 1.0))[1]
        mass = allowed.mass_kg or (allowed.usual_mass_kg, allowed.usual_mass_kg)
        assert mass[0] <= item.mass_kg <= mass[1]
    assert all(0.0 <= value <= 0.5 for value in spec.light_rgb)
    assert all(0.25 <= value <= 1.0 for value in spec.table.colour)
    assert 1 <= spec.table.texture <= TEXTURES
    assert 1 <= spec.background.texture <= TEXTURES
    assert set(spec.cameras) == {"front", "left_shoulder", "right_shoulder"}
    for shift in spec.cameras.values():
        assert np.abs(shift.position_m).max() <= 0.1
        assert np.abs(shift.euler_rad).max() <= 0.05
    assert len(spec.distractors) == len(variation.distractor_areas)
    for distractor, (x_low, x_high, y_low, y_high) in zip(spec.distractors, variation.distractor_areas, strict=True):
        assert x_low <= distractor.x_m <= x_high and y_low <= distractor.y_m <= y_high


def test_ranges_of_box_and_block_are_the_published_ones() -> None:
    box = VARIATIONS["close_box"].objects["box"]
    slide = VARIATIONS["slide_block_to_target"]
    assert box.size == (0.75, 1.15)
    assert slide.objects["block"].mass_kg == (1.0, 15.0)
    assert slide.objects["block"].size is None
    assert slide.friction == (0.75, 1.0)


@given(task=TASKS, client_id=CLIENTS, seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_equal_arguments_and_json_give_the_equal_spec(task: str, client_id: int, seed: int) -> None:
    spec = sample_environment(task, client_id, seed)
    assert sample_environment(task, client_id, seed) == spec
    assert EnvironmentSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("task", sorted(VARIATIONS))
def test_environments_differ_unless_all_factors_are_off(task: str) -> None:
    assert drawn(task, Factors()) == 20
    assert drawn(task, Factors.none()) == 1


@pytest.mark.parametrize("factor", FACTORS)
def test_a_factor_that_is_off_is_constant_and_leaves_the_others_alone(factor: str) -> None:
    off = Factors(**{factor: False})
    alone = Factors.none().model_copy(update={factor: True})
    assert drawn("scoop_with_spatula", Factors.none()) == 1
    assert drawn("scoop_with_spatula", alone) > 5
    for client_id in range(5):
        full, less = (sample_environment("scoop_with_spatula", client_id, 0, factors) for factors in (Factors(), off))
        assert full != less
        for name, factors in FACTOR_OF_FIELD.items():
            if factor not in factors:
                assert getattr(full, name) == getattr(less, name)


def test_objects_of_one_role_have_different_colours() -> None:
    for client_id in range(50):
        spec = sample_environment("insert_onto_square_peg", client_id)
        pillars = [item.surface.colour for name, item in spec.objects.items() if "pillar" in name]
        assert len(set(pillars)) == len(pillars)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="close_boxx") as raised:
        sample_environment("close_boxx", 0)
    assert "close_box" in str(raised.value)
