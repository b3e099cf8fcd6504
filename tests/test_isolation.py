"""`--isolate` against hostile plugins: each costs its own cells, the run ends normally and names it, nothing is left behind.

The hostile package is published into a folder on the path, as pip would leave it, because the processes import it by name.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import toybench
from test_registry import publish

from xaibench import registry
from xaibench.errors import PluginError, RunError
from xaibench.harness import nursery
from xaibench.harness.answers import read
from xaibench.harness.described import described
from xaibench.harness.engine import Died
from xaibench.harness.isolate import TOO_LATE, Isolated, _Tally
from xaibench.harness.request import request
from xaibench.harness.run import run

TESTS = Path(__file__).parent
KEYS = ["countermeasure", "attributor", "metric", "utterance", "vocoder"]
NUMBERS = ["value", "status", "note", "fingerprint"]

HOSTILE = """
import ctypes, os, random, resource, signal, subprocess, sys, threading, time, warnings
import numpy, toybench, torch
from xaibench.protocols import Metric, attributor

def method(function):
    name = function.__name__.replace("_", "-")
    def mapped(view):
        values = function(view)
        return toybench.gradient.function(view) if values is None else values
    return attributor(name=name, paper="none", needs=["gradients"])(mapped)

@method
def exits(view): os._exit(7)
@method
def leaves(view): sys.exit(3)
@method
def crashes(view): ctypes.string_at(0)
@method
def hangs(view): signal.signal(signal.SIGTERM, signal.SIG_IGN); ctypes.CDLL(None).pause()
@method
def not_a_number(view): return torch.full((len(view), *view.shape), float("nan"))
@method
def shapeless(view): return torch.zeros(1, 2, 3)
@method
def doubles(view): torch.set_default_dtype(torch.float64)
@method
def prints(view): print("hello" * 200_000); os.write(1, b"y" * 1_000_000)
@method
def warns(view):
    for i in range(1000): warnings.warn(f"number {i}")
@method
def moves(view):
    os.chdir("/"); os.environ["MOVED"] = "1"; sys.path.append("/nowhere"); numpy.seterr(all="raise"); random.seed(0)
@method
def threads(view):
    threading.Thread(target=time.sleep, args=(1e6,)).start()
    threading.Thread(target=lambda: 1 / 0).start()
@method
def forks(view): os.fork()
@method
def breeds(view): subprocess.Popen(["sleep", "1000"], start_new_session=True); os._exit(0)
@method
def scribbles(view):
    for file in range(3, 30):
        try: os.write(file, bytes([127, 255, 255, 255]))
        except OSError: pass
@method
def eats(view):
    resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.RLIM_INFINITY)); bytearray(2**34)
@method
def partly(view):
    if any(name.startswith("d-") for name in view.ids): os.kill(os.getpid(), signal.SIGKILL)

def deadly(evidence): os._exit(9)
deadly = Metric("deadly", "axioms", deadly, "higher", (0, 1), "none", "none", "always")
"""
GOOD = ("toy-gradient", "prints", "warns", "moves", "threads", "random")
#: Method -> what the note of its failed cells says; `partly` fails on one speaker only.
BAD = {
    "exits": "exits: its process ended with exit code 7; given up after 2 utterances alone",
    "leaves": "XaibenchError: leaves called sys.exit(3); a method returns a map or raises",
    "crashes": "crashes: its process was killed by signal 11 (SIGSEGV); given up after 2 utterances alone",
    "hangs": "hangs took longer than 2 s an utterance; given up after 2 utterances alone",
    "not-a-number": "XaibenchError: not-a-number returned NaN or infinity for 4158 cells",
    "shapeless": "XaibenchError: shapeless returned shape (1, 2, 3), expected (B, F, T) = (1, 33, 126)",
    "doubles": "XaibenchError: doubles changed torch's default dtype for the whole process; it was restored",
    "breeds": "breeds: its process ended with exit code 0; given up after 2 utterances alone",
    "scribbles": "scribbles: wrote into its connection to the run; given up after 2 utterances alone",
    "eats": "MemoryError",
    "partly": "partly: its process was killed by signal 9 (SIGKILL, perhaps as memory ran out)",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the packages, the toy data and weights, temporary files and a cache of its own; on the path of all."""
    folder = tmp_path_factory.mktemp("isolation")
    toys = {"countermeasures": {"toy": "toybench:recipe"}, "datasets": {"toy": "toybench:corpus"},
            "attributors": {"toy-gradient": "toybench:gradient"}}  # fmt: skip
    publish(folder, "toys", "toys_of_isolation", "", toys)
    names = [*GOOD[1:-1], *BAD, "forks"]
    entries = {"attributors": {n: f"hostile:{n.replace('-', '_')}" for n in names}, "metrics": {"deadly": "hostile:deadly"}}
    publish(folder, "hostile", "hostile", HOSTILE, entries)
    toybench.write_corpus(folder / "toy")
    toybench.write_checkpoint(folder / "toy" / "weights")
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(TESTS)]))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setenv("XAIBENCH_PLUGINS", "toys,hostile")
        patch.setenv("MARK", str(folder))  # by which its processes are known
        registry.look_again()
        yield folder
    registry.look_again()


