"""What a cluster is to be: wrong specifications are refused, and what is rendered of right ones keeps every rule."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.cluster.rendering.autoscaler import cloud_file
from squadron.cluster.rendering.kuberay import entrypoint, ray_manifest
from squadron.cluster.rendering.render import render
from squadron.cluster.rendering.spec import ClusterSpec, Image, is_pinned
from squadron.cluster.validation.check import find_problems
from squadron.core.config import from_values
from squadron.core.errors import ConfigError
from squadron.core.profile import PROFILES
from tests.manifest_parts import RENDERED, schemas

LEAST: dict[str, Any] = {
    "name": "a", "image": "example.org/squadron:1", "profile": "h200", "storage": {"claim": "runs"},
}  # fmt: skip
_KEYS = {"name": "keys", "key": "keys"}


def _spec(**settings: Any) -> ClusterSpec:
    return from_values(ClusterSpec, LEAST | settings, {})


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("name", {"name": "Upper"}),
        ("name", {"name": "a" * 25}),
        ("image", {"image": "example.org/squadron"}),
        ("image", {"image": "example.org/squadron:latest"}),
        ("profile", {"profile": "8xh10"}),
        ("imag", {"imag": "example.org/squadron:1"}),
        ("storage", {"storage": {}}),
        ("storage", {"storage": {"claim": "runs", "url": "s3://bucket/runs"}}),
        ("storage", {"storage": {"claim": "runs", "secret": "s3"}}),
        ("storage", {"storage": {"url": "s3://key:a-secret-key@bucket/runs"}}),
        ("env", {"env": {"HF_TOKEN": "hf_abcdefghijkl"}}),
        ("env", {"env": {"STORE": "https://me:password-1@example.org"}}),
        ("env", {"env": {"no name": "1"}}),
        ("stands in env and in secrets", {"env": {"A": "1"}, "secrets": {"A": {"name": "a", "key": "a"}}}),
        ("secrets", {"secrets": {"HF_TOKEN": "hf_abcdefghijkl"}}),
        ("machines", {"machines": {"min": 2}}),
        ("no machines", {"profile": "laptop"}),
        ("cpu: min", {"cpu_group": {"min": 5}}),
        ("job or service", {"job": {"words": ["run", "flame"]}, "service": {"runs": ["a"], "api_keys": _KEYS}}),
        ("job", {"job": {"words": ["serve", "runs/a"]}}),
        ("job", {"job": {"words": ["run", "finetune", "judge.api_key=abcdefgh12345"]}}),
        ("service", {"service": {"runs": [], "api_keys": _KEYS}}),
        ("api_keys", {"service": {"runs": ["a"]}}),
        ("tolerations", {"machines": {"tolerations": [{"key": "a", "operator": "Equal"}]}}),
        ("grace_s", {"grace_s": 5}),
        ("machine_type", {"clouds": [{
            "provider": "gcp", "project": "project-1", "region": "us-central1", "zone": "us-central1-a",
            "subnetwork": "s", "machine_image": "m",
        }]}),
        ("clouds", {"clouds": [{"provider": "azure"}]}),
    ],
)  # fmt: skip
def test_a_wrong_specification_is_refused_by_its_key(key: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        _spec(**settings)
    assert key in str(error.value)
    assert "abcdefgh" not in str(error.value) and "password-1" not in str(error.value)


def test_settings_of_a_service_are_those_that_squadron_serve_takes() -> None:
    with pytest.raises(ConfigError, match="replica"):
        render(_spec(service={"runs": ["a"], "settings": {"replica": 2}, "api_keys": _KEYS}))


@pytest.mark.parametrize(("words", "named"), [(["run", "flme"], "flame"), (["run", "flame", "papr"], "paper")])
def test_a_job_and_its_configuration_are_those_that_there_are(words: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        render(_spec(job={"words": words}))
    assert named in str(error.value)


def test_what_a_service_names_builds_the_server_of_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serveConfigV2` as Ray Serve reads it: its import path is called with its arguments."""
    from ray._common.utils import import_attr
    from ray.serve import Application

    from tests.finished import store_flame_run

    monkeypatch.setenv("SQUADRON_API_KEYS", "a-key")
    run = store_flame_run(tmp_path / "run", 16)
    manifest = ray_manifest(_spec(service={"runs": [str(run)], "settings": {"replicas": 2}, "api_keys": _KEYS}))
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    (described,) = config["applications"]
    assert isinstance(import_attr(described["import_path"])(described["args"]), Application)
    assert config["http_options"]["host"] == "127.0.0.1", "HAProxy is before it"


def test_a_job_runs_in_the_storage_by_the_profile_unless_it_says_so_itself() -> None:
    spec = _spec(storage={"url": "s3://bucket/runs"}, job={"words": ["run", "flame", "paper", "name=a b"]})
    assert spec.job is not None
    words = ["squadron", "run", "flame", "paper", "name=a b", "--run", "s3://bucket/runs/a", "--profile", "h200"]
    assert shlex.split(entrypoint(spec, spec.job)) == words
    own = _spec(job={"words": ["run", "flame", "--run=/runs/b", "--profile", "auto"]})
    assert own.job is not None
    assert shlex.split(entrypoint(own, own.job)) == ["squadron", *own.job.words]


