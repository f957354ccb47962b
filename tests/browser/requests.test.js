/** What a page publishes, calls and follows, whatever the connection does. */

import assert from "node:assert/strict";
import test, { afterEach, mock } from "node:test";

import { connect } from "../../src/unmissed/browser/unmissed.js";
import { CONNECTED, fakeSockets, pass, restoreGlobals, setGlobal, settled } from "./fakes.js";

const RESUMED = { ...CONNECTED, outcome: "complete" };

afterEach(restoreGlobals);

/** Connects, and returns the stream and its sockets. */
async function opened(options = {}) {
  const sockets = fakeSockets();
  const stream = connect("http://server.test", { token: "t", ...options });
  await settled();
  await sockets[0].receive(CONNECTED);
  return { stream, sockets };
}

/** Returns what a promise became: its value, or the code of its error. */
const outcome = (promise) =>
  promise.then(
    (value) => ({ value }),
    ({ code, detail }) => ({ code, detail }),
  );

const ids = (socket) => socket.sent.map(({ id }) => id);

test("a publish is answered with the number of the message", async () => {
  const { stream, sockets } = await opened();
  const answer = stream.publish({ type: "chat", data: 1, users: ["bob"] });
  const [{ id, ...frame }] = sockets[0].sent;

  await sockets[0].receive({ type: "published", id, sequence_number: 9 });

  assert.deepEqual(frame, { type: "publish", message: { type: "chat", data: 1, users: ["bob"] } });
  assert.equal(await answer, 9);
});

test("a command is answered with its result, also one that means nothing", async () => {
  const { stream, sockets } = await opened();
  const answers = [stream.command("say", "hello"), stream.command("count"), stream.command("find")];
  const [first, second, third] = ids(sockets[0]);

  await sockets[0].receive(
    { type: "result", id: second, data: 0 },
    { type: "result", id: first, data: { a: 1 } },
    { type: "result", id: third, data: null },
  );

  assert.deepEqual(await Promise.all(answers), [{ a: 1 }, 0, null]);
});

test("an error rejects with its code and its explanation", async () => {
  const { stream, sockets } = await opened();
  const answer = outcome(stream.command("nothing"));

  await sockets[0].receive({ type: "error", id: ids(sockets[0])[0], code: 4400, detail: "no command has this name" });

  assert.deepEqual(await answer, { code: 4400, detail: "no command has this name" });
});

test("a message is sent as it was when it was published", async () => {
  const { stream, sockets } = await opened();
  await sockets[0].end();
  const message = { type: "chat", data: { text: "before" } };
  stream.publish(message);
  message.data.text = "after";

  await pass(500);
  await sockets[1].receive(RESUMED);

  assert.equal(sockets[1].sent[0].message.data.text, "before");
});

test("what cannot be sent as JSON is rejected", async () => {
  const { stream } = await opened();
  const circle = { type: "chat" };
  circle.data = circle;

  await assert.rejects(stream.publish(circle), TypeError);
});

test("what was not answered is repeated with the same ids and in order", async () => {
  const { stream, sockets } = await opened();
  for (const data of [1, 2, 3]) stream.publish({ type: "chat", data });
  const [first, ...rest] = ids(sockets[0]);
  await sockets[0].receive({ type: "published", id: first, sequence_number: 8 });

  await sockets[0].end();
  stream.publish({ type: "chat", data: 4 });
  await pass(500);
  await sockets[1].receive(RESUMED);

  assert.deepEqual(ids(sockets[1]).slice(0, 2), rest);
  assert.deepEqual(
    sockets[1].sent.map(({ message }) => message.data),
    [2, 3, 4],
  );
});

test("at most sixteen requests are unanswered", async () => {
  const { stream, sockets } = await opened();
  for (let data = 0; data < 30; data++) stream.publish({ type: "chat", data });
  await pass(4000);
  assert.equal(sockets[0].sent.length, 16);

  await sockets[0].receive({ type: "published", id: ids(sockets[0])[0], sequence_number: 8 });

  assert.equal(sockets[0].sent.length, 17);
});

test("a thousand messages at once stay within the limit of the server", async () => {
  const { stream, sockets } = await opened();
  const answers = Array.from({ length: 1000 }, (_, data) => stream.publish({ type: "chat", data }));
  const started = Date.now();
  let tokens = 20;
  let answered = 0;

  while (answered < 1000 && Date.now() - started < 105_000) {
    await pass(100);
    await sockets[0].receive({ type: "heartbeat", sequence_number: 7 });
    tokens = Math.min(20, tokens + 1);
    for (const { id } of sockets[0].sent.slice(answered)) {
      assert.ok(tokens-- >= 1, `too fast after ${answered} messages`);
      await sockets[0].receive({ type: "published", id, sequence_number: 8 + answered++ });
    }
  }

  assert.equal(answered, 1000);
  assert.deepEqual(
    await Promise.all(answers),
    answers.map((_, index) => 8 + index),
  );
});

