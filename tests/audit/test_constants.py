"""Do the truth's constants decide? Tables from invented scores, and maps scored against truths made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from toys import GRID, LinearCM

from xaibench.agreement import order_agreement
from xaibench.audit import constants
from xaibench.audit.constants import Variant, constants_section, constants_table, own_grid, variants
from xaibench.grid import Grid
from xaibench.truth import TruthSpec, truth
from xaibench.types import Attribution

BASE = Grid()
N, RATE, BAND = 16_000, 16_000, (200.0, 7_500.0)
METHODS = ["a", "b", "c", "d"]


def wide(means, *, sources: int = 6, spread: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Scores of pairs (two vocoders a source) x methods."""
    index = [(f"u{s}", v) for s in range(sources) for v in ("comb", "smooth")]
    noise = spread * np.random.default_rng(seed).standard_normal((len(index), len(means)))
    return pd.DataFrame.from_dict(
        {key: dict(zip(METHODS, line, strict=False)) for key, line in zip(index, np.asarray(means) + noise, strict=True)},
        orient="index",
    )


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_reversed_order_has_tau_minus_one_and_a_stable_one_halves_that_agree():
    scored = {"reference": wide([0.1, 0.2, 0.3, 0.4]), "same": wide([1, 2, 3, 4]), "reversed": wide([0.4, 0.3, 0.2, 0.1])}
    table = constants_table(scored)
    assert list(table["truth"]) == ["reference", "yardstick: two halves of the utterances", "same", "reversed"]
    assert list(table["tau"]) == [1, 1, 1, -1] and list(table["low"]) == [1, 1, 1, -1]
    assert list(table["best method"]) == ["d", "", "d", "a"]
    assert list(table["its rank accuracy"].round(12))[0::3] == [0.4, 0.4]
    assert constants_section(table).answer == (
        "Two halves of the utterances agree on the order of the methods with tau 1.00 [1.00, 1.00]: most of the order is "
        "not noise.",
        "The choice that moves the order most is 'reversed': tau -1.00 [-1.00, -1.00]. Below the yardstick beyond the "
        "interval: 'reversed'.",
        "The first place goes to d in the reference, and to a under other choices.",
    )


def test_a_line_is_the_agreement_of_means_over_source_utterances():
    reference, other = wide([0.1, 0.2, 0.3, 0.4], spread=0.1), wide([0.2, 0.1, 0.4, 0.3], spread=0.1, seed=1)
    table = constants_table({"reference": reference, "other": other}, seed=7)
    by_source = [
        np.array([w.to_numpy()[2 * s : 2 * s + 2].mean(axis=0) for s in range(6)]) for w in (reference, other)
    ]  # fmt: skip
    expected, count = order_agreement(*by_source, seed=7)
    assert count == 4 and tuple(table.loc[2, ["tau", "low", "high"]]) == expected
    assert table.loc[2, "its rank accuracy"] == pytest.approx(by_source[1].mean(axis=0).max())


def test_an_order_of_noise_is_called_noise():
    scored = {"reference": wide([0.1] * 4, spread=0.1), "other": wide([0.1] * 4, spread=0.1, seed=1)}
    section = constants_section(constants_table(scored))
    assert section.table.loc[1, "low"] < 0 < section.table.loc[1, "high"]
    assert section.answer[0].endswith("the order of the methods may be noise altogether.")
    assert section.answer[1].endswith("Below the yardstick beyond the interval: none.")


def test_a_method_without_scores_is_no_part_of_the_order():
    holes = wide([0.1, 0.2, 0.3, 0.4])
    holes["b"] = np.nan
    assert list(constants_table({"reference": holes, "same": holes})["tau"]) == [1, 1, 1]
    lost = holes.assign(a=np.nan, c=np.nan, d=np.nan)
    line = constants_table({"reference": holes, "lost": lost}).iloc[2]
    assert np.isnan(line["tau"]) and line["best method"] == "" and np.isnan(line["its rank accuracy"])


@pytest.mark.parametrize(
    ("scored", "words"),
    [
        (wide([0.1, 0.2]), "Whether a choice moves the order is unknown"),
        (wide([0.1]), "Whether a choice moves the order is unknown"),
        (wide([0.2] * 4), "Whether a choice moves the order is unknown"),
        (wide([0.1, 0.2, 0.3], sources=1), "No choice moves the order of the methods: tau is 1 for each."),
    ],
    ids=["two methods", "one method", "all tied", "one utterance"],
)
def test_nothing_is_claimed_where_tau_is_unknown(scored, words):
    section = constants_section(constants_table({"reference": scored, "other": scored}))
    assert section.answer[0].startswith("How well two halves of the utterances agree on the order of the methods is unknown")
    assert section.answer[1].startswith(words)
    assert section.answer[2].endswith("in the reference and under every other choice.")
    assert "nan" not in " ".join(section.answer) and "yardstick" not in section.answer[1]
    assert section.draw() is not None


def test_no_map_with_a_score_is_no_section():
    for empty in (pd.DataFrame(columns=METHODS), wide([np.nan] * 4)):
        assert constants_section(constants_table({"reference": empty, "other": empty})) is None


# ---- the variants ----------------------------------------------------------------------------------------------------


