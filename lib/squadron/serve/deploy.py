"""A server as a file for `serve deploy`, Ray Serve's way to run in production: what is changed in it is rolled out.

squadron serve runs/demo runs/other port=80 --deploy-file server.yaml
serve deploy server.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from squadron.core.config import from_values
from squadron.core.errors import ConfigError
from squadron.core.folder import Folder
from squadron.core.masking import mask_secrets
from squadron.serve.runs import gather_services
from squadron.serve.serving import http_options
from squadron.serve.spec import ServeSpec

_INNER_PORTS = (8001, 8002)


def config_file(runs: Sequence[Folder], spec: ServeSpec, jobs: Sequence[str] = ()) -> str:
    """The file, by the schema of Ray Serve's `ServeDeploySchema`. Keys stay in the environment of the cluster; files of
    one's own `jobs` must be there too, at the same paths."""
    if spec.proxy == "auto":
        spec = spec.model_copy(update={"proxy": "haproxy"})
    if spec.proxy == "haproxy" and spec.inner_port is None:
        spec = spec.model_copy(update={"inner_port": next(port for port in _INNER_PORTS if port != spec.port)})
    settings = spec.model_dump(mode="json", exclude_unset=True)
    for run in runs:
        if mask_secrets(run.url) != run.url:
            fix = "give the store its key by the environment, or by a file of its own"
            raise ConfigError("a secret in the URL of a run would stand in the file", where=run.url, fix=fix)
    arguments: dict[str, Any] = {"runs": [run.url for run in runs], "settings": settings}
    if jobs:
        arguments["jobs"] = list(jobs)
    config = {
        "proxy_location": "EveryNode",
        "http_options": http_options(spec),
        "logging_config": {"enable_access_log": False, "encoding": "JSON"},
        "applications": [
            {
                "name": "squadron",
                "route_prefix": "/",
                "import_path": "squadron.serve.deploy:build",
                "args": arguments,
            }
        ],
    }
    return yaml.safe_dump(config, sort_keys=False)


def build(arguments: dict[str, Any]) -> Any:
    """The application that a file describes, for Ray Serve to run. Raises SquadronError for runs that have nothing to
    serve, and ConfigError for settings that are wrong, or a server that nobody would need a key for."""
    from squadron.serve.serving import application, keys

    spec = from_values(ServeSpec, arguments["settings"], {})
    services = gather_services([Folder(run) for run in arguments["runs"]], arguments.get("jobs", ()))
    return application(services, spec, keys(spec))
