/** The stream on WebSockets in memory: connecting, resuming, waiting, and the life of a page. */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { readFileSync } from "node:fs";
import test, { afterEach, mock } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import {
  CONNECTED,
  FakeStorage,
  fakeSockets,
  fakeWindow,
  message,
  pass,
  record,
  recordStatus,
  restoreGlobals,
  setGlobal,
  settled,
} from "./fakes.js";

const URL_OF_SERVER = "http://server.test";
const CASES = JSON.parse(readFileSync(new URL("frames.json", import.meta.url), "utf8"));

afterEach(restoreGlobals);

/** Connects, and returns the stream and what happened on the way to the first frame. */
async function opened(options = {}, { sockets = fakeSockets(), connected = CONNECTED } = {}) {
  const stream = connect(URL_OF_SERVER, { token: "t", ...options });
  const events = record(stream);
  const statuses = recordStatus(stream);
  await settled();
  if (connected) await sockets.at(-1).receive(connected);
  await pass(0);
  return { stream, sockets, events, statuses };
}

for (const { name, since, epoch_before, frames, events, position, epoch } of CASES) {
  test(name, async () => {
    const happened = await opened({ since, epoch: epoch_before }, { connected: null });

    await happened.sockets[0].receive(...frames);

    assert.deepEqual(happened.events, events);
    assert.deepEqual([happened.stream.position, happened.stream.epoch], [position, epoch]);
  });
}

test("the token travels as a subprotocol, and the position and topics in the query", async () => {
  const { sockets } = await opened({ since: 3, epoch: "e", topics: ["a", "b/c"] });

  assert.equal(sockets[0].url, "ws://server.test/ws?since=3&epoch=e&topics=a%2Cb%2Fc");
  assert.deepEqual(sockets[0].protocols, ["unmissed.bearer", "t"]);
});

test("a server may have a path, and needs no token", async () => {
  const sockets = fakeSockets();
  connect("https://server.test/prefix/");
  await settled();

  assert.equal(sockets[0].url, "wss://server.test/prefix/ws");
  assert.deepEqual(sockets[0].protocols, []);
});

test("a lost connection is resumed from the position", async () => {
  const { stream, sockets, statuses } = await opened();
  await sockets[0].receive(message(8));

  await sockets[0].end(1006);
  await pass(500);
  await sockets[1].receive({ ...CONNECTED, outcome: "complete", sequence_number: 8, latest: 9 });
  await sockets[1].receive({ type: "heartbeat", sequence_number: 9 });

  assert.equal(sockets[1].url, "ws://server.test/ws?since=8&epoch=e");
  assert.deepEqual(statuses, ["live", "waiting", "connecting", "recovering", "live"]);
  assert.equal(stream.position, 9);
});

test("a message at or below the position is dropped", async () => {
  const { sockets, events } = await opened();

  await sockets[0].receive(message(8), message(8), message(7), message(9));

  assert.deepEqual(events, [
    ["message", 8, false],
    ["message", 9, false],
  ]);
});

test("a frame that cannot be read has no effect", async () => {
  const { sockets, events } = await opened();

  await sockets[0].receive("nonsense", "null", "[1]", '{"data":1}', message(8));

  assert.deepEqual(events, [["message", 8, false]]);
});

test("the position is moved and stored before the handler is called", async () => {
  const storage = new FakeStorage();
  const { stream, sockets } = await opened({ storage });
  const seen = [];
  stream.on("chat", () => seen.push([stream.position, ...storage.values()]));

  await sockets[0].receive(message(8));

  assert.deepEqual(seen, [[8, '[8,"e"]']]);
});

test("a stored position wins over since, and the key can be chosen", async () => {
  const storage = new FakeStorage([["mine", '[20,"e"]']]);

  const { sockets } = await opened({ storage, key: "mine", since: 3 });

  assert.equal(sockets[0].url, "ws://server.test/ws?since=20&epoch=e");
});

