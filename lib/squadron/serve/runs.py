"""What runs have trained and offer to a server."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core import registry
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.manifest import check_manifest
from squadron.serve.service import Service, Services, compose


def gather_services(runs: Sequence[Folder], jobs: Sequence[str] = ()) -> list[Service]:
    """What is served of these runs, by one server. Raises InputError as `find_services` does."""
    return compose([service for run in runs for service in find_services(run, jobs).services])


def find_services(folder: Folder, jobs: Sequence[str] = ()) -> Services:
    """What the job of a run folder offers from what it has trained. The job is an installed one, or that of one of the
    files `jobs`, whose code is run. Raises InputError if the folder is no run, its job is neither or serves nothing, or
    training has not finished."""
    name = check_manifest(folder)["job"]
    if name.startswith("sweep of "):
        fix = f"serve one of its trials: {folder.url}/trials/…; its report names the best"
        raise InputError("a sweep trains nothing itself", where=str(folder), fix=fix)
    job = registry.load_job_of_run(name, str(folder), jobs)
    if job.services is None:
        raise InputError(f"nothing that {job.name} trains can be served", where=str(folder))
    offered: Services = job.services(folder)
    return offered
