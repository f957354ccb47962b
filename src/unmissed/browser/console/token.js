/** The token of this tab: from the fragment of the address, or from the form. */

const KEY = "unmissed.console.token";

/** The key under which the stream keeps its position, so that a reload recovers what it missed. */
export const POSITION_KEY = "unmissed.console.position";

/** Return the token in the fragment, or null, and remove it from the address bar and the history at once. */
export function takeLinkedToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/** Return the token that is kept for this tab, so that a reload works, or null. */
export function keptToken() {
  return sessionStorage.getItem(KEY);
}

/** Keep a token until the tab is closed. @param {string} token */
export function keepToken(token) {
  sessionStorage.setItem(KEY, token);
}

/** Forget the token, and the position that belongs to it. */
export function forgetToken() {
  for (const key of [KEY, POSITION_KEY]) sessionStorage.removeItem(key);
}
