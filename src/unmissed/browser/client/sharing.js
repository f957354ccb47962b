/**
 * The tabs that share a connection. One of them leads: it holds the lock of the group, and the connection. It passes the
 * frames of the server on to the other tabs, which send it their requests.
 *
 * @import { Frame } from "../types.js"
 */

/**
 * What happens in the group.
 *
 * @typedef {object} Member
 * @property {() => void} reopen This tab begins, or ceases, to lead.
 * @property {(request: Frame) => void} serve Another tab has a request for the one that leads.
 */

export class TabGroup {
  leads = false;
  /** @type {BroadcastChannel | undefined} */
  port;
  #name;
  #member;
  #claim = {};
  /** @type {(value?: unknown) => void} Gives the lock up. */
  #release = () => {};

  /**
   * @param {string} name Empty for a tab without a group.
   * @param {Member} member
   */
  constructor(name, member) {
    const canShare = globalThis.navigator?.locks && globalThis.BroadcastChannel;
    this.#name = canShare ? name : "";
    this.#member = member;
  }

  /** Whether the connection of another tab is used. */
  get follows() {
    return Boolean(this.#name) && !this.leads;
  }

  join() {
    if (!this.#name || this.port) return;
    this.port = new BroadcastChannel(this.#name);
    this.compete();
  }

  leave() {
    this.leads = false;
    this.#claim = {};
    this.#release();
    this.port?.close();
    this.port = undefined;
  }

  /** Waits for the lock. @param {boolean} [steal] Whether to take it from a tab that is not heard. */
  compete(steal = false) {
    const claim = {};
    this.#claim = claim;
    const hold = () => (claim === this.#claim ? this.#hold() : undefined);
    navigator.locks.request(this.#name, { steal }, hold).catch(({ name }) => {
      if (claim !== this.#claim) return;
      if (name === "AbortError") this.compete();
      else this.#name = "";
      this.#lead(false);
    });
  }

  /** @param {object} data */
  post(data) {
    this.port?.postMessage(data);
  }

  /**
   * Passes a frame on. A tab whose position is below `previous` has missed something.
   *
   * @param {Frame} frame
   * @param {string | undefined} epoch
   * @param {number | undefined} before The position of the connection before the frame.
   */
  share(frame, epoch, before) {
    const starts = frame.type === "connected" || frame.type === "gap";
    this.post({ frame, epoch, previous: starts ? frame.sequence_number : before });
  }

  #hold() {
    return new Promise((release) => {
      this.#release = release;
      this.#lead(true);
    });
  }

  /** @param {boolean} leads */
  #lead(leads) {
    this.leads = leads;
    if (this.port) {
      this.port.onmessage = ({ data }) => {
        if (data.request) this.#member.serve(data.request);
      };
    }
    this.#member.reopen();
  }
}
