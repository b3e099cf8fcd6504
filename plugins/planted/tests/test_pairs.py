"""The data set `planted`: minivoc's own recordings and twins that differ from them in the rectangle alone."""

import os
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from xaibench_minivoc.datasets import AUDIO, minivoc
from xaibench_planted.notch import planted_notch, planted_rectangle
from xaibench_planted.pairs import build, planted

from xaibench.audio import read
from xaibench.errors import ManifestError
from xaibench.grid import Grid
from xaibench.manifest import pairs, verify
from xaibench.truth import truth

RATE = 16_000
GRID = Grid()

#: sha256 of the table of all 152 twins. It changes only with the recipe, whose `VERSION` then must change, too.
HASH = "aa8f628622a6419daf394d199cfb41567a0b9b0aa5972b2e8e4753352492f4db"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return planted.open(None)


@pytest.fixture(scope="module")
def few():
    """minivoc, of two utterances only."""
    whole = minivoc.open(None)
    chosen = {"allison_en_010", "june_fr_003"} & {u.source for u in whole.utterances}
    assert len(chosen) == 2
    return replace(whole, utterances=tuple(u for u in whole.utterances if u.source in chosen))


def cells(x: np.ndarray, *, more: int = 0) -> np.ndarray:
    """Cells of the grid whose centres lie in the rectangle, `more` cells wider on every side. Shape: `(F, T)` bool."""
    start, end, low, high = planted_rectangle(x, RATE)
    frequency, time = GRID.frequency.centres, np.arange(len(x) // 160 + 1) * 0.01
    across = (frequency >= low - more * 31.25) & (frequency <= high + more * 31.25)
    return across[:, None] & ((time >= start - more * 0.01) & (time <= end + more * 0.01))[None, :]


def test_the_data_set_and_the_vocoder_are_offered_as_plugins():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    entries = project["project"]["entry-points"]
    assert entries["xaibench.datasets"] == {planted.name: "xaibench_planted.pairs:planted"}
    assert entries["xaibench.vocoders"] == {planted_notch.name: "xaibench_planted.notch:planted_notch"}


def test_every_bona_fide_recording_of_minivoc_has_its_twin_and_is_not_copied(corpus, cache):
    real = [u for u in minivoc.open(None).utterances if u.bonafide]
    assert [u for u in corpus.utterances if u.bonafide] == real
    assert [p.id for p in pairs(corpus)] == [f"{u.source}/planted-notch" for u in real]
    assert Counter(p.spoof.split for p in pairs(corpus)) == {"train": 80, "dev": 24, "eval": 48}
    assert corpus.held_out == () and corpus.valid_band == (90, 7_000) and corpus.licence
    assert all(u.path.is_relative_to(AUDIO.resolve()) == u.bonafide for u in corpus.utterances)
    assert all(u.path.is_relative_to(cache / "xaibench" / "planted") for u in corpus.utterances if not u.bonafide)


def test_the_files_are_those_of_the_recipe(corpus):
    assert corpus.hash == HASH
    assert verify(corpus.utterances) == 304


def test_a_twin_is_the_notched_recording_rounded_to_16_bit(corpus):
    for pair in pairs(corpus)[::19]:
        real, fake = (read(u.path, sample_rate=RATE) for u in pair.halves)
        np.testing.assert_allclose(fake, planted_notch.function(real, RATE), atol=0.5 / 32768 + 1e-9)
        (segment,) = pair.spoof.segments
        assert segment == (*planted_rectangle(real, RATE)[:2], "spoof")


def test_the_truth_of_a_pair_lies_in_its_rectangle(corpus):
    """Equation 2 smooths over 11 bins and 3 frames and frames overlap, so a few cells are one or two beyond the edge."""
    strict, wide, outside = [], [], []
    for pair in pairs(corpus)[::5]:
        real, fake = (read(u.path, sample_rate=RATE) for u in pair.halves)
        found = truth(torch.from_numpy(fake)[None], torch.from_numpy(real)[None], grid=GRID, band=(90, 7_000))
        region, values = found.region[0].numpy(), found.values[0].numpy()
        strict.append(region[cells(real)].sum() / region.sum())
        wide.append(region[cells(real, more=2)].sum() / region.sum())
        outside.append(np.quantile(values[~cells(real, more=8)], 0.99) / np.median(values[region]))
    assert min(strict) > 0.95 and np.mean(strict) > 0.975
    assert min(wide) > 0.995
    assert max(outside) < 0.06  # D elsewhere is rounding to 16 bit


def test_the_mean_of_d_stands_out_at_the_rectangles_edge(corpus):
    """Within it every cell changes: the lowest twentieth there exceeds the highest hundredth elsewhere."""
    for pair in pairs(corpus)[::19]:
        real, fake = (read(u.path, sample_rate=RATE) for u in pair.halves)
        values = truth(
            torch.from_numpy(fake)[None], torch.from_numpy(real)[None], grid=GRID, band=(90, 7_000)
        ).values[0].numpy()  # fmt: skip
        assert np.quantile(values[cells(real, more=-3)], 0.05) > 3 * np.quantile(values[~cells(real, more=8)], 0.99)


def test_nothing_is_made_twice_and_what_is_missing_or_cut_short_is_made_again(few, tmp_path):
    first = build(few, tmp_path)
    files = sorted(p for p in tmp_path.rglob("*.wav"))
    before = [p.stat().st_mtime_ns for p in files]
    assert build(few, tmp_path) == first and [p.stat().st_mtime_ns for p in files] == before
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:1_000])
    assert build(few, tmp_path) == first and verify(first.utterances) == 4


def test_a_damaged_index_is_written_again(few, tmp_path):
    first = build(few, tmp_path)
    (index,) = tmp_path.rglob("index.json")
    index.write_text(index.read_text()[:40])
    assert build(few, tmp_path) == first


def test_a_folder_that_cannot_be_written_is_named(few, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ManifestError, match=r"cannot write planted here.*XDG_CACHE_HOME"):
        build(few, tmp_path / "file")


def test_opening_needs_no_torch(cache, corpus):
    code = (
        "import sys; from xaibench_planted.pairs import planted; planted.open(None); "
        "sys.exit('torch' in sys.modules)"
    )  # fmt: skip
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
