/**
 * A second connection that stops reading, as a page in a slow network does.
 *
 * A page cannot stop reading a WebSocket: the browser reads it and keeps what the page does not handle. It can stop
 * reading the body of a response, which then fills the buffers of the browser and the network, until the server cannot
 * send more to this one connection.
 */

/** @typedef {{type: string, sequence_number?: number, timestamp?: string, connection_id?: string, from?: number, to?: number}} Frame */

export class StalledReader {
  /** @type {"off" | "stalled" | "reading" | "caught up" | "disconnected"} */
  state = "off";
  /** @type {string | undefined} */
  connectionId;
  /** How many numbers it is behind, as the server says. */
  lag = 0;
  received = 0;
  /** The first and the last number of what a gap announced as lost. @type {[number, number] | null} */
  gap = null;

  #api;
  #abort = new AbortController();
  /** @type {AsyncGenerator<Frame> | undefined} */
  #frames;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  get running() {
    return this.state === "stalled" || this.state === "reading";
  }

  /** Connect, read the first frame, and then nothing. */
  async stall() {
    this.#abort = new AbortController();
    [this.lag, this.received, this.gap] = [0, 0, null];
    const response = await this.#api.events(this.#abort.signal);
    this.#frames = frames(/** @type {ReadableStream<Uint8Array>} */ (response.body));
    const { value: connected } = await this.#frames.next();
    this.connectionId = connected?.connection_id;
    this.state = "stalled";
  }

  /** Ask the server how far behind this connection is. The server ends one that takes nothing for too long. */
  async look() {
    const id = this.connectionId;
    if (this.state !== "stalled" || id === undefined) return;
    // The first connection after a shorter id is this one, unless it has ended.
    const { connections } = await this.#api.connections({ after: id.slice(0, -1), limit: 1 });
    if (connections[0]?.connection_id === id) this.lag = connections[0].lag;
    else this.#end("disconnected");
  }

  /** Read on, up to this number. @param {number} through */
  async resume(through) {
    this.state = "reading";
    const caughtUp = await this.#readThrough(through).catch(() => false);
    this.#end(caughtUp ? "caught up" : "disconnected");
  }

  /** @param {"caught up" | "disconnected"} state */
  #end(state) {
    this.#abort.abort();
    this.state = state;
    this.connectionId = undefined;
  }

  /** @param {number} through */
  async #readThrough(through) {
    for (let position = 0; position < through;) {
      const { value: frame, done } = await /** @type {AsyncGenerator<Frame>} */ (this.#frames).next();
      if (done) return false;
      position = frame.sequence_number ?? position;
      if (frame.type === "gap") this.gap = [frame.from ?? 0, frame.to ?? 0];
      if (frame.timestamp !== undefined) this.received++;
    }
    return true;
  }
}

/**
 * Yield the frames of an event stream. Nothing is read ahead: the next chunk is read when all frames before are taken.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<Frame>}
 */
async function* frames(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  for (let text = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (text + decoder.decode(value, { stream: true })).split("\n\n");
    text = /** @type {string} */ (events.pop());
    for (const event of events) {
      const data = /^data: ?(.*)$/m.exec(event);
      if (data) yield JSON.parse(data[1]);
    }
  }
}
