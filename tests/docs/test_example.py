"""The example of `docs/adding-a-method.md` is a method: it runs, reruns what a change concerns, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import squadron.methods
from squadron.core.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-method.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The job of the page, with its method where methods are looked for."""
    for name, code in re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(), re.S):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    methods = tmp_path / "lib" / "squadron" / "methods"
    monkeypatch.setattr(squadron.methods, "__path__", [*squadron.methods.__path__, str(methods)])
    return tmp_path / "jobs" / "trimmed_mean.py"


def test_the_example_runs_and_a_change_reruns_what_depends_on_it(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stages_run(*words: str) -> list[str]:
        capsys.readouterr()
        assert main(["run", str(example), *words, "--run", str(tmp_path / "run"), "--track", "none"]) == 0
        return re.findall(r"▸ (\w+)", capsys.readouterr().out)

    assert main(["plan", str(example), "--run", str(tmp_path / "run")]) == 0
    assert "100, 0.0 MB" in capsys.readouterr().out
    assert stages_run() == ["measure", "estimate"]
    (done,) = tmp_path.glob("run/stages/estimate-*/done.json")
    assert abs(json.loads(done.read_text())["output"]["mean"] - 1.0) < 0.1
    assert "trimmed mean" in (tmp_path / "run" / "report.html").read_text()
    assert stages_run() == []
    assert stages_run("estimate.digits=5") == []
    assert stages_run("estimate.trim=0.2") == ["estimate"]
    assert stages_run("measure.seed=1") == ["measure", "estimate"]
