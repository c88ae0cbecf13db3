"""A run folder that many processes work on: the first one writes it, and what it holds all hear from that one.

So the folder need be there for the first process only, nothing is written twice, and an error of the disk is one of
all. Of a process that is alone everything here is the `RunFolder` that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor

from isingflow.runs.config import AnyRunConfig
from isingflow.runs.folder import AnyRun, RunFolder
from isingflow.runtime.launched import follows
from isingflow.runtime.processes import company, first

P = ParamSpec("P")
Made = TypeVar("Made", bound=AnyRunConfig)


def create(path: Path | str | None, config: Made, *, begun: bool = True) -> RunFolder[Made]:
    """`RunFolder.create` by the first process; all have the folder's path.

    Example:
        >>> import tempfile
        >>> from isingflow.lattice import square
        >>> from isingflow.runs.config import RunConfig
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = create(Path(folder) / "run", RunConfig.from_preset("quick", square(4), 0.4))
        >>> run.path.name
        'run'
    """

    def made() -> tuple[Path, dict[str, Any]]:
        run = RunFolder.create(path, config, begun=begun)
        return run.path, run.provenance

    where, provenance = first(made)
    return RunFolder(where, config, provenance)


def shared(run: AnyRun) -> AnyRun:
    """The run folder as one of all processes; itself, of one that is alone, or does alone what others wait for."""
    return run if company() is None else SharedRun(run.path, run.config, run.provenance)


def _by_first(method: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
    def shared(self: Any, *args: P.args, **options: P.kwargs) -> None:
        first(lambda: method(self, *args, **options))

    return shared


def _held_by_first(
    method: Callable[Concatenate[Any, P], AbstractContextManager[None]],
) -> Callable[Concatenate[Any, P], AbstractContextManager[None]]:
    @contextmanager
    def held(self: Any, *args: P.args, **options: P.kwargs) -> Iterator[None]:
        with ExitStack() as stack:
            first(lambda: stack.enter_context(method(self, *args, **options)))
            yield

    return held


class SharedRun(RunFolder[AnyRunConfig]):
    """A run folder within the work of many processes, all of which make the same calls; made by `shared`."""

    training = _held_by_first(RunFolder.training)
    results = _held_by_first(RunFolder.results)

    begin = _by_first(RunFolder.begin)
    truncate_metrics = _by_first(RunFolder.truncate_metrics)
    save_checkpoint = _by_first(RunFolder.save_checkpoint)
    save_state = _by_first(RunFolder.save_state)
    save_report = _by_first(RunFolder.save_report)
    discard_unused = _by_first(RunFolder.discard_unused)

    def part(self, name: str, config: AnyRunConfig) -> AnyRun:
        """The run folder of a stage of this run."""
        provenance = first(lambda: RunFolder.part(self, name, config).provenance)
        return SharedRun(self.path / name, config, provenance)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint file, good or not."""
        return first(lambda: RunFolder.has_checkpoint.__get__(self))

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, on the CPU, and state of the checkpoint."""
        return first(lambda: RunFolder.load_checkpoint(self))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to the metrics; nobody waits for it."""
        if not follows():
            RunFolder.append_metrics(self, record)

    def save_snapshot(self, iteration: int, samples: Any) -> None:
        """Keep samples drawn at an iteration; only the first process has some."""
        if not follows():
            RunFolder.save_snapshot(self, iteration, samples)
