import assert from "node:assert/strict";
import { test } from "node:test";

import { visible } from "../../../src/unmissed/browser/console/elements.js";
import {
  audienceWords,
  codeWords,
  entryWords,
  reasonWords,
  totalWords,
} from "../../../src/unmissed/browser/console/operator_words.js";

const ENTRY = { kind: "close", from: null, to: null, status: null, request: null, reason: "", code: null, count: 1 };

test("a number of connections has what matches before it, if a filter is set", () => {
  assert.deepEqual(["10,203", "12 of 10,203"], [totalWords(10_203, 10_203), totalWords(12, 10_203)]);
});

test("an audience distinguishes topics and users", () => {
  assert.equal("everyone", audienceWords({ everyone: true, topics: [], users: [] }));
  assert.equal("rooms.1, user rooms.2", audienceWords({ everyone: false, topics: ["rooms.1"], users: ["rooms.2"] }));
  assert.equal("users a, b", audienceWords({ everyone: false, topics: [], users: ["a", "b"] }));
});

test("an event says what happened, how often, and why", () => {
  const gap = { ...ENTRY, kind: "gap", from: 11, to: 300 };
  const refused = { ...ENTRY, kind: "refused", request: "WebSocket /ws", status: 401, count: 1_200 };

  assert.deepEqual(
    ["Gap: up to 290 lost", "of the numbers 11 to 300, the log had evicted some"],
    [entryWords(gap), reasonWords(gap)],
  );
  assert.equal("Refused WebSocket /ws (401), 1,200 times", entryWords(refused));
  assert.equal("the client came with the position 7", reasonWords({ ...ENTRY, kind: "reset", from: 7 }));
});

test("a close without a reason has the meaning of its code", () => {
  assert.equal("connection lost", reasonWords({ ...ENTRY, code: 1006 }));
  assert.equal("proxy restarts", reasonWords({ ...ENTRY, code: 1006, reason: "proxy restarts" }));
  assert.deepEqual(["", ""], [codeWords("other"), codeWords(null)]);
});

test("characters that turn a text around are shown as they are written in JSON", () => {
  assert.equal("\\u202egpj.exe", visible("\u202egpj.exe"));
  assert.equal("\u202egpj", JSON.parse(visible(JSON.stringify("\u202egpj"))));
  assert.equal("محمد 👩‍👩‍👧‍👦", visible("محمد 👩‍👩‍👧‍👦"));
});
