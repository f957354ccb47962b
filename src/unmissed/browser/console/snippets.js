/** The code for what was just done, as it may be pasted. The token is in a variable, never in the text. */

/** @typedef {"curl" | "python" | "javascript"} Language */
/**
 * @typedef {object} Facts
 * @property {string} base
 * @property {number} position
 * @property {number} seconds
 * @property {string} text
 */
/** @typedef {Record<Language, (facts: Facts) => string>} Snippet */

const AUTHORIZATION = '-H "Authorization: Bearer $UNMISSED_TOKEN"';
const PYTHON_REST = `import os
import httpx

url = os.environ["UNMISSED_URL"]
headers = {"Authorization": f"Bearer {os.environ['UNMISSED_TOKEN']}"}
`;

/** @type {Record<string, {title: string} & Snippet>} */
const SNIPPETS = {
  publish: {
    title: "Publish a message",
    curl: ({ text }) => `curl "$UNMISSED_URL/websocket/messages" \\
  ${AUTHORIZATION} \\
  -H "Content-Type: application/json" \\
  -d ${shellQuoted(JSON.stringify({ type: "note", data: { text } }))}`,
    python: ({ text }) => `${PYTHON_REST}
message = {"type": "note", "data": {"text": ${JSON.stringify(text)}}}
response = httpx.post(f"{url}/websocket/messages", headers=headers, json=message)
print(response.json()["sequence_number"])`,
    javascript: ({ base, text }) => `${javascriptStart(base)}
console.log(await stream.publish({ type: "note", data: { text: ${JSON.stringify(text)} } }));`,
  },
  flow: {
    title: "Publish 50 messages a second",
    curl: () => `while sleep 0.1; do
  curl "$UNMISSED_URL/websocket/messages" \\
    ${AUTHORIZATION} \\
    -H "Content-Type: application/json" \\
    -d '[{"type": "tick"}, {"type": "tick"}, {"type": "tick"}, {"type": "tick"}, {"type": "tick"}]'
done`,
    python: () => `import time
${PYTHON_REST}
with httpx.Client(headers=headers) as http:
    while True:
        http.post(f"{url}/websocket/messages", json=[{"type": "tick"}] * 5).raise_for_status()
        time.sleep(0.1)`,
    javascript: ({ base }) => `const token = prompt("Token");

setInterval(() => fetch("${base}/websocket/messages", {
  method: "POST",
  headers: { "Authorization": \`Bearer \${token}\`, "Content-Type": "application/json" },
  body: JSON.stringify(Array(5).fill({ type: "tick" })),
}), 100);`,
  },
  drop: {
    title: "Lose the connection, and recover",
    curl: ({ position }) => `# Everything after the last number that you have seen:
curl "$UNMISSED_URL/websocket/messages?since=${position}" \\
  ${AUTHORIZATION}`,
    python: ({ seconds }) => `import asyncio
import os
from unmissed import client


async def main():
    token = os.environ["UNMISSED_TOKEN"]
    async with client.connect(os.environ["UNMISSED_URL"], token=token) as stream:
        stream.drop(${seconds})
        async for event in stream:
            print(event)


asyncio.run(main())`,
    javascript: ({ base, seconds }) => `${javascriptStart(base)}
stream.on("*", (message) => console.log(message.recovered ? "recovered" : "live", message));
stream.addEventListener("gap", ({ detail }) => console.log("lost", detail.from, detail.to));
stream.drop(${seconds * 1000});`,
  },
  stall: {
    title: "Connect, and stop reading",
    curl: () => `# sleep reads nothing, so curl stops reading, too, and then the server notices.
curl --no-buffer "$UNMISSED_URL/websocket/events" \\
  ${AUTHORIZATION} | sleep 60`,
    python: () => `import time
${PYTHON_REST}
with httpx.stream("GET", f"{url}/websocket/events", headers=headers, timeout=None) as response:
    time.sleep(20)  # Others are not affected.
    for line in response.iter_lines():
        print(line)`,
    javascript: ({ base }) => `const token = prompt("Token");
const response = await fetch("${base}/websocket/events", {
  headers: { "Authorization": \`Bearer \${token}\` },
});
await new Promise((resume) => setTimeout(resume, 20_000)); // Nothing is read. Others are not affected.
for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) console.log(chunk);`,
  },
};

/**
 * Return the title and the code for an action.
 * @param {string} action @param {Language} language @param {Facts} facts
 */
export function snippet(action, language, facts) {
  const { title, ...code } = SNIPPETS[action];
  return { title, code: code[language](facts) };
}

/** @param {string} base */
function javascriptStart(base) {
  return `const { connect } = await import("${base}/websocket/client.js");

const token = prompt("Token");
const stream = connect("${base}", { token });`;
}

/** @param {string} text */
function shellQuoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
