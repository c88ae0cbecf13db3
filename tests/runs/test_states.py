"""The state of a training as it is read: what later commands calculate with is what it should be."""

import pytest
import torch

from isingflow.errors import CheckpointError, InvalidInput
from isingflow.runs.entries import checked_state
from isingflow.runs.loading import check_moments

STATE = {"iteration": 3, "seconds": 1.0, "steps": 6, "finished": True}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kept": {"iteration": [2], "score": 1.0}},
        {"kept": {"iteration": -1, "score": 1.0}},
        {"kept": {"iteration": 2, "score": "low"}},
        {"kept": {"iteration": 2}},
        {"kept": 2},
        {"resting": "yes"},
    ],
)
def test_kept_weights_have_an_iteration_and_a_score(wrong):
    assert checked_state(STATE | {"kept": {"iteration": 2, "score": 1.0}, "resting": True})["kept"]["iteration"] == 2
    with pytest.raises(InvalidInput):
        checked_state(STATE | wrong)


@pytest.mark.parametrize(("key", "value"), [("step", 0.0), ("exp_avg_sq", -1.0), ("exp_avg", torch.inf)])
def test_moments_that_adam_cannot_have_had_are_refused(key, value):
    parameter = torch.zeros(2)
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    check_moments("weight", moments, parameter)
    with pytest.raises(CheckpointError, match="state of weight is not one"):
        check_moments("weight", moments | {key: torch.full_like(moments[key], value)}, parameter)
