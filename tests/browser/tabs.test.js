/** Tabs that share one connection. Every stream here is a tab. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import {
  CONNECTED,
  FakeStorage,
  fakeHttp,
  fakeSockets,
  fakeTabs,
  fakeWindow,
  message,
  pass,
  record,
  restoreGlobals,
  settled,
} from "./fakes.js";

const RESUMED = { ...CONNECTED, connection_id: "d", outcome: "complete" };

const streams = [];

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
  restoreGlobals();
});

/** Opens a tab. */
async function tab(options = {}) {
  const stream = connect("http://server.test", { token: async () => "t", shared: true, ...options });
  streams.push(stream);
  const events = record(stream);
  await settled();
  return { stream, events };
}

/** Opens the first tab, which leads, and others. */
async function opened(followers, options = {}) {
  const tabs = fakeTabs();
  const http = fakeHttp();
  const sockets = fakeSockets();
  const leader = await tab(options);
  await sockets[0].receive(CONNECTED);
  const others = [];
  for (let count = 0; count < followers; count++) others.push(await tab(options));
  return { ...tabs, http, sockets, leader, others };
}

const page = (messages, fields = {}) => ({
  messages,
  epoch: "e",
  oldest: 1,
  latest: messages.at(-1)?.sequence_number ?? 7,
  sequence_number: messages.at(-1)?.sequence_number ?? 7,
  outcome: "complete",
  has_more: false,
  ...fields,
});

test("all tabs receive what one connection brings", async () => {
  const { sockets, leader, others } = await opened(3);

  await sockets[0].receive(message(8), { type: "heartbeat", sequence_number: 20 });

  assert.equal(sockets.length, 1);
  for (const { stream, events } of [leader, ...others]) {
    assert.deepEqual(events, [["message", 8, false]]);
    assert.deepEqual([stream.status, stream.position, stream.epoch], ["live", 20, "e"]);
  }
});

test("only one tab needs a token, and no token is told to the others", async () => {
  let tokens = 0;
  const { posted } = await opened(3, { token: async () => `secret ${++tokens}` });

  assert.equal(tokens, 1);
  assert.doesNotMatch(JSON.stringify(posted), /secret/);
});

test("tabs with other topics or another name have a connection of their own", async () => {
  const { sockets } = await opened(0);

  await tab({ shared: "admin" });
  await tab({ topics: ["a"] });

  assert.equal(sockets.length, 3);
});

test("without locks every tab has its own connection", async () => {
  const sockets = fakeSockets();

  await tab();
  await tab();

  assert.equal(sockets.length, 2);
});

test("a tab that closes hands over at once, without loss or duplicates", async () => {
  const { sockets, leader, others } = await opened(2);
  await sockets[0].receive(message(8));

  leader.stream.close();
  await settled();
  await sockets[1].receive({ ...RESUMED, sequence_number: 8, latest: 9 }, message(9));
  await sockets[1].receive({ type: "heartbeat", sequence_number: 9 }, message(10));

  assert.equal(new URL(sockets[1].url).searchParams.get("since"), "8");
  for (const { stream, events } of others) {
    assert.deepEqual(events, [
      ["message", 8, false],
      ["message", 9, true],
      ["message", 10, false],
    ]);
    assert.equal(stream.status, "live");
  }
});

test("a tab that is behind fills its hole over REST before it continues", async () => {
  const { sockets, http, leader } = await opened(0);
  await sockets[0].receive(message(8), message(9), message(10));
  let answer;
  http.answer = () => new Promise((resolve) => (answer = resolve));
  const late = await tab({ since: 7, epoch: "e" });
  await sockets[0].receive(message(11));

  answer(page([message(8), message(9), message(10)]));
  await settled();
  await sockets[0].receive(message(12));

  assert.deepEqual(
    http.requests.map(({ query }) => query),
    [{ since: "7", epoch: "e" }],
  );
  assert.deepEqual(
    late.events.map(([, number]) => number),
    [8, 9, 10, 11, 12],
  );
  assert.deepEqual(
    leader.events.map(([, number]) => number),
    [8, 9, 10, 11, 12],
  );
});