for (const foreign of ["5", "{}", "true", "null", "[null,null]", '["x","e"]', '[1.5,"e"]', "no JSON"]) {
  test(`what another program stored is no position: ${foreign}`, async () => {
    const { sockets } = await opened({ storage: new FakeStorage([["mine", foreign]]), key: "mine", since: 3 });

    assert.equal(sockets[0].url, "ws://server.test/ws?since=3");
  });
}

test("streams with other topics do not move the stored position of each other", async () => {
  const storage = new FakeStorage();
  const sockets = fakeSockets();
  for (const [topic, number] of [
    ["a", 8],
    ["b", 9],
  ]) {
    const { stream } = await opened({ storage, topics: [topic] }, { sockets });
    await sockets.at(-1).receive(message(number));
    stream.close();
  }

  await opened({ storage, topics: ["a"] }, { sockets });

  assert.equal(new URL(sockets.at(-1).url).searchParams.get("since"), "8");
});

test("nothing is stored before the server has told a position", async () => {
  const storage = new FakeStorage();
  const { sockets } = await opened({ storage }, { connected: null });

  await sockets[0].receive({ type: "error", code: 4401, detail: "expired" });

  assert.equal(storage.size, 0);
});

for (const blocked of [["setItem"], ["getItem"], ["getItem", "setItem"]]) {
  test(`a storage without ${blocked.join(" and ")} stops no message, and is reported once`, async () => {
    const reported = [];
    setGlobal("reportError", (error) => reported.push(error.message));
    const storage = new FakeStorage();
    for (const name of blocked) {
      storage[name] = () => {
        throw new Error("blocked");
      };
    }

    const { sockets, events } = await opened({ storage });
    await sockets[0].receive(message(8), message(9));

    assert.deepEqual(events, [
      ["message", 8, false],
      ["message", 9, false],
    ]);
    assert.deepEqual(reported, ["blocked"]);
  });
}

for (const [code, type] of [
  [4403, "refused"],
  [1009, "refused"],
]) {
  test(`a loop, and requests, end with the reason of a stream that is ${type} with ${code}`, async () => {
    setGlobal("console", { ...console, error() {} });
    const { stream, sockets } = await opened();
    const numbers = [];
    const loop = (async () => {
      for await (const { sequence_number } of stream) numbers.push(sequence_number);
    })();
    const reason = { code, detail: "because" };
    const rejections = [loop, stream.publish({ type: "chat" })].map((promise) => assert.rejects(promise, reason));
    await settled();
    await sockets[0].receive(message(8), message(9));

    await sockets[0].end(code, "because");

    await Promise.all(rejections);
    await assert.rejects(stream.publish({ type: "chat" }), reason);
    await assert.rejects(async () => {
      for await (const each of stream) numbers.push(each);
    }, reason);
    assert.deepEqual(numbers, [8, 9]);
  });
}

test("handlers are called by type, as often as they were added, until they are removed", async () => {
  const { stream, sockets } = await opened();
  const calls = [];
  const handler = ({ sequence_number }) => calls.push(sequence_number);
  const removals = [stream.on("chat", handler), stream.on("chat", handler)];
  stream.on("other", handler);

  await sockets[0].receive(message(8));
  removals[0]();
  await sockets[0].receive(message(9));

  assert.deepEqual(calls, [8, 8, 9]);
});

test("a message whose type is a star comes once", async () => {
  const { sockets, events } = await opened();

  await sockets[0].receive(message(8, { type: "*" }));

  assert.deepEqual(events, [["message", 8, false]]);
});

test("for await gets all messages, and ends when the stream is closed", async () => {
  const { stream, sockets } = await opened();
  const numbers = [];
  const reading = (async () => {
    for await (const { sequence_number } of stream) numbers.push(sequence_number);
  })();

  await settled();
  await sockets[0].receive(message(8), message(9));
  await sockets[0].receive(message(10));
  stream.close();
  await reading;

  assert.deepEqual(numbers, [8, 9, 10]);
});

