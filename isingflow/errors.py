"""Every error that isingflow raises on purpose.

All of them derive from `IsingflowError`; the command line prints their message on one line and exits with code 2.
Messages say what was wrong and what is accepted, in the user's words. What was handed in and cannot be used is a
`ValueError` too; `TrainingDiverged` and `NotConverged` are found out on the way.
"""

from typing import Any


class IsingflowError(Exception):
    """Base class: a request that cannot be met, with a message meant for the user."""


class InvalidInput(IsingflowError, ValueError):
    """A value outside what is accepted: a size, a temperature, a coupling, an option."""


class WrongType(InvalidInput, TypeError):
    """A value of a type of which none is accepted: a text where a number belongs."""


class InvalidTarget(InvalidInput):
    """A target whose energy is not one: of the wrong shape or type, not finite, not differentiable."""


class InvalidTransform(InvalidInput):
    """A map of a flow that does not give what maps give: images of the same shape, one log-determinant for each."""


class NoExactSolution(IsingflowError, ValueError):
    """No exact method is known (or affordable) for this lattice."""


class SymmetryMismatch(IsingflowError, ValueError):
    """A potential claims a symmetry that its target does not have."""


class DeviceUnavailable(IsingflowError, ValueError):
    """The requested device does not exist on this machine."""


class RunFolderError(IsingflowError, ValueError):
    """A run folder cannot be created, read, written or resumed."""


class CheckpointError(RunFolderError):
    """A checkpoint is missing, truncated, foreign or does not fit the run's configuration."""


class StudyError(IsingflowError, ValueError):
    """The folder of a study cannot be made, read or gone on with."""


class FileError(IsingflowError, ValueError):
    """A file of samples or chains cannot be read or written."""


class DatasetError(IsingflowError, ValueError):
    """A data set is unknown, cannot be found, or its files do not hold what they should."""


class TrainingDiverged(IsingflowError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class NotConverged(IsingflowError):
    """An iterative solution did not reach its tolerance for some samples.

    Attributes:
        residuals: what is left for every sample, shape (n,), a tensor; not finite where the input was not.
    """

    def __init__(self, what: str, residuals: Any, tolerance: float, iterations: int) -> None:
        self.residuals = residuals
        missed = ~(residuals <= tolerance)
        super().__init__(
            f"{what}: {int(missed.sum())} of {residuals.numel()} samples did not converge in {iterations} iterations; "
            f"the worst residual is {float(residuals[missed].max()):.2g}, the tolerance {tolerance:g}"
        )


class ProcessLost(IsingflowError):
    """Another of the processes that train one flow together has ended, failed, or does not answer.

    Attributes:
        told: whether another process that has noticed says so already.
    """

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told
