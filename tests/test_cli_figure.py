"""`xaibench figure`: files of the asked formats, a caption, and mistakes that are one readable line."""

from pathlib import Path

import fake_run
import figure_run
import pytest

from xaibench import registry
from xaibench.protocols import Dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return figure_run.write(tmp_path_factory.mktemp("drawn") / "run")


def files(out):
    return [line for line in out.splitlines() if not line.startswith("  ")]


@pytest.mark.parametrize(
    ("words", "name", "caption"),
    [
        (
            ["board", "--metric", "rank-accuracy", "--xai", "lime"],
            "board__toy__eq2__lcnn__native__rank-accuracy",
            "EER 5.0%",
        ),
        (["board", "--skill"], "board__toy__eq2__lcnn__native__rank-accuracy__skill", "Skill in rank-accuracy"),
        (["curves", "--scale", "gap"], "curves__lcnn__native__deletion-twin__gap", "12 pairs of 6 utterances"),
        (["curves", "--direction", "insertion", "--xai", "lime"], "curves__lcnn__native__insertion-twin", "Insertion"),
        (
            ["critical-difference", "--metric", "drop-twin"],
            "critical-difference__toy__eq2__lcnn__native__drop-twin",
            "Nemenyi",
        ),
        (["agreement"], "agreement__metrics", "orders of 3 methods"),
    ],
)
def test_every_kind_writes_its_files_and_says_what_they_show(command, run, tmp_path, words, name, caption):
    kind, *rest = words
    code, out, err = command("figure", kind, run, *rest, "--out", tmp_path, "--format", "svg,pdf", "--width", "single")
    assert code == 0, err
    assert files(out) == [f"{tmp_path}/{name}.svg", f"{tmp_path}/{name}.pdf"]
    assert caption in out
    pdf, svg = (tmp_path / f"{name}.pdf").read_bytes(), (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
    assert b"/FontFile2" in pdf and b"Type3" not in pdf and "</text>" not in svg
    assert b"/MediaBox [0 0 241.2 " in pdf.replace(b"[ ", b"[")  # 3.35 inches


def test_comparison_with_and_without_a_run(command, run, tmp_path, monkeypatch):
    corpus = figure_run.corpus(tmp_path)
    monkeypatch.setattr(registry, "load", lambda group, name: Dataset(name, group, lambda root: corpus))
    common = ("--out", tmp_path / "f", "--format", "svg", "--svg-text", "--dpi", "72", "--utt", "u0", "--vocoder", "world")
    code, out, err = command("figure", "comparison", run, "--xai", "lime", *common)
    assert code == 0, err
    (path,) = files(out)
    assert path.endswith("comparison__u0__world__lcnn__native.svg")
    text = (tmp_path / "f" / "comparison__u0__world__lcnn__native.svg").read_text(encoding="utf-8")
    assert "lime</text>" in text and "frequency (kHz)</text>" in text and "time (s)</text>" in text
    code, out, err = command("figure", "comparison", "--data", "toy", "--seconds", "0.05:0.2", *common)
    assert code == 0, err
    assert files(out) == [str(tmp_path / "f" / "comparison__u0__world__eq2.svg")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["board", "RUN", "--width", "wide"], "--width 'wide': expected single, double or inches"),
        (["board", "RUN", "--width", "89"], "millimetres"),
        (["board", "RUN", "--format", "jpg"], "pdf, svg, png, got 'jpg'"),
        (["board", "RUN", "--xai", "gradcam"], "did you mean 'grad-cam'"),
        (["board", "nowhere"], "nowhere: not a run folder"),
        (["curves", "RUN", "--fill", "silence"], "no deletion-silence curve was kept"),
        (["curves", "nowhere"], "nowhere: no such folder"),
        (["agreement", "RUN", "--metric", "drop-twin"], "name a second --metric"),
        (["comparison", "--utt", "u0"], "give a run folder, or --data"),
        (["comparison", "RUN", "--data", "toy", "--utt", "u0"], "one of the two"),
        (["comparison", "RUN"], "--utt SOURCE"),
        (["comparison", "RUN", "--utt", "u9"], "no map of 'u9' was kept"),
        (["comparison", "RUN", "--utt", "u0", "--seconds", "1-2"], "expected FROM:TO"),
        (["comparison", "--data", "minivoc", "--utt", "june_fr_002", "--xai", "lime"], "maps are those of a run"),
    ],
)
def test_mistakes_are_one_readable_line(command, run, tmp_path, words, message):
    words = [str(run) if w == "RUN" else w for w in words]
    code, _, err = command("figure", *words, "--out", tmp_path)
    assert code == 2
    assert message in err and err.count("\n") == 1 and "Traceback" not in err


def test_too_few_utterances_for_ranks(command, tmp_path):
    run = fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES, utterances=2))
    code, _, err = command("figure", "critical-difference", run, "--out", tmp_path)
    assert code == 2 and "no average ranks: 2 of 2 utterances" in err


def test_a_name_from_a_plugin_stays_text(command, tmp_path):
    evil = "<img src=x onerror=alert(1)> $\\frac{"
    rows = fake_run.rows({evil: {"rank-accuracy": 0.3}, **fake_run.SCORES})
    rows.loc[rows["attributor"].eq(evil), "attributor"] = evil
    run = fake_run.write_run(tmp_path / "run", rows[rows["attributor"].ne(evil)])
    rows[rows["attributor"].eq(evil)].to_parquet(run / "rows" / "evil.parquet", index=False)
    code, out, err = command(
        "figure", "board", run, "--out", tmp_path / "f", "--format", "svg", "--svg-text", "--width", "9"
    )
    assert code == 0, err
    text = Path(files(out)[0]).read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt; $\\frac{" in text and "<img" not in text
