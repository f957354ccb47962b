/** Members of topics, and what a client says of itself. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import { CONNECTED, fakeHttp, fakeSockets, message, pass, restoreGlobals, settled } from "./fakes.js";

const START = 1_796_000_000_000_000;
const TOPICS = ["rooms.1", "rooms.2"];
const GREETING = {
  ...CONNECTED,
  first: START - 900,
  latest: START,
  sequence_number: START,
  topics: TOPICS,
  state: true,
};
const STATE = { type: "state", values: [], has_more: false, sequence_number: START };

const streams = [];

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
  restoreGlobals();
});

const presence = (number, user, data, fields = {}) =>
  message(START + number, { type: "presence", topics: ["rooms.1"], key: user, data, ...fields });

async function opened() {
  const http = fakeHttp();
  const sockets = fakeSockets();
  const stream = connect("http://server.test", { token: "t" });
  streams.push(stream);
  await settled();
  const again = async () => {
    await sockets.at(-1).end();
    await pass(500);
    await sockets.at(-1).receive({ ...GREETING, outcome: "complete" });
    return sockets.at(-1).sent.map(({ name, data }) => [name, data.topic, data.state]);
  };
  const answer = ({ id }, fields = { type: "result", data: null }) => sockets.at(-1).receive({ id, ...fields });
  return { stream, sockets, http, again, answer };
}

test("members come, change and leave, beside the values of their topic", async () => {
  const { stream, sockets } = await opened();
  const [members, values] = [stream.members("rooms.1"), stream.state("rooms.1")];
  const present = presence(-9, "alice", { connections: 2, state: "away" });
  const topic = message(START - 8, { topics: ["rooms.1"], key: "alice", data: "her value" });

  await sockets[0].receive(GREETING, { ...STATE, values: [present, topic] }, presence(1, "bob", { connections: 1 }));
  assert.deepEqual(Object.fromEntries(members), {
    alice: { connections: 2, state: "away" },
    bob: { connections: 1 },
  });
  await sockets[0].receive(
    presence(2, "alice", undefined, { deleted: true }),
    presence(3, "bob", { connections: 3 }),
    presence(4, "carol", { connections: 1 }, { topics: ["rooms.2"] }),
  );

  assert.deepEqual(Object.fromEntries(members), { bob: { connections: 3 } });
  assert.deepEqual([...values.keys()], ["alice"]);
  assert.equal(stream.members("rooms.1"), members);
});

test("what a client has said of itself is said again after each reconnect, with its last words", async () => {
  const { stream, sockets, again, answer } = await opened();
  await sockets[0].receive(GREETING);
  const said = [
    stream.setPresence("rooms.1", "typing"),
    stream.setPresence("rooms.2", { mood: 1 }),
    stream.setPresence("rooms.1"),
  ];
  assert.deepEqual(
    sockets[0].sent.map(({ type, name, data }) => [type, name, data]),
    [
      ["command", "presence", { topic: "rooms.1", state: "typing" }],
      ["command", "presence", { topic: "rooms.2", state: { mood: 1 } }],
      ["command", "presence", { topic: "rooms.1" }],
    ],
  );
  for (const frame of sockets[0].sent) await answer(frame);
  assert.deepEqual(await Promise.all(said), [undefined, undefined, undefined]);

  const expected = [
    ["presence", "rooms.1", undefined],
    ["presence", "rooms.2", { mood: 1 }],
  ];
  assert.deepEqual(await again(), expected);
  for (const frame of sockets[1].sent) await answer(frame);
  assert.deepEqual(await again(), expected);
});

test("what has no answer yet is repeated once, and nothing older after it", async () => {
  const { stream, sockets, again, answer } = await opened();
  await sockets[0].receive(GREETING);
  const first = stream.setPresence("rooms.1", "first");
  await answer(sockets[0].sent[0]);
  await first;
  stream.setPresence("rooms.1", "second").catch(() => {});

  assert.deepEqual(await again(), [["presence", "rooms.1", "second"]]);
});

test("what was refused is not said again", async () => {
  const { stream, sockets, again, answer } = await opened();
  await sockets[0].receive(GREETING);
  const refused = assert.rejects(stream.setPresence("rooms.1", "typing"), { code: 4403 });
  await answer(sockets[0].sent[0], { type: "error", code: 4403, detail: "not granted" });
  await refused;

  assert.deepEqual(await again(), []);
});

test("what is refused later is an error", async () => {
  const { stream, sockets, again, answer } = await opened();
  const errors = [];
  stream.addEventListener("error", ({ detail }) => errors.push([detail.during, detail.error.code]));
  await sockets[0].receive(GREETING);
  const said = stream.setPresence("rooms.1", "typing");
  await answer(sockets[0].sent[0]);
  await said;

  await again();
  await answer(sockets[1].sent[0], { type: "error", code: 4403, detail: "not granted" });

  assert.deepEqual(errors, [["presence", 4403]]);
});
