"""What runs of all kinds have in common: their form on disk, and how two of them differ.

What is written carries the number of its format. Version 0.1 wrote none: its configurations are format 1, and are read
as they are, because only the kind of run was added since.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypedDict

from isingflow.architectures.base import Architecture
from isingflow.errors import InvalidInput
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.checks import shown
from isingflow.runtime.differences import differences
from isingflow.runtime.settings import Settings, read
from isingflow.targets.base import Target

if TYPE_CHECKING:
    from isingflow.datasets import Dataset
    from isingflow.lattice import Lattice


FORMAT = 2
"""Of the configurations that are written; see the module's first lines."""


class Run(Settings, frozen=True, tag_field="kind"):
    """What runs of all kinds have in common: their form as a dictionary, and how two of them differ.

    Attributes:
        kind: of run, as it is written.
        on: what such a run is on, in words.
    """

    kind: ClassVar[str]
    on: ClassVar[str]

    @property
    def coarse(self) -> Self | None:
        """The smaller run with which this one starts, or None."""
        return None

    @property
    def goal(self) -> float | None:
        """The inverse temperature for which evaluations anneal spins, or None."""
        return None

    @property
    def geometry(self) -> Lattice | None:
        """The lattice on which samples of the run live, for figures; None where there is none."""
        return None

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Type and shape of a sample in the run's snapshots."""
        raise NotImplementedError

    def target(self, given: Target | None = None) -> Target:
        """The target of the run, which may be given.

        Raises:
            InvalidInput: the run has none, only the user has it, or another one is given.
        """
        raise InvalidInput(f"a run on {self.on} ({self}) has no target")

    def data_set(self, root: Path | None = None) -> Dataset | None:
        """The data of the run; None where it is on a target.

        Args:
            root: folder of the files of MNIST and of the UCI sets; the variable ISINGFLOW_DATA if not given.

        Raises:
            DatasetError: files that are missing or damaged.
        """
        return None

    def with_flow_of(self, earlier: Run) -> Self:
        """The run with a flow of the make of an earlier one's, as far as the settings of the flow do not say it."""
        return self

    def halved(self) -> Self | None:
        """The same flow, trained alike, on the lattice of half the lengths; None where there is none."""
        return None

    def title(self) -> str:
        """What the run is on, for headings."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form, from which `from_dict` builds an equal configuration."""
        return {"format": FORMAT, **super().to_dict()}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The configuration that `to_dict` described, also one of version 0.1.

        Raises:
            InvalidInput: the data do not describe a run, or were written by a newer version.
        """
        return read(entries_of(data), cls, "a run")

    def differences(self, other: Run) -> list[str]:
        """What differs between two configurations, as "flow.hidden: 32 here, 48 there"."""
        return differences(self.to_dict(), other.to_dict())


PATHS = ("transport_cost", "hjb")
"""Settings of a training that are of flows with paths."""
OF_DATA = ("noise", "patience")
"""Settings of a training that are of data, of which there are only so many."""


def check_training(config: Trainable, *foreign: str) -> None:
    """Refuse settings of a training that would be ignored.

    Args:
        config: of a run.
        foreign: settings that mean nothing to runs of its kind.

    Raises:
        InvalidInput: one of them, or of those that mean nothing to its flow, is not as it is without being set.
    """
    unset = TrainingConfig()
    reasons = dict.fromkeys(foreign, f"a run on {config.on} has no use for it")
    if config.flow.kind == "convex":
        reasons |= dict.fromkeys(PATHS, "a convex flow has no paths")
    for name, reason in reasons.items():
        value, without = getattr(config.training, name), getattr(unset, name)
        if value != without:
            raise InvalidInput(f"training.{name} is {shown(value)}, but {reason}: expected {without}")
    if config.training.carried and config.training.coarse is None:
        raise InvalidInput("training.carried is true, but training.coarse null: expected false, or a smaller lattice")


class BuildOptions(TypedDict):
    """What the functions that build flows are told of a run."""

    seed: int
    jitter: float
    recompute: bool


class Trainable(Protocol):
    """A run as far as flows are built by it."""

    on: ClassVar[str]

    @property
    def seed(self) -> int: ...

    @property
    def flow(self) -> Architecture: ...

    @property
    def training(self) -> TrainingConfig: ...


def options_of(config: Trainable) -> BuildOptions:
    """What the functions that build flows are told of a run."""
    return {"seed": config.seed, "jitter": config.training.jitter, "recompute": config.training.recompute}


def entries_of(data: Any) -> dict[str, Any]:
    """The entries of a run of the present format, from a description in any that is known."""
    if not isinstance(data, Mapping):
        raise InvalidInput("not a run: expected named entries")
    entries = dict(data)
    written = entries.pop("format", 1)
    if type(written) is not int or not 1 <= written <= FORMAT:
        raise InvalidInput(
            f"a run of format {shown(written)}, written by a newer version: this one reads formats up to {FORMAT}; "
            "upgrade isingflow"
        )
    if written == 1:
        return {"kind": "data" if "data" in entries else "magnet"} | entries
    return entries
