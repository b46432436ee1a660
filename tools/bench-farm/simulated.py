"""Many workers in one process, each with connections, leases and heartbeats of its own, that sleep
a stage's time."""

import json
import subprocess

from farm import BIN


class Workers:
    """`with Workers(farm, count, batch, {stage: seconds of a batch})`."""

    def __init__(self, farm, count, batch, seconds, holds=None):
        self.farm, self.count = farm, count
        self.name = f"workers-{'-'.join(seconds)}"
        cascade, encoder = farm.sql("SELECT encode(digest, 'hex'), encode(encoder, 'hex') FROM cascades").split("|")
        pools = [f"{stage}@{encoder if stage == 'encode' else cascade}={time}" for stage, time in seconds.items()]
        self.command = [BIN / "simulated_workers", farm.environment["DARKROOM_REDIS"], farm.sql("SELECT id FROM farm"),
                        farm.sql("SELECT encode(secret, 'hex') FROM farm"), count, batch, *pools]
        self.holds = holds

    def __enter__(self):
        environment = self.farm.environment | ({"HOLDS": "1"} if self.holds else {})
        self.process = subprocess.Popen([str(word) for word in self.command], stdin=subprocess.PIPE, stdout=self.holds or subprocess.PIPE, stderr=self.farm.log, text=True, env=environment)
        self.farm.processes[self.name] = self.process.pid
        if not self.holds:
            # Answers once all of them are connected.
            self.busy()
        return self

    def __exit__(self, *_):
        self.farm.processes.pop(self.name, None)
        self.process.stdin.close()
        self.process.wait()

    def busy(self):
        """(seconds since 1970, seconds for which their models have run so far, all together)"""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["micros"] / 1e6, answer["busy"]
