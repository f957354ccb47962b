/** Why something has failed: the errors of the client, and the ends of connections. */

/**
 * Why a connection ended: a close event, or an error.
 *
 * @typedef {{ code?: any, reason?: string, message?: string }} Cause
 */

/** The codes that the client itself uses: close codes of WebSockets, and those of the server. */
export const CLOSED = 1000;
export const LOST = 1006;
export const TOO_LARGE = 1009;
const RESTARTING = 1012;
const UNAVAILABLE = 1013;
export const BAD_REQUEST = 4400;
export const UNAUTHORIZED = 4401;
export const TIMED_OUT = 4408;
export const TOO_MANY = 4429;
/** The server asks for time. */
export const POSTPONING = [RESTARTING, UNAVAILABLE, TOO_MANY];

/** How the type of a problem (RFC 9457) begins, if it is a refusal of the server. */
const OWN_PROBLEM = "urn:unmissed:problem:";
/** Added to an HTTP status, this is a close code. */
const OF_STATUS = 4000;
/** The statuses that have another close code: an unknown command is 404, and 4400 over a WebSocket. */
const CODES = /** @type {Record<number, number>} */ ({ 404: BAD_REQUEST, 422: BAD_REQUEST, 503: UNAVAILABLE });

/**
 * Returns an error with a close code and an explanation.
 *
 * @param {number} code
 * @param {string} [detail]
 * @returns {Error & { code: number, detail?: string }}
 */
export const failure = (code, detail) => Object.assign(new Error(detail), { code, detail });

/**
 * Returns the failure of a request that was not answered by the server, but for example by a proxy or a login page.
 *
 * @param {string} [reason]
 */
export const foreignFailure = (reason) => failure(LOST, reason || "another server answers");

/**
 * Returns why a request has failed. Only a problem of the server itself is its refusal: others come from a proxy, a gateway
 * or another application.
 *
 * @param {Response} response
 * @param {string} [id] That of the request, if it is one of the application.
 */
export const failureOf = async (response, id) => {
  const { status, statusText } = response;
  const problem = await response.json().catch(() => {});
  if (`${problem?.type}`.startsWith(OWN_PROBLEM)) {
    return failure(CODES[status] ?? OF_STATUS + status, problem.detail);
  }
  // A proxy has answered. Most of its refusals may be temporary, but these statuses are final for a request.
  if (id && status >= 400 && status < 500 && status !== 401) return failure(OF_STATUS + status, statusText);
  return foreignFailure(statusText);
};
