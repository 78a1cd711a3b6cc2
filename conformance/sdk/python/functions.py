"""The durable functions of the smoke program, and the ledger that every step is written to.

A step appends a line when it begins and one when it ends, outside the protocol: a step that runs twice is seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import timedelta

from resonate.context import Context
from resonate.resonate import Resonate
from resonate.retry import Never


def write(run: str, step: str, phase: str) -> None:
    """Appends one line to the ledger; lines of several processes do not mix."""
    line = {"run": run, "step": step, "phase": phase, "pid": os.getpid(), "at": time.time() * 1000}
    ledger = os.open(os.environ["SDK_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(ledger, json.dumps(line).encode() + b"\n")
    finally:
        os.close(ledger)


async def step(_: Context, run: str, name: str, ms: int) -> str:
    write(run, name, "begin")
    await asyncio.sleep(ms / 1000)
    write(run, name, "end")
    return name


async def broken(_: Context, run: str) -> str:
    write(run, "broken", "begin")
    raise ValueError("broken on purpose")


async def steps(ctx: Context, run: str) -> str:
    names = [await ctx.run(step, run, name, 0) for name in ("one", "two", "three")]
    return "-".join(names)


async def remote(ctx: Context, run: str, group: str) -> str:
    before = await ctx.run(step, run, "before", 0)
    there = await ctx.options(target=group).rpc("step", run, "there", 0)
    after = await ctx.run(step, run, "after", 0)
    return f"{before}-{there}-{after}"


async def fan_out(ctx: Context, run: str, group: str) -> int:
    local = [ctx.run(step, run, f"local{i}", 20) for i in range(8)]
    there = [ctx.options(target=group).rpc("step", run, f"there{i}", 20) for i in range(8)]
    return len({await future for future in local + there})


async def inner(ctx: Context, run: str, group: str) -> str:
    here = await ctx.run(step, run, "inner", 0)
    there = await ctx.options(target=group).rpc("step", run, "deep", 0)
    return f"{here}-{there}"


async def nested(ctx: Context, run: str, group: str) -> str:
    both = await ctx.run(inner, run, group)
    await ctx.options(target=group).detached("step", run, "detached", 0)
    return both


async def nap(ctx: Context, run: str, ms: int) -> str:
    before = await ctx.run(step, run, "before", 0)
    await ctx.sleep(timedelta(milliseconds=ms))
    after = await ctx.run(step, run, "after", 0)
    return f"{before}-{after}"


async def external(ctx: Context, run: str) -> str:
    waiting = ctx.promise(timeout=timedelta(minutes=1))
    write(run, f"promise {await waiting.id()}", "waits")
    word = await waiting
    await ctx.run(step, run, "after", 0)
    return word


async def reject(ctx: Context, run: str) -> str:
    try:
        await ctx.run(broken, run)
    except Exception as error:
        await ctx.run(step, run, "caught", 0)
        raise RuntimeError(f"because: {error}") from error
    return "no error came"


async def crash(ctx: Context, run: str, ms: int) -> str:
    one = await ctx.run(step, run, "one", 0)
    two = await ctx.run(step, run, "two", ms)
    three = await ctx.run(step, run, "three", 0)
    return f"{one}-{two}-{three}"


async def long(ctx: Context, run: str, name: str, ms: int) -> str:
    return await ctx.run(step, run, name, ms)


async def fired(ctx: Context, run: str) -> str:
    return await ctx.run(step, run, ctx.info.id, 0)


FUNCTIONS = (step, steps, remote, fan_out, nested, nap, external, reject, crash, long, fired)


def client(url: str, group: str, ttl_ms: int) -> Resonate:
    """A process of the given group that knows every function and repeats none by itself."""
    resonate = Resonate(url=url, group=group, ttl=timedelta(milliseconds=ttl_ms), retry_policy=Never())
    for function in FUNCTIONS:
        resonate.register(function)
    return resonate
