"""The command line as a user types it: help that teaches, one-line errors, no torch where none is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toybench
from toys import LinearCM


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toys behind the registry, and the words that run them."""
    toybench.install(monkeypatch, "toy-gradient")
    toybench.write_corpus(tmp_path / "corpus")
    weights = toybench.write_checkpoint(tmp_path / "weights")
    return [
        "run", "--cm", "toy", "--data", "toy", "--root", str(tmp_path / "corpus"), "--checkpoint", str(weights),
        "--n-fft", "64", "--hop", "32", "--device", "cpu", "--out", str(tmp_path / "run"),
    ]  # fmt: skip


NO_TORCH = """
import sys
sys.argv = ["xaibench", *{words!r}]
from xaibench import cli
try:
    cli.main()
except SystemExit:
    pass
loaded = sorted(m for m in ("torch", "captum", "shap", "zennit", "matplotlib") if m in sys.modules)
sys.exit(f"imported {{loaded}}" if loaded else 0)
"""


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["leaderboard", "RUN"]], ids=" ".join)
def test_reading_commands_do_not_import_torch(words, tmp_path):
    if words[0] == "leaderboard":
        from fake_run import SCORES, rows, write_run

        words = ["leaderboard", str(write_run(tmp_path / "run", rows(SCORES)))]
    script = NO_TORCH.format(words=words)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_run_prints_the_board_and_the_second_time_does_nothing(command, toy, tmp_path):
    code, out, err = command(*toy, "--xai", "toy-gradient", "--limit", "4", "--keep-maps")
    assert code == 0, err
    assert "oracle" in out and "toy-gradient" in out and "rows computed" in out
    code, out, _ = command(*toy, "--xai", "toy-gradient", "--limit", "4", "--keep-maps")
    assert code == 0 and "nothing to do" in out and "toy-gradient" in out
    code, out, err = command("show", str(tmp_path / "run"), "--utt", "c-1", "--out", str(tmp_path / "figures"))
    assert code == 0, err
    pictures = [Path(line) for line in out.split()]
    assert pictures and all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)
    code, out, err = command(
        "leaderboard", str(tmp_path / "run"), "--out", str(tmp_path / "board"), "--formats", "md,json,png"
    )
    assert code == 0, err
    assert {p.suffix for p in (tmp_path / "board").iterdir()} >= {".md", ".json", ".png"}
    code, out, err = command("leaderboard", str(tmp_path / "run"), "--out", str(tmp_path / "site"), "--quiet")
    assert code == 0, err
    assert out.split() == [str(tmp_path / "site" / "index.html")]  # and no board
    written = {p.relative_to(tmp_path / "site").as_posix() for p in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "explorer.html", "methods/toy-gradient.html", "countermeasures/toy.html"} <= written
    code, out, err = command("leaderboard", str(tmp_path / "run"), "--out", str(tmp_path / "bare"), "--no-explorer")
    assert code == 0 and "oracle" in out and not (tmp_path / "bare" / "explorer.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--xai", "inverse-enrgy"], "did you mean 'inverse-energy'"),
        (["--metrics", "rank-acuracy"], "did you mean 'rank-accuracy'"),
        (["--truth", "eq3"], "unknown truth 'eq3'"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--batch-size", "many"], "--batch-size 'many'"),
        (["--set", "energy"], "METHOD.OPTION=VALUE"),
        (["--set", "centre.width=3"], "no option width"),
        (["--preset", "fast"], "unknown preset 'fast'"),
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors: no such checkpoint"),
    ],
)
def test_mistakes_are_one_readable_line(command, toy, words, message):
    code, _, err = command(*toy, "--xai", "energy", *words)
    assert code == 2
    assert message in err and "Traceback" not in err


def test_unknown_countermeasure_and_data_set(command, toy):
    code, _, err = command("run", "--cm", "tooy")
    assert code == 2 and "did you mean 'toy'" in err
    code, _, err = command("run", "--cm", "toy", "--data", "minivok")
    assert code == 2 and "did you mean 'minivoc'" in err


