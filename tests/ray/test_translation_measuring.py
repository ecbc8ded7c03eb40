"""Translations measured over a cluster, as by a plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.line_log import line_files
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.evaluate.translation.measuring import measure
from squadron.evaluate.translation.metrics import open_metric
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import (
    AnyMetric,
    BleuMetric,
    ChrfMetric,
    EmbeddingMetric,
    MeteorMetric,
    TerMetric,
)

WORDS = ["der", "Bund", "die", "Kantone", "regelt", "vollziehen", "Gesetz", "nicht", "nach", "Artikel", "5"]


def begin(folder: Path) -> Stage:
    run = Run("measuring", Config(), Folder(str(folder)), Profile(name="auto"), track=())
    stage = Stage(run, "measure", "", {}, run.folder / "stages" / "measure-0")
    stage.begin()
    return stage


def made_up(count: int) -> list[Segment]:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(2 * count)]
    return [Segment(str(n), "source", texts[2 * n], None if n % 7 == 0 else texts[2 * n + 1], "fr", "de")
            for n in range(count)]  # fmt: skip


@pytest.mark.parametrize("settings", [BleuMetric(), TerMetric(), MeteorMetric()], ids=lambda one: one.kind)
def test_a_cluster_measures_as_a_plain_loop(ray_cluster: object, tmp_path: Path, settings: AnyMetric) -> None:
    segments = made_up(300)
    metric = open_metric(settings)
    found = measure(begin(tmp_path), segments, settings)
    alone = [metric.statistics([one])[0] for one in segments]
    assert found.statistics_NK.tolist() == np.array(alone).tolist()
    assert np.array_equal(found.values_N, metric.scores(np.array(alone)), equal_nan=True)
    assert np.isnan(found.values_N).sum() == 43


def test_what_was_measured_is_kept_by_metric_and_by_content(ray_cluster: object, tmp_path: Path) -> None:
    """One stage measures by several metrics, and a restart measures what is new alone."""
    segments, settings = made_up(200), ChrfMetric()
    stage = begin(tmp_path)
    first, other = measure(stage, segments, settings), measure(stage, segments, BleuMetric())
    assert first.statistics_NK.shape != other.statistics_NK.shape
    files = len(line_files(stage.folder / "rows"))
    again = measure(stage, segments, settings)
    assert len(line_files(stage.folder / "rows")) == files
    assert np.array_equal(again.values_N, first.values_N, equal_nan=True)
    changed = [*segments[:100], segments[100]._replace(translation="ganz anders"), *segments[101:]]
    found = measure(stage, changed, settings)
    assert len(line_files(stage.folder / "rows")) == files + 1
    assert np.flatnonzero(~np.isclose(found.values_N, first.values_N, equal_nan=True)).tolist() == [100]


def test_a_setting_that_decides_no_score_measures_nothing_again(ray_cluster: object, tmp_path: Path) -> None:
    stage, segments = begin(tmp_path), made_up(6)
    first = measure(stage, segments, EmbeddingMetric())
    files = len(line_files(stage.folder / "rows"))
    again = measure(stage, segments, EmbeddingMetric(batch_size=1))
    assert len(line_files(stage.folder / "rows")) == files
    assert np.array_equal(again.values_N, first.values_N, equal_nan=True)


def test_a_language_that_a_metric_does_not_know_stops_it_before_work(tmp_path: Path) -> None:
    wrong = [*made_up(3), Segment("3", "source", "a", "a", "fr", "tlh")]
    metrics: list[AnyMetric] = [BleuMetric(), ChrfMetric()]
    for settings in metrics:
        with pytest.raises(InputError, match="tlh"):
            measure(begin(tmp_path / settings.name), wrong, settings)