def spec(site, *methods, **changes):
    return toybench.spec(site / "toy", *methods, **{"limit": 3, **changes})


@pytest.fixture(scope="module")
def source(site):
    """A nursery for all tests: to import torch takes longer than a run."""
    kept = nursery.Nursery()
    yield kept
    kept.close()


def isolated(site, out, *methods, source=None, timeout=None, workers=1, **changes):
    with Isolated(cell_timeout=timeout, workers=workers, source=source) as engine:
        return run(spec(site, *methods, **changes), out, batch_size=2, engine=engine)


def rows_of(folder):
    return pd.read_parquet(folder / "rows", partitioning=None).set_index(KEYS).sort_index()


def relatives(site, source=None) -> list[int]:
    """Processes that bear our mark, without this one and the nursery that is kept."""
    known = {os.getpid(), *([source._process.pid] if source else [])}
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) not in known:
            try:
                marked = f"MARK={site}\0".encode() in (process / "environ").read_bytes()
            except OSError:
                continue
            found += [int(process.name)] if marked else []
    return found


@pytest.fixture(scope="module")
def runs(site, tmp_path_factory):
    """All methods isolated, and the good ones in this process."""
    folder = tmp_path_factory.mktemp("runs")
    others = [method for method in BAD if method != "hangs"]  # on a busy machine these may take their time
    problems = isolated(site, folder / "isolated", *GOOD, *others, timeout=120).problems
    problems += isolated(site, folder / "isolated", "hangs", timeout=2).problems
    assert "hostile" not in sys.modules
    assert relatives(site) == [] and list((site / "tmp").iterdir()) == []
    run(spec(site, *GOOD[:1], GOOD[-1]), folder / "plain", batch_size=2)
    return folder, problems


@pytest.mark.parametrize("method", BAD)
def test_a_bad_method_costs_its_own_cells_and_is_named(runs, method):
    rows = rows_of(runs[0] / "isolated").xs(method, level="attributor")
    failed = rows[rows.status == "failed"]
    assert len(rows) == 6 and len(failed) == (2 if method == "partly" else 6)
    assert BAD[method].split(";")[0] in " ".join(failed.note) and BAD[method] in failed.note.to_list()
    assert any(p.startswith(f"failed: {method} on toy, on {len(failed) // 2} utterance") for p in runs[1])
    if method == "partly":  # of three speakers
        assert set(failed.index.get_level_values("utterance")) == {"d-1"} and set(rows.status) == {"failed", "ok"}


def test_good_methods_have_the_same_rows_bit_by_bit(runs):
    found, plain = rows_of(runs[0] / "isolated"), rows_of(runs[0] / "plain")
    pd.testing.assert_frame_equal(found.loc[plain.index, NUMBERS], plain[NUMBERS], check_exact=True)
    assert set(found.loc[found.index.get_level_values("attributor").isin(GOOD), "status"]) == {"ok"}


def test_a_folder_is_continued_either_way(runs, site, source):
    folder, _ = runs
    assert isolated(site, folder / "isolated", *GOOD, *BAD, source=source).computed == 0
    assert run(spec(site, GOOD[0], GOOD[-1]), folder / "isolated", batch_size=2).computed == 0
    more = isolated(site, folder / "plain", GOOD[0], GOOD[-1], source=source, limit=4)
    assert (more.computed, more.kept, more.statuses) == (4, 12, {"ok": 4})


