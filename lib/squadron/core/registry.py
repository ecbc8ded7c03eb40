"""Where jobs and their configurations are: inside an installed package, or at the root of a source checkout."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squadron.core.errors import ConfigError, InputError, suggest

if TYPE_CHECKING:
    from squadron.core.job import Job

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parents[1]


def find_folder(name: str) -> Path:
    """The folder `jobs` or `configs`, as installed with the package or as checked out."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _CHECKOUT / name


def list_jobs() -> dict[str, str]:
    """Name and one-line summary of every job, without importing any."""
    jobs = {}
    for path in sorted(find_folder("jobs").glob("*.py")):
        if not path.name.startswith("_"):
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            jobs[path.stem] = doc.partition("\n")[0]
    return jobs


def list_configs(job: str) -> list[str]:
    """Names of the configurations that ship with a job."""
    return sorted(path.stem for path in (find_folder("configs") / job).glob("*.yaml"))


def load_job(name: str) -> Job:
    """Import a job by name, or by the path of a file of one's own, whose job is called as the file is.

    For names that the command line gives: a path runs the file. What a run folder calls its job is given to
    `load_job_of_run`. Raises ConfigError with the nearest name if there is none.
    """
    own = name.endswith(".py")
    if not own and not name.isidentifier():
        raise ConfigError(f"no job can be called {name!r}", fix=suggest(name, list_jobs()))
    path = Path(name).absolute() if own else find_folder("jobs") / f"{name}.py"
    name = path.stem
    if not path.is_file():
        if own:
            raise ConfigError("no such file", where=str(path), fix="give the path of a job, or a name that `ls` shows")
        raise ConfigError(f"no job called {name!r}", where=str(path.parent), fix=suggest(name, list_jobs()))
    module_name = f"squadron_job_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    if own:
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(module)  # workers would look for it among installed packages
    job: Job | None = getattr(module, name, None)
    if job is None:
        raise ConfigError(f"the file has no job called {name!r}", where=str(path), fix=f"name its recipe {name}")
    return job


def load_job_of_run(name: str, folder: str, files: Sequence[str] = ()) -> Job:
    """The job that a run folder names: one that is installed, or that of one of these `files`, which the command line
    names. A run folder may be anybody's: what it says is never the path of code.

    Raises InputError if it is neither.
    """
    own = {Path(file).stem: file for file in files}
    if name not in own and (not name.isidentifier() or name not in list_jobs()):
        what = f"this run is of the job {name!r}, which is not installed here"
        raise InputError(what, where=folder, fix=f"if you trust the job's file, name it: --job {name}.py")
    return load_job(own.get(name, name))


def find_config(job: str, name: str | None) -> Path | None:
    """A configuration by path, or by the name of one that ships with the job; `demo` if none is named."""
    if name is not None and (name.endswith((".yaml", ".yml")) or "/" in name):
        return Path(name)
    shipped = find_folder("configs") / job / f"{name or 'demo'}.yaml"
    if shipped.is_file():
        return shipped
    if name is None:
        return None
    fix = f"{suggest(name, list_configs(job))} (or give the path of a .yaml file)"
    raise ConfigError(f"{job} has no configuration called {name!r}", where=str(shipped.parent), fix=fix)
