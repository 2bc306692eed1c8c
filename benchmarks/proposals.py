"""What a proposal costs as the study grows: processor time a head, on the toy objective. Prints one line per sampler and range of heads.

python benchmarks/proposals.py --heads 5000 --space paper
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

from headsearch.search.proposer import Proposer
from headsearch.space import load_space
from headsearch.testing.toy import limits, toy_cost
from headsearch.testing.toy_search import TOY_BASE

MARKS = (0, 100, 300, 1000, 3000, 5000)


def milliseconds(sampler: str, space: str, heads: int) -> list[tuple[int, int, float, int]]:
    """For every range of heads: its ends, the milliseconds a head, and how many proposals were of heads tried before."""
    proposer = Proposer(
        load_space(space),
        TOY_BASE,
        sampler=sampler,
        seed=0,
        objectives=2,
        cost_function=lambda config, _: toy_cost(config),
    )
    known: dict[str, list[float]] = {}
    rows = []
    for first, last in pairwise(mark for mark in MARKS if mark <= heads):
        begun, duplicates = time.process_time(), 0
        while len(known) < last:
            proposal = proposer.propose(known, ())
            if proposal is None:
                return rows
            duplicates += proposal.candidate.head_id in known
            probe, discrepancy = limits(proposal.candidate.config)
            values = known.setdefault(proposal.candidate.head_id, [discrepancy, probe])
            proposer.tell(proposal.position, values)
        rows.append((first, last, 1000 * (time.process_time() - begun) / (last - first), duplicates))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--space", default="paper")
    options = parser.parse_args()
    print(f"{'sampler':8} {'heads':>12} {'ms a head':>10} {'duplicates':>11}")
    for sampler in ("random", "tpe"):
        for first, last, cost, duplicates in milliseconds(sampler, options.space, options.heads):
            print(f"{sampler:8} {f'{first} - {last}':>12} {cost:10.1f} {duplicates:11}")


if __name__ == "__main__":
    main()
