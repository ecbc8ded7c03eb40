"""A job: a configuration type and a recipe that reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.rehearsal import Replies

if TYPE_CHECKING:
    from squadron.core.run import Run

ConfigT = TypeVar("ConfigT", bound=Config)
Estimate = Callable[[Any, int, Profile], Sequence[tuple[str, str]]]
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Goal = Literal["max", "min"]


@dataclass(frozen=True)
class Job:
    """What `@job` makes of a recipe: it can be run, planned, swept and served."""

    name: str
    config_type: type[Config]
    recipe: Callable[[Any, Any], None]
    requires: tuple[str, ...]
    services: Callable[[Folder], Any] | None
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    replies: Replies = ()
    show_row: Callable[[Any, int], Iterable[str]] | None = None

    def __call__(self, run: Run, config: Config) -> None:
        """Run the recipe inside an open run, and note that it came to its end."""
        self.recipe(run, config)
        run.finish()


def estimated(estimate: Estimate) -> Callable[[FunctionT], FunctionT]:
    """Declare beside a stage what `squadron plan` prints of its size, memory and time: `estimate(config, workers,
    profile)` gives the rows, from the job's whole configuration."""

    def wrap(function: FunctionT) -> FunctionT:
        function.estimate = estimate  # type: ignore[attr-defined]
        return function

    return wrap


def job(
    config_type: type[ConfigT],
    *,
    requires: Sequence[str] = (),
    services: Callable[[Folder], Any] | None = None,
    metrics: Mapping[str, Goal] | None = None,
    replies: Replies = (),
    show_row: Callable[[ConfigT, int], Iterable[str]] | None = None,
) -> Callable[[Callable[[Run, ConfigT], None]], Job]:
    """Turn `recipe(run, config)` into a job named after the function.

    `requires` names the modules that its stages import, so that `plan` can say what is missing; `services(folder)`
    gives what a finished run offers to `squadron serve`; `metrics` what runs are compared by; `replies` what models say
    in a rehearsal; `show_row(config, number)` lines of markup, a row of the data as the model gets it, for `plan
    --show-row`.
    """

    def wrap(recipe: Callable[[Run, ConfigT], None]) -> Job:
        return Job(recipe.__name__, config_type, recipe, tuple(requires), services, metrics or {}, replies, show_row)

    return wrap