test("a recovery ends where the frames of the leader begin, whatever topics they are about", async () => {
  const { sockets, http } = await opened(0, { topics: ["a"] });
  await sockets[0].receive(message(8));
  let answer;
  http.answer = () => new Promise((resolve) => (answer = resolve));
  const late = await tab({ since: 7, epoch: "e", topics: ["a"] });
  await sockets[0].receive(
    { type: "following", added: ["a", "b"], removed: [], sequence_number: 8 },
    message(9),
    message(10),
  );

  // The request was made with the topics of before, so it does not have 9.
  answer(page([message(8), message(10)]));
  await settled();

  assert.deepEqual(
    late.events.map(([, number]) => number),
    [8, 9, 10],
  );
});

test("a recovery ends with a page that is behind it, although there is more", async () => {
  const { sockets, http } = await opened(0);
  await sockets[0].receive({ type: "heartbeat", sequence_number: 10 });
  http.answer = () => page([message(20)], { has_more: true });

  const late = await tab({ since: 7, epoch: "e" });
  await sockets[0].receive(message(11));

  assert.equal(http.requests.length, 1);
  assert.deepEqual(
    late.events.map(([, number]) => number),
    [11],
  );
});

test("a recovery that is never answered is tried again", async () => {
  const { sockets, http } = await opened(0);
  await sockets[0].receive(message(8));
  http.answer = () => new Promise(() => {});
  const late = await tab({ since: 7, epoch: "e" });
  for (let second = 0; second < 59; second++) {
    await pass(1000);
    await sockets[0].receive({ type: "heartbeat", sequence_number: 8 });
  }

  http.answer = () => page([message(8)]);
  await pass(2000);

  assert.deepEqual(
    late.events.map(([, number]) => number),
    [8],
  );
});

test("what other tabs ask for does not show that the leader is there", async () => {
  fakeTabs();
  fakeHttp();
  const sockets = fakeSockets();
  const name = "unmissed:http://server.test,,true,v2";
  navigator.locks.request(name, {}, () => new Promise(() => {})).catch(() => {});
  const tabs = [await tab(), await tab()];
  new BroadcastChannel(name).postMessage({ frame: CONNECTED, epoch: "e", previous: 7 });

  for (let round = 0; round < 7; round++) {
    for (const { stream } of tabs) stream.publish({ type: "a" }).catch(() => {});
    await pass(10_000);
  }

  assert.ok(sockets.length > 0);
});

test("a slow recovery does not take the lead from a leader that is heard", async () => {
  const { sockets, http } = await opened(0);
  await sockets[0].receive(message(8));
  http.answer = () => new Promise(() => {});
  await tab({ since: 7, epoch: "e" });

  for (let number = 9; number < 29; number++) {
    await pass(1000);
    await sockets[0].receive(message(number));
  }

  assert.deepEqual([sockets.length, sockets[0].closed], [1, false]);
});

test("a tab that has heard only the status of its leader stores no position", async () => {
  const storage = new FakeStorage();
  fakeTabs();
  fakeHttp();
  fakeSockets();
  await tab();

  const { stream } = await tab({ storage });

  assert.deepEqual([stream.status, storage.size], ["connecting", 0]);
});

test("a tab that is ahead of its leader receives nothing twice", async () => {
  const { sockets, others } = await opened(1);
  await sockets[0].receive(message(8), message(9));
  await sockets[0].end();
  await pass(500);

  await sockets[1].receive({ ...RESUMED, sequence_number: 7, latest: 9 }, message(8), message(9), message(10));

  assert.deepEqual(
    others[0].events.map(([, number]) => number),
    [8, 9, 10],
  );
});

test("every tab is told once about a gap and a reset", async () => {
  const { sockets, http, leader, others } = await opened(2);
  http.answer = ({ query }) =>
    query.since === "7" ? new Error("no hole") : page([message(1)], { epoch: "f", outcome: "reset", latest: 1 });

  await sockets[0].receive({ type: "gap", from: 10, to: 20, sequence_number: 9 }, message(12), message(21));
  await sockets[0].end();
  await pass(500);
  await sockets[1].receive(
    { ...RESUMED, epoch: "f", outcome: "reset", sequence_number: 0, latest: 1 },
    message(1),
    message(2),
  );

  for (const { events } of [leader, ...others]) {
    assert.deepEqual(
      events.map((event) => event.slice(0, 2)),
      [
        ["gap", 10],
        ["message", 12],
        ["message", 21],
        ["reset", "f"],
        ["message", 1],
        ["message", 2],
      ],
    );
  }
});

