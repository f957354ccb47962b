/** Ephemeral messages: they have no number, and wait for nothing. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import {
  CONNECTED,
  FakeStorage,
  fakeHttp,
  fakeSockets,
  fakeTabs,
  message,
  pass,
  restoreGlobals,
  settled,
} from "./fakes.js";

const START = 1_796_000_000_000_000;
const GREETING = { ...CONNECTED, first: START - 900, latest: START, sequence_number: START };
const TYPING = message(undefined, { type: "typing", data: "bob" });

const streams = [];

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
  restoreGlobals();
});

async function opened(options = {}) {
  const http = fakeHttp();
  const sockets = fakeSockets();
  const stream = connect("http://server.test", { token: "t", ...options });
  streams.push(stream);
  await settled();
  return { stream, sockets, http };
}

test("an ephemeral message reaches handlers and loops, and leaves the position", async () => {
  const storage = new FakeStorage();
  const { stream, sockets } = await opened({ storage });
  const received = [];
  stream.on("typing", ({ data, recovered }) => received.push([data, recovered]));
  const [first] = [stream[Symbol.asyncIterator]().next()];
  await sockets[0].receive(GREETING);
  await pass(0);

  await sockets[0].receive(TYPING, TYPING);

  assert.deepEqual(received, [
    ["bob", false],
    ["bob", false],
  ]);
  assert.equal((await first).value.data, "bob");
  assert.equal(stream.position, START);
  assert.deepEqual([...storage.values()], [JSON.stringify([START, "e"])]);
});

test("an ephemeral message waits neither for a snapshot nor for the first handler", async () => {
  let load;
  const { stream, sockets } = await opened({ snapshot: () => new Promise((resolve) => (load = resolve)) });
  await sockets[0].receive(GREETING, TYPING);
  await pass(0);
  const received = [];
  stream.on("*", ({ type }) => received.push(type));
  await settled();
  assert.deepEqual(received, []);

  await sockets[0].receive(message(START + 1), TYPING);
  assert.deepEqual(received, ["typing"]);
  load(START);
  await pass(0);

  assert.deepEqual(received, ["typing", "chat"]);
});

test("many ephemeral messages before the first handler make the server send nothing again", async () => {
  const { stream, sockets } = await opened({ limit: 3 });
  await sockets[0].receive(GREETING, TYPING, TYPING, TYPING, TYPING, message(START + 1));
  const received = [];

  stream.on("*", ({ type }) => received.push(type));
  await settled();

  assert.deepEqual([received, sockets.length], [["chat"], 1]);
});

test("an ephemeral message reaches every tab", async () => {
  fakeTabs();
  const { sockets } = await opened({ shared: true, onMessage() {} });
  await sockets[0].receive(GREETING);
  const received = [];
  const onMessage = ({ type }) => received.push(type);
  streams.push(connect("http://server.test", { token: "t", shared: true, onMessage }));
  await settled();

  await sockets[0].receive(TYPING);

  assert.deepEqual(received, ["typing"]);
});

test("publishing an ephemeral message is answered without a number", async () => {
  const { stream, sockets } = await opened();
  await sockets[0].receive(GREETING);

  const answer = stream.publish({ type: "typing", ephemeral: true });
  const [{ id, message: sent }] = sockets[0].sent;
  await sockets[0].receive({ type: "published", id });

  assert.deepEqual(sent, { type: "typing", ephemeral: true });
  assert.equal(await answer, undefined);
});

test("over HTTP, an ephemeral message has no key, and other requests have one", async () => {
  const { stream, http } = await opened({ transports: ["events"] });
  http.answer = ({ path, body }) => {
    if (path === "/websocket/events") return "events";
    if (path === "/websocket/messages" && body.ephemeral) return { timestamp: TYPING.timestamp };
    return { data: "done" };
  };
  await pass(1000);
  await http.events[0].receive(GREETING);

  assert.equal(await stream.publish({ type: "typing", ephemeral: true }), undefined);
  assert.equal(await stream.command("note", { ephemeral: true }), "done");

  const posts = http.requests.filter(({ method }) => method === "POST");
  assert.deepEqual(
    posts.map(({ headers }) => "Idempotency-Key" in headers),
    [false, true],
  );
});

test("without a connection, publishing an ephemeral message is rejected at once, and never sent", async () => {
  const { stream, sockets } = await opened();
  await assert.rejects(stream.publish({ type: "typing", ephemeral: true }), { code: 1006, detail: "not connected" });
  await sockets[0].receive(GREETING);
  await sockets[0].end();

  await assert.rejects(stream.publish({ type: "typing", ephemeral: true }), { code: 1006 });
  await pass(500);
  await sockets[1].receive({ ...GREETING, outcome: "complete" });

  assert.deepEqual([sockets[0].sent, sockets[1].sent], [[], []]);
});

test("an ephemeral message without an answer is not repeated, and other messages are", async () => {
  const { stream, sockets } = await opened();
  await sockets[0].receive(GREETING);
  const lost = assert.rejects(stream.publish({ type: "typing", ephemeral: true }), { code: 4408 });
  stream.publish({ type: "chat" }).catch(() => {});
  await sockets[0].end();
  await pass(500);

  await sockets[1].receive({ ...GREETING, outcome: "complete" });

  await lost;
  assert.deepEqual(
    sockets[1].sent.map(({ message: { type } }) => type),
    ["chat"],
  );
});
