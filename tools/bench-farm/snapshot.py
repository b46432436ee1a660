"""The same jobs with and without somebody who holds an old snapshot all the time, in turns; and
what is left of it."""

import time

import transitions
from farm import Farm, table

STATEMENTS = "SELECT coalesce(sum(calls), 0), coalesce(sum(total_exec_time), 0) FROM pg_stat_statements WHERE query LIKE 'SELECT next.*%' OR query LIKE 'WITH free AS%'"


def versions(farm):
    """Row versions that updates and deletes have left so far; sessions report them within a second
    of being idle."""
    time.sleep(1.5)
    return int(farm.sql("SELECT sum(n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables"))


def dead(farm):
    return int(farm.sql("SELECT sum(n_dead_tup) FROM pg_stat_user_tables"))


def dispatches(farm):
    calls, spent = farm.sql(STATEMENTS).split("|")
    return float(calls), float(spent)


def measure(pictures, turns):
    runs = {False: [], True: []}
    with Farm(postgres=["shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=all"]) as farm:
        farm.sql("CREATE EXTENSION pg_stat_statements")
        farm.start_members()
        transitions.run(farm, 1000, "warm-up")
        for turn in range(turns):
            for held in (False, True):
                close = farm.hold_snapshot() if held else None
                parts, before = [], versions(farm)
                for part in range(2):
                    calls, spent = dispatches(farm)
                    parts.append(transitions.run(farm, pictures // 2, f"snapshot-{turn}-{held}-{part}"))
                    now = dispatches(farm)
                    parts[-1]["dispatch"] = (now[1] - spent) / max(now[0] - calls, 1)
                left = versions(farm) - before
                seconds = sum(part["seconds"] for part in parts)
                runs[held].append({"rate": 4 * pictures / seconds, "left": left / (4 * pictures), "dispatch": [part["dispatch"] for part in parts]})
                if close:
                    most = dead(farm)
                    close()
        ended = time.monotonic()
        while (now := dead(farm)) > most / 20 and time.monotonic() - ended < 300:
            time.sleep(1)
        reclaimed = time.monotonic() - ended
    return {"runs": runs, "most": most, "left": now, "reclaimed": reclaimed}


def report(pictures, result):
    print(f"## A held snapshot: {pictures} pictures a run, in turns\n")
    rows = []
    for held, runs in result["runs"].items():
        for number, run in enumerate(runs):
            rows.append([f"{'snapshot held' if held else 'alone'}, {number + 1}", f"{run['rate']:.0f}", f"{run['left']:.2f}", *[f"{ms:.2f}" for ms in run["dispatch"]]])
    table(["run", "transitions/s", "dead row versions a transition", "a dispatch's statement, first half, ms", "second half, ms"], rows)
    means = {held: sum(run["rate"] for run in runs) / len(runs) for held, runs in result["runs"].items()}
    print(f"With the snapshot held the farm goes at {100 * means[True] / means[False]:.0f} % of its rate. {result['most']} dead row versions were there at the end of the last run; "
          f"{result['reclaimed']:.0f} s after the snapshot's end {result['left']}.\n")
