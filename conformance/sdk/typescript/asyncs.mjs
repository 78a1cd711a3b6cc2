// The durable functions for the SDK's async engine.

import { Resonate } from "@resonatehq/sdk/async";
import { broken, step, write } from "./ledger.mjs";

export async function steps(ctx, run) {
  const names = [];
  for (const name of ["one", "two", "three"]) names.push(await ctx.run(step, run, name, 0));
  return names.join("-");
}

async function remote(ctx, run, group) {
  const before = await ctx.run(step, run, "before", 0);
  const there = await ctx.rpc("step", run, "there", 0, ctx.options({ target: group }));
  const after = await ctx.run(step, run, "after", 0);
  return `${before}-${there}-${after}`;
}

async function fan_out(ctx, run, group) {
  const numbers = [...Array(8).keys()];
  const local = numbers.map((i) => ctx.run(step, run, `local${i}`, 20));
  const there = numbers.map((i) => ctx.rpc("step", run, `there${i}`, 20, ctx.options({ target: group })));
  const names = new Set();
  for (const future of [...local, ...there]) names.add(await future);
  return names.size;
}

async function inner(ctx, run, group) {
  const here = await ctx.run(step, run, "inner", 0);
  const there = await ctx.rpc("step", run, "deep", 0, ctx.options({ target: group }));
  return `${here}-${there}`;
}

async function nested(ctx, run, group) {
  const both = await ctx.run(inner, run, group);
  await ctx.detached("step", run, "detached", 0, ctx.options({ target: group }));
  return both;
}

async function nap(ctx, run, ms) {
  const before = await ctx.run(step, run, "before", 0);
  await ctx.sleep(ms);
  const after = await ctx.run(step, run, "after", 0);
  return `${before}-${after}`;
}

async function external(ctx, run) {
  const waiting = ctx.promise({ timeout: 60_000 });
  write(run, `promise ${waiting.id}`, "waits");
  const word = await waiting;
  await ctx.run(step, run, "after", 0);
  return word;
}

async function reject(ctx, run) {
  let reason;
  try {
    await ctx.run(broken, run);
    return "no error came";
  } catch (error) {
    reason = error.message;
  }
  await ctx.run(step, run, "caught", 0);
  throw new Error(`because: ${reason}`);
}

async function crash(ctx, run, ms) {
  const one = await ctx.run(step, run, "one", 0);
  const two = await ctx.run(step, run, "two", ms);
  const three = await ctx.run(step, run, "three", 0);
  return `${one}-${two}-${three}`;
}

async function long(ctx, run, name, ms) {
  return await ctx.run(step, run, name, ms);
}

async function fired(ctx, run) {
  return await ctx.run(step, run, ctx.id, 0);
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
export const begin = (resonate, ...what) => resonate.run(...what);
/** Starts a root workflow elsewhere. */
export const beginThere = (resonate, ...what) => resonate.rpc(...what);