def test_what_was_said_is_on_record(runs):
    said = {m: (runs[0] / "isolated" / "preflight" / f"toy-native-{m}.json").read_text() for m in GOOD[1:4]}
    assert "printed: hellohello" in said["prints"] and "... (1000001 characters)" in said["prints"]
    assert "UserWarning: number 19" in said["warns"] and "and 980 more warnings" in said["warns"]
    for moved in ("working directory", "environment variables", "sys.path", "numpy's error settings"):
        assert f"changed the process' {moved}; it was put back" in said["moves"]
    errors = [e.read_text() for e in (runs[0] / "isolated" / "errors").glob("toy-native-crashes-*.txt")]
    assert any("Segmentation fault" in e and "hostile.py" in e for e in errors)  # where it crashed; not of untried cells


def test_two_at_a_time_and_what_a_method_forks_has_nothing_to_say(site, tmp_path, source):
    isolated(site, tmp_path, "toy-gradient", "forks", "random", "exits", workers=2, source=source)
    rows = rows_of(tmp_path)
    status = rows.groupby("attributor").status.unique().str.join(" ").to_dict()
    assert status == {"toy-gradient": "ok", "forks": "ok", "random": "ok", "exits": "failed"}
    assert len(rows) == 4 * 6 and not rows.index.has_duplicates and relatives(site, source) == []


def test_a_metric_that_ends_the_process_costs_its_own_cells(site, tmp_path, source):
    metrics = ("rank-accuracy", "deadly", "drop-twin")
    isolated(site, tmp_path, "toy-gradient", "random", metrics=metrics, source=source)
    rows = rows_of(tmp_path).reset_index()
    assert set(rows[rows.metric == "deadly"].note) == {"metric deadly: its process ended with exit code 9"}
    assert set(rows[rows.metric != "deadly"].status) == {"ok"} and len(rows) == 2 * 3 * 3
    assert (tmp_path / "preflight" / "toy-native-toy-gradient.json").exists()  # judged all the same


def test_a_fresh_interpreter_does_where_there_is_no_nursery(site, tmp_path):
    fresh = nursery.Fresh()
    isolated(site, tmp_path, "toy-gradient", limit=1, source=fresh)
    fresh.close()
    assert set(rows_of(tmp_path).status) == {"ok"}
    assert fresh._workers == {}


def test_a_nursery_whose_run_went_without_its_answer_ends_quietly_with_its_workers():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = "from xaibench.harness import nursery\nnursery._over = lambda process: False\nnursery.serve"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}({theirs.fileno()})"], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True
    )
    ours.send(nursery._REQUEST.pack(nursery._RUNS, 1))  # it is closed before it can be answered
    ours.close()
    theirs.close()
    assert process.communicate(timeout=60)[1] == "" and process.returncode == -signal.SIGKILL  # the end of `serve`


def hears_interrupts():
    """Also where the tests are a job in the background, which ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process(site, tmp_path, source, with_signal):
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "import toybench; from pathlib import Path; from xaibench.harness.isolate import Isolated\n"
        "from xaibench.harness.run import run\nroot, out = map(Path, sys.argv[1:])\n"
        "with Isolated() as engine:\n"
        "    run(toybench.spec(root, 'hangs', limit=1), out, engine=engine, report=lambda p: print(p.phase, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, site / "toy", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hears_interrupts,
    )  # fmt: skip
    while process.stdout.readline() != "cells\n":
        assert process.poll() is None, process.stderr.read()
    while len(relatives(site, source)) < 3:  # the run, the nursery, the method
        time.sleep(0.1)
    process.send_signal(with_signal)
    _, told = process.communicate(timeout=60)
    assert process.returncode == -with_signal or "KeyboardInterrupt" in told
    deadline = time.monotonic() + 60
    while relatives(site, source) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert relatives(site, source) == []


IMPORTS = {
    "sleeps": ("import time; time.sleep(1e6)", "it took longer than 8 s"),
    "quits": ("import os; os._exit(7)", "its process ended with exit code 7"),
    "raises": ("raise ValueError('no licence')", "ValueError: no licence"),
    "lingers": ("import threading, time; threading.Thread(target=time.sleep, args=(1e6,)).start(); x = 1", "is of type int"),
}
FINE = """
from xaibench.protocols import attributor
@attributor(name="fine", paper="P", needs=["twin"], complete=True)
def x(view, *, steps=(3, 1.5), limit=float("inf"), fill="twin"):
    "What it does."
"""
QUITTER = """
import os, toybench
class Quitter(toybench.ToyRecipe):
    name = "quitter"
    def untrained(self, **options): os._exit(5)
