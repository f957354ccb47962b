import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Seconds } from "../../../src/unmissed/browser/console/seconds.js";

const NOON = Date.UTC(2026, 0, 31, 12);
const at = (seconds) => new Date(NOON + seconds * 1000).toISOString();

mock.timers.enable({ apis: ["Date"], now: NOON });

test("messages are counted in the second of their publication", () => {
  const seconds = new Seconds();

  seconds.add(at(0.9), "live");
  seconds.add(at(-1), "recovered");

  const [[before, previous], [, current]] = seconds.last(2, [
    [at(0), "missed"],
    [at(-1), "lost"],
  ]);
  assert.equal(NOON / 1000 - 1, before);
  assert.deepEqual({ live: 0, recovered: 1, missed: 0, lost: 1 }, previous);
  assert.deepEqual({ live: 1, recovered: 0, missed: 1, lost: 0 }, current);
});

test("the last second is that of the server's clock", () => {
  const seconds = new Seconds();

  seconds.add(at(3600), "live");

  assert.equal(NOON / 1000 + 3600, seconds.last(1, [])[0][0]);
});

test("what is shown is not counted", () => {
  const seconds = new Seconds();

  seconds.last(1, [[at(0), "missed"]]);

  assert.deepEqual({ live: 0, recovered: 0, missed: 0, lost: 0 }, seconds.last(1, [])[0][1]);
});
