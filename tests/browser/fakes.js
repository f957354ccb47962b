/** A server and a browser in memory, for the tests of the client. */

import { mock } from "node:test";

/** Milliseconds at once: a timer that starts another one needs the time in between. */
const STEP = 100;

// Node.js does not have it.
globalThis.reportError ??= console.error;

/** Ends every stream and restores the globals that a test replaced. */
const restores = [];

export function restoreGlobals() {
  for (const restore of restores.splice(0).reverse()) restore();
  mock.timers.reset();
}

/** Replaces a global until the end of the test. */
export const setGlobal = (name, value) => replace(globalThis, name, value);

function replace(target, name, value) {
  const before = Object.getOwnPropertyDescriptor(target, name);
  Object.defineProperty(target, name, { value, configurable: true, writable: true });
  restores.push(() => (before ? Object.defineProperty(target, name, before) : delete target[name]));
}

/** Runs everything that waits for promises alone. */
export async function settled() {
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
}

/** Moves the clock, and runs what is due. */
export async function pass(milliseconds) {
  await settled();
  for (let left = milliseconds; left >= 0; left -= STEP) {
    mock.timers.tick(Math.min(left, STEP));
    await settled();
  }
}

export const CONNECTED = {
  type: "connected",
  connection_id: "c",
  epoch: "e",
  oldest: 1,
  latest: 7,
  sequence_number: 7,
  heartbeat_seconds: 25,
  max_age: 900,
  rate: 10,
  burst: 20,
};

/** A message of the server. */
export const message = (sequence_number, fields = {}) => ({
  type: "chat",
  sequence_number,
  timestamp: "2026-01-31T12:00:00.000Z",
  ...fields,
});

class FakeSocket {
  sent = [];
  closed = false;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  /** What the browser does when the handshake is done. */
  open(protocol = "") {
    this.protocol = protocol;
    this.onopen();
  }

  /** What the server does. */
  async receive(...frames) {
    for (const frame of frames) this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
    await settled();
  }

  async end(code = 1006, reason = "") {
    this.onclose({ code, reason });
    await settled();
  }
}

const networkFetch = globalThis.fetch;

/**
 * Replaces WebSocket, clock and random numbers. Returns the sockets that are opened; `sockets.at(-1)` is the newest.
 * Requests over HTTP are never answered, unless the test calls `fakeHttp`.
 */
export function fakeSockets({ random = 0.5 } = {}) {
  const sockets = [];
  if (globalThis.fetch === networkFetch) setGlobal("fetch", () => new Promise(() => {}));
  setGlobal(
    "WebSocket",
    class extends FakeSocket {
      constructor(...parameters) {
        super(...parameters);
        sockets.push(this);
      }
    },
  );
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  replace(performance, "now", () => Date.now());
  replace(Math, "random", () => random);
  return sockets;
}

/** Replaces the events of the window. Returns a function that dispatches one. */
export function fakeWindow() {
  const target = new EventTarget();
  setGlobal("addEventListener", target.addEventListener.bind(target));
  setGlobal("document", { hidden: false });
  return async (type) => {
    target.dispatchEvent(new Event(type));
    await pass(0);
  };
}

/** A Storage in memory. */
export class FakeStorage extends Map {
  getItem(key) {
    return this.get(key) ?? null;
  }

  setItem(key, value) {
    this.set(key, value);
  }
}

/** Records the messages and events of a stream, in the form of frames.json. */
export function record(stream) {
  const events = [];
  stream.on("*", ({ sequence_number, recovered }) => events.push(["message", sequence_number, recovered]));
  stream.addEventListener("gap", ({ detail }) => events.push(["gap", detail.from, detail.to]));
  stream.addEventListener("reset", ({ detail }) => events.push(["reset", detail.epoch]));
  return events;
}

/** Records the values of a stream's status. */
export function recordStatus(stream) {
  const statuses = [];
  stream.addEventListener("status", ({ detail }) => statuses.push(detail.status));
  return statuses;
}

/** An open response of Server-Sent Events. */
class FakeEvents {
  #encoder = new TextEncoder();

  constructor(request) {
    Object.assign(this, request);
    const stream = new ReadableStream({ start: (controller) => (this.controller = controller) });
    this.response = new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
    request.signal.addEventListener("abort", () => this.ended || this.controller.error(request.signal.reason));
  }

  async receive(...frames) {
    for (const frame of frames) {
      this.controller.enqueue(this.#encoder.encode(`id: ${frame.sequence_number}\ndata: ${JSON.stringify(frame)}\n\n`));
    }
    await settled();
  }

  async end() {
    if (!this.signal.aborted) this.controller.close();
    this.ended = true;
    await settled();
  }
}

/**
 * Replaces fetch. `answer` gets every request, and returns the JSON of the answer, a Response, or what is thrown as an
 * Error. Returns the requests, and the streams of events that were opened.
 */
export function fakeHttp(answer = () => new Error("blocked")) {
  const http = { requests: [], events: [], answer };
  setGlobal("fetch", async (input, init = input) => {
    const { method, headers, body, signal, credentials } = init;
    signal.throwIfAborted();
    const { pathname, searchParams } = new URL(input.url ?? input);
    const query = Object.fromEntries(searchParams);
    const request = { path: pathname, query, method, headers, body: body && JSON.parse(body), signal, credentials };
    http.requests.push(request);
    const answered = await http.answer(request);
    signal.throwIfAborted();
    if (answered instanceof Error) throw answered;
    if (answered === "events") return http.events[http.events.push(new FakeEvents(request)) - 1].response;
    return answered instanceof Response ? answered : Response.json(answered);
  });
  return http;
}

/** A log in memory: answers GET requests of messages, opens streams of events, and greets connections. */
export class FakeLog {
  epoch = "e";
  messages = [];
  limit = Infinity;
  events = true;
  topics = [];
  /** The highest number that was evicted, or 0. */
  #lost = 0;
  #latest;