@st.composite
def _specs(draw: st.DrawFn) -> ClusterSpec:
    """Every part of a specification, with and without the others."""
    least, most = sorted(draw(st.tuples(st.integers(0, 8), st.integers(1, 8))))
    place = {"node_selector": {"kind": "big"}, "tolerations": [{"key": "nvidia.com/gpu"}]}
    chosen: dict[str, Any] = {
        "profile": draw(st.sampled_from(sorted(PROFILES))),
        "head": {"cpus": draw(st.integers(1, 64)), "memory_gb": draw(st.integers(4, 512))},
        "machines": {"min": least, "max": max(most, 1), **draw(st.sampled_from([{}, place]))},
        "cpu_group": {"cpus": draw(st.integers(1, 64)), "memory_gb": draw(st.integers(1, 512)), "min": 1, "max": 3},
        "storage": draw(st.sampled_from([{"claim": "runs"}, {"url": "s3://bucket/runs", "secret": "s3"}])),
        "tls": draw(st.sampled_from([None, {}])),
        "redis": draw(
            st.sampled_from([None, {"password": _KEYS}, {"address": "redis.example.org:6379", "password": _KEYS}])
        ),
        "secrets": draw(st.sampled_from([{}, {"HF_TOKEN": _KEYS}])),
        "env_from": draw(st.sampled_from([[], ["more"]])),
        "grace_s": draw(st.integers(30, 3600)),
    }
    chosen |= draw(
        st.sampled_from(
            [
                {},
                {"job": {"words": ["run", "flame"]}},
                {"service": {"runs": ["a", "s3://bucket/b"], "settings": {"replicas": 2}, "api_keys": _KEYS}},
            ]
        )
    )
    return _spec(**chosen)


@settings(max_examples=25, deadline=None)
@given(_specs())
def test_whatever_is_rendered_is_valid_and_asks_for_a_token(spec: ClusterSpec) -> None:
    for text in render(spec).values():
        for document in yaml.safe_load_all(text):
            assert find_problems(document, schemas()) == []
    text = yaml.safe_dump(ray_manifest(spec))
    assert "mode: token" in text and ("RAY_USE_TLS" in text) == (spec.tls is not None)


@pytest.mark.parametrize(
    ("image", "pinned"),
    [
        ("a:1", True), ("example.org:5000/a/b:v1.2-3", True), ("a@sha256:" + "0" * 64, True),
        ("a:1@sha256:" + "0" * 64, True), ("a", False), ("a:latest", False), ("example.org:5000/a", False),
        ("a:", False), ("a@sha256:0", False), ("A b:1", False), (None, False),
    ],
)  # fmt: skip
def test_an_image_is_known_by_a_tag_or_a_digest(image: Any, pinned: bool) -> None:
    assert Image is not None and is_pinned(image) is pinned


@pytest.mark.parametrize("file", sorted(RENDERED.glob("*/ray-up/*.yaml")), ids=lambda path: path.stem)
def test_ray_takes_the_files_of_ray_up(file: Path) -> None:
    """By its own reader, which fills in what is missing and holds the whole to its schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(file.read_text())
    assert find_problems(config, {}) == []
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] >= 1 and prepared["head_node_type"] in prepared["available_node_types"]
    assert all("0.0.0.0" not in command for command in prepared["head_start_ray_commands"])


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("docker.image", "gpu:0.1.0", "gpu:latest"),
        ("setup_commands", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        ("head_start_ray_commands", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        ("available_node_types.cpu.min_workers", "min_workers: 1", "min_workers: 9"),
        ("max_worker", "max_workers: 6", "max_worker: 6"),
        ("max_workers", "max_workers: 6", "max_workers: many"),
        ("provider", "type: aws", "kind: aws"),
        ("cluster_name", "cluster_name: train", "cluster: train"),
    ],
)  # fmt: skip
def test_a_broken_file_of_ray_up_is_refused_by_its_path(path: str, old: str, new: str) -> None:
    text = (RENDERED / "train" / "ray-up" / "aws.yaml").read_text()
    assert old in text
    problems = find_problems(yaml.safe_load(text.replace(old, new)), {})
    assert any(path in str(problem) for problem in problems), [str(one) for one in problems]


def test_the_environment_of_a_node_is_what_its_commands_read(tmp_path: Path) -> None:
    """The command that writes the file is run by a shell, and the file is read by one."""
    spec = _spec(
        secrets={"HF_TOKEN": _KEYS},
        env={"WORDS": 'two "words" $HOME'},
        clouds=[{"provider": "local", "head": "h", "workers": ["w"]}],
    )
    described = cloud_file(spec, spec.clouds[0])
    (tmp_path / ".squadron" / "cluster").mkdir(parents=True)
    (tmp_path / ".squadron" / "cluster" / "env").write_text("HF_TOKEN=of-the-hub\n")
    told = ". ~/.squadron/environment && env"
    done = subprocess.run(
        ["/bin/sh", "-ec", f"{described['setup_commands'][0]}\n{told}"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found["RAY_AUTH_TOKEN_PATH"] == f"{tmp_path}/.squadron/cluster/token"
    assert found["RAY_TLS_SERVER_KEY"] == f"{tmp_path}/.squadron/tls/tls.key"
    assert (found["RAY_AUTH_MODE"], found["WORDS"]) == ("token", 'two "words" $HOME')
    assert found["HF_TOKEN"] == "of-the-hub"
    assert "of-the-hub" not in str(described)
