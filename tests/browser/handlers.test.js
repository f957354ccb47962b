/** Messages that come before a page has a handler wait for it. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import {
  CONNECTED,
  FakeLog,
  FakeStorage,
  fakeHttp,
  fakeSockets,
  fakeTabs,
  message,
  pass,
  record,
  restoreGlobals,
  settled,
} from "./fakes.js";

const START = 1_796_000_000_000_000;
const EARLY = { ...CONNECTED, first: START + 1, oldest: START + 1, latest: START, sequence_number: START };

const streams = [];

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
  restoreGlobals();
});

/** Connects without a handler, and receives messages: their numbers follow START. */
async function opened(count, options = {}) {
  const storage = new FakeStorage();
  const sockets = fakeSockets();
  const stream = connect("http://server.test", { token: "t", storage, ...options });
  streams.push(stream);
  await settled();
  await sockets[0].receive(EARLY, ...messages(1, count));
  await pass(0);
  return { stream, sockets, storage };
}

const messages = (from, to, fields) => {
  const all = [];
  for (let number = from; number <= to; number++) all.push(message(START + number, fields));
  return all;
};

const numbers = (from, to) => messages(from, to).map(({ sequence_number }) => sequence_number);

/** Adds a handler, and returns the numbers that it gets. */
function handled(stream, type = "*") {
  const received = [];
  stream.on(type, ({ sequence_number }) => received.push(sequence_number));
  return received;
}

test("a page that awaits something between connect and on loses nothing", async () => {
  const { stream, storage, sockets } = await opened(50);
  assert.deepEqual([stream.status, stream.position, storage.size], ["live", START, 0]);

  const received = handled(stream);
  assert.deepEqual(received, []);
  await settled();
  await sockets[0].receive(...messages(51, 52));

  assert.deepEqual(received, numbers(1, 52));
  assert.equal(stream.position, START + 52);
  assert.deepEqual([...storage.values()], [JSON.stringify([START + 52, "e"])]);
});

test("handlers that are added together all get what waits", async () => {
  const { stream, sockets } = await opened(3);
  await sockets[0].receive(...messages(4, 5, { type: "order" }));

  const all = [handled(stream, "chat"), handled(stream, "order"), handled(stream)];
  await settled();

  assert.deepEqual(all, [numbers(1, 3), numbers(4, 5), numbers(1, 5)]);
});

test("a loop gets what waits", async () => {
  const { stream } = await opened(3);
  const received = [];

  for await (const { sequence_number } of stream) {
    received.push(sequence_number);
    if (received.length === 3) break;
  }

  assert.deepEqual(received, numbers(1, 3));
});

test("the option onMessage is a handler from the start", async () => {
  const received = [];
  const { storage } = await opened(3, { onMessage: ({ sequence_number }) => received.push(sequence_number) });

  assert.deepEqual(received, numbers(1, 3));
  assert.deepEqual([...storage.values()], [JSON.stringify([START + 3, "e"])]);
});

test("the position that is stored moves with each message that has waited", async () => {
  const { stream, storage } = await opened(3);
  const seen = [];
  stream.on("*", ({ sequence_number }) => {
    seen.push([stream.position, JSON.parse([...storage.values()])[0]]);
    if (sequence_number === START + 2) stream.close();
  });

  await settled();

  assert.deepEqual(seen, [
    [START + 1, START + 1],
    [START + 2, START + 2],
  ]);
  assert.deepEqual([...storage.values()], [JSON.stringify([START + 2, "e"])]);
});

test("heartbeats move the position while nothing waits, but it is not stored", async () => {
  const { stream, sockets, storage } = await opened(0);

  await sockets[0].receive({ type: "heartbeat", sequence_number: START + 9 });
  assert.deepEqual([stream.position, storage.size], [START + 9, 0]);
  await sockets[0].receive(...messages(10, 10), { type: "heartbeat", sequence_number: START + 19 });

  assert.deepEqual([stream.position, storage.size], [START + 9, 0]);
});

test("a page without a handler knows its status, and publishes", async () => {
  const { stream, sockets } = await opened(3);
  const answer = stream.publish({ type: "chat" });

  await sockets[0].receive({ type: "published", id: sockets[0].sent[0].id, sequence_number: START + 4 });

  assert.deepEqual([await answer, stream.status, stream.position], [START + 4, "live", START]);
});

test("a reconnect in between leaves nothing out, and doubles nothing", async () => {
  const { stream, sockets } = await opened(3);

  await sockets[0].end();
  await pass(500);
  await sockets[1].receive({ ...EARLY, outcome: "complete", sequence_number: START + 3 }, ...messages(4, 6));
  const received = handled(stream);
  await settled();

  assert.equal(new URL(sockets[1].url).searchParams.get("since"), `${START + 3}`);
  assert.deepEqual(received, numbers(1, 6));
});

test("losses wait in their place", async () => {
  const { stream, sockets } = await opened(2);
  const gap = { type: "gap", from: START + 3, to: START + 5, sequence_number: START + 2 };
  await sockets[0].receive(gap, ...messages(4, 4), ...messages(6, 6));

  const events = record(stream);
  await settled();

  assert.deepEqual(events, [
    ["message", START + 1, false],
    ["message", START + 2, false],
    ["gap", START + 3, START + 5],
    ["message", START + 4, false],
    ["message", START + 6, false],
  ]);
});

