/** Server-Sent Events and polling where WebSockets are blocked, and the way back. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import {
  CONNECTED,
  FakeLog,
  fakeHttp,
  fakeSockets,
  fakeWindow,
  message,
  pass,
  problem,
  record,
  recordStatus,
  restoreGlobals,
  setGlobal,
  settled,
} from "./fakes.js";

afterEach(restoreGlobals);

/** Connects where WebSockets are blocked, and returns what a test needs. */
async function opened(options = {}, { log = new FakeLog(), attempts = options.transports ? 0 : 2 } = {}) {
  const sockets = fakeSockets();
  const http = fakeHttp(log.answer);
  const stream = connect("http://server.test", { token: async () => "t", ...options });
  const events = record(stream);
  const statuses = recordStatus(stream);
  for (let attempt = 0; attempt < attempts; attempt++) {
    await settled();
    await sockets.at(-1).end();
    await pass(500);
  }
  await settled();
  return { stream, sockets, http, log, events, statuses };
}

const onEvents = { transports: ["events"] };
const onPolling = { transports: ["polling"] };

test("after two failures of WebSockets, events are tried", async () => {
  const { stream, http, events } = await opened({ since: 5, topics: ["a"] });
  const [first] = http.events;

  await first.receive({ ...CONNECTED, outcome: "complete", sequence_number: 5 }, message(6));
  await first.receive({ type: "heartbeat", sequence_number: 7 }, message(8));

  assert.deepEqual([first.path, first.query], ["/websocket/events", { since: "5", topics: "a" }]);
  assert.equal(first.headers.Authorization, "Bearer t");
  assert.deepEqual(events, [
    ["message", 6, true],
    ["message", 8, false],
  ]);
  assert.equal(stream.status, "live");
});

for (const token of [undefined, "t"]) {
  test(`events are tried, too, with the token ${token}`, async () => {
    const { http } = await opened({ token });

    assert.equal(http.events.length, 1);
  });
}

test("answers to requests do not keep events that have gone silent", async () => {
  const { stream, http } = await opened({ transports: ["events"] });
  await http.events[0].receive({ ...CONNECTED, heartbeat_seconds: 4 });
  http.answer = ({ method }) => (method === "POST" ? { sequence_number: 9 } : "events");

  for (let second = 0; second < 12; second++) {
    stream.publish({ type: "a" });
    await pass(1000);
  }

  assert.ok(http.events[0].signal.aborted);
});

test("a proxy that forbids events does not end the stream, and polling follows", async () => {
  const log = new FakeLog();
  const { stream, http } = await opened({ transports: ["events", "polling"] }, { log });
  http.answer = (request) =>
    request.path === "/websocket/events" ? new Response("<h1>Blocked</h1>", { status: 403 }) : log.answer(request);
  await http.events[0].end();

  await pass(3000);

  assert.deepEqual([stream.transport, stream.status], ["polling", "live"]);
});

test("a browser that believes to be offline falls back, too", async () => {
  setGlobal("navigator", { onLine: false });
  const { http } = await opened();

  assert.equal(http.events.length, 1);
});

test("coming online begins with the preferred transport again", async () => {
  const wake = fakeWindow();
  const { sockets, http } = await opened();
  await http.events[0].end();

  await wake("online");

  assert.deepEqual([sockets.length, http.events.length], [3, 1]);
});

test("failures of the provider do not count", async () => {
  const tokens = [null, null, null, "t"];
  const { http, sockets } = await opened(
    {
      token: async () => tokens.shift() ?? Promise.reject(new Error("away")),
    },
    { attempts: 0 },
  );

  await pass(3000);

  assert.deepEqual([http.requests.length, sockets.length], [0, 1]);
});

test("a server that is down is left the usual pauses, whatever is tried", async () => {
  const sockets = fakeSockets({ random: 1 });
  const http = fakeHttp();
  connect("http://server.test", { token: "t" });
  const attemptsAfter = async (seconds) => {
    for (let second = 0; second < seconds; second++) {
      await pass(1000);
      for (const socket of sockets.filter(({ ended }) => !ended)) {
        socket.ended = true;
        await socket.end();
      }
    }
    return sockets.length + http.requests.length;
  };

  const inTwoMinutes = await attemptsAfter(120);
  const inFiveMinutes = await attemptsAfter(180);
  const inTenMinutes = await attemptsAfter(300);

  assert.ok(inTwoMinutes <= 60, `${inTwoMinutes}`);
  // Pauses are long now.
  assert.ok(inTenMinutes - inFiveMinutes <= 22, `${inTenMinutes - inFiveMinutes}`);
});

