/**
 * Unmissed in the browser: messages that survive reconnects. The options and types are in types.js.
 *
 * @import * as is from "./types.js"
 */

// Decisions, without a socket, timer or clock.

/** @type {is.Read} */
export const read = (text) => {
  try {
    return JSON.parse(text);
  } catch {}
};

/** @type {is.Advance} */
export const advance = ({ position, epoch }, { type, sequence_number: number = position, ...frame }) => {
  const { outcome, epoch: now = epoch } = type === "connected" ? frame : { outcome: type };
  if (outcome === "reset" && now !== epoch) {
    return { position: number, epoch: now, loss: { type: outcome, epoch: now } };
  }
  const gap = { type: outcome, from: frame.from ?? position + 1, to: number };
  const loss = outcome === "gap" && number > position && gap;
  return { position: position > number ? position : number, epoch: now, loss };
};

/** @type {is.Backoff} */
export const backoff = (failures, random = Math.random()) => random * Math.min(30_000, 500 * 2 ** failures);

/** @type {is.Actions} */
const actions = { 1009: "stop", 4400: "stop", 4401: "renew", 4403: "stop", 4408: "renew", 4429: "slow" };

/** @type {is.Next} */
export const next = (code) => actions[code] ?? "resume";

/** @type {is.EventParser} */
export const eventParser = (take) => {
  let rest = "";
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data:")) take(read(line.slice(5)));
  };
};

// Transports: each passes on the frames of the server, and returns how to send one.

/** @type {is.Refused} */
const refused = (code, reason) => Object.assign(new Error(reason), { code, reason, detail: reason });

// Pages without HTTPS have no randomUUID.
const newId = () => crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");

/** @type {is.Report} */
const report = (error) => (globalThis.reportError ?? console.error)(error);

/** @type {is.Address} */
const address = ({ url, position: since, epoch, topics }, path) => {
  const target = new URL(url.replace(/\/?$/, path));
  for (const [name, value] of Object.entries({ since, epoch, topics })) {
    if (value !== undefined) target.searchParams.set(name, value);
  }
  return target.href;
};

/** @type {is.Codes} */
const codes = { 422: 4400, 502: 1013, 503: 1013, 504: 1013 };

/** @type {is.Call} */
const call = async (stream, link, path, id, body) => {
  const token = await link.token();
  const response = await fetch(address(id ? { url: stream.url } : stream, `/websocket/${path}`), {
    method: id ? "POST" : "GET",
    headers: {
      ...(token && { Authorization: `Bearer ${token}` }),
      ...(id && { "Content-Type": "application/json", "Idempotency-Key": id }),
    },
    body: JSON.stringify(body),
    signal: link.signal,
  });
  if (response.ok) return response;
  const { detail = response.statusText } = await response.json().catch(() => ({}));
  throw refused(codes[response.status] ?? 4000 + response.status, detail);
};

/** @type {is.Requests} */
const requests = (stream, link) => {
  let last = Promise.resolve();
  return ({ id, type, topics, name, message, data }) => {
    const ask = async () => {
      const path = name ? `commands/${encodeURIComponent(name)}` : "messages";
      const answer = await (await call(stream, link, path, id, message ?? data)).json();
      link.take({ type: "result", id, data: answer.data ?? answer.sequence_number });
    };
    const fail = (/** @type {any} */ error) =>
      error.code === 4401 ? link.end(error) : link.take({ type: "error", id, code: 1013, ...error });
    if (topics) {
      const followed = new Set(stream.topics ?? link.greeting.topics);
      for (const topic of topics) type === "follow" ? followed.add(topic) : followed.delete(topic);
      link.take({ type: "following", id, topics: [...followed] });
      link.end();
    } else if (id) last = last.then(ask).catch(fail);
  };
};

/** @type {is.Recover} */
const recover = async (stream, link, begun) => {
  const { position } = stream;
  const { messages, ...page } = await (await call(stream, link, "messages")).json();
  const complete = page.outcome === "complete";
  const start = complete ? position : page.oldest - 1;
  const sequence_number = position === undefined ? page.latest : start;
  if (!begun || !complete) link.take({ ...page, type: "connected", sequence_number });
  messages.forEach(link.take);
  if (page.has_more) return recover(stream, link, true);
  link.take({ type: "heartbeat", sequence_number: page.latest });
};