def test_every_variant_changes_one_thing_of_the_reference():
    first, *others = variants(BASE, GRID)
    assert first == Variant(first.name, TruthSpec(), BASE)
    assert len({v.name for v in others}) == len(others) == 12
    for v in others:
        changed = [v.spec != first.spec, v.grid != first.grid, v.late != 0, v.smoothed]
        assert sum(changed) == 1, v.name
    by_name = {v.name: v for v in others}
    assert by_name["the countermeasure's own STFT 64/32"].grid == GRID
    assert by_name["top 1 % (tau 0.99)"].spec.share == 0.01
    assert by_name["40 samples late (1/4 hop)"].late == 40 and by_name["128 samples late (1/4 window)"].late == 128
    assert len(variants(BASE, BASE)) == len(variants(BASE)) == 12


def test_the_countermeasures_own_stft_is_found_where_it_has_one():
    assert own_grid(LinearCM()) == GRID
    assert own_grid(SimpleNamespace(frontend=torch.nn.Identity())) is None


# ---- maps against truths ---------------------------------------------------------------------------------------------


def bench(real: torch.Tensor, fake: torch.Tensor) -> SimpleNamespace:
    corpus = SimpleNamespace(valid_band=BAND)
    return SimpleNamespace(corpus=corpus, waveforms=lambda pairs, n: (real[:, :n], fake[:, :n]))


def noise(seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(1, N, generator=torch.Generator().manual_seed(seed))


def score(maps: torch.Tensor, variant: Variant, real: torch.Tensor, fake: torch.Tensor) -> list[float]:
    attribution = Attribution(maps, BASE.frequency, BASE.time(N))
    return constants._scores(bench(real, fake), None, attribution, variant, N)


def test_the_map_that_is_the_reference_truth_wins_there_and_not_everywhere():
    real, fake = noise(0), noise(0) + 0.3 * noise(1)
    made = {name: truth(fake, real, grid=BASE, band=BAND, spec=TruthSpec(name)).values for name in ("eq2", "log-difference")}
    maps = torch.cat([made["eq2"], made["log-difference"]])
    by_name = {v.name: score(maps, v, real, fake) for v in variants(BASE)}
    assert by_name["reference: Eq. 2, top 5 %"][0] == 1 and by_name["reference: Eq. 2, top 5 %"][1] < 0.6
    assert by_name["|log difference|"][1] == 1 and by_name["|log difference|"][0] < 0.6
    assert by_name["top 10 % (tau 0.90)"][0] == by_name["top 1 % (tau 0.99)"][0] == 1


def burst() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, and the same with a band about 3 kHz from 0.4 to 0.5 s made ten times as loud."""
    real = noise(0)
    spectrum = torch.fft.rfft(noise(2))
    hertz = torch.fft.rfftfreq(N, 1 / RATE)
    band = torch.fft.irfft(spectrum * ((hertz > 2_600) & (hertz < 3_400)), N)
    seconds = torch.arange(N) / RATE
    return real, real + 10 * band * ((seconds > 0.4) & (seconds < 0.5))


def blob(hertz: float, seconds: float) -> torch.Tensor:
    f = torch.arange(257)[:, None] * RATE / 512
    t = torch.arange(101)[None, :] * 160 / RATE
    return torch.exp(-0.5 * (((f - hertz) / 400) ** 2 + ((t - seconds) / 0.05) ** 2))[None]


def test_a_blob_stays_where_it_is_in_hertz_and_seconds_on_every_stft():
    real, fake = burst()
    maps = torch.cat([blob(3_000, 0.45), blob(5_000, 0.45), blob(3_000, 0.55), blob(3_000, 0.35)])
    for v in variants(BASE, GRID):
        if v.grid != BASE:  # the burst fills 1 % of the cells; the rest of 5 % would be the smear about its ends
            there, *elsewhere = score(maps, replace(v, spec=TruthSpec(share=0.01)), real, fake)
            assert there > 0.5 and max(elsewhere) < 0.1, v.name


def test_late_delays_the_bona_fide_half_and_no_other():
    real = noise(0)
    fake = torch.nn.functional.pad(real, (40, 0))[:, :N]  # the vocoder's own delay
    maps = noise(3)[:, : 257 * 3].view(1, 257, 3).repeat(1, 1, 34)[:, :, :101]
    assert np.isfinite(score(maps, Variant("", grid=BASE), real, fake)).all()
    assert np.isnan(score(maps, Variant("", grid=BASE, late=40), real, fake)).all(), "undone, the halves are the same"
    assert np.isfinite(score(maps, Variant("", grid=BASE, late=40), fake, real)).all()


def test_smoothed_maps_are_smoothed_by_the_truths_kernel():
    real, fake = burst()
    spike = torch.zeros(1, 257, 101)
    spike[0, 96, 45] = 1.0  # 3 kHz, 0.45 s
    bare, smoothed = (score(spike, Variant("", grid=BASE, smoothed=s), real, fake)[0] for s in (False, True))
    region = truth(fake, real, grid=BASE, band=BAND).region
    size, chance = int(region.sum()), 0.05
    assert bool(region[0, 91:102, 44:47].all())
    assert bare == pytest.approx((1 + (size - 1) * chance) / size, rel=0.05)
    assert smoothed == pytest.approx((33 + (size - 33) * chance) / size, rel=0.05)