for (const attempts of [2, 4]) {
  test(`after ${attempts} attempts, if WebSockets have ${attempts === 4 ? "" : "never "}worked, the others follow without a pause`, async () => {
    const sockets = fakeSockets({ random: 1 });
    const tried = [];
    fakeHttp(({ path }) => {
      tried.push([path.split("/").at(-1), Date.now()]);
      return new Error("refused");
    });
    connect("http://server.test", { token: "t" });
    await settled();
    if (attempts === 4) await sockets[0].receive(CONNECTED);
    const ended = attempts === 4 ? 1 : 0;
    if (ended) await sockets[0].end();

    for (let count = ended; tried.length < attempts + 3; await pass(100)) {
      if (sockets.length === count) continue;
      tried.push(["ws", Date.now()]);
      await sockets[count++].end();
    }

    const names = tried.map(([name]) => name);
    assert.deepEqual(names, [...Array(attempts).fill("ws"), "events", "messages", "ws"]);
    const [[, first], [, second], [, third]] = tried.slice(-3);
    assert.ok(third - first <= 200 && second === first, `${[first, second, third]}`);
  });
}

test("events end with the reason in an error frame", async () => {
  const tokens = ["one", "two"];
  const { http } = await opened({ ...onEvents, token: async () => tokens.shift() });
  await http.events[0].receive(CONNECTED, { type: "error", code: 4401, detail: "expired" });

  await http.events[0].end();
  await pass(0);

  assert.equal(http.events[1].headers.Authorization, "Bearer two");
});

test("a token is renewed by opening events again, before it expires", async () => {
  const { http, statuses } = await opened(onEvents);
  await http.events[0].receive({ ...CONNECTED, expires_in: 10 });

  await pass(8100);
  assert.deepEqual([http.events.length, http.events[0].signal.aborted], [2, false]);
  await http.events[1].receive(CONNECTED);

  assert.ok(http.events[0].signal.aborted);
  assert.ok(!statuses.includes("waiting"));
});

test("a renewal that fails leaves the connection, and is tried again", async () => {
  const { http, log } = await opened(onEvents);
  await http.events[0].receive({ ...CONNECTED, expires_in: 60 });
  log.events = false;

  await pass(49_000);
  assert.deepEqual([http.requests.length > 1, http.events[0].signal.aborted], [true, false]);
  log.events = true;
  await pass(5000);
  await http.events[1].receive(CONNECTED);

  assert.ok(http.events[0].signal.aborted);
});

test("a renewal that is refused in its first event leaves the connection", async () => {
  const { stream, http } = await opened(onEvents);
  await http.events[0].receive({ ...CONNECTED, expires_in: 10 });
  await pass(8100);

  await http.events[1].receive({ type: "error", code: 4429, detail: "too many connections" });
  await http.events[1].end();

  assert.ok(!http.events[0].signal.aborted);
  assert.equal(stream.status, "live");
});

for (const [status, code, type] of [
  [401, 4401, "unauthorized"],
  [403, 4403, "refused"],
  [422, 4400, "refused"],
]) {
  test(`a page without WebSockets whose server answers ${status} ends after half a minute, with the explanation`, async () => {
    const told = [];
    const sockets = fakeSockets();
    const http = fakeHttp(() => problem(status, "because"));
    const stream = connect("http://server.test", { ...onEvents, token: "t" });
    stream.addEventListener(type, ({ detail }) => told.push(detail));

    await pass(29_000);
    assert.equal(stream.status, "waiting");
    await pass(60_000);

    assert.deepEqual(told, [{ code, reason: "because" }]);
    assert.deepEqual([stream.status, sockets.length], ["closed", 0]);
    assert.ok(http.requests.length < 20, `${http.requests.length}`);
  });
}

test("a proxy's page of an error is a failed attempt", async () => {
  fakeSockets();
  fakeHttp(() => new Response("<html>", { status: 502 }));

  const stream = connect("http://server.test", { ...onEvents, token: "t" });
  await pass(0);

  assert.equal(stream.status, "waiting");
});

// Polling

test("polling starts with the next message", async () => {
  const log = new FakeLog();
  log.add(1, 2);
  const { events, stream } = await opened(onPolling, { log });
  assert.deepEqual([stream.status, stream.position, stream.epoch], ["live", 2, "e"]);

  log.add(3);
  await pass(5000);

  assert.deepEqual(events, [["message", 3, false]]);
});

test("polling that starts with the next message does not download what is retained", async () => {
  const log = new FakeLog();
  log.add(1, 2, 3);

  const { stream, http, events } = await opened(onPolling, { log });

  assert.deepEqual(
    http.requests.map(({ query }) => query),
    [{ limit: "1" }],
  );
  assert.deepEqual([stream.status, stream.position, events], ["live", 3, []]);
});

