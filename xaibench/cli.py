"""The command line: parsing and printing only. What it does lives in the harness, training and leaderboard."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaibench.errors import XaibenchError

if TYPE_CHECKING:
    from xaibench.harness.run import Progress, Summary

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Score explanations of speech anti-spoofing countermeasures against vocoder-difference truth.\n\n"
    "Start with `xaibench run --cm lcnn --xai all`: it trains nothing and downloads nothing, and prints the board.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets: what they hold, and whether their files are intact.")
app.add_typer(data_app, name="data")

Names = Annotated[str, typer.Option(metavar="NAME[,NAME...]")]


def main() -> None:
    """Entry point: our own errors become one readable line, Ctrl-C a promise that nothing is lost."""
    try:
        code = app(standalone_mode=False)  # typer turns Ctrl-C into the exit code 130
        if code:
            _fail("stopped; finished rows are kept, the same command continues" if code == 130 else "", code)
    except XaibenchError as error:
        _fail(f"error: {error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped; finished rows are kept, the same command continues", 130)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except Exception as error:
        if hasattr(error, "show"):  # a usage error of click: bad option, missing argument
            error.show()
            sys.exit(2)
        raise


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _split(names: str) -> list[str]:
    return [n.strip() for n in names.split(",") if n.strip()]


def _checkpoints(assignments: list[str], cms: list[str]) -> dict[str, str]:
    """`lcnn=FILE` -> {"lcnn": "FILE"}; a bare FILE belongs to the only countermeasure."""
    found: dict[str, str] = {}
    for assignment in assignments:
        name, mark, file = assignment.partition("=")
        if not mark or "/" in name:
            if len(cms) != 1 or cms == ["all"]:
                raise XaibenchError(f"--checkpoint {assignment!r}: with several countermeasures expected NAME=FILE")
            name, file = cms[0], assignment
        found[name] = file
    return found


def _cm_options(cms: Sequence[str], assignments: list[str], ssl: Path | None) -> dict[str, dict[str, Any]]:
    """Options of countermeasures: `tca.kinds=[...]`, and `--ssl` for every one of `cms` that takes it."""
    from xaibench import registry

    options = _options(assignments, "--cm-set", 'CM.OPTION=VALUE, as in tca.kinds=["tts","vc"]')
    stray = sorted(set(options) - set(cms))
    if stray:
        raise XaibenchError(f"--cm-set names {', '.join(stray)}; this command has {', '.join(cms)}")
    if ssl is not None:
        takers = [name for name in cms if "ssl" in registry.load("countermeasures", name).options]
        if not takers:
            raise XaibenchError(f"--ssl {ssl}: none of {', '.join(cms)} takes a wav2vec 2.0 encoder")
        for name in takers:
            options.setdefault(name, {})["ssl"] = str(ssl)
    return options


def _options(
    assignments: list[str], flag: str = "--set", form: str = "METHOD.OPTION=VALUE, as in integrated-gradients.steps=50"
) -> dict[str, dict[str, Any]]:
    """`grad-cam.layer=backend.mfm_15` -> {"grad-cam": {"layer": ...}}; values are JSON where they parse, else text."""
    options: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        place, mark, text = assignment.partition("=")
        method, dot, option = place.rpartition(".")
        if not mark or not dot:
            raise XaibenchError(f"{flag} {assignment!r}: expected {form}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        options.setdefault(method, {})[option] = value
    return options


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
            "pair, every metric, long curves."
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
    batch_size: Annotated[str, typer.Option(help="Utterances at a time; `auto` chooses by device.")] = "auto",
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
    from xaibench.harness.run import run as run_harness
    from xaibench.harness.spec import RunSpec
    from xaibench.harness.workbench import (
        control_names,
        known_countermeasures,
        known_datasets,
        known_metrics,
        known_names,
    )
    from xaibench.truth import TruthSpec

    if batch_size != "auto" and not (batch_size.isdigit() and int(batch_size) > 0):
        raise XaibenchError(f"--batch-size {batch_size!r}: expected `auto` or a whole number of at least 1")
    methods, broken = known_names("attributors", _split(xai))
    cms, without = known_countermeasures(_split(cm), checkpoints := _checkpoints(checkpoint or [], _split(cm)))
    for problem in (*broken, *without):
        _note(problem)
    spec = RunSpec(
        countermeasures=cms,
        attributors=tuple(dict.fromkeys([*methods, *control_names()])),
        metrics=known_metrics(_split(metrics), preset),
        data=known_datasets([data])[0],
        root=_roots(root or [], data),
        split=split,
        route=route,
        preset=preset,
        limit=limit,
        seed=seed,
        checkpoints=checkpoints,
        cm_options=_cm_options(cms, cm_set or [], ssl),
        keep_maps=keep_maps,
        grid=Grid(n_fft=n_fft, hop=hop, window=window),
        truth=TruthSpec(truth, truth_kernel, truth_variance, truth_epsilon, truth_share),
        options=_options(set_ or []),
    )
    cms_name = "all" if cm == "all" else "-".join(spec.countermeasures)
    folder = out or Path("results") / f"{cms_name}-{Path(data).stem}-{preset}"
    with _progress() as show_step:
        summary = run_harness(
            spec, folder, device=choose_device(device), batch_size=None if batch_size == "auto" else int(batch_size),
            report=show_step,
        )  # fmt: skip
    _print_board([folder], None)
    _print_summary(summary)


def _console() -> Any:
    """Where tables go: in a file or a pipe they keep their full width."""
    from rich.console import Console

    from xaibench.leaderboard.render import WIDTH

    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


class _progress:
    """A rich progress bar fed by the harness' reports."""

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.bar.start()
        self.tasks: dict[str, Any] = {}
        return self.step

    def step(self, progress: Progress) -> None:
        if progress.phase not in self.tasks:
            self.tasks[progress.phase] = self.bar.add_task(progress.phase, total=progress.total)
        text = f"{progress.phase} {progress.message}".strip()[:44]
        self.bar.update(self.tasks[progress.phase], completed=progress.done, total=progress.total, description=text)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _print_summary(summary: Summary) -> None:
    counts = ", ".join(f"{n} {status}" for status, n in sorted(summary.statuses.items()))
    done = f"{summary.computed} rows computed ({counts})" if summary.computed else "nothing to do"
    print(f"{summary.folder}: {done}, {summary.kept} kept, {summary.seconds:.0f} s")
    for problem in summary.problems:
        print(f"  note: {problem}")


