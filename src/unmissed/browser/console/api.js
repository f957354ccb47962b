/** The REST routes that the console uses, with its token. */

/** @typedef {{type: string, data?: unknown}} Draft */
/** @typedef {{type: string, sequence_number: number, timestamp: string, data?: unknown}} Message */
/** @typedef {{messages: Message[], epoch: string, oldest: number, latest: number, outcome: string, has_more: boolean}} Page */
/**
 * @typedef {object} Connection
 * @property {string} connection_id
 * @property {string} user_id
 * @property {string} connected_at
 * @property {number} position
 * @property {number} lag
 * @property {string[]} topics
 * @property {string} transport
 */

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

  /** Publish messages as one block. @param {Draft[]} drafts @returns {Promise<{sequence_number: number}[]>} */
  publish(drafts) {
    return this.#json("POST", "messages", drafts);
  }

  /** How full the log is. */
  status() {
    return this.#json("GET", "status");
  }

  /**
   * One page of the connections table.
   * @param {{after: string, limit: number}} page
   * @returns {Promise<{connections: Connection[], next: string | null}>}
   */
  connections(page) {
    return this.#json("GET", `connections?${new URLSearchParams({ ...page, limit: String(page.limit) })}`);
  }

  /** Close a connection, whose client reconnects. @param {string} id */
  disconnect(id) {
    return this.#json("DELETE", `connections?${new URLSearchParams({ connection_id: id, reconnect: "true" })}`);
  }

  /** Open an event stream. @param {AbortSignal} signal */
  events(signal) {
    return this.#fetch("GET", "events", { signal });
  }

  /** @param {string} method @param {string} path @param {unknown} [body] */
  async #json(method, path, body) {
    const response = await this.#fetch(method, path, {
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    return response.json();
  }

  /** @param {string} method @param {string} path @param {RequestInit} options */
  async #fetch(method, path, options) {
    const headers = { Authorization: `Bearer ${this.#token}`, "Content-Type": "application/json" };
    const request = { method, headers, cache: /** @type {const} */ ("no-store"), ...options };
    const response = await fetch(`${this.#base}/websocket/${path}`, request).catch(unreachable);
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new Refused(response.status, problem.detail ?? `HTTP status ${response.status}`);
  }
}

/**
 * Browsers word this differently. @param {Error} error @returns {never}
 */
function unreachable(error) {
  throw error instanceof TypeError ? new Error("the server cannot be reached") : error;
}
