/** Turns what was typed into a message, or says beside which field something is wrong. */

/** @typedef {"type" | "topics" | "users" | "data"} Field */
/** @typedef {Record<Field, string>} Typed */
/** @typedef {import("./api.js").Draft} Draft */

const TOPIC = /^[A-Za-z0-9._:/@+=-]{1,200}$/;
const MOST_NAMES = 1_000;

/**
 * Return the message, and what is wrong by field. The server checks everything again.
 * @param {Typed} typed
 * @returns {{draft: Draft, errors: Partial<Record<Field, string>>}}
 */
export function draftOf(typed) {
  const type = typed.type.trim();
  const { topics, users } = audienceOf(typed);
  const { data, error } = parsed(typed.data);
  const draft = {
    type,
    ...(topics.length > 0 && { topics }),
    ...(users.length > 0 && { users }),
    ...(data !== undefined && { data }),
  };
  const found = {
    type: type === "" ? "A message needs a type, such as note." : "",
    topics: topicsError(topics),
    users: tooMany(users),
    data: error,
  };
  return { draft, errors: Object.fromEntries(Object.entries(found).filter(([, text]) => text !== "")) };
}

/**
 * Return the topics, which are separated by spaces or commas, and the users, one in each line: their ids may contain both.
 * @param {Pick<Typed, "topics" | "users">} typed
 */
export function audienceOf({ topics, users }) {
  return { topics: unique(topics.split(/[\s,]+/)), users: unique(users.split("\n")) };
}

/** Return beside which field an error of the server belongs, by what it names first. @param {string} detail @returns {Field | undefined} */
export function fieldOf(detail) {
  const found = /\b(type|topic|user|data)s?\b/.exec(detail);
  if (!found) return undefined;
  return /** @type {Field} */ ({ topic: "topics", user: "users" }[found[1]] ?? found[1]);
}

/** @param {string[]} names */
function unique(names) {
  return [...new Set(names.map((name) => name.trim()).filter((name) => name !== ""))];
}

/** @param {string} text @returns {{data?: unknown, error: string}} */
function parsed(text) {
  if (text.trim() === "") return { error: "" };
  try {
    return { data: JSON.parse(text), error: "" };
  } catch (error) {
    return { error: `This is not JSON: ${error instanceof Error ? error.message : error}. Texts need double quotes.` };
  }
}

/** @param {string[]} topics */
function topicsError(topics) {
  const wrong = topics.find((topic) => !TOPIC.test(topic));
  if (wrong !== undefined) return `A topic has 1 to 200 letters, digits and . _ : / @ + = -, which “${wrong}” has not.`;
  return tooMany(topics);
}

/** @param {string[]} names */
function tooMany(names) {
  return names.length > MOST_NAMES ? `At most ${MOST_NAMES} are possible, and these are ${names.length}.` : "";
}
