"""What methods serve answers as the method does, and refuses what is none of its business."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.llm.embed import PackagedEmbedder, open_embedder
from squadron.methods.flame.algorithm import BCPolicy, predict
from squadron.methods.flame.endpoint import ActRequest, Observation, services
from squadron.serve.embedding import EmbeddingServer
from squadron.serve.openai_requests import EmbeddingRequest
from squadron.serve.rollout_video import WatchRequest
from tests.finished import store_flame_run
from tests.pictures import png

SIZE = 32


def encoded(image: np.ndarray, kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return store_flame_run(tmp_path_factory.mktemp("flame") / "run", SIZE)


def test_a_served_policy_acts_as_the_policy(run: Folder) -> None:
    service, _ = services(run).services
    served = service.build()
    rng = np.random.default_rng(0)
    images, states = rng.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8), rng.normal(size=(3, 8)).astype(np.float32)
    seen = zip(images, states, strict=True)
    robots = [Observation(image=encoded(image), state=state.tolist()) for image, state in seen]
    answer = served.act(ActRequest(robots=robots))
    torch.manual_seed(0)
    expected = predict(BCPolicy(SIZE), images, states)
    got = np.array([[*robot.velocities, robot.gripper] for robot in answer.robots])
    assert got == pytest.approx(expected, abs=1e-6) and answer.policy == "round-0003"
    example = service.routes[0].example
    assert example is not None and len(served.act(ActRequest.model_validate(example)).robots) == 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("", "no PNG or JPEG"),
        ("not base64!", "no PNG or JPEG"),
        (base64.b64encode(b"GIF89a" + b"0" * 100).decode(), "no PNG or JPEG"),
        (encoded(np.zeros((SIZE, SIZE + 1, 3), np.uint8)), "33 × 32 pixels; the policy sees 32 × 32"),
        (encoded(np.zeros((SIZE, SIZE, 3), np.uint8))[:80], "no PNG or JPEG"),
        (base64.b64encode(png(SIZE, SIZE, said=(60_000, 60_000))).decode(), "no PNG or JPEG"),
    ],
)
def test_images_that_are_none_are_refused(run: Folder, image: str, said: str) -> None:
    served = services(run).services[0].build()
    with pytest.raises(InputError, match=said):
        served.act(ActRequest(robots=[Observation(image=image, state=[0.0] * 8)]))


def test_a_policy_is_filmed_at_work(run: Folder) -> None:
    _, service = services(run).services
    films = service.build()
    shown = [films.watch(WatchRequest(episode=episode)) for episode in (0, 1, 2)]
    assert [one.caption.split(", ")[1].split(":")[0] for one in shown] == ["home 410", "home 411", "home 410"]
    for one in shown:
        with Image.open(io.BytesIO(base64.b64decode(one.film))) as film:
            assert film.n_frames == 3 and film.size == (64, 64) and film.get_format_mimetype() == one.media_type
    assert len({one.film for one in shown}) == 3 and films.watch(WatchRequest(episode=2)) == shown[2]


def test_a_run_without_its_weights_is_refused(run: Folder, tmp_path: Path) -> None:
    import shutil

    copy = Folder(shutil.copytree(run.path, tmp_path / "copy"))
    copy.remove("stages/choose_round-0123456789ab/policy.safetensors")
    with pytest.raises(InputError, match=r"policy\.safetensors is gone"):
        services(copy)


def test_texts_are_embedded_together_and_as_they_would_be_alone() -> None:
    server = EmbeddingServer("embedder", PackagedEmbedder())
    asked = [["one"], ["two", "three words here"], ["four"] * 3, ["five"]]

    async def ask_all() -> list[np.ndarray]:
        requests = [EmbeddingRequest(model="embedder", input=texts) for texts in asked]
        answers = await asyncio.gather(*map(server.embed, requests))
        return [np.array([one.embedding for one in answer.data]) for answer in answers]

    with open_embedder(PackagedEmbedder()) as embedder:
        for vectors, texts in zip(asyncio.run(ask_all()), asked, strict=True):
            assert vectors == pytest.approx(embedder.embed(texts), abs=1e-5)
    with pytest.raises(InputError, match="empty"):
        asyncio.run(server.embed(EmbeddingRequest(model="embedder", input=[" "])))
