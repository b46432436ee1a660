// The four-step pipeline that does nothing, on BullMQ: a queue per step, a worker per queue, each
// finished job adds the next step's. As BullMQ's documentation recommends: jobs added in bulk,
// workers with concurrency, completed jobs removed. Prints one JSON line: jobs, seconds,
// transitions a second (one transition is one step of one job).
//
//     node bullmq.mjs REDIS_PORT JOBS [PROCESSES]
//
// With several processes each has a worker per queue; the first also adds the jobs.
import cluster from "node:cluster";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const connection = new Redis(Number(process.argv[2]), "127.0.0.1", { maxRetriesPerRequest: null });
const jobs = Number(process.argv[3]);
const processes = Number(process.argv[4] ?? 1);
const STEPS = ["encode", "base", "sr256", "sr1024"];
const options = { removeOnComplete: true, removeOnFail: true };

const queues = STEPS.map((step) => new Queue(step, { connection }));
let done = 0;
let finish;
const finished = new Promise((resolve) => (finish = resolve));
const count = (more) => {
  done += more;
  if (done === jobs) finish();
};
const workers = STEPS.map(
  (step, position) =>
    new Worker(
      step,
      async (job) => {
        const next = queues[position + 1];
        if (next) await next.add(STEPS[position + 1], job.data, options);
        else if (cluster.isPrimary) count(1);
        else done += 1;
      },
      { connection, concurrency: 100 },
    ),
);
await Promise.all(workers.map((worker) => worker.waitUntilReady()));

if (cluster.isPrimary) {
  const others = Array.from({ length: processes - 1 }, () => cluster.fork());
  await Promise.all(others.map((other) => new Promise((resolve) => other.once("message", resolve))));
  for (const other of others) other.on("message", count);
  await run();
  for (const other of others) other.kill();
  await Promise.all([...workers, ...queues].map((part) => part.close()));
  connection.disconnect();
} else {
  process.send("ready");
  setInterval(() => {
    if (done > 0) process.send(done);
    done = 0;
  }, 20);
}

async function run() {
  const start = performance.now();
  const BULK = 1000;
  for (let at = 0; at < jobs; at += BULK) {
    const bulk = Array.from({ length: Math.min(BULK, jobs - at) }, (_, k) => ({
      name: STEPS[0],
      data: { prompt: `picture ${at + k}`, seed: at + k },
      opts: options,
    }));
    await queues[0].addBulk(bulk);
  }
  await finished;
  const seconds = (performance.now() - start) / 1000;
  const peer = processes > 1 ? `BullMQ, ${processes} processes` : "BullMQ";
  console.log(JSON.stringify({ peer, jobs, seconds, transitions_per_second: (4 * jobs) / seconds }));
}
