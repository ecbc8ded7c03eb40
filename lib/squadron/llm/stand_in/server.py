"""The server: chat completions and embeddings on a free port of this machine, each address playing one kind."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from squadron.llm.chat import cut_at_stop
from squadron.llm.stand_in.profiles import Profile, Refusal, check_body, find_profile
from squadron.llm.stand_in.replies import choose_reply, plain_words

VECTOR_SIZE = 16
_BYTES_PER_TOKEN = 4


class StandIn:
    """Plays servers, for as long as the block runs.

        with StandIn() as server:
            address = server.play("o1", "https://api.openai.com/v1")

    What it says are `replies` to what the last message holds, else plain words. `requests` counts what was asked by
    kind of server, and `refused` by the parameter that a body was refused for.
    """

    def __init__(self, replies: Sequence[tuple[str, Sequence[str]]] = (), key: str | None = None) -> None:
        self.replies, self.key = list(replies), key
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._played: dict[str, Profile] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="squadron-stand-in", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def play(self, model: str, base_url: str) -> str:
        """The address at which the server that a model has at its own address is played."""
        return self.play_profile(find_profile(model, base_url))

    def play_profile(self, profile: Profile) -> str:
        """The address at which a server of this kind is played."""
        self._played[profile.name] = profile
        return f"http://127.0.0.1:{self._server.server_address[1]}/{profile.name}/v1"

    def answer(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON for a body that was posted to a path."""
        name, _, what = path.strip("/").partition("/v1/")
        profile = self._played.get(name)
        if profile is None or what not in ("chat/completions", "completions", "embeddings"):
            return 404, {"error": {"message": f"no such address: {path}"}}
        with self._lock:
            self.requests[name] += 1
        if what == "embeddings":
            return 200, _embeddings(body)
        try:
            check_body(profile, body)
        except Refusal as refusal:
            with self._lock:
                self.refused[refusal.param or "body"] += 1
            return 400, refusal.body
        return 200, self._complete(profile, body)

    def _complete(self, profile: Profile, body: dict[str, Any]) -> dict[str, Any]:
        messages, seed = _messages(body), body.get("seed")
        stops = body.get("stop") or []
        text = choose_reply(self.replies, messages, seed) or plain_words(messages, seed)
        text, _ = cut_at_stop(text, [stops] if isinstance(stops, str) else stops)
        most = body.get("max_completion_tokens") or body.get("max_tokens") or profile.most_tokens
        room = max(0, most - profile.reasons)
        whole = tokens(text) <= room
        text = text if whole else text.encode()[: room * _BYTES_PER_TOKEN].decode(errors="ignore")
        thought = min(profile.reasons, most)
        prompt, said = sum(tokens(str(one.get("content") or "")) for one in messages), thought + tokens(text)
        usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
        if profile.reasons:
            usage["completion_tokens_details"] = {"reasoning_tokens": thought}
        said_in = {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
        choice = {"index": 0, **said_in, "finish_reason": "stop" if whole else "length"}
        return {"id": "chatcmpl-0", "object": "chat.completion", "model": body["model"], "choices": [choice],
                "usage": usage}  # fmt: skip


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation; a prompt that was rendered is one message, as text or as tokens."""
    return body["messages"] if "messages" in body else [{"role": "user", "content": str(body["prompt"])}]


def tokens(text: str) -> int:
    """About so many tokens; at least one in any text."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = [[byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:VECTOR_SIZE]] for text in texts]
    rows = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(vectors)]
    return {"object": "list", "model": body["model"], "data": rows, "usage": {"prompt_tokens": 0, "total_tokens": 0}}


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._has_key():
            return
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        self._send(*self.stand_in.answer(self.path, body))

    def do_GET(self) -> None:
        if self._has_key():
            found = self.path.endswith("/v1/models")
            self._send(200 if found else 404, {"object": "list", "data": []} if found else {"error": "no such address"})

    def _has_key(self) -> bool:
        key = self.stand_in.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._send(401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})
        return False

    def _send(self, status: int, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: whoever runs this has a log of their own."""
