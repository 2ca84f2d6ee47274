"""Interpolated policies each of which starts from the one before it."""

from collections.abc import Sequence

from sipo_pl.engine.lora.policies import Policy, interpolated_policies


def compounding_policies(policies: Sequence[Policy], points: Sequence[Sequence[float]]) -> list[Policy]:
    """Return what the released code's generation makes of the policies at every point; its reward models do not.

    Each interpolation takes the place of the first policy, in ascending order of its weight: for two policies, the
    weights 0.2, 0.4, 0.6, 0.8 act as 0.2, 0.08, 0.048, 0.0384.

    Raises:
        UserError: see `interpolated_policies`.
    """
    found: dict[int, Policy] = {}
    first = policies[0]
    for index in sorted(range(len(points)), key=lambda i: points[i][0]):
        (first,) = interpolated_policies([first, *policies[1:]], [points[index]])
        found[index] = first
    return [found[index] for index in range(len(points))]
