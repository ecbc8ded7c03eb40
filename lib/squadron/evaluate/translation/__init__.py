"""Translations measured: by words in common, by encoders, by COMET; metrics held against people, and systems ranked.

    from squadron.evaluate.translation.agreement import agreement
    from squadron.evaluate.translation.measuring import measure
    from squadron.evaluate.translation.metrics import open_metric
    from squadron.evaluate.translation.segments import Segment
    from squadron.evaluate.translation.settings import ChrfMetric
    from squadron.evaluate.translation.systems import rank_systems

    segment = Segment("1", "Der Bund regelt das.", "Il règle cela.", "La Confédération le règle.", "de", "fr")
    found = measure(stage, [segment, ...], ChrfMetric())                 # over the cluster, resumed after a kill
    found.values_N                                                       # NaN where a segment has no score
    rank_systems({"ours": found.statistics_NK, "theirs": …}, open_metric(ChrfMetric()))
    agreement(metric_SN, human_SN).kendall_by_source

A corpus is scored from sums of its segments' statistics, so that resampling reads no text again.
"""
