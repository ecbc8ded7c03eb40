"""Settings of the Actor and the Reasoner. Official figures are the public code's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from squadron.core.blanks import check_blanks
from squadron.core.config import Config, decisive, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, StandIns
from squadron.llm.chat import Sampling
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.llm.settings import AnyModel, Rehearsed
from squadron.methods.actor_reasoner.prompts import EXAMPLE, PROMPT, fields
from squadron.sim.driving.spec import DriversConfig, SceneName, TrafficConfig
from squadron.train.models.builders import FromConfig
from squadron.train.models.random_init import SmallModelConfig
from squadron.train.spec import OptimizerConfig, TrainSpec

SCENES: tuple[SceneName, ...] = ("intersection", "roundabout", "merge")


class ReasonerConfig(Config):
    """The language model, and how it is asked."""

    model: AnyModel | None = Field(None, description="any chat model; None: a small one that is trained here")
    template: str = Field(PROMPT, description="holds {situation}; the small model has one of its own")
    sampling: Sampling = Sampling(max_tokens=400)
    display_words: int = Field(
        8, ge=1, description="a longer display is not shown; official: 5 in training, 8 in tests"
    )
    think_s: float = Field(1.0, ge=0, description="from a question to its answer, in episodes on simulated time")
    every_s: float = decisive(0.5, gt=0, description="a car is thought about at most so often")

    @field_validator("template")
    @classmethod
    def _can_be_filled_in(cls, value: str) -> str:
        check_blanks(value, (), fields(EXAMPLE, 8))
        if "{situation}" not in value and "{other_speed}" not in value:
            raise ValueError("needs {situation}, or fields of it such as {other_speed}")
        return value


class LessonsConfig(SmallModelConfig):
    """How the small model learns to think: from situations whose truth the simulator knows. The driver's style and what
    it does next are labels as they are; the decision is that of an oracle which tries out what would come of each."""

    episodes: Annotated[int, AtMost(6)] = Field(400, ge=2, description="of each scene")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of episodes that its accuracy is measured on")
    explore: float = Field(
        0.3, ge=0, le=1, description="share of decisions that are drawn, to see what follows mistakes"
    )
    collision_s: float = Field(
        25.0, ge=20, description="seconds that a collision counts for: the more, the sooner the model waits in doubt"
    )
    vocabulary: int = Field(400, ge=300)
    hidden_size: Annotated[int, AtMost(16)] = Field(96, ge=16)
    layers: Annotated[int, AtMost(1)] = Field(3, ge=1)
    heads: Annotated[int, AtMost(2)] = Field(4, ge=1)
    training: TrainSpec = TrainSpec(
        epochs=3,
        batch_size=32,
        micro_batch_size=32,
        max_length=192,
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.01),
    )

    rehearsed: Rehearsed | None = operational(None, description="this is a stand-in, in a rehearsal")

    def rehearse(self, stand_ins: StandIns) -> LessonsConfig:
        """A model of few steps has little to say."""
        return self.model_copy(update={"rehearsed": Rehearsed.model_validate({"replies": stand_ins.replies})})

    @property
    def model(self) -> FromConfig:
        """The small model, at its start."""
        return self.shape(self.vocabulary, context=256, initializer_range=0.1, rope_theta=100.0)


class MemoryConfig(Config):
    """What the Actor remembers."""

    path: InputPath | None = Field(None, description="memories of an earlier run, which new ones are added to")
    episodes: Annotated[int, AtMost(6)] = Field(
        50, ge=0, description="driven by the Reasoner, to fill it; official: 50"
    )
    capacity: int = Field(10_000, ge=1, description="memories of each style; the oldest gives way")
    embedder: AnyEmbedder = PackagedEmbedder()


class SceneConfig(Config):
    """A scene with its traffic and its drivers."""

    scene: SceneName
    traffic: TrafficConfig
    drivers: DriversConfig
    every_s: float = decisive(gt=0, description="a car is thought about at most so often")
    seed: int


class WorldConfig(SceneConfig):
    """A scene, and how the Reasoner is asked there."""

    reasoner: ReasonerConfig
    embedder: AnyEmbedder


class EvaluationConfig(Config):
    """Episodes that nobody has seen, and who drives them."""

    episodes: Annotated[int, AtMost(4)] = Field(300, ge=1, description="of each scene")
    part: int = operational(50, ge=1, description="episodes that a worker drives together")
    ablations: bool = Field(True, description="also without partition, second layer, speech, display")
    oracle: bool = Field(True, description="also the oracle, which takes longer than all others")
    memory_sizes: Annotated[tuple[int, ...], AtMost(3, distinct=True)] = Field(
        (10, 30, 100, 300), description="also with so many memories, the oldest"
    )
    filmed: Annotated[int, AtMost(1)] = operational(2, ge=0, description="episodes of each scene in the report")
    timeout_s: float = operational(1800.0, gt=0, description="longest time for one part")


class RewardConfig(Config):
    """What a car is rewarded for and what it pays. A crash costs what two hundred seconds do: to save a second is worth
    a risk of one in two hundred."""

    metre: float = Field(0.02, ge=0, description="for each metre driven")
    second: float = Field(0.05, ge=0, description="cost of each second until the last conflict is over")
    collision: float = Field(10.0, ge=0, description="cost of hitting another car or being hit")
    braking: float = Field(0.02, ge=0, description="cost of each m/s of speed taken off harder than is comfortable")
    comfortable: float = Field(3.0, gt=0, description="m/s²")


class PpoConfig(Config):
    """Proximal policy optimisation. The defaults take some minutes on two cores."""

    decisions: Annotated[int, AtMost(1000)] = Field(
        600_000, ge=1, description="to learn from, of all episodes together"
    )
    decisions_per_update: Annotated[int, AtMost(500)] = Field(8_000, ge=1)
    minibatch: Annotated[int, AtMost(100)] = Field(500, ge=1)
    epochs: Annotated[int, AtMost(1)] = Field(8, ge=1, description="passes over the decisions of an update")
    learning_rate: float = Field(5e-4, gt=0, description="at the start; it falls to none at the end, in a line")
    hidden: tuple[int, ...] = Field((64, 64), min_length=1)
    discount: float = Field(0.99, gt=0, le=1, description="of what comes a decision later")
    advantage_decay: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation")
    clip: float = Field(0.2, gt=0)
    entropy: float = Field(0.01, ge=0, description="weight at the start; it falls like the learning rate")
    decide_every: int = decisive(5, ge=1, description="ticks that a decision is kept for")
    reward: RewardConfig = RewardConfig()
    envs_per_runner: Annotated[int, AtMost(12)] = Field(
        480, ge=3, description="episodes side by side, shared evenly among scenes"
    )
    runners: int = Field(0, ge=0, description="workers that drive, of one core each; 0: this process drives")
    seed: int = Field(0, ge=0)


class LiveConfig(Config):
    """Driving by the clock, with Reasoners that run beside."""

    cars: Annotated[int, AtMost(1)] = Field(8, ge=0, description="episodes at once; 0: none are driven by the clock")
    reasoners: int = Field(1, ge=1, description="language models that think side by side")
    slowed_s: float = Field(0.0, ge=0, description="every thought takes so much longer")
    killed_every_s: float | None = decisive(None, gt=0, description="seconds between kills of a Reasoner; None: never")
    timeout_s: float = decisive(30.0, gt=0, description="a Reasoner that thinks longer is replaced")


class ActorReasonerConfig(Config):
    """An actor_reasoner run: the small language model, memories, and who drives best in each scene."""

    scenes: tuple[SceneName, ...] = Field(SCENES, min_length=1)
    traffic: TrafficConfig = TrafficConfig()
    drivers: DriversConfig = Field(
        DriversConfig(hears_display=True), description="official drivers do not heed the display"
    )
    reasoner: ReasonerConfig = ReasonerConfig()
    lessons: LessonsConfig = LessonsConfig()
    memory: MemoryConfig = MemoryConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ppo: PpoConfig | None = Field(None, description="also a driver learned by reinforcement: some minutes more")
    live: LiveConfig = LiveConfig()
    recorded: tuple[InputPath, ...] = Field(
        (), description="CommonRoad files: the automated car also drives among the cars recorded there"
    )
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _scenes_differ(self) -> ActorReasonerConfig:
        if len(set(self.scenes)) < len(self.scenes):
            raise ValueError("a scene is named twice")
        if "merge" in self.scenes and self.traffic.others > 1:
            raise ValueError("the merge has one road: traffic.others must be 1 there, or scenes leave it out")
        return self

    def world(self, scene: SceneName) -> WorldConfig:
        """One of the scenes."""
        return WorldConfig(
            scene=scene,
            traffic=self.traffic,
            drivers=self.drivers,
            every_s=self.reasoner.every_s,
            reasoner=self.reasoner,
            embedder=self.memory.embedder,
            seed=self.seed,
        )
