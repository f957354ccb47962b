/** Generates the file that is served from the modules of the client, and its source map. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { minify } from "terser";

const TESTS = fileURLToPath(new URL(".", import.meta.url));
const PACKAGE = join(TESTS, "../../src/unmissed/browser");
/** The name under which the server has it, beside the client. */
const SOURCE_MAP = "client.js.map";
/** Names of properties that stay inside the client: the served file has shorter ones. */
const INTERNAL = readFileSync(join(TESTS, "internal_names.txt"), "utf8").trim().split("\n");

async function bundle() {
  const { outputFiles } = await build({
    absWorkingDir: PACKAGE,
    entryPoints: ["unmissed.js"],
    outdir: ".",
    bundle: true,
    format: "esm",
    target: "es2022",
    minifySyntax: true,
    sourcemap: "external",
    write: false,
  });
  const { text } = outputFiles.find(({ path }) => path.endsWith(".js"));
  const sourceMap = outputFiles.find(({ path }) => path.endsWith(".map"));
  const { code, map } = await minify(text, {
    module: true,
    compress: { passes: 5, pure_getters: true, unsafe: true, unsafe_arrows: true, unsafe_methods: true },
    mangle: { properties: { builtins: true, regex: new RegExp(`^(${INTERNAL.join("|")})$`) } },
    sourceMap: { content: sourceMap.text, filename: "unmissed.min.js", url: SOURCE_MAP, includeSources: true },
  });
  writeFileSync(join(PACKAGE, "unmissed.min.js"), `${code}\n`);
  writeFileSync(join(PACKAGE, SOURCE_MAP), `${map}\n`);
}

await bundle();
