"""Nothing that is secret stands in what we write or print, in whatever form, and nothing else is touched."""

from __future__ import annotations

import base64
import html
import json
import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core import console, masking
from squadron.core.config import Config, changes, load_config, to_yaml
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath
from squadron.core.masking import mask_secrets, mask_text, masked_keys, remember_secret, remember_secrets
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.serve.deploy import config_file
from squadron.serve.spec import ServeSpec
from squadron.tune.space import parse_space

CANARY = "c4nary/+\"Vogel'9&z"


@pytest.fixture(autouse=True)
def forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", set())


@pytest.mark.parametrize(
    "text",
    [
        "https://{}@host/x",
        "http://user:{}@host:80/a?b=c",
        "redis://:{}@h/0",
        "s3://AKIA1:{}/d+e@bucket/k",
        "fix: https://host/a?api_key={}&n=1",
        "https://h/?x=1&X-Amz-Signature={}",
        "https://h/?a=1&amp;sig={}",
        "https://h/?AWSAccessKeyId={}",
        "https://h/?subscription-key={}#part",
        "Authorization: Bearer {}",
        '{{"authorization": "Basic {}"}}',
        "OpenAiModel(name='x', api_key='{}')",
        '"{{\\"password\\": \\"{}\\"}}"',
        "client_secret={}",
        "access_token: {}",
    ],
)
def test_secrets_are_known_by_their_places(text: str) -> None:
    said = text.format("hunter2Xyz")
    assert "hunter2" not in mask_text(said) and mask_text(mask_text(said)) == mask_text(said)