test("for await misses nothing while its body waits", async () => {
  const { stream, sockets } = await opened();
  const numbers = [];
  let release;
  const gate = new Promise((resolve) => (release = resolve));
  (async () => {
    for await (const { sequence_number } of stream) {
      numbers.push(sequence_number);
      await gate;
    }
  })();
  await settled();

  for (const number of [8, 9, 10]) await sockets[0].receive(message(number));
  assert.deepEqual(numbers, [8]);
  release();
  await settled();

  assert.deepEqual(numbers, [8, 9, 10]);
});

test("a loop that is much too slow gets what waits, and then an error that names the option", async () => {
  const { stream, sockets } = await opened({ limit: 2 });
  const numbers = [];
  let go;
  const gate = new Promise((resolve) => (go = resolve));
  const reading = (async () => {
    for await (const { sequence_number } of stream) {
      await gate;
      numbers.push(sequence_number);
    }
  })();
  await settled();

  for (let number = 8; number < 108; number++) await sockets[0].receive(message(number));
  go();

  await assert.rejects(reading, { code: 4429, detail: /raise limit/ });
  assert.deepEqual([numbers.length, numbers[0], numbers.at(-1)], [41, 8, 48]);
});

test("loops that have ended leave nothing in a stream that goes on", async () => {
  const signals = [];
  const { AbortController } = globalThis;
  setGlobal(
    "AbortController",
    class extends AbortController {
      constructor() {
        super();
        signals.push(this.signal);
      }
    },
  );
  const listeners = () => signals.flatMap((signal) => getEventListeners(signal, "abort")).length;
  const { stream, sockets } = await opened();
  const before = listeners();

  for (let round = 0; round < 5; round++) {
    const loop = stream[Symbol.asyncIterator]();
    const reading = loop.next();
    await settled();
    assert.equal(listeners(), before + 1);
    await sockets[0].receive(message(8 + round));
    await reading;
    await loop.return();
  }

  assert.equal(listeners(), before);
});

test("a loop that is left does not keep messages", async () => {
  const { stream, sockets } = await opened();
  const reading = (async () => {
    for await (const each of stream) return each.sequence_number;
  })();

  await settled();
  await sockets[0].receive(message(8), message(9));

  assert.equal(await reading, 8);
});

// Tokens

test("a provider is called for every attempt, and its failure is a failed attempt", async () => {
  const sockets = fakeSockets();
  const answers = ["one", new Error("the login is away"), "two"];
  const stream = connect(URL_OF_SERVER, {
    token: async () => {
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
      return answer;
    },
  });
  await settled();
  await sockets[0].receive(CONNECTED);

  await sockets[0].end();
  await pass(250);
  assert.equal(stream.status, "waiting");
  await pass(500);

  assert.deepEqual(
    sockets.map(({ protocols }) => protocols[1]),
    ["one", "two"],
  );
});

test("the reason of a failed attempt is told", async () => {
  const sockets = fakeSockets();
  const told = [];
  const stream = connect(URL_OF_SERVER, {
    token: async () => {
      throw new DOMException("the login is away", "TimeoutError");
    },
  });
  stream.addEventListener("status", ({ detail }) => told.push(detail));

  await pass(0);

  assert.deepEqual(told, [{ status: "waiting", code: 1006, reason: "the login is away", milliseconds: 250 }]);
  assert.equal(sockets.length, 0);
});

test("a refused token is replaced at once", async () => {
  const { sockets } = await opened({ token: async () => "t" });
  await pass(6000);

  await sockets[0].end(4401, "expired");
  await pass(0);

  assert.equal(sockets.length, 2);
});

