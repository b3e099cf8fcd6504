"""What metrics, truth, projection, grid and top cells refuse, word for word: a message is read when something is wrong, and
what it names (value, place, expectation) is all that its reader has.
"""

import math
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from asking import COUNT, VALID, noise
from toys import GRID, ConvCM, view_of

from xaibench.errors import ManifestError, Undefined, Unsupported, XaibenchError
from xaibench.grid import Grid
from xaibench.metrics import (
    again,
    axioms,
    detection,
    faithfulness,
    graded,
    localisation,
    ranking,
    rcq,
    readouts,
    regions,
    stability,
    subsets,
    tdcf,
    temporal,
)
from xaibench.metrics.probe import Curve, Probe
from xaibench.project import overlap, project
from xaibench.top import share_count, top_mask
from xaibench.truth import TruthSpec, half, signed_difference, top_share, truth
from xaibench.types import Attribution, Axis, Truth

MAPS, CELLS = torch.ones(1, 2, 3), torch.ones(1, 2, 3, dtype=torch.bool)
EYE = Attribution(torch.zeros(1, 2, 4), Axis("frequency", range(5)), Axis("time", range(3)))
ASV = {"miss": 0.1, "false_alarm": 0.1, "spoof_miss": 0.5, "spoof_false_alarm": 0.5}
BAND = Truth(values=MAPS, region=CELLS, valid=CELLS[0], name="eq2")


def asv(**changes: float) -> tdcf.AsvErrorRates:
    return tdcf.AsvErrorRates(**{**ASV, **changes})


def nan_at(maps: torch.Tensor) -> torch.Tensor:
    maps = maps.clone()
    maps.view(-1)[1] = torch.nan
    return maps


