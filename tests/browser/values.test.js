/** Maps of values by key: how they are loaded, and how messages change them. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import {
  CONNECTED,
  fakeHttp,
  fakeSockets,
  fakeTabs,
  message,
  pass,
  problem,
  restoreGlobals,
  setGlobal,
  settled,
} from "./fakes.js";

const START = 1_796_000_000_000_000;
const GREETING = { ...CONNECTED, first: START - 900, latest: START, sequence_number: START, topics: ["users.42"] };
const CONTINUED = { ...GREETING, state: true, outcome: "complete" };

const streams = [];

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
  restoreGlobals();
});

/** A value, or with other fields what changes it. The number follows START. */
const value = (number, key, data, fields = {}) =>
  message(START + number, { type: "cart", topics: ["users.42"], key, data, ...fields });

const piece = (number, key, data) => value(number, key, data, { append: true });

const end = (number, key) => value(number, key, undefined, { deleted: true });

/** A frame with values. Without a number, more of them follow. */
const stateFrame = (values, number) => ({
  type: "state",
  values,
  has_more: number === undefined,
  ...(number !== undefined && { sequence_number: START + number }),
});

/** An answer over REST. */
const statePage = (values, number, fields = {}) => ({
  values,
  epoch: "e",
  latest: START + number,
  sequence_number: START + number,
  has_more: false,
  topics: ["users.42"],
  ...fields,
});

const data = (map) => Object.fromEntries([...map].map(([key, each]) => [key, each.data]));

/** Opens a stream that has asked for the values of a topic before it was connected. */
async function opened(options = {}, topic = "users.42") {
  const http = fakeHttp(() => statePage([], 0));
  const sockets = fakeSockets();
  const stream = connect("http://server.test", { token: async () => "t", ...options });
  streams.push(stream);
  const map = stream.state(topic);
  await settled();
  return { stream, sockets, http, map, requests: http.requests };
}

/** The same, after the connection has sent the values. */
async function loaded(...values) {
  const page = await opened();
  await page.sockets[0].receive({ ...GREETING, state: true }, stateFrame(values, 0));
  await pass(0);
  return page;
}

test("the connection sends the values in parts, of which the last makes the map", async () => {
  const { map, sockets, requests } = await opened();
  let changes = 0;
  map.subscribe(() => changes++);

  await sockets[0].receive({ ...GREETING, state: true }, stateFrame([value(-90, "a", 1), value(-80, "b", 2)]));
  assert.deepEqual([map.size, map.loaded, changes], [0, false, 0]);
  await sockets[0].receive(stateFrame([value(-70, "c", 3)], 0));
  await pass(0);

  assert.equal(new URL(sockets[0].url).searchParams.get("state"), "true");
  assert.deepEqual([data(map), map.loaded, changes], [{ a: 1, b: 2, c: 3 }, true, 1]);
  assert.equal(map.get("a").type, "cart");
  assert.equal(requests.length, 0);
});

test("a stream without a map asks for no values", async () => {
  fakeHttp();
  const sockets = fakeSockets();
  streams.push(connect("http://server.test", { token: "t" }));
  await settled();

  assert.equal(new URL(sockets[0].url).searchParams.get("state"), null);
});

test("messages replace values, end them, and add others", async () => {
  const { map, sockets } = await loaded(value(-90, "a", 1), value(-80, "b", 2));

  await sockets[0].receive(
    value(1, "a", 10),
    end(2, "b"),
    value(3, "c", 30),
    message(START + 4, { topics: ["users.42"] }),
  );

  assert.deepEqual(data(map), { a: 10, c: 30 });
});

test("messages and presence of other topics change nothing", async () => {
  const { map, sockets } = await loaded(value(-90, "a", 1));

  await sockets[0].receive(
    value(1, "a", 2, { topics: ["users.43"] }),
    value(2, "a", 3, { topics: undefined }),
    value(3, "a", { connections: 1 }, { type: "presence" }),
  );

  assert.deepEqual(data(map), { a: 1 });
});

