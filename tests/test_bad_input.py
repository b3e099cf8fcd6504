"""Inputs that people bring: data sets without training speech, twins that do not differ, files that are no recordings."""

import hashlib
import re

import numpy as np
import pytest
import soundfile
import torch
import toybench
from toys import BAND, GRID, N_SAMPLES, LinearCM, pairs

from xaibench.audio import read
from xaibench.errors import AudioError, ManifestError, RunError, Unsupported
from xaibench.harness.results import Store
from xaibench.harness.run import run
from xaibench.manifest import read_manifest, verify
from xaibench.maps import kept_pairs
from xaibench.truth import TruthSpec, truth
from xaibench.view import grid_view, native_view


@pytest.fixture
def root(tmp_path, monkeypatch):
    toybench.write_corpus(tmp_path)
    toybench.write_checkpoint(tmp_path / "weights")
    toybench.install(monkeypatch, "toy-gradient")
    return tmp_path


def keep_lines(root, wanted):
    lines = (root / "toy.csv").read_text().splitlines()
    (root / "toy.csv").write_text("\n".join([lines[0], *(line for line in lines[1:] if wanted(line))]) + "\n")


def rehash(root, line_of):
    """Write the table again with the lengths and hashes of the files as they are now."""
    lines = (root / "toy.csv").read_text().splitlines()
    out = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        if line_of in line:
            cells[5] = str(soundfile.info(root / cells[4]).frames)
            cells[-1] = hashlib.sha256((root / cells[4]).read_bytes()).hexdigest()
        out.append(",".join(cells))
    (root / "toy.csv").write_text("\n".join(out) + "\n")


@pytest.mark.parametrize("route", ["native", "grid"])
def test_a_data_set_of_eval_speech_only_runs_and_says_what_it_cannot_offer(root, route):
    keep_lines(root, lambda line: ",eval," in line)
    wanted = toybench.spec(root, "toy-gradient", "frequency-prior", route=route, metrics=("rank-accuracy", "drop-mean"))
    run(wanted, root / "run")
    rows = Store(root / "run").read_rows()
    method = rows[rows.attributor == "toy-gradient"]
    assert set(method[method.metric == "rank-accuracy"].status) == {"ok"}
    # On the native route the fill is the countermeasure's own mean, on the grid it would be that of the references.
    assert set(method[method.metric == "drop-mean"].status) == {"ok" if route == "native" else "unsupported"}
    prior = rows[rows.attributor == "frequency-prior"]
    assert set(prior.status) == {"unsupported"}
    assert prior.note.str.contains("train or dev split").all()


@pytest.mark.parametrize("make", ["native", "grid"])
def test_a_view_without_references_offers_none(make):
    cm, (spoof, bonafide) = LinearCM(), pairs(2)
    none = torch.zeros(0, N_SAMPLES)
    view = (
        native_view(cm, spoof, bonafide, none, ("a", "b"))
        if make == "native"
        else grid_view(cm, spoof, bonafide, none, ("a", "b"), grid=GRID)
    )
    assert len(view.references) == 0 and view.references.shape[1:] == view.inputs.shape[1:]
    with pytest.raises(Unsupported, match="train or dev split"):
        view.require(frozenset({"references"}), "a method")


@pytest.mark.parametrize("name", ["eq2", "eq1", "log-difference"])
def test_twins_that_do_not_differ_have_no_region(name):
    same = 0.1 * torch.randn(1, N_SAMPLES, generator=torch.Generator().manual_seed(0))
    silent = torch.zeros(1, N_SAMPLES)
    for pair in (same, silent):
        found = truth(pair, pair.clone(), grid=GRID, band=BAND, spec=TruthSpec(name=name))
        assert not found.values.any() and not found.region.any()


def test_the_region_of_twins_that_share_most_cells_holds_only_cells_that_changed():
    same = 0.1 * torch.randn(1, N_SAMPLES, generator=torch.Generator().manual_seed(0))
    spoof = same.clone()
    spoof[:, :32] *= 0.5  # changes the first frames alone, less than the region's usual share
    found = truth(spoof, same, grid=GRID, band=BAND)
    changed = (found.values > 0) & found.valid
    assert 0 < int(found.region.sum()) <= int(changed.sum())
    assert not (found.region & ~changed).any()


def test_identical_twins_give_undefined_localisation_rows_and_harm_no_other_utterance(root):
    real = next((root / "eval").glob("c-1_bonafide.flac"))
    (root / "eval" / "c-1_comb.flac").write_bytes(real.read_bytes())
    rehash(root, "c-1_comb")
    wanted = toybench.spec(root, "toy-gradient", "oracle", metrics=("rank-accuracy", "mass-accuracy", "roc-auc"))
    run(wanted, root / "run")
    rows = Store(root / "run").read_rows()
    same = (rows.utterance == "c-1") & (rows.vocoder == "comb")
    assert same.sum() == 6 and set(rows[same].status) == {"undefined"}
    assert set(rows[~same].status) == {"ok"}


def test_a_directory_in_place_of_a_recording_is_named_as_one(root):
    path = root / "eval" / "d-1_comb.flac"
    path.unlink()
    path.mkdir()
    with pytest.raises(ManifestError, match=re.escape(str(path)) + ": a directory"):
        verify(read_manifest(root / "toy.toml", root).utterances)


def test_an_empty_file_is_called_empty(tmp_path):
    path = tmp_path / "nothing.flac"
    path.write_bytes(b"")
    with pytest.raises(AudioError, match=r"nothing\.flac: an empty file"):
        read(path, sample_rate=16_000)


def test_names_in_any_script_survive_a_run_and_its_kept_maps(root):
    table = root / "toy.csv"
    table.write_text(table.read_text().replace("c-1,", "发音 ü,"), encoding="utf-8")
    run(toybench.spec(root, "toy-gradient", metrics=("rank-accuracy",), keep_maps=True), root / "run")
    assert kept_pairs(root / "run", "发音 ü") == ["发音 ü/comb", "发音 ü/smooth"]


def test_recordings_longer_and_shorter_than_the_window_are_cut_and_repeated(root):
    for name, count in (("c-1", 3 * N_SAMPLES), ("d-1", N_SAMPLES // 5)):
        for file in (root / "eval").glob(f"{name}_*.flac"):
            samples, rate = soundfile.read(file)
            soundfile.write(file, np.resize(samples, count), rate, subtype="PCM_16")
        rehash(root, f"{name}_")
    run(toybench.spec(root, "toy-gradient", metrics=("rank-accuracy",)), root / "run")
    assert set(Store(root / "run").read_rows().status) == {"ok"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("c-1,", "c/1,", "utt_id 'c/1' holds a path separator"), (",comb,", ",co__mb,", "vocoder 'co__mb' holds '__'")],
)
def test_names_that_cannot_name_files_are_refused_before_any_work(root, old, new, message):
    table = root / "toy.csv"
    table.write_text(table.read_text().replace(old, new), encoding="utf-8")
    with pytest.raises(ManifestError, match=re.escape(message)):
        read_manifest(root / "toy.toml", root)


def test_a_band_beyond_half_the_sample_rate_is_refused(root):
    manifest = root / "toy.toml"
    manifest.write_text(manifest.read_text().replace("7000.0", "9000.0"))
    with pytest.raises(ManifestError, match="half the sample rate of 16000 Hz"):
        read_manifest(manifest, root)


def test_maps_of_a_folder_that_is_not_there_are_not_called_unkept(tmp_path):
    with pytest.raises(RunError, match="no such folder"):
        kept_pairs(tmp_path / "typo", "c-1")
