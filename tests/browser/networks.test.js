/** Networks that are in the way of a page. None of them ends it for good. */

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
  problem,
  restoreGlobals,
  setGlobal,
  settled,
} from "./fakes.js";

const FIRST = 1_796_000_000_000_001;
/** How long after the end of an obstacle a page may take to be live. */
const LIVE_TIME = 5000;

let streams = [];

afterEach(() => {
  for (const stream of streams) stream.close();
  streams = [];
  restoreGlobals();
});

/** A network: `websocket` gets every new socket, and `http` every request. Both work, unless a test replaces them. */
class Network {
  log = new FakeLog(FIRST);
  #seen = new Set();

  constructor() {
    this.log.add(FIRST, FIRST + 1);
    this.sockets = fakeSockets();
    this.fakes = fakeHttp((request) => this.http(request));
    this.heal();
  }

  /** Everything works from now on. */
  heal() {
    this.websocket = (socket) => this.greet(socket);
    this.http = this.log.answer;
  }

  async greet(connection) {
    const query = new URLSearchParams(connection.query);
    await connection.receive(...this.log.greeting(connection.url ?? `?${query}`));
  }

  /** Lets time pass, and answers what is opened. */
  async run(milliseconds) {
    for (let left = milliseconds; left >= 0; left -= 100) {
      for (const each of [...this.sockets, ...this.fakes.events]) {
        if (this.#seen.has(each)) continue;
        this.#seen.add(each);
        if (each.response) await this.greet(each);
        else await this.websocket(each);
      }
      await pass(left > 0 ? 100 : 0);
    }
  }

  /** Ends all connections. */
  async cut() {
    for (const socket of this.sockets) if (!socket.closed) await socket.end();
    for (const events of this.fakes.events) if (!events.signal.aborted) await events.end();
  }
}

/** Opens a page, and returns its stream and why it has ended, if it has. */
async function openPage(network, options = {}) {
  const stream = connect("http://server.test", { token: async () => "t", ...options });
  streams.push(stream);
  const ends = [];
  for (const type of ["unauthorized", "refused"]) {
    stream.addEventListener(type, ({ detail }) => ends.push([type, detail]));
  }
  await settled();
  await network.run(0);
  return { stream, ends };
}

/** Returns after how many milliseconds a stream is live, or undefined if it is not within two minutes. */
async function timeUntilLive(network, stream) {
  for (let time = 0; time <= 120_000; time += 100) {
    if (stream.status === "live") return time;
    await network.run(100);
  }
}

// What a WebSocket may meet.

const refuse = (socket) => socket.end();
const hang = () => {};
const errorAlone = (socket) => socket.onerror(new Event("error"));
const close = (code, reason) => (socket) => {
  socket.open("unmissed.bearer");
  return socket.end(code, reason);
};

/** As in Chromium: an answer that lacks the subprotocol is no handshake. */
const strippedStrictly = (network) => (socket) => {
  if (socket.protocols.length) return socket.end();
  return strippedLeniently(network)(socket);
};

/** As in Firefox and WebKit: the socket opens, and the server waits for the first frame. */
const strippedLeniently = (network) => async (socket) => {
  socket.open();
  const [first] = socket.sent;
  if (first?.type === "authenticate" && first.token === "t") await network.greet(socket);
};

// What a request may meet. A response has one body.

const html = (status) => () => new Response("<!doctype html>", { status, headers: { "Content-Type": "text/html" } });
const json =
  (status, type = "application/json") =>
  () =>
    new Response(JSON.stringify({ detail: "blocked by policy" }), { status, headers: { "Content-Type": type } });
const foreignProblem = (status) => () =>
  new Response(JSON.stringify({ type: "about:blank", title: "Forbidden", status, detail: "blocked by policy" }), {
    status,
    headers: { "Content-Type": "application/problem+json" },
  });
const hangingRequest = () => new Promise(() => {});
const ANSWERS = {
  "HTML with 200": html(200),
  "HTML with 404": html(404),
  "JSON with 200": json(200),
  "JSON with 401": json(401),
  "JSON with 403": json(403),
  "a problem of a gateway with 401": foreignProblem(401),
  "a problem of a gateway with 403": foreignProblem(403),
  "no network": () => new TypeError("no network"),
  "no answer": hangingRequest,
};

// Faults that stay: there is a way around each.

const WAYS = {
  "WebSockets are refused": { websocket: () => refuse, within: 4000, by: "events" },
  "WebSockets fire error without close, as with a Content-Security-Policy": {
    websocket: () => errorAlone,
    within: 4000,
    by: "events",
  },
  "WebSockets hang": { websocket: () => hang, within: 4000, by: "events" },
  "WebSockets and events hang": {
    websocket: () => hang,
    http: (network) => (request) => (request.path.endsWith("events") ? hangingRequest() : network.log.answer(request)),
    within: 8000,
    by: "polling",
  },
  "WebSockets are refused, and events are answered by another server": {
    websocket: () => refuse,
    http: (network) => (request) => (request.path.endsWith("events") ? html(200)() : network.log.answer(request)),
    within: LIVE_TIME,
    by: "polling",
  },
  "the subprotocol is removed, and the browser is strict": {
    websocket: strippedStrictly,
    http: () => html(404),
    within: 1000,
    by: "websocket",
  },
  "the subprotocol is removed, and the browser is lenient": {
    websocket: strippedLeniently,
    http: () => html(404),
    within: 500,
    by: "websocket",
  },
};

for (const [fault, { websocket, http, within, by }] of Object.entries(WAYS)) {
  for (const onLine of [true, false]) {
    test(`${fault}, and onLine is ${onLine}: ${by} within ${within / 1000} s`, async () => {
      setGlobal("navigator", { onLine });
      const network = new Network();
      network.websocket = websocket(network);
      if (http) network.http = http(network);

      const { stream } = await openPage(network);
      const time = await timeUntilLive(network, stream);

      assert.ok(time <= within, `${time}`);
      assert.equal(stream.transport, by);
    });
  }
}

test("a page that has moved behind a proxy that removes the subprotocol finds its way", async () => {
  const network = new Network();
  const { stream } = await openPage(network, { transports: ["websocket"] });
  network.websocket = strippedStrictly(network);
  await network.cut();

  const time = await timeUntilLive(network, stream);

  assert.ok(time !== undefined && network.sockets.length < 12, `${time} ms, ${network.sockets.length} sockets`);
});

test("what worked is kept: a page that sent its token in the first frame does so at once", async () => {
  const network = new Network();
  network.websocket = strippedStrictly(network);
  const { stream } = await openPage(network, { transports: ["websocket"] });
  await timeUntilLive(network, stream);
  const before = network.sockets.length;

  await network.cut();
  await timeUntilLive(network, stream);

  assert.equal(network.sockets.length, before + 1);
});

test("a server that gets no token in time is no verdict: a proxy has removed it, and answers with the subprotocol", async () => {
  const network = new Network();
  network.websocket = async (socket) => {
    socket.open(socket.protocols.length ? "unmissed.bearer" : "");
    const [first] = socket.sent;
    if (first?.token === "t") return network.greet(socket);
    await pass(5000);
    return socket.end(4408, "no authentication in time");
  };

  const { stream, ends } = await openPage(network, { transports: ["websocket"] });
  const time = await timeUntilLive(network, stream);

  assert.ok(time <= 1000, `${time}`);
  assert.deepEqual([network.sockets.length, ends], [2, []]);
});

test("a token that never arrives in time does not end a page", async () => {
  const network = new Network();
  network.websocket = close(4408, "no authentication in time");
  const { stream, ends } = await openPage(network, { transports: ["websocket"] });
  await network.run(100_000);

  network.heal();
  const time = await timeUntilLive(network, stream);

  assert.ok(time <= LIVE_TIME, `${time}`);
  assert.deepEqual(ends, []);
});

test("a page without a token or cookie ends after half a minute", async () => {
  const network = new Network();
  network.websocket = close(4408, "no authentication in time");
  const { ends } = await openPage(network, { token: undefined, transports: ["websocket"] });

  await network.run(120_000);

  assert.deepEqual(ends, [["unauthorized", { code: 4408, reason: "no authentication in time" }]]);
});

// What worked is remembered for the session.

test("a page that is reloaded begins with the transport that worked, and tries the best one beside it", async () => {
  setGlobal("sessionStorage", new FakeStorage());
  const network = new Network();
  network.websocket = hang;
  const { stream: before } = await openPage(network);
  await timeUntilLive(network, before);
  before.close();

  const { stream } = await openPage(network);
  const time = await timeUntilLive(network, stream);
  assert.deepEqual([stream.transport, time <= 200], ["events", true]);
  network.heal();
  await network.run(20_000);

  assert.equal(stream.transport, "websocket");
});

test("a transport that worked before a reload, and hangs now, holds a page up for 3 s", async () => {
  const network = new Network();
  setGlobal("sessionStorage", new FakeStorage([["unmissed:transport:http://server.test", "events"]]));
  network.http = hangingRequest;

  const { stream } = await openPage(network);
  const time = await timeUntilLive(network, stream);

  assert.ok(time <= 3500, `${time}`);
});

for (const remembered of ["pigeon", "polling", ""]) {
  test(`a transport that cannot be used is not remembered: ${remembered}`, async () => {
    const network = new Network();
    setGlobal("sessionStorage", new FakeStorage([["unmissed:transport:http://server.test", remembered]]));

    const { stream } = await openPage(network, { transports: ["websocket", "events"] });
    await timeUntilLive(network, stream);

    assert.equal(stream.transport, "websocket");
  });
}

test("a page without storage remembers nothing", async () => {
  const network = new Network();
  setGlobal("sessionStorage", undefined);
  Object.defineProperty(globalThis, "sessionStorage", {
    configurable: true,
    get() {
      throw new DOMException("blocked", "SecurityError");
    },
  });

  const { stream } = await openPage(network);
  await timeUntilLive(network, stream);

  assert.equal(stream.status, "live");
});

// Requests

for (const transport of ["events", "polling"]) {
  for (const status of [401, 403]) {
    test(`over ${transport}, a gateway that answers requests with ${status} does not end a page`, async () => {
      const network = new Network();
      const { stream, ends } = await openPage(network, { transports: [transport] });
      await timeUntilLive(network, stream);
      network.http = (request) => (request.method === "POST" ? foreignProblem(status)() : network.log.answer(request));

      stream.publish({ type: "chat" }).catch(() => {});
      await network.run(120_000);

      assert.deepEqual(ends, []);
      assert.notEqual(stream.status, "closed");
    });
  }

  test(`over ${transport}, a command that takes long costs no connection, and one without a network does`, async () => {
    const network = new Network();
    const { stream } = await openPage(network, { transports: [transport] });
    await timeUntilLive(network, stream);
    const opened = network.fakes.events.length;
    network.http = (request) => (request.method === "POST" ? hangingRequest() : network.log.answer(request));
    stream.command("report").catch(() => {});
    await network.run(30_000);
    assert.deepEqual([stream.status, network.fakes.events.length], ["live", opened]);

    network.http = hangingRequest;
    await network.run(8000);

    assert.notEqual(stream.status, "live");
  });
}

// Faults that end: the page goes on soon after.

for (const [answer, http] of Object.entries(ANSWERS)) {
  for (const seconds of [3, 100]) {
    test(`after ${seconds} s in which all requests got ${answer}, a page is live again`, async () => {
      const network = new Network();
      const { stream, ends } = await openPage(network);
      network.websocket = refuse;
      network.http = http;
      await network.cut();
      await network.run(1000 * seconds);

      network.heal();
      const time = await timeUntilLive(network, stream);

      assert.ok(time <= LIVE_TIME, `${time}`);
      assert.deepEqual(ends, []);
    });

    test(`after ${seconds} s in which all requests got ${answer}, a page on events is live again`, async () => {
      const network = new Network();
      const { stream, ends } = await openPage(network, { transports: ["events", "polling"] });
      network.http = http;
      await network.cut();
      await network.run(1000 * seconds);

      network.heal();
      const time = await timeUntilLive(network, stream);

      assert.ok(time <= LIVE_TIME, `${time}`);
      assert.deepEqual(ends, []);
    });
  }
}

for (const status of [401, 403, 404]) {
  const answer = () => (status === 404 ? html(404)() : problem(status, "log in first"));

  test(`a restart of 3 s costs a page whose other transports get ${status} at most 4 s`, async () => {
    const network = new Network();
    network.http = answer;
    const { stream, ends } = await openPage(network);
    network.websocket = refuse;
    await network.cut();
    await network.run(3000);

    network.websocket = (socket) => network.greet(socket);
    const time = await timeUntilLive(network, stream);

    assert.ok(time <= 4000, `${time}`);
    assert.deepEqual([stream.transport, ends], ["websocket", []]);
  });

  test(`a page whose other transports get ${status} is not ended by them, also if none has ever worked`, async () => {
    const network = new Network();
    network.http = answer;
    network.websocket = refuse;
    const { stream, ends } = await openPage(network);
    await network.run(300_000);

    network.websocket = (socket) => network.greet(socket);
    const time = await timeUntilLive(network, stream);

    assert.ok(time <= 40_000, `${time}`);
    assert.deepEqual(ends, []);
  });
}

test("a tab that cannot recover over REST has a connection of its own", async () => {
  const network = new Network();
  fakeTabs();
  const { stream: leader } = await openPage(network, { shared: true });
  network.http = () => problem(401, "log in first");

  const { stream, ends } = await openPage(network, { shared: true, since: FIRST, epoch: "e" });
  const time = await timeUntilLive(network, stream);

  assert.ok(time <= 2000, `${time}`);
  assert.deepEqual([leader.status, stream.transport, ends], ["live", "websocket", []]);
});

// Tokens

for (const seconds of [2, 20]) {
  test(`a token that is valid after ${seconds} s connects soon after`, async () => {
    const network = new Network();
    network.websocket = close(4401, "the token is not valid yet");
    const { stream, ends } = await openPage(network);
    await network.run(1000 * seconds);

    network.heal();
    const time = await timeUntilLive(network, stream);

    assert.ok(time <= (seconds === 2 ? 3000 : LIVE_TIME), `${time}`);
    assert.deepEqual(ends, []);
  });
}

test("an issuer whose clock is 2 s ahead delays a page by a few seconds", async () => {
  const network = new Network();
  network.websocket = (socket) => {
    const valid = Date.now() >= Number(socket.protocols[1]) + 2000;
    return valid ? network.greet(socket) : close(4401, "the token is not valid yet")(socket);
  };

  const { stream, ends } = await openPage(network, { token: async () => `${Date.now()}` });
  const time = await timeUntilLive(network, stream);

  assert.ok(time <= 6000, `${time}`);
  assert.deepEqual(ends, []);
});

for (const transport of ["websocket", "events", "polling"]) {
  test(`over ${transport}, a page goes on when its cookie was extended before the server ended the connection`, async () => {
    const network = new Network();
    const { stream, ends } = await openPage(network, { token: undefined, transports: [transport] });
    await timeUntilLive(network, stream);

    if (transport === "websocket") await network.sockets[0].end(4401, "expired");
    if (transport === "events") {
      await network.fakes.events[0].receive({ type: "error", code: 4401, detail: "expired" });
      await network.fakes.events[0].end();
    }
    if (transport === "polling") {
      network.http = () => problem(401, "expired");
      await network.run(4000);
      network.heal();
    }
    const time = await timeUntilLive(network, stream);

    assert.ok(time <= 1000, `${time}`);
    assert.deepEqual(ends, []);
  });
}

test("a provider that takes a minute is asked once, and its token is used", async () => {
  const network = new Network();
  let calls = 0;
  let answer;
  const token = () => {
    calls++;
    return new Promise((resolve) => (answer = resolve));
  };
  const { stream } = await openPage(network, { token });

  await network.run(60_000);
  answer("t");
  await settled();
  const time = await timeUntilLive(network, stream);

  assert.deepEqual([time <= 100, calls, stream.transport], [true, 1, "websocket"]);
});

test("transports that race share one token", async () => {
  const network = new Network();
  network.websocket = hang;
  let calls = 0;
  const { stream } = await openPage(network, { token: async () => `${++calls}` });

  await timeUntilLive(network, stream);

  assert.equal(network.fakes.events[0].headers.Authorization, "Bearer 1");
});

// Cookies

for (const [credentials, expected] of [
  [undefined, "same-origin"],
  ["include", "include"],
  ["omit", "omit"],
]) {
  test(`requests have the credentials ${expected} with the option ${credentials}`, async () => {
    const network = new Network();
    const { stream } = await openPage(network, { transports: ["polling"], ...(credentials && { credentials }) });

    await stream.follow("a");

    assert.deepEqual([...new Set(network.fakes.requests.map((request) => request.credentials))], [expected]);
  });
}

// Politeness

for (const status of [401, 403, 429, 503]) {
  for (const transports of [
    ["websocket", "events", "polling"],
    ["events", "polling"],
    ["polling", "events"],
  ]) {
    test(`a server that answers ${status} to all requests gets few over ${transports}`, async () => {
      const network = new Network();
      network.websocket = refuse;
      network.http = () => problem(status, "not now");
      const { stream } = await openPage(network, { transports });

      await network.run(60_000);

      const attempts = network.sockets.length + network.fakes.requests.length;
      // One a second, and half as many of a server that asks for time.
      assert.ok(attempts <= (status < 429 ? 64 : 35), `${attempts}`);
      stream.close();
    });
  }
}

test("clients that return to a slow server do not ask it twice", async () => {
  const network = new Network();
  const { stream } = await openPage(network);
  await timeUntilLive(network, stream);
  network.websocket = async (socket) => setTimeout(() => network.greet(socket), 5000);
  await network.cut();

  await network.run(8000);

  assert.deepEqual([network.sockets.length, network.fakes.requests.length, stream.status], [2, 0, "live"]);
});

// Requests

test("an answer of another server to a publish is no answer", async () => {
  const network = new Network();
  const { stream } = await openPage(network, { transports: ["polling"] });
  const published = stream.publish({ type: "chat" });
  const answers = [json(200)(), html(200)(), json(401)(), Response.json({ sequence_number: FIRST + 2, epoch: "e" })];
  network.http = (request) => (request.method === "POST" ? answers.shift() : network.log.answer(request));

  await network.run(20_000);

  assert.equal(await published, FIRST + 2);
});
