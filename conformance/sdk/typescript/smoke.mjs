// Runs every scenario against one server: `smoke.mjs ENGINE URL [SCENARIO]...`, the engine being `generators` or
// `asyncs`. The ledger is the file that SDK_LEDGER names. One JSON line a scenario; exit code 3 if one failed.
// `smoke.mjs work ENGINE URL GROUP TTL_MS` is a worker, a process of its own.

import "./polyfill.mjs";
import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { nowMs, write } from "./ledger.mjs";
import { Scenario, TTL_MS } from "./scenario.mjs";

const PATIENCE_MS = 60_000;

const SCENARIOS = {
  async steps(s) {
    const here = s.api.client(s.url, s.group(), TTL_MS);
    try {
      const handle = await s.api.begin(here, s.id, s.api.steps, s.id, here.options({ timeout: 120_000 }));
      assert.equal(await handle.result(), "one-two-three");
    } finally {
      await here.stop();
    }
  },

  async remote(s) {
    s.worker();
    s.worker("there");
    assert.equal(await s.rpc("", "remote", s.id, s.group("there")), "before-there-after");
    const [before, there] = ["before", "there"].map((step) => s.found("begin", step)[0].pid);
    assert.notEqual(before, there, "another process");
  },

  async fan_out(s) {
    s.worker();
    s.worker("there");
    assert.equal(await s.rpc("", "fan_out", s.id, s.group("there")), 16);
  },

  async nested(s) {
    s.worker();
    s.worker("there");
    assert.equal(await s.rpc("", "nested", s.id, s.group("there")), "inner-deep");
    await s.seen("end", "detached");
  },

  async sleep(s) {
    s.worker();
    assert.equal(await s.rpc("", "nap", s.id, 1000), "before-after");
    const slept_ms = s.found("begin", "after")[0].at - s.found("begin", "before")[0].at;
    assert(slept_ms >= 1000, `slept ${slept_ms} ms`);
    return { slept_ms };
  },

  async external(s) {
    s.worker();
    const asked = s.rpc("", "external", s.id);
    const id = (await s.seen("waits", "promise ")).step.slice("promise ".length);
    await s.until(async () => (await s.ask("task.get", { id: s.id })).task.state === "suspended");
    const settled = nowMs();
    const value = { data: btoa(JSON.stringify("from outside")) };
    await s.ask("promise.settle", { id, state: "resolved", value });
    assert.equal(await asked, "from outside");
    return { woke_ms: s.found("begin", "after")[0].at - settled };
  },

  async reject(s) {
    s.worker();
    await assert.rejects(s.rpc("", "reject", s.id), { message: "because: broken on purpose" });
    assert.equal((await s.ask("promise.get", { id: s.id })).promise.state, "rejected");
  },

  async crash(s) {
    s.worker();
    s.worker();
    const asked = s.rpc("", "crash", s.id, 1500);
    const victim = (await s.seen("begin", "two")).pid;
    process.kill(victim, "SIGKILL");
    const killed = nowMs();
    assert.equal(await asked, "one-two-three");
    const again = s.found("begin", "two")[1];
    assert.notEqual(again.pid, victim, "another worker");
    return { takeover_ms: again.at - killed, lease_ms: TTL_MS };
  },

  async late(s) {
    const asked = s.rpc("", "steps", s.id);
    await pause(1500);
    assert.deepEqual(s.found("begin"), [], "nothing ran before");
    s.worker();
    assert.equal(await asked, "one-two-three");
    return { started_ms: s.found("begin", "one")[0].at - s.found("joins", "worker")[0].at };
  },

  async two_long(s) {
    s.worker("w", 1000);
    const both = ["first", "second"].map((name) => s.rpc(`-${name}`, "long", s.id, name, 3500));
    assert.deepEqual(await Promise.all(both), ["first", "second"]);
    const apart = s.found("begin", "first")[0].at - s.found("begin", "second")[0].at;
    assert(Math.abs(apart) < 3500, "both were held at the same time");
    return { lease_ms: 1000, step_ms: 3500 };
  },

  async schedule(s) {
    s.worker();
    const caller = s.api.client(s.url, s.group("caller"), TTL_MS);
    try {
      const every = caller.options({ target: s.group(), timeout: 60_000 });
      const made = await caller.schedule(s.id, "* * * * * *", "fired", s.id, every);
      await s.seen("end", s.id, 3);
      await made.delete();
    } finally {
      await caller.stop();
    }
    const firings = new Set(s.found("end", s.id).map((line) => line.step));
    for (const id of firings) {
      // A step's last line is written before its workflow is settled.
      const settled = async () => {
        const { promise } = await s.ask("promise.get", { id });
        return promise.state === "pending" ? undefined : promise;
      };
      assert.equal((await s.until(settled)).tags["resonate:schedule"], s.id);
    }
    return { firings: [...firings] };
  },
};

/** Runs one scenario within its bound; what it says is never only that it ended. */
async function judged(url, engine, api, name) {
  const s = new Scenario(url, engine, api, name);
  const began = nowMs();
  const bound = pause(PATIENCE_MS, undefined, { ref: false }).then(() => {
    throw new Error("it took too long");
  });
  const verdict = { name, id: s.id, ok: true };
  try {
    verdict.figures = (await Promise.race([SCENARIOS[name](s), bound])) ?? {};
  } catch (error) {
    Object.assign(verdict, { ok: false, why: String(error) });
  } finally {
    s.end();
  }
  return { ...verdict, ms: Math.round(nowMs() - began), ran: s.ran() };
}

/** A worker: it ends when it is killed, or with the program that started it. */
function work(api, url, group, ttl) {
  write(process.env.SDK_RUN, "worker", "joins");
  api.client(url, group, ttl);
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || process.exit(), 1000);
}

const [, , first, ...rest] = process.argv;
if (first === "work") {
  const [engine, url, group, ttl] = rest;
  work(await import(`./${engine}.mjs`), url, group, Number(ttl));
} else {
  const [url, ...names] = rest;
  const api = await import(`./${first}.mjs`);
  appendFileSync(process.env.SDK_LEDGER, "");
  let failed = false;
  for (const name of names.length > 0 ? names : Object.keys(SCENARIOS)) {
    const verdict = await judged(url, first, api, name);
    failed ||= !verdict.ok;
    console.log(JSON.stringify(verdict));
  }
  process.exit(failed ? 3 : 0);
}
