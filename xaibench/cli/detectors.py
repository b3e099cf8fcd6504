"""Commands about countermeasures: `train`, `evaluate`, `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xaibench.cli.app import app
from xaibench.cli.output import console, note, progress_bar, say
from xaibench.cli.words import cm_options, roots_of, roots_of_each, split_names, weight_of
from xaibench.errors import XaibenchError


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
    from xaibench.harness.known import known_datasets, known_names
    from xaibench.training import TrainSpec
    from xaibench.training import train as train_countermeasure
    from xaibench.weights import read_card

    if precision not in (None, "bfloat16", "float32"):
        raise XaibenchError(f"--precision {precision!r}: expected bfloat16 or float32")
    tune_allocator()
    names = known_names("countermeasures", split_names(cm))[0]
    if len(names) != 1:
        raise XaibenchError(f"--cm {cm!r}: `train` takes one countermeasure at a time")
    (cm,) = names
    sets = known_datasets(split_names(data))
    roots = roots_of_each(root or [], [Path(name).stem for name in sets])
    corpora = [registry.open_corpus(name, roots.get(Path(name).stem)) for name in sets]
    recipe = registry.load("countermeasures", cm)
    options = cm_options((cm,), cm_set or [], ssl).get(cm, {})
    weights = tuple(weight_of(w, "--vocoder-weights", "hifigan=3") for w in split_names(vocoder_weights))
    chosen = {
        "epochs": epochs, "batch_pairs": batch_pairs, "learning_rate": learning_rate, "weight_decay": weight_decay,
        "crop_seconds": crop_seconds, "rawboost": rawboost, "time_mask": time_mask, "frequency_mask": frequency_mask,
        "bfloat16": None if precision is None else precision == "bfloat16", "patience": patience,
        "judge_every": judge_every, "average_best": average_best, "half": half,
        "vocoder_weights": weights or None,
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
            say(
                f"seed {spec.seed}  epoch {epoch['epoch'] + 1:3d}/{spec.epochs}  loss {epoch['loss']:.4f}{judged}  "
                f"{epoch['seconds']:.0f} s",
                flush=True,
            )
            training_curves(folder / "history.csv", folder / "curves.png")

        file = train_countermeasure(
            recipe, corpora, folder, spec, options=options, excerpts=excerpts, device=str(choose_device(device)), report=line
        )  # fmt: skip
        if (folder / "history.csv").exists():  # one that was killed before it drew its last epoch does not come by above
            training_curves(folder / "history.csv", folder / "curves.png")
        card = read_card(file)
        for split_name, sets in card["eer"].items():
            for name, rates in sets.items():
                say(f"{split_name} {name}: " + ", ".join(f"{v} {r:.1%}" for v, r in rates.items()))
        say(file)


def _seeds(text: str) -> list[int]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise XaibenchError(f"--seed {text!r}: expected a whole number, or several as in 0,1,2")
    return [int(part) for part in text.split(",")]


def _class_weights(recipe: Any, options: dict[str, Any], text: str) -> tuple[float, ...] | None:
    if not text:
        return None
    from xaibench import registry

    weights = dict(weight_of(w, "--class-weights", "bonafide=8") for w in split_names(text))
    classes = list(recipe.untrained(seed=0, **options).classes)
    for name in weights:
        if name not in classes:
            raise XaibenchError(registry.unknown("class", name, classes))
    return tuple(weights.get(c, 1.0) for c in classes)


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
    from functools import partial
    from itertools import islice

    from xaibench.datasets.catalog import source
    from xaibench.evaluation import evaluate_scores

    evaluated = partial(evaluate_scores, asv_scores=asv_scores, asv_keys=asv_keys)
    if scores is not None and cm is None:
        folder = out or Path("results") / f"evaluate-{scores.stem}"
        found = evaluated(scores, folder, keys=keys, subset=subset, by=by, title=scores.stem)
        _print_evaluation(found, folder)
        return
    if cm is None or scores is not None:
        raise XaibenchError("give either --cm or --scores")
    from xaibench.evaluation import evaluate_files, needs_vocoder, survey
    from xaibench.harness.device import choose_device, default_batch_size, tune_allocator
    from xaibench.harness.known import known_datasets, known_names, load_countermeasure
    from xaibench.harness.run import Progress

    tune_allocator()
    name = known_names("countermeasures", [cm])[0][0]
    module, _, _ = load_countermeasure(name, checkpoint, cm_options((name,), [], ssl).get(name, {}))
    where = choose_device(device)
    opened = source(known_datasets([data])[0], roots_of(root or [], data))
    corpus, total = opened.facts, survey(opened.utterances(), split=split, limit=limit)

    def chosen() -> Any:
        return islice((u for u in opened.utterances() if u.split == split), limit)

    folder = out or Path("results") / f"evaluate-{name}-{corpus.name}-{split}"
    with progress_bar() as show_step:
        file = evaluate_files(
            module.to(where), chosen(), folder, sample_rate=corpus.sample_rate, device=where,
            batch_size=batch_size or default_batch_size(where), on_error="skip" if skip_broken else "stop",
            with_vocoder=needs_vocoder(u for u in opened.utterances() if u.split == split),
            about={"countermeasure": name, "data": corpus.name, "data_hash": corpus.hash, "split": split},
            report=lambda p: show_step(Progress("score", p.seen, total, p.message)),
        )  # fmt: skip
    found = evaluated(file, folder, title=f"{name} on {corpus.name}, {split}")
    _print_evaluation(found, folder)
    if limit is not None:
        note(f"only the first {total} files of {split} (--limit); without it the same command scores the rest")


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
    console().print(table)
    why = found.facts["pooled"]["tdcf_note"]
    if found.facts["asv"] and why:
        note(f"no pooled t-DCF: {why}")
    if found.facts["skipped"]:
        note(f"{found.facts['skipped']} files could not be scored; the first: {', '.join(found.facts['skipped_first'])}")
    say(folder)


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
    from xaibench.harness.known import known_names

    recipe = registry.load("countermeasures", known_names("countermeasures", [cm])[0][0])
    if getattr(recipe, "convert", None) is None:
        able = [
            n for n in registry.plugins("countermeasures") if getattr(registry.load("countermeasures", n), "convert", None)
        ]
        raise XaibenchError(
            f"no published checkpoint of {cm!r} is known to xaibench; convert reads those of {', '.join(able)}"
        )
    say(recipe.convert(file, out or Path("results") / "imported" / f"{cm}.safetensors"))