/** @type {is.Transports} */
const transports = {
  async websocket(stream, link) {
    const token = await link.token();
    link.signal.throwIfAborted();
    const url = address(stream, "/ws").replace("http", "ws");
    const socket = new WebSocket(url, token ? ["unmissed.bearer", token] : []);
    socket.onmessage = ({ data }) => link.take(read(data));
    socket.onclose = link.end;
    link.signal.onabort = () => socket.close();
    return (frame) => socket.send(JSON.stringify(frame));
  },

  async events(stream, link) {
    const { body } = await call(stream, link, "events");
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let cause = refused(1006, "");
    const parse = eventParser((frame) => {
      if (frame?.type === "error") cause = refused(frame.code, frame.detail);
      link.take(frame);
    });
    const run = async () => {
      for (let part; !(part = await reader.read()).done; ) parse(part.value);
    };
    const end = () => link.end(cause);
    run().then(end, end);
    return requests(stream, link);
  },

  async polling(stream, link) {
    /** @type {is.Poll} */
    const poll = (begun) =>
      recover(stream, link, begun)
        .then(() => setTimeout(poll, 2000 + 3000 * Math.random(), true))
        .catch(link.end);
    poll();
    return requests(stream, link);
  },

  async tabs(stream, link) {
    let begun = false;
    let last = Promise.resolve();
    /** @type {is.Forward} */
    const forward = async ({ frame, epoch, previous }) => {
      const behind = () => stream.position < previous || (stream.epoch ?? epoch) !== epoch;
      if (behind()) await recover(stream, link);
      if (behind()) link.end();
      link.take(frame);
    };
    /** @type {is.Hear} */
    link.port.onmessage = ({ data }) => {
      const { frame, status } = data;
      if (status) link.take({ type: "status", status });
      begun ||= frame?.type === "connected";
      if (frame && begun) last = last.then(() => forward(data)).catch(link.end);
    };
    /** @type {is.Send} */
    const send = (request) => link.port.postMessage({ request });
    send({ type: "ping" });
    return send;
  },
};

// The stream.

const lifecycle = ["online", "offline", "visibilitychange", "pageshow", "resume", "pagehide", "freeze"];

class Stream extends EventTarget {
  /** @type {is.Status} */
  status = "connecting";
  #failures = 0;
  #misses = 0;
  #renewed = false;
  #notBefore = 0;
  #recoveredThrough = 0;
  #requests = new Map();
  #pace = 100;
  #paced = 0;
  #leads = false;
  #turn = {};
  /** @type {(value?: unknown) => void} */
  #release = () => {};
  #ended = new AbortController();
  #timer = 0;
  #pump = 0;
  #group = "";
  /** @type {is.Settings} */
  #options;
  /** @type {is.Link | undefined} */
  #link;
  /** @type {is.Link | undefined} */
  #beside;
  /** @type {BroadcastChannel | undefined} */
  #port;
  /** @type {string | undefined} */
  #token;
  /** @type {is.Message[] | undefined} */
  #held;

