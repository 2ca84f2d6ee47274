"""Implicit rewards of the same rows in batches of other sizes, in bfloat16: how far rounding moves them.

python -m benchmarks.fidelity
"""

import argparse
from collections.abc import Sequence

from torch import Tensor

from benchmarks import options
from benchmarks.models import Ours
from benchmarks.texts import scored_rows
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.rewards.implicit import implicit_rewards

POLICIES = 2
BETA = 0.1
COLUMNS = ("batch tokens", "largest difference")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; return 0 where every difference is small enough."""
    args = _arguments(argv)
    setting = options.setting_of(args)
    ours = Ours(setting)
    policies = ours.policies(ours.random_factors(POLICIES))
    rows = scored_rows(args, ours.model.config.vocab_size)

    def score(batch_tokens: int) -> Tensor:
        return implicit_rewards(policies, POLICIES, rows, ReverseKL(), BETA, batch_tokens)

    alone = score(1)  # no two rows fit
    gaps = {budget: (score(budget) - alone).abs().max().item() for budget in args.batch_tokens}
    found = [{"batch tokens": budget, "largest difference": gap} for budget, gap in gaps.items()]
    return options.finish(args, setting.title, COLUMNS, found, rows_scored=len(rows))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    options.add_row_options(parser, 6, 4, [16, 64])
    add = parser.add_argument
    add(
        "--batch_tokens", type=int, nargs="+", default=[1024, 4096, 16384], help="budgets compared with a row at a time"
    )
    options.add_limits(parser, difference="largest difference")
    parser.set_defaults(dtype="bfloat16", most_difference=0.02)
    return options.parse(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
