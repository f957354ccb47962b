import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

import { snippet } from "../../../src/unmissed/browser/console/snippets.js";

const ACTIONS = ["publish", "flow", "drop", "stall"];
const FACTS = { base: "http://127.0.0.1:8000", position: 17, seconds: 5, text: `it's "here" $HOME` };

for (const action of ACTIONS) {
  test(`the shell, Python and JavaScript code for ${action} has no syntax error`, () => {
    const [curl, python, javascript] = ["curl", "python", "javascript"].map(
      (each) => snippet(action, each, FACTS).code,
    );

    execFileSync("bash", ["-n"], { input: curl });
    execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: python });
    new Function(`return async () => { ${javascript}\n }`);
  });
}

test("no code contains a token", () => {
  const all = ACTIONS.flatMap((action) =>
    ["curl", "python", "javascript"].map((each) => snippet(action, each, FACTS).code),
  );

  for (const code of all) assert.match(code, /UNMISSED_TOKEN|prompt\("Token"\)/);
});

test("a text with quotes reaches the server unchanged", () => {
  const { code } = snippet("publish", "curl", FACTS);

  const body = execFileSync("bash", ["-c", `curl() { printf %s "\${!#}"; }\n${code}`], { encoding: "utf8" });

  assert.equal(FACTS.text, JSON.parse(body).data.text);
});