test("a tab whose leader continues after its snapshot receives what is in between", async () => {
  fakeTabs();
  const http = fakeHttp();
  const sockets = fakeSockets();
  await tab({ snapshot: async () => 20 });
  await sockets[0].receive(CONNECTED);
  await pass(0);
  const other = await tab();
  http.answer = () => page([message(10, { outcome: "reset" }), message(20)]);
  await sockets[0].end();
  await pass(500);

  await sockets[1].receive({ ...RESUMED, sequence_number: 20, latest: 20 }, message(21, { outcome: "reset" }));

  assert.deepEqual(
    other.events.map(([type, number]) => [type, number]),
    [
      ["message", 10],
      ["message", 20],
      ["message", 21],
    ],
  );
});

test("a reset within an epoch takes every tab back, once", async () => {
  const { sockets, http, leader, others } = await opened(2);
  await sockets[0].receive(message(900));
  await sockets[0].end();
  await pass(500);

  const reset = { ...RESUMED, outcome: "reset", sequence_number: 500, latest: 501 };
  await sockets[1].receive(reset, message(501), message(502));

  for (const { stream, events } of [leader, ...others]) {
    assert.deepEqual(
      events.map((event) => event.slice(0, 2)),
      [
        ["message", 900],
        ["reset", "e"],
        ["message", 501],
        ["message", 502],
      ],
    );
    assert.equal(stream.position, 502);
  }
  assert.equal(http.requests.length, 0);
});

test("a tab that is behind has a gap of its own, and not that of its leader", async () => {
  const { sockets, http } = await opened(0);
  await sockets[0].receive(message(8));
  http.answer = () => page([message(4), message(8)], { outcome: "gap", from: 3, to: 6 });
  const late = await tab({ since: 2, epoch: "e" });
  await sockets[0].end();
  await pass(500);

  await sockets[1].receive(
    { ...RESUMED, outcome: "gap", from: 9, to: 20, sequence_number: 8, latest: 30 },
    message(15),
  );

  assert.deepEqual(
    late.events.map(([type, number]) => [type, number]),
    [
      ["gap", 3],
      ["message", 4],
      ["message", 8],
      ["gap", 9],
      ["message", 15],
    ],
  );
});

test("a tab whose position is of an earlier epoch is reset", async () => {
  const { sockets, http } = await opened(0);
  await sockets[0].receive(message(8));
  http.answer = () => page([message(8)], { outcome: "reset" });

  const { events, stream } = await tab({ since: 900, epoch: "earlier" });

  assert.deepEqual(events, [
    ["reset", "e"],
    ["message", 8, true],
  ]);
  assert.equal(stream.position, 8);
});

test("a recovery that fails begins again", async () => {
  const { sockets, http } = await opened(0);
  await sockets[0].receive(message(8));
  const late = await tab({ since: 7, epoch: "e" });
  assert.equal(late.stream.status, "waiting");

  http.answer = () => page([message(8)]);
  await pass(1000);

  assert.deepEqual(late.events, [["message", 8, true]]);
});

test("requests of a tab are sent by the leader, and answered", async () => {
  const { sockets, others } = await opened(1);
  const answer = others[0].stream.publish({ type: "chat" });
  await settled();
  const [{ id, type }] = sockets[0].sent;

  await sockets[0].receive({ type: "published", id, sequence_number: 9 });

  assert.equal(type, "publish");
  assert.equal(await answer, 9);
});

test("requests that the leader did not answer are repeated by the next one", async () => {
  const { sockets, leader, others } = await opened(2);
  const answer = others[1].stream.publish({ type: "chat" });
  await settled();
  const [{ id }] = sockets[0].sent;

  leader.stream.close();
  await settled();
  await sockets[1].receive(RESUMED);
  await sockets[1].receive({ type: "published", id, sequence_number: 9 });

  assert.deepEqual(
    sockets[1].sent.map((frame) => frame.id),
    [id],
  );
  assert.equal(await answer, 9);
});

