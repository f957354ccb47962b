/** What a stream says about itself: errors, lines for developers, and the fix of a refusal. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import { CONNECTED, FakeStorage, fakeSockets, message, pass, restoreGlobals, setGlobal, settled } from "./fakes.js";

afterEach(restoreGlobals);

/** Records what is written to the console, and what is reported. */
function fakeConsole() {
  const lines = { debug: [], error: [], reported: [] };
  setGlobal("console", {
    ...console,
    debug: (...words) => lines.debug.push(words.join(" ")),
    error: (...words) => lines.error.push(words.join(" ")),
  });
  setGlobal("reportError", ({ message: text }) => lines.reported.push(text));
  return lines;
}

async function opened(options = {}) {
  const lines = fakeConsole();
  const sockets = fakeSockets();
  const stream = connect("http://server.test", { token: "t", ...options });
  const errors = [];
  await settled();
  return { stream, sockets, lines, errors };
}

for (const [code, type] of [
  [4400, "refused"],
  [4403, "refused"],
]) {
  test(`without a listener, close code ${code} is an error on the console, with the reason of the server`, async () => {
    const { sockets, lines } = await opened();

    await sockets[0].end(code, "because");

    assert.equal(lines.error.length, 1);
    for (const part of [type, `${code}`, "because"]) assert.ok(lines.error[0].includes(part), lines.error[0]);
    assert.deepEqual(lines.reported, []);
  });

  for (const listened of [type, "error"]) {
    test(`a page that listens to ${listened} hears of ${code} there, and not on the console`, async () => {
      const { stream, sockets, lines, errors } = await opened();
      stream.addEventListener(listened, ({ detail }) => errors.push(detail.error?.code ?? detail.code));

      await sockets[0].end(code, "because");

      assert.deepEqual([errors, lines.error, lines.reported], [[code], [], []]);
    });
  }
}

test("tokens that are refused for long are an error on the console, with the reason", async () => {
  const { stream, sockets, lines } = await opened();

  while (stream.status !== "closed") {
    await sockets.at(-1).end(4401, "expired");
    await pass(8000);
  }

  assert.equal(lines.error.length, 1);
  assert.match(lines.error[0], /unauthorized \(4401\): expired/);
});

const FAILING = {
  token: {
    token: async () => {
      throw new Error("the login is away");
    },
  },
  snapshot: {
    snapshot: async () => {
      throw new Error("the shop is away");
    },
  },
  storage: {
    storage: Object.assign(new FakeStorage(), {
      setItem() {
        throw new Error("the storage is full");
      },
    }),
  },
};

for (const [during, options] of Object.entries(FAILING)) {
  test(`an error of the ${during} is an event, and not reported to a page that listens to it`, async () => {
    const { stream, sockets, lines, errors } = await opened();
    stream.close();
    const listening = connect("http://server.test", { token: "t", ...options });
    listening.on("*", () => {});
    listening.addEventListener("error", ({ detail }) => errors.push([detail.during, detail.error.message]));
    await settled();
    if (during !== "token") await sockets.at(-1).receive(CONNECTED, message(8));
    await pass(0);

    assert.equal(errors.length, 1);
    assert.equal(errors[0][0], during);
    assert.match(errors[0][1], /is away|is full/);
    assert.deepEqual(lines.reported, []);
    listening.close();
  });
}

test("an error of a snapshot that nobody listens to is reported", async () => {
  const { sockets, lines } = await opened(FAILING.snapshot);

  await sockets[0].receive(CONNECTED);
  await pass(0);

  assert.deepEqual(lines.reported, ["the shop is away"]);
});

for (const [how, options, item] of [
  ["the option", { debug: true }, null],
  ["an item of localStorage", {}, "debug"],
]) {
  test(`with ${how}, every decision is a line on the console`, async () => {
    setGlobal("localStorage", { unmissed: item });
    const { stream, sockets, lines } = await opened(options);
    stream.on("*", () => {});

    await sockets[0].receive(CONNECTED, message(8));
    stream.publish({ type: "chat" }).catch(() => {});
    await sockets[0].end(1012, "restart");
    await pass(500);
    await pass(6500);
    await sockets[1].end(4403, "not your topic");

    const text = lines.debug.join("\n");
    const isLine = (line) => line.startsWith("unmissed http://server.test: ") && !line.includes("\n");
    assert.deepEqual(lines.debug.filter(isLine), lines.debug);
    for (const part of [
      "websocket from",
      '"live"',
      '"publish"',
      '1012,"reason":"restart"',
      "tries events",
      "websocket ends: 4403",
    ]) {
      assert.ok(text.includes(part), `${part} is not in\n${text}`);
    }
    assert.ok(!text.includes("[object"), text);
  });
}

for (const localStorage of [{ unmissed: "other" }, undefined]) {
  test(`without them, nothing is written: localStorage is ${JSON.stringify(localStorage)}`, async () => {
    setGlobal("localStorage", localStorage);
    const { sockets, lines } = await opened();

    await sockets[0].receive(CONNECTED, message(8));
    await sockets[0].end();
    await pass(500);

    assert.deepEqual([lines.debug, lines.error, lines.reported], [[], [], []]);
  });
}
