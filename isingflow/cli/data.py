"""What is asked of a run on data: the configuration of a new one, and whether it is what an old one has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isingflow.errors import InvalidInput, RunFolderError
from isingflow.runtime.differences import in_a_line

if TYPE_CHECKING:
    from isingflow.datasets import Dataset
    from isingflow.runs.config import DensityConfig
    from isingflow.runs.folder import RunFolder

DEFAULT_FLOW = "monge-ampere"


@dataclass(frozen=True)
class Asked:
    """The data and the options of a training, as they were given.

    Attributes:
        name, path: of the data.
        root: folder of data files.
        options: `preset`, `flow`, `start`, `seed`, `steps`, None where they were not given; and `settings`.
    """

    name: str | None
    path: str | None
    root: Path | None
    options: dict[str, Any]

    def data_set(self) -> Dataset:
        """The data, loaded."""
        from isingflow import datasets

        if self.name is None:
            raise InvalidInput(f"which data? give one of {', '.join(datasets.NAMES)}")
        return datasets.load(self.name, path=self.path, root=self.root, seed=self.options["seed"] or 0)

    def config(self, data: Dataset, flow: str | None) -> DensityConfig:
        """The configuration of a new run with a kind of flow."""
        from isingflow.architectures.start import check_start
        from isingflow.runs.config import DensityConfig
        from isingflow.runs.overrides import overridden

        options = self.options
        if options["steps"] is not None and "training.iterations" in options["settings"]:
            raise InvalidInput("training.iterations is given twice: by --set and by --steps")
        config = DensityConfig.from_preset(
            options["preset"] or "quick",
            data,
            path=self._absolute_path(),
            start=options["start"],
            flow=flow or DEFAULT_FLOW,
            seed=options["seed"] or 0,
            iterations=options["steps"],
        )
        check_start(data, config.start)
        return overridden(config, options["settings"])

    def check_unchanged(self, run: RunFolder[DensityConfig], flow: str | None) -> None:
        """What is given to --resume must be the run's own.

        Args:
            run: to be resumed.
            flow: kind of flow that is asked for; None for any.
        """
        from msgspec.structs import replace

        from isingflow import datasets
        from isingflow.runs.overrides import overridden

        config, options = run.config, self.options
        given = {
            "data": None if self.name is None else datasets.canonical(self.name),
            "path": self._absolute_path(),
            "preset": options["preset"],
            "seed": options["seed"],
            "flow": flow,
            "start": options["start"],
            "steps": options["steps"],
        }
        own = {
            "data": config.data,
            "path": config.path,
            "preset": config.preset,
            "seed": config.seed,
            "flow": config.flow.kind,
            "start": config.start,
            "steps": config.training.iterations,
        }
        given = {key: value for key, value in given.items() if value is not None}
        changed = [f"{key}: {value} here, {own[key]} there" for key, value in given.items() if value != own[key]]
        changed += replace(overridden(config, options["settings"]), settings=config.settings).differences(config)
        if changed:
            raise RunFolderError(f"--resume: not the run in {run.path}: {in_a_line(changed)}")

    def _absolute_path(self) -> str | None:
        """Where a table is, from any working directory; the name of a known one stays as it is."""
        from isingflow.datasets import tabular

        path = self.path
        return path if path is None or path in tabular.KNOWN else str(Path(path).resolve())
