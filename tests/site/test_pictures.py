"""The example on the first page: the cells that are painted are those of the truth and of the maps, in their colours."""

import explorer_run
import numpy as np
import pytest
from explorer_run import GRID, RATE
from PIL import Image

from xaibench import audio, maps, registry
from xaibench.site import pictures
from xaibench.site.source import read
from xaibench.truth import top_share


@pytest.fixture
def source(tmp_path, monkeypatch):
    run = explorer_run.make(tmp_path)
    monkeypatch.setattr(registry, "load", lambda group, name: explorer_run.dataset(tmp_path))
    return read([run])


@pytest.fixture
def drawn(monkeypatch):
    """What is saved, by name, before PNG takes some of its colours."""
    found = {}
    before = pictures._save
    monkeypatch.setattr(pictures, "_save", lambda out, name, rgb: found.update({name: rgb}) or before(out, name, rgb))
    return found


def painted(drawn, name, colour):
    return (drawn[f"pictures/example-{name}.png"] == np.array(colour)).all(axis=2)


def test_hits_are_green_misses_blue_and_the_truth_orange(source, drawn, tmp_path):
    import torch

    example = pictures.write(source, tmp_path / "site")
    run, (name, vocoder) = source.runs[0], example.pair.split(", ")
    truth = maps.read_truth(maps.truth_paths(run, "eq2", f"{name}/{vocoder}")[0])
    np.testing.assert_array_equal(painted(drawn, "truth", pictures.TRUTH), truth.region)
    for which, panel in (("good", example.panels[3]), ("bad", example.panels[4])):
        method = panel.title.partition(": ")[2]
        values = maps.read_map(maps.map_path(run, "lcnn", "native", method, f"{name}/{vocoder}")).values
        share = truth.region.sum() / truth.valid.sum()
        top = top_share(torch.from_numpy(values)[None], torch.from_numpy(truth.valid), share)[0].numpy()
        np.testing.assert_array_equal(painted(drawn, which, pictures.HIT), top & truth.region)
        np.testing.assert_array_equal(painted(drawn, which, pictures.MISS), top & ~truth.region)
    assert (example.seconds, example.top) == (pytest.approx(0.5, abs=GRID.hop / RATE), RATE / 2)


def test_real_and_fake_are_the_recordings_with_high_frequencies_on_top(source, drawn, tmp_path):
    import torch

    example = pictures.write(source, tmp_path / "site")
    name, vocoder = example.pair.split(", ")
    for which, ending in (("real", "bonafide"), ("fake", vocoder)):
        wave = audio.read(tmp_path / "audio" / f"{name}_{ending}.wav", sample_rate=RATE)
        wave = torch.from_numpy(wave[: (example.width - 1) * GRID.hop])[None].double()
        level = GRID.stft(wave).abs()[0].numpy()
        level = 20 * np.log10(level / level.max())
        bright = drawn[f"pictures/example-{which}.png"].astype(int).sum(axis=2)
        assert np.corrcoef(bright.ravel(), level.clip(-80, 0).ravel())[0, 1] > 0.95
    with Image.open(tmp_path / "site" / example.panels[0].file) as stored:
        stored = np.asarray(stored.convert("RGB")).astype(int)
    first = drawn["pictures/example-real.png"].astype(int)
    assert np.abs(stored - first[::-1]).mean() < np.abs(stored - first).mean() / 4


def test_recordings_that_are_gone_are_a_note_each_on_the_command_line(source, command, tmp_path):
    import shutil

    shutil.rmtree(tmp_path / "audio")
    code, out, err = command("leaderboard", source.runs[0], "--quiet", "--out", tmp_path / "site")
    assert code == 0 and out.strip().endswith("index.html")
    assert err.count("note: ") == len(err.splitlines()) == 4 and "Warning" not in err, err


def test_without_maps_there_is_none(source, tmp_path):
    import shutil

    shutil.rmtree(source.runs[0] / "maps")
    assert pictures.write(source, tmp_path / "site") is None
