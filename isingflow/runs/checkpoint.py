"""A checkpoint as one file: tensors and, in its metadata, the training's state, the run's configuration and a digest.

The digest is of all that the file holds: names, types, shapes and bytes of the tensors, and the texts. So a flipped
bit or a changed type is noticed, and so is a `config.json` that was edited since. Files of version 0.1 hold a state
alone, and are taken as they are. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from isingflow.errors import CheckpointError, InvalidInput
from isingflow.runs.config import AnyRunConfig, config_from_dict
from isingflow.runs.entries import checked_state
from isingflow.runtime.differences import differences, in_a_line
from isingflow.runtime.files import check_regular, reason
from isingflow.runtime.numbers import finite_or_none, parse

STATE, CONFIGURATION, DIGEST = "state", "configuration", "digest"
FREE = {"preset", "path", "evaluation_samples", "recompute"}
"""Entries of a configuration that what is learnt does not depend on: names, places, and what comes after training."""


class Checkpoint(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: by name, on the CPU.
        state: of the training.
        configuration: of the run when it was written; None in files of version 0.1.
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    configuration: dict[str, Any] | None


def pack(tensors: Mapping[str, Tensor], state: Mapping[str, Any], configuration: Mapping[str, Any]) -> bytes:
    """The content of a file.

    Args:
        tensors: by name, of any dtype, shape and device.
        state, configuration: as JSON holds them; numbers that are not finite become null.

    Example:
        >>> len(pack({"weight": torch.zeros(3)}, {"iteration": 1}, {"beta": 0.4})) % 8
        4
    """
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    texts = {
        STATE: json.dumps(finite_or_none(state), allow_nan=False),
        CONFIGURATION: json.dumps(configuration, allow_nan=False),
    }
    return safetensors.torch.save(copies, texts | {DIGEST: _digest(copies, texts)})


def read(path: Path) -> Checkpoint:
    """What a file holds; its length, header and digest are checked before anything is made of it.

    Raises:
        CheckpointError: it is missing, damaged or changed, or no checkpoint.
    """
    if path.exists():
        check_regular(path, CheckpointError)
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        header = parse(content[8 : 8 + int.from_bytes(content[:8], "little")])
        texts = header["__metadata__"]
        known = texts.keys() != {STATE}
        if known and texts.pop(DIGEST, None) != _digest(tensors, texts):
            raise ValueError("it is not what was written: damaged or changed since")
        state = checked_state(parse(texts[STATE]))
        return Checkpoint(tensors, state, parse(texts[CONFIGURATION]) if known else None)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except KeyError:
        problem = "it holds no training state"
    except Exception as error:  # a hostile file may raise anything here; none of it may reach the user as a traceback
        problem = reason(error)
    raise CheckpointError(f"{path} is not a usable checkpoint ({problem})")


def check_configuration(found: Checkpoint, config: AnyRunConfig, run: Path) -> None:
    """Refuse a checkpoint that was learnt with another configuration than that of its run now.

    Raises:
        CheckpointError: it was; the message says what differs.
    """
    if found.configuration is None:
        return
    try:
        learnt = config_from_dict(found.configuration)
    except InvalidInput as error:
        raise CheckpointError(f"{run}: the configuration in the checkpoint cannot be read: {error}") from None
    changed = changes(config.to_dict(), learnt.to_dict())
    if changed:
        raise CheckpointError(
            f"{run}: the checkpoint does not fit the run's configuration, which was changed since: {in_a_line(changed)}"
        )


def changes(here: Any, there: Any) -> list[str]:
    """What differs between two configurations, of what the learnt state depends on.

    Example:
        >>> changes({"beta": 0.4, "preset": "quick"}, {"beta": 0.5, "preset": "mine"})
        ['beta: 0.4 here, 0.5 there']
    """
    return differences(_determining(here), _determining(there))


def _determining(entries: Any) -> Any:
    if not isinstance(entries, dict):
        return entries
    return {name: _determining(entry) for name, entry in entries.items() if name not in FREE}


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    checksum = hashlib.sha256()
    for name in sorted(texts):
        checksum.update(f"{name}: {texts[name]}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        checksum.update(f"{name}: {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        checksum.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()