test("polling resumes, and follows has_more", async () => {
  const log = new FakeLog();
  log.add(1, 2, 3, 4, 5);
  log.limit = 2;

  const { events, http } = await opened({ ...onPolling, since: 0 }, { log });

  assert.deepEqual(
    events,
    [1, 2, 3, 4, 5].map((number) => ["message", number, true]),
  );
  assert.deepEqual(
    http.requests.map(({ query }) => query.since),
    ["0", "2", "4"],
  );
});

test("polling knows how long the server remembers requests", async () => {
  const { stream, http, log } = await opened(onPolling);
  const poll = log.answer;
  http.answer = (request) =>
    request.method === "GET" ? { ...poll(request), max_age: 60 } : new TypeError("no network");
  const answer = assert.rejects(stream.publish({ type: "a" }), { code: 4408 });

  await pass(70_000);

  await answer;
});

test("polling tells gaps and resets", async () => {
  const log = new FakeLog();
  log.add(1, 2);
  const { events } = await opened({ ...onPolling, since: 2 }, { log });

  log.evict(9);
  log.add(10);
  await pass(5000);
  log.restart(1);
  log.add(1);
  await pass(5000);

  assert.deepEqual(events, [
    ["gap", 3, 9],
    ["message", 10, false],
    ["reset", "f"],
    ["message", 1, true],
  ]);
});

test("a recovery in pages declares a gap once, and receives what is retained in its range", async () => {
  const log = new FakeLog();
  log.add(1, 2, 3, 4, 5, 6, 7, 8, 9);
  log.evict(8, 3, 5, 6);
  log.limit = 2;

  const { events, http } = await opened({ ...onPolling, since: 2, epoch: "e" }, { log });

  assert.deepEqual(
    events.map(([type, number]) => [type, number]),
    [
      ["gap", 3],
      ["message", 3],
      ["message", 5],
      ["message", 6],
      ["message", 9],
    ],
  );
  assert.deepEqual(
    http.requests.map(({ query }) => query.since),
    ["2", "5"],
  );
});

test("a page that ends with messages for others moves the position, and only the last one is live", async () => {
  const pages = [
    { messages: [], sequence_number: 40, has_more: true },
    { messages: [message(41)], sequence_number: 50, has_more: true },
    { messages: [], sequence_number: 60, has_more: false },
  ];
  const log = new FakeLog();
  let goOn;
  const second = new Promise((resolve) => (goOn = resolve));
  log.answer = async () => {
    if (pages.length === 2) await second;
    return { epoch: "e", first: 1, oldest: 1, latest: 60, outcome: "complete", ...pages.shift() };
  };

  const { stream, http } = await opened({ ...onPolling, since: 2, epoch: "e" }, { log });
  assert.deepEqual([stream.status, stream.position], ["recovering", 40]);
  goOn();
  await settled();

  assert.deepEqual(
    http.requests.map(({ query }) => query.since),
    ["2", "40", "50"],
  );
  assert.deepEqual([stream.status, stream.position], ["live", 60]);
});

test("a poll that comes after the number of another one asks from the position that the server names", async () => {
  const log = new FakeLog();
  log.add(1, 2);
  const { http, stream } = await opened({ ...onPolling, since: 2 }, { log });
  log.evict(9);
  const others = http.answer;
  http.answer = (request) => ({ ...others(request), oldest: 4, latest: 20, sequence_number: 20 });

  await pass(5000);
  await pass(5000);

  assert.equal(stream.position, 20);
  assert.equal(http.requests.at(-1).query.since, "20");
});

for (const retained of [[12, 14], []]) {
  test(`a reset over polling goes back to the numbers of the log, also within an epoch: ${retained.length} retained`, async () => {
    const log = new FakeLog(10);
    const { events, stream } = await opened({ ...onPolling, since: 900, epoch: "e" }, { log });
    log.add(...retained, 15);
    await pass(5000);

    assert.deepEqual(
      events.map(([type, number]) => [type, number]),
      [["reset", "e"], ...[...retained, 15].map((number) => ["message", number])],
    );
    assert.equal(stream.position, 15);
  });
}

test("polling stops with the stream", async () => {
  const { stream, http } = await opened(onPolling);

  stream.close();
  await pass(20_000);

  assert.equal(http.requests.length, 1);
});

