/**
 * Checks by number that this page received everything that the log held for it, once and in order.
 *
 * Numbers have holes, because messages for other users take numbers, too. So a hole proves nothing. What is compared
 * is what the stream delivered, and what `GET /websocket/messages` lists for the same user. A listed message that has
 * not arrived is missed while the log holds it, and lost when the log has evicted it or when the stream has passed it.
 * A value that a later message with its key has replaced is neither.
 */

/**
 * @typedef {object} Stamp
 * @property {number} sequence_number
 * @property {string} timestamp
 * @property {string} [key]
 * @property {boolean} [append]
 * @property {string[]} [topics]
 */
/** @typedef {{timestamp: string, value: string | undefined}} Listed `value` names the value of which it is a part. */

export class Ledger {
  received = 0;
  recovered = 0;
  /** Messages whose number was not above the one before. */
  duplicates = 0;
  /** Messages that were both received and listed. */
  compared = 0;
  /** Whether the number of lost messages is known. Otherwise, at least so many are lost. */
  exact = true;
  /** Lost messages that no gap and no reset has announced. */
  unannounced = 0;

  #lost = 0;
  #highest = 0;
  #oldest = 0;
  #listedThrough = 0;
  #unlistedThrough = 0;
  /** @type {Set<number>} Received, and not listed yet. */
  #unlisted = new Set();
  /** @type {Map<number, Listed>} Listed and not received, by number and in the order of the numbers. */
  #missing = new Map();
  /** @type {Set<number>} Counted as lost in a gap. What the log has retained of it arrives all the same. */
  #lostInGaps = new Set();

  /** The number after which to list the log. */
  get since() {
    return this.#listedThrough;
  }

  /** How many messages have not arrived, and can still be recovered. */
  get missed() {
    return this.#missing.size - this.#evicted;
  }

  /** How many messages will never arrive. */
  get lost() {
    return this.#lost + this.#evicted;
  }

  /**
   * What has not arrived: the timestamp, and whether it is lost.
   * @returns {Generator<[string, "missed" | "lost"]>}
   */
  *missing() {
    for (const [number, { timestamp }] of this.#missing) yield [timestamp, number < this.#oldest ? "lost" : "missed"];
  }

  /** Start, or start again in a new epoch, after this position. @param {number} position */
  begin(position) {
    this.#highest = this.#listedThrough = this.#unlistedThrough = position;
    this.#oldest = 0;
    this.#unlisted.clear();
    this.#missing.clear();
    this.#lostInGaps.clear();
  }

  /**
   * Count a message that the stream delivered, and return whether it is new.
   * @param {Stamp & {recovered: boolean}} message
   */
  receive({ recovered, ...message }) {
    const number = message.sequence_number;
    if (number <= this.#highest) {
      this.duplicates++;
      return false;
    }
    this.#highest = number;
    this.received++;
    if (recovered) this.recovered++;
    if (this.#missing.delete(number) || this.#find(number)) this.compared++;
    else if (number > this.#listedThrough) this.#unlisted.add(number);
    this.#replace(message);
    return true;
  }

  /**
   * Compare with what the log lists after `since`. `oldest` is the lowest number that it still holds, and `lost` the
   * end of a gap after `since`.
   * @param {Stamp[]} messages
   * @param {{through: number, oldest: number, lost?: number}} bounds
   */
  list(messages, { through, oldest, lost = 0 }) {
    this.#unlistedThrough = Math.max(this.#unlistedThrough, lost);
    for (const message of messages) {
      const { sequence_number: number, timestamp } = message;
      this.#replace(message);
      if (this.#unlisted.delete(number)) this.compared++;
      else this.#missing.set(number, { timestamp, value: valueOf(message) });
    }
    [this.#listedThrough, this.#oldest] = [through, oldest];
    // What was evicted before it was listed can no longer be compared.
    for (const number of this.#unlisted) if (number <= through) this.#unlisted.delete(number);
  }

  /**
   * Take notice of a gap that the server announced, and return the timestamps of what it cost.
   *
   * `exact` says whether the log was listed in time to know all of them.
   * @param {{from: number, to: number}} gap
   */
  gap({ from, to }) {
    const exact = from > this.#unlistedThrough && to <= this.#listedThrough;
    this.exact &&= exact;
    for (const number of this.#missing.keys()) if (number <= to) this.#lostInGaps.add(number);
    return { lost: this.#lose(to), exact };
  }

  /**
   * Take notice of a reset, and return the timestamps of what is known to be lost. The ledger has to begin again after it.
   */
  reset() {
    this.exact = false;
    return this.#lose(Infinity);
  }

  /** Count as lost what the stream has passed, and return the timestamps. @param {number} position */
  pass(position) {
    const lost = this.#lose(position);
    this.unannounced += lost.length;
    return lost;
  }

  /** Count a message that has arrived after all as not lost, and return whether it is one. @param {number} number */
  #find(number) {
    if (!this.#lostInGaps.delete(number)) return false;
    this.#lost--;
    return true;
  }

  /** Miss no earlier message of a value that this one replaces or ends. @param {Stamp} message */
  #replace(message) {
    const value = valueOf(message);
    if (value === undefined || message.append) return;
    for (const [number, listed] of this.#missing) {
      if (listed.value === value && number < message.sequence_number) this.#missing.delete(number);
    }
  }

  get #evicted() {
    let evicted = 0;
    for (const number of this.#missing.keys()) {
      if (number >= this.#oldest) break;
      evicted++;
    }
    return evicted;
  }

  /** @param {number} through */
  #lose(through) {
    const lost = [...this.#missing].filter(([number]) => number <= through);
    for (const [number] of lost) this.#missing.delete(number);
    this.#lost += lost.length;
    return lost.map(([, { timestamp }]) => timestamp);
  }
}

/** Return what names the value of a key, as far as a client knows it. @param {Stamp} message */
function valueOf({ key, topics = [] }) {
  return key === undefined ? undefined : JSON.stringify([key, ...topics.toSorted()]);
}
