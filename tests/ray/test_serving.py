"""A server on Ray Serve: what a run has trained answers over HTTP, and a server that cannot be is not started."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import ray

from squadron.core.cli import main
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.manifest import FORMAT
from squadron.methods.coordination.endpoint import Load, PlanRequest, services
from squadron.serve.runs import find_services
from squadron.serve.serving import start, stop
from squadron.serve.spec import KEYS, ServeSpec
from tests.drivers import free_port
from tests.finished import store_coordination_run

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROUTES = [[[0, 0], [10, 0]], [[5, -5], [5, 5]], [[3, 8], [3, -8]]]
KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(store_coordination_run(tmp_path_factory.mktemp("serving") / "run").path)


@pytest.fixture(scope="module")
def url(ray_cluster: object, run_folder: Path) -> Iterator[str]:
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEYS, f"another,{KEY}")
        start(services(Folder(run_folder)).services, ServeSpec(port=port, queue=2, timeout_s=120))
    yield f"http://127.0.0.1:{port}"
    stop()


def post(url: str, content: object, key: str = KEY) -> httpx.Response:
    return httpx.post(f"{url}/v1/plan", json=content, headers={"Authorization": f"Bearer {key}"}, timeout=180)


def test_a_plan_over_http_is_the_plan_of_the_library(url: str, run_folder: Path) -> None:
    answer = post(url, {"routes": ROUTES, "seed": 3})
    assert answer.status_code == 200
    (service,) = services(Folder(run_folder)).services
    assert isinstance(service.build, Load)
    expected = service.build().plan(PlanRequest(routes=ROUTES, seed=3)).model_dump(mode="json")
    assert answer.json() | {"seconds": 0} == expected | {"seconds": 0}
    assert len(answer.json()["robots"]) == 3 and len(answer.json()["encounters"]) == 2
    assert answer.json()["cost_name"] == "average_delay" and answer.json()["undisturbed"] == 0


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ({"routes": [[[0, 0], [5, 0]], [[0.1, 0], [5, 5]]]}, 400, "robots 0 and 1 overlap at their starts"),
        ({"routes": [[[0, 0], [5, 0]], [[3, 3]]]}, 400, "the route of robot 1 does not leave its start"),
        ({"routes": []}, 400, "routes: "),
        ({"routes": ROUTES, "cost": "average_completion"}, 400, "ask for average_delay"),
        ({"routes": ROUTES, "samples": 10**9}, 400, "samples: "),
        ({"routes": ROUTES, "limits": {"density": 0}}, 400, "limits.density: "),
        ({"routes": [[[0, 0], [1e400, 0]]]}, 400, ""),
    ],
)
def test_robots_that_cannot_be_planned_are_refused_over_http(url: str, content: object, status: int, said: str) -> None:
    import json

    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer = httpx.post(f"{url}/v1/plan", content=json.dumps(content), headers=headers, timeout=180)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


def test_nobody_is_answered_without_a_key(url: str) -> None:
    assert post(url, {"routes": ROUTES}, "wrong").status_code == 401
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "services": ["coordination"]}


def test_who_asks_whether_the_server_is_ready_takes_no_place_in_a_queue(url: str) -> None:
    heavy = {"routes": [[[3 * x, 0], [3 * x + 1, 20], [60 - 3 * x, 40]] for x in range(20)], "samples": 300}
    with ThreadPoolExecutor(9) as pool:
        at_work = pool.submit(post, url, heavy)
        asked = [pool.submit(httpx.get, f"{url}/ready") for _ in range(100)]
        assert {one.result().status_code for one in asked} == {200}
        assert post(url, {"routes": ROUTES}).status_code == 200 and at_work.result().status_code == 200


def test_haproxy_stands_before_ray_serve_and_is_started_again(url: str) -> None:
    assert httpx.get(f"{url}/-/routes").json()["error"]["message"] == "there is nothing here"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: " + b"a" * 2**15)
        assert connection.recv(12) == b"HTTP/1.1 400"
    (haproxy,) = [one for one in psutil.process_iter(["name"]) if one.name() == "haproxy" and _listens(one, url)]
    haproxy.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            assert httpx.get(f"{url}/health").status_code == 200
            return
        time.sleep(0.5)
    raise AssertionError("it is not started again")


def _listens(process: psutil.Process, url: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(f":{one.laddr.port}" == url[-1 - len(str(one.laddr.port)) :] for one in process.net_connections())
    return False


def test_more_requests_than_may_wait_are_sent_away_and_the_others_answered(url: str) -> None:
    heavy = {"routes": [[[3 * x, 0], [3 * x + 1, 20], [60 - 3 * x, 40]] for x in range(20)], "samples": 300}

    def ask(_: int) -> httpx.Response:
        return post(url, heavy)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429} and statuses.count(200) >= 3
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status_code == 429)
    plans = [answer.json() | {"seconds": 0} for answer in answers if answer.status_code == 200]
    assert all(plan == plans[0] for plan in plans)


def test_a_request_whose_replica_is_killed_is_answered_by_the_next(url: str) -> None:
    heavy = {"routes": [[[3 * x, 0], [3 * x + 1, 20], [60 - 3 * x, 40]] for x in range(20)], "samples": 1000}
    named = ray.util.list_named_actors(all_namespaces=True)
    (known,) = [one for one in named if one["name"].startswith("SERVE_REPLICA") and "coordination" in one["name"]]
    replica = ray.get_actor(known["name"], namespace=known["namespace"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, url, heavy)
        while not ray.get(replica.get_num_ongoing_requests.remote(), timeout=120):
            assert not waiting.done()
            time.sleep(0.01)
        ray.kill(replica)
        assert waiting.result().status_code == 200
    assert post(url, {"routes": ROUTES}).status_code == 200


def test_what_cannot_be_served_is_refused(tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        find_services(Folder(tmp_path))
    Folder(tmp_path).write_json("run.json", {"job": "flame", "format": FORMAT, "stages": []})
    with pytest.raises(InputError, match="choose_round has not finished"):
        find_services(Folder(tmp_path))
    Folder(tmp_path).write_json("run.json", {"job": "coordination", "format": FORMAT, "stages": []})
    with pytest.raises(InputError, match="the stage train_planners has not finished"):
        find_services(Folder(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(run_folder, broken)
    (broken / "config.yaml").write_text("sampling: {samples: [")
    with pytest.raises(InputError, match="the file is damaged"):
        find_services(Folder(broken))
    next(broken.glob("stages/*/graph-VAE/model/model.safetensors")).unlink()
    with pytest.raises(InputError, match=r"model has [\d,]+ bytes; [\d,]+ were written"):
        find_services(Folder(broken))
    monkeypatch.delenv(KEYS, raising=False)
    with pytest.raises(ConfigError, match="anybody who reaches"):
        start(services(Folder(run_folder)).services, ServeSpec(host="0.0.0.0"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot listen"):
            start(services(Folder(run_folder)).services, ServeSpec(port=taken.getsockname()[1]))


def test_settings_of_a_server_are_checked(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(run_folder), "prt=1"]) == 2
    assert "did you mean port" in "".join(capsys.readouterr())
