"""A real Dask scheduler and real worker processes: same rows, and nothing lost when one of them is.

The workers meet the toys as installed plugins: a folder on their path holds the package's metadata.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import toybench

from xaibench import registry
from xaibench.errors import RunError
from xaibench.harness.run import run

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'xaibench[cluster]'")
from xaibench.harness.cluster import DaskEngine

TESTS = Path(__file__).parent
KEYS = ["countermeasure", "attributor", "metric", "utterance", "vocoder"]
METHODS = ("toy-gradient", "toy-slow")


class Cluster:
    """A scheduler on a port of its own and workers without a nanny, all of them processes to be killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.processes: dict[str, subprocess.Popen] = {}

    def scheduler(self) -> None:
        port = self.address.rpartition(":")[2]
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")

    def worker(self, name: str, *path: Path) -> None:
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60", "--name", name)
        self._start(name, "worker", self.address, *options, path=path)

    def _start(self, name: str, *command: str, path: tuple[Path, ...] = ()) -> None:
        paths = [*path, self.path / "package", TESTS, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        with (self.path / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]], env=environment, stdout=log,
                stderr=log, cwd=self.path,
            )  # fmt: skip

    def kill(self, *names: str) -> None:
        for name in names:
            process = self.processes.pop(name)
            process.send_signal(signal.SIGKILL)
            process.wait(30)


def install_package(folder: Path) -> None:
    """What `pip install` would leave behind of a package with the toys."""
    lines = {
        "countermeasures": ["toy = toybench:recipe"], "datasets": ["toy = toybench:corpus"],
        "attributors": [f"{n} = toybench:{toybench.METHODS[n].function.__name__}" for n in METHODS],
    }  # fmt: skip
    info = folder / "toy_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    groups = ["\n".join([f"[xaibench.{group}]", *names]) for group, names in lines.items()]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    install_package(tmp_path / "package")
    toybench.write_corpus(tmp_path / "toy")
    toybench.write_checkpoint(tmp_path / "toy" / "weights")
    monkeypatch.syspath_prepend(tmp_path / "package")
    registry.look_again()
    found = Cluster(tmp_path)
    yield found
    found.kill(*found.processes)
    registry.look_again()


def spec(cluster):
    return toybench.spec(cluster.path / "toy", *METHODS)


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows", partitioning=None).set_index(KEYS).sort_index()


def check_same_rows(cluster, folder: Path) -> None:
    """As many rows as the plan has, each once, with the numbers of a run in this process."""
    run(spec(cluster), cluster.path / "here", batch_size=1)
    here, there = rows_of(cluster.path / "here"), rows_of(folder)
    assert there.index.equals(here.index) and len(here) == 2 * 2 * 6
    assert set(there.status) == {"ok"}
    pd.testing.assert_series_equal(there.value, here.value, rtol=1e-6)
    assert there.fingerprint.equals(here.fingerprint)


@pytest.mark.timeout(180)
def test_two_workers_give_the_rows_of_one_process_and_a_killed_one_loses_none(cluster):
    cluster.scheduler()
    cluster.worker("one")
    cluster.worker("two")
    killed = []

    def kill_one(progress):
        if progress.phase == "cells" and progress.done and not killed:
            killed.append(cluster.kill("one"))

    with DaskEngine(cluster.address, patience=60) as engine:
        engine._client.wait_for_workers(2, timeout=60)
        summary = run(spec(cluster), cluster.path / "plain", batch_size=1, engine=engine, device="cpu")
        assert summary.computed == 24
        check_same_rows(cluster, cluster.path / "plain")
        run(spec(cluster), cluster.path / "wounded", batch_size=1, engine=engine, device="cpu", report=kill_one)
        assert killed and len(engine._client.nthreads()) == 1
    check_same_rows(cluster, cluster.path / "wounded")