  constructor(/** @type {string} */ url, /** @type {is.Options} */ options) {
    super();
    this.#options = { transports: ["websocket", "events", "polling"], queue: 1000, key: `unmissed:${url}`, ...options };
    const { storage, key, shared, topics, since, epoch } = this.#options;
    const [position, known] = read(storage?.getItem(key)) ?? [since, epoch];
    this.url = url;
    this.position = position;
    this.epoch = known;
    this.topics = topics;
    const sharable = globalThis.navigator?.locks && globalThis.BroadcastChannel;
    if (shared && sharable) this.#group = [key, shared, topics].join();
    for (const type of lifecycle) {
      globalThis.addEventListener?.(type, this.#wake, { capture: true, signal: this.#ended.signal });
    }
    this.#open();
  }

  get transport() {
    return this.#link?.transport;
  }

  get connectionId() {
    return this.#link?.greeting?.connection_id;
  }

  /** @type {is.On} */
  on(type, handler) {
    const listener = (/** @type {any} */ { detail }) => handler(detail);
    this.addEventListener(`message:${type}`, listener);
    return () => this.removeEventListener(`message:${type}`, listener);
  }

  async *[Symbol.asyncIterator]() {
    /** @type {is.Message[]} */
    const waiting = [];
    /** @type {(value?: any) => void} */
    let wake = () => {};
    const stop = this.on("*", (message) => wake(waiting.push(message)));
    this.#ended.signal.addEventListener("abort", () => wake());
    try {
      while (waiting.length || this.status !== "closed") {
        if (!waiting.length) await new Promise((resolve) => (wake = resolve));
        yield* waiting.splice(0, 1);
      }
    } finally {
      stop();
    }
  }

  /** @type {is.Publish} */
  publish(message) {
    return this.#request({ type: "publish", message });
  }

  /** @type {is.Command} */
  command(name, data) {
    return this.#request({ type: "command", name, data });
  }

  /** @type {is.Follow} */
  follow(...topics) {
    return this.#request({ type: "follow", topics });
  }

  /** @type {is.Follow} */
  unfollow(...topics) {
    return this.#request({ type: "unfollow", topics });
  }

  drop(milliseconds = 0) {
    this.#notBefore = Date.now() + milliseconds;
    if (this.#link) this.#link.end();
    else if (this.status === "waiting") this.#wait();
  }

  close() {
    this.#stop();
    this.#become("closed");
    this.#ended.abort();
    this.#held = undefined;
    for (const { reject } of this.#requests.values()) reject(refused(1000, "the stream is closed"));
    this.#requests.clear();
  }

  // Connections.

  #open() {
    if (this.#group && !this.#port) {
      this.#port = new BroadcastChannel(this.#group);
      this.#compete();
    }
    const names = this.#options.transports;
    this.#end();
    this.#become("connecting");
    this.#link = this.#start(this.#group && !this.#leads ? "tabs" : names[(this.#misses >> 1) % names.length]);
  }

  #end() {
    clearTimeout(this.#timer);
    this.#link?.abort();
    this.#beside?.abort();
    this.#link = undefined;
  }

  #stop() {
    this.#leads = false;
    this.#turn = {};
    this.#release();
    this.#port?.close();
    this.#port = undefined;
    this.#end();
  }

  /** @type {is.Start} */
  #start(transport) {
    const control = new AbortController();
    const { signal } = control;
    /** @type {Promise<string | undefined>} */
    let token;
    /** @type {is.Link} */
    const link = {
      transport,
      tries: 0,
      signal,
      port: this.#port,
      connected: 0,
      silence: 10_000,
      deadline: Date.now() + 10_000,
      renewal: Infinity,
      upgrade: Infinity,
      token: () => (token ??= this.#fresh(link)),
      take: (frame) => signal.aborted || this.#take(link, frame),
      end: (cause) => signal.aborted || this.#lost(link, cause ?? {}),
      abort: () => control.abort(),
    };
    transports[transport](this, link).then((send) => (link.send = send), link.end);
    this.#watch(link);
    return link;
  }

  /** @type {is.Watch} */
  #watch(link) {
    const now = Date.now();
    const { transport, deadline, signal } = link;
    clearTimeout(link.timer);
    if (signal.aborted) return;
    if (now >= deadline) {
      if (transport === "tabs") this.#compete(true);
      return link.end();
    }
    if (now >= link.renewal) {
      link.renewal = Infinity;
      if (transport !== "websocket") return this.#open();
      this.#renew(link).catch(report);
    }
    if (now >= link.upgrade) {
      link.upgrade = Infinity;
      link.tries++;
      this.#beside = this.#start(this.#options.transports[0]);
    }
    link.timer = setTimeout(() => this.#watch(link), Math.min(deadline, link.renewal, link.upgrade) - now);
  }

  /** @type {is.Fresh} */
  async #fresh(link) {
    const { token } = this.#options;
    this.#token = typeof token === "function" ? await token() : token;
    if (link === this.#link && !link.connected && globalThis.navigator?.onLine !== false) this.#misses++;
    return this.#token;
  }

  /** @type {is.Renew} */
  async #renew(link) {
    const known = this.#token;
    const token = await this.#fresh(link);
    if (token !== known) link.send?.({ type: "authenticate", token });
  }

  /** @type {is.Lost} */
  #lost(link, { code = 1006, reason = "" }) {
    link.abort();
    if (this.#link && link !== this.#link) {
      this.#link.upgrade = Date.now() + 2 * backoff(this.#link.tries - 1);
      return this.#watch(this.#link);
    }
    this.#end();
    const { connected } = link;
    const action = next(code);
    const renewed = action === "renew" && (this.#renewed || typeof this.#options.token !== "function");
    if (renewed || action === "stop") {
      this.close();
      return this.#tell(renewed ? "unauthorized" : "refused", { code, reason });
    }
    if (action === "renew") this.#renewed = true;
    if (action === "slow" && connected) this.#slow();
    if (connected && Date.now() - connected > 5000) this.#failures = 0;
    const pause = action === "renew" && !this.#failures ? 0 : backoff(this.#failures);
    this.#failures = Math.min(this.#failures + 1, connected ? 3 : 6);
    this.#wait(pause, { code, reason });
  }

