/** The REST routes that the console uses, with its token. */

/** @typedef {{type: string, data?: unknown, topics?: string[], users?: string[]}} Draft */
/** @typedef {{sequence_number: number, timestamp: string}} Stamp */
/** @typedef {Stamp & {type: string, data?: unknown, topics?: string[]}} Message */
/**
 * @typedef {object} Page of what the log lists. With the outcome gap, `to` is the number of the last message that is lost
 * @property {Message[]} messages
 * @property {string} epoch
 * @property {number} oldest
 * @property {number} latest
 * @property {string} outcome
 * @property {boolean} has_more
 * @property {number} sequence_number the position to ask again with
 * @property {number} [to]
 */
/**
 * @typedef {object} Connection
 * @property {string} connection_id
 * @property {string} node_id
 * @property {string} user_id
 * @property {string} connected_at
 * @property {number} position
 * @property {number} lag
 * @property {string[]} topics the first of them
 * @property {number} total_topics
 * @property {string} transport
 * @property {string | null} client
 */
/** @typedef {{connections: Connection[], next: string | null, total: number, matching: number}} ConnectionsPage */
/** @typedef {{topics: {topic: string, connections: number}[], total: number, matching: number}} Topics */
/** @typedef {{message: Message, everyone: boolean, topics: string[], users: string[], bytes: number}} LogMessage */
/** @typedef {{messages: LogMessage[], examined: number, next: number | null, oldest: number, latest: number}} LogPage */
/** @typedef {"gap" | "reset" | "stall" | "close" | "refused"} Kind */
/**
 * @typedef {object} Entry something that happened in the last hour
 * @property {string} time
 * @property {Kind} kind
 * @property {string | null} connection_id
 * @property {string | null} user_id
 * @property {string | null} client
 * @property {number | null} code
 * @property {number | null} status
 * @property {string} reason
 * @property {string | null} request
 * @property {number | null} from
 * @property {number | null} to
 * @property {number} count
 */
/** @typedef {Record<Kind, number> & {time: string}} Minute */
/** @typedef {{entries: Entry[], minutes: Minute[], closes: Record<string, number>, since: string}} Past */
/**
 * @typedef {object} Node all but the first two are null if it does not answer
 * @property {string} node_id
 * @property {boolean} own
 * @property {number | null} connections
 * @property {number | null} behind
 * @property {number | null} latest
 * @property {string | null} started_at
 * @property {boolean | null} draining
 * @property {string | null} problem
 */
/**
 * @typedef {object} Rule `pattern` is null for the messages without a rule
 * @property {string | null} pattern
 * @property {number} max_messages
 * @property {number} max_age
 * @property {number} messages
 * @property {number} values
 * @property {number} topics
 * @property {number} bytes
 */
/** @typedef {{messages: number, values: number, bytes: number, reach_seconds: number, max_messages: number, max_bytes: number, max_age: number, rules: Rule[]}} LogFill */
/** @typedef {Record<string, unknown> & {problem: string | null, latest: number, epoch: string, log: LogFill}} Status */
/** @typedef {Record<string, string | number>} Query */

const ANSWER_MS = 10_000;

/** An answer with an error status. */
export class Refused extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export class Api {
  #base;
  #token;

  /** @param {string} base the server's address, without a slash at the end @param {string} token */
  constructor(base, token) {
    this.#base = base;
    this.#token = token;
  }

  /** What the log lists for this user after a number. @param {number} since @returns {Promise<Page>} */
  messages(since) {
    return this.#json("GET", `messages?since=${since}`);
  }

  /** Publish messages as one block. @param {Draft[]} drafts @returns {Promise<Stamp[]>} */
  publish(drafts) {
    return this.#json("POST", "messages", { body: JSON.stringify(drafts) });
  }

  /** Publish a message once, also if this is repeated with the key. @param {Draft} draft @param {string} key @returns {Promise<Stamp>} */
  publishOnce(draft, key) {
    return this.#json("POST", "messages", { body: JSON.stringify(draft), headers: { "Idempotency-Key": key } });
  }

  /** How full the log is, and counters. @returns {Promise<Status>} */
  status() {
    return this.#json("GET", "status");
  }

  /** One page of the connections. @param {Query} query @returns {Promise<ConnectionsPage>} */
  connections(query) {
    return this.#json("GET", `connections?${search(query)}`);
  }

  /** The topics that clients follow. @param {Query} query @returns {Promise<Topics>} */
  topics(query) {
    return this.#json("GET", `topics?${search(query)}`);
  }

  /** Messages of the log, the newest first. @param {Query} query @returns {Promise<LogPage>} */
  log(query) {
    return this.#json("GET", `log?${search(query)}`);
  }

  /** What happened in the last hour. @param {Query} query @returns {Promise<Past>} */
  history(query) {
    return this.#json("GET", `history?${search(query)}`);
  }

  /** The nodes that share the log. @returns {Promise<{nodes: Node[]}>} */
  nodes() {
    return this.#json("GET", "nodes");
  }

  /** Close a connection, whose client reconnects. @param {string} id */
  disconnect(id) {
    return this.#json("DELETE", `connections?${search({ connection_id: id, reconnect: "true" })}`);
  }

  /** Close a connection, and refuse its token. @param {string} id */
  refuseToken(id) {
    return this.#json("DELETE", `connections?${search({ connection_id: id })}`);
  }

  /** Close the connections of a user, and refuse the tokens that the user has. @param {string} user @returns {Promise<{closed: number}>} */
  logOut(user) {
    return this.#json("DELETE", `connections?${search({ user })}`);
  }

  /** Open an event stream. @param {AbortSignal} signal */
  events(signal) {
    return this.#fetch("GET", "events", { signal });
  }

  /** @param {string} method @param {string} path @param {RequestInit} [options] */
  async #json(method, path, options) {
    const response = await this.#fetch(method, path, { signal: AbortSignal.timeout(ANSWER_MS), ...options });
    return response.json();
  }

  /** @param {string} method @param {string} path @param {RequestInit} options */
  async #fetch(method, path, options) {
    const headers = { Authorization: `Bearer ${this.#token}`, "Content-Type": "application/json", ...options.headers };
    const request = { ...options, method, headers, cache: /** @type {const} */ ("no-store") };
    const response = await fetch(`${this.#base}/websocket/${path}`, request).catch(unreachable);
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new Refused(response.status, problem.detail ?? `HTTP status ${response.status}`);
  }
}

/** Return a query string without what is empty. @param {Query} query */
function search(query) {
  const given = Object.entries(query).filter(([, value]) => value !== "");
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
}

/**
 * Browsers word this differently. @param {Error} error @returns {never}
 */
function unreachable(error) {
  throw error instanceof TypeError ? new Error("the server cannot be reached") : error;
}