for (const [kind, token] of [
  ["fresh tokens", async () => "t"],
  ["a token that cannot change", "t"],
  ["cookies", undefined],
]) {
  test(`refusals of ${kind} end the stream after half a minute, and not before`, async () => {
    const told = [];
    const { stream, sockets } = await opened({ token });
    stream.addEventListener("unauthorized", ({ detail }) => told.push([Date.now() - began, detail]));
    await pass(6000);
    const began = Date.now();

    for (let count = 1; stream.status !== "closed";) {
      await sockets.at(-1).end(4401, "expired");
      while (stream.status !== "closed" && sockets.length === count) await pass(100);
      count = sockets.length;
    }
    await pass(60_000);

    const [[after, detail], ...more] = told;
    assert.deepEqual([detail, more], [{ code: 4401, reason: "expired" }, []]);
    assert.ok(after >= 30_000 && after < 60_000, `${after}`);
    assert.ok(sockets.length > 3 && sockets.length < 20, `${sockets.length}`);
  });
}

test("a token that was accepted in between is replaced again", async () => {
  const { stream, sockets } = await opened({ token: async () => "t" });

  for (let turn = 0; turn < 3; turn++) {
    await sockets.at(-1).end(4401);
    await pass(4000);
    await sockets.at(-1).receive({ ...CONNECTED, outcome: "complete" });
  }

  assert.deepEqual([stream.status, sockets.length], ["recovering", 4]);
});

test("a token is renewed in band after 80 % of its time", async () => {
  const tokens = ["first", "second"];
  const { sockets } = await opened(
    { token: async () => tokens.shift() },
    {
      connected: { ...CONNECTED, expires_in: 50 },
    },
  );

  await pass(39_000);
  assert.deepEqual(sockets[0].sent, []);
  await pass(1000);

  assert.deepEqual(sockets[0].sent, [{ type: "authenticate", token: "second" }]);
});

test("the answer to a renewed token tells when to renew it again", async () => {
  let count = 0;
  const { sockets } = await opened(
    { token: () => `token ${++count}` },
    {
      connected: { ...CONNECTED, expires_in: 10 },
    },
  );

  await pass(8000);
  await sockets[0].receive({ type: "authenticated", added: [], removed: [], expires_in: 10, sequence_number: 7 });
  await pass(8000);

  assert.deepEqual(
    sockets[0].sent.map(({ token }) => token),
    ["token 2", "token 3"],
  );
});

test("a token that did not change is not sent again", async () => {
  const { sockets } = await opened({ token: () => "same" }, { connected: { ...CONNECTED, expires_in: 10 } });

  await pass(9000);

  assert.deepEqual(sockets[0].sent, []);
});

for (const expires_at of [10, 10_000_000]) {
  test(`a clock that is wrong by days does not move the renewal: it seems to be due at ${expires_at}`, async () => {
    const tokens = ["first", "second"];
    const { sockets } = await opened(
      { token: async () => tokens.shift() },
      { connected: { ...CONNECTED, expires_at, expires_in: 50 } },
    );

    await pass(39_000);
    assert.deepEqual(sockets[0].sent, []);
    await pass(1000);

    assert.deepEqual(sockets[0].sent, [{ type: "authenticate", token: "second" }]);
  });
}

test("a pause of more than 24.8 days, the longest timeout of browsers, is kept", async () => {
  const longest = [];
  const { stream, sockets } = await opened();
  const { setTimeout: start } = globalThis;
  setGlobal("setTimeout", (action, milliseconds) => {
    longest.push(milliseconds);
    return start(action, milliseconds);
  });

  stream.drop(30 * 86_400_000);
  mock.timers.tick(2 ** 31 - 1);
  await settled();
  assert.deepEqual([sockets.length, stream.status], [1, "waiting"]);
  mock.timers.tick(6 * 86_400_000);
  await settled();

  assert.ok(Math.max(...longest) < 2 ** 31);
  assert.equal(sockets.length, 2);
});

// The end of a connection

for (const code of [1009, 4400, 4403]) {
  test(`close code ${code} is final`, async () => {
    const told = [];
    const { stream, sockets } = await opened();
    stream.addEventListener("refused", ({ detail }) => told.push(detail));

    await sockets[0].end(code, "because");
    await pass(60_000);

    assert.deepEqual(told, [{ code, reason: "because" }]);
    assert.deepEqual([stream.status, sockets.length], ["closed", 1]);
  });
}

