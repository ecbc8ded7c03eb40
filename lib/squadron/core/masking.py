"""What nobody is to read in a file, on a page or in a log: passwords, keys and tokens, and how they are masked.

A secret is known by the name of its setting, by its place in a URL or a header, or by its value: that of an environment
variable with such a name, or of a setting that this process has read. Values shorter than `LEAST` characters are not
looked for in texts, where they would be words.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"
_IN_TEXT = "***masked***"
"""In the place of a value that was found in a text: so a text that is read again is known to be another."""
LEAST = 8

_NAME = (
    r"(?:api|access|private|secret|signing|session|account|encryption|subscription|auth)[_-]?keys?(?:[_-]?id)?"
    r"|secrets?|passwords?|passwds?|pwd|passphrases?|credentials?|authorization|cookies?|jwt"
    r"|(?:api|access|auth|bearer|refresh|session|security|hf|hub)[_-]tokens?"
)
_SECRET = re.compile(rf"(?i)(?:^|[_.-])(?:{_NAME})(?:$|[_.-])")
_TOKEN = re.compile(r"(?i)(?:^|[_.-])tokens?(?:$|[_.-])")
"""One that is a text is a secret; numbers and lists under such a name count or list the tokens of a model."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_HOLDS_SECRET = re.compile(r"(?i)(^|_)(token|key|keys|key_id|secret|password|passwd|pwd|passphrase|credentials?)$")

_PARAMETER = (
    r"(?:[\w.-]|%[0-9A-Fa-f]{2})*(?:key|token|secret|signature|password|passwd|pwd|passphrase|auth|credential|jwt"
    r"|accesskeyid)(?:[\w.-]|%[0-9A-Fa-f]{2})*|sig"
)
_QUERY = re.compile(rf"(?i)([?&](?:amp;)?(?:{_PARAMETER})=)([^&#\s\"'<>\\]+)")
_USER = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]*)://"
    r"([^\s/?#\"'<>@]*(?:@[^\s/?#\"'<>@]+)*|[^\s/?#\"'<>@:\[\]]+:(?!\d+/)[^\s?#\"'<>@]+)@(?=[^\s/?#@])"
)
"""The second form is a secret key of S3, which may hold a slash, written into a URL as it is."""
_SCHEME = re.compile(r"\b((?i:bearer|basic))(\s+|%20|\+)(?=\S*(?:\d|=|[a-z][A-Z]))([A-Za-z0-9._~+/%=-]{8,})")
_PAIR = re.compile(
    rf"(?i)((?<![A-Za-z0-9])(?:{_NAME})(?<!keys)\\?[\"']?\s*)"
    r"(?:(=\s*|:\s*)(\\?[\"'])(?:(?!\3).)+?\3|(=\s*)[^\s,;&)}\]\"'<>…*]{4,}|(:\s*)(?=\S*\d)[^\s,;&)}\]\"'<>…*]{8,})"
)
_known: set[str] = set()
"""Values of secrets that this process has read, besides those of its environment."""


def names_secret(key: Any, value: Any) -> bool:
    """Whether what a setting of this name holds is a secret. The name of a variable that holds one is none."""
    name = _CAMEL.sub("_", str(key))
    if not value or isinstance(value, bool):
        return False
    if name.endswith("_env") and _VARIABLE.fullmatch(str(value)):
        return False
    return _SECRET.search(name) is not None or (isinstance(value, str) and _TOKEN.search(name) is not None)


def mask_secrets(value: Any) -> Any:
    """The same structure of settings without its secrets: `***` in the place of what a name says to be one, in URLs
    in that of user names with passwords, of keys and signatures. Paths, numbers and other texts stay as they are."""
    return _mask(value, _known_forms())


def mask_text(text: str) -> str:
    """A text for people without the secrets in it: as `mask_secrets` does, and in `password: …` or `api_key=…`."""
    text = _mask_known(text, _known_forms())
    if " " in text or "%" in text or "+" in text:
        text = _SCHEME.sub(rf"\1\2{MASK}", text)
    return _PAIR.sub(_mask_pair, text) if "=" in text or ":" in text else text


