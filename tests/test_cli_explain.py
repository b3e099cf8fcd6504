"""`xaibench explain`, as a user types it: a real countermeasure, real speech, and every format a phone or a lab may give."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from xaibench import audio, registry
from xaibench.analysis import recording
from xaibench.cli.app import app, main

RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    """A vocoded utterance of minivoc, 2 s. Shape: `(32000,)`."""
    corpus = registry.open_corpus("minivoc")
    utterance = next(u for u in corpus.utterances if u.split == "eval" and u.vocoder == "griffinlim")
    return audio.read(utterance.path, sample_rate=RATE)


def run(monkeypatch, capsys, *words):
    """The command's exit code, what it printed, and its errors and notes."""
    monkeypatch.setattr(sys, "argv", ["xaibench", "explain", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as done:
        code = done.code
    said = capsys.readouterr()
    return code, said.out, said.err


def facts(folder):
    return json.loads((folder / "explanation.json").read_text(encoding="utf-8"))


def test_a_stereo_file_at_another_rate(tmp_path, monkeypatch, capsys, speech):
    fine = audio.resample(speech, RATE, 44_100)
    soundfile.write(tmp_path / "a.wav", np.stack([fine, 0.8 * fine], 1), 44_100)
    code, out, err = run(
        monkeypatch, capsys, tmp_path / "a.wav", "--cm", "lcnn", "--xai", "gradcam,twin-ig", "--top", 3, "--out",
        tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    assert code == 0 and "lcnn calls a.wav spoof" in out and "grad-cam" in out
    assert "twin-ig has no map: it needs the bona fide twin" in err and "was trained on minivoc" in err
    stereo = facts(tmp_path / "out")
    assert stereo["recording"]["heard"] == "the mean of 2 channels" and stereo["recording"]["original_rate"] == 44_100
    assert len(stereo["attributors"]["grad-cam"]["regions"]) <= 3 and stereo["references"] == "minivoc"
    assert (tmp_path / "out" / "explanation.html").stat().st_size < 2_000_000
    kept, rate = soundfile.read(tmp_path / "out" / "grad-cam_kept.wav")
    assert rate == RATE and len(kept) == len(speech) and 0 < np.abs(kept).max() < 1


@pytest.mark.parametrize("ending", ["mp3", "m4a"])
def test_compressed_files(tmp_path, monkeypatch, capsys, speech, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "mp3":
        soundfile.write(path, speech, RATE)
    else:
        av = pytest.importorskip("av")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(speech[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = RATE
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
    code, out, err = run(
        monkeypatch, capsys, path, "--cm", "planted-cnn", "--xai", "energy", "--no-listen", "--out", tmp_path / "out"
    )
    assert code == 0 and "planted-cnn calls a." in out and "lossy format" in err
    assert not list((tmp_path / "out").glob("*.wav"))
    assert facts(tmp_path / "out")["attributors"]["energy"]["random_kept_score"] is None


def test_a_long_file_and_a_part_of_it(tmp_path, monkeypatch, capsys, speech):
    soundfile.write(tmp_path / "a.wav", np.tile(speech, 3), RATE)
    words = (tmp_path / "a.wav", "--cm", "planted-cnn", "--xai", "energy", "--no-listen", "--out", tmp_path / "out")
    code, out, _ = run(monkeypatch, capsys, *words, "--overlap", 0)
    assert code == 0 and "most like spoof" in out and len(facts(tmp_path / "out")["windows"]) == 3
    code, _, _ = run(monkeypatch, capsys, *words, "--start", 1, "--end", 3)
    assert code == 0 and facts(tmp_path / "out")["recording"]["seconds"] == 2.0
    code, _, err = run(monkeypatch, capsys, *words, "--longest", 5)
    assert code == 2 and "6 s to explain, at most 5 s" in err


def test_one_bad_file_of_several_stops_no_other(tmp_path, monkeypatch, capsys, speech):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", speech, RATE)
    (tmp_path / "b.wav").write_text("no sound")
    files = tmp_path / "x" / "a.wav", tmp_path / "b.wav", tmp_path / "y" / "a.wav"
    code, _, err = run(
        monkeypatch, capsys, *files, "--cm", "planted-cnn", "--xai", "energy", "--no-listen", "--out", tmp_path / "out"
    )
    assert code == 2 and "1 of 3 recordings were not explained" in err and "not readable as a recording" in err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a", "a-2"}
    assert err.count("was trained on") == 1


def test_a_countermeasure_at_fault_costs_its_recording_and_says_which(tmp_path, monkeypatch, capsys, speech):
    asked = recording.score_recordings

    def fails_on_the_first(*words: object, **more: object) -> np.ndarray:
        monkeypatch.setattr(recording, "score_recordings", asked)
        sys.exit(0)

    monkeypatch.setattr(recording, "score_recordings", fails_on_the_first)
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", speech, RATE)
    words = (tmp_path / "a.wav", tmp_path / "b.wav", "--cm", "lcnn", "--xai", "saliency", "--no-listen")
    code, out, err = run(monkeypatch, capsys, *words, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 2 and "lcnn calls b.wav" in out and f"{tmp_path / 'a.wav'}: lcnn gives no score (SystemExit: 0)" in err


def test_a_lost_device_is_a_sentence(tmp_path, monkeypatch, capsys, speech):
    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    soundfile.write(tmp_path / "a.wav", speech, RATE)
    monkeypatch.setattr(recording.cell, "explain", lost)
    words = (tmp_path / "a.wav", "--cm", "lcnn", "--xai", "saliency", "--out", tmp_path / "out", "--device", "cpu")
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == 2 and err.startswith("error: saliency on lcnn: cpu on ") and "was lost to 'CUDA error" in err
    assert "The rows" not in err


def test_no_two_recordings_share_a_folder(tmp_path):
    from xaibench.cli.explaining import _folders

    files = [tmp_path / name for name in ("x/a.wav", "y/a.wav", "a-2.wav", "a.flac")]
    assert [p.name for p in _folders(files, tmp_path)] == ["a", "a-2", "a-2-2", "a-3"]


def test_a_folder_that_cannot_be_is_refused_before_any_work(tmp_path, monkeypatch, capsys, speech):
    soundfile.write(tmp_path / "a.wav", speech, RATE)
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setattr("xaibench.analysis.explanation.explain_on", lambda *args, **kwargs: pytest.fail("it worked first"))
    words = (tmp_path / "a.wav", "--cm", "planted-cnn", "--xai", "energy", "--out")
    code, _, err = run(monkeypatch, capsys, *words, tmp_path / "taken")
    assert code == 2 and "taken: this folder cannot be made (there is a file of that name)" in err


def test_what_fails_leaves_no_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "b.wav").write_text("no sound")
    code, _, _ = run(
        monkeypatch, capsys, tmp_path / "b.wav", "--cm", "planted-cnn", "--xai", "energy", "--out", tmp_path / "out"
    )
    assert code == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--xai", "grad-kam"), "unknown attributor 'grad-kam'; did you mean 'grad-cam'"),
        (("--cm", "lcn"), "unknown countermeasure 'lcn'; did you mean 'lcnn'"),
        (("--share", "5"), "share 5.0, expected more than 0 and less than 1, as 0.05 for 5 %"),
        (("--overlap", "1"), "overlap 1.0, expected a share"),
        (("--channel", "1"), "there is no channel 1"),
        (("--route", "sideways"), "unknown route 'sideways'"),
        (("--xai", "oracle"), "no method has a map of it. oracle: it needs the truth"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, speech, words, message):
    soundfile.write(tmp_path / "a.wav", speech, RATE)
    usual = {"--cm": "planted-cnn", "--xai": "energy", **dict(zip(words[::2], words[1::2], strict=True))}
    code, _, err = run(monkeypatch, capsys, tmp_path / "a.wav", *(w for pair in usual.items() for w in pair), "--no-listen")
    assert code == 2 and message in err and "Traceback" not in err


def test_the_command_line_starts_without_torch():
    code = "import sys, xaibench.cli; sys.stdout.write(' '.join({'torch', 'matplotlib', 'jinja2', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""
    assert any(command.callback.__name__ == "explain" for command in app.registered_commands)
