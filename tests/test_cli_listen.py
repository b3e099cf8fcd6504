"""`xaibench listen` and `xaibench mean-audio` as a user types them, on a run and a corpus of toys."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import toybench

from xaibench import cli, maps
from xaibench.grid import Grid
from xaibench.listen import kept, leakage, level, power_of, removed
from xaibench.listening import DRAWS, RANDOM, Section, Sound, Wanted, page
from xaibench.scoring import score_recordings
from xaibench.top import top_mask

GRID = Grid(n_fft=64, hop=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus, weights and a run with maps of two utterances, made once."""
    base = tmp_path_factory.mktemp("listen")
    words = [
        "run", "--cm", "toy", "--xai", "toy-gradient,toy-zero", "--data", "toy", "--root", base / "corpus", "--n-fft", 64,
        "--hop", 32, "--device", "cpu", "--limit", 2, "--metrics", "rank-accuracy", "--keep-maps", "--out", base / "run",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        toybench.install(patch, "toy-gradient", "toy-zero")
        toybench.write_corpus(base / "corpus")
        words += ["--checkpoint", toybench.write_checkpoint(base / "weights")]
        patch.setattr(sys, "argv", ["xaibench", *map(str, words)])
        cli.main()
    return base


@pytest.fixture
def toy(made, tmp_path, monkeypatch):
    """A copy of the run, with corpus and weights beside it."""
    toybench.install(monkeypatch, "toy-gradient", "toy-zero")
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


@pytest.fixture
def pair(toy):
    (path, *_) = sorted((toy / "maps" / "toy" / "native" / "toy-gradient").iterdir())
    return "/".join(path.name.removesuffix(maps.SUFFIX).rsplit("__", 1))


def read(path):
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 16_000 and soundfile.info(path).subtype == "PCM_16"
    return samples / 32768


# listen --------------------------------------------------------------------------------------------------------------


def test_listen_writes_sounds_scores_and_a_page(toy, pair, command, tmp_path):
    out = tmp_path / "out"
    code, printed, errors = command("listen", toy, "--utt", pair, "--xai", "toy-gradient", "--share", 0.1, "--out", out)
    assert code == 0, errors
    assert "toy-gradient" in printed and RANDOM in printed and str(out / "index.html") in printed
    table = pd.read_csv(out / "listen.csv")
    assert sorted(table["kind"]) == sorted(["original", "bonafide", *2 * ["kept", "removed"]])
    assert {p.name for p in out.glob("*.wav")} == set(table["file"])
    first = read(out / table[table["kind"].eq("original")]["file"].item())
    for row in table.itertuples():
        samples = read(out / row.file)
        assert len(samples) == len(first) == 4_000 and np.abs(samples).max() < 1
        assert row.limited or level(samples) == pytest.approx(level(first), abs=0.1)
        assert (row.level, row.peak) == pytest.approx((level(samples), np.abs(samples).max()))
    text = (out / "index.html").read_text()
    assert all(f'src="{name}"' in text for name in table["file"]) and text.count('preload="none"') == len(table)


def test_the_scores_are_the_countermeasures_of_what_the_mask_makes(toy, pair, command, tmp_path):
    command("listen", toy, "--utt", pair, "--xai", "toy-gradient", "--out", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "listen.csv")
    (section,) = json.loads((tmp_path / "out" / "listen.json").read_text())["sections"]
    source, vocoder = maps.split_pair(pair)
    wave, twin = (
        soundfile.read(tmp_path / "corpus" / "eval" / f"{source}_{name}.flac", dtype="float32")[0]
        for name in (vocoder, "bonafide")
    )
    stored = maps.read_map(maps.map_path(toy, "toy", "native", "toy-gradient", pair)).values
    valid = maps.read_truth(maps.truth_path(toy, "eq2", stored.shape[1], pair)).valid
    mask = top_mask(stored, 0.05, valid)
    cm = toybench.recipe.untrained(seed=0).eval()

    def score(sound):
        return pytest.approx(float(score_recordings(cm, [sound.astype(np.float32)])[0]), rel=1e-4, abs=1e-4)

    mine = table[table["method"].eq("toy-gradient")].set_index("kind")
    assert mine.loc["kept", "in_silence"] == score(kept(wave, mask, GRID))
    assert mine.loc["kept", "in_twin"] == score(kept(wave, mask, GRID, fill=twin))
    assert mine.loc["removed", "in_silence"] == score(removed(wave, mask, GRID))
    assert mine.loc["removed", "in_twin"] == score(removed(wave, mask, GRID, fill=twin))
    for row in table.itertuples():  # after the gain, as 16-bit samples
        assert row.of_file == score(read(tmp_path / "out" / row.file))
    power = power_of(wave, GRID)
    assert mine.loc["kept", "energy"] == pytest.approx(power[mask].sum() / power.sum(), rel=1e-5)
    assert mine.loc["kept", "outside"] == pytest.approx(leakage(kept(wave, mask, GRID), mask, GRID), rel=1e-4)
    facts = section["facts"]
    assert facts["twin"] == score(twin) and facts["silence"] == score(np.zeros(4_000))
    assert [len(facts[f"{what}_in_{fill}"]) for what in ("kept", "removed") for fill in ("silence", "twin")] == 4 * [DRAWS]


def test_carried_is_zero_for_the_fill_and_one_for_the_utterance():
    sounds = [Sound("a", "u/v", "cm", "native", "", "original", of_file=-6.0)]
    section = Section("u/v", "cm", "native", sounds, {"silence": 2.0, "twin": 6.0, "kept_in_twin": [6.0, 0.0, -6.0]})
    cells = Sound("b", "u/v", "cm", "native", "m", "kept", in_silence=0.0, in_twin=-3.0)
    assert (section.carried(cells, "silence"), section.carried(cells, "twin")) == (0.25, 0.75)
    assert section.random("twin") == [0.0, 0.5, 1.0] and section.random("silence") == []
    section.facts["twin"] = -5.5  # hardly apart: a share of next to nothing says nothing
    assert section.carried(cells, "twin") is None


def test_an_empty_mask_is_silence_and_is_said(toy, pair, command, tmp_path):
    code, printed, errors = command("listen", toy, "--utt", pair, "--xai", "toy-zero", "--no-score", "--out", tmp_path / "o")
    assert code == 0 and "silent" in printed and "toy-zero: every cell of its map is equal" in errors
    table = pd.read_csv(tmp_path / "o" / "listen.csv")
    row = table[table["method"].eq("toy-zero") & table["kind"].eq("kept")].iloc[0]
    assert row["silent"] and not read(tmp_path / "o" / row["file"]).any() and np.isnan(row["level"])
    assert table["of_file"].isna().all()  # no countermeasure was asked
    assert "silent: the mask is empty" in (tmp_path / "o" / "index.html").read_text()


def test_griffin_lim_triple_twin_and_flac(toy, pair, command, tmp_path):
    words = ("listen", toy, "--utt", pair, "--xai", "toy-gradient", "--no-score", "--out", tmp_path / "o")
    code, _, errors = command(*words, "--triple", "--griffin-lim", "--format", "flac", "--fill", "twin")
    assert code == 0, errors
    table = pd.read_csv(tmp_path / "o" / "listen.csv")
    assert all(name.endswith(".flac") for name in table["file"])
    triple = table[table["kind"].eq("triple") & table["method"].eq("toy-gradient")].iloc[0]
    samples = read(tmp_path / "o" / triple["file"])
    pause = round(0.4 * 16_000)
    assert len(samples) == 3 * 4_000 + 2 * pause
    first = samples[:4_000]
    assert first == pytest.approx(read(tmp_path / "o" / table[table["kind"].eq("original")]["file"].item()), abs=1e-4)
    assert not samples[4_000 : 4_000 + pause].any()
    resynthesis = samples[4_000 + pause : 8_000 + pause]
    assert level(resynthesis) == pytest.approx(level(first), abs=0.1) and not np.allclose(resynthesis, first, atol=1e-3)
    assert "kept-5pct-in-twin-griffin-lim" in table[table["kind"].eq("kept")]["file"].iloc[0]


def test_the_same_command_gives_the_same_files(toy, pair, command, tmp_path):
    for name in "ab":
        command("listen", toy, "--utt", pair, "--xai", "toy-gradient", "--griffin-lim", "--out", tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--utt", "nobody"], "no map of 'nobody' was kept; there are"),
        (["--utt", "PAIR", "--xai", "toy-gradiant"], "did you mean 'toy-gradient'"),
        (["--utt", "PAIR", "--share", "0"], "share 0.0, expected more than 0 and at most 1"),
        (["--utt", "PAIR", "--share", "5"], "as 0.05 for 5 %"),
        (["--utt", "PAIR", "--share", "1e-9"], "less than one cell"),
        (["--utt", "PAIR", "--format", "mp3"], "expected silence or twin, wav or flac"),
        (["--utt", "PAIR", "--fill", "mean"], "expected silence or twin"),
    ],
)
def test_what_cannot_be_heard_is_one_line(toy, pair, command, tmp_path, words, said):
    words = [pair if w == "PAIR" else w for w in words]
    code, _, errors = command("listen", toy, *words, "--no-score", "--out", tmp_path / "o")
    assert code == 2 and said in errors and errors.count("\n") == 1, errors


