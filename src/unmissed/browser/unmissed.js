/**
 * Unmissed in the browser: messages that survive reconnects. The options and types are in types.js.
 *
 * @import * as types from "./types.js"
 */

// Times in milliseconds, and limits.

/** How long an attempt may take, without the time in functions of the application. */
const HANDSHAKE_TIME = 10_000;
/** How long the function for a token may take: a user may have to log in first. */
const TOKEN_TIME = 300_000;
/** Without an answer for this time, or twice as long if it has worked before, another transport is tried in parallel. */
const RACE_TIME = 3000;
/** A browser may fire `error` without `close`, for example because of a Content-Security-Policy. */
const ERROR_TIME = 250;
/** A refusal is final after this time and this many refusals: until then, a clock may be wrong, or a gateway down. */
const REFUSED_TIME = 30_000;
const REFUSALS = 3;
/** How long a refused token is retried: if the clock of its issuer is ahead, each new token is refused at first. */
const RETRIED_TIME = 5000;
/** The first attempts go to one transport: fewer, if it has never worked. */
const FIRST_ATTEMPTS = 4;
const FIRST_ATTEMPTS_OF_ALL = 2;
/** How far behind a loop over the messages may be, in multiples of the option `limit`. */
const LOOP_FACTOR = 20;

// Decisions, without a socket, timer or clock: exported for tests.

/** @type {types.Read} */
export const read = (text) => {
  try {
    return JSON.parse(text);
  } catch {}
};

/** @type {types.Advance} */
export const advance = ({ position, epoch }, { type, sequence_number: number = position, ...frame }) => {
  const { outcome, epoch: now = epoch } = type === "connected" ? frame : { outcome: type };
  if (outcome === "reset" && now !== epoch) {
    return { position: number, epoch: now, loss: { type: outcome, epoch: now } };
  }
  const from = frame.from ?? Math.max(position + 1, frame.first ?? 0);
  const gap = { type: outcome, from, to: number };
  const loss = outcome === "gap" && number > position && gap;
  return { position: position > number ? position : number, epoch: now, loss };
};

/** @type {types.Backoff} */
export const backoff = (failures, random = Math.random()) => random * Math.min(30_000, 500 * 2 ** failures);

/** @type {types.Actions} */
const actions = { 1009: "stop", 4400: "stop", 4401: "renew", 4403: "stop", 4408: "renew", 4429: "slow" };

const refusalEvents = { stop: "refused", renew: "unauthorized" };

/** @type {types.Next} */
export const next = (code) => actions[code] ?? "resume";

/** @type {types.EventParser} */
export const eventParser = (take) => {
  let rest = "";
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data:")) take(read(line.slice(5)));
  };
};

/** @type {types.CheckedNumber} */
const checkedNumber = (number) => {
  if (number == null || (Number.isSafeInteger(number) && number >= 0)) return number ?? undefined;
  throw new TypeError(`snapshot must return a sequence number, or nothing, and not ${number}`);
};

// Transports: each passes on the frames of the server, and returns a function that sends one.

/** @type {types.Refused} */
const refused = (code, detail, answered) => Object.assign(new Error(detail), { code, detail, answered });

// Not randomUUID, which is missing on pages without HTTPS.
const newId = () => crypto.getRandomValues(new Uint32Array(4)).join();

/** @type {types.Address} */
const address = ({ url, position: since, epoch, topics }, path) => {
  const target = new URL(url.replace(/\/?$/, path));
  for (const [name, value] of Object.entries({ since, epoch, topics })) {
    if (value !== undefined) target.searchParams.set(name, value);
  }
  return target.href;
};

/** @type {types.Merged} */
const merged = (topics = [], added, removed) =>
  [...new Set([...topics, ...added])].filter((topic) => !removed.includes(topic)).sort();

/** @type {types.Codes} */
const codes = { 422: 4400, 503: 1013 };

/** @type {types.Foreign} */
const foreign = (reason = "another server answers", answered = true) => refused(1006, reason, answered);

