/**
 * A WebSocket client as it is often written: it reconnects, and knows no positions.
 *
 * What is published while it is away never reaches it. Nothing here makes it worse than it is: after a drop, it
 * reconnects as early as the Unmissed client may.
 */

const RETRY_MS = 500;

/** Dispatches `connected` with the number after which it receives messages, and `message`. */
export class PlainClient extends EventTarget {
  connected = false;
  #address;
  #token;
  #closed = false;
  #notBefore = 0;
  /** @type {WebSocket | undefined} */
  #socket;

  /** @param {string} base the server's address @param {string} token */
  constructor(base, token) {
    super();
    this.#address = `${base.replace(/^http/, "ws")}/ws`;
    this.#token = token;
    this.#open();
  }

  /** Lose the connection, and reconnect after this time. @param {number} milliseconds */
  drop(milliseconds) {
    this.#notBefore = Date.now() + milliseconds;
    this.#end();
    setTimeout(() => this.#open(), milliseconds);
  }

  close() {
    this.#closed = true;
    this.#end();
  }

  #open() {
    if (this.#closed || this.#socket !== undefined || Date.now() < this.#notBefore) return;
    const socket = new WebSocket(this.#address, ["unmissed.bearer", this.#token]);
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    socket.onclose = () => {
      this.#end();
      setTimeout(() => this.#open(), RETRY_MS);
    };
  }

  /** @param {{type: string, sequence_number: number, timestamp?: string}} frame */
  #take(frame) {
    if (frame.type === "connected") {
      this.connected = true;
      this.#dispatch("connected", frame.sequence_number);
    }
    if (frame.timestamp !== undefined) this.#dispatch("message", frame);
  }

  #end() {
    const socket = this.#socket;
    this.#socket = undefined;
    this.connected = false;
    if (socket === undefined) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** @param {string} type @param {unknown} detail */
  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