def _print_board(runs: list[Path], metrics: list[str] | None) -> Any:
    from xaibench.leaderboard import render, table

    board = table.board(table.read_rows(runs), metrics=metrics)
    _console().print(render.terminal(board))
    return board


@app.command()
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="Folder for leaderboard.md, .csv, .json (png: bars).")] = None,
    formats: Annotated[str, typer.Option(help="md, csv, json, txt, png, separated by commas.")] = "md,csv,json",
    metrics: Annotated[str | None, typer.Option(help="Metrics to show; the default shows both kinds side by side.")] = None,
) -> None:
    """Turn run folders into a leaderboard: mean, 95 % interval clustered by source utterance, floor and ceiling."""
    board = _print_board(runs, _split(metrics) if metrics else None)
    if out is None:
        return
    from xaibench.leaderboard import render

    for path in render.write(board, out, _split(formats)):
        print(path)


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

    from xaibench.leaderboard.rcq import rcq_of_run

    found = rcq_of_run(run_folder, vad=vad)
    table = Table(*found.columns, box=None, pad_edge=False)
    for row in found.itertuples(index=False):
        table.add_row(*("-" if v != v else f"{v:+.1f}" if isinstance(v, float) else str(v) for v in row))
    _console().print(table)
    if out is not None:
        found.to_csv(out, index=False)
        print(out)