/** @type {types.Call} */
const call = async (stream, link, path, id, body) => {
  const token = await link.token();
  const response = await fetch(address(id ? { url: stream.url } : stream, `/websocket/${path}`), {
    method: id ? "POST" : "GET",
    credentials: link.credentials,
    headers: {
      ...(token && { Authorization: `Bearer ${token}` }),
      ...(id && { "Content-Type": "application/json", "Idempotency-Key": id }),
    },
    body: JSON.stringify(body),
    signal: link.signal,
  });
  const expected = path === "events" ? "text/event-stream" : "application/json";
  if (response.ok && hasType(response, expected)) return response;
  throw await refusal(response, id);
};

/** @type {types.HasType} */
const hasType = ({ headers }, type) => (headers.get("Content-Type") ?? "").startsWith(type);

/** @type {types.Refusal} */
const refusal = async (response, id) => {
  const { status, statusText } = response;
  // Whether to try another transport at once.
  const answered = status < 500 && status !== 429;
  const isProblem = hasType(response, "application/problem+json");
  const problem = isProblem ? await response.json().catch(() => {}) : undefined;
  if (problem?.status === status && typeof problem.detail === "string") {
    return refused(codes[status] ?? 4000 + status, problem.detail, answered);
  }
  // A proxy has answered. Most of its refusals may be temporary, but these statuses are final for a request.
  if (id && status >= 400 && status < 500 && status !== 401) return refused(4000 + status, statusText);
  return foreign(statusText || undefined, answered);
};

/** @type {types.Requests} */
const requests = (stream, link) => {
  let last = Promise.resolve();
  return ({ id, type, topics, name, message, data }) => {
    const ask = async () => {
      const path = name ? `commands/${encodeURIComponent(name)}` : "messages";
      const answer = await (await call(stream, link, path, id, message ?? data)).json();
      const result = answer[name ? "data" : "sequence_number"];
      if (result === undefined) throw foreign();
      link.take({ type: "result", id, data: result });
    };
    const change = async () => {
      const followed = new Set(stream.topics ?? link.greeting.topics);
      for (const topic of topics) {
        if (type === "follow") followed.add(topic);
        else followed.delete(topic);
      }
      const page = await pageOf({ url: stream.url, topics: [...followed] }, link, "messages?limit=1");
      link.take({ type: "following", id, topics: page.topics });
      if (`${page.topics}` !== `${link.greeting.topics ?? ""}`) link.end();
    };
    const fail = (/** @type {any} */ error) => {
      if (error.code > 1006 && error.code !== 4401) link.take({ type: "error", id, ...error });
      else link.end(error);
    };
    if (id) last = last.then(topics ? change : ask).catch(fail);
  };
};

/** @type {types.PageOf} */
const pageOf = async (stream, link, path) => {
  const page = await (await call(stream, link, path)).json();
  if (!Array.isArray(page?.messages) || !Number.isSafeInteger(page.latest)) throw foreign();
  return page;
};

/** @type {types.Begin} */
const begin = async (stream, link) => {
  // The messages themselves are not needed.
  const { messages, outcome, ...page } = await pageOf(stream, link, "messages?limit=1");
  link.take({ ...page, type: "connected", sequence_number: page.latest });
};

/** @type {types.Recover} */
const recover = async (stream, link, begun, through = Infinity) => {
  const { position } = stream;
  if (position === undefined) return begin(stream, link);
  const { messages, ...page } = await pageOf(stream, link, "messages");
  const complete = page.outcome === "complete";
  const sequence_number = complete ? position : page.oldest - 1;
  if (!begun || !complete) link.take({ ...page, type: "connected", sequence_number });
  for (const message of messages) if (message.sequence_number <= through) link.take(message);
  if (page.has_more && messages.at(-1).sequence_number < through) return recover(stream, link, true, through);
  link.take({ type: "heartbeat", sequence_number: Math.min(page.latest, through) });
};

