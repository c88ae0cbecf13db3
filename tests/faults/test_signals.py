"""Signals at any moment: one line, the exit code of the signal, nothing half written, and what is saved goes on."""

import fcntl
import json
import os
import pty
import random
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from isingflow import cli
from isingflow.evaluation import targets
from isingflow.lattice import edwards_anderson, square
from isingflow.runtime import stopping
from isingflow.runtime.stopping import Stopped, StopRequest
from isingflow.sampling.files import Chains

simulation = import_module("isingflow.monte_carlo.simulate")  # the name in the room is the function
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class TestStopRequest:
    @pytest.mark.parametrize("number", SIGNALS)
    def test_a_signal_is_written_down_and_raised_where_work_looks(self, number):
        earlier, request = signal.getsignal(number), StopRequest()
        with request.listening():
            stopping.check()
            assert not request.requested() and not stopping.requested()
            os.kill(os.getpid(), number)
            assert request.signal == number and stopping.requested()
            with pytest.raises(Stopped) as stopped:
                stopping.check()
            assert stopped.value.signal == number
        assert signal.getsignal(number) is earlier and not stopping.requested()
        stopping.check()

    def test_the_first_signal_counts(self):
        with (request := StopRequest()).listening():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)
            assert request.signal == signal.SIGTERM

    def test_one_within_another_hears_the_same(self):
        outer, inner = StopRequest(), StopRequest()
        with outer.listening():
            with inner.listening():
                os.kill(os.getpid(), signal.SIGTERM)
                assert inner.signal == outer.signal == signal.SIGTERM
            with pytest.raises(Stopped):
                stopping.check()

    def test_loops_that_save_what_they_have_are_not_broken_into(self):
        with (request := StopRequest()).listening():
            os.kill(os.getpid(), signal.SIGINT)
            with stopping.deferred():
                stopping.check()
                assert stopping.watched(lambda: 7) == 7
            with pytest.raises(Stopped):
                stopping.check()
        assert request.requested()

    def test_what_is_ignored_stays_ignored(self):
        """As by nohup."""
        earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with (request := StopRequest()).listening():
                os.kill(os.getpid(), signal.SIGHUP)
                assert not request.requested() and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, earlier)

    def test_other_threads_do_not_listen(self):
        seen = []

        def listen():
            with StopRequest().listening():
                seen.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        assert seen == [signal.getsignal(signal.SIGTERM)]

    def test_compiled_work_is_left_behind(self):
        """It cannot look itself: another thread waits for it."""
        hold = threading.Event()
        with StopRequest().listening():
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
            with pytest.raises(Stopped):
                stopping.watched(hold.wait, 60)
        hold.set()

    def test_watched_work_gives_its_result_or_its_error(self):
        for request in (StopRequest(), None):
            with request.listening() if request else stopping.deferred():
                assert stopping.watched(divmod, 7, 2) == (3, 1)
                with pytest.raises(ZeroDivisionError):
                    stopping.watched(divmod, 7, 0)
                with pytest.raises(TimeoutError):
                    stopping.watched(lambda: (_ for _ in ()).throw(TimeoutError).__next__())


@pytest.mark.parametrize("sampler", simulation.SAMPLERS)
def test_sweeps_in_portions_are_the_same_sweeps(sampler, monkeypatch):
    """Between two samples a stop is looked for; the chains do not notice."""
    lattice = edwards_anderson(4, seed=1) if sampler == "tempering" else square(4)
    options = dict(samples=3, chains=2, every=7, thermalise=5, sampler=sampler, seed=4)
    whole = simulation.simulate(lattice, 0.4, **options)
    monkeypatch.setattr(simulation, "_BLOCK_UPDATES", 2 * 16 * 3)
    parts = simulation.simulate(lattice, 0.4, **options)
    assert (whole.spins == parts.spins).all() and (whole.energy == parts.energy).all()


def command(run, words):
    return [sys.executable, "-m", "isingflow.cli", *(word.format(run=run) for word in words)]