test("a poll that fails is repeated after a pause", async () => {
  const { stream, http, log } = await opened(onPolling);
  http.answer = () => problem(503, "the log is unavailable");
  await pass(5000);
  assert.equal(stream.status, "waiting");

  http.answer = log.answer;
  await pass(4000);

  assert.equal(stream.status, "live");
});

// Requests over HTTP

test("a publish and a command are requests with their ids as idempotency keys", async () => {
  const { stream, http, log } = await opened(onPolling);
  http.answer = (request) => {
    if (request.method === "GET") return log.answer(request);
    return request.path.endsWith("/messages") ? { sequence_number: 9, epoch: "e" } : { data: { ok: true } };
  };

  const answers = await Promise.all([stream.publish({ type: "a" }), stream.command("do it/now", { x: 1 })]);

  const [publish, command] = http.requests.filter(({ method }) => method === "POST");
  assert.deepEqual(answers, [9, { ok: true }]);
  assert.deepEqual([publish.path, publish.body], ["/websocket/messages", { type: "a" }]);
  assert.deepEqual([command.path, command.body], ["/websocket/commands/do%20it%2Fnow", { x: 1 }]);
  assert.notEqual(publish.headers["Idempotency-Key"], command.headers["Idempotency-Key"]);
  assert.deepEqual(publish.query, {});
  assert.equal(stream.position, 0, "an answer over HTTP is not in order with the messages");
});

test("requests over HTTP are sent one after another", async () => {
  const { stream, http, log } = await opened(onPolling);
  const waiting = [];
  http.answer = (request) =>
    request.method === "GET" ? log.answer(request) : new Promise((resolve) => waiting.push(resolve));
  const answers = [stream.publish({ type: "a" }), stream.publish({ type: "b" })];
  await settled();
  assert.equal(waiting.length, 1);

  waiting[0]({ sequence_number: 1 });
  await settled();
  waiting[1]({ sequence_number: 2 });

  assert.deepEqual(await Promise.all(answers), [1, 2]);
});

for (const failure of [() => problem(503, "later"), () => problem(429, "later"), () => new TypeError("no network")]) {
  test(`a request is repeated with its key after ${failure() instanceof Response ? failure().status : "a failure"}`, async () => {
    const { stream, http, log } = await opened(onPolling);
    let failures = 1;
    http.answer = (request) => {
      if (request.method === "GET") return log.answer(request);
      return failures-- > 0 ? failure() : { sequence_number: 5 };
    };
    const answer = stream.publish({ type: "a" });

    await pass(4000);

    const keys = http.requests
      .filter(({ method }) => method === "POST")
      .map(({ headers }) => headers["Idempotency-Key"]);
    assert.equal(await answer, 5);
    assert.deepEqual([keys.length, keys[0] === keys[1]], [2, true]);
  });
}

test("a refused request rejects with the code and the detail of the problem", async () => {
  const { stream } = await opened(onPolling);

  await assert.rejects(stream.command("nothing"), { code: 4400, detail: "no such command" });
});

test("a request whose token has expired is repeated with a fresh one", async () => {
  const tokens = ["old", "new"];
  const { stream, http, log } = await opened({ ...onPolling, token: async () => tokens.shift() });
  http.answer = (request) => {
    if (request.method === "GET") return log.answer(request);
    return request.headers.Authorization === "Bearer new" ? { sequence_number: 5 } : problem(401, "expired");
  };

  const answer = stream.publish({ type: "a" });
  await pass(1000);

  assert.equal(await answer, 5);
});

test("a proxy that forbids a request rejects it, and the stream goes on", async () => {
  const { stream, http, log } = await opened(onPolling);
  http.answer = (request) =>
    request.method === "GET" ? log.answer(request) : new Response("<h1>No</h1>", { status: 413 });

  await assert.rejects(stream.publish({ type: "a" }), { code: 4413 });

  await pass(6000);
  assert.equal(stream.status, "live");
});

test("a failure of the network does not change the order of requests", async () => {
  const { stream, http, log } = await opened(onPolling);
  const arrived = [];
  let failures = 1;
  http.answer = (request) => {
    if (request.method === "GET") return log.answer(request);
    if (failures-- > 0) return new TypeError("no network");
    return { sequence_number: arrived.push(request.body.data) };
  };

  const answers = [1, 2, 3].map((data) => stream.publish({ type: "a", data }));
  await pass(2000);

  assert.deepEqual(await Promise.all(answers), [1, 2, 3]);
  assert.deepEqual(arrived, [1, 2, 3]);
});