def test_a_run_without_maps_and_other_weights_are_refused(toy, pair, command, tmp_path):
    record = json.loads((toy / "run.json").read_text())
    record["countermeasures"]["toy"]["weights"] = "0" * 64
    (toy / "SHA256SUMS").unlink()  # else the edit is an error of its own
    (toy / "run.json").write_text(json.dumps(record))
    code, _, errors = command("listen", toy, "--utt", pair, "--out", tmp_path / "o")
    assert code == 2 and "other weights" in errors and "--no-score" in errors
    (toy / "run.json").write_text("{")
    code, _, errors = command("listen", toy, "--utt", pair, "--out", tmp_path / "o")
    assert code == 2 and "damaged" in errors
    code, _, errors = command("listen", tmp_path / "gone", "--utt", pair, "--out", tmp_path / "o")
    assert code == 2 and "no such folder" in errors


def test_names_of_methods_stay_text():
    evil = "<img src=x onerror=alert(1)>"
    sounds = [Sound("a.wav", "u/v", evil, "native", "", "original", level=-20.0)]
    sounds += [
        Sound('x" onerror="y.wav', evil, evil, "native", evil, kind, energy=0.5, level=-20.0) for kind in ("kept", "removed")
    ]
    text = page([Section(evil, evil, "native", sounds, notes=[evil])], Wanted(score=False))
    assert evil not in text and "&lt;img src=x" in text and 'src="x%22%20onerror%3D%22y.wav"' in text