/** @type {types.Transports} */
const transports = {
  async websocket(stream, link) {
    const token = await link.token();
    link.signal.throwIfAborted();
    const url = address(stream, "/ws").replace("http", "ws");
    const socket = new WebSocket(url, token && !link.bare ? ["unmissed.bearer", token] : []);
    // Without the subprotocol in the answer, the server may not have received it.
    socket.onopen = () => token && !socket.protocol && send({ type: "authenticate", token });
    socket.onerror = () => setTimeout(link.end, ERROR_TIME);
    socket.onmessage = ({ data }) => link.take(read(data));
    socket.onclose = link.end;
    link.signal.onabort = () => socket.close();
    /** @type {types.Send} */
    const send = (frame) => socket.send(JSON.stringify(frame));
    return send;
  },

  async events(stream, link) {
    const { body } = await call(stream, link, "events");
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    /** @type {types.Cause} */
    let cause = {};
    const parse = eventParser((frame) => {
      if (frame?.type === "error") cause = refused(frame.code, frame.detail);
      else link.take(frame);
    });
    const run = async () => {
      for (let part; !(part = await reader.read()).done; ) parse(part.value);
    };
    const end = () => link.end(cause);
    run().then(end, end);
    return requests(stream, link);
  },

  async polling(stream, link) {
    /** @type {types.Poll} */
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
    /** @type {types.Forward} */
    const forward = async ({ frame, status, epoch, previous }) => {
      if (status) return link.take({ type: "status", status });
      const behind = () => stream.position < previous || (stream.epoch ?? epoch) !== epoch;
      const timer = setTimeout(link.end, 60_000);
      if (behind()) await recover(stream, link, false, previous);
      clearTimeout(timer);
      if (behind()) link.end();
      link.take(frame);
    };
    /** @type {types.Hear} */
    link.port.onmessage = ({ data }) => {
      const { frame, status } = data;
      if (link.signal.aborted) return;
      if (status || frame) link.deadline = Date.now() + link.silence;
      begun ||= frame?.type === "connected";
      if (status || (frame && begun)) last = last.then(() => forward(data)).catch(link.end);
    };
    /** @type {types.Send} */
    const send = (request) => link.port.postMessage({ request });
    send({ type: "ping" });
    return send;
  },
};

// The stream.

const lifecycle = ["online", "offline", "visibilitychange", "pageshow", "resume", "pagehide", "freeze"];

class Stream extends EventTarget {
  /** @type {types.Status} */
  status = "connecting";
  /** @type {types.Settings} */
  #options;
  #ended = new AbortController();

  /** @type {types.Link | undefined} The connection or the attempt. */
  #link;
  /** @type {types.Link | undefined} An attempt beside it, to replace it. */
  #candidate;
  #openTimer = 0;
  #failures = 0;
  #notBefore = 0;
  /** @type {string | undefined} */
  #token;
  #tokenSince = 0;
  // How often the client was refused since it was accepted, and since when.
  #refusals = 0;
  #refusedSince = 0;

  /** @type {string | undefined} The transport that worked last. */
  #worked;
  // Attempts since then that had a token and no connection.
  #misses = 0;
  // Whether a tab that does not lead has its own connection, because it cannot recover over REST.
  #alone = false;
  // Whether WebSockets send their token in the first frame, and how many in a row have failed.
  #bare = false;
  #failedSockets = 0;

  #begun = false;
  #recoveredThrough = 0;
  /** @type {types.Message[] | undefined} The messages that wait for a snapshot. */
  #held;
  /** @type {number} After this position, all messages wait, have come, or were declared as lost. */
  #accountedAfter = 0;

  #requests = new Map();
  // Milliseconds between requests, and when the budget for them is full again.
  #interval = 100;
  #budgetFull = 0;
  #sendTimer = 0;

  // The tabs that share a connection, and the claim to their lock.
  #group = "";
  /** @type {BroadcastChannel | undefined} */
  #port;
  #claim = {};
  #leads = false;
  /** @type {(value?: unknown) => void} */
  #release = () => {};

