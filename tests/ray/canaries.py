"""A job that meets secrets wherever one can be met, and a driver that runs, plans, sweeps and serves it.

python canaries.py FOLDER: the secrets are those of the environment variables that begin with CANARY_.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from pydantic import BaseModel

from squadron.core.config import Config, operational
from squadron.core.errors import InputError
from squadron.core.inputs import InputPath
from squadron.core.job import job
from squadron.core.panels import Text
from squadron.core.rows import map_rows
from squadron.core.run import Run, Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.batch.collect import QUESTION_TYPES, CollectConfig, collect
from squadron.llm.chat import user
from squadron.llm.settings import AnyModel
from squadron.serve.service import Route, Service, Services


class Settings(Config):
    """Secrets of every kind, and a number to vary."""

    models: tuple[AnyModel, ...] = ()
    data: InputPath
    password: str
    headers: dict[str, Any] = {}
    rate: float = 1.0
    worker_log: str = operational("")


class Asked(Config):
    """What came of it."""

    source: InputPath
    failed: int


def ask(stage: Stage, settings: Settings) -> Asked:
    """Ask servers that repeat what they are sent, and let rows fail with secrets on their lips."""
    write_rows(stage.folder, "questions.arrow", [{"id": "1", "instruction": "Well?"}], QUESTION_TYPES)
    rows = ArrowRows(stage.folder, ["questions.arrow"])
    answers = collect(stage, rows, settings.models, CollectConfig()) if settings.models else []
    map_rows(stage, [{"id": str(number)} for number in range(2)], fail, settings=settings, timeout_s=60)
    stage.log(1, value=settings.rate)
    stage.measure(value=settings.rate)
    stage.show(Text(title="What was said", text=f"{settings.password} {settings.data} {os.environ['CANARY_TOKEN']}"))
    return Asked(source=settings.data, failed=sum(one.failed for one in answers))


class fail:
    """A worker's row that fails."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, row: Any) -> Any:
        raise ValueError(f"cannot read {self._settings.data} with {os.environ['CANARY_TOKEN']} ({self._settings!r})")


class Question(BaseModel):
    """A request."""

    text: str


def services(folder: Any) -> Services:
    """What answers a request with an error that holds a secret."""
    route = Route("/v1/ask", "ask", Question, Question, "Ask")
    return Services((Service("canaries", Loaded, (route,)),))


class Loaded:
    """A model that fails."""

    def ask(self, request: Question) -> Question:
        if request.text == "known":
            raise InputError(
                f"no: {os.environ['CANARY_TOKEN']}", where=f"https://u:{quote(os.environ['CANARY_URL'], safe='')}@host"
            )
        raise ValueError(f"a mistake: {os.environ['CANARY_TOKEN']}")


@job(Settings, services=services, metrics={"value": "max"})
def canaries(run: Run, config: Settings) -> None:
    """Meet secrets."""
    run.stage(ask, config)


class Echo(BaseHTTPRequestHandler):
    """Repeats what it is sent, with the state that the model's name says."""

    def do_GET(self) -> None:
        """A file, or a list of models."""
        self._answer(200, b'{"id": "1"}\n')

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """An answer that holds all that came."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)
        said = f"{dict(self.headers)} {base64.b64encode(body).decode()} {quote(body)} {self.path} {body.decode()}"
        status = int(asked["model"])
        answer: Any = {"choices": [{"message": {"content": f"key {self.headers['Authorization']}"}}]}
        self._answer(status, json.dumps(answer if status == 200 else {"error": {"message": said}}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def listening() -> set[str]:
    """The addresses on which this process and those that it has started listen."""
    own, sockets = psutil.Process(), []
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            sockets += process.net_connections("tcp")
    return {one.laddr.ip.removeprefix("::ffff:") for one in sockets if one.status == psutil.CONN_LISTEN}


def main(place: Path) -> None:
    """Run the job with secrets in all places: well, badly, again with others, as a plan, a sweep and a server."""
    import httpx

    from squadron.core.cli import main as command
    from squadron.core.folder import Folder
    from squadron.serve.runs import gather_services
    from squadron.serve.serving import start, stop
    from squadron.serve.spec import ServeSpec
    from tests.drivers import free_port

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    secret = {name: os.environ[f"CANARY_{name}"] for name in ("SETTING", "URL", "QUERY", "BODY", "OTHER", "HEADER")}
    host = f"127.0.0.1:{server.server_address[1]}"
    query, password = quote(secret["QUERY"], safe=""), quote(secret["URL"], safe="")
    common = {"provider": "openai", "base_url": f"http://{host}/v1?api_key={query}", "max_attempts": 1,
              "api_key_env": "CANARY_TOKEN", "extra_body": {"api_key": secret["BODY"]}}  # fmt: skip

    def settings(*states: int, told: str = secret["SETTING"]) -> str:
        models = [{**common, "name": f"model{state}", "model": str(state)} for state in states]
        values = {"models": models, "password": told, "headers": {"Authorization": secret["HEADER"]},
                  "data": f"http://user:{password}@{host}/data.jsonl?sig={query}"}  # fmt: skip
        path = place / f"settings-{'-'.join(map(str, states))}-{len(told)}.yaml"
        path.write_text(json.dumps(values))
        return str(path)

    file, run = __file__, str(place / "run")
    print([
        command(words)
        for words in (
            ["plan", file, settings(200, 400), "--full", "--run", run],
            ["run", file, settings(200, 400), "--run", run],
            ["run", file, settings(200, 400, told=secret["OTHER"] + "+"), "--run", run],
            ["run", file, settings(401), "--run", str(place / "refused")],
            ["run", file, settings(200), f"api_kye={secret['SETTING']}", "--run", run],
            ["run", file, settings(200), f"rate=https://u:{password}@h", "--run", run],
            ["report", run],
            ["sweep", file, settings(), "--over", "rate=1,2", "--trials", "2", "--run", str(place / "sweep")],
        )
    ])  # fmt: skip
    port = free_port()
    start(gather_services([Folder(run)], [file]), ServeSpec(port=port))
    url = f"http://127.0.0.1:{port}"
    pages = [httpx.get(f"{url}{path}", headers={"Authorization": f"Bearer {os.environ['CANARY_CLIENT']}"}).text
             for path in ("/", "/metrics", "/stats", "/openapi.json", "/v1/models", "/health", "/ready")]  # fmt: skip
    for key in (os.environ["CANARY_CLIENT"], os.environ["CANARY_GUESS"]):
        for text in ("known", os.environ["CANARY_PROMPT"]):
            headers = {"Authorization": f"Bearer {key}"}
            pages.append(httpx.post(f"{url}/v1/ask?api_key={key}", json={"text": text}, headers=headers).text)
    (place / "pages.txt").write_text("\n".join(pages))
    print("listening:", *sorted(listening()))
    stop()
    raise RuntimeError(f"a mistake of ours that tells {os.environ['CANARY_TOKEN']} and {user(secret['URL'])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
