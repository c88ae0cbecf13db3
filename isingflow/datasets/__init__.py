"""Data sets that flows are trained on: MNIST, CIFAR-10, toy densities and tables of numbers."""

from __future__ import annotations

from pathlib import Path
from types import NoneType

from isingflow.datasets import cifar, mnist, tabular, toy
from isingflow.datasets.base import Dataset, Split
from isingflow.errors import DatasetError
from isingflow.runtime import checks

__all__ = ["NAMES", "Dataset", "Split", "canonical", "load"]

NAMES = ("mnist", "cifar10", *toy.TOYS, "tabular")
"""The data sets that `load` knows."""


def canonical(name: str) -> str:
    """The name in `NAMES` of what other codes call otherwise; any other name as it is.

    Example:
        >>> canonical("8gaussians"), canonical("moons")
        ('eight-gaussians', 'moons')
    """
    return toy.ALIASES.get(name, name)


def load(name: str, *, path: str | Path | None = None, root: str | Path | None = None, seed: int = 0) -> Dataset:
    """A data set by name.

    Args:
        name: one of `NAMES`, or what other codes call it, such as "8gaussians", "2spirals" and "swissroll".
        path: for "tabular" only: a file (.npy, .npz, HDF5, or text as .csv), a set bundled with scikit-learn (digits,
            breast-cancer, wine, diabetes, iris), or one of the UCI sets (power, gas, hepmass, miniboone, bsds300),
            whose files are below `root`.
        root: folder of the files of MNIST, of CIFAR-10 and of the UCI sets; the environment variable ISINGFLOW_DATA if
            not given.
        seed: of the split into train, validation and test rows.

    Raises:
        DatasetError: unknown name, or files that are missing, damaged or not what they should be.
        InvalidInput: a seed below 0; WrongType: what is given is of another type.

    Example:
        >>> load("checkerboard").dimension
        2
    """
    checks.instance("name", name, str, f"one of {', '.join(NAMES)}")
    checks.instance("path", path, (str, Path, NoneType), "a file or the name of a table")
    checks.instance("root", root, (str, Path, NoneType), "a folder")
    seed, name = checks.count("seed", seed, least=0), canonical(name)
    if name == "tabular":
        if path is None:
            raise DatasetError(f"tabular: expected a file, or one of {', '.join(tabular.KNOWN)}")
        return tabular.load(path, root=root, seed=seed)
    if path is not None:
        raise DatasetError(f"{name}: takes no file; only tabular does")
    if name == "mnist":
        return mnist.load(root, seed)
    if name == "cifar10":
        return cifar.load(root, seed)
    if name in toy.TOYS:
        return toy.load(name, seed)
    raise DatasetError(f"unknown data set {checks.shown(name)}: expected one of {', '.join(NAMES)}")
