// The durable functions for the SDK's generator engine.

import { Never, Resonate } from "@resonatehq/sdk";
import { broken, step, write } from "./ledger.mjs";

export function* steps(ctx, run) {
  const names = [];
  for (const name of ["one", "two", "three"]) names.push(yield* ctx.run(step, run, name, 0));
  return names.join("-");
}

function* remote(ctx, run, group) {
  const before = yield* ctx.run(step, run, "before", 0);
  const there = yield* ctx.rpc("step", run, "there", 0, ctx.options({ target: group }));
  const after = yield* ctx.run(step, run, "after", 0);
  return `${before}-${there}-${after}`;
}

function* fan_out(ctx, run, group) {
  const futures = [];
  for (let i = 0; i < 8; i++) futures.push(yield* ctx.beginRun(step, run, `local${i}`, 20));
  for (let i = 0; i < 8; i++) {
    futures.push(yield* ctx.beginRpc("step", run, `there${i}`, 20, ctx.options({ target: group })));
  }
  const names = new Set();
  for (const future of futures) names.add(yield* future);
  return names.size;
}

function* inner(ctx, run, group) {
  const here = yield* ctx.run(step, run, "inner", 0);
  const there = yield* ctx.rpc("step", run, "deep", 0, ctx.options({ target: group }));
  return `${here}-${there}`;
}

function* nested(ctx, run, group) {
  const both = yield* ctx.run(inner, run, group);
  yield* ctx.detached("step", run, "detached", 0, ctx.options({ target: group }));
  return both;
}

function* nap(ctx, run, ms) {
  const before = yield* ctx.run(step, run, "before", 0);
  yield* ctx.sleep(ms);
  const after = yield* ctx.run(step, run, "after", 0);
  return `${before}-${after}`;
}

function* external(ctx, run) {
  const waiting = yield* ctx.promise({ timeout: 60_000 });
  write(run, `promise ${waiting.id}`, "waits");
  const word = yield* waiting;
  yield* ctx.run(step, run, "after", 0);
  return word;
}

function* reject(ctx, run) {
  let reason;
  try {
    yield* ctx.run(broken, run, ctx.options({ retryPolicy: new Never() }));
    return "no error came";
  } catch (error) {
    reason = error.message;
  }
  yield* ctx.run(step, run, "caught", 0);
  throw new Error(`because: ${reason}`);
}

function* crash(ctx, run, ms) {
  const one = yield* ctx.run(step, run, "one", 0);
  const two = yield* ctx.run(step, run, "two", ms);
  const three = yield* ctx.run(step, run, "three", 0);
  return `${one}-${two}-${three}`;
}

function* long(ctx, run, name, ms) {
  return yield* ctx.run(step, run, name, ms);
}

function* fired(ctx, run) {
  return yield* ctx.run(step, run, ctx.id, 0);
}

/** A process of the given group that knows every function. */
export function client(url, group, ttl) {
  const resonate = new Resonate({ url, group, ttl });
  for (const known of [step, steps, remote, fan_out, nested, nap, external, reject, crash, long, fired]) {
    resonate.register(known.name, known);
  }
  return resonate;
}

/** Starts a root workflow here. */
export const begin = (resonate, ...what) => resonate.beginRun(...what);
/** Starts a root workflow elsewhere. */
export const beginThere = (resonate, ...what) => resonate.beginRpc(...what);