test("pieces of text are one text, also those that the state had", async () => {
  const { map, sockets } = await loaded(value(-90, "run", "On"), piece(-80, "run", "ce "), piece(-70, "other", "I "));

  await sockets[0].receive(piece(1, "run", "upon"), piece(2, "other", "am"), piece(3, "run", " a time"));
  assert.deepEqual(data(map), { run: "Once upon a time", other: "I am" });
  await sockets[0].receive(value(4, "run", "The end"), piece(5, "run", "."));

  assert.equal(map.get("run").data, "The end.");
});

test("pieces that are no text are a list", async () => {
  const { map, sockets } = await loaded(value(-90, "a", { items: 1 }));

  await sockets[0].receive(piece(1, "a", { added: 2 }), piece(2, "a", "text"), piece(3, "b", 7));

  assert.deepEqual([map.get("a").data, map.get("a").pieces], [{ items: 1 }, [{ added: 2 }, "text"]]);
  assert.deepEqual([map.get("b").data, map.get("b").pieces], [undefined, [7]]);
  await sockets[0].receive(value(4, "c", "text"), piece(5, "c", { bold: true }), piece(6, "c", "more"));

  assert.deepEqual([map.get("c").data, map.get("c").pieces], ["text", [{ bold: true }, "more"]]);
});

test("a key has a value for each audience, and shows the newest", async () => {
  const both = { topics: ["users.42", "carts"] };
  const { map, sockets } = await loaded(value(-90, "a", "mine"), value(-80, "a", "ours", both));
  assert.deepEqual(data(map), { a: "ours" });

  await sockets[0].receive(value(1, "a", undefined, { topics: ["carts", "users.42"], deleted: true }));
  assert.deepEqual(data(map), { a: "mine" });
  await sockets[0].receive(end(2, "a"));

  assert.deepEqual(data(map), {});
});

test("the values without a topic have a map, too", async () => {
  const { stream, sockets } = await opened();
  const map = stream.state();
  const plain = { topics: undefined };

  await sockets[0].receive(
    { ...GREETING, topics: undefined, state: true },
    stateFrame([value(-9, "notice", "a", plain), value(-8, "cart", 1)], 0),
    value(1, "notice", "b", plain),
  );

  assert.deepEqual(data(map), { notice: "b" });
});

test("a topic has one map, which is loaded over REST if the stream is connected", async () => {
  const { stream, sockets, http, requests } = await opened();
  await sockets[0].receive({ ...GREETING, topics: ["users.42", "shop"], state: true }, stateFrame([], 0));
  http.answer = () => statePage([value(-9, "tea", 3, { topics: ["shop"] })], 0);

  const map = stream.state("shop");
  assert.equal(stream.state("shop"), map);
  await pass(0);

  assert.deepEqual([data(map), map.loaded], [{ tea: 3 }, true]);
  assert.deepEqual(
    requests.map(({ path, query }) => [path, query]),
    [["/websocket/state", {}]],
  );
  assert.equal(requests[0].headers.get("Authorization"), "Bearer t");
});

test("what comes while values are loaded changes them if it is newer than they are", async () => {
  const { map, sockets, http } = await opened();
  let answer;
  http.answer = () => new Promise((resolve) => (answer = resolve));
  await sockets[0].receive(GREETING);
  await pass(0);

  await sockets[0].receive(piece(1, "run", "a"), piece(2, "run", "b"), value(3, "old", 1), piece(4, "run", "c"));
  answer(statePage([piece(1, "run", "a"), piece(2, "run", "b")], 3));
  await pass(0);
  await sockets[0].receive(piece(5, "run", "d"));

  assert.deepEqual(data(map), { run: "abcd" });
});