test("a server that finds them too many gets fewer", async () => {
  const { stream, sockets } = await opened();
  for (let data = 0; data < 100; data++) stream.publish({ type: "chat", data });
  const answer = async () => {
    const socket = sockets.at(-1);
    const before = socket.sent.length;
    for (const id of ids(socket)) await socket.receive({ type: "published", id, sequence_number: 8 });
    return before;
  };
  await sockets[0].end(4429);
  await pass(500);
  await sockets[1].receive(RESUMED);

  const counts = [];
  for (let second = 0; second < 4; second++) {
    const before = await answer();
    await pass(1000);
    counts.push((await answer()) - before);
  }

  assert.ok(
    counts.slice(1).every((count) => count <= 5),
    `${counts}`,
  );
});

for (const code of [1012, 1013, 4429]) {
  test(`an error ${code} repeats the request later, with its id`, async () => {
    const { stream, sockets } = await opened();
    const answer = stream.publish({ type: "chat" });
    const [id] = ids(sockets[0]);

    await sockets[0].receive({ type: "error", id, code, detail: "later" });
    await pass(400);
    assert.equal(sockets[0].sent.length, 1);
    await pass(4000);
    await sockets[0].receive({ type: "published", id, sequence_number: 9 });

    assert.deepEqual(ids(sockets[0]), [id, id]);
    assert.equal(await answer, 9);
  });
}

test("more requests than may wait are rejected, and say why", async () => {
  const { stream } = await opened({ limit: 2 });
  stream.publish({ type: "chat" });
  stream.publish({ type: "chat" });

  const { code, detail } = await outcome(stream.publish({ type: "chat" }));

  assert.equal(code, 4429);
  assert.match(detail, /raise limit/);
});

test("a request that no server accepts is rejected, and not sent", async () => {
  const { stream, sockets } = await opened();

  const { code, detail } = await outcome(stream.publish({ type: "chat", data: "é".repeat(32_768) }));

  assert.deepEqual([code, detail], [1009, "over 64 kB"]);
  assert.deepEqual(sockets[0].sent, []);
});

test("what may have been done and forgotten is not repeated", async () => {
  const { stream, sockets } = await opened();
  const sent = outcome(stream.publish({ type: "chat", data: "sent" }));
  await sockets[0].end();
  stream.publish({ type: "chat", data: "waiting" });
  await pass(500);
  mock.timers.setTime(Date.now() + 61_000);

  await sockets.at(-1).receive({ ...RESUMED, max_age: 60 });

  assert.deepEqual(await sent, { code: 4408, detail: "it may have been done" });
  assert.deepEqual(
    sockets.at(-1).sent.map(({ message }) => message.data),
    ["waiting"],
  );
});

test("what may not have been forgotten yet is repeated", async () => {
  const { stream, sockets } = await opened();
  stream.publish({ type: "chat" });
  await sockets[0].end();
  await pass(500);
  mock.timers.setTime(Date.now() + 59_000);

  await sockets.at(-1).receive({ ...RESUMED, max_age: 60 });

  assert.deepEqual(ids(sockets.at(-1)), ids(sockets[0]));
});

for (const [answer, missing] of Object.entries({ pong: false, "no answer": true })) {
  test(`a request that takes long tests its connection: ${answer} to the ping`, async () => {
    const { stream, sockets } = await opened();
    const published = stream.publish({ type: "chat" });

    await pass(4900);
    assert.equal(sockets[0].sent.length, 1);
    await pass(100);
    assert.deepEqual(sockets[0].sent[1], { type: "ping" });
    if (!missing) await sockets[0].receive({ type: "pong" });
    await pass(3500);

    assert.equal(sockets[0].closed, missing);
    if (missing) await sockets[1].receive(RESUMED);
    await sockets.at(-1).receive({ type: "published", id: ids(sockets[0])[0], sequence_number: 8 });
    assert.equal(await published, 8);
  });
}

test("a slow command tests its connection again and again, and an answered one does not", async () => {
  const { stream, sockets } = await opened();
  const slow = stream.command("report");

  for (let turn = 0; turn < 5; turn++) {
    await pass(5000);
    await sockets[0].receive({ type: "pong" });
  }
  await sockets[0].receive({ type: "result", id: ids(sockets[0])[0], data: "done" });
  await pass(20_000);

  assert.equal(await slow, "done");
  assert.equal(sockets[0].sent.filter(({ type }) => type === "ping").length, 5);
  assert.equal(sockets.length, 1);
});

for (const [rate, burst, expected] of [
  [100, 50, 140],
  [2, 4, 5],
]) {
  test(`a server that accepts ${rate} requests a second, and ${burst} at once, gets ${expected} in a second`, async () => {
    const sockets = fakeSockets();
    const stream = connect("http://server.test", { token: "t" });
    await settled();
    await sockets[0].receive({ ...CONNECTED, rate, burst });
    const answered = new Set();

    for (let data = 0; data < 500; data++) stream.publish({ type: "chat", data }).catch(() => {});
    for (let turn = 0; turn <= 10; turn++) {
      for (const { id } of sockets[0].sent) {
        if (!answered.has(id)) await sockets[0].receive({ type: "published", id, sequence_number: 8 + answered.size });
        answered.add(id);
      }
      if (turn < 10) await pass(100);
    }

    assert.ok(Math.abs(sockets[0].sent.length - expected) <= 1, `${sockets[0].sent.length}`);
    stream.close();
  });
}