quitter = Quitter()
"""


@pytest.fixture
def imports(site, tmp_path, monkeypatch):
    """Packages that misbehave when they are imported, beside one that does not and two that share a name."""
    for name, (source, _) in IMPORTS.items():
        publish(tmp_path, f"a-{name}", f"{name}_at_import", source, {"attributors": {name: f"{name}_at_import:x"}})
    publish(tmp_path, "fine", "fine_at_import", FINE, {"attributors": {"fine": "fine_at_import:x"}})
    for other in ("y-double", "z-double"):
        publish(tmp_path, other, f"{other[0]}_double", FINE, {"attributors": {"twice": f"{other[0]}_double:x"}})
    monkeypatch.syspath_prepend(tmp_path)

    def look(*packages, seconds):
        monkeypatch.setenv("XAIBENCH_PLUGINS", ",".join(packages))
        monkeypatch.setenv("XAIBENCH_IMPORT_SECONDS", str(seconds))
        registry.look_again()

    yield look
    monkeypatch.undo()
    registry.look_again()
    sys.modules.pop("fine_at_import", None)


def test_what_a_plugin_does_at_import_costs_itself_only(imports, site, source):
    imports("fine", "y-double", "z-double", *(f"a-{n}" for n in IMPORTS), seconds=8)
    problems = registry.problems()
    for name, (_, sentence) in IMPORTS.items():
        assert f"attributor {name!r} of a-{name} 1.2.3" in problems[f"attributors/{name}"]
        assert sentence in problems[f"attributors/{name}"] and f"{name}_at_import" not in sys.modules
    assert "y-double 1.2.3 and z-double 1.2.3" in problems["attributors/twice"]
    assert set(problems) == {*(f"attributors/{name}" for name in IMPORTS), "attributors/twice"}
    assert relatives(site, source) == []


def test_a_stand_in_says_what_the_plugin_says_and_is_not_it(imports):
    imports("fine", seconds=60)
    told, mark = registry.stand_in("attributors", "fine"), described("attributors", "fine", registry.stand_in)
    assert "fine_at_import" not in sys.modules
    with pytest.raises(PluginError, match=r"'fine' of fine 1\.2\.3 was asked about only"):
        told.function(None)
    real = registry.load("attributors", "fine")
    assert replace(told, function=print) == replace(real, function=print)
    assert mark == described("attributors", "fine") and mark["summary"] == "What it does."


def test_all_leaves_out_what_ends_its_process(imports, site, tmp_path):
    publish(tmp_path, "a-quitter", "quitter", QUITTER, {"countermeasures": {"quitter": "quitter:quitter"}})
    imports("toys", "fine", "a-quits", "a-quitter", seconds=60)
    weights = dict.fromkeys(("toy", "quitter"), str(site / "toy" / "weights" / "toy.safetensors"))
    settings = {"checkpoints": weights, "root": str(site / "toy")}
    asked = request(["all"], ["all"], data="toy", settings=settings, isolate=True)
    assert asked.spec.countermeasures == ("toy",) and {"fine", "toy-gradient"} < set(asked.spec.attributors)
    method, countermeasure = asked.notes
    assert method == "attributor 'quits' of a-quits 1.2.3 failed to import: its process ended with exit code 7"
    assert countermeasure == "countermeasure 'quitter' is left out: its process ended with exit code 5"
    assert "fine_at_import" not in sys.modules


def test_a_combination_is_given_up_when_more_is_lost_than_done():
    tally, late = _Tally(finished=2), Died("x took longer", late=True)
    for _ in range(2):
        tally.loses(Died("x: its process ended"))
    assert tally.given_up is None
    tally.loses(Died("x: its process ended"))
    assert str(tally.given_up) == "x: its process ended; given up after 3 utterances alone"
    slow = _Tally(finished=1000)
    for _ in range(TOO_LATE):
        assert slow.given_up is None
        slow.loses(late)
    assert slow.given_up is not None


def test_an_answer_imports_nothing():
    with pytest.raises(RunError, match=r"cannot be read: os\.system|posix\.system"):
        read(b"cposix\nsystem\n(S'true'\ntR.")


@pytest.mark.parametrize(("options", "message"), [({"workers": 0}, "--workers"), ({"cell_timeout": 0.0}, "--cell-timeout")])
def test_limits_must_be_possible(options, message):
    with pytest.raises(RunError, match=message):
        Isolated(**options)
