"""What `squadron cluster` does with manifests, and with the authority of their certificates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from squadron.cluster.certificates import make_authority
from squadron.cluster.rendering.render import render_file
from squadron.cluster.validation.check import check_files
from squadron.cluster.validation.definitions import read_definitions
from squadron.core import console
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder

_SHOWN = 30


def say_rendered(file: Path, out: Path | None) -> None:
    """Write the files of a specification into a folder, or print them.

    Raises ConfigError for a specification that is wrong.
    """
    files = render_file(file)
    if out is None:
        print("---\n".join(files.values()), end="")
        return
    for name, text in files.items():
        Folder(out).write_bytes(name, text.encode())
        console.say(console.plain(str(out / name)))


def say_checked(files: Sequence[Path], definitions: Path | None) -> None:
    """Say that all files are right. Raises ConfigError with everything that is wrong, by its path."""
    schemas = read_definitions(definitions) if definitions else {}
    checked = sorted(_all(files))
    problems = check_files(checked, schemas)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        count = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
        raise ConfigError("\n  ".join([f"{count} wrong:", *problems[:_SHOWN], *more]))
    count = f"{len(checked)} file{'s' if len(checked) != 1 else ''}"
    console.say(f"Nothing is wrong with {count}.")
    if not schemas:
        console.say("KubeRay's own kinds were held to our rules alone: --definitions FILE compares every field.")


def say_authority(folder: Path) -> None:
    """Make an authority, and say how Kubernetes gets it. Raises InputError if there is one."""
    make_authority(folder)
    console.say(f"{console.plain(str(folder))} has ca.crt and ca.key. Keep the key; for Kubernetes:")
    words = f"kubectl create secret generic squadron-authority --from-file={folder}/ca.crt --from-file={folder}/ca.key"
    console.say(console.plain(words))


def _all(files: Sequence[Path]) -> Iterator[Path]:
    for file in files:
        if file.is_dir():
            found = [*file.rglob("*.yaml"), *file.rglob("*.yml")]
            if not found:
                raise InputError("there is no YAML file", where=str(file))
            yield from found
        else:
            yield file
