import assert from "node:assert/strict";
import { test } from "node:test";

import { bytes, count, duration, messages } from "../../../src/unmissed/browser/console/format.js";
import { reach } from "../../../src/unmissed/browser/console/log_figures.js";
import { countdown, noteWords, reachWords, stateWords } from "../../../src/unmissed/browser/console/words.js";

test("numbers are grouped, and sizes have units", () => {
  assert.deepEqual(["0", "1,234,567"], [0, 1_234_567].map(count));
  assert.deepEqual(["999 B", "1.5 kB", "84 kB", "34 MB"], [999, 1_500, 83_500, 33_554_432].map(bytes));
  assert.deepEqual(["0.4 s", "12 s", "15 min", "24 h", "3 d"], [0.42, 12.3, 900, 86_400, 3 * 86_400].map(duration));
  assert.deepEqual(
    ["1 message", "1,204 messages"],
    [1, 1204].map((number) => messages(number)),
  );
});

test("a countdown ends at zero", () => {
  assert.deepEqual(
    ["Reconnecting in 5 s", "Reconnecting in 0 s"],
    [5000, -5000].map((end) => countdown(end, 0)),
  );
});

test("a fallback is told in the state line", () => {
  assert.match(stateWords("live", "events")[1], /Server-Sent Events/);
  assert.equal("Disconnected", stateWords("waiting")[0]);
});

test("a recovery says how many, and what was not recovered", () => {
  assert.equal(
    "Recovered 250 messages after 5.1 s away. None was lost.",
    noteWords({ kind: "back", seconds: 5.1, recovered: 250, lost: 0 }),
  );
  assert.match(noteWords({ kind: "back", seconds: 30, recovered: 500, lost: 1000 }), /1,000 could not be recovered/);
  assert.match(noteWords({ kind: "back", seconds: 30, recovered: 5, lost: 1, exact: false }), /At least 1 could not/);
  assert.match(
    noteWords({ kind: "back", recovered: 1, lost: 0 }),
    /^Recovered 1 message after the page was loaded again/,
  );
});

test("a gap says how many messages are lost only if that is known", () => {
  assert.match(
    noteWords({ kind: "gap", from: 2, to: 9, lost: 3, exact: true }),
    /^Gap: 3 messages are lost \(numbers 2 to 9\)\./,
  );
  assert.match(
    noteWords({ kind: "gap", from: 2, to: 9, lost: 0, exact: false }),
    /^Gap: messages among the numbers 2 to 9 are lost\./,
  );
});

test("the log reaches back until the first of its limits", () => {
  const log = { messages: 100, bytes: 20_000, max_messages: 500, max_bytes: 1_000_000, max_age: 900, reach_seconds: 1 };

  assert.equal(10, reach(log, 50));
  assert.equal(900, reach(log, 0));
  assert.equal(5, reach({ ...log, max_bytes: 50_000 }, 50));
});

test("the forecast says which drop ends in a gap", () => {
  assert.match(reachWords({ reach: 10, rate: 50 }), /a drop of 5 s loses nothing, one of 30 s ends in a gap/);
  assert.match(reachWords({ reach: 100, rate: 5 }), /drops of 5 s and 30 s lose nothing/);
  assert.match(reachWords({ reach: 2, rate: 250 }), /drops of 5 s and 30 s end in a gap/);
  assert.equal("The log keeps a message for 15 min.", reachWords({ reach: 900, rate: 0 }));
});