  constructor(/** @type {string} */ url, /** @type {types.Options} */ options) {
    super();
    const { topics, since, epoch } = options;
    this.#options = {
      transports: ["websocket", "events", "polling"],
      credentials: "same-origin",
      limit: 1000,
      key: "unmissed:" + [url, topics],
      ...options,
    };
    const { storage, shared } = this.#options;
    const stored = read(storage?.getItem(this.#options.key));
    const [position, known] = stored?.[1] ? stored : [since, epoch];
    this.url = url;
    this.position = position;
    this.epoch = known;
    this.topics = topics;
    const sharable = globalThis.navigator?.locks && globalThis.BroadcastChannel;
    if (shared && sharable) this.#group = this.#options.key + "," + shared;
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

  /** @type {types.On} */
  on(type, handler) {
    const listener = (/** @type {any} */ { detail }) => handler(detail);
    this.addEventListener(`message:${type}`, listener);
    return () => this.removeEventListener(`message:${type}`, listener);
  }

  async *[Symbol.asyncIterator]() {
    const most = LOOP_FACTOR * this.#options.limit;
    const { signal } = this.#ended;
    /** @type {types.Message[]} */
    const waiting = [];
    let full = false;
    /** @type {(value?: any) => void} */
    let wake = () => {};
    const awake = () => wake();
    const stop = this.on("*", (message) => {
      full ||= waiting.length >= most;
      if (!full) waiting.push(message);
      wake();
    });
    signal.addEventListener("abort", awake);
    try {
      while (waiting.length || !(full || signal.aborted)) {
        if (!waiting.length) await new Promise((resolve) => (wake = resolve));
        yield* waiting.splice(0, 1);
      }
      if (full) throw refused(4429, "the loop is too slow for the messages: raise limit, or use on()");
    } finally {
      stop();
      signal.removeEventListener("abort", awake);
    }
  }

  /** @type {types.Publish} */
  publish(message) {
    return this.#request({ type: "publish", message });
  }

  /** @type {types.Command} */
  command(name, data) {
    return this.#request({ type: "command", name, data });
  }

  /** @type {types.Follow} */
  follow(...topics) {
    return this.#request({ type: "follow", topics });
  }

  /** @type {types.Follow} */
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
    this.#end();
    const follows = this.#group && !this.#leads && !this.#alone;
    this.#link = this.#start(follows ? "tabs" : this.#choose());
    this.#become("connecting");
  }

  get #preferred() {
    return this.#worked ?? this.#options.transports[0];
  }

