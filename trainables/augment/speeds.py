"""How long clips are at other speeds (torch-free)."""

from __future__ import annotations

STEPS = 200  # speeds are whole half percents: other ratios would need resampling filters of hundreds of megabytes


def rate_of(speed: float) -> int:
    """A change of speed in steps."""
    return round(speed * STEPS)


def samples_at(samples: int, change: int) -> int:
    """Samples of a clip played faster (slower, if negative) by so many steps."""
    return -(-samples * STEPS // (STEPS + change))


def sped_up(samples: int, speed: float, shortest: int) -> int:
    """Samples at the highest speed; a clip that would have less than `shortest` stays as it is."""
    after = samples_at(samples, rate_of(speed))
    return after if after >= shortest else samples