test("the server says when to reconnect", async () => {
  const { sockets } = await opened({}, { sockets: fakeSockets({ random: 0 }) });
  await sockets[0].receive({ type: "reconnect", after_ms: 3000 });

  await sockets[0].end(1012);
  await pass(2900);
  assert.equal(sockets.length, 1);
  await pass(100);

  assert.equal(sockets.length, 2);
});

test("an attempt without an answer ends after 10 seconds", async () => {
  const { stream, sockets } = await opened({ transports: ["websocket"] }, { connected: null });

  await pass(9900);
  assert.equal(stream.status, "connecting");
  await pass(100);

  assert.deepEqual([stream.status, sockets[0].closed], ["waiting", true]);
});

test("a provider that never answers is asked again after five minutes", async () => {
  const sockets = fakeSockets();
  let calls = 0;
  const stream = connect(URL_OF_SERVER, { token: () => new Promise(() => calls++) });

  await pass(299_000);
  assert.deepEqual([stream.status, calls], ["connecting", 1]);
  await pass(2000);

  assert.deepEqual([stream.status, sockets.length, calls], ["connecting", 0, 2]);
});

test("the time that a provider takes does not count, and the server's does", async () => {
  let answer;
  const { stream, sockets } = await opened(
    { token: () => new Promise((resolve) => (answer = resolve)), transports: ["websocket"] },
    { connected: null },
  );

  await pass(120_000);
  answer("late");
  await pass(9900);
  assert.deepEqual([stream.status, sockets.length, sockets[0].protocols[1]], ["connecting", 1, "late"]);
  await pass(100);

  assert.deepEqual([stream.status, sockets[0].closed], ["waiting", true]);
});

test("a token that comes too late opens no socket", async () => {
  const sockets = fakeSockets();
  let answer;
  const stream = connect(URL_OF_SERVER, { token: () => new Promise((resolve) => (answer = resolve)) });
  await settled();
  stream.close();

  answer("late");
  await settled();

  assert.equal(sockets.length, 0);
});

test("no frame for two and a half heartbeats is a dead connection", async () => {
  const { stream, sockets } = await opened({}, { connected: { ...CONNECTED, heartbeat_seconds: 4 } });

  await pass(9000);
  await sockets[0].receive({ type: "heartbeat", sequence_number: 7 });
  await pass(9900);
  assert.equal(stream.status, "live");
  await pass(100);

  assert.deepEqual([stream.status, sockets[0].closed], ["waiting", true]);
});

test("a clock that is set back does not keep a dead connection", async () => {
  const { sockets } = await opened();
  const now = Date.now;
  Date.now = () => now() - 900_000;

  await pass(130_000);

  assert.ok(sockets[0].closed);
});

test("what comes late from an old socket has no effect", async () => {
  const { stream, sockets, events } = await opened();
  stream.drop();
  await pass(500);
  await sockets[1].receive({ ...CONNECTED, outcome: "complete" });

  await sockets[0].receive(message(8));
  await sockets[0].end(4403);

  assert.deepEqual(events, []);
  assert.equal(stream.status, "recovering");
});

test("a server that accepts and drops is left more time, up to four seconds", async () => {
  const { sockets } = await opened({}, { sockets: fakeSockets({ random: 1 }) });
  const pauses = [];

  for (let turn = 0; turn < 6; turn++) {
    const before = Date.now();
    const count = sockets.length;
    await sockets.at(-1).end();
    while (sockets.length === count) await pass(100);
    pauses.push(Date.now() - before);
    await sockets.at(-1).receive({ ...CONNECTED, outcome: "complete" });
  }

  assert.deepEqual(pauses, [500, 1000, 2000, 4000, 4000, 4000]);
});

