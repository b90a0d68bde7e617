"""Make edgegan/core/normal_table.h: the cubics behind the inverse normal CDF of the noise contract.

    python benchmarks/noise_table.py > edgegan/core/normal_table.h     # needs mpmath

The table is part of the contract: this script says where its numbers come from, it is not a knob to turn.

An odd 32-bit v stands for the tail probability v / 2^33. Row 16 e + s holds the v from 2^e (1 + s/16) up to
2^e (1 + (s+1)/16), x in [0, 1) is the place within it, and the row's cubic is the upper quantile f, where
Phi(-f) = v / 2^33. x has 19 bits, so v is cut to the 24 significant bits of a float32. For e >= 24 that
loses half a step on average, and there the cubic is fitted to the middle of each step.

Two things make the rounded curve monotone. Each cubic starts at a float32 (c0, the rounded quantile) and
is bent, by less than one rounding, to end where the next one starts: joints close. And the sum
c0 + x * slope is rounded once, on products whose steps of 2^-19 are well above their own rounding errors.

The two inner nodes of the interpolation are zeros of the Chebyshev polynomial T4, stretched until its outer
zeros are the ends: of all cubics with fixed ends, nearly the smallest largest error.
"""

from mpmath import mp, mpf
from numpy import float32

OCTAVES, SEGMENTS = 32, 16
mp.dps = 50


def quantile(octave: int, segment: int, x: mpf) -> mpf:
    """The exact upper quantile that row (octave, segment) stands for at x."""
    v = mpf(2) ** octave * (1 + (segment + x) / SEGMENTS)
    if octave >= 24:
        v += mpf(2) ** (octave - 24)
    return mp.sqrt(2) * mp.erfinv(1 - v / mpf(2) ** 32)


def single(value: mpf) -> float:
    return float(float32(float(value)))


def cubic(octave: int, segment: int) -> list[float]:
    """The four float32 coefficients of one row, constant first."""
    following = (octave, segment + 1) if segment + 1 < SEGMENTS else (octave + 1, 0)

    def rounding(row: tuple[int, int]) -> mpf:
        exact = quantile(*row, mpf(0))
        return single(exact) - exact

    start = rounding((octave, segment))
    end = rounding(following) if following[0] < OCTAVES else mpf(0)

    def target(x: mpf) -> mpf:
        return quantile(octave, segment, x) + start * (1 - x) + end * x

    c0 = single(target(mpf(0)))
    rise = target(mpf(1)) - c0
    # P(x) = c0 + rise x + x (x - 1) (a + b x), with a + b x found at the two inner nodes.
    left, right = 1 - 1 / mp.sqrt(2), 1 / mp.sqrt(2)
    at_left, at_right = ((target(x) - c0 - rise * x) / (x * (x - 1)) for x in (left, right))
    b = (at_right - at_left) / (right - left)
    a = at_left - b * left
    c3 = single(b)
    c2 = single(a - b)
    c1 = single(rise - c2 - c3)  # not rise - a: this closes the joint after the rounding of c2 and c3
    return [c0, c1, c2, c3]


def c_literal(value: float) -> str:
    """A C99 hexadecimal float: exact, and no decimal reader is trusted."""
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0')}p{exponent}f"


def main() -> None:
    print("/* From benchmarks/noise_table.py, which explains it. Part of the noise contract: never edit. */")
    print(f"static const float normal_table[{OCTAVES * SEGMENTS}][4] = {{")
    for octave in range(OCTAVES):
        for segment in range(SEGMENTS):
            print(f"    {{{', '.join(map(c_literal, cubic(octave, segment)))}}},")
    print("};")


if __name__ == "__main__":
    main()