  /** Begins with this number. */
  constructor(first = 1) {
    this.first = first;
    this.#latest = first - 1;
  }

  get oldest() {
    return this.messages[0]?.sequence_number ?? this.latest + 1;
  }

  get latest() {
    return this.#latest;
  }

  add(...numbers) {
    this.messages.push(...numbers.map((number) => message(number)));
    this.#latest = numbers.at(-1);
  }

  /** Evicts the messages up to a number, except those that their rules keep. */
  evict(number, ...kept) {
    this.messages = this.messages.filter(({ sequence_number: each }) => each > number || kept.includes(each));
    this.#lost = number;
    this.#latest = Math.max(this.#latest, number);
  }

  /** Begins another life of the log, with this first number. */
  restart(first, epoch = "f") {
    Object.assign(this, { epoch, first, messages: [] });
    this.#lost = 0;
    this.#latest = first - 1;
  }

  answer = ({ path, query, method }) => {
    if (path === "/websocket/events") return this.events ? "events" : new Error("blocked");
    if (method !== "GET") return problem(404, "no such command");
    if (query.topics?.includes("secret")) return problem(403, "the topic secret is not granted");
    const { start, ...verdict } = this.#locate(query);
    const rest = this.#after(start);
    const limit = Number(query.limit ?? this.limit);
    const messages = rest.slice(0, limit);
    const hasMore = rest.length > limit;
    return {
      messages,
      epoch: this.epoch,
      first: this.first,
      oldest: this.oldest,
      latest: this.latest,
      sequence_number: hasMore ? messages.at(-1).sequence_number : this.latest,
      ...verdict,
      has_more: hasMore,
      topics: query.topics?.split(",") ?? this.topics,
    };
  };

  /** Returns the frames with which a connection to this URL begins. */
  greeting(url) {
    const query = Object.fromEntries(new URL(url, "http://server.test").searchParams);
    const { start, ...verdict } = query.since ? this.#locate(query) : { start: this.latest };
    const { epoch, first, oldest, latest } = this;
    const connected = { ...CONNECTED, epoch, first, oldest, latest, ...verdict, sequence_number: start };
    const missed = this.#after(start);
    return [connected, ...missed, ...(verdict.outcome ? [{ type: "heartbeat", sequence_number: latest }] : [])];
  }

  /** Returns the position from which delivery starts, and the verdict. */
  #locate({ since = 0, epoch = this.epoch }) {
    const start = Number(since) || this.first - 1;
    if (epoch !== this.epoch || start < this.first - 1 || start > this.latest) {
      return { start: this.oldest - 1, outcome: "reset" };
    }
    if (start >= this.#lost) return { start, outcome: "complete" };
    return { start, outcome: "gap", from: start + 1, to: this.#lost };
  }

  #after(position) {
    return this.messages.filter(({ sequence_number }) => sequence_number > position);
  }
}

/** A response of the server that refuses a request. */
export const problem = (status, detail) =>
  new Response(JSON.stringify({ type: `urn:unmissed:problem:${status}`, title: "Problem", status, detail }), {
    status,
    headers: { "Content-Type": "application/problem+json" },
  });

/** Web Locks: the first in the queue of a name has it. */
class FakeLocks {
  #queues = new Map();

  request(name, { signal, steal = false }, callback) {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    return new Promise((resolve, reject) => {
      const entry = { callback, resolve, reject, signal, granted: false };
      if (steal && queue[0]?.granted) queue.shift().reject(new DOMException("stolen", "AbortError"));
      if (steal) queue.unshift(entry);
      else queue.push(entry);
      signal?.addEventListener("abort", () => this.#withdraw(queue, entry));
      this.#grant(queue);
    });
  }

  #withdraw(queue, entry) {
    if (entry.granted || !queue.includes(entry)) return;
    queue.splice(queue.indexOf(entry), 1);
    entry.reject(entry.signal.reason);
  }

  async #grant(queue) {
    await null;
    const [entry] = queue;
    if (!entry || entry.granted) return;
    entry.granted = true;
    entry.resolve(await entry.callback());
    if (queue[0] !== entry) return;
    queue.shift();
    this.#grant(queue);
  }
}

/**
 * Replaces Web Locks and BroadcastChannel: every stream is then a tab. Returns what was posted, and `mute`, which lets
 * nobody hear the tabs that are open.
 */
export function fakeTabs() {
  const open = new Set();
  const muted = new Set();
  const posted = [];
  setGlobal("navigator", { locks: new FakeLocks() });
  setGlobal(
    "BroadcastChannel",
    class {
      constructor(name) {
        this.name = name;
        open.add(this);
      }

      postMessage(data) {
        if (!open.has(this)) throw new DOMException("the channel is closed", "InvalidStateError");
        posted.push(data);
        if (muted.has(this)) return;
        for (const other of open) {
          if (other === this || other.name !== this.name) continue;
          const copy = structuredClone(data);
          queueMicrotask(() => open.has(other) && other.onmessage?.({ data: copy }));
        }
      }

      close() {
        open.delete(this);
      }
    },
  );
  return { posted, mute: () => open.forEach((channel) => muted.add(channel)) };
}