@pytest.mark.timeout(180)
def test_a_scheduler_that_dies_and_comes_back_costs_unfinished_chunks_only(cluster):
    cluster.scheduler()
    cluster.worker("one")
    finished, restarted = {}, []

    def restart():
        cluster.scheduler()
        cluster.worker("again")

    def kill_all(progress):
        if progress.phase == "cells" and progress.done >= 4 and not restarted:
            finished.update({p: p.stat().st_mtime_ns for p in (cluster.path / "run" / "rows").rglob("*.parquet")})
            cluster.kill("scheduler", "one")
            restarted.append(threading.Timer(1.0, restart))
            restarted[0].start()

    with DaskEngine(cluster.address, patience=60) as engine:
        summary = run(spec(cluster), cluster.path / "run", batch_size=1, engine=engine, device="cpu", report=kill_all)
    restarted[0].join()
    assert finished and all(p.stat().st_mtime_ns == then for p, then in finished.items())
    assert summary.computed == 24
    check_same_rows(cluster, cluster.path / "run")


@pytest.mark.timeout(180)
def test_a_worker_with_another_version_is_refused_by_name(cluster):
    other = cluster.path / "other"
    info = other / "captum-9.9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: captum\nVersion: 9.9.9\n")
    cluster.scheduler()
    cluster.worker("odd", other)
    with DaskEngine(cluster.address, patience=60) as engine:
        with pytest.raises(RunError, match=r"no worker is left .*tcp://.* is refused: version of captum is 9\.9\.9 there"):
            run(spec(cluster), cluster.path / "run", batch_size=1, engine=engine, device="cpu")
        cluster.worker("good")
        cluster.worker("odd again", other)
        engine._client.wait_for_workers(2, timeout=60)
        summary = run(spec(cluster), cluster.path / "run", batch_size=1, engine=engine, device="cpu")
    assert any("is refused: version of captum is 9.9.9 there" in problem for problem in summary.problems)
    check_same_rows(cluster, cluster.path / "run")


def test_processes_that_do_not_start_are_an_error_of_ours(monkeypatch):
    def refuses(**_: object) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", refuses)
    with pytest.raises(RunError, match=r"2 processes of dask could not be started \(Nanny failed.*ulimit -n"):
        DaskEngine(workers=2)


def test_no_scheduler_is_said_with_the_command_that_starts_one():
    with pytest.raises(RunError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers.*dask scheduler"):
        DaskEngine("tcp://127.0.0.1:9", patience=1)


@pytest.mark.timeout(180)
def test_a_changed_recording_of_a_worker_is_found_and_no_worker_at_all_is_said(cluster):
    cluster.scheduler()
    cluster.worker("one")
    with DaskEngine(cluster.address, patience=8) as engine:
        engine._client.wait_for_workers(1, timeout=60)

        def change(progress):
            if progress.phase == "cells" and not progress.done:  # verified here; a worker must not trust that
                recording = next((cluster.path / "toy" / "eval").glob("c-1_comb.*"))
                recording.write_bytes(recording.read_bytes()[:-1] + b"x")

        with pytest.raises(RunError, match=r"is refused: .*c-1_comb.*sha256"):
            run(spec(cluster), cluster.path / "run", batch_size=1, engine=engine, device="cpu", report=change)
        toybench.write_corpus(cluster.path / "toy")
        cluster.kill("one")

    with pytest.raises(RunError, match="the scheduler has no workers after 3 s"):
        DaskEngine(cluster.address, patience=3)


@pytest.mark.timeout(180)
def test_the_last_worker_s_death_is_said(cluster):
    cluster.scheduler()
    cluster.worker("one")

    def kill(progress):
        if progress.phase == "cells" and progress.done and cluster.processes.get("one"):
            cluster.kill("one")

    with DaskEngine(cluster.address, patience=60) as engine:
        engine.patience = 6
        with pytest.raises(RunError, match="no worker has been there for 6 s; finished rows are kept"):
            run(spec(cluster), cluster.path / "run", batch_size=1, engine=engine, device="cpu", report=kill)
    assert len(rows_of(cluster.path / "run")) >= 2


@pytest.mark.timeout(180)
def test_a_scheduler_that_does_not_come_back_is_said(cluster):
    cluster.scheduler()
    cluster.worker("one")

    def kill(progress):
        if progress.phase == "cells" and progress.done and cluster.processes:
            cluster.kill("scheduler", "one")

    with DaskEngine(cluster.address, patience=15) as engine:
        engine.patience = 2
        with pytest.raises(RunError, match=r"no Dask scheduler answers.*finished rows are kept, the same command continues"):
            run(spec(cluster), cluster.path / "run", batch_size=1, engine=engine, device="cpu", report=kill)
    assert len(rows_of(cluster.path / "run")) >= 2