REFUSED = {
    "a change": (
        lambda: again.parse("blur:1"),
        "unknown change 'blur:1'; there are noise, white, codec, randomised, bonafide-logit, opposite, shift",
    ),
    "a "
    "codec": (lambda: again.parse("codec:mp3"), "the change 'codec' is one of codec:mu-law, codec:vorbis, got 'codec:mp3'"),
    "two codecs": (
        lambda: again.parse("codec:mu-law:1"),
        "the change 'codec' is one of codec:mu-law, codec:vorbis, got 'codec:mu-law:1'",
    ),
    "too few numbers": (
        lambda: again.parse("noise:40"), "the change 'noise' takes 2 numbers, each after a colon, got 'noise:40'",
    ),
    "no number": (
        lambda: again.parse("shift:x"), "the change 'shift' takes 1 numbers, each after a colon, got 'shift:x'",
    ),
    "words for a change without": (
        lambda: again.parse("opposite:x"), "the change 'opposite' takes 0 numbers, each after a colon, got 'opposite:x'",
    ),
    "no share": (lambda: again.parse("randomised:0"), "the share of modules lies in ]0, 1], got 'randomised:0'"),
    "ids": (
        lambda: again.perturb(torch.ones(2, 9), again.parse("white:20:0")[0], ["a"], grid=GRID),
        "expected a change of the recording and waveforms (B, N) with one id each, got 'white:20:0', (2, 9) and 1 ids",
    ),
    "a change of the model": (
        lambda: again.perturb(torch.ones(1, 9), again.parse("opposite")[0], ["a"], grid=GRID),
        "expected a change of the recording and waveforms (B, N) with one id each, got 'opposite', (1, 9) and 1 ids",
    ),
    "one waveform": (
        lambda: again.perturb(torch.ones(9), again.parse("white:20:0")[0], ["a"] * 9, grid=GRID),
        "expected a change of the recording and waveforms (B, N) with one id each, got 'white:20:0', (9,) and 9 ids",
    ),
    "completeness": (
        lambda: axioms.completeness_gap(nan_at(MAPS), torch.ones(1)),
        "expected finite maps (B, F, T) and differences (B,), got (1, 2, 3) with 1 NaN or infinite cells and (1,)",
    ),
    "as many differences": (
        lambda: axioms.completeness_gap(MAPS, torch.ones(2)),
        "expected finite maps (B, F, T) and differences (B,), got (1, 2, 3) with 0 NaN or infinite cells and (2,)",
    ),
    "one map": (
        lambda: axioms.completeness_gap(MAPS[0], torch.ones(2)),
        "expected finite maps (B, F, T) and differences (B,), got (2, 3) with 0 NaN or infinite cells and (2,)",
    ),
    "no scores": (
        lambda: detection.equal_error_rate([], [1.0]),
        "no bona fide scores: an error rate needs at least one of each class",
    ),
    "no spoofs": (
        lambda: detection.decisions([1.0], []), "no spoof scores: an error rate needs at least one of each class",
    ),
    "bad bona fide": (
        lambda: detection.decisions([1.0, math.nan, math.inf], [1.0]), "2 bona fide scores are NaN or infinite",
    ),
    "a threshold": (
        lambda: detection.decisions([1.0], [1.0], threshold=math.nan), "threshold nan, expected a finite number",
    ),
    "a percentage": (lambda: asv(miss=1.5), "miss = 1.5, expected a share in [0, 1]; is it a percentage?"),
    "a negative rate": (
        lambda: asv(false_alarm=-0.1), "false_alarm = -0.1, expected a share in [0, 1]; is it a percentage?",
    ),
    "half of the spoofs": (
        lambda: asv(spoof_miss=0.25),
        "spoof_miss = 0.25 and spoof_false_alarm = 0.5, expected a sum of 1: a spoof is either rejected or accepted",
    ),
    "asv targets": (
        lambda: tdcf.asv_error_rates([], [1.0], [1.0]),
        "no ASV target scores: an error rate needs at least one of each class",
    ),
    "asv nontargets": (
        lambda: tdcf.asv_error_rates([1.0], [], [1.0]),
        "no ASV nontarget scores: an error rate needs at least one of each class",
    ),
    "asv spoofs": (
        lambda: tdcf.asv_error_rates([1.0], [1.0], [math.nan]), "1 ASV spoof scores are NaN or infinite",
    ),
    "asv threshold": (
        lambda: tdcf.asv_error_rates([1.0], [0.0], [0.0], threshold=math.inf), "ASV threshold inf, expected a finite number",
    ),
    "an inverted asv, 2019": (
        lambda: tdcf.weights_2019_legacy(asv(miss=0.9999, false_alarm=0.9)),
        "C1 = -0.085406, expected at least 0: with miss rate 0.9999 and false-alarm rate 0.9 the ASV system costs more than "
        "rejecting everyone; are its scores inverted?",
    ),
    "an inverted asv, 2021": (
        lambda: tdcf.weights_2021(asv(miss=0.9999, false_alarm=0.9)),
        "C1 = -0.085406, expected at least 0: with miss rate 0.9999 and false-alarm rate 0.9 the ASV system costs more than "
        "rejecting everyone; are its scores inverted?",
    ),
    "decisions": (
        lambda: tdcf.min_tdcf_2021([1.0, 1.0], [0.0, 1.0], asv()),
        "the scores take 2 different values, expected at least 3: the t-DCF needs soft scores, not decisions",
    ),
    "tdcf bona fide": (
        lambda: tdcf.min_tdcf_2021([], [0.0, 1.0], asv()),
        "no bona fide scores: an error rate needs at least one of each class",
    ),
    "tdcf spoofs": (
        lambda: tdcf.min_tdcf_2021([0.0, 1.0], [], asv()),
        "no spoof scores: an error rate needs at least one of each class",
    ),
    "tdcf at, bona fide": (
        lambda: tdcf.actual_tdcf_2021([math.inf], [0.0], asv()), "1 bona fide scores are NaN or infinite",
    ),
    "tdcf at, spoofs": (lambda: tdcf.actual_tdcf_2021([0.0], [math.nan], asv()), "1 spoof scores are NaN or infinite"),
    "tdcf threshold": (
        lambda: tdcf.actual_tdcf_2021([0.0], [1.0], asv(), threshold=math.inf), "threshold inf, expected a finite number",
    ),
    "no spoof passes, 2019": (
        lambda: tdcf.actual_tdcf_2019_legacy([0.0], [1.0], asv(spoof_miss=1.0, spoof_false_alarm=0.0)),
        "min(C1, C2) = 0: the ASV system rejects every spoof or everyone, so no countermeasure can matter to it and the "
        "normalised t-DCF has no value",
    ),
    "no spoof passes, 2019, minimum": (
        lambda: tdcf.min_tdcf_2019_legacy([0.0, 2.0], [1.0], asv(spoof_miss=1.0, spoof_false_alarm=0.0)),
        "min(C1, C2) = 0: the ASV system rejects every spoof or everyone, so no countermeasure can matter to it and the "
        "normalised t-DCF has no value",
    ),
    "no spoof passes, 2021": (
        lambda: tdcf.actual_tdcf_2021([0.0], [1.0], asv(miss=0.0, false_alarm=0.0, spoof_miss=1.0, spoof_false_alarm=0.0)),
        "C0 + min(C1, C2) = 0: the ASV system rejects every spoof or everyone, so no countermeasure can "
        "matter to it and the "
        "normalised t-DCF has no value",
    ),
    "no spoof passes, 2021, minimum": (
        lambda: tdcf.min_tdcf_2021([0.0, 2.0], [1.0], asv(miss=0.0, false_alarm=0.0, spoof_miss=1.0, spoof_false_alarm=0.0)),
        "C0 + min(C1, C2) = 0: the ASV system rejects every spoof or everyone, so no countermeasure can "
        "matter to it and the "
        "normalised t-DCF has no value",
    ),
    "a curve of one point": (
        lambda: faithfulness.area_under_curve(torch.ones(1), torch.ones(2, 1)),
        "expected fractions (S,) and values (B, S) with S >= 2, got (1,) and (2, 1)",
    ),
    "a curve that turns": (
        lambda: faithfulness.area_under_curve(torch.tensor([0.0, 1.0, 0.5]), torch.ones(1, 3)),
        "the fractions of a curve must rise strictly, got [0.0, 1.0, 0.5]",
    ),
    "an infinite answer": (
        lambda: faithfulness.area_under_curve(torch.tensor([0.0, 1.0]), torch.tensor([[1.0, torch.inf], [0.0, 0.0]])),
        "the curve has infinite values, or such that their sum is; did the countermeasure overflow?",
    ),
    "an infinite sum": (
        lambda: faithfulness.area_under_curve(torch.tensor([0.0, 1.0]), torch.full((1, 2), 1.7e308, dtype=torch.float64)),
        "the curve has infinite values, or such that their sum is; did the countermeasure overflow?",
    ),
    "infinities that cancel": (
        lambda: faithfulness.area_under_curve(torch.tensor([0.0, 1.0]), torch.tensor([[-torch.inf, torch.inf]])),
        "the curve has infinite values, or such that their sum is; did the countermeasure overflow?",
    ),
    "unequal steps": (
        lambda: faithfulness.pixel_flipping(Curve(torch.tensor([0.0, 0.25, 1.0]), torch.ones(1, 3))),
        "pixel flipping takes two or more equal steps from 0, got [0.0, 0.25, 1.0]",
    ),
    "a negative gain": (
        lambda: graded.ndcg(MAPS, -MAPS), "the gain of a cell cannot be negative, got -1; is it the truth's D?",
    ),
    "a truth of another shape": (
        lambda: graded.ndcg(MAPS, MAPS.mT),
        "expected attribution and truth of one shape (B, F, T), got (1, 2, 3) and (1, 3, 2); project the attribution to the "
        "grid first",
    ),
    "rankings of other cells": (
        lambda: graded.ndcg(ranking.Ranking(MAPS), ranking.Ranking(MAPS, torch.tensor([[True, True, False]] * 2))),
        "the rankings have 6 and 4 valid cells; expected the same cells in both",
    ),
    "a region of another shape": (
        lambda: localisation.roc_auc(MAPS, CELLS.mT),
        "expected attribution and region of one shape (B, F, T), got (1, 2, 3) and (1, 3, 2); project the "
        "attribution to the "
        "grid first",
    ),
    "no share of cells": (
        lambda: localisation.dice(MAPS, CELLS, share=0.01),
        "a share of 0.01 of 6 valid cells is 0 cells; expected 1 to 6",
    ),
    "no top": (
        lambda: localisation.top_k_intersection(MAPS, CELLS, count=0), "the top 0 cells are none; expected at least 1",
    ),
    "whole numbers": (
        lambda: ranking.Ranking(MAPS.long()), "expected a floating-point attribution (B, F, T), got torch.int64 (1, 2, 3)",
    ),
    "a NaN": (lambda: ranking.Ranking(nan_at(MAPS)), "the attribution has 1 NaN or infinite cells of 6"),
    "beyond float32": (
        lambda: ranking.check_summable(MAPS.double() * 1e300),
        "the largest cells of the maps are [1e+300], beyond float32; scale them first",
    ),
    "a region of numbers": (
        lambda: ranking.Ranking(MAPS).inside(MAPS),
        "expected a bool region of shape (1, 2, 3), got torch.float32 (1, 2, 3)",
    ),
    "no valid cell": (
        lambda: ranking.Ranking(MAPS, ~CELLS[0]),
        "valid must be bool of shape (2, 3) with at least one cell, got torch.bool (2, 3) with 0",
    ),
    "a label": (lambda: rcq.category(21), "unknown label 21; expected 1, 2 to 20, 100, 101 or 102 to 120"),
    "one frame": (
        lambda: rcq.vad_frames([(0, 1, 1)], 1), "a heat map of 1 frames, 1 stretches: expected two frames and one label",
    ),
    "labels": (lambda: rcq.rcq([np.ones(2)], []), "1 heat maps and 0 sets of labels; expected as many"),
    "a negative heat map": (
        lambda: rcq.rcq([np.array([1.0, -1.0])], [{}]),
        "heat map 0: shape (2,), expected (T,), finite and not negative (a mean of mixed signs has no share); take the "
        "positive part first",
    ),
    "heat of another world": (
        lambda: rcq.rcq([np.ones(2), np.array([1.0, 1e101])], [{}, {}]),
        "the largest of the heat map 1 is 1e+101 in size; squares of such are infinite, scale them first",
    ),
    "heat of words": (lambda: rcq.rcq([["a", "b"]], [{}]), "heat map 0 must be real numbers, got list of <U1"),
    "a marginal of words": (lambda: rcq.heat(["a"]), "a time marginal must be real numbers, got list of <U1"),
    "a marginal of two axes": (
        lambda: rcq.heat(np.ones((2, 3))), "a time marginal of shape (2, 3), expected (T,), finite, of one frame or more",
    ),
    "a map of words": (lambda: top_mask([["a"]], 0.5), "cells must be real numbers, got list of <U1"),
    "scores of words": (
        lambda: detection.equal_error_rate(["a"], [1.0]), "bona fide scores must be real numbers, got list of <U1",
    ),
    "a category": (
        lambda: rcq.rcq([np.ones(2)], [{"XX": [0]}]), "heat map 0: category 'XX', expected BS, SS, TR, BN, SN",
    ),
    "a frame too many": (
        lambda: rcq.rcq([np.ones(2), np.ones(3)], [{}, {"BS": [1, 3]}]), "heat map 1: BS counts frames 1 to 3 of 3",
    ),
    "no labelled frame": (
        lambda: rcq.rcq([np.ones(2)], [{"BS": []}]),
        "1 heat maps and no labelled frame; is any utterance partially spoofed?",
    ),
    "a read-out": (
        lambda: readouts.fall(MAPS, MAPS, "percent"), "an answer is read out as log-odds or probability, got 'percent'",
    ),
    "no side": (lambda: regions.regions(CELLS[0], 0), "the side of a region is 1 cell or more, got 0"),
    "a map before of another shape": (
        lambda: stability.rank_correlation(MAPS, MAPS.mT), "expected maps of one shape, got (1, 2, 3) and (1, 3, 2)",
    ),
    "tensors of another shape": (
        lambda: stability.local_slope(MAPS, MAPS, (torch.ones(1, 1, 2, 3), torch.ones(1, 2, 2, 3))),
        "expected two tensors of 1 utterances, got (1, 6) and (1, 12)",
    ),
    "tensors of other utterances": (
        lambda: stability.local_slope(MAPS, MAPS, (torch.ones(2, 1, 2, 3), torch.ones(2, 1, 2, 3))),
        "expected two tensors of 1 utterances, got (2, 6) and (2, 6)",
    ),
    "one sum": (
        lambda: subsets.correlation(torch.ones(2, 1), torch.ones(2, 1)),
        "expected sums and falls (B, K) with K >= 2, got (2, 1) and (2, 1)",
    ),
    "an infinite fall": (
        lambda: subsets.scaled_infidelity(torch.ones(1, 2), torch.full((1, 2), 2e100, dtype=torch.float64)),
        "sums or falls are larger than 1e+100, where squares are no numbers; is a score infinite?",
    ),
    "no truth": (
        lambda: temporal.given(None),
        "a map is scored against a truth, and none was given; only `Frames` bring theirs along",
    ),
    "frames of another shape": (
        lambda: temporal.roc_auc(MAPS.mT, BAND),
        "expected an attribution of the truth's shape (1, 2, 3), got (1, 3, 2), and a valid mask (2, 3), got "
        "(2, 3); project "
        "the attribution to the grid first",
    ),
    "frames of whole numbers": (
        lambda: temporal.roc_auc(MAPS.long(), BAND),
        "expected a floating-point attribution, a bool region and a bool valid mask, got torch.int64, "
        "torch.bool and torch.bool",
    ),
    "frames without a cell": (
        lambda: temporal.roc_auc(MAPS, replace(BAND, valid=~CELLS[0])),
        "the truth has no valid cell: is its band outside the grid?",
    ),
    "a share above 1": (
        lambda: share_count(1.5, np.ones(9, bool)), "share 1.5, expected more than 0 and at most 1, as 0.05 for 5 %",
    ),
    "less than a cell": (
        lambda: share_count(0.01, np.ones((2, 3), bool)),
        "a share of 0.01 of 6 valid cells is less than one cell; ask for more",
    ),
    "a map of one axis": (
        lambda: top_mask(np.ones(4), 0.5), "expected a map and its valid cells (F, T), got (4,) and (4,)",
    ),
    "a mask of another shape": (
        lambda: top_mask(np.ones((2, 3)), 0.5, np.ones((3, 2))),
        "expected a map and its valid cells (F, T), got (2, 3) and (3, 2)",
    ),
    "a map with a NaN": (
        lambda: top_mask(np.array([[np.nan, 1.0, np.inf]]), 0.5), "2 cells of the map are NaN or infinite",
    ),
    "an odd transform": (lambda: Grid(n_fft=511), "n_fft must be even and at least 2, got 511"),
    "a transform of nothing": (lambda: Grid(n_fft=0), "n_fft must be even and at least 2, got 0"),
    "a hop too long": (
        lambda: Grid(n_fft=64, hop=33), "hop must lie in 1..n_fft/2 = 32 to allow resynthesis, got 33",
    ),
    "no hop": (lambda: Grid(n_fft=64, hop=0), "hop must lie in 1..n_fft/2 = 32 to allow resynthesis, got 0"),
    "a window": (
        lambda: Grid(window="bartlett"), "window must be hann, hamming or blackman, got 'bartlett'",
    ),
    "one waveform for the STFT": (
        lambda: GRID.stft(torch.ones(900)), "expected waveforms (B, N), got shape (900,)",
    ),
    "too short a waveform": (
        lambda: Grid().stft(torch.ones(1, 256)),
        "256 samples are too few for an STFT of n_fft = 512: at least 257 are needed",
    ),
    "an empty band": (
        lambda: Grid().band(1, 2),
        "no bin of Grid(sample_rate=16000, n_fft=512, hop=160, window='hann') lies between 1 and 2 Hz",
    ),
    "two kinds of axes": (
        lambda: overlap(EYE.frequency, EYE.time), "cannot project a frequency axis on a time axis",
    ),
    "swapped axes": (
        lambda: project(EYE, EYE.frequency, EYE.time),
        "an attribution of shape (1, 2, 4) does not fit its axes of 4 frequencies and 2 times; are frequency "
        "and time swapped?",
    ),
    "a truth": (
        lambda: TruthSpec("eq3"), "unknown truth 'eq3'; expected one of eq2, eq1, log-difference, segments",
    ),
    "an even kernel": (
        lambda: TruthSpec(kernel=(3, 10)), "kernel sizes must be odd and positive, got (3, 10)",
    ),
    "no variance": (
        lambda: TruthSpec(variance=(0.0, 5.0)), "variances must be positive, in cells squared, got (0.0, 5.0)",
    ),
    "no epsilon": (
        lambda: TruthSpec(epsilon=0.0),
        "epsilon must be positive, it keeps silence from dividing by zero, got 0.0",
    ),
    "the whole plane": (lambda: TruthSpec(share=1.0), "share must lie between 0 and 1, got 1.0"),
    "magnitudes of two shapes": (
        lambda: signed_difference(MAPS, MAPS.mT, TruthSpec()), "a pair must agree in shape, got (1, 2, 3) and (1, 3, 2)",
    ),
    "segments of a pair": (
        lambda: signed_difference(MAPS, MAPS, TruthSpec("segments")),
        "the truth `segments` comes from labels, not from a pair: see xaibench.segments.segment_truth",
    ),
    "a region of no cell": (
        lambda: top_share(MAPS, CELLS[0], 0.05), "0.05 of 6 valid cells is less than one cell",
    ),
    "a pair of two lengths": (
        lambda: truth(torch.ones(1, 900), torch.ones(1, 901), grid=GRID, band=(0, 8_000)),
        "a pair must agree in length, got (1, 900) and (1, 901) samples",
    ),
    "a third half": (lambda: half(BAND, "third"), "the halves of a truth are added and missing, got 'third'"),
    "the sign of labels": (
        lambda: half(replace(BAND, name="segments"), "added"),
        "the truth 'segments' has no sign, it comes from labels: it cannot tell added from missing energy",
    ),
    "the sign on other axes": (
        lambda: half(BAND, "added"),
        "the truth 'eq2' has no sign, it lies on other axes than the pairs were compared on: it cannot tell added from "
        "missing energy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_words_of_a_refusal(case):
    call, words = REFUSED[case]
    with pytest.raises(XaibenchError) as refused:
        call()
    assert str(refused.value) == words


def test_what_has_no_value_is_told_from_what_is_wrong():
    for case in ("no spoof passes, 2019", "no spoof passes, 2021"):
        with pytest.raises(Undefined):
            REFUSED[case][0]()
    for case in ("the sign of labels", "the sign on other axes"):
        with pytest.raises(Unsupported):
            REFUSED[case][0]()


@pytest.fixture(scope="module")
def view():
    return view_of(ConvCM(), COUNT)


def test_what_a_probe_refuses(view):
    probe = Probe(view, VALID, (0.5,))
    told = {
        "valid must be bool, of the view's shape (33, 126) and hold at least one cell; got torch.bool (126, "
        "33) with 3402 (is "
        "it on the grid's axes instead of the view's?)": lambda: Probe(view, VALID.mT, ()),
        "fractions must rise strictly between 0 and 1, got (0.5, 0.5)": lambda: Probe(view, VALID, (0.5, 0.5)),
        "expected values on the view's axes (3, 33, 126), got (2, 33, 126); the attribution on the grid is not always on "
        "the view's axes": lambda: probe.check(noise(2)),
        "the attribution has 1 NaN or infinite cells": lambda: probe.check(nan_at(noise())),
        "direction must be one of deletion, insertion, got 'up'": lambda: probe.curve(noise(), "up", "mean"),
        "the countermeasure gives NaN or infinity as the score of 3 of 3 the utterances themselves": lambda: (
            Probe(replace(view, model=Broken()), VALID, ()).untouched
        ),
        "the countermeasure gives NaN or infinity as the score of 3 of 3 the fill 'mean' alone": lambda: Probe(
            replace(view, model=Broken()), VALID, ()
        ).nothing_but("mean"),
        "the countermeasure gives NaN or infinity as the score of 3 of 3 utterances filled with 'mean'": lambda: Probe(
            replace(view, model=Broken()), VALID, ()
        ).filled("mean"),
    }
    for words, call in told.items():
        with pytest.raises(XaibenchError) as refused:
            call()
        assert str(refused.value) == words


class Broken(torch.nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.full((len(inputs), 1), torch.nan)


def test_what_explaining_again_refuses(view):
    told = {
        "this metric needs the method's map again, under 'opposite', and only the map was given, not the method; `xaibench "
        "run` has both": lambda: again.ask(SimpleNamespace(again=None), "opposite"),
        "no module behind the explained tensor has parameters, so none can be randomised": lambda: again.redraw(
            torch.nn.ReLU(), 1.0, 0
        ),
        "the model has no log-odds to take apart; its stages are first, last": lambda: again.bonafide_logit(
            replace(view, model=torch.nn.Sequential(OrderedDict(first=torch.nn.ReLU(), last=torch.nn.ReLU()))), ["a"]
        ),
        "the shift is in units of the references' deviation, and this data set has no training utterances": lambda: (
            again.shifted(replace(view, references=view.references[:0]), 1.0)
        ),
    }
    for words, call in told.items():
        with pytest.raises(Unsupported) as refused:
            call()
        assert str(refused.value) == words


def test_a_bad_line_of_a_vad_file_is_told_with_its_number(tmp_path):
    path = tmp_path / "a.vad"
    told = {
        "0 1 1\n1 2\n": f"{path}:2: '1 2', expected `start end label`, as in `0.00 0.45 1`",
        "0 1 1\n\n1 2 21\n": f"{path}:3: unknown label 21; expected 1, 2 to 20, 100, 101 or 102 to 120",
        "0 2 1\n1 1 1\n": f"{path}:2: '1 1 1', expected times in seconds that rise from line to line",
        "2 1 1\n": f"{path}:1: '2 1 1', expected times in seconds that rise from line to line",
        "-1 1 1\n": f"{path}:1: '-1 1 1', expected times in seconds that rise from line to line",
        "0 inf 1\n": f"{path}:1: '0 inf 1', expected times in seconds that rise from line to line",
        "\n": f"{path}: empty, expected lines `start end label`",
    }
    for text, words in told.items():
        path.write_text(text)
        with pytest.raises(ManifestError) as refused:
            rcq.read_vad(path)
        assert str(refused.value) == words
    path.write_bytes("0 1 1".encode("utf-16"))
    with pytest.raises(ManifestError) as refused:
        rcq.read_vad(path)
    assert str(refused.value) == f"{path}:1: UTF-16, expected UTF-8; save the file of labels as UTF-8"
    path.write_text("0 0 1\n0 1 2\n0.5 1 1\n")  # of no length, at once, and within another: as in the author's labels
    assert rcq.read_vad(path) == ((0.0, 0.0, 1), (0.0, 1.0, 2), (0.5, 1.0, 1))
