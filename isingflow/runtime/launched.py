"""Which of how many processes this is, where torchrun has started several of the same program.

torchrun tells every process by its environment: RANK of WORLD_SIZE on all machines, LOCAL_RANK of LOCAL_WORLD_SIZE on
this one. A program that is started in any other way is alone.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from isingflow.errors import InvalidInput

START = "start all processes by torchrun, which sets it"


class Place(NamedTuple):
    """Of one process among those that were started together.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
        local_rank, local_world: the same among those on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def place() -> Place:
    """Of this process.

    Raises:
        InvalidInput: the environment says that there are several, and not which of them this is.

    Example:
        >>> place()
        Place(rank=0, world=1, local_rank=0, local_world=1)
    """
    world = _number("WORLD_SIZE", 1, least=1)
    if world == 1:
        return Place()
    rank = _number("RANK", None, below=world)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise InvalidInput(f"WORLD_SIZE is {world}, and {missing[0]} is not set: {START}")
    local_world = _number("LOCAL_WORLD_SIZE", world, least=1)
    return Place(rank, world, _number("LOCAL_RANK", rank % local_world, below=local_world), local_world)


def follows() -> bool:
    """Whether this is another process than the first one, which alone writes and prints."""
    try:
        return place().rank > 0
    except InvalidInput:
        return False


def several() -> bool:
    """Whether this is one of several processes."""
    try:
        return place().world > 1
    except InvalidInput:
        return False


def words() -> list[str]:
    """What begins a command as this one was begun: on one machine with as many processes, or without torchrun.

    Example:
        >>> words()
        ['isingflow']
    """
    here = place()
    if here.world == 1 or here.local_world != here.world:
        return ["isingflow"]
    return ["torchrun", "--nproc-per-node", str(here.world), "-m", "isingflow.cli"]


def _number(name: str, default: int | None, *, least: int = 0, below: int | None = None) -> int:
    text = os.environ.get(name, "")
    if not text:
        if default is None:
            raise InvalidInput(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and {name} is not set: {START}")
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < least or (below is not None and int(text) >= below):
        limit = "" if below is None else f", below {below}"
        raise InvalidInput(f"{name} is {text!r} in the environment: expected a number from {least}{limit}")
    return int(text)
