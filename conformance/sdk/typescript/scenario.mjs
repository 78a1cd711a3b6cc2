// What a scenario works with: its server, its ledger, its own groups, and the workers that end with it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const LOOK_EVERY_MS = 5;
const SMOKE = fileURLToPath(new URL("./smoke.mjs", import.meta.url));
/** The lease of a worker that is told no other. */
export const TTL_MS = 20_000;

export class Scenario {
  constructor(url, engine, api, name) {
    Object.assign(this, { url, engine, api, id: `${name}-${randomUUID().slice(24)}`, workers: [] });
    this.over = false;
  }

  group(part = "w") {
    return `${this.id}-${part}`;
  }

  /** Starts a worker, a process of its own. */
  worker(part = "w", ttl = TTL_MS) {
    const args = [SMOKE, "work", this.engine, this.url, this.group(part), String(ttl)];
    const env = { ...process.env, SDK_RUN: this.id };
    this.workers.push(spawn(process.execPath, args, { env, stdio: ["ignore", "ignore", "inherit"] }));
  }

  end() {
    this.over = true;
    for (const worker of this.workers) worker.kill("SIGKILL");
  }

  /** This scenario's lines of the ledger of one phase whose step begins so, in order. */
  found(phase, step = "") {
    const lines = readFileSync(process.env.SDK_LEDGER, "utf8").split("\n").slice(0, -1).map(JSON.parse);
    return lines.filter((line) => line.run === this.id && line.phase === phase && line.step.startsWith(step));
  }

  /** Waits until something is so. */
  async until(look) {
    for (;;) {
      assert(!this.over, "it took too long");
      const seen = await look();
      if (seen) return seen;
      await pause(LOOK_EVERY_MS);
    }
  }

  /** Waits for the line of the ledger that says so for the n-th time. */
  seen(phase, step, times = 1) {
    return this.until(() => this.found(phase, step)[times - 1]);
  }

  /** How often each step began. */
  ran() {
    const ran = {};
    for (const { step } of this.found("begin")) ran[step] = (ran[step] ?? 0) + 1;
    return ran;
  }

  /** Starts a root workflow in the group of the workers and waits for what becomes of it, as somebody else. */
  async rpc(suffix, name, ...args) {
    const caller = this.api.client(this.url, this.group("caller"), TTL_MS);
    try {
      const there = caller.options({ target: this.group(), timeout: 120_000 });
      const handle = await this.api.beginThere(caller, this.id + suffix, name, ...args, there);
      return await handle.result();
    } finally {
      await caller.stop();
    }
  }

  /** One request of the protocol without the SDK: somebody outside. */
  async ask(kind, data) {
    const body = JSON.stringify({ kind, head: { corrId: randomUUID(), version: "2026-04-01" }, data });
    const answer = await fetch(this.url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return (await answer.json()).data;
  }
}
