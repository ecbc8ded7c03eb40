"""What a sweep varies is checked before anything starts, and drawn the same way every time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.cli import main
from squadron.core.cluster import Node
from squadron.core.errors import ConfigError, ResourceError
from squadron.core.profile import PROFILES, Profile
from squadron.tune.partition import partition
from squadron.tune.space import Domain, grid_size, parse_space, sample

JOB = str(Path(__file__).parents[1] / "ray" / "descent.py")


@pytest.mark.parametrize(
    ("word", "domain"),
    [
        ("rate=loguniform(1e-5,1e-3)", Domain("loguniform", (1e-5, 1e-3))),
        ("rate=loguniform:1e-5,1e-3", Domain("loguniform", (1e-5, 1e-3))),
        ("name=choice(fedavg, fedprox)", Domain("choice", ("fedavg", "fedprox"))),
        ("name=fedavg,fedprox", Domain("choice", ("fedavg", "fedprox"))),
        ("path=http://a:8000,http://b:8000", Domain("choice", ("http://a:8000", "http://b:8000"))),
        ("rate=grid:1e-3,1E2,2", Domain("grid", (1e-3, 100.0, 2))),
        ("sizes=grid([1, 2],[3])", Domain("grid", ([1, 2], [3]))),
        ("count=randint(1,8)", Domain("randint", (1, 8))),
        ("flag=grid(true,false)", Domain("grid", (True, False))),
    ],
)
def test_both_spellings_are_read(word: str, domain: Domain) -> None:
    assert list(parse_space([word]).values()) == [domain]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("rate", "varies nothing"),
        ("rate=loguniform(0,1)", "no logarithm of 0"),
        ("rate=uniform(2,1)", "2 is not below 1"),
        ("rate=uniform(1)", "takes two numbers"),
        ("rate=uniform(a,b)", "takes two numbers"),
        ("rate=randint(1,2.5)", "whole numbers"),
        ("rate=lognormal(1,2)", "loguniform"),
        ("rate=choice()", "no values"),
    ],
)
def test_what_cannot_be_drawn_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_space([word])


@given(
    st.sampled_from(["uniform", "loguniform", "randint", "lograndint"]),
    st.integers(1, 50),
    st.integers(1, 1000),
    st.integers(0, 10**6),
)
def test_draws_lie_between_the_ends(kind: str, low: int, width: int, seed: int) -> None:
    domain = Domain(kind, (low, low + width))  # type: ignore[arg-type]
    values = [domain.draw(np.random.default_rng([seed, number])) for number in range(20)]
    assert all(low <= value <= low + width for value in values)
    assert all(isinstance(value, int) for value in values) == domain.is_whole


def test_draws_are_uniform_in_value_or_in_logarithm() -> None:
    rng = np.random.default_rng(0)
    uniform = [Domain("uniform", (1.0, 100.0)).draw(rng) for _ in range(4000)]
    log = [math.log10(Domain("loguniform", (1.0, 100.0)).draw(rng)) for _ in range(4000)]
    assert np.mean(uniform) == pytest.approx(50.5, abs=1.5) and np.mean(log) == pytest.approx(1.0, abs=0.03)
    whole = np.bincount([Domain("randint", (1, 4)).draw(rng) for _ in range(4000)])[1:] / 4000
    assert whole == pytest.approx([0.25] * 4, abs=0.03)


def test_more_trials_leave_the_earlier_ones_as_they_are_and_grids_are_gone_through() -> None:
    space = parse_space(["a=uniform(0,1)", "b=grid(1,2,3)", "c=grid(x,y)"])
    assert grid_size(space) == 6
    drawn = [sample(space, number, seed=3) for number in range(12)]
    assert drawn == [sample(space, number, seed=3) for number in range(12)]
    assert [(one["b"], one["c"]) for one in drawn[:6]] == [(b, c) for b in (1, 2, 3) for c in "xy"]
    assert drawn[6]["a"] != drawn[0]["a"] and sample(space, 0, seed=4)["a"] != drawn[0]["a"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "rat=uniform(0,1)"], "did you mean rate?"),
        (["--over", "rate=a,b"], "valid number"),
        (["--over", "rate.inner=1,2"], "is a value"),
        (["--over", "rate=0.1,0.2", "--metric", "los"], "did you mean loss?"),
        (["--over", "rate=0.1,0.2", "--trials", "0"], "trials"),
        (["--over", "rate=0.1,0.2", "--scheduler", "pbt", "--trials", "2"], "four trials"),
        (["--over", "rate=0.1,0.2", "--scheduler", "pbt", "--search", "optuna"], "leave search at random"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_starts(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", JOB, *words, "--run", str(tmp_path / "sweep")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "sweep").exists()


def _node(name: str, cpus: float, gpus: float = 0) -> Node:
    return Node(id=name, address=name, cpus=cpus, gpus=gpus, memory_gb=64)


def test_one_trial_has_the_whole_cluster_unless_it_is_told_otherwise() -> None:
    nodes = [_node("a", 2)]
    assert partition(nodes, Profile(name="auto"), None) == [None]
    two = partition(nodes, Profile(name="auto"), 2)
    assert [[node.cpus for node in share or ()] for share in two] == [[1], [1]]
    assert len(partition(nodes, Profile(name="auto", workers=2), None)) == 1
    with pytest.raises(ResourceError, match="3 workers"):
        partition(nodes, Profile(name="auto", workers=3), None)
    with pytest.raises(ResourceError, match="3 trials do not fit"):
        partition(nodes, Profile(name="auto"), 3)
    with pytest.raises(ResourceError, match="2 trials do not fit at a time; 1 do"):
        partition(nodes, Profile(name="auto", workers=2), 2)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5),
    st.sampled_from(["auto", "8xh100", "h200"]),
    st.one_of(st.none(), st.integers(1, 6)),
    st.one_of(st.none(), st.integers(1, 6)),
)
def test_shares_fit_the_cluster_together(
    sizes: list[tuple[int, int]], profile: str, workers: int | None, max_parallel: int | None
) -> None:
    nodes = [_node(str(number), *size) for number, size in enumerate(sizes)]
    asked = Profile.model_validate(PROFILES[profile].model_dump() | {"workers": workers})
    try:
        shares = partition(nodes, asked, max_parallel)
    except ResourceError:
        return
    if shares == [None]:
        return
    for node in nodes:
        parts = [part for share in shares for part in share or () if part.id == node.id]
        assert sum(part.cpus for part in parts) <= node.cpus and sum(part.gpus for part in parts) <= node.gpus
    trainer = asked.trainer or asked.worker
    seats = {sum(part.fit(trainer) for part in share or ()) for share in shares}
    assert workers is None or min(seats) >= workers


def test_values_are_read_by_the_type_of_their_setting() -> None:
    from squadron.methods.finetune.config import FinetuneConfig

    words = ["data.prompt_format='Q {prompt}, # now','{prompt}: '", "data.columns.prompt=no,null,010"]
    words += ["training.optimizer.betas=[0.9, 0.95],[0.8, 0.9]", "training.packing=true,false"]
    space = parse_space(words, FinetuneConfig)
    assert [domain.values for domain in space.values()] == [
        ("Q {prompt}, # now", "{prompt}: "), ("no", None, "010"), ([0.9, 0.95], [0.8, 0.9]), (True, False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a=grid:{b: 0}", "a.b=grid:1,2"], "a and a.b are one setting and a part of it"),
        (["a.b=grid:1,2", "a=grid:{b: 0}"], "a and a.b are one setting and a part of it"),
        (["a=1,2", "a=3"], "a is set twice"),
        (["a=on,off"], "write true"),
        (["a=010,020"], "in more than one way"),
        (["a=uniform(010,020)"], "two numbers"),
        (["a=b], [c # d"], "cannot read"),
        (["a=b] #"], "cannot read"),
        (["a=choice(b #, c)"], "cannot read"),
    ],
)
def test_what_could_be_two_things_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_space(words)


def test_all_that_is_asked_to_vary_varies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given in two options, or set and varied."""
    for words in (["--over", "rate=0.1", "--over", "rat=1"], ["rate=0.3", "--over", "rate=0.1,0.2"]):
        assert main(["sweep", JOB, *words, "--run", str(tmp_path / "sweep")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "did you mean rate?" in said and "rate is set twice" in said