test("a server that cannot be reached is left up to four seconds, and up to thirty after many failures", async () => {
  const sockets = fakeSockets({ random: 1 });
  connect(URL_OF_SERVER, { token: "t", transports: ["websocket"] });
  await settled();
  const pauses = [];

  for (let turn = 0; turn < 62; turn++) {
    const before = Date.now();
    const count = sockets.length;
    await sockets.at(-1).end();
    while (sockets.length === count) await pass(100);
    pauses.push(Date.now() - before);
  }

  assert.deepEqual(pauses, [500, 1000, 2000, ...Array(57).fill(4000), 30_000, 30_000]);
});

test("a connection that lasted begins with short pauses again", async () => {
  const { sockets } = await opened({}, { sockets: fakeSockets({ random: 1 }) });
  for (let turn = 0; turn < 3; turn++) {
    await sockets.at(-1).end();
    await pass(4000);
    await sockets.at(-1).receive({ ...CONNECTED, outcome: "complete" });
  }

  await pass(5100);
  await sockets.at(-1).end();
  const count = sockets.length;
  await pass(500);

  assert.equal(sockets.length, count + 1);
});

test("a drop closes the connection and keeps it down as long as asked", async () => {
  const { stream, sockets } = await opened();

  stream.drop(5000);
  await pass(4900);
  assert.deepEqual([stream.status, sockets[0].closed, sockets.length], ["waiting", true, 1]);
  await pass(100);

  assert.equal(sockets.length, 2);
});

test("the pause is told, also when a drop makes it longer", async () => {
  const { stream, sockets } = await opened();
  const told = [];
  stream.addEventListener("status", ({ detail }) => told.push(detail));

  await sockets[0].end(1012, "restart");
  stream.drop(5000);
  await pass(4900);

  assert.deepEqual(told, [
    { status: "waiting", code: 1012, reason: "restart", milliseconds: 250 },
    { status: "waiting", milliseconds: 5000 },
  ]);
  assert.equal(sockets.length, 1);
});

test("a closed stream stays closed", async () => {
  const wake = fakeWindow();
  const { stream, sockets, statuses } = await opened();

  stream.close();
  await wake("online");
  await pass(60_000);

  assert.deepEqual(statuses, ["live", "closed"]);
  assert.deepEqual([sockets.length, sockets[0].closed], [1, true]);
});

test("a stream that a handler closes while it connects stays closed", async () => {
  const { stream, sockets } = await opened();
  stream.addEventListener("status", () => stream.status === "connecting" && stream.close());
  await sockets[0].end();
  await pass(500);

  await sockets.at(-1).receive?.(CONNECTED, message(8));

  assert.deepEqual([stream.status, stream.position], ["closed", 7]);
});

// The life of a page

for (const type of ["online", "visibilitychange", "pageshow", "resume"]) {
  test(`${type} ends the pause before the next attempt`, async () => {
    const wake = fakeWindow();
    const { sockets } = await opened();
    await sockets[0].end();

    await wake(type);

    assert.equal(sockets.length, 2);
  });

  test(`${type} asks a connection that is silent, and leaves one that answers`, async () => {
    const wake = fakeWindow();
    const { stream, sockets } = await opened();
    await pass(6000);

    await wake(type);
    await sockets[0].receive({ type: "pong" });
    await pass(3000);

    assert.deepEqual(sockets[0].sent, [{ type: "ping" }]);
    assert.equal(stream.status, "live");
  });

  test(`${type} replaces a connection that does not answer`, async () => {
    const wake = fakeWindow();
    const { stream, sockets } = await opened();
    await pass(6000);

    await wake(type);
    await pass(2500);

    assert.deepEqual([stream.status, sockets[0].closed], ["waiting", true]);
  });

  test(`${type} leaves a connection alone whose last frame is new`, async () => {
    const wake = fakeWindow();
    const { sockets } = await opened();
    await pass(6000);
    await sockets[0].receive({ type: "heartbeat", sequence_number: 7 });

    await wake(type);

    assert.deepEqual(sockets[0].sent, []);
  });
}

