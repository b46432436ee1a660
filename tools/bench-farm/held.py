"""How soon a waiting worker holds a task that is ready, on an idle farm: from the commit in SQL
that makes it ready.

Jobs of one image, one after the other. Postgres tells the time of each commit
(`track_commit_timestamp`), the worker that of its lease, by the same clock."""

import statistics
import time

from farm import Farm, table
from simulated import Workers

STAGES = ("encode", "base", "sr256", "sr1024")

# What an ended job's changes were is reduced soon, and a row's time with it: each is noted as it is
# made.
NOTE_CHANGES = """
    CREATE TABLE noted_changes (job bigint, version bigint);
    CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO noted_changes VALUES (NEW.job, NEW.version); RETURN NULL; END';
    CREATE TRIGGER note_change AFTER INSERT ON image_changes FOR EACH ROW EXECUTE FUNCTION note_change()"""


def measure(jobs):
    with Farm(postgres=["track_commit_timestamp=on"]) as farm:
        farm.sql(NOTE_CHANGES)
        path = farm.work / "holds"
        with open(path, "w", encoding="utf-8") as holds:
            with Workers(farm, 1, 8, {"encode": 0}, holds), Workers(farm, 1, 8, dict.fromkeys(STAGES[1:], 0), holds):
                farm.wait_for_workers(2)
                time.sleep(2)
                for number in range(jobs):
                    prompt = farm.work / "one.txt"
                    prompt.write_text(f"picture {number}, held\n")
                    farm.cli("watch", farm.submit(prompt))
        commits = {}
        rows = farm.sql("SELECT job, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1e6)::bigint FROM noted_changes ORDER BY job, version")
        for row in rows.splitlines():
            job, micros = row.split("|")
            commits.setdefault(int(job), []).append(int(micros))
        held = {stage: [] for stage in STAGES}
        for line in path.read_text().splitlines():
            stage, micros = line.split()
            held[stage].append(int(micros))
    waits = {stage: [] for stage in STAGES}
    for number, changes in enumerate(commits[job] for job in sorted(commits)):
        # An image's first change is its submit, which makes its text ready; after each lease the
        # first one that follows makes its next stage ready.
        since = 0
        for stage in STAGES:
            micros = held[stage][number]
            waits[stage].append((micros - next(change for change in changes if change > since)) / 1000)
            since = micros
    return waits


def report(waits):
    count = len(waits["base"])
    print(f"## Ready (commit in SQL) to held by a waiting worker, idle farm: {count} jobs of one image\n")
    rows = []
    for stage, times in [*waits.items(), ("all", [time for times in waits.values() for time in times])]:
        cuts = statistics.quantiles(times, n=100)
        rows.append([stage, f"{cuts[49]:.2f}", f"{cuts[98]:.2f}", f"{max(times):.2f}"])
    table(["stage", "p50, ms", "p99, ms", "most, ms"], rows)
