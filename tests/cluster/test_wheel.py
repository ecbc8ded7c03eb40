"""The wheel alone, in an environment without the checkout, has the jobs and configurations and runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path, timeout_s: float = 120) -> str:
    """Run a command that knows nothing of the checkout, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*build, "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("squadron-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; a path file lends it the dependencies installed here."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv)
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv / "bin" / "python",
        "install",
        "--quiet",
        "--no-deps",
    ]
    run(*install, wheel, cwd=venv)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path, environment: Path) -> Path:
    """An empty folder to work in, once it is sure that the installed package is the one imported."""
    where = run(environment / "python", "-c", "import squadron; print(squadron.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(environment.parent), f"the checkout was imported: {where}"
    return tmp_path


def test_wheel_holds_jobs_configurations_and_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, pattern in (("jobs", "*.py"), ("configs", "**/*.yaml")):
        there = {f"squadron/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).glob(pattern)}
        assert there and there <= names
    library = {
        path for path in (ROOT / "lib" / "squadron").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path.relative_to(ROOT / "lib").as_posix() for path in library} <= names
    assert not {name for name in names if name.startswith("tests/")}


def test_installed_command_lists_and_plans(environment: Path, elsewhere: Path) -> None:
    listing = run(environment / "squadron", "ls", cwd=elsewhere)
    assert "flame" in listing and "smoke" in listing
    assert "Nothing is missing" in run(environment / "squadron", "plan", "flame", cwd=elsewhere)
    assert list(elsewhere.iterdir()) == [], "listing and planning write nothing"


@pytest.mark.slow
def test_installed_command_runs_a_job(environment: Path, elsewhere: Path) -> None:
    few = ["baselines.centralised=false", "evaluation.film_homes=0"]
    run(environment / "squadron", "run", "flame", "smoke", *few, cwd=elsewhere, timeout_s=500)
    (report,) = elsewhere.glob("runs/*/report.html")
    assert "flame" in report.read_text()


def read_pins(name: str) -> dict[str, list[Version]]:
    pins: dict[str, list[Version]] = {}
    for line in (ROOT / "constraints" / name).read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            ((operator, version),) = [(part.operator, part.version) for part in pin.specifier]
            assert operator == "=="
            pins.setdefault(canonicalize_name(pin.name), []).append(Version(version))
    return pins


def requirements(extra: str) -> list[Requirement]:
    """What an installation with this extra asks for directly, markers judged as pip judges them."""
    found = map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]])
    return [wanted for wanted in found if wanted.marker is None or wanted.marker.evaluate({"extra": extra})]


def test_flower_comes_with_everything_but_vllm() -> None:
    assert "flwr" in {wanted.name for wanted in requirements("dev")}
    assert "flwr" not in {wanted.name for wanted in requirements("gpu")}


@pytest.mark.parametrize(("name", "extra", "torch"), [("cpu.txt", "dev", "2.13.0"), ("gpu.txt", "gpu", "2.14.0")])
def test_pins_lie_in_the_ranges_that_the_project_declares(name: str, extra: str, torch: str) -> None:
    pins = read_pins(name)
    assert pins["torch"] == [Version(torch)]
    for requirement in requirements(extra):
        versions = pins[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {versions}"