for (const transport of ["events", "polling"]) {
  test(`a topic that is not granted is rejected over ${transport}, and the stream goes on`, async () => {
    const { stream, http } = await opened({ transports: [transport], topics: ["a"] });
    await http.events[0]?.receive({ ...CONNECTED, topics: ["a"] });

    await assert.rejects(stream.follow("secret"), { code: 4403, detail: "the topic secret is not granted" });
    await pass(6000);

    assert.notEqual(stream.status, "closed");
    assert.deepEqual(stream.topics, ["a"]);
  });
}

test("following what is followed already does not open another connection", async () => {
  const log = new FakeLog();
  log.topics = ["a"];
  const { stream, http } = await opened(onEvents, { log });
  await http.events[0].receive({ ...CONNECTED, topics: ["a"] });

  const answer = await stream.follow("a");
  await pass(5000);

  assert.deepEqual(answer, ["a"]);
  assert.equal(http.events.length, 1);
});

test("over polling, topics are followed in addition to those that the token grants", async () => {
  const log = new FakeLog();
  log.topics = ["granted"];
  const { stream, http } = await opened(onPolling, { log });

  const answer = await stream.follow("b");
  await pass(1000);

  assert.deepEqual(answer, ["b", "granted"]);
  assert.equal(http.requests.at(-1).query.topics, "b,granted");
});

test("topics that are followed over HTTP are followed from the next attempt on", async () => {
  const { stream, http } = await opened({ ...onEvents, topics: ["a", "b"] });
  await http.events[0].receive({ ...CONNECTED, topics: ["a", "b"] });

  const answers = [stream.follow("c"), stream.unfollow("a")];
  await pass(500);
  await http.events.at(-1).receive({ ...CONNECTED, outcome: "complete", topics: ["a", "b", "c"] });
  await pass(1000);

  assert.deepEqual(await Promise.all(answers), [
    ["a", "b", "c"],
    ["b", "c"],
  ]);
  assert.equal(http.events.at(-1).query.topics, "b,c");
});

// The way back

test("a WebSocket that works again takes over without loss or duplicates", async () => {
  const { stream, sockets, http, events } = await opened();
  await http.events[0].receive({ ...CONNECTED, sequence_number: 5, latest: 5 });
  await pass(0);
  await http.events[0].receive(message(6));
  const candidate = sockets.at(-1);
  await http.events[0].receive(message(7), message(8));

  await candidate.receive({ ...CONNECTED, outcome: "complete", sequence_number: 6, latest: 9 });
  await candidate.receive(message(7), message(8), message(9), { type: "heartbeat", sequence_number: 9 });
  await http.events[0].receive(message(9)).catch(() => {});

  assert.equal(new URL(candidate.url).searchParams.get("since"), "5");
  assert.deepEqual(
    events.map(([, number]) => number),
    [6, 7, 8, 9],
  );
  assert.deepEqual([stream.status, http.events[0].signal.aborted], ["live", true]);
});

test("a WebSocket that is still blocked is tried again after longer and longer pauses", async () => {
  const { stream, sockets, http } = await opened();
  await http.events[0].receive(CONNECTED);
  await pass(0);
  const times = [];

  for (let attempt = 0; attempt < 10; attempt++) {
    const count = sockets.length;
    const before = Date.now();
    await sockets.at(-1).end();
    while (sockets.length === count) {
      await pass(500);
      await http.events[0].receive({ type: "heartbeat", sequence_number: 7 });
    }
    times.push(Date.now() - before);
  }

  assert.ok(
    times[0] <= 1000 && times.every((time, index) => time <= 60_000 && time >= (times[index - 1] ?? 0)),
    `${times}`,
  );
  assert.ok(times.at(-1) >= 30_000, `${times}`);
  assert.equal(stream.status, "live");
});

test("a connection that is lost is replaced by one of the same kind", async () => {
  const { sockets, http } = await opened();
  await http.events[0].receive(CONNECTED);
  await pass(0);
  await sockets.at(-1).end();

  await http.events[0].end();
  await pass(1000);

  assert.equal(http.events.length, 2);
});

test("a reset while a WebSocket is tried again leaves no second attempt", async () => {
  const log = new FakeLog();
  log.events = false;
  const { stream, sockets } = await opened({ transports: ["websocket", "polling"] }, { log, attempts: 2 });
  await pass(0);
  log.restart(20);
  log.add(20);
  await pass(6000);

  stream.close();

  assert.ok(sockets.slice(2).length > 1);
  assert.ok(sockets.slice(2).every(({ closed }) => closed));
});

test("an attempt to come back ends with the connection beside it", async () => {
  const { sockets, http } = await opened();
  await http.events[0].receive(CONNECTED);
  await pass(0);
  const candidate = sockets.at(-1);

  await http.events[0].end();

  assert.ok(candidate.closed);
});
