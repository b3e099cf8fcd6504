"""Countermeasures that tell time apart and not frequency, and data without bona fide twins, through the whole harness."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import toybench
from torch import Tensor, nn
from toys import GRID, N_SAMPLES, SHAPE, LinearCM, pairs

from xaibench import figures, maps, registry
from xaibench.errors import RunError, Unsupported, XaibenchError
from xaibench.frontends import whole_band
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.preflight import check_countermeasure
from xaibench.harness.run import run
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Workbench
from xaibench.protocols import Corpus, attributor
from xaibench.recipe import Recipe
from xaibench.truth import TruthSpec
from xaibench.types import Axis
from xaibench.view import grid_view, native_view, patches
from xaibench.weights import save_weights


class Frames(nn.Module):
    """Log energy of the lower and of the upper half of the band, every `pool` frames of the grid: `(B, 2, 1, T / pool)`."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d((1, pool))

    def forward(self, waveform: Tensor) -> Tensor:
        level = torch.log(GRID.stft(waveform).abs().square() + 1e-7)
        return self.pool(torch.stack([level[:, :16].mean(1, keepdim=True), level[:, 16:].mean(1, keepdim=True)], dim=1))


class TimeCM(nn.Module):
    """Spoof where the upper half of the band is weaker than the lower. One layer, `(B, 2, 1, T)`."""

    sample_rate = GRID.sample_rate
    classes = ("spoof", "bonafide")
    resolves = frozenset({"time"})

    def __init__(self, *, n_samples: int = N_SAMPLES, pool: int = 1) -> None:
        super().__init__()
        self.n_samples, self.pool = n_samples, pool
        self.frontend = Frames(pool)
        compare = nn.Conv2d(2, 2, (1, 3), padding=(0, 1), bias=False)
        decide = nn.Linear(2, 2)
        with torch.no_grad():
            compare.weight.zero_()
            compare.weight[:, :, 0, 1] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
            decide.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
            decide.bias.copy_(torch.tensor([0.0, 0.5]))
        self.backend = nn.Sequential(compare, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), decide)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        edges = GRID.time(self.n_samples).edges[:: self.pool]
        return whole_band(self.sample_rate), Axis("time", edges)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros(1, 2, 1, 1)

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {"compare": self.backend[0]}

    @property
    def intrinsic(self) -> Mapping[str, object]:
        return {"difference": lambda tap: tap[:, 0] - tap[:, 1]}


class FlatLayersCM(LinearCM):
    """Its tap tells both axes apart; the height of its layers, it says, is no frequency."""

    layers_resolve = frozenset({"time"})

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {"tap": self.backend[0]}


time_recipe = Recipe(name="toy-time", paper="none", build=TimeCM)


@attributor(name="toy-intrinsic", paper="none", needs=["intrinsic"], class_specific=False)
def intrinsic(view):
    """The countermeasure's own map."""
    return view.intrinsic["difference"](view.inputs)


@attributor(name="toy-cam", paper="none", needs=["layers"], class_specific=False)
def cam(view):
    """The only layer, stretched over the view."""
    kept = []
    model = view.private_model()
    model.get_submodule(view.layers[-1]).register_forward_hook(lambda _m, _i, out: kept.append(out))
    model(view.inputs)
    return nn.functional.interpolate(kept[0][:, :1], size=view.shape)[:, 0].detach()


@attributor(name="toy-patches", paper="none", class_specific=False)
def occlusion(view):
    """What silence in a stretch of four frames, of whatever height, takes away."""
    regions = patches(view.shape, 4, 4)
    keep = torch.stack([(regions != k).float() for k in range(int(regions.max()) + 1)])
    scores = view.score(view.filled(keep[None].expand(len(view), -1, -1, -1), "silence")).view(len(view), -1)
    return (view.score(view.inputs)[:, None] - scores)[:, regions]