test("online replaces an attempt that began without a network", async () => {
  const wake = fakeWindow();
  const { sockets } = await opened({}, { connected: null });

  await wake("online");

  assert.deepEqual(
    sockets.map(({ closed }) => closed),
    [true, false],
  );
});

test("a page that is hidden does not wake the stream", async () => {
  const wake = fakeWindow();
  const { sockets } = await opened();
  await sockets[0].end();
  document.hidden = true;

  await wake("visibilitychange");

  assert.equal(sockets.length, 1);
});

test("a page that goes offline while it waits does not try at once", async () => {
  const wake = fakeWindow();
  const { sockets } = await opened();
  await sockets[0].end();

  await wake("offline");

  assert.equal(sockets.length, 1);
});

test("a dropped connection is not woken before its time", async () => {
  const wake = fakeWindow();
  const { stream, sockets } = await opened();
  stream.drop(5000);

  await wake("online");

  assert.equal(sockets.length, 1);
});

test("a page that goes offline asks its connection, which may work", async () => {
  const wake = fakeWindow();
  const { stream, sockets } = await opened();

  await wake("offline");
  await sockets[0].receive({ type: "pong" });
  await pass(3000);

  assert.deepEqual([stream.status, sockets[0].sent], ["live", [{ type: "ping" }]]);
});

for (const [leave, come] of [
  ["freeze", "resume"],
  ["pagehide", "pageshow"],
]) {
  test(`${leave} closes the connection, and ${come} resumes it`, async () => {
    const wake = fakeWindow();
    const { stream, sockets } = await opened();
    await sockets[0].receive(message(8));

    await wake(leave);
    assert.deepEqual([stream.status, sockets[0].closed], ["waiting", true]);
    await pass(120_000);
    assert.equal(sockets.length, 1);
    await wake(come);

    assert.equal(sockets[1].url, "ws://server.test/ws?since=8&epoch=e");
  });
}

// Snapshots

/** Returns a snapshot function whose calls the test answers. */
function fakeSnapshot() {
  const calls = [];
  const snapshot = () => new Promise((resolve, reject) => calls.push({ resolve, reject }));
  return { calls, snapshot };
}

test("messages wait until the first snapshot is done", async () => {
  const { calls, snapshot } = fakeSnapshot();
  const { sockets, events } = await opened({ snapshot });

  await sockets[0].receive(message(8), message(9));
  await pass(0);
  assert.deepEqual([events, calls.length], [[], 1]);
  calls[0].resolve();
  await pass(0);
  await sockets[0].receive(message(10));

  assert.deepEqual(
    events.map(([, number]) => number),
    [8, 9, 10],
  );
});

test("messages that the snapshot includes are dropped, also when they come later", async () => {
  const { calls, snapshot } = fakeSnapshot();
  const { stream, sockets, events } = await opened({ snapshot });
  await sockets[0].receive(message(8), message(9));

  calls[0].resolve(10);
  await pass(0);
  assert.equal(stream.position, 10);
  await sockets[0].receive(message(10), message(11));

  assert.deepEqual(
    events.map(([, number]) => number),
    [11],
  );
});

test("a page that is reloaded takes a snapshot although its position is stored", async () => {
  const { calls, snapshot } = fakeSnapshot();
  const storage = new FakeStorage([["mine", '[6,"e"]']]);
  const { sockets, events } = await opened(
    { snapshot, storage, key: "mine" },
    { connected: { ...CONNECTED, outcome: "complete", sequence_number: 6 } },
  );
  await sockets[0].receive(message(7), message(8));

  calls[0].resolve(7);
  await pass(0);

  assert.deepEqual(events, [["message", 8, false]]);
});

test("a reconnect needs no snapshot", async () => {
  const { calls, snapshot } = fakeSnapshot();
  const { sockets } = await opened({ snapshot });
  calls[0].resolve();
  await pass(0);

  await sockets[0].end();
  await pass(500);
  await sockets[1].receive({ ...CONNECTED, outcome: "complete" });
  await pass(0);

  assert.equal(calls.length, 1);
});

