"""Grey films of balls that bounce in a box without friction. Two frames are needed to predict the next."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

_STEPS = 8  # time steps between two frames
_TRIES = 1000  # attempts to find places without contact between balls


class Films(NamedTuple):
    """`count` films. Lengths are in pixels and times in frames."""

    frames: Float[Tensor, "count time size size"]  # 0 to 1, rows first
    positions: Float[Tensor, "count time balls 2"]  # x, y of the centres
    velocities: Float[Tensor, "count time balls 2"]


def bounce(
    count: int,
    time: int,
    generator: Generator,
    *,
    balls: int = 1,
    size: int = 10,
    radius: float = 1.2,
    speed: float = 0.8,
) -> Films:
    """Balls of equal size and mass, initially at `speed` pixels per frame, from random places.

    After the films of Sutskever, Hinton and Taylor (2008). Collisions with walls and each other are elastic.
    A pixel is 1 inside a ball, 0 outside, and in between along the edge. Raises ValueError if the balls do
    not fit into the box, or could pass through each other in one step.
    """
    if speed > _STEPS * radius / 2:
        raise ValueError(
            f"speed={speed}: must be at most {_STEPS * radius / 2}, otherwise balls jump over each other"
        )
    here = _places(count, balls, size, radius, generator)
    angle = 2 * torch.pi * torch.rand(count, balls, generator=generator)
    velocity = speed * torch.stack((angle.cos(), angle.sin()), -1)
    positions, velocities = [here], [velocity]
    for _ in range(time - 1):
        for _ in range(_STEPS):
            here = here + velocity / _STEPS
            here, velocity = _off_walls(here, velocity, radius, size - radius)
            velocity = _off_each_other(here, velocity, radius)
        positions.append(here)
        velocities.append(velocity)
    path = torch.stack(positions, 1)
    return Films(_drawn(path, size, radius), path, torch.stack(velocities, 1))


def _places(
    count: int, balls: int, size: int, radius: float, generator: Generator
) -> Float[Tensor, "count balls 2"]:
    """Centres inside the box, without contact between balls."""
    if size <= 2 * radius:
        raise ValueError(f"a ball of radius {radius} does not fit into a box of {size}")
    here = torch.zeros(count, balls, 2)
    bad = torch.ones(count, dtype=torch.bool)
    for _ in range(_TRIES):
        here[bad] = radius + (size - 2 * radius) * torch.rand(int(bad.sum()), balls, 2, generator=generator)
        apart = torch.cdist(here, here) + 2 * size * torch.eye(balls)
        bad = (apart <= 2 * radius).flatten(1).any(1)
        if not bad.any():
            return here
    raise ValueError(f"{balls} balls of radius {radius} hardly fit into a box of {size}")


def _off_walls(here: Tensor, velocity: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Reflect positions beyond a wall."""
    beyond, short = here > high, here < low
    here = torch.where(beyond, 2 * high - here, torch.where(short, 2 * low - here, here))
    velocity = torch.where(beyond, -velocity.abs(), torch.where(short, velocity.abs(), velocity))
    return here, velocity


def _off_each_other(here: Tensor, velocity: Tensor, radius: float) -> Tensor:
    """Balls in contact that approach exchange their velocity components along the line between them."""
    balls = here.shape[1]
    for i in range(balls):
        for j in range(i):
            line = here[:, i] - here[:, j]
            normal = line / line.norm(dim=1, keepdim=True).clamp(min=1e-6)
            closing = ((velocity[:, i] - velocity[:, j]) * normal).sum(1, keepdim=True)
            meet = (line.norm(dim=1, keepdim=True) < 2 * radius) & (closing < 0)
            change = torch.where(meet, closing * normal, 0)
            velocity = velocity.clone()
            velocity[:, i] -= change
            velocity[:, j] += change
    return velocity


def _drawn(path: Float[Tensor, "count time balls 2"], size: int, radius: float) -> Tensor:
    middles = torch.arange(size) + 0.5
    dx, dy = middles - path[..., :1], middles - path[..., 1:]
    distance = (dx[..., None, :] ** 2 + dy[..., :, None] ** 2).sqrt()
    return (radius - distance + 0.5).clamp(0, 1).amax(2)
