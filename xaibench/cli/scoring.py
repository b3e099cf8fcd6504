"""Commands that score methods: `run`, and what reads its folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from xaibench.cli.app import app
from xaibench.cli.output import console, note, notes_of_warnings, print_board, print_summary, progress_bar, say
from xaibench.cli.words import CM_SET, batch_size_of, checkpoints_of, engine_of, options_of, roots_of, split_names


@app.command()
def run(
    cm: Annotated[str, typer.Option(help="Countermeasures, or `all`.", metavar="NAME[,NAME]")],
    xai: Annotated[str, typer.Option(help="Attribution methods, or `all`. Controls are always added.")] = "all",
    data: Annotated[
        str, typer.Option(help="Data set; `xaibench list` shows them. Or the path of a manifest, NAME.toml.")
    ] = "minivoc",
    root: Annotated[
        list[str] | None,
        typer.Option(help="Folder of the data set, where not embedded; ROOT=FOLDER for a further one."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split to score: train, dev or eval.")] = "eval",
    preset: Annotated[
        str,
        typer.Option(
            help="`quick`: few utterances, short curves, only the twin fill's (minutes on two cores). `full`: every "
            "pair, every metric that does not explain again, long curves."
        ),
    ] = "quick",
    metrics: Annotated[str, typer.Option(help="Metrics, `all`, or `preset`.")] = "preset",
    limit: Annotated[int | None, typer.Option(help="Vocoded utterances to score.")] = None,
    route: Annotated[
        str, typer.Option(help="`native` (at the tap), `grid` (STFT in front of the model), or `auto`.")
    ] = "auto",
    truth: Annotated[
        str, typer.Option(help="`eq2` (smoothed), `eq1` (unsmoothed), `log-difference`, or `segments` of partial spoofs.")
    ] = "eq2",
    truth_kernel: Annotated[tuple[int, int], typer.Option(help="Smoothing of eq2, cells: time, frequency.")] = (3, 11),
    truth_variance: Annotated[tuple[float, float], typer.Option(help="Its variance, cells squared.")] = (3.0, 5.0),
    truth_epsilon: Annotated[float, typer.Option(help="Added to the denominator.")] = 1e-8,
    truth_share: Annotated[float, typer.Option(help="Share of cells in the region (1 - tau).")] = 0.05,
    n_fft: Annotated[int, typer.Option(help="STFT size of the common grid, samples.")] = 512,
    hop: Annotated[int, typer.Option(help="Hop of the common grid, samples.")] = 160,
    window: Annotated[str, typer.Option(help="hann, hamming or blackman.")] = "hann",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, tf32 (CUDA) or bf16: of the forward passes with which metrics ask; maps stay fp32.")
    ] = "fp32",
    batch_size: Annotated[str, typer.Option(help="Utterances a chunk, inputs at a time; `auto`: what fits.")] = "auto",
    engine: Annotated[
        str, typer.Option(help="Where chunks are computed: `local`, this process, or `dask`, processes of a cluster.")
    ] = "local",
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler, tcp://HOST:8786; without one, `dask` starts processes here."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many processes to start here; default: one a core, with --isolate one.")
    ] = None,
    isolate: Annotated[
        bool,
        typer.Option("--isolate", help="Each method on each CM in its own process: what it breaks costs its cells only."),
    ] = False,
    cell_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds a method may take for one utterance, explained and scored. Implies --isolate."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Compute failed cells of the folder again.")] = False,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="Weights (safetensors) instead of the shipped: FILE, or NAME=FILE with several CMs; repeatable."),
    ] = None,
    ssl: Annotated[
        Path | None, typer.Option(help="Local Hugging Face folder of a wav2vec 2.0 encoder, for CMs trained on one.")
    ] = None,
    cm_set: Annotated[list[str] | None, typer.Option(help="CM.OPTION=VALUE on top of its card's, repeatable.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="METHOD.OPTION=VALUE, repeatable.")] = None,
    keep_maps: Annotated[bool, typer.Option(help="Also write every attribution and the truth (for `show`).")] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder; the same command in the same folder continues.")] = None,
) -> None:
    """Score attribution methods, and print the board.

    Running the same command again computes only what is missing; killing it loses nothing that was finished.

    `xaibench run --cm lcnn --xai grad-cam,saliency --limit 5 --keep-maps`
    """
    from xaibench.grid import Grid
    from xaibench.harness.device import choose_device
    from xaibench.harness.request import request
    from xaibench.harness.run import run as run_harness
    from xaibench.installed import remember, swapped
    from xaibench.truth import TruthSpec

    size = batch_size_of(batch_size)
    settings = {
        "root": roots_of(root or [], data),
        "split": split,
        "route": route,
        "preset": preset,
        "limit": limit,
        "seed": seed,
        "precision": precision,
        "checkpoints": checkpoints_of(checkpoint or [], split_names(cm)),
        "cm_options": options_of(cm_set or [], *CM_SET),
        "keep_maps": keep_maps,
        "grid": Grid(n_fft=n_fft, hop=hop, window=window),
        "truth": TruthSpec(truth, truth_kernel, truth_variance, truth_epsilon, truth_share),
        "options": options_of(set_ or []),
    }
    names = split_names(cm), split_names(xai), split_names(metrics)
    isolate = isolate or cell_timeout is not None  # nothing else can end code that hangs in C
    asked = request(*names, data=data, ssl=ssl, out=out, settings=settings, isolate=isolate)
    for problem in (*swapped(), *asked.notes):
        note(problem)
    remember()
    apart = {"cell_timeout": cell_timeout} if isolate else None
    with engine_of(engine, scheduler, workers, apart) as where, progress_bar() as show_step:
        here = device if where.remote else choose_device(device)
        summary = run_harness(
            asked.spec, asked.folder, device=here, batch_size=size, engine=where, retry_failed=retry_failed, report=show_step
        )
    named = None if {"preset", "all"} & set(names[2]) else names[2]  # who asks for metrics by name wants to see them
    print_board([asked.folder], named)
    print_summary(summary)


@app.command()
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="Folder of the site, or of the files that --formats names.")] = None,
    formats: Annotated[
        str,
        typer.Option(help="`site`, a folder any browser opens; or files: md, csv, json, txt, png. Separated by commas."),
    ] = "site",
    metrics: Annotated[
        str | None, typer.Option(help="Metrics to print and to put in files; by default both kinds. A site has them all.")
    ] = None,
    cluster: Annotated[str, typer.Option(help="What the intervals resample: utterance (source) or speaker.")] = "utterance",
    explorer: Annotated[bool, typer.Option(help="Whether a site has the explorer, for runs with --keep-maps.")] = True,
    utterances: Annotated[int | None, typer.Option(min=1, help="Utterances in the explorer; default: all.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the names of what is written, and no board.")] = False,
) -> None:
    """Turn run folders into a leaderboard: mean, 95 % interval by source utterance, skill between floor and ceiling.

    `xaibench leaderboard results/demo --out site`, then open site/index.html.
    """
    chosen, wanted = split_names(formats), split_names(metrics) if metrics else None
    files = [name for name in chosen if name != "site"]
    board = print_board(runs, wanted, cluster=cluster, quiet=quiet) if files or not quiet else None
    if out is None:
        return
    if files:
        from xaibench.leaderboard import render

        for path in render.write(board, out, files):
            say(path)
    if "site" in chosen:
        from xaibench.site.build import build

        with notes_of_warnings():
            page = build(runs, out, cluster=cluster, explorer=explorer, utterances=utterances)
        say(page)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    metric: Annotated[list[str] | None, typer.Option(help="Metric; again for more. Default: one of each kind.")] = None,
    cluster: Annotated[str, typer.Option(help="What counts as one observation: utterance or speaker.")] = "utterance",
    against: Annotated[str | None, typer.Option(help="Attributor to compare with; default: the best control.")] = None,
    bayes: Annotated[bool, typer.Option("--bayes", help="Also the Bayesian signed-rank test, with --rope.")] = False,
    rope: Annotated[
        float | None, typer.Option(help="What counts as equal in the metric's units; default: 1 % of its range.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for compare.md, .csv, .json and the diagrams.")] = None,
) -> None:
    """Which methods differ: tests over utterances, critical differences, sample size, agreement of orders.

    Runs that cannot share a table (two trainings of one countermeasure) are compared each by itself, their orders with each
    other. `xaibench compare results/demo --metric rank-accuracy --metric drop-twin --out results/demo/compare`
    """
    from xaibench.leaderboard import compare as comparing

    rows, notes = comparing.read_sources(runs)
    half: float | Literal["auto"] | None = rope if rope is not None else "auto" if bayes else None
    report = comparing.compare(rows, metrics=metric, against=against, cluster=cluster, rope=half, notes=notes)
    console().print(comparing.terminal(report))
    if out is not None:
        for path in comparing.write(report, out):
            say(path)


@app.command("rcq")
def rcq_(
    run_folder: Annotated[Path, typer.Argument(help="A run with --keep-maps on partially spoofed speech.", metavar="RUN")],
    vad: Annotated[Path | None, typer.Option(help="Folder of UTTERANCE.vad files; default: an energy rule.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table, as CSV.")] = None,
) -> None:
    """Relative contribution quantification (arXiv 2406.02483): where in time maps of partial spoofs lie, in percent.

    BS, SS bona fide and spoofed speech; TR transitions; BN, SN bona fide and spoofed non-speech. 0 is the average frame.

    `xaibench run --cm ssl-res1d --xai grad-cam --data minivoc-partial --truth segments --keep-maps --out results/partial`
    """
    from rich.table import Table

    from xaibench.files import write_text
    from xaibench.leaderboard.rcq import rcq_of_run
    from xaibench.tables import csv_text

    found = rcq_of_run(run_folder, vad=vad)
    table = Table(*found.columns, box=None, pad_edge=False)
    for row in found.itertuples(index=False):
        table.add_row(*("-" if v != v else f"{v:+.1f}" if isinstance(v, float) else str(v) for v in row))
    console().print(table)
    if out is not None:
        say(write_text(out, csv_text(found)))
