/** Why something has failed: the errors of the client, and the ends of connections. */

/**
 * Why a connection ended: a close event, or an error. `answered`: a server or proxy has refused a request, which shows
 * that the network works.
 *
 * @typedef {{ code?: any, reason?: string, message?: string, answered?: boolean }} Cause
 */

/** The codes that the client itself uses: close codes of WebSockets, and those of the server. */
export const CLOSED = 1000;
export const LOST = 1006;
export const TOO_LARGE = 1009;
export const RESTARTING = 1012;
export const UNAVAILABLE = 1013;
export const BAD_REQUEST = 4400;
export const UNAUTHORIZED = 4401;
export const FORBIDDEN = 4403;
export const TIMED_OUT = 4408;
export const TOO_MANY = 4429;

/** How the type of a problem (RFC 9457) begins, if it is a refusal of the server. */
const OWN_PROBLEM = "urn:unmissed:problem:";
/** Added to an HTTP status, this is a close code. */
const OF_STATUS = 4000;
/** The statuses that have another close code. */
const CODES = /** @type {Record<number, number>} */ ({ 422: BAD_REQUEST, 503: UNAVAILABLE });

/**
 * Returns an error with a close code and an explanation.
 *
 * @param {number} code
 * @param {string} [detail]
 * @param {boolean} [answered]
 * @returns {Error & { code: number, detail?: string, answered?: boolean }}
 */
export const failure = (code, detail, answered) => Object.assign(new Error(detail), { code, detail, answered });

/**
 * Returns the failure of a request that was not answered by the server, but for example by a proxy or a login page.
 *
 * @param {string} [reason]
 */
export const foreignFailure = (reason = "another server answers", answered = true) => failure(LOST, reason, answered);

/**
 * Returns whether a response has this media type.
 *
 * @param {Response} response
 * @param {string} type
 */
export const hasType = ({ headers }, type) => headers.get("Content-Type")?.startsWith(type);

/**
 * Returns why a request has failed. Only a problem of the server itself is its refusal: others come from a proxy, a gateway
 * or another application.
 *
 * @param {Response} response
 * @param {string} [id] That of the request, if it is one of the application.
 */
export const failureOf = async (response, id) => {
  const { status, statusText } = response;
  // Whether to try another transport at once.
  const answered = status < 500 && status !== 429;
  const problem = await response.json().catch(() => {});
  if (`${problem?.type}`.startsWith(OWN_PROBLEM)) {
    return failure(CODES[status] ?? OF_STATUS + status, problem.detail, answered);
  }
  // A proxy has answered. Most of its refusals may be temporary, but these statuses are final for a request.
  if (id && status >= 400 && status < 500 && status !== 401) return failure(OF_STATUS + status, statusText);
  return foreignFailure(statusText || undefined, answered);
};
