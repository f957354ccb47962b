/** The address of a server, as an application gives it. */

import { attempt } from "./attempt.js";

/** Absolute addresses, and those on the origin of the page. Others, such as `localhost:8000`, lack their scheme. */
const COMPLETE = /^((https?|wss?):\/)?\//i;

/** A user, a query, a fragment, and the path of WebSockets, which the client adds. */
const UNUSABLE = /\/\/[^/]*@|[?#]|\/ws$/;
const FIX = 'write https://host/path, without user, query and /ws, or "/"';

/**
 * Returns the URL of a server without a slash at its end. A path alone is on the origin of the page. Throws TypeError, with
 * the fix, if no server can be reached there.
 *
 * @param {string | URL} address
 */
export const serverUrl = (address) => {
  const text = `${address ?? ""}`.trim();
  const url = COMPLETE.test(text) ? attempt(() => parsedUrl(text)) : undefined;
  if (!url || UNUSABLE.test(url.href)) throw new TypeError(`"${text}" is no address of a server: ${FIX}`);
  return url.href.replace(/\/$/, "");
};

/**
 * Returns the URL over HTTP: requests need no other, and the scheme of a URL object cannot change from ws to http.
 *
 * @param {string} text
 */
const parsedUrl = (text) => {
  // A sandboxed page has the origin "null", which is no base.
  const url = new URL(text, text.startsWith("/") ? location.origin : undefined);
  return new URL(url.href.replace(/^ws/, "http"));
};