test("a state that is ahead of the connection includes what arrives up to its number", async () => {
  const { map, sockets, http } = await opened();
  http.answer = () => statePage([piece(1, "run", "a"), piece(2, "run", "b")], 3);
  await sockets[0].receive(GREETING);
  await pass(0);

  await sockets[0].receive(piece(1, "run", "a"), piece(2, "run", "b"), piece(4, "run", "c"));

  assert.deepEqual(data(map), { run: "abc" });
});

test("values over REST come in pages", async () => {
  const { map, sockets, http, requests } = await opened();
  http.answer = ({ query }) =>
    query.after
      ? statePage([value(-1, "b", 2)], 5)
      : statePage([value(-9, "a", 1), value(-8, "c", 3)], 5, { has_more: true });

  await sockets[0].receive(GREETING);
  await pass(0);

  assert.deepEqual(data(map), { a: 1, b: 2, c: 3 });
  assert.deepEqual(requests[1].query, { after: `${START - 8}`, through: `${START + 5}` });
});

test("a state that was cut before its end is loaded", async () => {
  const { map, sockets, http, requests } = await opened();
  http.answer = () => statePage([value(-90, "a", 1), value(-70, "b", 2)], 0);
  await sockets[0].receive({ ...GREETING, state: true }, stateFrame([value(-90, "a", 1)]));

  await sockets[0].end();
  await pass(500);
  await sockets[1].receive(CONTINUED);
  await pass(0);

  assert.deepEqual([data(map), requests.length], [{ a: 1, b: 2 }, 1]);
});

test("a reconnect that lost nothing keeps the values", async () => {
  const { map, sockets, requests } = await loaded(value(-90, "a", 1));

  await sockets[0].end();
  await pass(500);
  await sockets[1].receive(CONTINUED, value(1, "b", 2));
  await pass(0);

  assert.deepEqual([data(map), requests.length], [{ a: 1, b: 2 }, 0]);
});

test("after a gap, the values behind it are loaded, without those that have lost a piece", async () => {
  const { map, sockets, http, requests } = await loaded(
    value(-90, "a", 1),
    value(-80, "b", 2),
    piece(-70, "text", "be"),
  );
  http.answer = () => statePage([value(-90, "a", 1), value(5, "c", 3)], 10);
  await sockets[0].end();
  await pass(500);

  await sockets[1].receive(
    { ...CONTINUED, outcome: "gap", from: START + 1, to: START + 9 },
    stateFrame([value(-90, "a", 1)], 0),
    value(5, "c", 3),
    piece(10, "text", "end"),
  );
  await pass(0);

  assert.deepEqual([data(map), requests.length], [{ a: 1, c: 3 }, 1]);
});

test("after a gap of a slow connection, the values are loaded, and kept until then", async () => {
  const { map, sockets, http } = await loaded(value(-90, "a", 1));
  let answer;
  http.answer = () => new Promise((resolve) => (answer = resolve));

  await sockets[0].receive({ type: "gap", from: START + 1, to: START + 9, sequence_number: START }, value(5, "c", 3));
  await pass(0);
  assert.deepEqual([data(map), map.loaded], [{ a: 1, c: 3 }, true]);
  answer(statePage([value(5, "c", 3)], 9));
  await pass(0);

  assert.deepEqual(data(map), { c: 3 });
});

test("values of a node that does not know all that was lost are loaded again", async () => {
  const { map, sockets, http, requests } = await loaded(value(-90, "a", 1));
  http.answer = () => (requests.length > 1 ? statePage([], 9) : statePage([value(-90, "a", 1)], 8));

  await sockets[0].receive({ type: "gap", from: START + 1, to: START + 9, sequence_number: START });
  await pass(0);
  assert.deepEqual([data(map), requests.length], [{ a: 1 }, 1]);
  await pass(1000);

  assert.deepEqual([data(map), requests.length], [{}, 2]);
});

