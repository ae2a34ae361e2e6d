"""Seeds made of seeds: the randomness that everything derives from, without torch."""

from __future__ import annotations

_MASK = (1 << 64) - 1

INIT = 0x1217
"""Tag of the seed that initialises the weights of a model."""


def mix_seed(*parts: int) -> int:
    """One 64-bit seed from several integers, such as (seed, epoch, step).

    Each part is added to the state, which then passes through splitmix64's finaliser: near inputs give
    unrelated outputs, and the order of the parts matters.

    Returns:
        0..2**64 - 1.
    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", figure 17.
    """
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state