test("topics are followed for all tabs, also after the leader has changed", async () => {
  const { sockets, leader, others } = await opened(2, { topics: ["a"] });
  const answer = others[0].stream.follow("b");
  await settled();
  const [{ id }] = sockets[0].sent;
  await sockets[0].receive({ type: "following", id, added: ["a", "b"], removed: [], sequence_number: 7 });
  const late = await tab({ topics: ["a"] });

  leader.stream.close();
  others[0].stream.close();
  others[1].stream.close();
  await settled();

  assert.deepEqual(await answer, ["a", "b"]);
  assert.deepEqual(late.stream.topics, ["a", "b"]);
  assert.equal(new URL(sockets.at(-1).url).searchParams.get("topics"), "a,b");
});

test("tabs that did not ask for a topic know all that are followed, also if the answer names the change", async () => {
  const { sockets, leader, others } = await opened(2, { topics: ["a"] });
  const answer = others[0].stream.follow("b");
  await settled();

  await sockets[0].receive({
    type: "following",
    id: sockets[0].sent[0].id,
    added: ["b"],
    removed: [],
    sequence_number: 7,
  });

  assert.deepEqual(await answer, ["a", "b"]);
  for (const { stream } of [leader, ...others]) assert.deepEqual(stream.topics, ["a", "b"]);
});

test("a topic that is refused rejects the request of the tab that made it", async () => {
  const { sockets, leader, others } = await opened(1);
  const good = leader.stream.follow("a");
  const bad = assert.rejects(others[0].stream.follow("secret"), { code: 4403 });
  await settled();
  const [first, second] = sockets[0].sent;

  await sockets[0].receive(
    { type: "following", id: first.id, added: ["a"], removed: [], sequence_number: 7 },
    { type: "error", id: second.id, code: 4403, detail: "the topic secret is not granted" },
  );

  assert.deepEqual(await good, ["a"]);
  await bad;
});

test("the tabs show what their leader is doing", async () => {
  const { sockets, others } = await opened(1);
  const [{ stream }] = others;

  await sockets[0].end();
  await settled();
  assert.equal(stream.status, "waiting");
  await pass(500);
  assert.equal(stream.status, "connecting");
  await sockets[1].receive(RESUMED, { type: "heartbeat", sequence_number: 7 });

  assert.equal(stream.status, "live");
});

test("a leader that waits for its server is not replaced", async () => {
  const { sockets, others } = await opened(1);

  for (let second = 0; second < 300; second++) {
    if (!sockets.at(-1).ended) await sockets.at(-1).end();
    sockets.at(-1).ended = true;
    await pass(1000);
  }

  assert.notEqual(others[0].stream.status, "closed");
  assert.ok(sockets.every(({ closed }) => closed !== undefined));
});

test("a leader that nobody hears for two and a half heartbeats loses the lead", async () => {
  const { sockets, mute } = await opened(0);
  mute();
  const { stream, events } = await tab({ since: 7, epoch: "e" });
  assert.equal(stream.status, "connecting");

  await pass(10_000);
  await sockets[1].receive({ ...RESUMED, sequence_number: 7 }, message(8));

  assert.ok(sockets[0].closed);
  assert.deepEqual(
    events.map(([, number]) => number),
    [8],
  );
});

test("a leader that waits tries at once when another tab asks", async () => {
  const { sockets } = await opened(0);
  for (let attempt = 0; attempt < 5; attempt++) {
    await sockets.at(-1).end();
    await pass(attempt < 4 ? 4000 : 0);
    if (attempt < 4) await sockets.at(-1).receive(RESUMED);
  }
  const count = sockets.length;

  await tab();
  await pass(0);

  assert.equal(sockets.length, count + 1);
});

test("what a leader passes on before a tab has begun is not taken for all", async () => {
  const { mute } = fakeTabs();
  const http = fakeHttp(() => page([message(8), message(9)]));
  fakeSockets();
  const name = "unmissed:http://server.test,,true,v2";
  navigator.locks.request(name, {}, () => new Promise(() => {}));
  const leader = new BroadcastChannel(name);
  const { events, stream } = await tab({ since: 7, epoch: "e" });

  leader.postMessage({ frame: message(10), epoch: "e", previous: 9 });
  await settled();
  leader.postMessage({ frame: { ...CONNECTED, sequence_number: 10 }, epoch: "e", previous: 10 });
  await settled();
  mute();

  assert.equal(http.requests.length, 1);
  assert.deepEqual(
    events.map(([, number]) => number),
    [8, 9],
  );
  assert.equal(stream.position, 9);
});

