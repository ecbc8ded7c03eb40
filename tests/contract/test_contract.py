"""What every job promises, and keeps: it finishes, does nothing twice, survives a kill, shows and serves what came out,
and tells what is wrong with its input. A new method needs a `tests/contract/<job>.py`."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squadron.core import registry
from squadron.core.cli import main
from squadron.core.config import load_config
from squadron.core.folder import Folder
from squadron.core.plan import plan_stages
from squadron.core.profile import Profile
from squadron.serve.runs import find_services
from tests.contract.record import (
    FILES,
    Contract,
    Refused,
    copy_run,
    failed_rows,
    find_contract,
    stages,
    unlike,
    write_files,
)
from tests.drivers import run_and_kill
from tests.finished import missing_metrics, one_line
from tests.html import Page
from tests.kills import differences

JOBS = sorted(registry.list_jobs())
SmokeRun = Callable[[str], Path]
REFUSED = [(job, bad) for job in JOBS for bad in find_contract(job).refused]
ANYWHERE = {"papper": "papper", "nowhere.yaml": "nowhere.yaml", "--profile laptp": "did you mean laptop?"}
"""What is wrong for every job, and what is said about it."""


def run(job: str, folder: Path, words: list[str]) -> int:
    return main(["run", job, *words, "--run", str(folder)])


def words_of(contract: Contract, smoke: Path) -> list[str]:
    """The words by which this smoke run was made."""
    return ["smoke", *write_files(smoke.with_name("files"), {}, contract.words)]


@pytest.mark.parametrize("job", JOBS)
def test_the_report_of_a_finished_run_opens_and_needs_nothing_else(
    job: str, smoke_run: SmokeRun, tmp_path: Path
) -> None:
    folder = copy_run(smoke_run(job), tmp_path / "run")
    before = (folder / "report.html").read_text()
    assert main(["report", str(folder)]) == 0
    for text in (before, (folder / "report.html").read_text()):
        page = Page(text)
        assert all(shown in text for shown in find_contract(job).panels)
        assert all(source.startswith("data:") for source in page.values("src"))
        assert "http://" not in text.replace("http://www.w3.org", "") and "<link" not in text


@pytest.mark.parametrize("job", JOBS)
def test_a_sweep_finds_what_it_compares(job: str, smoke_run: SmokeRun) -> None:
    assert not missing_metrics(smoke_run(job))


@pytest.mark.parametrize("job", JOBS)
def test_a_second_run_does_nothing(job: str, smoke_run: SmokeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = smoke_run(job)

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.glob("stages/**/*") if path.is_file()}

    before = written()
    assert run(job, folder, words_of(find_contract(job), folder)) == 0
    assert written() == before
    count = len(json.loads((folder / "run.json").read_text())["stages"])
    assert count and capsys.readouterr().out.count("finished before, kept") == count


def states(job: str, folder: Path, words: list[str]) -> list[tuple[str, bool]]:
    """Of each stage that a run with these words would have: its name, and whether it is finished."""
    found, (name, *settings) = registry.load_job(job), [word for word in words if not word.startswith("--")]
    settings = [word for word in settings if "=" in word]  # without the number behind --workers
    config = load_config(found.config_type, registry.find_config(job, name), settings)
    plan = plan_stages(found, config, Folder(folder), Profile(name="auto"))
    return [(stage, state == "finished") for stage, _, state in plan.steps]


@pytest.mark.parametrize("job", JOBS)
def test_a_setting_that_decides_nothing_runs_no_stage_again(job: str, smoke_run: SmokeRun) -> None:
    contract, folder = find_contract(job), smoke_run(job)
    assert len(contract.no_effect) >= 3
    for word in contract.no_effect:
        planned = states(job, folder, [*words_of(contract, folder), word])
        assert all(finished for _, finished in planned), (word, planned)


@pytest.mark.parametrize("job", JOBS)
def test_a_late_setting_runs_its_stage_again_and_those_after_it_alone(job: str, smoke_run: SmokeRun) -> None:
    contract, folder = find_contract(job), smoke_run(job)
    assert contract.late
    for word, stage in contract.late.items():
        planned = states(job, folder, [*words_of(contract, folder), word])
        again = next(name for name, finished in planned if not finished)
        assert again == stage, (word, planned)


@pytest.mark.parametrize("job", JOBS)
def test_every_service_answers_the_request_that_its_page_offers(job: str, smoke_run: SmokeRun) -> None:
    folder = smoke_run(job)
    offered: Any = find_services(Folder(folder))
    for service in offered.services:
        server = service.build()
        for route in service.routes:
            if route.example is not None:
                model = {"model": service.models[0]} if service.models else {}
                answer = getattr(server, route.method)(route.request.model_validate(model | route.example))
                answer = asyncio.run(answer) if inspect.iscoroutine(answer) else answer
                assert isinstance(answer, route.response)
        getattr(server, "close", lambda: None)()


@pytest.mark.parametrize("job", JOBS)
def test_a_run_that_is_killed_and_given_again_ends_as_one_that_nobody_disturbed(
    job: str, smoke_run: SmokeRun, tmp_path: Path
) -> None:
    contract, folder = find_contract(job), tmp_path / "run"
    words = words_of(contract, smoke_run(job))
    if contract.from_copy is not None:
        _go_back(copy_run(smoke_run(job), folder), contract.killed_in, contract.from_copy)

    def half_way() -> bool:
        return any(folder.glob(contract.half_way))

    assert not half_way()
    run_and_kill(folder, [job, *words, *contract.killed_words], half_way)
    assert not any(folder.glob(f"stages/{contract.killed_in}-*/done.json"))
    kept = {path: path.stat().st_mtime_ns for path in folder.glob(contract.kept)}
    assert run(job, folder, [*words, *contract.again]) == 0
    assert failed_rows(folder) == failed_rows(smoke_run(job))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    found, undisturbed = contract.same(folder), contract.same(smoke_run(job))
    assert unlike(found, undisturbed) == [], "what differs, by its place"
    assert found == undisturbed != {}
    if not contract.again:  # with other settings than the smoke run's it reports another thing
        assert differences(smoke_run(job), folder) == []


def _go_back(folder: Path, stage: str, files: tuple[str, ...] | list[str]) -> None:
    """Make of a finished run one that has come as far as this stage, and has none of these files."""
    names = json.loads((folder / "run.json").read_text())["stages"]
    first = stages(folder, stage)[0].name
    paths = [folder / "stages" / name for name in names[names.index(first) :]]
    for path in [*paths, *(path for pattern in files for path in folder.glob(pattern))]:
        shutil.rmtree(path)


@pytest.mark.parametrize(("job", "bad"), REFUSED, ids=[f"{job}-{bad.said}" for job, bad in REFUSED])
def test_bad_input_is_refused_in_words_before_the_work_starts(
    job: str, bad: Refused, ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract, folder = find_contract(job), tmp_path / "run"
    (tmp_path / "files").mkdir()
    keys = {word.partition("=")[0] for word in bad.words}
    words = [word for word in contract.words if FILES not in word and word.partition("=")[0] not in keys]
    words += write_files(tmp_path / "files", bad.files, bad.words)
    assert run(job, folder, ["smoke", *words]) == 2
    said = one_line(capsys)
    assert bad.said in said, said
    assert not any(folder.glob(contract.spared))


@pytest.mark.parametrize("words", ANYWHERE)
@pytest.mark.parametrize("job", JOBS)
def test_a_configuration_or_profile_that_is_not_there_is_named(
    job: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(job, tmp_path / "run", words.split()) == 2
    assert ANYWHERE[words] in one_line(capsys)
