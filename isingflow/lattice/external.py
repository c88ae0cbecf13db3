"""External magnetic fields: H on every site, in units of J, as lattices keep it.

None stands for no field, a float for one that is the same on all sites, a read-only array of the lattice's shape for
one that varies. Equal fields are kept in the same form, however they were given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isingflow.lattice.checks import STRONGEST, frozen
from isingflow.runtime.checks import array, as_numpy, number

External = float | np.ndarray | None


def check(value: Any, shape: tuple[int, ...]) -> External:
    """A field as it is kept.

    Raises:
        InvalidInput: not finite, larger than 1e70 in size, or of another shape; WrongType: no real numbers.

    Example:
        >>> check(np.full((2, 2), 0.5), (2, 2)), check([0, 0], (2,))
        (0.5, None)
    """
    if value is None:
        return None
    entries = as_numpy(value)
    if entries is None or entries.ndim == 0:
        return number("field", value, least=-STRONGEST, most=STRONGEST) or None
    entries = array("field", value, shape, most=STRONGEST)
    first = float(entries.flat[0])
    return (first or None) if np.all(entries == first) else frozen(entries)


def by_site(field: External, shape: tuple[int, ...]) -> np.ndarray:
    """H on every site, float64, zeros where there is no field."""
    return np.broadcast_to(np.asarray(0.0 if field is None else field), shape)


def total(field: External, sites: int) -> float:
    """Sum of |H| over the sites."""
    with np.errstate(over="ignore"):
        return float(np.abs(field).sum()) if isinstance(field, np.ndarray) else sites * abs(field or 0.0)


def words(field: External) -> str:
    """What the field adds to the description of a lattice.

    Example:
        >>> words(0.05), words(np.array([0.1, -0.1])), words(None)
        (', field 0.05', ', field varies', '')
    """
    return "" if field is None else ", field varies" if isinstance(field, np.ndarray) else f", field {field:g}"


def entry(field: External) -> dict[str, Any]:
    """What the field adds to the dictionary of a lattice."""
    return {} if field is None else {"field": np.asarray(field).tolist()}


def kept_by(permutation: np.ndarray, field: External) -> bool:
    """Whether the field is the same after relabelling the sites."""
    return not isinstance(field, np.ndarray) or np.array_equal(field.ravel()[permutation], field.ravel())
