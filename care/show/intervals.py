"""How sure a difference is: what its interval lets one say, and how it is written.

Two kinds of differences are read so: of encoders that were pre-trained once each
(``care.show.comparison``), and of arms with several seeds (``care.show.seeds``).
"""

from typing import Literal

Finding = Literal["ahead", "behind", "not distinguishable", "uncertainty unknown"]
FINDINGS: tuple[Finding, ...] = ("ahead", "behind", "not distinguishable", "uncertainty unknown")
# stands for an encoder whose attention prefers no place
CHANCE = "chance"
# standard errors from an estimate to either end of its 95 % interval
NORMAL_95 = 1.96
_NORMAL_97_5 = 1.959964
# 97.5 % quantiles of Student's t for 1 … 10 degrees of freedom; beyond them a series is as exact
STUDENT_97_5 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def finding_of(low: float | None, high: float | None) -> Finding:
    """What a 95 % interval lets one say of a difference.

    Args:
        low: end of the interval; None where it is unknown.
        high: end of the interval; None where it is unknown.
    """
    if low is None or high is None:
        return "uncertainty unknown"
    if low > 0:
        return "ahead"
    if high < 0:
        return "behind"
    return "not distinguishable"


def signed(value: float, spec: str = ".1f") -> str:
    """Write a number with its sign, the minus as wide as the plus.

    What is shown as zero has none.

    Args:
        value: any number.
        spec: how its absolute value is formatted.
    """
    text = format(abs(value), spec)
    if float(text) == 0:
        return text
    return f"+{text}" if value > 0 else f"−{text}"


def student_97_5(freedom: int) -> float:
    """Compute the 97.5 % quantile of Student's t distribution.

    Args:
        freedom: degrees of freedom, at least 1.

    Source: Abramowitz and Stegun 26.7.5, from 11 degrees of freedom on exact to 1e-4.
    """
    if freedom <= len(STUDENT_97_5):
        return STUDENT_97_5[freedom - 1]
    z = _NORMAL_97_5
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
