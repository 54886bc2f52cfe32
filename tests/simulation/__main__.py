"""`python -m tests.simulation`: many schedules, or one again. Prints in how many which service met which fault."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from headrace.infra.service import tidy_memory
from tests.simulation.faults import CRASHES, POINTS, SERVICES, is_life, schedule
from tests.simulation.history import HAPPENS
from tests.simulation.schedules import partitions_of, report, run


def main():
    """Exit 1 where a schedule fails, or where a service came never to one of the points at which it may die."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("-n", type=int, default=1000, help="how many seeds, with one and three partitions in turn")
    parser.add_argument("-j", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("-p", "--partitions", type=int, choices=(1, 3))
    parser.add_argument("--keep", help="with --seed: only the faults of these numbers, as 1,4,5")
    asked = parser.parse_args()
    if asked.seed is not None:
        sys.exit(replay(asked.seed, asked.partitions or partitions_of(asked.seed), asked.keep))
    sys.exit(search(range(asked.first, asked.first + asked.n), asked.partitions, asked.j))


def search(seeds, partitions, at_once):
    """Every seed's schedule; reports those that fail as they do. Returns the exit status."""
    run(seeds[0], 1)  # imports what there is to import
    tidy_memory()
    began, failed, repeats, struck = time.perf_counter(), 0, 0, Counter()
    counts = [partitions or partitions_of(seed) for seed in seeds]
    with ProcessPoolExecutor(at_once) as pool:
        for seed, count, outcome in zip(seeds, counts, pool.map(run, seeds, counts, chunksize=4), strict=True):
            struck.update(outcome.struck.keys())
            repeats += outcome.repeats
            if outcome.wrong:
                failed += 1
                print(report(seed, count, outcome.wrong), flush=True)
    print(table(struck))
    lives = sum(is_life(seed) for seed in seeds)
    ways = ", ".join(f"{what} in {n}" for (where, what), n in sorted(struck.items()) if where == "life")
    print(f"{lives} lives of models: {ways or 'nothing happened'}")
    seconds = time.perf_counter() - began
    print(f"{len(seeds)} schedules, {failed} failed, {repeats} records told again, {seconds:.0f} s")
    never = [f"{service} {point}" for service, point in CRASHES if not struck[service, f"kill {point}"]]
    never += [what for what in sorted(HAPPENS) if lives and not struck["life", what]]
    if never:
        print(f"never: {', '.join(never)}")
    return int(failed > 0 or bool(never))


def replay(seed, partitions, keep):
    """One schedule again, in full."""
    numbers = None if keep is None else [int(n) for n in keep.split(",") if n.isdigit()]
    for fault in schedule(seed):
        if numbers is None or fault.number in numbers:
            print(fault)
    wrong = run(seed, partitions, numbers).wrong
    print("\n".join(wrong) or "nothing is wrong")
    return int(bool(wrong))


def table(struck):
    """In how many schedules a service was killed at a point, then the other faults."""
    lines = ["killed at    " + "".join(f"{point:>11}" for point in POINTS)]
    for service in SERVICES:
        lines.append(f"{service:13}" + "".join(f"{struck[service, f'kill {point}']:>11}" for point in POINTS))
    others = sorted({kind for where, kind in struck if where in SERVICES and not kind.startswith("kill")})
    for some in (others[: len(others) // 2], others[len(others) // 2 :]):
        lines.append("             " + "".join(f"{kind:>20}" for kind in some))
        for service in SERVICES:
            lines.append(f"{service:13}" + "".join(f"{struck[service, kind]:>20}" for kind in some))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