test("a reset replaces the values, also by lower numbers", async () => {
  const { map, sockets, http } = await loaded(value(-90, "a", 1));
  http.answer = () => statePage([value(-798, "b", 3)], -798, { epoch: "f" });
  await sockets[0].end();
  await pass(500);

  const reset = { ...CONTINUED, epoch: "f", outcome: "reset", sequence_number: START - 800 };
  await sockets[1].receive(reset, stateFrame([], -800), value(-799, "b", 2), value(-798, "b", 3));
  await pass(0);

  assert.deepEqual(data(map), { b: 3 });
});

test("after a reset, lower numbers change the map also before it is loaded", async () => {
  const { map, sockets, http } = await loaded(value(-90, "a", 1), value(-80, "b", 2));
  http.answer = () => new Promise(() => {});
  await sockets[0].end();
  await pass(500);

  const reset = { ...CONTINUED, state: undefined, epoch: "f", outcome: "reset", sequence_number: START - 800 };
  await sockets[1].receive(reset, value(-799, "a", 5));

  assert.deepEqual(data(map), { a: 5, b: 2 });
});

test("a request for values from before a loss changes nothing", async () => {
  const { map, sockets, http } = await opened();
  const answers = [];
  http.answer = () => new Promise((resolve) => answers.push(resolve));
  await sockets[0].receive(GREETING);
  await pass(0);
  await sockets[0].end();
  await pass(500);

  const lost = { ...CONTINUED, outcome: "gap", from: START + 1, to: START + 9 };
  await sockets[1].receive(lost, value(10, "b", 2));
  await pass(0);
  answers[0](statePage([value(-90, "a", 1), value(-80, "deleted", 3)], 9));
  await pass(0);
  assert.deepEqual([data(map), map.loaded, answers.length], [{ b: 2 }, false, 2]);
  answers[1](statePage([value(-90, "a", 1), value(10, "b", 2)], 10));
  await pass(0);

  assert.deepEqual(data(map), { a: 1, b: 2 });
});

test("a topic that is not followed is followed, and then loaded", async () => {
  const { map, sockets, http, requests } = await opened({}, "shop");
  http.answer = () => statePage([value(-9, "tea", 3, { topics: ["shop"] })], 0);
  await sockets[0].receive({ ...GREETING, state: true }, stateFrame([], 0));
  await pass(0);
  const [{ id, type, topics }] = sockets[0].sent;
  assert.deepEqual([type, topics, map.loaded, requests.length], ["follow", ["shop"], false, 0]);

  await sockets[0].receive({ type: "following", id, added: ["shop"], removed: [], sequence_number: START });
  await pass(0);
  await sockets[0].receive(value(1, "milk", 2, { topics: ["shop"] }));

  assert.deepEqual([data(map), map.loaded], [{ tea: 3, milk: 2 }, true]);
});

test("a topic that is not granted is an error", async () => {
  const errors = [];
  const { stream, map, sockets } = await opened({}, "secret");
  stream.addEventListener("error", ({ detail }) => errors.push([detail.during, detail.error.code]));
  await sockets[0].receive({ ...GREETING, state: true }, stateFrame([], 0));

  await sockets[0].receive({ type: "error", id: sockets[0].sent[0].id, code: 4403, detail: "not granted" });
  await sockets[0].end();
  await pass(500);
  await sockets[1].receive(CONTINUED);

  assert.deepEqual([errors, map.loaded, sockets[1].sent], [[["state", 4403]], false, []]);
});

test("a topic that is followed again has its values loaded again", async () => {
  const { stream, map, sockets, http } = await loaded(value(-90, "a", 1));
  http.answer = () => statePage([value(4, "a", 4)], 5);
  stream.unfollow("users.42");
  stream.follow("users.42");
  const [away, back] = sockets[0].sent;

  await sockets[0].receive({ type: "following", ...away, added: [], removed: away.topics, sequence_number: START });
  await sockets[0].receive({ type: "following", ...back, added: back.topics, removed: [], sequence_number: START + 5 });
  await pass(0);

  assert.deepEqual(data(map), { a: 4 });
});

