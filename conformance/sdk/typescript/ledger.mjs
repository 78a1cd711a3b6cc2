// The ledger that every step is written to, and the two functions that are the same under both engines.
//
// A step appends a line when it begins and one when it ends, outside the protocol: a step that runs twice is seen.

import { appendFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

/** Milliseconds since 1970. */
export const nowMs = () => performance.timeOrigin + performance.now();

/** Appends one line to the ledger; lines of several processes do not mix. */
export function write(run, step, phase) {
  const line = { run, step, phase, pid: process.pid, at: nowMs() };
  appendFileSync(process.env.SDK_LEDGER, `${JSON.stringify(line)}\n`);
}

export async function step(_, run, name, ms) {
  write(run, name, "begin");
  await pause(ms);
  write(run, name, "end");
  return name;
}

export async function broken(_, run) {
  write(run, "broken", "begin");
  throw new Error("broken on purpose");
}
