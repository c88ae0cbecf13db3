"""Training: problems, objectives, schedules, the loop, and the one function that a notebook calls."""

from isingflow.training.loop import fit
from isingflow.training.problems import Likelihood, Problem, Variational, problem_of
from isingflow.training.progress import Outcome, Plateau, Progress
from isingflow.training.train import Trained, train

__all__ = [
    "Likelihood",
    "Outcome",
    "Plateau",
    "Problem",
    "Progress",
    "Trained",
    "Variational",
    "fit",
    "problem_of",
    "train",
]