ENDLESS = str(10**6)
LONG = {
    "train": ["train", "--size", "4", "--device", "cpu", "--steps", ENDLESS, "--output", "out"],
    "train both": [
        "train",
        "--size",
        "4",
        "--bounds",
        "both",
        "--device",
        "cpu",
        "--steps",
        ENDLESS,
        "--output",
        "out",
    ],
    "density": ["density", "moons", "--device", "cpu", "--steps", ENDLESS, "--output", "out"],
    "evaluate": ["evaluate", "{run}", "--samples", ENDLESS],
    "plot": ["plot", "{run}", "--samples", ENDLESS],
    "sample": ["sample", "{run}", "--samples", ENDLESS, "--output", "out.npz"],
    "latent": ["hmc", "{run}", "--space", "latent", "--chains", "4", "--samples", ENDLESS, "--output", "out.npz"],
    "physical": ["hmc", "{run}", "--space", "physical", "--chains", "4", "--samples", ENDLESS, "--output", "out.npz"],
    "gibbs": ["hmc", "{run}", "--sampler", "gibbs", "--chains", "4", "--samples", ENDLESS, "--output", "out.npz"],
    "monte-carlo": ["monte-carlo", "--size", "16", "--samples", "10000000", "--output", "out.npz"],
    "range": [
        *("monte-carlo", "--size", "16", "--beta", "0.2:0.6:9", "--samples", "80000", "--every", "1000"),
        *("--output", "out.csv"),
    ],
    "few samples": ["monte-carlo", "--size", "16", "--samples", "8", "--every", "1000000000", "--output", "out.npz"],
    "exact": ["exact", "--lattice", "edwards-anderson", "--size", "140", "--beta", "0.3"],
}
"""Commands that would run for very long. The exact answer is found in one compiled call, of a minute at least."""
TRAININGS = ("train", "train both", "density")
CHAINS = ("latent", "physical", "gibbs")


def begin(words, folder):
    """Start a command; it has begun when it listens to signals."""

    def from_a_shell():
        for number in SIGNALS:  # pytest may have been started by nohup, or in the background
            signal.signal(number, signal.SIG_DFL)

    environment = {**os.environ, "COLUMNS": "200"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=folder, env=environment, preexec_fn=from_a_shell, **pipes)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not listens(process.pid):
        time.sleep(0.005)
    return process


def listens(pid):
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(lines["SigCgt"], 16) >> (signal.SIGHUP - 1) & 1)


def stop(process, number):
    process.send_signal(number)
    try:
        return process.communicate(timeout=120)
    finally:
        process.kill()


def check_stopped(name, process, number, stdout, stderr, folder):
    """As it must be, whenever the signal came."""
    assert process.returncode == 128 + number, (process.returncode, stderr)
    assert "Traceback" not in stderr
    assert stdout == "" or (name == "evaluate" and "fewer samples than asked for" in stdout)
    *notes, last = stderr.splitlines()
    assert last.startswith("isingflow: ") and not any(note.startswith("isingflow: error") for note in notes), stderr
    left = sorted(path.name for path in folder.iterdir())
    if name in TRAININGS:
        assert left in ([], ["out"]), left
        hidden = [path for path in folder.rglob("*") if path.name.startswith(".") and path.suffix == ".tmp"]
        assert not hidden
        assert left == [] or "to continue: isingflow " in last, stderr
    elif name in CHAINS:
        assert left in ([], ["out.npz"]), left
        if left:
            assert "saved; to continue: isingflow hmc " in last
            assert Chains.read(folder / "out.npz").samples < int(ENDLESS)
    else:
        assert left == [] and last.removeprefix("isingflow: ") in ("interrupted", "terminated", "hung up"), stderr


def campaign(count, seed):
    """Commands, signals and seconds after the command has begun to listen."""
    draw = random.Random(seed)
    names = [name for name in LONG if name != "exact"]
    return [(names[i % len(names)], SIGNALS[i % 3], round(draw.uniform(0, 3), 2)) for i in range(count)]


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc what a process listens to")


@pytest.fixture(scope="module")
def trained(training, tmp_path_factory):
    """The trained run, copied: what is stopped here may leave figures in it."""
    return Path(shutil.copytree(training[0], tmp_path_factory.mktemp("trained") / "run"))


def run_one(name, number, delay, trained, folder):
    process = begin(command(trained, LONG[name]), folder)
    time.sleep(delay)
    check_stopped(name, process, number, *stop(process, number), folder)


@needs_proc
@pytest.mark.parametrize(
    ("name", "number", "delay"),
    [case if i < 3 else pytest.param(*case, marks=pytest.mark.slow) for i, case in enumerate(campaign(6, seed=3))],
)
def test_signals_at_random_moments(name, number, delay, trained, tmp_path):
    run_one(name, number, delay, trained, tmp_path)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("name", "number", "delay"), campaign(44, seed=11))
def test_signals_at_many_random_moments(name, number, delay, trained, tmp_path):
    run_one(name, number, 3 * delay, trained, tmp_path)


@needs_proc
def test_a_compiled_answer_is_not_waited_for(tmp_path):
    process = begin(command(None, LONG["exact"]), tmp_path)
    time.sleep(2)
    assert process.poll() is None
    check_stopped("exact", process, signal.SIGINT, *stop(process, signal.SIGINT), tmp_path)