@app.command()
def show(
    run_folder: Annotated[Path, typer.Argument(help="A run made with --keep-maps.", metavar="RUN")],
    utt: Annotated[str, typer.Option(help="Utterance, or utterance/vocoder for one of its twins.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNG.")] = Path("figures"),
) -> None:
    """Draw real, fake, the truth over the fake, and every method's map with its top 5 % (PNG).

    `xaibench show results/demo --utt june_fr_002`
    """
    from xaibench.figures import show_run

    for path in show_run(run_folder, utt, out):
        print(path)


@app.command()
def train(
    cm: Annotated[str, typer.Option(help="Countermeasure.")],
    data: Annotated[str, typer.Option(help="Data sets; their train splits are pooled, dev chooses the epoch.")] = "minivoc",
    root: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER for a data set that is not embedded.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; the same command continues there.")] = None,
    seed: Annotated[
        str, typer.Option(help="Seed of the weights and of every draw; several, as in 0,1,2, train one after another.")
    ] = "0",
    epochs: Annotated[int | None, typer.Option(help="Passes over the bona fide utterances.")] = None,
    batch_pairs: Annotated[int | None, typer.Option(help="Pairs a step: each a bona fide and a vocoded excerpt.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the one-cycle schedule (Adam).")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    crop_seconds: Annotated[float | None, typer.Option(help="Length of the training excerpts.")] = None,
    vocoder_weights: Annotated[
        str, typer.Option(help="How often vocoders are drawn, relative to 1: NAME=WEIGHT[,NAME=WEIGHT].")
    ] = "",
    class_weights: Annotated[str, typer.Option(help="CLASS=WEIGHT[,CLASS=WEIGHT] in the loss; 1 where not named.")] = "",
    rawboost: Annotated[int | None, typer.Option(help="RawBoost algorithm 1 to 8 on every excerpt; 0: none.")] = None,
    time_mask: Annotated[int | None, typer.Option(help="Longest SpecAugment mask, frames of 10 ms; 0: none.")] = None,
    frequency_mask: Annotated[int | None, typer.Option(help="Highest SpecAugment mask, bins of 31 Hz; 0: none.")] = None,
    precision: Annotated[str | None, typer.Option(help="bfloat16 (autocast while training) or float32.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many judged epochs without a better one.")] = None,
    judge_every: Annotated[int | None, typer.Option(help="Epochs from one look at dev to the next.")] = None,
    average_best: Annotated[int | None, typer.Option(help="Average the weights of this many best epochs.")] = None,
    half: Annotated[bool | None, typer.Option("--half/--full", help="Publish the weights in half precision.")] = None,
    ssl: Annotated[Path | None, typer.Option(help="Local Hugging Face folder of a wav2vec 2.0 encoder.")] = None,
    cm_set: Annotated[list[str] | None, typer.Option(help="CM.OPTION=VALUE, an option of the CM; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a countermeasure; write weights, card (EER per vocoder), history, scores and curves.

    Settings not given are the countermeasure's own. `xaibench train --cm lcnn --data minivoc,minivoc-train --root
    minivoc-train=DIR`
    """
    from xaibench import registry
    from xaibench.excerpts import Excerpts
    from xaibench.figures import training_curves
    from xaibench.harness.device import choose_device, tune_allocator
    from xaibench.harness.workbench import known_datasets, known_names
    from xaibench.training import TrainSpec
    from xaibench.training import train as train_countermeasure

    if precision not in (None, "bfloat16", "float32"):
        raise XaibenchError(f"--precision {precision!r}: expected bfloat16 or float32")
    tune_allocator()
    names = known_names("countermeasures", _split(cm))[0]
    if len(names) != 1:
        raise XaibenchError(f"--cm {cm!r}: `train` takes one countermeasure at a time")
    (cm,) = names
    sets = known_datasets(_split(data))
    roots = _roots_of_each(root or [], [Path(name).stem for name in sets])
    corpora = [registry.open_corpus(name, roots.get(Path(name).stem)) for name in sets]
    recipe = registry.load("countermeasures", cm)
    options = _cm_options((cm,), cm_set or [], ssl).get(cm, {})
    chosen = {
        "epochs": epochs, "batch_pairs": batch_pairs, "learning_rate": learning_rate, "weight_decay": weight_decay,
        "crop_seconds": crop_seconds, "rawboost": rawboost, "time_mask": time_mask, "frequency_mask": frequency_mask,
        "bfloat16": None if precision is None else precision == "bfloat16", "patience": patience,
        "judge_every": judge_every, "average_best": average_best, "half": half,
        "vocoder_weights": tuple(_weight(w, "--vocoder-weights", "hifigan=3") for w in _split(vocoder_weights)) or None,
        "class_weights": _class_weights(recipe, options, class_weights),
    }  # fmt: skip
    excerpts = None
    seeds = _seeds(seed)
    for number in seeds:
        spec = TrainSpec.suited(recipe, seed=number, **chosen)
        folder = (out or Path("results")) / (f"train-{cm}-seed{number}" if out is None or "," in seed else ".")
        if len(seeds) > 1:  # read once for all; a single training checks the data before it reads them
            excerpts = excerpts or Excerpts(corpora, spec.speeds, dict(spec.vocoder_weights))

        def line(epoch: dict[str, Any], spec: TrainSpec = spec, folder: Path = folder) -> None:
            judged = "" if epoch["dev_eer"] is None else f"  dev EER {epoch['dev_eer']:.1%}"
            print(
                f"seed {spec.seed}  epoch {epoch['epoch'] + 1:3d}/{spec.epochs}  loss {epoch['loss']:.4f}{judged}  "
                f"{epoch['seconds']:.0f} s",
                flush=True,
            )
            training_curves(folder / "history.csv", folder / "curves.png")

        weights = train_countermeasure(
            recipe, corpora, folder, spec, options=options, excerpts=excerpts, device=str(choose_device(device)), report=line
        )  # fmt: skip
        card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        for split_name, sets in card["eer"].items():
            for name, rates in sets.items():
                print(f"{split_name} {name}: " + ", ".join(f"{v} {r:.1%}" for v, r in rates.items()))
        print(weights)


def _seeds(text: str) -> list[int]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise XaibenchError(f"--seed {text!r}: expected a whole number, or several as in 0,1,2")
    return [int(part) for part in text.split(",")]


def _class_weights(recipe: Any, options: dict[str, Any], text: str) -> tuple[float, ...] | None:
    if not text:
        return None
    from xaibench import registry

    weights = dict(_weight(w, "--class-weights", "bonafide=8") for w in _split(text))
    classes = list(recipe.untrained(seed=0, **options).classes)
    for name in weights:
        if name not in classes:
            raise XaibenchError(registry.unknown("class", name, classes))
    return tuple(weights.get(c, 1.0) for c in classes)


def _weight(text: str, flag: str, example: str) -> tuple[str, float]:
    name, mark, number = text.partition("=")
    try:
        weight = float(number) if mark else -1.0
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise XaibenchError(f"{flag} {text!r}: expected NAME=WEIGHT with a positive number, as in {example}")
    return name, weight


def _roots(folders: list[str], data: str) -> str | dict[str, str] | None:
    """`--root DIR`, `--root main=DIR --root bonafide=DIR`, or `--root minivoc-train=DIR`, as `train` writes it."""
    found: dict[str, str] = {}
    for folder in folders:
        name, mark, path = folder.partition("=")
        if not mark or "/" in name:
            name, path = "main", folder
        found["main" if name == Path(data).stem else name] = path
    return (found.get("main") if set(found) == {"main"} else found) or None


def _roots_of_each(folders: list[str], data: list[str]) -> dict[str, str | dict[str, str]]:
    """`--root minivoc-train=DIR`, and `--root vocv4=DIR --root vocv4/bonafide=DIR` where a data set has further roots."""
    found: dict[str, dict[str, str]] = {}
    for text in folders:
        place, mark, folder = text.partition("=")
        name, _, part = place.partition("/")
        if not mark or name not in data:
            raise XaibenchError(
                f"--root {text!r}: expected NAME=FOLDER, or NAME/ROOT=FOLDER for a further root, with NAME one of "
                f"{', '.join(data)}"
            )
        found.setdefault(name, {})[part or "main"] = folder
    return {name: roots["main"] if set(roots) == {"main"} else roots for name, roots in found.items()}


@app.command()
def evaluate(
    cm: Annotated[str | None, typer.Option(help="Countermeasure; or give --scores.")] = None,
    data: Annotated[str, typer.Option(help="Data set, or the path of a manifest, NAME.toml.")] = "minivoc",
    root: Annotated[list[str] | None, typer.Option(help="Folder of the data set; ROOT=FOLDER for a further one.")] = None,
    split: Annotated[str, typer.Option(help="train, dev or eval.")] = "eval",
    checkpoint: Annotated[str | None, typer.Option(help="Weights (safetensors) instead of the shipped.")] = None,
    ssl: Annotated[Path | None, typer.Option(help="Local Hugging Face folder of a wav2vec 2.0 encoder.")] = None,
    scores: Annotated[Path | None, typer.Option(help="A score file of ASVspoof's form, instead of a CM.")] = None,
    keys: Annotated[Path | None, typer.Option(help="Protocol or trial metadata, for score files without keys.")] = None,
    subset: Annotated[str | None, typer.Option(help="Subset of the 2021 keys: eval, progress or hidden.")] = None,
    by: Annotated[str, typer.Option(help="Break figures down by attack or vocoder (2021 DF keys).")] = "attack",
    asv_scores: Annotated[Path | None, typer.Option(help="The organisers' ASV scores: adds both min t-DCFs.")] = None,
    asv_keys: Annotated[Path | None, typer.Option(help="Keys of 2021 ASV scores.")] = None,
    skip_broken: Annotated[bool, typer.Option(help="Name and count files that cannot be read, and go on.")] = False,
    limit: Annotated[int | None, typer.Option(help="Files to score.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Windows at a time.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; the same command continues there.")] = None,
) -> None:
    """Score every file of a data set, or read a score file: EER, both min t-DCFs, accuracy, F1, DET curve.

    `xaibench evaluate --cm lcnn --data minivoc`
    """
    from itertools import islice

    from xaibench.datasets.catalog import source
    from xaibench.evaluation import evaluate_scores

    if (cm is None) == (scores is None):
        raise XaibenchError("give either --cm or --scores")
    asv = {"asv_scores": asv_scores, "asv_keys": asv_keys}
    if scores is not None:
        folder = out or Path("results") / f"evaluate-{scores.stem}"
        found = evaluate_scores(scores, folder, keys=keys, subset=subset, by=by, title=scores.stem, **asv)
        _print_evaluation(found, folder)
        return
    from xaibench.evaluation import evaluate_files, needs_vocoder, survey
    from xaibench.harness.device import choose_device, default_batch_size, tune_allocator
    from xaibench.harness.run import Progress
    from xaibench.harness.workbench import known_datasets, known_names, load_countermeasure

    tune_allocator()
    name = known_names("countermeasures", [cm])[0][0]
    module, _, _ = load_countermeasure(name, checkpoint, _cm_options((name,), [], ssl).get(name, {}))
    where = choose_device(device)
    opened = source(known_datasets([data])[0], _roots(root or [], data))
    corpus, total = opened.facts, survey(opened.utterances(), split=split, limit=limit)

    def chosen() -> Any:
        return islice((u for u in opened.utterances() if u.split == split), limit)

    folder = out or Path("results") / f"evaluate-{name}-{corpus.name}-{split}"
    with _progress() as show_step:
        file = evaluate_files(
            module.to(where), chosen(), folder, sample_rate=corpus.sample_rate, device=where,
            batch_size=batch_size or default_batch_size(where), on_error="skip" if skip_broken else "stop",
            with_vocoder=needs_vocoder(u for u in opened.utterances() if u.split == split),
            about={"countermeasure": name, "data": corpus.name, "data_hash": corpus.hash, "split": split},
            report=lambda p: show_step(Progress("score", p.seen, total, p.message)),
        )  # fmt: skip
    found = evaluate_scores(file, folder, title=f"{name} on {corpus.name}, {split}", **asv)
    _print_evaluation(found, folder)
    if limit is not None:
        _note(f"only the first {total} files of {split} (--limit); without it the same command scores the rest")


def _print_evaluation(found: Any, folder: Path) -> None:
    from rich.table import Table

    heads = {
        "attack": "attack", "bonafide": "bonafide", "spoof": "spoof", "eer": "eer", "min_tdcf_2019_legacy": "tdcf_2019",
        "min_tdcf_2021": "tdcf_2021", "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1",
    }  # fmt: skip
    columns = [name for name in heads if found.table[name].notna().any()]
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(heads[name], no_wrap=name != "attack", overflow="fold")
    for row in found.table[columns].itertuples(index=False):
        cells = [f"{v:.4f}" if isinstance(v, float) and v == v else "" if v != v else str(v) for v in row]
        table.add_row(*cells)
    _console().print(table)
    why = found.facts["pooled"]["tdcf_note"]
    if found.facts["asv"] and why:
        _note(f"no pooled t-DCF: {why}")
    if found.facts["skipped"]:
        _note(f"{found.facts['skipped']} files could not be scored; the first: {', '.join(found.facts['skipped_first'])}")
    print(folder)


@app.command()
def convert(
    cm: Annotated[str, typer.Argument(help="Countermeasure.")],
    file: Annotated[Path, typer.Argument(help="Checkpoint as its authors publish it, read without running code.")],
    out: Annotated[Path | None, typer.Option(help="File to write, .safetensors.")] = None,
) -> None:
    """Read a published checkpoint by its key names and write it as ours, for --checkpoint.

    `xaibench convert lcnn-lfcc __pretrained/trained_network.pt`
    """
    from xaibench import registry
    from xaibench.harness.workbench import known_names

    recipe = registry.load("countermeasures", known_names("countermeasures", [cm])[0][0])
    if getattr(recipe, "convert", None) is None:
        able = [
            n for n in registry.plugins("countermeasures") if getattr(registry.load("countermeasures", n), "convert", None)
        ]
        raise XaibenchError(
            f"no published checkpoint of {cm!r} is known to xaibench; convert reads those of {', '.join(able)}"
        )
    print(recipe.convert(file, out or Path("results") / "imported" / f"{cm}.safetensors"))


@app.command("list")
def list_(
    group: Annotated[str | None, typer.Argument(help="countermeasures, attributors, metrics, datasets or vocoders.")] = None,
) -> None:
    """Show every plugin, the package and version it comes from, and the error of one that fails to import."""
    from rich.table import Table

    from xaibench import __version__, registry
    from xaibench.metrics.catalog import METRICS
    from xaibench.protocols import GROUPS

    if group is not None and group not in GROUPS:
        raise XaibenchError(registry.unknown("group", group, list(GROUPS)))
    problems = dict(registry.problems())
    console = _console()
    for name in GROUPS if group is None else (group,):
        table = Table("name", "package", "version", "note", title=name, title_justify="left", box=None, pad_edge=False)
        if name == "metrics":
            for metric in METRICS.values():
                note = f"{metric.family}, {metric.direction} is better; {metric.paper}"
                table.add_row(metric.name, "xaibench", __version__, note)
        for plugin, claims in registry.plugins(name).items():
            note = problems.pop(f"{name}/{plugin}", "")
            for claim in claims:
                table.add_row(plugin, claim.distribution, claim.version, f"[red]{note}[/red]" if note else "")
        if table.row_count:
            console.print(table)
            console.print()
    for note in problems.values() if group is None else ():
        console.print(f"[red]{note}[/red]")


@data_app.command("index")
def data_index(
    name: Annotated[str, typer.Argument(help="A data set of the field: `xaibench data layouts` shows them.")],
    root: Annotated[list[str], typer.Option(help="Its folder; ROOT=FOLDER for a further one, as bonafide=DIR for vocv4.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the manifest; by default where `run --data` finds it.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file again, also unchanged ones.")] = False,
    on_error: Annotated[
        str, typer.Option(help="`stop` at the first wrong file or line, or `skip`: name it, count it, go on.")
    ] = "stop",
    limit: Annotated[int | None, typer.Option(help="Only the first so many files, for a trial.")] = None,
) -> None:
    """Read the folders of a data set as they are and write its manifest: counts, lags between twins, hashes.

    Running the same command again continues. `xaibench data index vocv4 --root voc.v4 --root bonafide=LA`
    """
    from xaibench.datasets.catalog import LAYOUTS, manifests_folder
    from xaibench.datasets.index import index

    given = _roots(root, name) or {}
    roots = {n: Path(r) for n, r in ({"main": given} if isinstance(given, str) else given).items()}
    layout = LAYOUTS[name]
    total = sum(layout.expected.values()) or None
    with _progress() as show_step:
        found = index(
            layout, roots, out or manifests_folder(), on_error=on_error, verify=verify, limit=limit,
            report=lambda done, file: show_step(_step("index", done, limit or total or done, file)),
        )  # fmt: skip
    splits = ", ".join(f"{split} {n:,}" for split, n in found.splits.items())
    print(f"{found.name}: {found.files:,} files ({splits}); {found.read:,} read now, {found.kept:,} as they were")
    print("  " + ", ".join(f"{attack} {n:,}" for attack, n in found.attacks.items()))
    if found.late:
        most = f"{abs(found.latest)} samples {'late' if found.latest > 0 else 'early'}"
        print(f"  not in step with their bona fide twins: {found.late:,}, the worst {most}; corrected when read")
    for count, what, named in (
        (found.problems, f"left out (all of them in {found.name}.problems.txt)", found.named_problems),
        (found.extra, "audio files beside the indexed ones that nothing names", found.named_extra),
        (found.unlike, "hardly resemble their bona fide twin, or cannot be compared with it", found.named_unlike),
    ):
        if count:
            print(f"  {what}: {count:,}")
            for text in (*named, "...") if count > len(named) else named:
                print(f"    {text}")
    for note in found.notes:
        print(f"  note: {note}")
    if layout.checked == "documentation":
        print("  the layout follows its authors' documentation; xaibench was never checked against the archive itself")
    else:
        print(f"  the layout was checked against: {layout.checked}")
    print(found.manifest)


def _step(phase: str, done: int, total: int, message: str) -> Any:
    from xaibench.harness.run import Progress

    return Progress(phase, done, total, message)


@data_app.command("layouts")
def data_layouts() -> None:
    """The data sets that `index` can read: folders it needs, published counts, where to get them."""
    from xaibench.datasets.catalog import LAYOUTS

    for layout in LAYOUTS.values():
        counts = ", ".join(f"{split} {n:,}" for split, n in layout.expected.items())
        further = [f"--root {n}=DIR" for n in layout.further_roots] + [f"[--root {n}=DIR]" for n in layout.optional_roots]
        use = "pairs: run, train, evaluate" if layout.paired else "no pairs: evaluate"
        if layout.name == "partialspoof":
            use = "segments: run --truth segments, evaluate"
        print(f"{layout.name}  {layout.title}")
        print(f"  xaibench data index {' '.join([layout.name, '--root DIR', *further])}")
        print(f"  {use}; files: {counts or 'no published counts'}; checked against: {layout.checked}")
        if layout.source:
            print(f"  {layout.source}")


@data_app.command("make-pairs")
def data_make_pairs(
    recordings: Annotated[Path, typer.Argument(help="Folder with your own speech (WAV or FLAC).")],
    out: Annotated[Path, typer.Argument(help="Folder of the pairs: bonafide/ and one a vocoder, and their manifest.")],
    vocoders: Annotated[str, typer.Option(help="Vocoders, as `xaibench list vocoders` shows them.")] = "world,griffin-lim",
    limit: Annotated[int | None, typer.Option(help="Only the first so many recordings.")] = None,
) -> None:
    """Vocode your own speech: aligned twins by the chain of minivoc, ready for `run --data folder --root OUT`.

    `xaibench data make-pairs --vocoders world,griffin-lim speech/ pairs/`
    """
    from xaibench.datasets.make_pairs import make_pairs

    with _progress() as show_step:
        found = make_pairs(
            _split(vocoders), recordings, out, limit=limit,
            report=lambda done, name: show_step(_step("vocode", done, limit or done, name)),
        )  # fmt: skip
    print(f"{out}: {found.made} recordings vocoded, {found.kept} were there; manifest {found.index.manifest}")
    if found.left_out:
        print(f"  {found.left_out} left out: " + "; ".join(found.named))


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="Data set, or the path of a manifest, NAME.toml.")],
    root: Annotated[list[str] | None, typer.Option(help="Its folder; ROOT=FOLDER for a further one.")] = None,
) -> None:
    """Compare every file with the manifest's sha256."""
    from xaibench.datasets.catalog import source
    from xaibench.harness.workbench import known_datasets
    from xaibench.manifest import verify

    opened = source(known_datasets([name])[0], _roots(root or [], name))
    with _progress() as show_step:

        def shown() -> Any:
            for done, u in enumerate(opened.utterances(), start=1):
                show_step(_step("verify", done, done, u.path.name))
                yield u

        count = verify(shown())
    print(f"{opened.facts.name}: {count:,} files agree with the manifest")


@data_app.command("info")
def data_info(
    name: Annotated[str, typer.Argument(help="Data set, or the path of a manifest, NAME.toml.")],
    root: Annotated[list[str] | None, typer.Option(help="Its folder; ROOT=FOLDER for a further one.")] = None,
) -> None:
    """Show utterances, speakers and vocoders of every split, licence and citation."""
    from collections import Counter

    from xaibench.datasets.catalog import source
    from xaibench.harness.workbench import known_datasets
    from xaibench.manifest import SPLITS

    opened = source(known_datasets([name])[0], _roots(root or [], name))
    corpus, files, sources, speakers = opened.facts, Counter(), {}, {}
    for u in opened.utterances():
        files[u.split, u.vocoder] += 1
        sources.setdefault(u.split, set()).add(u.source)
        speakers.setdefault(u.split, set()).add(u.speaker)
    print(f"{corpus.name}: {corpus.sample_rate} Hz, valid band {corpus.valid_band[0]:g} to {corpus.valid_band[1]:g} Hz")
    for split in (s for s in SPLITS if s in speakers):
        spoofed = {v: n for (s, v), n in sorted(files.items()) if s == split and v != "bonafide"}
        facts = [f"{len(sources[split]):,} utterances", f"{len(speakers[split]):,} speakers", *spoofed]
        real, fake = files[split, "bonafide"], sum(spoofed.values())
        print(f"  {split}: {', '.join(facts)}; {real:,} bona fide and {fake:,} spoofed files")
    print(f"  held out of all training: {', '.join(corpus.held_out) or 'none'}")
    print(f"  licence: {corpus.licence}\n  citation: {corpus.citation}")


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
    half = rope if rope is not None else "auto" if bayes else None
    report = comparing.compare(rows, metrics=metric, against=against, cluster=cluster, rope=half, notes=notes)
    _console().print(comparing.terminal(report))
    if out is not None:
        for path in comparing.write(report, out):
            print(path)


if __name__ == "__main__":
    main()