def install(monkeypatch, *names: str) -> None:
    """The toys, and beside them `toy-time` and this file's methods."""
    toybench.install(monkeypatch, "toy-gradient")
    known = registry._scan()
    offered = [("countermeasures", "toy-time", "test_time_only:time_recipe")]
    offered += [("attributors", name, f"test_time_only:{function}") for name, function in METHODS.items() if name in names]
    mine = tuple(
        registry.Plugin(group, name, "toy-package", "1.0", EntryPoint(name, value, f"xaibench.{group}"))
        for group, name, value in offered
    )
    monkeypatch.setattr(registry, "_scan", lambda: known + mine)


METHODS = {"toy-intrinsic": "intrinsic", "toy-cam": "cam", "toy-patches": "occlusion"}


def write_checkpoint(folder: Path, **options: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    cm = TimeCM(**options)
    save_weights(folder / "toy-time.safetensors", cm)
    card = {"name": "toy-time", "classes": list(cm.classes), "n_samples": cm.n_samples, "options": options}
    (folder / "toy-time.json").write_text(json.dumps(card))
    return str(folder / "toy-time.safetensors")


def spec(root: Path, weights: str, *attributors: str, **changes: object) -> RunSpec:
    settings = {"countermeasures": ("toy-time",), "checkpoints": {"toy-time": weights}} | changes
    return toybench.spec(root, *attributors, **settings)


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows")


# ---- a tap of frames ---------------------------------------------------------------------------------------------------

TIME_METRICS = ("rank-accuracy", "rank-accuracy-time", "roc-auc-time", "drop-silence", "deletion-twin")


def test_a_time_only_countermeasure_gets_temporal_scores_and_a_reason_where_frequency_is_needed(root, tmp_path, monkeypatch):
    install(monkeypatch, *METHODS)
    weights = write_checkpoint(tmp_path / "w")
    methods = ("toy-gradient", *METHODS, "oracle", "constant", "energy", "frequency-prior")
    summary = run(spec(root, weights, *methods, metrics=TIME_METRICS), tmp_path / "run")
    assert not summary.problems and set(summary.statuses) == {"ok", "unsupported"}
    table = rows(tmp_path / "run").set_index(["attributor", "metric"]).sort_index()
    for name in methods:
        assert set(table.loc[(name, "rank-accuracy")].status) == {"unsupported"}, name
        assert set(table.loc[(name, "rank-accuracy")].note) == {
            "rank-accuracy needs resolution in frequency, the map has none of its own"
        }
        for metric in TIME_METRICS[1:]:
            assert set(table.loc[(name, metric)].status) == {"ok"}, (name, metric)
    assert table.loc[("oracle", "rank-accuracy-time")].value.eq(1).all(), "as many frames as the grid"
    assert table.loc[("oracle", "roc-auc-time")].value.eq(1).all()
    for flat in ("constant", "frequency-prior"):
        assert table.loc[(flat, "roc-auc-time")].value.eq(0.5).all(), "a flat map stays flat on the grid"


def test_the_oracle_finds_the_frames_of_the_truth_whatever_their_number(root, tmp_path, monkeypatch):
    """Frames often share their number of region cells: the view's region and the metric's must break such ties alike."""
    install(monkeypatch)
    scores = []
    for n_samples in (3_200, 3_616, 4_000):
        weights = write_checkpoint(tmp_path / f"w{n_samples}", n_samples=n_samples)
        out = tmp_path / f"run{n_samples}"
        run(spec(root, weights, "oracle", metrics=("rank-accuracy-time",)), out)
        scores += rows(out).value.tolist()
    assert scores == [1.0] * 18


def test_controls_reach_an_unequal_axis_as_densities_and_methods_as_masses(root, tmp_path, monkeypatch):
    install(monkeypatch)
    weights = write_checkpoint(tmp_path / "w", pool=5)  # 25 frames of 5 for 126 of the grid: the last one has no answer
    out = tmp_path / "run"
    run(spec(root, weights, "constant", "energy", "toy-gradient", keep_maps=True, limit=1), out)
    table = rows(out)
    assert set(table[table.metric.eq("drop-twin")].status) == {"ok"}
    pair = f"{table.utterance.iloc[0]}/{table.vocoder.iloc[0]}"

    def stored(name: str) -> np.ndarray:
        return maps.read_map(maps.map_path(out, "toy-time", "native", name, pair)).values

    assert np.allclose(stored("constant")[:, :125], 1.0, atol=1e-6) and stored("constant").shape == SHAPE
    bench = Workbench(spec(root, weights, "energy"))
    chosen = [p for p in ordered_pairs(bench.corpus, "eval") if p.id == pair]
    prepared = bench.prepare("toy-time", "native", chosen)
    assert prepared.view.shape == (1, 25)
    level = stored("energy")[:, :125].reshape(SHAPE[0], 25, 5)
    assert np.allclose(level, prepared.view.energy[0, 0].numpy()[None, :, None], rtol=1e-4)
    gradient = bench.attributor("toy-gradient")(bench.view_for(prepared, bench.attributor("toy-gradient"))).values
    assert stored("toy-gradient").sum() == pytest.approx(float(gradient.sum()), rel=1e-4), "the mass is kept"


def test_a_narrow_valid_band_leaves_a_time_only_countermeasure_its_frames(root, tmp_path, monkeypatch):
    """The tap has one cell a frame; it is valid although most of the band is not."""
    install(monkeypatch)
    narrow = tmp_path / "narrow"
    toybench.write_corpus(narrow)
    manifest = narrow / "toy.toml"
    manifest.write_text(manifest.read_text().replace("[500.0, 7000.0]", "[500.0, 3400.0]"))
    weights = write_checkpoint(tmp_path / "w")
    metrics = ("rank-accuracy-time", "drop-twin")
    run(spec(narrow, weights, "oracle", "toy-gradient", metrics=metrics), tmp_path / "run")
    table = rows(tmp_path / "run")
    assert set(table.status) == {"ok"}, table.note.unique()
    found = table[table.attributor.eq("oracle") & table.metric.eq("rank-accuracy-time")]
    assert found.value.eq(1).all()


def test_the_cm_of_the_own_maps_offers_them_on_its_own_tap_only():
    cm = TimeCM()
    spoof, bonafide = pairs(2)
    native = native_view(cm, spoof, bonafide, bonafide, ["a/x", "b/x"])
    assert "intrinsic" in native.offers and native.resolves == {"time"} and native.shape == (1, SHAPE[1])
    found = intrinsic(native)
    assert found.values.shape == (2, 1, SHAPE[1]) and found.resolves == {"time"}
    assert torch.equal(found.values, cm.frontend(spoof)[:, 0] - cm.frontend(spoof)[:, 1])
    on_grid = grid_view(cm, spoof, bonafide, bonafide, ["a/x", "b/x"], grid=GRID)
    assert "intrinsic" not in on_grid.offers and on_grid.resolves == {"frequency", "time"}
    with pytest.raises(Unsupported, match=r"intrinsic \(a countermeasure that computes maps of its own\)"):
        on_grid.require(intrinsic.needs, "attributor 'toy-intrinsic'")


@pytest.mark.parametrize("build", [native_view, lambda *a, **k: grid_view(*a, grid=GRID, **k)], ids=["native", "grid"])
def test_maps_of_layers_tell_apart_what_the_countermeasure_says_of_its_layers(build):
    spoof, bonafide = pairs(2)
    for cm in (TimeCM(), FlatLayersCM()):
        view = build(cm, spoof, bonafide, bonafide, ["a/x", "b/x"])
        assert view.layers_resolve in (None, frozenset({"time"}))
        assert "layers" in view.offers
        by_layer = replace(cam, function=lambda v: torch.ones(len(v), *v.shape))
        assert by_layer(view).resolves == {"time"}, type(cm).__name__
        by_input = replace(by_layer, needs=frozenset())
        assert by_input(view).resolves == view.resolves


def test_a_method_that_makes_its_own_attribution_cannot_claim_a_frequency_the_tap_lacks(root, tmp_path, monkeypatch):
    from xaibench.types import Attribution

    @attributor(name="toy-cam", paper="none", class_specific=False)
    def claims(view):
        return Attribution(view.inputs.mean(1), *view.axes)

    install(monkeypatch, "toy-cam")
    monkeypatch.setattr(importlib.import_module("test_time_only"), "cam", claims)  # as the registry imports it
    weights = write_checkpoint(tmp_path / "w")
    run(spec(root, weights, "toy-cam", metrics=("rank-accuracy",), limit=2), tmp_path / "run")
    table = rows(tmp_path / "run")
    assert set(table.status) == {"unsupported"} and table.note.str.contains("the map has none of its own").all(), table.note


def test_patches_of_a_single_row_are_stretches_of_time():
    assert patches((1, 10), 4, 4).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2]]


