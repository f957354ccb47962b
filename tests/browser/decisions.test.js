/** The pure parts of the client. */

import assert from "node:assert/strict";
import test from "node:test";

import {
  actionAfter,
  parsedJson,
  pauseAfterFailures,
  placeAfter,
} from "../../src/unmissed/browser/client/decisions.js";
import { eventParser } from "../../src/unmissed/browser/client/events.js";

test("a text that is not JSON is no frame", () => {
  assert.equal(parsedJson("nonsense"), undefined);
  assert.equal(parsedJson(undefined), undefined);
});

test("JSON that is nested deeply is read", () => {
  const deep = "[".repeat(100_000) + "]".repeat(100_000);

  assert.equal(parsedJson(`{"type":"a","data":${deep}}`).type, "a");
});

test("a frame without a number leaves the position", () => {
  assert.equal(placeAfter({ position: 5, epoch: "e" }, { type: "pong" }).position, 5);
  assert.equal(placeAfter({}, { type: "pong" }).position, undefined);
});

test("the position does not move back within an epoch", () => {
  const place = { position: 9, epoch: "e" };

  assert.equal(placeAfter(place, { type: "published", sequence_number: 3 }).position, 9);
  assert.equal(
    placeAfter(place, { type: "connected", epoch: "e", outcome: "complete", sequence_number: 3 }).position,
    9,
  );
});

const FIRST = 1_796_000_000_000_001;
const gap = (from, to) => ({ type: "gap", from, to, sequence_number: from - 1 });

test("a gap leaves the position, so that what is retained in its range follows", () => {
  const { loss, ...place } = placeAfter({ position: FIRST + 5, epoch: "e" }, gap(FIRST + 6, FIRST + 90));

  assert.deepEqual(place, { position: FIRST + 5, epoch: "e", declared: FIRST + 90 });
  assert.deepEqual(loss, { type: "gap", from: FIRST + 6, to: FIRST + 90 });
});

test("a gap that was filled or declared already is none", () => {
  const place = { position: FIRST + 20, epoch: "e", declared: FIRST + 40 };
  const connected = { type: "connected", epoch: "e", outcome: "gap", sequence_number: FIRST + 20, from: FIRST + 21 };

  assert.ok(!placeAfter({ ...place, declared: 0 }, gap(FIRST + 9, FIRST + 20)).loss);
  assert.ok(!placeAfter(place, gap(FIRST + 21, FIRST + 40)).loss);
  assert.ok(!placeAfter(place, { ...connected, to: FIRST + 40 }).loss);
  assert.deepEqual(placeAfter(place, { ...connected, to: FIRST + 41 }).loss.to, FIRST + 41);
});

test("a gap begins after the position, and with the first number of the epoch at the earliest", () => {
  const connected = { type: "connected", epoch: "e", outcome: "gap", to: FIRST + 9 };

  assert.equal(placeAfter({ position: 0 }, { ...connected, from: FIRST, sequence_number: FIRST - 1 }).loss.from, FIRST);
  assert.equal(placeAfter({ position: FIRST + 4 }, gap(FIRST + 2, FIRST + 9)).loss.from, FIRST + 5);
});

for (const epoch of ["e", "f"]) {
  test(`a reset replaces the position, also by a lower one: from epoch e to ${epoch}`, () => {
    const reset = { type: "connected", epoch, outcome: "reset", sequence_number: FIRST + 3 };

    const { loss, ...place } = placeAfter({ position: FIRST + 900, epoch: "e", declared: FIRST + 400 }, reset);

    assert.deepEqual(place, { position: FIRST + 3, epoch, declared: 0 });
    assert.deepEqual(loss, { type: "reset", epoch });
  });
}

test("a message of the type reset is none", () => {
  const message = { type: "reset", sequence_number: FIRST + 3, timestamp: "2026-01-31T12:00:00.000Z" };

  assert.ok(!placeAfter({ position: FIRST, epoch: "e" }, message).loss);
});

test("pauses are random up to twice as long after every failure, and at most 4 seconds, or 30 after many", () => {
  const pauseOf = (failures, random) => pauseAfterFailures(failures, undefined, random);

  assert.deepEqual(
    [0, 1, 2, 3, 4, 59, 60, 600].map((failures) => pauseOf(failures, 1)),
    [500, 1000, 2000, 4000, 4000, 4000, 30_000, 30_000],
  );
  assert.equal(pauseOf(3, 0.25), 1000);
  assert.equal(pauseOf(3, 0), 0);
  assert.equal(pauseAfterFailures(4, 30_000, 1), 8000);
});

test("the close codes of the protocol lead to what it says", () => {
  assert.deepEqual([1009, 4400, 4403].map(actionAfter), ["stop", "stop", "stop"]);
  assert.deepEqual([4401, 4408].map(actionAfter), ["renew", "renew"]);
  assert.equal(actionAfter(4429), "slow");
  assert.deepEqual([1000, 1001, 1006, 1011, 1012, 1013, 3000, 4999].map(actionAfter), Array(8).fill("resume"));
});

test("statuses of HTTP are close codes, too", () => {
  assert.deepEqual(
    [400, 401, 403, 404, 429, 500].map((status) => actionAfter(4000 + status)),
    ["stop", "renew", "stop", "resume", "slow", "resume"],
  );
});

test("events are read from pieces of any size", () => {
  const stream = 'id: 7\ndata: {"type":"a","data":"x\\ny"}\n\n: comment\r\n\r\nid: 8\r\ndata:{"type":"b"}\r\n\r\n';

  for (let size = 1; size <= stream.length; size++) {
    const frames = [];
    const parse = eventParser((frame) => frames.push(frame));
    for (let start = 0; start < stream.length; start += size) parse(stream.slice(start, start + size));

    assert.deepEqual(frames, [{ type: "a", data: "x\ny" }, { type: "b" }]);
  }
});
