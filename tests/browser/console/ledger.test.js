import assert from "node:assert/strict";
import { test } from "node:test";

import { Ledger } from "../../../src/unmissed/browser/console/ledger.js";

const stamp = (number) => ({ sequence_number: number, timestamp: `at ${number}` });

/** A ledger that began after a position, and received these numbers. */
function ledgerAfter(position, ...numbers) {
  const ledger = new Ledger();
  ledger.begin(position);
  receive(ledger, ...numbers);
  return ledger;
}

function receive(ledger, ...numbers) {
  return numbers.map((number) => ledger.receive({ ...stamp(number), recovered: false }));
}

function list(ledger, numbers, bounds) {
  ledger.list(numbers.map(stamp), { through: Math.max(0, ...numbers), oldest: 1, ...bounds });
}

test("holes in the numbers are no loss", () => {
  const ledger = ledgerAfter(0, 1, 4, 9);

  list(ledger, [1, 4, 9]);

  assert.deepEqual([], ledger.pass(9));
  assert.deepEqual([3, 3, 0, 0], [ledger.received, ledger.compared, ledger.lost, ledger.missed]);
});

test("a message that is listed first is missed until it arrives", () => {
  const ledger = ledgerAfter(0, 1);

  list(ledger, [1, 2, 3]);
  const missed = ledger.missed;
  receive(ledger, 2, 3);

  assert.deepEqual([2, 0, 3], [missed, ledger.missed, ledger.compared]);
});

test("a message that the stream has passed is lost, although nothing announced it", () => {
  const ledger = ledgerAfter(0, 1, 3);

  list(ledger, [1, 2, 3, 4]);

  assert.deepEqual(["at 2"], ledger.pass(3));
  assert.deepEqual([1, 1, 1], [ledger.lost, ledger.unannounced, ledger.missed]);
});

test("a gap counts what was listed in it, and is announced", () => {
  const ledger = ledgerAfter(0, 1);
  list(ledger, [1, 2, 5, 9]);

  const gap = ledger.gap({ from: 2, to: 6 });

  assert.deepEqual({ lost: ["at 2", "at 5"], exact: true }, gap);
  assert.deepEqual([2, 0, 1], [ledger.lost, ledger.unannounced, ledger.missed]);
});

test("a gap is not exact if the log was not listed in time", () => {
  const late = ledgerAfter(0, 1);
  const behind = ledgerAfter(0, 1);

  list(late, [8, 9], { oldest: 8, lost: 7 });
  list(behind, [1, 2]);

  assert.equal(false, late.gap({ from: 2, to: 7 }).exact);
  assert.equal(false, behind.gap({ from: 2, to: 3 }).exact);
  assert.deepEqual([false, false], [late.exact, behind.exact]);
});

test("what the log has evicted is lost, unless it is on its way", () => {
  const ledger = ledgerAfter(0, 1);
  list(ledger, [1, 2, 3]);

  list(ledger, [4], { oldest: 3 });
  const before = [ledger.lost, ledger.missed];
  receive(ledger, 2, 3, 4);

  assert.deepEqual([1, 2], before);
  assert.deepEqual([0, 0, 4], [ledger.lost, ledger.missed, ledger.compared]);
});

test("what is missing is told with its fate, for the chart", () => {
  const ledger = ledgerAfter(0);

  list(ledger, [1, 2], { oldest: 2 });

  assert.deepEqual(
    [
      ["at 1", "lost"],
      ["at 2", "missed"],
    ],
    [...ledger.missing()],
  );
});

test("a message that was evicted before it was listed is not compared", () => {
  const ledger = ledgerAfter(0, 1, 2);

  list(ledger, [2], { oldest: 2 });

  assert.deepEqual([2, 1, 0], [ledger.received, ledger.compared, ledger.lost]);
});

test("a number that does not ascend is a duplicate", () => {
  const ledger = ledgerAfter(0);

  assert.deepEqual([true, false, true, false], receive(ledger, 1, 1, 3, 2));
  assert.deepEqual([2, 2], [ledger.received, ledger.duplicates]);
});

test("a reset loses what was missed, and a new epoch may begin below", () => {
  const ledger = ledgerAfter(100, 101);
  list(ledger, [101, 102]);

  assert.deepEqual(["at 102"], ledger.reset());
  ledger.begin(5);

  assert.deepEqual([true], receive(ledger, 6));
  assert.deepEqual([5, 1, 0], [ledger.since, ledger.lost, ledger.duplicates]);
});

test("what is retained in a gap arrives after it, and is not lost", () => {
  const ledger = ledgerAfter(0, 1);
  list(ledger, [1, 2, 5, 9]);

  ledger.gap({ from: 2, to: 6 });
  receive(ledger, 5, 9);

  assert.deepEqual([], ledger.pass(9));
  assert.deepEqual([1, 0, 0, 3], [ledger.lost, ledger.unannounced, ledger.missed, ledger.compared]);
});

test("a gap that ends in what was never listed is not counted exactly", () => {
  const ledger = ledgerAfter(0, 1);
  list(ledger, [7, 9], { oldest: 1, lost: 6 });

  const gap = ledger.gap({ from: 2, to: 6 });

  assert.deepEqual({ lost: [], exact: false }, gap);
});

const valued = (number, fields) => ({ ...stamp(number), key: "cart", topics: ["b", "a"], ...fields });

for (const fields of [{}, { deleted: true }, { topics: ["a", "b"] }]) {
  test(`a value that was replaced is not lost: ${JSON.stringify(fields)}`, () => {
    const ledger = ledgerAfter(0);
    ledger.list([valued(1), valued(2, { append: true })], { through: 2, oldest: 1 });

    ledger.receive({ ...valued(3, fields), recovered: true });

    assert.deepEqual([], ledger.pass(3));
    assert.deepEqual([0, 0], [ledger.lost, ledger.missed]);
  });
}

for (const fields of [{ append: true }, { key: "name" }, { topics: ["a"] }]) {
  test(`a message that replaces nothing leaves the others missed: ${JSON.stringify(fields)}`, () => {
    const ledger = ledgerAfter(0);
    ledger.list([valued(1)], { through: 1, oldest: 1 });

    ledger.receive({ ...valued(3, fields), recovered: true });

    assert.deepEqual(["at 1"], ledger.pass(3));
  });
}

test("a listed message that replaces a listed one is missed alone", () => {
  const ledger = ledgerAfter(0);

  ledger.list([valued(1), valued(2)], { through: 2, oldest: 1 });

  assert.equal(1, ledger.missed);
});
