/** Counts by number what two clients received of the messages that were published. */

/** @typedef {import("./api.js").Stamp} Stamp */
/** @typedef {"plain" | "unmissed"} Name */
/** @typedef {"live" | "recovered"} Arrival */
/** @typedef {"live" | "recovered" | "missed" | "lost"} Fate */
/** @typedef {{received: number, recovered: number, lost: number, duplicates: number}} Score */

class Runner {
  /** @type {Map<number, Arrival>} */
  arrivals = new Map();
  duplicates = 0;
  /** What has not arrived up to this number will not arrive. */
  passed = 0;
}

export class Tally {
  /** The time of publication in milliseconds, by number. @type {Map<number, number>} */
  #published = new Map();
  #runners = { plain: new Runner(), unmissed: new Runner() };

  get published() {
    return this.#published.size;
  }

  /** The number of the newest message, or 0. */
  get latest() {
    return Math.max(0, ...this.#published.keys());
  }

  /** @param {Stamp[]} stamps */
  publish(stamps) {
    for (const { sequence_number: number, timestamp } of stamps) this.#published.set(number, Date.parse(timestamp));
  }

  /** A message may arrive before its publisher has the answer. @param {Name} name @param {number} number @param {Arrival} arrival */
  receive(name, number, arrival) {
    const runner = this.#runners[name];
    if (runner.arrivals.has(number)) runner.duplicates++;
    else runner.arrivals.set(number, arrival);
  }

  /** What this client has not received up to this number is lost. @param {Name} name @param {number} number */
  pass(name, number) {
    this.#runners[name].passed = Math.max(this.#runners[name].passed, number);
  }

  /** Whether a client has received all that was published. @param {Name} name */
  isComplete(name) {
    return [...this.#published.keys()].every((number) => this.#runners[name].arrivals.has(number));
  }

  /** @param {Name} name @returns {Score} */
  score(name) {
    const fates = [...this.#published.keys()].map((number) => this.#fate(name, number));
    const recovered = fates.filter((fate) => fate === "recovered").length;
    return {
      received: fates.filter((fate) => fate === "live").length + recovered,
      recovered,
      lost: fates.filter((fate) => fate === "lost").length,
      duplicates: this.#runners[name].duplicates,
    };
  }

  /**
   * Return what became of the messages, by the time of their publication since the first one.
   * @param {Name} name @param {{length: number, milliseconds: number}} columns
   * @returns {Record<Fate, number>[]}
   */
  columns(name, { length, milliseconds }) {
    const columns = Array.from({ length }, () => ({ live: 0, recovered: 0, missed: 0, lost: 0 }));
    const [start = 0] = this.#published.values();
    for (const [number, at] of this.#published) {
      const column = columns[Math.max(0, Math.floor((at - start) / milliseconds))];
      if (column) column[this.#fate(name, number)]++;
    }
    return columns;
  }

  /** @param {Name} name @param {number} number @returns {Fate} */
  #fate(name, number) {
    const { arrivals, passed } = this.#runners[name];
    return arrivals.get(number) ?? (number <= passed ? "lost" : "missed");
  }
}