def masked_keys(value: Any, key: str = "", *, named: bool = False) -> Iterator[str]:
    """The keys of settings in which `mask_secrets` has masked something."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        inner, secret = f"{key}.{name}" if key else str(name), named or names_secret(name, item)
        if isinstance(item, str) and (item == MASK if secret else _is_masked(item)):
            yield inner
        yield from masked_keys(item, inner, named=secret)


def remember_secrets(value: Any, *, named: bool = False) -> None:
    """Mask from now on, wherever this process writes or prints a text, the secrets that a structure of settings holds
    or names, as `api_key_env` does. `named`: all of it is secret."""
    if isinstance(value, dict):
        for key, item in value.items():
            secret = named or names_secret(key, item)
            if not secret and str(key).endswith("_env") and isinstance(item, str):
                remember_secret(os.environ.get(item, ""))
            remember_secrets(item, named=secret)
    elif isinstance(value, list | tuple):
        for item in value:
            remember_secrets(item, named=named)
    elif isinstance(value, str):
        if named:
            remember_secret(value)
        elif "://" in value:
            for found in (*(one[2].partition(":")[2] for one in _USER.finditer(value)), *_parameters(value)):
                remember_secret(found)
                remember_secret(unquote(found))


def remember_secret(text: str) -> None:
    """Mask this value from now on, wherever this process writes or prints a text."""
    if len(text.strip()) >= LEAST and text.strip("*"):
        _known.add(text.strip())


def mask_logs() -> None:
    """Mask secrets from now on in what any library of this process logs, tracebacks included."""
    import logging
    import traceback

    make = logging.getLogRecordFactory()
    if getattr(make, "masks", False):
        return

    def masked(*args: Any, **named: Any) -> logging.LogRecord:
        record = make(*args, **named)
        if (said := mask_text(text := record.getMessage())) != text:
            record.msg, record.args = said, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = mask_text("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return record

    masked.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(masked)


def _mask(value: Any, forms: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _hide(item) if names_secret(key, item) else _mask(item, forms) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mask(item, forms) for item in value]
    return _mask_known(value, forms) if isinstance(value, str) else value


def _parameters(url: str) -> list[str]:
    return [found[2] for found in _QUERY.finditer(url)]


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hide(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(item) for item in value]
    return MASK if value and not isinstance(value, bool) else value


def _is_masked(text: str) -> bool:
    return _IN_TEXT in text or any(
        MASK in found[0] and masked == found[0]
        for pattern, mask in ((_USER, _mask_user), (_QUERY, rf"\1{MASK}"))
        for found in pattern.finditer(text)
        for masked in [pattern.sub(mask, found[0])]
    )


def _known_forms() -> list[str]:
    """What may stand in a text for the secrets that are known by now."""
    return _all_forms(frozenset((*_known, *_of_environment())))


def _mask_known(text: str, forms: list[str]) -> str:
    for form in forms:
        if form in text:
            text = text.replace(form, _IN_TEXT)
    if "://" in text:
        text = _USER.sub(_mask_user, text)
    if "=" in text:
        text = _QUERY.sub(rf"\1{MASK}", text)
    return text


def _mask_user(found: re.Match[str]) -> str:
    """A name alone is a secret over HTTP, where services take a token in its place."""
    scheme, user = found[1], found[2]
    return f"{scheme}://{MASK if ':' in user or 'http' in scheme.lower() else user}@"


def _mask_pair(found: re.Match[str]) -> str:
    mark = found[3] or ""
    return f"{found[1]}{found[2] or found[4] or found[5]}{mark}{MASK}{mark}"


def _of_environment() -> Iterator[str]:
    """The values of variables whose names say that they hold a secret; a path to one is none."""
    for name, value in os.environ.items():
        if _HOLDS_SECRET.search(name) and not value.startswith(("/", "~", "./")):
            yield from _split(value)


@functools.lru_cache(maxsize=1024)
def _split(value: str) -> tuple[str, ...]:
    """A value, and what it lists: `alice:key-1,key-2`."""
    parts = [value, *value.split(",")]
    parts += [rest for part in parts if (rest := part.partition(":")[2])]
    return tuple(dict.fromkeys(part.strip() for part in parts if len(part.strip()) >= LEAST))


@functools.lru_cache(maxsize=64)
def _all_forms(secrets: frozenset[str]) -> list[str]:
    """Secrets in all their forms, the longest first, since one may be the beginning of another."""
    return sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)


@functools.lru_cache(maxsize=1024)
def _forms(secret: str) -> tuple[str, ...]:
    """A secret as it is, and as JSON, HTML, URLs and base64 write it."""
    raw = secret.encode(errors="surrogateescape")
    forms = {secret, repr(secret)[1:-1], html.escape(secret), quote(secret), quote(secret, safe="")}
    for ascii_only in (True, False):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        forms |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    for before in range(3):  # of the letters at its ends, base64 mixes some with what stands before and after
        code = base64.b64encode(b"\0" * before + raw)
        whole = code[(0, 2, 3)[before] : len(code) - (0, 3, 2)[(len(raw) + before) % 3]].decode()
        forms |= {whole, whole.replace("+", "-").replace("/", "_")}
    return tuple(form for form in forms if len(form) >= LEAST)