test("values that cannot be loaded are reported, and loaded again after a pause", async () => {
  const errors = [];
  const { stream, map, sockets, http } = await opened();
  stream.addEventListener("error", ({ detail }) => errors.push([detail.during, detail.error.message]));
  http.answer = () => problem(503, "the log is away");
  await sockets[0].receive(GREETING);
  await pass(0);
  http.answer = () => statePage([value(-9, "a", 1)], 0);
  await pass(500);

  assert.deepEqual([errors, data(map)], [[["state", "the log is away"]], { a: 1 }]);
});

test("a stream that goes back to an old snapshot adds no piece twice", async () => {
  const { map, sockets } = await opened({ snapshot: async () => START - 50 });
  const before = piece(-40, "run", "a");

  await sockets[0].receive({ ...GREETING, state: true }, stateFrame([before], 0), piece(1, "run", "b"));
  await pass(0);
  await sockets[1].receive(
    { ...CONTINUED, sequence_number: START - 50 },
    before,
    piece(1, "run", "b"),
    piece(2, "run", "c"),
  );

  assert.deepEqual(data(map), { run: "abc" });
});

for (const transport of ["events", "polling"]) {
  test(`over ${transport}, values are kept, too`, async () => {
    const { map, http, requests } = await opened({ transports: [transport] });
    const answers = { "/websocket/events": "events", "/websocket/state": statePage([value(-9, "a", 1)], 0) };
    http.answer = ({ path, query }) =>
      answers[path] ?? {
        ...GREETING,
        messages: query.since ? [value(1, "b", 2)] : [],
        outcome: "complete",
        has_more: false,
      };
    await pass(1000);
    await http.events[0]?.receive({ ...GREETING, state: true }, stateFrame([value(-9, "a", 1)], 0), value(1, "b", 2));
    await pass(6000);

    assert.deepEqual(data(map), { a: 1, b: 2 });
    assert.equal(requests.at(-1).query.state, "true");
  });
}

test("tabs that share a connection keep values, each for itself", async () => {
  fakeTabs();
  const { stream, sockets, http } = await opened({ shared: true });
  await sockets[0].receive({ ...GREETING, state: true }, stateFrame([value(-9, "a", 1)], 0));
  http.answer = () => statePage([value(-9, "a", 1)], 0);
  const other = connect("http://server.test", { token: async () => "t", shared: true });
  streams.push(other);
  const map = other.state("users.42");
  await pass(0);

  await sockets[0].receive(value(1, "b", 2));

  assert.deepEqual(
    [data(map), data(stream.state("users.42"))],
    [
      { a: 1, b: 2 },
      { a: 1, b: 2 },
    ],
  );
  assert.equal(http.requests.at(-1).path, "/websocket/state");
});

test("a listener that throws, or has ended, stops no other", async () => {
  const { map, sockets } = await loaded(value(-90, "a", 1));
  const thrown = [];
  const microtask = globalThis.queueMicrotask;
  setGlobal("queueMicrotask", (task) =>
    microtask(() => {
      try {
        task();
      } catch (error) {
        thrown.push(error.message);
      }
    }),
  );
  const heard = [];
  map.subscribe(() => {
    throw new Error("mine");
  });
  const stop = map.subscribe(() => heard.push("ended"));
  map.subscribe(() => heard.push(data(map)));

  stop();
  await sockets[0].receive(value(1, "a", 2));

  assert.deepEqual([thrown, heard], [["mine"], [{ a: 2 }]]);
});

test("a closed stream loads nothing", async () => {
  const { stream, sockets, http, requests } = await opened();
  http.answer = () => problem(503, "the log is away");
  stream.addEventListener("error", () => {});
  await sockets[0].receive(GREETING);
  await pass(0);

  stream.close();
  await pass(60_000);

  assert.equal(requests.length, 1);
  assert.equal(stream.state("other").loaded, false);
});
