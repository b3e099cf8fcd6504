"""Commands about data sets: `data index | layouts | make-pairs | verify | info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xaibench.cli.app import data_app
from xaibench.cli.output import progress_bar, say
from xaibench.cli.words import roots_of, split_names


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

    given = roots_of(root, name) or {}
    roots = {n: Path(r) for n, r in ({"main": given} if isinstance(given, str) else given).items()}
    layout = LAYOUTS[name]
    total = sum(layout.expected.values()) or None
    with progress_bar() as show_step:
        found = index(
            layout, roots, out or manifests_folder(), on_error=on_error, verify=verify, limit=limit,
            report=lambda done, file: show_step(step_of("index", done, limit or total or done, file)),
        )  # fmt: skip
    splits = ", ".join(f"{split} {n:,}" for split, n in found.splits.items())
    say(f"{found.name}: {found.files:,} files ({splits}); {found.read:,} read now, {found.kept:,} as they were")
    say("  " + ", ".join(f"{attack} {n:,}" for attack, n in found.attacks.items()))
    if found.late:
        most = f"{abs(found.latest)} samples {'late' if found.latest > 0 else 'early'}"
        say(f"  not in step with their bona fide twins: {found.late:,}, the worst {most}; corrected when read")
    for count, what, named in (
        (found.problems, f"left out (all of them in {found.name}.problems.txt)", found.named_problems),
        (found.extra, "audio files beside the indexed ones that nothing names", found.named_extra),
        (found.unlike, "hardly resemble their bona fide twin, or cannot be compared with it", found.named_unlike),
    ):
        if count:
            say(f"  {what}: {count:,}")
            for text in (*named, "...") if count > len(named) else named:
                say(f"    {text}")
    for note in found.notes:
        say(f"  note: {note}")
    if layout.checked == "documentation":
        say("  the layout follows its authors' documentation; xaibench was never checked against the archive itself")
    elif layout.checked:
        say(f"  the layout was checked against: {layout.checked}")
    say(found.manifest)


def step_of(phase: str, done: int, total: int, message: str) -> Any:
    """A step of the progress bar."""
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
        say(f"{layout.name}  {layout.title}")
        say(f"  xaibench data index {' '.join([layout.name, '--root DIR', *further])}")
        against = f"; checked against: {layout.checked}" if layout.checked else ""
        say(f"  {use}; files: {counts or 'no published counts'}{against}")
        if layout.source:
            say(f"  {layout.source}")


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

    with progress_bar() as show_step:
        found = make_pairs(
            split_names(vocoders), recordings, out, limit=limit,
            report=lambda done, name: show_step(step_of("vocode", done, limit or done, name)),
        )  # fmt: skip
    say(f"{out}: {found.made} recordings vocoded, {found.kept} were there; manifest {found.index.manifest}")
    if found.left_out:
        say(f"  {found.left_out} left out: " + "; ".join(found.named))


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="Data set, or the path of a manifest, NAME.toml.")],
    root: Annotated[list[str] | None, typer.Option(help="Its folder; ROOT=FOLDER for a further one.")] = None,
) -> None:
    """Compare every file with the manifest's sha256."""
    from xaibench.datasets.catalog import source
    from xaibench.harness.known import known_datasets
    from xaibench.manifest import verify

    opened = source(known_datasets([name])[0], roots_of(root or [], name))
    with progress_bar() as show_step:

        def shown() -> Any:
            for done, u in enumerate(opened.utterances(), start=1):
                show_step(step_of("verify", done, done, u.path.name))
                yield u

        count = verify(shown())
    say(f"{opened.facts.name}: {count:,} files agree with the manifest")


@data_app.command("info")
def data_info(
    name: Annotated[str, typer.Argument(help="Data set, or the path of a manifest, NAME.toml.")],
    root: Annotated[list[str] | None, typer.Option(help="Its folder; ROOT=FOLDER for a further one.")] = None,
) -> None:
    """Show utterances, speakers and vocoders of every split, licence and citation."""
    from collections import Counter

    from xaibench import registry
    from xaibench.datasets.catalog import source
    from xaibench.harness.known import known_datasets
    from xaibench.manifest import SPLITS

    opened = source(known_datasets([name])[0], roots_of(root or [], name))
    corpus, files = opened.facts, Counter[tuple[str, str]]()
    sources: dict[str, set[str]] = {}
    speakers: dict[str, set[str]] = {}
    for u in opened.utterances():
        files[u.split, u.vocoder] += 1
        sources.setdefault(u.split, set()).add(u.source)
        speakers.setdefault(u.split, set()).add(u.speaker)
    say(f"{corpus.name}: {corpus.sample_rate} Hz, valid band {corpus.valid_band[0]:g} to {corpus.valid_band[1]:g} Hz")
    if name in registry.plugins("datasets"):
        say(f"  {registry.load('datasets', name).summary}")
    for split in (s for s in SPLITS if s in speakers):
        spoofed = {v: n for (s, v), n in sorted(files.items()) if s == split and v != "bonafide"}
        facts = [f"{len(sources[split]):,} utterances", f"{len(speakers[split]):,} speakers", *spoofed]
        real, fake = files[split, "bonafide"], sum(spoofed.values())
        say(f"  {split}: {', '.join(facts)}; {real:,} bona fide and {fake:,} spoofed files")
    say(f"  held out of all training: {', '.join(corpus.held_out) or 'none'}")
    say(f"  licence: {corpus.licence}\n  citation: {corpus.citation}")