def test_countermeasures_of_two_lengths_share_a_run_and_its_kept_maps(root, tmp_path, monkeypatch):
    install(monkeypatch)
    weights = write_checkpoint(tmp_path / "w", n_samples=6_400)  # longer than the recordings: they are repeated
    both = spec(
        root, weights, "energy", "oracle", countermeasures=("toy", "toy-time"), keep_maps=True, limit=2,
        metrics=("rank-accuracy", "rank-accuracy-time"),
        checkpoints={"toy": str(root / "weights" / "toy.safetensors"), "toy-time": weights},
    )  # fmt: skip
    out = tmp_path / "run"
    assert run(both, out).computed == 2 * 2 * 2 * 2
    assert run(both, out).computed == 0, "every map and truth was found again"
    table = rows(out)
    pair = f"{table.utterance.iloc[0]}/{table.vocoder.iloc[0]}"
    frames = {"toy": SHAPE[1], "toy-time": GRID.shape(6_400)[1]}
    assert [p.parent.name for p in maps.truth_paths(out, "eq2", pair)] == sorted(map(str, frames.values()))
    for name, count in frames.items():
        truth = maps.read_truth(maps.truth_path(out, "eq2", count, pair))
        stored = maps.read_map(maps.map_path(out, name, "native", "oracle", pair))
        assert stored.values.shape == truth.values.shape == (SHAPE[0], count)
    utterance = table.utterance.iloc[0]
    pictures = figures.show_run(out, utterance, tmp_path / "figures")
    assert {p.name.split("__")[2] for p in pictures} == {"toy", "toy-time"}
    # a truth that is lost is made again, and no other
    lost = maps.truth_path(out, "eq2", frames["toy-time"], pair)
    kept = maps.truth_path(out, "eq2", frames["toy"], pair)
    before = kept.stat().st_mtime_ns
    lost.unlink()
    run(both, out)
    assert lost.exists() and kept.stat().st_mtime_ns == before