test("a closed stream rejects what waits and what comes", async () => {
  const { stream } = await opened();
  const waiting = outcome(stream.publish({ type: "chat" }));

  stream.close();

  assert.deepEqual([(await waiting).code, (await outcome(stream.publish({ type: "chat" }))).code], [1000, 1000]);
});

test("a page without HTTPS has ids, too", async () => {
  setGlobal("crypto", { getRandomValues: crypto.getRandomValues.bind(crypto) });
  const { stream, sockets } = await opened();

  stream.publish({ type: "chat" });
  stream.publish({ type: "chat" });

  const [first, second] = ids(sockets[0]);
  assert.match(first, /^[!-~]{20,255}$/);
  assert.notEqual(first, second);
});

// Topics

test("topics are followed in order, and each promise has all of them although an answer has its changes", async () => {
  const { stream, sockets } = await opened();
  await sockets[0].receive({ ...CONNECTED, topics: ["granted"] });
  const answers = [stream.follow("a", "b"), stream.unfollow("a")];
  assert.deepEqual(
    sockets[0].sent.map(({ type, topics }) => [type, topics]),
    [
      ["follow", ["a", "b"]],
      ["unfollow", ["a"]],
    ],
  );

  const [follow, unfollow] = ids(sockets[0]);
  await sockets[0].receive(
    { type: "following", id: follow, added: ["a", "b"], removed: [], sequence_number: 7 },
    { type: "authenticated", added: ["c"], removed: ["granted"], sequence_number: 7 },
    { type: "following", id: unfollow, added: [], removed: ["a"], sequence_number: 7 },
  );

  assert.deepEqual(await Promise.all(answers), [
    ["a", "b", "granted"],
    ["b", "c"],
  ]);
  assert.deepEqual(stream.topics, ["b", "c"]);
});

test("topics are followed in addition to those that the token grants, also after it was renewed", async () => {
  const { stream, sockets } = await opened();
  await sockets[0].receive({ type: "authenticated", added: ["granted"], removed: [], sequence_number: 7 });
  const answer = stream.follow("a");

  await sockets[0].receive({
    type: "following",
    id: ids(sockets[0])[0],
    added: ["a"],
    removed: [],
    sequence_number: 7,
  });

  assert.deepEqual(await answer, ["a", "granted"]);
});

test("a topic that is not granted rejects its request alone", async () => {
  const { stream, sockets } = await opened();
  const answers = [outcome(stream.follow("secret")), outcome(stream.follow("a"))];
  const [secret, granted] = ids(sockets[0]);

  await sockets[0].receive(
    { type: "error", id: secret, code: 4403, detail: "the topic secret is not granted" },
    { type: "following", id: granted, added: ["a"], removed: [], sequence_number: 7 },
  );

  assert.deepEqual(await Promise.all(answers), [
    { code: 4403, detail: "the topic secret is not granted" },
    { value: ["a"] },
  ]);
});

test("a token that was not accepted in band rejects no topic", async () => {
  const { stream, sockets } = await opened();
  const answer = outcome(stream.follow("a"));

  await sockets[0].receive(
    { type: "error", code: 4400, detail: "the token of this connection cannot be renewed" },
    { type: "following", id: ids(sockets[0])[0], added: ["a"], removed: [], sequence_number: 7 },
  );

  assert.deepEqual(await answer, { value: ["a"] });
});

test("a reconnect follows the topics that were told last, and repeats what was not answered", async () => {
  const { stream, sockets } = await opened({ topics: ["a"] });
  stream.follow("b");
  await sockets[0].receive({
    type: "following",
    id: ids(sockets[0])[0],
    added: ["a", "b"],
    removed: [],
    sequence_number: 7,
  });
  stream.follow("c");

  await sockets[0].end();
  await pass(500);
  await sockets[1].receive(RESUMED);

  assert.equal(new URL(sockets[1].url).searchParams.get("topics"), "a,b");
  assert.deepEqual(
    sockets[1].sent.map(({ topics }) => topics),
    [["c"]],
  );
});

test("a stream without topics of its own follows what each token grants", async () => {
  const { stream, sockets } = await opened();
  await sockets[0].receive({ type: "authenticated", added: ["granted"], removed: [], sequence_number: 7 });

  await sockets[0].end();
  await pass(500);

  assert.equal(stream.topics, undefined);
  assert.equal(new URL(sockets[1].url).searchParams.get("topics"), null);
});

test("a renewed token that grants less ends what was followed", async () => {
  const { stream, sockets } = await opened({ topics: ["a", "b"] });

  await sockets[0].receive({ type: "authenticated", added: [], removed: ["a"], sequence_number: 7 });

  assert.deepEqual(stream.topics, ["b"]);
});