test("more messages than may wait come from the server again", async () => {
  const { stream, sockets } = await opened(20, { limit: 10 });
  assert.equal(stream.position, START);

  const received = handled(stream);
  await settled();
  assert.deepEqual(received, numbers(1, 10));
  await sockets[1].receive({ ...EARLY, outcome: "complete", sequence_number: START + 10 }, ...messages(11, 20));

  assert.equal(new URL(sockets[1].url).searchParams.get("since"), `${START + 10}`);
  assert.ok(sockets[0].closed);
  assert.deepEqual(received, numbers(1, 20));
});

test("a page that never has a handler recovers nothing again with each reconnect", async () => {
  const { sockets } = await opened(20, { limit: 10 });

  await sockets[0].end();
  await pass(500);

  assert.equal(new URL(sockets[1].url).searchParams.get("since"), `${START + 20}`);
});

test("what came too early and was lost by the server is declared", async () => {
  const { stream, sockets } = await opened(20, { limit: 10 });

  const events = record(stream);
  await settled();
  const lost = { ...EARLY, outcome: "gap", from: START + 11, to: START + 15, sequence_number: START + 10 };
  await sockets[1].receive(lost, ...messages(13, 13), ...messages(16, 20));

  assert.deepEqual(events[10], ["gap", START + 11, START + 15]);
  assert.deepEqual(
    events.filter(([type]) => type === "message").map(([, number]) => number),
    [...numbers(1, 10), START + 13, ...numbers(16, 20)],
  );
});

test("a gap that waited for the first handler is not declared again when the server sends the rest again", async () => {
  const { stream, sockets } = await opened(2, { limit: 5 });
  const gap = { type: "gap", from: START + 3, to: START + 90, sequence_number: START + 2 };
  await sockets[0].receive(gap, ...messages(20, 30), ...messages(91, 91));

  const events = record(stream);
  await settled();
  const again = { ...EARLY, outcome: "gap", from: START + 22, to: START + 90, sequence_number: START + 21 };
  await sockets[1].receive(again, ...messages(22, 30), ...messages(91, 91));

  assert.equal(new URL(sockets[1].url).searchParams.get("since"), `${START + 21}`);
  assert.deepEqual(
    events.map(([, number]) => number),
    [START + 1, START + 2, START + 3, ...numbers(20, 30), START + 91],
  );
});

test("a snapshot is loaded without a handler, and what it lacks waits for one", async () => {
  let loads = 0;
  const { stream, sockets, storage } = await opened(3, {
    snapshot: async () => {
      loads++;
      return START + 1;
    },
  });
  await sockets[0].receive(...messages(4, 4));
  assert.deepEqual([loads, storage.size], [1, 0]);

  const received = handled(stream);
  await settled();

  assert.deepEqual(received, numbers(2, 4));
});

test("more messages than may wait after a snapshot come from the server again, too", async () => {
  const { stream, sockets } = await opened(3, { limit: 10, snapshot: async () => START + 1 });
  await sockets[0].receive(...messages(4, 20));
  assert.equal(stream.position, START + 1);

  const received = handled(stream);
  await settled();

  assert.deepEqual(received, numbers(2, 11));
  assert.equal(new URL(sockets[1].url).searchParams.get("since"), `${START + 11}`);
});

test("a snapshot that is older than what waits goes back, and nothing comes twice", async () => {
  const { stream, sockets } = await opened(3, { since: START, epoch: "e", snapshot: async () => START - 5 });
  await sockets[1].receive({ ...EARLY, outcome: "complete", sequence_number: START - 5 }, ...messages(-4, 3));

  const received = handled(stream);
  await settled();

  assert.deepEqual(received, numbers(-4, 3));
});

test("a gap that needs another snapshot makes what waits void", async () => {
  const answers = [START, START + 9];
  const { stream, sockets } = await opened(3, { snapshot: async () => answers.shift() });
  await sockets[0].receive({ type: "gap", from: START + 4, to: START + 8, sequence_number: START + 3 });
  await pass(0);
  await sockets[0].receive(...messages(6, 6), ...messages(9, 10));

  const events = record(stream);
  await settled();

  assert.deepEqual(events, [
    ["gap", START + 4, START + 8],
    ["message", START + 10, false],
  ]);
});

test("a tab without a handler fills no hole twice, and delivers all later", async () => {
  fakeTabs();
  const log = new FakeLog(START + 1);
  const http = fakeHttp(log.answer);
  const { sockets } = await opened(0, { shared: true, onMessage() {} });
  const tab = connect("http://server.test", { token: "t", shared: true });
  streams.push(tab);
  await settled();
  await sockets[0].receive(...messages(1, 50));

  const received = handled(tab);
  await settled();

  assert.deepEqual(received, numbers(1, 50));
  assert.equal(http.requests.length, 0);
});

test("a stream that ends without a handler delivers nothing", async () => {
  const { stream, storage } = await opened(3);

  stream.close();
  const received = handled(stream);
  await settled();

  assert.deepEqual([received, storage.size], [[], 0]);
});
