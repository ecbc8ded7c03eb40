"""A corpus is embedded on the cluster, each text once, also by a run that is killed half way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squadron.core.cli import main
from squadron.core.folder import Folder
from squadron.retrieval.vector_cache import read_pack, split, text_key
from squadron.retrieval.vectors import CHUNK
from tests.drivers import run_and_kill
from tests.llm.server import chat_server, vector
from tests.ray.embedding_job import texts_of

JOB = str(Path(__file__).with_name("embedding_job.py"))


def test_a_killed_run_embeds_no_text_twice_that_it_had_kept(
    ray_cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUADRON_CACHE", str(tmp_path / "cache"))
    texts = texts_of(1500)
    with chat_server(seconds=0.02) as server:
        words = [JOB, f"count={len(texts)}", f"address={server.base_url}"]

        def parts() -> list[Path]:
            return [path for path in tmp_path.glob("run/stages/embed-*/vectors/parts/*") if path.suffix != ".tmp"]

        run_and_kill(tmp_path / "run", words, lambda: len(parts()) >= 2)
        kept = {
            key
            for path in parts()
            if (pack := read_pack(Folder(path.parent), path.name))
            for key in split(pack.keys_NB)
        }
        before = server.settled(quiet_s=1.0)["asked"]
        assert CHUNK <= len(kept) < len(set(texts))
        assert main(["run", *words, "--run", str(tmp_path / "run")]) == 0
        asked = server.stats()["asked"]
        assert set(asked) == set(texts)
        assert all(asked[text] == 1 for text in texts if text_key(text) in kept)
        assert all(count - before.get(text, 0) <= 1 for text, count in asked.items())

        [file] = tmp_path.glob("run/stages/embed-*/vectors.npy")
        np.testing.assert_allclose(np.load(file), [vector(text) for text in texts], atol=1e-6)

        requests = server.stats()["requests"]
        assert main(["run", *words, "--run", str(tmp_path / "another")]) == 0
        assert server.stats()["requests"] == requests, "another run takes them from the cache"
        [again] = tmp_path.glob("another/stages/embed-*/vectors.npy")
        assert again.read_bytes() == file.read_bytes()
