"""What callers hand in is converted or refused, in one line that names it."""

import numpy as np
import pytest
import torch

from isingflow.errors import InvalidInput, WrongType
from isingflow.runtime import checks

NOT_A_NUMBER = ("x", None, [], [1.0], True, 1j, np.array([1.0]), object(), {}, np.bool_(True), torch.ones(2), "1")
NOT_FINITE = (float("nan"), float("inf"), -float("inf"), np.float32("nan"), 10**400, torch.tensor(float("nan")))


@pytest.mark.parametrize("value", [1, 1.0, np.int8(1), np.float32(1), np.array(1.0), torch.tensor(1)], ids=repr)
def test_numbers_of_any_library_are_numbers(value: object) -> None:
    assert checks.number("x", value) == 1.0
    assert type(checks.number("x", value)) is float


@pytest.mark.parametrize("value", NOT_A_NUMBER, ids=lambda value: type(value).__name__)
def test_what_is_no_number(value: object) -> None:
    for check in (checks.number, checks.count):
        with pytest.raises(WrongType, match=r"^beta is .*, expected") as error:
            check("beta", value)
        assert "\n" not in str(error.value)
        assert isinstance(error.value, ValueError)
        assert isinstance(error.value, TypeError)


@pytest.mark.parametrize("value", NOT_FINITE, ids=lambda v: str(v)[:12])
def test_what_is_not_finite(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"expected a finite number") as error:
        checks.number("beta", value)
    assert len(str(error.value)) < 150


def test_limits() -> None:
    assert checks.number("x", 2, least=2) == 2
    for limits in ({"above": 2}, {"below": 2}, {"least": 3}, {"most": 1}):
        with pytest.raises(InvalidInput):
            checks.number("x", 2, **limits)
    with pytest.raises(InvalidInput, match="x is 3, expected a finite number >= 0 and < 1"):
        checks.number("x", 3, least=0, below=1)
    assert checks.count("n", 7, least=7, most=7) == 7
    for value in (0, -1, 10**16, 8):
        with pytest.raises(InvalidInput):
            checks.count("n", value, most=7)
    for value in (1.0, np.float64(3)):
        with pytest.raises(WrongType):
            checks.count("n", value)


def test_choices_flags_and_instances() -> None:
    assert checks.choice("way", "up", ("up", "down")) == "up"
    for value in ("left", "", "UP"):
        with pytest.raises(InvalidInput, match="expected up or down"):
            checks.choice("way", value, ("up", "down"))
    for value in (None, 1, ["up"]):
        with pytest.raises(WrongType):
            checks.choice("way", value, ("up", "down"))
    assert checks.flag("x", np.bool_(False)) is False
    for value in (0, "yes", None):
        with pytest.raises(WrongType, match="True or False"):
            checks.flag("x", value)
    with pytest.raises(WrongType, match="expected a number of apples"):
        checks.instance("x", "3", int, "a number of apples")


def test_arrays() -> None:
    for value in (
        [1, 2],
        (1.0, 2),
        np.array([1, 2], np.int8),
        torch.ones(2, requires_grad=True),
        torch.ones(2).bfloat16(),
    ):
        converted = checks.array("x", value, (2,))
        assert converted.dtype == np.float64
    assert checks.array("x", [[1.0, 2.0]], (None, 2), integers=True).dtype == np.int64
    assert checks.array("x", [], (None,), empty=True).shape == (0,)
    for value in (["a"], [[1], [1, 2]], [1j], [True], object(), None, {}, torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(WrongType, match="expected an array of real numbers"):
            checks.array("x", value)
    for value, words in (
        ([[1.0]], "shape"),
        ([], "without entries"),
        ([np.nan], "NaN"),
        ([np.inf], "infinite"),
    ):
        with pytest.raises(InvalidInput, match=words):
            checks.array("x", value, (None,))
    with pytest.raises(InvalidInput, match="expected integers"):
        checks.array("x", [0.5], integers=True)
    assert np.isnan(checks.array("x", [np.nan], finite=False)).all()


def test_whatever_is_shown_fits_on_a_line() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in (Hostile(), "x\n" * 1000, list(range(1000)), np.ones((3, 4)), torch.ones(1)):
        assert "\n" not in checks.shown(value)
        assert len(checks.shown(value)) < 100
