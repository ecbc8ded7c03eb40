"""Flower's strategies by name."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from squadron.core.errors import ConfigError, suggest


def strategy_names() -> list[str]:
    """The names of all Flower strategies that can be made, as Flower spells them."""
    classes = {name: getattr(flower, name) for name in dir(flower)}
    return sorted(
        name
        for name, value in classes.items()
        if inspect.isclass(value) and issubclass(value, Strategy) and not inspect.isabstract(value)
    )


def make_strategy(name: str, **settings: Any) -> Strategy:
    """A Flower strategy, by its name in any case, with or without hyphens: `make_strategy("fedadam", eta=0.01)`.

    Raises ConfigError with the nearest names for an unknown strategy or setting, or a value that Flower refuses.
    """
    known = {_plain(spelling): spelling for spelling in strategy_names()}
    if _plain(name) not in known:
        near = suggest(_plain(name), known)
        for plain, spelling in known.items():
            near = near.replace(f" {plain}", f" {spelling}")
        raise ConfigError(f"no strategy called {name!r}", fix=near)
    kind = getattr(flower, known[_plain(name)])
    valid = [p for p in inspect.signature(kind).parameters if p != "self"]
    for setting in settings:
        if setting not in valid:
            raise ConfigError(
                f"{kind.__name__} has no setting {setting!r}; it has {', '.join(valid)}", fix=suggest(setting, valid)
            )
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of what was asked for, such as fraction_evaluate=0
    try:
        made: Strategy = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind.__name__}: {error}") from error
    finally:
        logger.setLevel(level)
    return made


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
