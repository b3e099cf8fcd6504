"""Commands that make sounds: `listen` and `mean-audio`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import console, note, progress_bar, say
from xaibench.cli.words import cm_options, roots_of, split_names
from xaibench.errors import XaibenchError


@app.command()
def listen(
    run_folder: Annotated[Path, typer.Argument(help="A run made with --keep-maps.", metavar="RUN")],
    utt: Annotated[str, typer.Option(help="Utterance, or utterance/vocoder for one of its twins.")],
    xai: Annotated[str, typer.Option(help="Methods whose maps to hear; `all` that were kept.")] = "all",
    share: Annotated[float, typer.Option(help="Share of the cells that a mask keeps, in (0, 1].")] = 0.05,
    fill: Annotated[str, typer.Option(help="Where a mask keeps nothing: `silence`, or the bona fide `twin`.")] = "silence",
    griffin_lim: Annotated[
        bool, typer.Option("--griffin-lim", help="Find the phase by Griffin-Lim instead of keeping it.")
    ] = False,
    triple: Annotated[
        bool, typer.Option("--triple", help="Also one file of original, plain resynthesis and explained audio.")
    ] = False,
    format_: Annotated[str, typer.Option("--format", help="wav or flac, both 16 bit.")] = "wav",
    score: Annotated[bool, typer.Option(help="Ask the countermeasure for the score of every sound.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the sounds, index.html, listen.csv and listen.json.")] = Path(
        "listen"
    ),
) -> None:
    """Hear what a map points at: its top cells alone, the utterance without them, and whether they carry the score.

    `xaibench listen results/demo --utt june_fr_002 --xai grad-cam,twin-ig`
    """
    from rich.table import Table

    from xaibench.harness.device import choose_device
    from xaibench.listening import RANDOM, Wanted
    from xaibench.listening import listen as make

    wanted = Wanted(
        methods=() if xai == "all" else tuple(split_names(xai)), share=share, fill=fill, griffin_lim=griffin_lim,
        triple=triple, ending=format_, score=score, device=str(choose_device(device)) if score else "cpu",
    )  # fmt: skip
    for section in make(run_folder, utt, out, wanted=wanted):
        table = Table(
            "method", "energy kept", "level (dBFS)", title=f"{section.pair}, {section.countermeasure}, {section.route}",
            title_justify="left", box=None, pad_edge=False,
            caption="kept in ...: scores, higher is more bona fide" if score else None, caption_justify="left",
        )  # fmt: skip
        for head in ("kept in twin", "kept in silence", "carried into twin", "into silence") if score else ():
            table.add_column(head, justify="right")
        for sound in (s for s in section.sounds if s.kind == "kept"):
            cells = [sound.method, f"{sound.energy:.1%}", "silent" if sound.silent else f"{sound.level:.1f}"]
            if score:
                cells += ["-" if v is None else f"{v:+.1f}" for v in (sound.in_twin, sound.in_silence)]
                shares = [section.carried(sound, place) for place in ("twin", "silence")]
                cells += ["-" if v is None else f"{v:.0%}" for v in shares]
            table.add_row(*cells, style="dim" if sound.method == RANDOM else None)
        console().print(table)
        for sentence in section.notes:
            note(sentence)
        soft = [s.file for s in section.sounds if s.limited]
        if soft:
            note(f"{len(soft)} files are softer than the utterance, as their peak allows no more; the first: {soft[0]}")
    say(out / "index.html")


@app.command("mean-audio")
def mean_audio_(
    cm: Annotated[str, typer.Option(help="Countermeasure.")],
    data: Annotated[str, typer.Option(help="Data set, or the path of a manifest, NAME.toml.")] = "minivoc",
    root: Annotated[list[str] | None, typer.Option(help="Folder of the data set; ROOT=FOLDER for a further one.")] = None,
    split: Annotated[str, typer.Option(help="train, dev or eval.")] = "eval",
    count: Annotated[
        int | None, typer.Option(help="Utterances a sum; default: 20, or a third of a class where that is less.")
    ] = None,
    ranks: Annotated[
        str | None, typer.Option(help="First ranks of close, medium and far, as 0,1000,2000; default: spread evenly.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weights (safetensors) instead of the shipped.")] = None,
    ssl: Annotated[Path | None, typer.Option(help="Local Hugging Face folder of a wav2vec 2.0 encoder.")] = None,
    format_: Annotated[str, typer.Option("--format", help="wav or flac, both 16 bit.")] = "wav",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Windows at a time.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; scores there are used again.")] = None,
) -> None:
    """Sum utterances close to a countermeasure's boundary, and far from it: words drown, and what they share is heard.

    `xaibench mean-audio --cm lcnn --data minivoc`
    """
    from xaibench.datasets.catalog import source
    from xaibench.evaluation import evaluate_files, needs_vocoder, survey
    from xaibench.harness.device import choose_device, default_batch_size, tune_allocator
    from xaibench.harness.known import known_datasets, known_names, load_countermeasure
    from xaibench.harness.run import Progress
    from xaibench.mean_audio import boundary, mean_audio, scored, write_page
    from xaibench.scorefile import read_trials
    from xaibench.scoring import score_recordings

    firsts = _ranks(ranks)
    tune_allocator()
    name = known_names("countermeasures", [cm])[0][0]
    module, _, _ = load_countermeasure(name, checkpoint, cm_options((name,), [], ssl).get(name, {}))
    where = choose_device(device)
    module = module.to(where).eval()
    size = batch_size or default_batch_size(where)
    opened = source(known_datasets([data])[0], roots_of(root or [], data))
    corpus, total = opened.facts, survey(opened.utterances(), split=split)
    both = needs_vocoder(u for u in opened.utterances() if u.split == split)
    folder = out or Path("results") / f"mean-audio-{name}-{corpus.name}-{split}"
    with progress_bar() as show_step:
        scores = evaluate_files(
            module, (u for u in opened.utterances() if u.split == split), folder / "scores", sample_rate=corpus.sample_rate,
            device=where, batch_size=size, with_vocoder=both,
            about={"countermeasure": name, "data": corpus.name, "data_hash": corpus.hash, "split": split},
            report=lambda p: show_step(Progress("score", p.seen, total, p.message)),
        )  # fmt: skip
    found, cells = mean_audio(
        boundary(read_trials(scores)), (u for u in opened.utterances() if u.split == split), folder,
        sample_rate=corpus.sample_rate, count=count, ranks=firsts, ending=format_, with_vocoder=both,
    )  # fmt: skip
    cells = scored(
        cells, folder, lambda waves: score_recordings(module, waves, device=where, batch_size=size),
        sample_rate=corpus.sample_rate,
    )  # fmt: skip
    write_page(found, cells, folder, about={"countermeasure": name, "data": corpus.name, "split": split})
    say(f"boundary at score {found.threshold:.3f} (equal error rate {found.eer:.1%}); {len(cells)} sums")
    for attack in ("bonafide", *found.attacks):
        wrong, right = found.wrong(attack), len(found.group(attack))
        if wrong:
            note(f"{attack}: {len(wrong)} of {right + len(wrong)} are on the wrong side and not summed")
    say(folder / "index.html")


def _ranks(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = split_names(text)
    if not all(part.isdigit() for part in parts):
        raise XaibenchError(f"--ranks {text!r}: expected three whole numbers, as 0,1000,2000")
    return tuple(int(part) for part in parts)