@pytest.mark.parametrize(
    "text",
    [
        "abfs://container@account.dfs.core.windows.net/path?x=1",
        "ssh://git@host/repository",
        "http://host:8080/a@b",
        "http://[::1]:8000/a",
        "mail a@b.c, see http://x.y/z",
        "<svg xmlns='http://www.w3.org/2000/svg'>a@b</svg>",
        "basic arithmetic and a bearer of news",
        "api_key: should be a valid text",
        "export OPENAI_API_KEY=… before starting",
        "the variable SQUADRON_API_KEYS=alice:…",
        "max_tokens=512, tokens: 30000, keyboard=german1",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert mask_text(text) == text


def _forms(secret: str) -> list[str]:
    coded = [base64.b64encode(before + secret.encode() + b"more").decode() for before in (b"", b"a", b"ab", b"user:")]
    return [secret, json.dumps(secret), json.dumps(json.dumps(secret)), repr(secret), html.escape(secret),
            quote(secret), quote(secret, safe=""), *coded]  # fmt: skip


def test_values_of_the_environment_are_known_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", CANARY)
    monkeypatch.setenv("SQUADRON_API_KEYS", f"alice:{CANARY}-1,{CANARY}-2")
    for form in _forms(CANARY):
        said = mask_text(f"the server says: {form}.")
        assert "c4nary" not in said and CANARY[3:12] not in said and "***masked***" in said, form
    assert mask_text(f"{CANARY}-2 and {CANARY}-1") == "***masked*** and ***masked***"


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8"), min_size=8, max_size=30).filter(lambda text: len(text.strip()) >= 8))
def test_any_remembered_secret_is_found(secret: str) -> None:
    if set(secret) <= set("*masked "):
        return
    remember_secret(secret)
    try:
        assert all(secret.strip() not in mask_text(f"<{form}>") for form in _forms(secret.strip()))
    finally:
        masking._known.clear()


def test_a_path_and_a_short_word_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/somebody/credentials.json")
    monkeypatch.setenv("DB_PASSWORD", "postgres"[:5])
    text = "read /home/somebody/credentials.json for postgres"
    assert mask_text(text) == text


class Part(Config):
    base_url: str = ""
    api_key: str | None = None
    extra: dict[str, Any] = {}
    rate: float = 1.0


class Whole(Config):
    part: Part = Part()
    parts: list[Part] = []
    data: InputPath | None = None
    pin_password: int = 0


def test_settings_are_masked_wherever_they_lie(tmp_path: Path) -> None:
    values = {
        "parts": [
            {"api_key": CANARY, "extra": {"headers": {"Authorization": CANARY}, "apiKeys": [CANARY, {"a": 12345678}]}}
        ],
        "data": f"https://user:{quote(CANARY, safe='')}@host/a.jsonl?sig=zz{quote(CANARY, safe='')}",
    }  # fmt: skip
    config = Whole.model_validate(values)
    written = to_yaml(config)
    assert "c4nary" not in written and "12345678" not in written and "host/a.jsonl" in written
    masked = mask_secrets(config.model_dump(mode="json"))
    assert list(masked_keys(masked)) == [
        "parts.0.api_key", "parts.0.extra.headers.Authorization", "parts.0.extra.apiKeys.0",
        "parts.0.extra.apiKeys.1.a", "data",
    ]  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(Whole(data=InputPath("https://u:pw@host/a"))))
    with pytest.raises(ConfigError, match=r"data holds a secret that was masked\n.*line"):
        load_config(Whole, path)
    assert load_config(Whole, path, ["data=https://u:other@host/a"]).data == "https://u:other@host/a"


@pytest.mark.parametrize(
    "word",
    [
        "pin_password=" + CANARY,
        "part.api_key.x=" + CANARY,
        "part.api_kye=" + CANARY,
        "part.rate=https://user:c4nary@host",
        "part.rate=https://host?key=c4nary",
        "part.extra={api_key: c4nary, ",
        "parts=[{api_key: c4nary, rate: fast}]",
    ],
)
def test_errors_about_settings_do_not_tell_secrets(word: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(Whole, None, [word])
    assert "c4nary" not in f"{raised.value} {raised.value!r} {raised.value.args}", str(raised.value)
    assert word.partition("=")[0].split(".")[0] in str(raised.value), "what is wrong is told"


def test_what_changed_is_told_without_secrets() -> None:
    old, new = (
        {"a": {"api_key": "one", "n": 1, "url": "https://u:p@h"}},
        {"a": {"api_key": "two", "n": 2, "url": "https://u:q@h"}},
    )
    assert changes(old, new) == ["a.n 1 → 2"]
    assert changes({"a": {}, "b": 1}, new | {"b": 1})[1] == "a.api_key None → ***"


def test_errors_are_masked_also_on_their_way_between_processes() -> None:
    remember_secrets({"extra_body": {"password": CANARY}})
    error = InputError(f"no answer: {CANARY}", where="https://a:b@h", fix=f"not {quote(CANARY, safe='')}")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert "c4nary" not in repr(one) + str(one) and "https://***@h" in str(one)


def test_what_is_printed_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    remember_secret(CANARY)
    console._console.cache_clear()
    console.say(f"a {CANARY}")
    console.complain(f"b {CANARY}")
    console.table(("c",), [(CANARY,)])
    console._console.cache_clear()
    printed = capsys.readouterr()
    assert "c4nary" not in printed.out + printed.err and printed.out.count("***masked***") == 2


def test_what_libraries_log_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    remember_secret(CANARY)
    usual, log = logging.getLogRecordFactory(), logging.getLogger("some.library")
    handler = logging.StreamHandler()
    log.addHandler(handler)
    try:
        masking.mask_logs()
        masking.mask_logs()
        log.error("asked %s for %d", f"https://a:{CANARY[:6]}@host", 5)
        try:
            raise ValueError(CANARY)
        except ValueError:
            log.exception("plain %s", "words")
    finally:
        log.removeHandler(handler)
        logging.setLogRecordFactory(usual)
    printed = capsys.readouterr().err
    assert "asked https://***@host for 5" in printed and "plain words\nTraceback" in printed
    assert "ValueError: ***masked***" in printed and "c4nary" not in printed


def test_a_secret_is_not_varied() -> None:
    with pytest.raises(ConfigError, match="is a secret and is not varied"):
        parse_space(["part.api_key=a,b"], Whole)


class Read(Config):
    """What a stage found."""

    source: InputPath


def read(stage: Stage, data: InputPath, part: Part) -> Read:
    """Read a file."""
    stage.fail("1", f"refused: {CANARY}", retry=False)
    stage.headline("key", CANARY)
    return Read(source=data)


def test_a_kept_stage_returns_its_inputs_with_the_secrets_of_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console._console.cache_clear()
    remember_secret(CANARY)
    url = "memory://user:first@nowhere/a"
    for key in ("a", "b"):
        run = Run("reading", Whole(), Folder(tmp_path), Profile(name="auto"), track=())
        run.open()
        part = Part(api_key=f"{key}-{CANARY}")
        assert run.stage(read, InputPath(url), part).source == url
        assert run.stage(read, InputPath(url), part).source == url
        run.close()
    console._console.cache_clear()
    printed = capsys.readouterr().out
    assert "what is in memory://***@nowhere/a, part.api_key" in printed
    texts = [one.read_text() for one in tmp_path.rglob("*") if one.is_file()] + [printed]
    assert not any("c4nary" in text or "first" in text for text in texts)


def test_a_file_to_deploy_holds_no_secret() -> None:
    with pytest.raises(ConfigError, match=r"would stand in the file\n.*s3://\*\*\*@bucket"):
        config_file([Folder("s3://key:hunter2@bucket/run")], ServeSpec())