@needs_proc
def test_two_at_once_are_one_request_and_a_later_one_ends_it_at_once(tmp_path):
    """`timeout` sends SIGTERM twice. Whoever asks again after a second does not want to wait."""
    code = (
        "import signal, sys, time\nimport click\nfrom isingflow.cli.output import Commands\n"
        "from isingflow.runtime import stopping\n"
        "@click.group(cls=Commands)\ndef main(): pass\n"
        "@main.command()\ndef saves():\n"
        "    while not stopping.requested(): time.sleep(0.01)\n"
        "    time.sleep(float(SECONDS)); print('saved', flush=True); stopping.check()\n"
        "sys.argv = ['isingflow', 'saves']\nmain()"
    )
    process = begin([sys.executable, "-c", code.replace("SECONDS", "0.5")], tmp_path)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = stop(process, signal.SIGTERM)
    assert (process.returncode, stdout, stderr) == (143, "saved\n", "isingflow: terminated\n")
    process = begin([sys.executable, "-c", code.replace("SECONDS", "100")], tmp_path)
    process.send_signal(signal.SIGTERM)
    time.sleep(stopping.SAME + 0.1)
    stdout, stderr = stop(process, signal.SIGINT)
    assert (process.returncode, stdout, stderr) == (130, "", "")


@needs_proc
@pytest.mark.parametrize("name", ["latent", pytest.param("sample", marks=pytest.mark.slow)])
def test_a_terminal_that_is_closed(name, trained, tmp_path):
    """SIGHUP, and nobody left to print to: neither bar nor last words may cost what is to be saved."""
    here, there = pty.openpty()

    def of_the_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    words, environment = command(trained, LONG[name]), {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    standard = {"stdin": there, "stdout": there, "stderr": there}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, preexec_fn=of_the_terminal, **standard)
    os.close(there)
    seen, deadline = b"", time.monotonic() + 60
    while b"/1000" not in seen and time.monotonic() < deadline:
        if select.select([here], [], [], 1)[0]:
            seen += os.read(here, 4096)
    os.close(here)
    try:
        assert process.wait(timeout=120) == 128 + signal.SIGHUP, seen
    finally:
        process.kill()
    left = [path.name for path in tmp_path.iterdir()]
    assert left == (["out.npz"] if name == "latent" else [])
    if left:
        assert Chains.read(tmp_path / "out.npz").steps > 0


def test_evaluations_and_figures_of_a_training_say_how_to_go_on(trained, tmp_path, monkeypatch):
    """The flow is saved by then."""
    from isingflow.plots import style

    monkeypatch.chdir(tmp_path)
    for module, name in ((simulation, "portions"), (style, "running_mean")):
        found = getattr(module, name)

        def told(*given, found=found):
            os.kill(os.getpid(), signal.SIGHUP)
            return found(*given)

        output = f"{name} of mine"
        words = ["train", "--size", "4", "--steps", "3", "--device", "cpu", "--output", output]
        with monkeypatch.context() as patch:
            patch.setattr(module, name, told)
            if module is style:
                patch.setattr("isingflow.plots.training.running_mean", told)
            result = CliRunner().invoke(cli.main, words)
        assert result.exit_code == 129, result.output
        last = result.stderr.splitlines()[-1]
        assert last.startswith("isingflow: interrupted and saved; to continue: isingflow train --resume --output '")


@pytest.mark.parametrize("anneal", [(), ("--anneal", "2", "--paths", "64")])
def test_an_evaluation_that_is_stopped_says_what_it_has_and_leaves_the_earlier_report(
    anneal, trained, tmp_path, monkeypatch
):
    """Asked during the Monte Carlo of the target, it has the samples of the flow; in their first block, that block."""
    report = (trained / "report.json").read_bytes()
    portions, pushed = simulation.portions, targets.pushed
    asking = lambda found: lambda *given: os.kill(os.getpid(), signal.SIGTERM) or found(*given)  # noqa: E731
    for module, name, count in ((simulation, "portions", 600), (targets, "pushed", targets.BATCH)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, asking(portions if module is simulation else pushed))
            words = ["evaluate", str(trained), "--samples", "600", *anneal, "--json"]
            result = CliRunner().invoke(cli.main, words)
        assert (result.exit_code, result.stderr) == (143, "isingflow: terminated\n"), result.output
        found = json.loads(result.stdout)
        assert (found["samples"], found["shortened"], found["lower_bound"]) == (count, True, None)
        assert "annealed" not in found and any("a stop" in warning for warning in found["warnings"])
        with monkeypatch.context() as patch:
            patch.setattr(module, name, asking(portions if module is simulation else pushed))
            assert "no samples of the target were taken" in CliRunner().invoke(cli.main, words[:-1]).stdout
        assert found["gap_nats"]["value"] > -4 * found["gap_nats"]["stderr"]
    assert (trained / "report.json").read_bytes() == report and json.loads(report)
