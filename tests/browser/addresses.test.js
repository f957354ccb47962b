/** Addresses of servers and ways to them, as pages write them. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { serverUrl } from "../../src/unmissed/browser/client/address.js";
import { connect } from "../../src/unmissed/browser/unmissed.js";
import { fakeSockets, restoreGlobals, setGlobal, settled } from "./fakes.js";

afterEach(restoreGlobals);

const USABLE = {
  "https://api.example.com": "https://api.example.com",
  "https://api.example.com/": "https://api.example.com",
  "https://api.example.com/live/": "https://api.example.com/live",
  "HTTP://localhost:8000": "http://localhost:8000",
  "ws://localhost:8000": "http://localhost:8000",
  "wss://api.example.com/live": "https://api.example.com/live",
  " https://api.example.com ": "https://api.example.com",
  "https://[::1]:8000": "https://[::1]:8000",
  "/": "https://page.example",
  "/live": "https://page.example/live",
  "//api.example.com": "https://api.example.com",
  "/ws/": "https://page.example/ws",
};

for (const [address, url] of Object.entries(USABLE)) {
  test(`a server can be at ${JSON.stringify(address)}`, () => {
    setGlobal("location", { origin: "https://page.example", href: "https://page.example/shop/?a=1#b" });

    assert.equal(serverUrl(address), url);
  });
}

const UNUSABLE = [
  "",
  " ",
  undefined,
  null,
  "localhost:8000",
  "127.0.0.1:8000",
  "api.example.com",
  "live",
  "./live",
  "https:/api.example.com",
  "https://",
  "ftp://api.example.com",
  "file:///index.html",
  "blob:https://page.example/1",
  "javascript:alert(1)",
  "wss://api.example.com/ws",
  "https://api.example.com/live/ws",
  "https://api.example.com?token=t",
  "https://api.example.com/#orders",
  "https://api.example.com/#",
  "https://user:password@api.example.com",
  "[object Object]",
];

for (const address of UNUSABLE) {
  test(`no server can be at ${JSON.stringify(address)}, and the error names the fix`, () => {
    setGlobal("location", { origin: "https://page.example" });
    const sockets = fakeSockets();

    assert.throws(
      () => connect(address),
      (error) =>
        error instanceof TypeError &&
        error.message.includes(`"${(address ?? "").trim()}"`) &&
        /write https/.test(error.message),
    );
    assert.equal(sockets.length, 0);
  });
}

test("the address may be a URL object", async () => {
  const sockets = fakeSockets();

  connect(new URL("wss://api.example.com/live/"));
  await settled();

  assert.equal(sockets[0].url, "wss://api.example.com/live/ws");
});

test("a program without a page, and a page that is a file, have no origin", () => {
  assert.throws(() => serverUrl("/"), /write https/);
  setGlobal("location", { origin: "null" });

  assert.throws(() => serverUrl("/"), /write https/);
  assert.equal(serverUrl("https://api.example.com"), "https://api.example.com");
});

for (const transports of [[], ["websockets"], ["websocket", "sse"], ["tabs"], "pigeon", [null]]) {
  test(`the transports ${JSON.stringify(transports)} are refused, with the names of the valid ones`, () => {
    const refusal = { name: "TypeError", message: /: name some of websocket,events,polling$/ };

    assert.throws(() => connect("http://server.test", { transports }), refusal);
  });
}

for (const transports of [undefined, "websocket", ["websocket"]]) {
  test(`the transports ${JSON.stringify(transports)} begin with a WebSocket`, async () => {
    const sockets = fakeSockets();

    connect("http://server.test", { transports, token: "t" });
    await settled();

    assert.equal(sockets.length, 1);
  });
}
