import assert from "node:assert/strict";
import { test } from "node:test";

import { Tally } from "../../../src/unmissed/browser/console/tally.js";

const FIRST = 1_796_000_000_000_001;
const NOON = Date.UTC(2026, 0, 31, 12);

/** The stamps of so many messages, ten a second, beginning with the n-th. */
function stamps(length, { from = 0 } = {}) {
  return Array.from({ length }, (_, index) => ({
    sequence_number: FIRST + from + index,
    timestamp: new Date(NOON + (from + index) * 100).toISOString(),
  }));
}

function receive(tally, name, numbers, arrival = "live") {
  for (const { sequence_number: number } of numbers) tally.receive(name, number, arrival);
}

test("what a client has not received is missed, and lost as soon as it has passed it", () => {
  const tally = new Tally();
  tally.publish(stamps(10));
  receive(tally, "plain", stamps(4));

  const before = tally.score("plain").lost;
  tally.pass("plain", FIRST + 6);

  assert.deepEqual([0, 3], [before, tally.score("plain").lost]);
  assert.deepEqual([0, 0], [tally.score("unmissed").lost, tally.score("unmissed").received]);
});

test("a client that passes nothing loses nothing, and what was recovered counts as received", () => {
  const tally = new Tally();
  tally.publish(stamps(10));
  receive(tally, "unmissed", stamps(4));
  receive(tally, "unmissed", stamps(6, { from: 4 }), "recovered");
  tally.pass("unmissed", FIRST + 9);

  assert.deepEqual({ received: 10, recovered: 6, lost: 0, duplicates: 0 }, tally.score("unmissed"));
  assert.equal(true, tally.isComplete("unmissed"));
});

test("messages of others are not counted, and a message may arrive before its publisher has the answer", () => {
  const tally = new Tally();
  receive(tally, "plain", stamps(5));
  tally.publish(stamps(2, { from: 3 }));

  assert.deepEqual({ received: 2, recovered: 0, lost: 0, duplicates: 0 }, tally.score("plain"));
});

test("a message that comes twice is a duplicate", () => {
  const tally = new Tally();
  tally.publish(stamps(3));
  receive(tally, "unmissed", [...stamps(3), ...stamps(1)]);

  assert.deepEqual([3, 1], [tally.score("unmissed").received, tally.score("unmissed").duplicates]);
});

test("columns begin with the first message, and have the fate of each", () => {
  const tally = new Tally();
  tally.publish(stamps(12));
  receive(tally, "plain", stamps(5));
  tally.pass("plain", FIRST + 6);

  const columns = tally.columns("plain", { length: 3, milliseconds: 500 });

  assert.deepEqual({ live: 5, recovered: 0, missed: 0, lost: 0 }, columns[0]);
  assert.deepEqual({ live: 0, recovered: 0, missed: 3, lost: 2 }, columns[1]);
  assert.deepEqual({ live: 0, recovered: 0, missed: 2, lost: 0 }, columns[2]);
});