test("a gap and a reset each need another snapshot, after the event", async () => {
  const told = [];
  const { stream, sockets } = await opened({ snapshot: async () => void told.push("snapshot") });
  for (const type of ["gap", "reset"]) stream.addEventListener(type, () => told.push(type));

  await sockets[0].receive({ type: "gap", from: 8, to: 9, sequence_number: 7 });
  stream.drop();
  await pass(500);
  await sockets[1].receive({ ...CONNECTED, epoch: "f", outcome: "reset" });
  await pass(0);

  assert.deepEqual(told, ["snapshot", "gap", "snapshot", "reset", "snapshot"]);
});

test("a snapshot that fails is reported and taken again", async () => {
  const reported = [];
  setGlobal("reportError", (error) => reported.push(error.message));
  const { calls, snapshot } = fakeSnapshot();
  const { sockets, events } = await opened({ snapshot });

  calls[0].reject(new Error("away"));
  await pass(400);
  assert.equal(calls.length, 1);
  await pass(100);
  await sockets[0].receive(message(8));
  calls[1].resolve();
  await pass(0);

  assert.deepEqual(events, [["message", 8, false]]);
});

test("a closed stream takes no more snapshots", async () => {
  setGlobal("reportError", () => {});
  const { calls, snapshot } = fakeSnapshot();
  const { stream } = await opened({ snapshot });

  stream.close();
  calls[0].reject(new Error("away"));
  await pass(60_000);

  assert.equal(calls.length, 1);
});

test("a closed stream does not store the position of messages that it did not deliver", async () => {
  setGlobal("reportError", () => {});
  const storage = new FakeStorage();
  const { calls, snapshot } = fakeSnapshot();
  const { stream, sockets } = await opened({ snapshot, storage });
  await sockets[0].receive(message(8), message(9));
  calls[0].reject(new Error("away"));
  await settled();

  stream.close();
  await pass(60_000);

  assert.deepEqual([calls.length, storage.size], [1, 0]);
});

test("a handler that closes the stream gets the rest of the messages after a reload", async () => {
  const storage = new FakeStorage([["mine", '[7,"e"]']]);
  const { calls, snapshot } = fakeSnapshot();
  const { stream, sockets } = await opened({ snapshot, storage, key: "mine" });
  stream.on("*", () => stream.close());
  await sockets[0].receive(message(8), message(9));

  calls[0].resolve(7);
  await pass(0);

  assert.equal(storage.getItem("mine"), '[7,"e"]');
});

test("a loss during a snapshot needs another one, which is the only one that counts", async () => {
  const { calls, snapshot } = fakeSnapshot();
  const { sockets, events } = await opened({ snapshot });
  await sockets[0].receive(message(8), { type: "gap", from: 9, to: 20, sequence_number: 8 }, message(21));

  calls[0].resolve(8);
  await pass(0);
  assert.deepEqual([events.at(-1), calls.length], [["gap", 9, 20], 2]);
  calls[1].resolve(20);
  await pass(0);

  assert.deepEqual(events.at(-1), ["message", 21, false]);
});

test("more messages than may wait are covered by another snapshot", async () => {
  const { calls, snapshot } = fakeSnapshot();
  const { sockets, events } = await opened({ snapshot, limit: 3 });
  await sockets[0].receive(...[8, 9, 10, 11, 12].map((number) => message(number)));

  calls[0].resolve();
  await pass(0);
  calls[1].resolve(11);
  await pass(0);

  assert.deepEqual(events, [["message", 12, false]]);
  assert.equal(calls.length, 2);
});

test("the position is not stored before the snapshot is done", async () => {
  const storage = new FakeStorage();
  const { calls, snapshot } = fakeSnapshot();
  const { sockets } = await opened({ snapshot, storage });
  await sockets[0].receive(message(8));
  assert.equal(storage.size, 0);

  calls[0].resolve();
  await pass(0);

  assert.deepEqual([...storage.values()], ['[8,"e"]']);
});
