/** Generates what is made from the modules of the client: the declarations of the package, and the file that is served. */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { minify } from "terser";

const TESTS = fileURLToPath(new URL(".", import.meta.url));
const PACKAGE = join(TESTS, "../../src/unmissed/browser");
const PUBLIC = ["unmissed", "types", "react", "vue"];
/** The name under which the server has it, beside the client. */
const SOURCE_MAP = "client.js.map";
/** Names of properties that stay inside the client: the served file has shorter ones. */
const INTERNAL = readFileSync(join(TESTS, "internal_names.txt"), "utf8").trim().split("\n");

/** Declarations of the public modules alone: those of the client are its own business. */
function declare() {
  // The compiler would read them instead of the modules.
  for (const name of PUBLIC) rmSync(join(PACKAGE, `${name}.d.ts`), { force: true });
  const folder = mkdtempSync(join(tmpdir(), "unmissed-"));
  execFileSync(join(TESTS, "node_modules/.bin/tsc"), ["-p", PACKAGE, "--outDir", folder], { stdio: "inherit" });
  for (const name of PUBLIC) copyFileSync(join(folder, `${name}.d.ts`), join(PACKAGE, `${name}.d.ts`));
  rmSync(folder, { recursive: true });
}

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
    mangle: { properties: { regex: new RegExp(`^(${INTERNAL.join("|")})$`) } },
    sourceMap: { content: sourceMap.text, filename: "unmissed.min.js", url: SOURCE_MAP, includeSources: true },
  });
  writeFileSync(join(PACKAGE, "unmissed.min.js"), `${code}\n`);
  writeFileSync(join(PACKAGE, SOURCE_MAP), `${map}\n`);
}

declare();
await bundle();