  /** @type {types.Choose} */
  #choose() {
    const preferred = this.#preferred;
    const turn = this.#misses - (this.#worked ? FIRST_ATTEMPTS : FIRST_ATTEMPTS_OF_ALL);
    if (turn < 0 || turn % 2) return preferred;
    const others = this.#others(preferred);
    return others[(turn / 2) % others.length] ?? preferred;
  }

  /** @type {types.Others} */
  #others(transport) {
    return this.#options.transports.filter((name) => name !== transport);
  }

  /** @type {types.Replace} */
  #replace(transport, token) {
    this.#candidate?.abort();
    this.#candidate = this.#start(transport, token);
  }

  #end() {
    clearTimeout(this.#openTimer);
    this.#link?.abort();
    this.#candidate?.abort();
    this.#link = this.#candidate = undefined;
  }

  #stop() {
    this.#leads = false;
    this.#claim = {};
    this.#release();
    this.#port?.close();
    this.#port = undefined;
    this.#end();
  }

  /** @type {types.Start} */
  #start(transport, token) {
    const control = new AbortController();
    const { signal } = control;
    /** @type {types.Link} */
    const link = {
      transport,
      credentials: this.#options.credentials,
      bare: this.#isBare(),
      attempted: Boolean(token),
      tries: 0,
      signal,
      port: this.#port,
      position: 0,
      connected: 0,
      silence: HANDSHAKE_TIME,
      deadline: Date.now() + HANDSHAKE_TIME,
      renewal: Infinity,
      beside: Infinity,
      token: () => (token ??= this.#fresh(link)),
      take: (frame) => signal.aborted || this.#take(link, frame),
      end: (cause) => signal.aborted || this.#lost(link, cause ?? {}),
      abort: () => control.abort(),
    };
    transports[transport](this, link).then((send) => (link.send = send), link.end);
    this.#watch(link);
    return link;
  }

  /** @type {types.Watch} */
  #watch(link) {
    const now = Date.now();
    const { transport, signal } = link;
    clearTimeout(link.timer);
    if (signal.aborted) return;
    // A clock may be set back.
    const deadline = (link.deadline = Math.min(link.deadline, now + link.silence));
    if (now >= deadline) {
      if (transport === "tabs") this.#compete(true);
      return link.end();
    }
    if (now >= link.renewal) {
      link.renewal = Infinity;
      if (transport === "websocket") this.#renew(link).catch(reportError);
      else this.#replace(transport);
    }
    if (now >= link.beside) this.#tryBeside(link);
    link.timer = setTimeout(() => this.#watch(link), Math.min(deadline, link.renewal, link.beside) - now);
  }

  /** @type {types.Watch} */
  #tryBeside(link) {
    const others = this.#others(link.transport);
    link.beside = Infinity;
    if (link.connected) {
      link.tries++;
      this.#replace(this.#options.transports[0]);
    } else if (link === this.#link && others.length) {
      link.beside = Date.now() + RACE_TIME;
      this.#replace(others[link.tries++ % others.length], link.token());
    }
  }

  /** @type {types.Fresh} */
  async #fresh(link) {
    const { token } = this.#options;
    const begins = !link.connected && link.transport !== "tabs";
    if (begins) this.#allow(link, TOKEN_TIME);
    // The first refusal may be that of an expired token.
    if (this.#refusals < 2 || Date.now() - this.#tokenSince >= RETRIED_TIME) {
      this.#token = await (typeof token === "function" ? token() : token);
      this.#tokenSince = Date.now();
    }
    link.attempted = true;
    if (begins) {
      // A server to which all clients reconnect at once is slow, and a transport that has worked will work again.
      link.beside = Date.now() + (link.transport === this.#worked ? 2 * RACE_TIME : RACE_TIME);
      this.#allow(link, HANDSHAKE_TIME);
    }
    return this.#token;
  }

  /** @type {types.Allow} */
  #allow(link, milliseconds) {
    link.silence = milliseconds;
    link.deadline = Date.now() + milliseconds;
    this.#watch(link);
  }

  #isBare() {
    // A server that is down must not get many handshakes with the token in a frame, which cost it more.
    const every = this.#worked === "websocket" ? 8 : 2;
    return this.#bare !== (this.#failedSockets % every === every - 1);
  }

  /** @type {types.Renew} */
  async #renew(link) {
    const known = this.#token;
    const token = await this.#fresh(link);
    if (token !== known) link.send?.({ type: "authenticate", token });
  }

  /** @type {types.Lost} */
  #lost(link, cause) {
    link.abort();
    // Errors of the browser have other codes, and a message.
    const code = cause.code > 999 ? cause.code : 1006;
    const end = { code, reason: cause.reason ?? cause.message ?? "" };
    if (link.transport === "websocket" && link.attempted && !link.connected && code === 1006) this.#failedSockets++;
    if (this.#link && link !== this.#link) return this.#lostBeside(this.#link);
    if (this.#candidate && !link.connected) {
      // The other transport of the race continues alone.
      this.#link = this.#candidate;
      this.#candidate = undefined;
      return;
    }
    this.#end();
    const action = this.#trusts(link) ? next(code) : "resume";
    // Only the server itself closes a WebSocket with such a code.
    const isFinal = action === "stop" && link.transport === "websocket";
    const isRefusal = action === "stop" || action === "renew";
    if (isFinal || (isRefusal && this.#isRefused())) return this.#refuse(refusalEvents[action], end);
    if (action === "slow" && link.connected) this.#slow();
    if (action === "resume" && link.attempted && !link.connected) this.#missed(link);
    this.#wait(this.#pauseAfter(link, action, cause), end);
  }

  /** @type {types.LostBeside} */
  #lostBeside(link) {
    this.#candidate = undefined;
    if (link.connected) link.beside = Date.now() + 2 * backoff(link.tries - 1);
    this.#watch(link);
  }

  /** @type {types.Trusts} */
  #trusts({ transport, connected }) {
    if (transport === "tabs") return false;
    if (transport === "websocket" || connected || transport === this.#worked) return true;
    return !this.#options.transports.includes("websocket");
  }

  #isRefused() {
    const now = Date.now();
    if (this.#refusals === 0) this.#refusedSince = now;
    this.#refusals++;
    return this.#refusals >= REFUSALS && now - this.#refusedSince >= REFUSED_TIME;
  }

  /** @type {types.Tell} */
  #refuse(type, detail) {
    this.close();
    this.#tell(type, detail);
  }

  /** @type {types.Missed} */
  #missed({ transport }) {
    this.#misses++;
    if (transport === "tabs" && this.#misses >= FIRST_ATTEMPTS_OF_ALL) {
      this.#alone = true;
      this.#misses = 0;
    }
  }

  /** @type {types.PauseAfter} */
  #pauseAfter({ transport, connected }, action, { answered }) {
    if (connected && Date.now() - connected > 5000) this.#failures = 0;
    // The network works, but this transport does not: the preferred one is next.
    if (answered && !connected && action === "resume" && transport !== this.#preferred) return 0;
    const pause = action === "renew" && !this.#failures ? 0 : backoff(this.#failures);
    this.#failures = Math.min(this.#failures + 1, connected ? 3 : 6);
    return pause;
  }

  /** @type {types.Wait} */
  #wait(pause = 0, cause = {}) {
    const milliseconds = Math.max(pause, this.#notBefore - Date.now());
    clearTimeout(this.#openTimer);
    this.#openTimer = setTimeout(() => this.#open(), milliseconds);
    this.#become("waiting", { ...cause, milliseconds });
  }

  /** @type {types.Wake} */
  #wake = ({ type }) => {
    const link = this.#link;
    if (type === "freeze" || type === "pagehide") {
      this.#stop();
      this.#become("waiting");
    } else if (type === "visibilitychange" && document.hidden) return;
    else if (!link || (type === "online" && !link.connected)) {
      if (type === "online") this.#misses = 0;
      if (type !== "offline") this.#wait();
    } else if (link.connected && (type === "offline" || link.deadline - Date.now() < link.silence - 5000)) {
      link.send?.({ type: "ping" });
      link.deadline = Date.now() + 2500;
      this.#watch(link);
    }
  };

  // Frames.

  /** @type {types.Tell} */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @type {types.Become} */
  #become(status, detail) {
    if (status === this.status && !detail) return;
    this.status = status;
    if (this.#leads) this.#port?.postMessage({ status });
    this.#tell("status", { status, ...detail });
  }

  /** @type {types.Take} */
  #take(link, frame) {
    const before = this.position;
    if (!frame?.type) return;
    if (link !== this.#link) {
      this.#link?.abort();
      this.#link = link;
      this.#candidate = undefined;
    }
    // The answer to a request over HTTP does not show that events arrive.
    if (frame.timestamp || !frame.id) link.deadline = Date.now() + link.silence;
    const loss = this.#move(frame);
    // The server names what has changed. The tab that leads passes on all topics.
    if (frame.added && link.transport !== "tabs") {
      frame.topics = merged(link.greeting?.topics ?? this.topics, frame.added, frame.removed);
    }
    if (this.#leads) this.#share(frame, link.position);
    const reached = frame.type === "connected" ? 0 : link.position;
    link.position = Math.max(reached, frame.sequence_number ?? 0);
    if (!frame.timestamp) this.#obey(link, frame);
    else if (frame.sequence_number > before) this.#deliver(frame);
    if (loss) this.#tell(loss.type, loss);
  }

  /** @type {types.Move} */
  #move(frame) {
    const first = frame.type === "connected" && !this.#begun;
    const before = this.position;
    const { loss, ...place } = advance(this, frame);
    Object.assign(this, place);
    this.#begun ||= first;
    if (first || loss) this.#hold(Math.min(before ?? Infinity, this.position));
    this.#save();
    return loss;
  }

  /** @type {types.Take} */
  #obey(link, frame) {
    const { type, added, topics } = frame;
    if (type === "connected") this.#connected(link, frame);
    if (type === "authenticated") this.#expire(link, frame.expires_at);
    if (type === "heartbeat") this.#become("live");
    if (type === "status") this.#become(frame.status);
    if (type === "reconnect") this.#notBefore = Date.now() + frame.after_ms;
    if (added && link.greeting) link.greeting = { ...link.greeting, topics };
    if (type === "following" || (type === "authenticated" && this.topics)) this.topics = topics;
    this.#settle(frame);
  }

  /** @type {types.Take} */
  #connected(link, frame) {
    link.connected = Date.now();
    link.greeting = frame;
    link.silence = 2500 * (frame.heartbeat_seconds ?? 25);
    link.deadline = link.connected + link.silence;
    this.#refusals = 0;
    this.#misses = 0;
    this.#alone = false;
    if (link.transport !== "tabs") this.#worked = link.transport;
    if (link.transport === "websocket") {
      this.#bare = link.bare;
      this.#failedSockets = 0;
    }
    link.tries = 0;
    link.beside = this.#options.transports.indexOf(link.transport) > 0 ? 0 : Infinity;
    this.topics = frame.chosen ?? this.topics;
    this.#recoveredThrough = frame.latest;
    this.#expire(link, frame.expires_at);
    for (const [id, request] of this.#requests) {
      request.sent = false;
      if (link.connected - request.since > 1000 * frame.max_age) {
        this.#requests.delete(id);
        request.reject(refused(4408, "it may have been done"));
      }
    }
    this.#become(frame.status ?? (frame.outcome ? "recovering" : "live"));
    this.#send();
  }

  /** @type {types.Expire} */
  #expire(link, expires_at) {
    const left = expires_at * 1000 - Date.now();
    const renews = left > 0 && typeof this.#options.token === "function" && link.transport !== "tabs";
    link.renewal = renews ? Date.now() + Math.max(1000, left * 0.8) : Infinity;
    this.#watch(link);
  }

  #save() {
    const { storage, key } = this.#options;
    try {
      if (this.epoch && !this.#held && this.status !== "closed") {
        storage?.setItem(key, JSON.stringify([this.position, this.epoch]));
      }
    } catch (error) {
      reportError(error);
    }
  }

  /** @type {types.Deliver} */
  #deliver(frame) {
    if (this.status === "closed") return;
    const message = { ...frame, recovered: frame.sequence_number <= this.#recoveredThrough };
    if (this.#held) {
      this.#held.push(message);
      if (this.#held.length > this.#options.limit) this.#hold(this.position);
      return;
    }
    for (const type of new Set([message.type, "*"])) this.#tell(`message:${type}`, message);
  }

  /** @type {types.Hold} */
  #hold(accountedAfter) {
    if (!this.#options.snapshot) return;
    const loads = this.#held;
    this.#held = [];
    this.#accountedAfter = accountedAfter;
    if (!loads) this.#load();
  }

  async #load(failures = 0) {
    await new Promise((resolve) => setTimeout(resolve, failures && backoff(failures)));
    const held = this.#held;
    if (!held) return;
    try {
      const number = checkedNumber(await this.#options.snapshot?.());
      // Otherwise something was lost while the snapshot was loaded: the next one decides.
      if (held === this.#held) return this.#resume(held, number ?? this.#accountedAfter);
    } catch (error) {
      reportError(error);
      failures++;
    }
    if (this.#held) this.#load(failures);
  }

  /** @type {types.Resume} */
  #resume(held, number) {
    this.#held = undefined;
    if (number < this.#accountedAfter) return this.#rewind(number);
    this.position = Math.max(this.position, number);
    for (const each of held) if (each.sequence_number > number) this.#deliver(each);
    this.#save();
  }

  /** @type {types.Rewind} */
  #rewind(number) {
    this.position = number;
    // The number may be of an earlier epoch, which is then a reset: only the server knows.
    this.epoch = undefined;
    if (this.#link) this.#open();
  }

  // Requests.

  /** @type {types.Request} */
  #request(frame) {
    return new Promise((resolve, reject) => {
      const id = newId();
      const text = JSON.stringify({ ...frame, id });
      const full = this.#requests.size >= this.#options.limit;
      if (this.status === "closed") throw refused(1000, "the stream is closed");
      if (full) throw refused(4429, "too many requests: raise limit");
      if (new Blob([text]).size > 65_536) throw refused(1009, "a request has at most 64 kB");
      this.#requests.set(id, { frame: JSON.parse(text), resolve, reject });
      this.#send();
    });
  }

  #slow() {
    this.#interval = Math.min(1600, 2 * this.#interval);
    this.#budgetFull = performance.now() + 1600;
  }

  #send() {
    const all = [...this.#requests.values()];
    const waiting = all.filter(({ sent }) => !sent);
    clearTimeout(this.#sendTimer);
    for (const request of waiting.slice(0, 16 - all.length + waiting.length)) {
      const early = this.#budgetFull - performance.now() - 1600;
      if (!this.#link?.connected) return;
      if (early > 0) {
        this.#sendTimer = setTimeout(() => this.#send(), early);
        return;
      }
      this.#budgetFull = Math.max(this.#budgetFull, performance.now()) + this.#interval;
      request.sent = true;
      request.since ??= Date.now();
      this.#link.send?.(request.frame);
    }
  }

  /** @type {types.Deliver} */
  #settle({ id, type, code, detail, data, topics, sequence_number }) {
    const request = this.#requests.get(id);
    if (!request) return;
    if (code === 4429) this.#slow();
    if (code === 1012 || code === 1013 || code === 4429) {
      request.sent = false;
      this.#budgetFull = performance.now() + 2600 + 1000 * Math.random();
    } else {
      this.#requests.delete(id);
      if (type === "error") request.reject(refused(code, detail));
      else request.resolve(data === undefined ? (topics ?? sequence_number) : data);
    }
    this.#send();
  }

  // Tabs.

  #compete(steal = false) {
    const claim = (this.#claim = {});
    const lead = () =>
      claim === this.#claim &&
      new Promise((release) => {
        this.#release = release;
        this.#lead(true);
      });
    navigator.locks.request(this.#group, { steal }, lead).catch(({ name }) => {
      if (claim !== this.#claim) return;
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

  /** @type {types.Share} */
  #share(frame, before) {
    const start = frame.type === "connected" || frame.type === "gap";
    this.#port?.postMessage({ frame, epoch: this.epoch, previous: start ? frame.sequence_number : before });
  }

  /** @type {types.Send} */
  #serve(request) {
    if (request.type === "ping") {
      const { topics: chosen, status } = this;
      // Not the position of this tab, whose snapshot may be ahead of the connection.
      const { greeting, position: sequence_number } = this.#link ?? {};
      if (greeting) this.#share({ ...greeting, outcome: undefined, sequence_number, chosen, status });
      else this.#port?.postMessage({ status });
      this.#wake(request);
    } else if (!this.#requests.has(request.id)) {
      this.#requests.set(request.id, { frame: request, resolve() {}, reject() {} });
      this.#send();
    }
  }
}

/** @type {types.Connect} */
export const connect = (url, options = {}) => new Stream(url, options);