# mean-audio ----------------------------------------------------------------------------------------------------------


def test_mean_audio_scores_sums_and_draws_the_table(toy, command, tmp_path):
    words = ("mean-audio", "--cm", "toy", "--data", "toy", "--root", tmp_path / "corpus", "--device", "cpu")
    words += ("--checkpoint", *tmp_path.glob("weights/*.safetensors"), "--out", tmp_path / "o")
    code, printed, errors = command(*words)
    assert code == 0, errors
    assert "boundary at score" in printed
    facts = json.loads((tmp_path / "o" / "mean_audio.json").read_text())
    assert {c["attack"] for c in facts["cells"]} == {"bonafide", *toybench.VOCODERS}
    files = {c["file"]: c for c in facts["cells"]}
    for name, cell in files.items():
        assert level(read(tmp_path / "o" / name)) == pytest.approx(-26, abs=0.1) and np.isfinite(cell["score"])
    before = {name: (tmp_path / "o" / name).read_bytes() for name in files}
    assert command(*words)[0] == 0  # again, from the scores that are there
    assert before == {name: (tmp_path / "o" / name).read_bytes() for name in files}
    code, _, errors = command(*words, "--count", 1_000)
    assert code == 2 and "too few for three sums of 1000" in errors
    code, _, errors = command(*words, "--ranks", "0,x,2")
    assert code == 2 and "--ranks '0,x,2'" in errors
