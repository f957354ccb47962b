/** Snapshots that are older or newer than the connection: a page has every message once, or a loss is declared. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import {
  FakeLog,
  FakeStorage,
  fakeHttp,
  fakeSockets,
  fakeTabs,
  pass,
  restoreGlobals,
  setGlobal,
  settled,
} from "./fakes.js";

const START = 1_796_000_000_000_000;
const TRANSPORTS = ["websocket", "events", "polling"];

const streams = [];

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
  restoreGlobals();
});

/** A log that holds the messages from 1 to `count` after START, and answers every connection. */
class FakeServer {
  log = new FakeLog(START + 1);
  #greeted = new Set();

  constructor(count) {
    this.sockets = fakeSockets();
    this.http = fakeHttp(this.log.answer);
    this.publish(count);
  }

  get connections() {
    return [...this.sockets, ...this.http.events];
  }

  /** Answers the connections that have none. */
  async greet() {
    await settled();
    for (const connection of this.connections) {
      if (this.#greeted.has(connection)) continue;
      this.#greeted.add(connection);
      const query = new URLSearchParams(connection.query);
      if (isOpen(connection)) await connection.receive(...this.log.greeting(connection.url ?? `?${query}`));
    }
    await pass(0);
  }

  async publish(count) {
    for (; count > 0; count--) {
      this.log.add(this.log.latest + 1);
      const newest = this.log.messages.at(-1);
      for (const each of this.connections) if (this.#greeted.has(each) && isOpen(each)) await each.receive(newest);
    }
  }

  /** Begins another epoch, as after the loss of the log. */
  restart(first) {
    this.log.restart(first);
  }
}

const isOpen = (connection) => !(connection.closed ?? connection.signal.aborted);

/** A page whose state is the list of its messages. `snapshots` are the numbers that are loaded; the last one repeats. */
function openPage(snapshots, options = {}) {
  const page = { state: [], losses: [], loads: 0 };
  const load = async () => {
    const number = await snapshots[Math.min(page.loads++, snapshots.length - 1)];
    page.state = range(START + 1, number);
    return number;
  };
  page.stream = connect("http://server.test", { token: async () => "t", snapshot: load, ...options });
  page.stream.on("*", ({ sequence_number }) => page.state.push(sequence_number));
  for (const type of ["gap", "reset"]) page.stream.addEventListener(type, ({ detail }) => page.losses.push(detail));
  streams.push(page.stream);
  return page;
}

function range(from, to) {
  const numbers = [];
  for (let number = from; number <= to; number++) numbers.push(number);
  return numbers;
}

/** Returns a promise that a test resolves. */
function deferred() {
  let resolve;
  const promise = new Promise((settle) => (resolve = settle));
  return { promise, resolve };
}

const AGES = {
  "older by all": -20,
  "older by three": -3,
  "older by one": -1,
  "as old": 0,
  "newer by one": 1,
  "newer by five": 5,
};

for (const transport of TRANSPORTS) {
  for (const [age, difference] of Object.entries(AGES)) {
    test(`over ${transport}, a snapshot that is ${age} loses and doubles nothing`, async () => {
      const server = new FakeServer(20);
      const page = openPage([difference === -20 ? 0 : START + 20 + difference], { transports: [transport] });

      await server.greet();
      await server.greet();
      await server.publish(8);
      await pass(6000);

      assert.deepEqual(page.state, range(START + 1, START + 28));
      assert.deepEqual(page.losses, []);
      assert.equal(page.loads, 1);
    });
  }

  test(`over ${transport}, a snapshot that stays below what is retained is one gap, and the rest follows`, async () => {
    const server = new FakeServer(20);
    server.log.evict(START + 15);
    const page = openPage([START + 3], { transports: [transport] });

    await server.greet();
    await server.greet();
    await server.publish(2);
    await pass(60_000);

    assert.deepEqual(page.losses, [{ type: "gap", from: START + 4, to: START + 15 }]);
    assert.deepEqual(page.state, [...range(START + 1, START + 3), ...range(START + 16, START + 22)]);
    assert.equal(page.loads, 2);
  });

  test(`over ${transport}, a snapshot of an earlier epoch is one reset, and this epoch follows`, async () => {
    const server = new FakeServer(20);
    const page = openPage([START - 5_000], { transports: [transport] });

    await server.greet();
    await server.greet();
    await server.publish(2);
    await pass(60_000);

    assert.deepEqual(page.losses, [{ type: "reset", epoch: "e" }]);
    assert.deepEqual(page.state, range(START + 1, START + 22));
    assert.ok(server.sockets.length <= 2 && server.http.events.length <= 2);
  });
}

for (const transport of TRANSPORTS) {
  test(`over ${transport}, what follows a gap up to the number of the snapshot is in the snapshot`, async () => {
    const server = new FakeServer(20);
    server.log.evict(START + 15, START + 6, START + 12);
    const page = openPage([START + 10], { transports: [transport], since: START + 2, epoch: "e" });

    await server.greet();
    await server.publish(2);
    await pass(6000);

    assert.deepEqual(page.losses, [{ type: "gap", from: START + 3, to: START + 15 }]);
    assert.deepEqual(page.state, [...range(START + 1, START + 10), START + 12, ...range(START + 16, START + 22)]);
    assert.equal(page.loads, 1);
  });
}

test("a snapshot from before a gap goes back, and the same gap needs another one", async () => {
  const server = new FakeServer(20);
  server.log.evict(START + 15);
  const page = openPage([START + 3, START + 18], { since: START + 8, epoch: "e" });

  await server.greet();
  await server.greet();
  await server.publish(1);

  assert.deepEqual(page.losses, [
    { type: "gap", from: START + 9, to: START + 15 },
    { type: "gap", from: START + 4, to: START + 15 },
  ]);
  assert.deepEqual(page.state, range(START + 1, START + 21));
});

test("a snapshot that starts from nothing does not count what never existed as lost", async () => {
  const server = new FakeServer(20);
  server.log.evict(START + 1);
  const page = openPage([0]);

  await server.greet();
  await server.greet();

  assert.deepEqual(page.losses, [{ type: "gap", from: START + 1, to: START + 1 }]);
});

test("two sources of snapshots, one older than the other, do not make a page go back and forth", async () => {
  const server = new FakeServer(20);
  server.log.evict(START + 15);
  const page = openPage([START + 9, START + 3, START + 9, START + 3]);

  for (let round = 0; round < 10; round++) await server.greet();
  await server.publish(1);

  assert.deepEqual(
    page.losses.map(({ from, to }) => [from, to]),
    [
      [START + 10, START + 15],
      [START + 4, START + 15],
    ],
  );
  assert.equal(page.state.at(-1), START + 21);
});

test("more messages than may wait come again after a snapshot that is older", async () => {
  const server = new FakeServer(20);
  const first = deferred();
  const page = openPage([first.promise, START + 20], { limit: 3 });
  await server.greet();
  await server.publish(9);

  first.resolve(START + 20);
  await pass(0);
  await server.greet();

  assert.deepEqual(page.state, range(START + 1, START + 29));
  assert.deepEqual(page.losses, []);
});

test("a snapshot that is done while the stream waits counts for the next attempt", async () => {
  const server = new FakeServer(20);
  const slow = deferred();
  const page = openPage([slow.promise]);
  await server.greet();
  await server.sockets[0].end();

  slow.resolve(START + 12);
  await pass(500);
  await server.greet();

  assert.equal(server.sockets.length, 2);
  assert.deepEqual(page.state, range(START + 1, START + 20));
});

test("a snapshot that is done during an attempt begins another one from its number", async () => {
  const server = new FakeServer(20);
  const slow = deferred();
  const page = openPage([slow.promise]);
  await server.greet();
  await server.sockets[0].end();
  await pass(500);

  slow.resolve(START + 12);
  await pass(0);
  await server.greet();

  assert.ok(server.sockets[1].closed);
  assert.deepEqual(page.state, range(START + 1, START + 20));
});

test("a reset while a snapshot is loaded makes its number void", async () => {
  const server = new FakeServer(20);
  const slow = deferred();
  const page = openPage([slow.promise, START + 5_001]);
  await server.greet();
  server.restart(START + 5_001);
  server.log.add(START + 5_001, START + 5_002);
  await server.sockets[0].end();
  await pass(500);
  await server.greet();

  slow.resolve(START + 12);
  await pass(0);

  assert.deepEqual(page.losses, [{ type: "reset", epoch: "f" }]);
  assert.deepEqual([page.loads, page.state.at(-2), page.state.at(-1)], [2, START + 5_001, START + 5_002]);
});

test("a snapshot that is older than a stored position goes back behind it", async () => {
  const server = new FakeServer(20);
  const storage = new FakeStorage([["mine", JSON.stringify([START + 18, "e"])]]);
  const page = openPage([START + 15], { storage, key: "mine" });

  await server.greet();
  await server.greet();

  assert.deepEqual(page.state, range(START + 1, START + 20));
  assert.equal(storage.getItem("mine"), JSON.stringify([START + 20, "e"]));
});

for (const [leads, follows] of [
  [-4, -7],
  [-7, -4],
  [-4, 0],
  [0, -4],
  [3, -4],
]) {
  test(`tabs with snapshots of ${leads} and ${follows} each have everything once`, async () => {
    const server = new FakeServer(20);
    fakeTabs();
    const pages = [];
    for (const difference of [leads, follows]) {
      pages.push(openPage([START + 20 + difference], { shared: true }));
      for (let round = 0; round < 3; round++) await server.greet();
    }

    await server.publish(5);
    await settled();

    for (const page of pages) assert.deepEqual([page.state, page.losses], [range(START + 1, START + 25), []]);
    assert.equal(server.sockets.filter(isOpen).length, 1);
  });
}

test("a snapshot that takes longer than its time is reported, and loaded again", async () => {
  const reported = [];
  setGlobal("reportError", ({ message }) => reported.push(message));
  const server = new FakeServer(20);
  const signals = [];
  const numbers = [];
  const load = ({ signal }) => (signals.push(signal) > 1 ? START + 20 : new Promise(() => {}));
  const stream = connect("http://server.test", { token: "t", snapshot: load, snapshotTimeout: 4000 });
  streams.push(stream);
  stream.on("*", ({ sequence_number }) => numbers.push(sequence_number));
  await server.greet();
  await server.publish(2);

  await pass(3900);
  assert.deepEqual([stream.snapshotStatus, signals[0].aborted, reported], ["loading", false, []]);
  await pass(100);
  assert.deepEqual([stream.snapshotStatus, signals[0].aborted], ["failed", true]);
  await pass(500);

  assert.equal(stream.snapshotStatus, "loaded");
  assert.match(reported.join(), /longer than 4000 ms: raise snapshotTimeout/);
  assert.deepEqual([numbers, signals.length, signals[1].aborted], [range(START + 21, START + 22), 2, false]);
});

test("a snapshot has half a minute, and ends with its stream", async () => {
  const server = new FakeServer(20);
  let signal;
  const page = connect("http://server.test", {
    token: "t",
    snapshot(context) {
      signal = context.signal;
      return new Promise(() => {});
    },
  });
  await server.greet();

  await pass(29_900);
  assert.equal(signal.aborted, false);
  page.close();

  assert.ok(signal.aborted);
});

test("the status of a snapshot is an event, and a property", async () => {
  setGlobal("reportError", () => {});
  const server = new FakeServer(20);
  const answers = [new Error("away"), START + 12, START + 25];
  const load = async () => {
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const stream = connect("http://server.test", { token: "t", snapshot: load });
  streams.push(stream);
  const seen = [stream.snapshotStatus];
  stream.addEventListener("snapshot", ({ detail }) => seen.push([detail.status, stream.snapshotStatus, detail.number]));
  await server.greet();
  await pass(500);

  assert.deepEqual(seen, [
    undefined,
    ["loading", "loading", undefined],
    ["failed", "failed", undefined],
    ["loading", "loading", undefined],
    ["loaded", "loaded", START + 12],
  ]);
});

test("a stream without a snapshot has no status of it", async () => {
  const server = new FakeServer(20);
  const stream = connect("http://server.test", { token: "t" });
  streams.push(stream);

  await server.greet();

  assert.equal(stream.snapshotStatus, undefined);
});

for (const [url, expected] of Object.entries({
  "http://server.test/orders": "Bearer fresh",
  "http://server.test:8000/orders": null,
  "https://server.test/orders": null,
  "http://other.test/orders": null,
})) {
  test(`the fetch of a snapshot sends the token ${expected ? "" : "not "}to ${url}`, async () => {
    const server = new FakeServer(20);
    const requests = [];
    const tokens = ["first", "fresh"];
    const token = async () => tokens.shift();
    const load = async ({ fetch: authorized }) => {
      setGlobal("fetch", async (request) => {
        requests.push(request);
        return Response.json({ sequence_number: START + 20 });
      });
      return (await (await authorized(url, { headers: { Accept: "application/json" } })).json()).sequence_number;
    };
    const stream = connect("http://server.test", { token, credentials: "include", snapshot: load });
    streams.push(stream);

    await server.greet();

    assert.equal(stream.snapshotStatus, "loaded");
    const [{ headers, credentials, signal }] = requests;
    assert.deepEqual([headers.get("Authorization"), headers.get("Accept")], [expected, "application/json"]);
    assert.deepEqual([credentials, signal.aborted], ["include", false]);
  });
}

for (const nothing of [undefined, null]) {
  test(`a snapshot that returns ${nothing} is followed by what waited`, async () => {
    const server = new FakeServer(20);
    const numbers = [];
    const stream = connect("http://server.test", { token: "t", snapshot: async () => nothing });
    streams.push(stream);
    stream.on("*", ({ sequence_number }) => numbers.push(sequence_number));

    await server.greet();
    await server.publish(2);

    assert.deepEqual([numbers, server.sockets.length], [[START + 21, START + 22], 1]);
  });
}

for (const wrong of ["5", NaN, -1, 1.5, {}, true]) {
  test(`a snapshot that returns ${JSON.stringify(wrong)} is reported with the fix, and loses nothing`, async () => {
    const reported = [];
    setGlobal("reportError", ({ message }) => reported.push(message));
    const server = new FakeServer(20);
    const answers = [wrong, START + 20];
    const numbers = [];
    const stream = connect("http://server.test", { token: "t", snapshot: async () => answers.shift() });
    streams.push(stream);
    stream.on("*", ({ sequence_number }) => numbers.push(sequence_number));

    await server.greet();
    await server.publish(2);
    await pass(500);

    assert.match(reported.join(), /^snapshot must return a sequence number, or nothing/);
    assert.deepEqual(numbers, [START + 21, START + 22]);
  });
}
