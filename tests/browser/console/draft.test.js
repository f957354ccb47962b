import assert from "node:assert/strict";
import { test } from "node:test";

import { audienceOf, draftOf, fieldOf } from "../../../src/unmissed/browser/console/draft.js";

const TYPED = { type: "note", topics: "", users: "", data: "" };

test("what is empty is left out, and a message without names is for everyone", () => {
  assert.deepEqual({ draft: { type: "note" }, errors: {} }, draftOf(TYPED));
});

test("topics are separated by spaces or commas, and users by lines", () => {
  const names = audienceOf({ topics: "rooms.1, rooms.2 rooms.1", users: "Smith, John\n\nмария\n" });

  assert.deepEqual({ topics: ["rooms.1", "rooms.2"], users: ["Smith, John", "мария"] }, names);
});

test("data is any JSON, also null and false", () => {
  for (const value of [null, false, 0, "", [], { text: "“quoted”" }]) {
    assert.deepEqual({ type: "note", data: value }, draftOf({ ...TYPED, data: JSON.stringify(value) }).draft);
  }
});

test("what is wrong is said beside its field", () => {
  const { errors } = draftOf({ type: " ", topics: "rooms 1 rooms#2", users: "", data: "{'text': 1}" });

  assert.deepEqual(["type", "topics", "data"], Object.keys(errors));
  assert.match(errors.topics, /“rooms#2” has not/);
  assert.match(errors.data, /^This is not JSON: .*double quotes\.$/);
});

test("more names than the server takes are refused before they are sent", () => {
  const users = Array.from({ length: 1_001 }, (_, index) => `user-${index}`).join("\n");

  assert.match(draftOf({ ...TYPED, users }).errors.users, /At most 1000 .* 1001/);
});

test("an error of the server belongs to the field that it names first", () => {
  assert.equal("type", fieldOf("type 'gap' is reserved"));
  assert.equal("topics", fieldOf("the topic 'a b' has a space; users are unaffected"));
  assert.equal("users", fieldOf("users must be a list"));
  assert.equal(undefined, fieldOf("the body is too large"));
});