# ---- data without twins ------------------------------------------------------------------------------------------------

SEGMENTS = "0 0.1 bonafide;0.1 0.16 spoof;0.16 0.25 bonafide"


def write_partial(folder: Path, *, bonafide: bool = True) -> Path:
    """Noise that is smoothed from 0.1 to 0.16 s, and other noise that is not; no recording is another's twin."""
    draw = np.random.default_rng(1)
    lines = []
    for split, count in {"train": 2, "eval": 3}.items():
        for kind in ("partial", "bonafide") if bonafide or split == "train" else ("partial",):
            for i in range(count):
                noise = 0.1 * draw.standard_normal(N_SAMPLES)
                if kind == "partial":
                    noise[1600:2560] = np.convolve(noise, [0.2, 0.6, 0.2], "same")[1600:2560]
                path = folder / f"{split}-{kind}-{i}.flac"
                folder.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, np.clip(noise, -1, 1), GRID.sample_rate, subtype="PCM_16")
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                segments = SEGMENTS if kind == "partial" else ""
                lines.append([path.stem, f"s{i}", split, kind, path.name, N_SAMPLES, digest, segments])
    with (folder / "partial.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["utt_id", "speaker", "split", "vocoder", "path", "n_samples", "sha256", "segments"])
        writer.writerows(lines)
    manifest = folder / "partial.toml"
    manifest.write_text(
        f'name = "partial"\ntable = "partial.csv"\nsample_rate = {GRID.sample_rate}\nvalid_band = [500.0, 7000.0]\n'
        "paired = false\n"
    )
    return manifest


@pytest.fixture(scope="module")
def partial(tmp_path_factory) -> Path:
    return write_partial(tmp_path_factory.mktemp("partial"))


def of_segments(manifest: Path, weights: str, *attributors: str, **changes: object) -> RunSpec:
    settings = {"data": str(manifest), "truth": TruthSpec("segments")} | changes
    return spec(manifest.parent, weights, *attributors, **settings)


def test_segments_are_scored_in_time_without_any_twin(partial, tmp_path, monkeypatch):
    install(monkeypatch)
    weights = write_checkpoint(tmp_path / "w")
    metrics = ("rank-accuracy-time", "rank-accuracy", "drop-silence", "drop-twin", "deletion-twin", "deletion-silence")
    summary = run(of_segments(partial, weights, "oracle", "toy-gradient", "constant", metrics=metrics), tmp_path / "run")
    table = rows(tmp_path / "run")
    assert set(table.utterance) == {"eval-partial-0", "eval-partial-1", "eval-partial-2"}
    value = table[table.metric.eq("rank-accuracy-time")].groupby("attributor").value
    assert value.get_group("oracle").eq(1).all()
    spoofed = 30 / SHAPE[1]  # 0.06 s of frames of 2 ms
    assert value.get_group("constant").sub(spoofed).abs().max() < 1e-2
    assert value.get_group("toy-gradient").min() > spoofed
    by_metric = table.groupby("metric").status.agg(set)
    assert by_metric["deletion-silence"] == {"ok"}
    for needs_twin in ("drop-silence", "drop-twin", "deletion-twin"):  # a drop is a share of the gap between the twins
        assert by_metric[needs_twin] == {"unsupported"}, needs_twin
    assert table[table.metric.eq("drop-twin")].note.str.contains("the fill 'twin' is not available").all()
    assert by_metric["rank-accuracy"] == {"unsupported"}
    assert not summary.problems


def test_two_axes_and_segments_make_frequency_unsupported_by_the_truth(partial, tmp_path, monkeypatch):
    install(monkeypatch)
    mine = of_segments(
        partial, "", "oracle", "energy", countermeasures=("toy",), metrics=("rank-accuracy", "rank-accuracy-time"),
        checkpoints={"toy": str(toybench.write_checkpoint(tmp_path / "w"))},
    )  # fmt: skip
    run(mine, tmp_path / "run")
    table = rows(tmp_path / "run")
    refused = table[table.metric.eq("rank-accuracy")]
    assert set(refused.status) == {"unsupported"} and refused.note.str.contains("the truth has none of its own").all()
    assert table[table.metric.eq("rank-accuracy-time") & table.attributor.eq("oracle")].value.eq(1).all()


def test_without_twins_no_twin_is_offered_and_references_are_bona_fide_training_speech(partial, tmp_path, monkeypatch):
    install(monkeypatch)
    bench = Workbench(of_segments(partial, write_checkpoint(tmp_path / "w"), "energy"))
    chosen = ordered_pairs(bench.corpus, "eval")
    assert all(pair.bonafide is None for pair in chosen)
    for route in ("native", "grid"):
        view = bench.prepare("toy-time", route, chosen[:2]).view
        assert "twin" not in view.fills and "twin" not in view.offers
        assert len(view.references) == 2 and "references" in view.offers
        assert view.prior is None and "prior" not in view.offers
    with pytest.raises(Unsupported, match="the fill 'twin' is not available on this view; there are: silence, mean"):
        view.fill("twin")


def test_a_truth_made_of_twins_is_refused_before_any_work_where_there_are_none(partial, root, tmp_path, monkeypatch):
    install(monkeypatch)
    weights = write_checkpoint(tmp_path / "w")
    with pytest.raises(
        RunError, match="partial has no bona fide twins, which the truth 'eq2' is made from; --truth segments"
    ):
        run(of_segments(partial, weights, "energy", truth=TruthSpec()), tmp_path / "run")
    with pytest.raises(RunError, match=r"toy says no segments of .*: the truth `segments` is for partially spoofed speech"):
        run(spec(root, weights, "energy", truth=TruthSpec("segments")), tmp_path / "other")


def test_the_eer_without_twins_is_against_bona_fide_speech_of_the_split(partial, tmp_path, monkeypatch):
    install(monkeypatch)
    bench = Workbench(of_segments(partial, write_checkpoint(tmp_path / "w"), "energy"))
    sentence, eer, _ = check_countermeasure(bench, "toy-time", ordered_pairs(bench.corpus, "eval"))
    assert sentence == "" and eer is not None and eer < 0.5
    alone = write_partial(tmp_path / "alone", bonafide=False)
    bench = Workbench(of_segments(alone, write_checkpoint(tmp_path / "w"), "energy"))
    with pytest.raises(XaibenchError, match="bona fide"):
        check_countermeasure(bench, "toy-time", ordered_pairs(bench.corpus, "eval"))


def test_the_board_of_a_time_only_run_shows_its_temporal_metrics(root, tmp_path, monkeypatch):
    from xaibench.leaderboard.table import board, metrics_of, read_rows

    install(monkeypatch)
    weights = write_checkpoint(tmp_path / "w")
    both = spec(
        root, weights, "energy", "oracle", countermeasures=("toy", "toy-time"), limit=2,
        metrics=("rank-accuracy", "rank-accuracy-time", "drop-twin"),
        checkpoints={"toy": str(root / "weights" / "toy.safetensors"), "toy-time": weights},
    )  # fmt: skip
    run(both, tmp_path / "run")
    sections = board(read_rows([tmp_path / "run"]), draws=200).groupby("countermeasure")
    assert metrics_of(sections.get_group("toy")) == ["rank-accuracy", "drop-twin"]
    assert metrics_of(sections.get_group("toy-time")) == ["rank-accuracy-time", "drop-twin"]
    assert sections.get_group("toy-time").coverage.eq(1).all(), "what nobody could answer is not on the board"


def test_the_waveforms_of_a_late_twin_are_those_that_both_recordings_have(tmp_path):
    """`lag` > 0: late; < 0: early. Sample n of both halves is the same instant."""
    bonafide = np.round(np.linspace(-0.5, 0.5, 400) * 32768) / 32768
    rest = {"late": np.r_[np.zeros(7), bonafide], "early": bonafide[5:]}
    for name, samples in {"bonafide": bonafide, **rest}.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="PCM_16")
    from xaibench.types import Pair, Utterance

    whole = Utterance("a", "s", "eval", "bonafide", tmp_path / "bonafide.wav", n_samples=400)
    bench = Workbench(RunSpec(("toy",), ("energy",), ("rank-accuracy",)))
    bench.corpus = Corpus("c", (), 16_000, (0.0, 8_000.0))
    for name, lag, n_samples in (("late", 7, 400), ("early", -5, 395)):
        twin = Utterance("a", "s", "eval", name, tmp_path / f"{name}.wav", n_samples=n_samples, lag=lag)
        real, fake = bench.waveforms([Pair(whole, twin)], n_samples)
        assert torch.equal(real, fake), name
        assert torch.equal(real[0], torch.from_numpy(bonafide[-n_samples:].astype(np.float32)))