def test_a_data_set_that_is_not_embedded_asks_for_its_root(command):
    code, _, err = command("data", "info", "minivoc-train")
    assert code == 2 and "--root" in err


def test_data_info_and_verify(command):
    code, out, _ = command("data", "info", "minivoc")
    assert code == 0 and "eval: 48 utterances, 3 speakers, griffinlim, hifigan, lyra, mlsa, world" in out
    assert "  80 train, 24 dev, 48 eval utterances of 2 s" in out  # its summary
    code, out, _ = command("data", "verify", "minivoc")
    assert code == 0 and "912 files agree" in out


def test_list_shows_packages_and_versions(command):
    code, out, _ = command("list", "attributors")
    assert code == 0 and "inverse-energy" in out and "xaibench-captum" in out and "0.1.0" in out
    code, _, err = command("list", "attributor")
    assert code == 2 and "did you mean 'attributors'" in err


def test_ctrl_c_promises_that_nothing_is_lost(command, toy, monkeypatch):
    from xaibench.harness import worker

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "run_chunk", stop)
    code, _, err = command(*toy, "--xai", "energy")
    assert code == 130 and "the same command continues" in err


def test_train_writes_weights_card_and_curves_and_continues(command, toy, tmp_path):
    out = tmp_path / "trained"
    words = ["train", "--cm", "toy", "--data", "toy", "--root", f"toy={tmp_path / 'corpus'}", "--out", str(out)]
    words += ["--batch-pairs", "1", "--epochs", "1", "--device", "cpu"]
    code, printed, err = command(*words)
    assert code == 0, err
    assert "epoch   1/1" in printed and "eval toy" in printed
    assert {p.name for p in out.iterdir()} >= {"toy.safetensors", "toy.json", "history.csv", "scores.csv", "curves.png"}
    (out / "curves.png").unlink()  # as where it was killed before it drew the last epoch
    code, printed, _ = command(*words)
    assert code == 0 and "epoch" not in printed, "a finished training was trained again"
    assert (out / "curves.png").is_file()
    code, _, err = command(*words, "--seed", "1")
    assert code == 2 and "another spec" in err


def raising(error):
    def forward(*_: object) -> None:
        raise error

    return forward


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(0), "c-1/bonafide and 3 more: the countermeasure gives no score (SystemExit: 0)"),
        (ValueError("no"), "c-1/bonafide and 3 more: the countermeasure gives no score (ValueError: no)"),
        (torch.OutOfMemoryError("CUDA out of memory"), "gives no score (OutOfMemoryError: CUDA out of memory)"),
    ],
)
def test_a_countermeasure_at_fault_ends_an_evaluation_with_a_sentence(command, toy, tmp_path, monkeypatch, error, message):
    monkeypatch.setattr(LinearCM, "forward", raising(error))
    words = ["--cm", "toy", "--data", "toy", "--root", tmp_path / "corpus", "--checkpoint", toy[8], "--device", "cpu"]
    code, _, err = command("evaluate", *words, "--out", tmp_path / "scores")
    assert code == 2 and message in err, err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(0), "a plugin or a library called sys.exit(0) before the command was done"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory ran out (OutOfMemoryError: CUDA out of memory)"),
        (RuntimeError("CUDA error: device-side assert triggered"), "the device was lost (RuntimeError: CUDA error: device-"),
    ],
)
def test_nothing_of_a_plugin_ends_a_command_without_a_word(command, toy, tmp_path, monkeypatch, error, message):
    monkeypatch.setattr(LinearCM, "forward", raising(error))
    words = ["--cm", "toy", "--data", "toy", "--root", f"toy={tmp_path / 'corpus'}", "--out", tmp_path / "trained"]
    code, _, err = command("train", *words, "--batch-pairs", "1", "--epochs", "1", "--device", "cpu")
    assert code and f"error: {message}" in err, err


def test_usage_errors_exit_with_two(command):
    code, _, err = command("run")
    assert code == 2 and "--cm" in err