  /** @type {is.Wait} */
  #wait(pause = 0, cause = {}) {
    const milliseconds = Math.max(pause, this.#notBefore - Date.now());
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), milliseconds);
    this.#become("waiting", { ...cause, milliseconds });
  }

  /** @type {is.Wake} */
  #wake = ({ type }) => {
    const link = this.#link;
    if (type === "freeze" || type === "pagehide") {
      this.#stop();
      this.#become("waiting");
    } else if (type === "visibilitychange" && document.hidden) return;
    else if (!link) {
      if (type !== "offline") this.#wait();
    } else if (link.connected && (type === "offline" || link.deadline - Date.now() < link.silence - 5000)) {
      link.send?.({ type: "ping" });
      link.deadline = Date.now() + 2500;
      this.#watch(link);
    }
  };

  // Frames.

  /** @type {is.Tell} */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @type {is.Become} */
  #become(status, detail) {
    if (status === this.status && !detail) return;
    this.status = status;
    if (this.#leads) this.#port?.postMessage({ status });
    this.#tell("status", { status, ...detail });
  }

  /** @type {is.Take} */
  #take(link, frame) {
    const before = this.position;
    if (!frame?.type) return;
    if (link !== this.#link) this.#link?.abort();
    this.#link = link;
    link.deadline = Date.now() + link.silence;
    const loss = this.#move(frame);
    if (frame.type === "following" || (frame.type === "error" && frame.code !== 4401)) {
      frame.id ??= [...this.#requests.values()].find(({ sent, frame }) => sent && frame.topics)?.frame.id;
    }
    if (this.#leads) this.#share(frame, before);
    if (!frame.timestamp) this.#obey(link, frame);
    else if (frame.sequence_number > before) this.#deliver(frame);
    if (loss) this.#tell(loss.type, loss);
  }

  /** @type {is.Move} */
  #move(frame) {
    const first = frame.type === "connected" && this.position === undefined;
    const { loss, ...place } = advance(this, frame);
    Object.assign(this, place);
    if (first || loss) this.#hold();
    this.#save();
    return loss;
  }

  /** @type {is.Take} */
  #obey(link, frame) {
    const { type, topics } = frame;
    if (type === "connected") this.#connected(link, frame);
    if (type === "authenticated") this.#expire(link, frame.expires_at);
    if (type === "heartbeat") this.#become("live");
    if (type === "status") this.#become(frame.status);
    if (type === "reconnect") this.#notBefore = Date.now() + frame.after_ms;
    if (type === "following" || (type === "authenticated" && this.topics)) this.topics = topics;
    this.#settle(frame);
  }

  /** @type {is.Take} */
  #connected(link, frame) {
    link.connected = Date.now();
    link.greeting = frame;
    link.silence = 2500 * (frame.heartbeat_seconds ?? 25);
    link.deadline = link.connected + link.silence;
    this.#renewed = false;
    this.topics = frame.chosen ?? this.topics;
    this.#recoveredThrough = frame.latest;
    this.#become(frame.outcome ? "recovering" : "live");
    this.#misses = 2 * Math.max(0, this.#options.transports.indexOf(link.transport));
    if (this.#misses) link.upgrade = 0;
    this.#expire(link, frame.expires_at);
    for (const request of this.#requests.values()) request.sent = false;
    this.#send();
  }

  /** @type {is.Expire} */
  #expire(link, expires_at) {
    const left = expires_at * 1000 - Date.now();
    const renews = left > 0 && typeof this.#options.token === "function" && link.transport !== "tabs";
    link.renewal = renews ? Date.now() + Math.max(1000, left * 0.8) : Infinity;
    this.#watch(link);
  }

  #save() {
    const { storage, key } = this.#options;
    try {
      if (!this.#held) storage?.setItem(key, JSON.stringify([this.position, this.epoch]));
    } catch (error) {
      report(error);
    }
  }

  /** @type {is.Deliver} */
  #deliver(frame) {
    const message = { ...frame, recovered: frame.sequence_number <= this.#recoveredThrough };
    if (this.#held && this.#held.push(message) > this.#options.queue) this.#held = [];
    if (this.#held || this.status === "closed") return;
    this.#tell(`message:${message.type}`, message);
    this.#tell("message:*", message);
  }

  #hold() {
    if (!this.#options.snapshot) return;
    if (!this.#held) this.#reload();
    this.#held = [];
  }

  async #reload(failures = 0) {
    await new Promise((resolve) => setTimeout(resolve, failures && backoff(failures)));
    const held = this.#held;
    try {
      const number = (await this.#options.snapshot?.()) ?? 0;
      if (held === this.#held) return this.#resume(number);
    } catch (error) {
      report(error);
      failures++;
    }
    if (this.#held) this.#reload(failures);
  }

  #resume(number = 0) {
    const held = this.#held ?? [];
    this.#held = undefined;
    this.position = Math.max(this.position, number);
    for (const each of held) if (each.sequence_number > number) this.#deliver(each);
    this.#save();
  }

  // Requests.

  /** @type {is.Request} */
  #request(frame) {
    return new Promise((resolve, reject) => {
      const id = newId();
      const full = this.#requests.size >= this.#options.queue;
      if (this.status === "closed") throw refused(1000, "the stream is closed");
      if (full) throw refused(4429, "too many requests wait: send fewer, or raise queue");
      this.#requests.set(id, { frame: JSON.parse(JSON.stringify({ ...frame, id })), resolve, reject });
      this.#send();
    });
  }

  #slow() {
    this.#pace = Math.min(1600, 2 * this.#pace);
    this.#paced = performance.now() + 1600;
  }

  #send() {
    const all = [...this.#requests.values()];
    const waiting = all.filter(({ sent }) => !sent);
    clearTimeout(this.#pump);
    for (const request of waiting.slice(0, 16 - all.length + waiting.length)) {
      const early = this.#paced - performance.now() - 1600;
      if (!this.#link?.connected) return;
      if (early > 0) {
        this.#pump = setTimeout(() => this.#send(), early);
        return;
      }
      this.#paced = Math.max(this.#paced, performance.now()) + this.#pace;
      request.sent = true;
      this.#link.send?.(request.frame);
    }
  }

  /** @type {is.Deliver} */
  #settle({ id, type, code, detail, data, topics, sequence_number }) {
    const request = this.#requests.get(id);
    if (!request) return;
    if (code === 4429) this.#slow();
    if (code === 1012 || code === 1013 || code === 4429) {
      request.sent = false;
      this.#paced = performance.now() + 2600 + 1000 * Math.random();
    } else {
      this.#requests.delete(id);
      if (type === "error") request.reject(refused(code, detail));
      else request.resolve(data ?? topics ?? sequence_number);
    }
    this.#send();
  }

  // Tabs.

  #compete(steal = false) {
    const turn = (this.#turn = {});
    const lead = () =>
      turn === this.#turn &&
      new Promise((release) => {
        this.#release = release;
        this.#lead(true);
      });
    navigator.locks.request(this.#group, { steal }, lead).catch(({ name }) => {
      if (turn !== this.#turn) return;
      if (name === "AbortError") this.#compete();
      else this.#group = "";
      this.#lead(false);
    });
  }

  #lead(leads = false) {
    this.#leads = leads;
    if (this.#port) this.#port.onmessage = ({ data }) => data.request && this.#serve(data.request);
    this.#open();
  }

  /** @type {is.Share} */
  #share(frame, before) {
    const start = frame.type === "connected" || frame.type === "gap";
    this.#port?.postMessage({ frame, epoch: this.epoch, previous: start ? frame.sequence_number : before });
  }

  /** @type {is.Send} */
  #serve(request) {
    if (request.type === "ping") {
      const { position: sequence_number, topics: chosen, status } = this;
      const { greeting } = this.#link ?? {};
      this.#port?.postMessage({ status });
      if (greeting) this.#share({ ...greeting, outcome: undefined, sequence_number, chosen });
      this.#wake(request);
    } else if (!this.#requests.has(request.id)) {
      this.#requests.set(request.id, { frame: request, resolve() {}, reject() {} });
      this.#send();
    }
  }
}

/** @type {is.Connect} */
export const connect = (url, options = {}) => new Stream(url, options);