test("frames of a leader that is ahead of the one that a tab follows leave no hole", async () => {
  fakeTabs();
  const http = fakeHttp(() => page([8, 9, 10, 11].map((number) => message(number))));
  fakeSockets();
  const name = "unmissed:http://server.test,,true,v2";
  navigator.locks.request(name, {}, () => new Promise(() => {}));
  const leader = new BroadcastChannel(name);
  const { events } = await tab({ since: 7, epoch: "e" });
  leader.postMessage({ frame: CONNECTED, epoch: "e", previous: 7 });
  leader.postMessage({ frame: message(8), epoch: "e", previous: 7 });

  leader.postMessage({ frame: message(11), epoch: "e", previous: 10 });
  leader.postMessage({ frame: message(9), epoch: "e", previous: 8 });
  await settled();

  assert.deepEqual(
    events.map(([, number]) => number),
    [8, 9, 10, 11],
  );
  assert.deepEqual(
    http.requests.map(({ query }) => query.since),
    ["8"],
  );
});

test("a tab is live when it knows its position, and not before", async () => {
  const { leader, http, sockets } = await opened(0);
  await sockets[0].receive(message(8));
  const [first] = [await tab()];
  const positions = [];
  let answer;
  http.answer = () => new Promise((resolve) => (answer = resolve));
  const late = await tab({ since: 7, epoch: "e" });
  late.stream.addEventListener("status", ({ detail }) => positions.push([detail.status, late.stream.position]));
  assert.equal(late.stream.status, "connecting");

  answer(page([message(8)]));
  await settled();

  assert.deepEqual(
    [leader, first].map(({ stream }) => [stream.status, stream.position]),
    [
      ["live", 8],
      ["live", 8],
    ],
  );
  assert.deepEqual(positions, [
    ["recovering", 7],
    ["live", 8],
  ]);
});

test("a tab that joins a leader that has recovered is live", async () => {
  const { sockets } = await opened(0);
  await sockets[0].end();
  await pass(500);
  await sockets[1].receive(RESUMED, { type: "heartbeat", sequence_number: 7 });

  const { stream } = await tab();

  assert.equal(stream.status, "live");
});

test("an error about the token of the leader does not reach the other tabs", async () => {
  const { posted, sockets } = await opened(0);
  await sockets[0].end();
  await pass(500);
  await sockets[1].receive({ ...RESUMED, expires_in: 10 });
  await tab();
  const asked = posted.length;

  await pass(9000);

  assert.equal(posted.slice(asked).filter(({ request }) => request).length, 0);
});

test("a request that a tab repeats is sent once", async () => {
  const { sockets, others } = await opened(1);
  others[0].stream.publish({ type: "chat" }).catch(() => {});
  await settled();

  others[0].stream.drop();
  await pass(500);

  assert.equal(sockets[0].sent.length, 1);
});

test("a page without the right to locks has its own connection", async () => {
  const { sockets } = await opened(0);
  navigator.locks.request = () => Promise.reject(new DOMException("sandboxed", "SecurityError"));

  await tab();

  assert.equal(sockets.length, 2);
});

test("a page that freezes gives up the lead, and comes back as one of the others", async () => {
  const wake = fakeWindow();
  const { sockets, leader } = await opened(0);

  await wake("freeze");
  assert.ok(sockets[0].closed);
  const next = await tab();
  await sockets[1].receive({ ...CONNECTED, connection_id: "d" });
  await wake("resume");

  assert.equal(sockets.length, 2);
  assert.deepEqual([leader.stream.status, next.stream.status], ["live", "live"]);
});

test("a tab takes a snapshot of its own", async () => {
  let snapshots = 0;
  await opened(2, { snapshot: async () => void snapshots++ });
  await pass(0);

  assert.equal(snapshots, 3);
});
