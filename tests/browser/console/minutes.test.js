import assert from "node:assert/strict";
import { test } from "node:test";

import { HISTORY_MINUTES, lastMinutes, totals } from "../../../src/unmissed/browser/console/minutes.js";

const NOON = Date.UTC(2026, 0, 31, 12);
const NOTHING = { gap: 0, reset: 0, stall: 0, close: 0, refused: 0 };
const minute = (before, counts) => ({ time: new Date(NOON - before * 60_000).toISOString(), ...counts });

test("an hour has sixty minutes, also those in which nothing happened", () => {
  const minutes = lastMinutes([minute(1, { close: 3 })], NOON + 59_999);

  assert.equal(HISTORY_MINUTES, minutes.length);
  assert.deepEqual([NOON / 60_000, NOTHING], minutes.at(-1));
  assert.deepEqual({ ...NOTHING, close: 3 }, minutes.at(-2)[1]);
});

test("the newest minute of a server whose clock is ahead is the last one", () => {
  const minutes = lastMinutes([minute(-5, { gap: 1 })], NOON);

  assert.equal(1, minutes.at(-1)[1].gap);
});

test("what happened more than an hour ago is not shown", () => {
  const minutes = lastMinutes([minute(60, { stall: 1 }), minute(59, { refused: 2 })], NOON);

  assert.deepEqual({ ...NOTHING, refused: 2 }, minutes[0][1]);
  assert.deepEqual({ ...NOTHING, refused: 2 }, totals(minutes.map(([, counts]) => counts)));
});
