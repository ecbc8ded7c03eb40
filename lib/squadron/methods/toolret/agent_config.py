"""Settings of what retrieval is worth to an agent."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from squadron.core.config import Config, decisive
from squadron.core.rehearsal import AtMost, StandIns
from squadron.data.record_files import RecordsPath
from squadron.llm.batch.collect import CollectConfig
from squadron.llm.chat import Sampling
from squadron.llm.settings import AnyModel


class AgentConfig(Config):
    """A model chooses among the tools that it is shown, and fills calls in."""

    model: AnyModel | None = Field(
        None, description="a chat model; None: a rule that counts shared words, which is no agent and says so"
    )
    calls: RecordsPath | None = Field(
        None,
        description="Seal-Tools' rows, {query, calling: [{api, parameters}]}; None: tools alone are judged",
    )
    queries: Annotated[int | None, AtMost(6, unset=6)] = Field(None, ge=1, description="asked at most, drawn by id")
    retrievers: tuple[str, ...] = Field((), description="whose tools are shown; none: all retrievers'")
    k: Annotated[int, AtMost(3)] = Field(5, ge=1, description="tools of a ranking that are shown")
    everything: bool = decisive(True, description="also without retrieval: all tools in random order, as many as fit")
    context_characters: Annotated[int, AtMost(4000)] = Field(
        60_000, ge=200, description="of the tools that are shown without retrieval"
    )
    tool_characters: int = Field(4000, ge=40, description="of one tool; what is longer is cut")
    collect: CollectConfig = CollectConfig(sampling=Sampling(max_tokens=512))
    seed: int = Field(0, ge=0)

    def rehearse(self, stand_ins: StandIns) -> AgentConfig:
        """Calls of the user's as they are; made up where there are none."""
        from squadron.methods.toolret.rehearsal import made_up_calls

        if self.calls is None:
            return self
        return self.model_copy(update={"calls": RecordsPath(stand_ins.rows(self.calls, "train", made_up_calls))})
