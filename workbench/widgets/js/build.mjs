/**
 * Bundles src/ into ../static/bench.js and ../static/bench.css (one esbuild call, the same bytes each time).
 *
 *   node build.mjs                        write the bundle
 *   node build.mjs --check                exit 1 where the committed bundle is not what src/ gives
 *   node build.mjs --out DIR              write it somewhere else
 *   node build.mjs --only tokens,routing  the other views as placeholders (a broken view elsewhere does not stop you)
 *   node build.mjs --readable             not minified, with a source map inside
 */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "..", "static");

/** The value after a flag, or null. */
function flag(name) {
  const at = process.argv.indexOf(name);
  return at < 0 ? null : (process.argv[at + 1] ?? "");
}

/** Replaces the views that are not wanted by one line of text. */
function onlyViews(names) {
  const setup = (esbuild) => {
    esbuild.onLoad({ filter: /[\\/]src[\\/]views[\\/][a-z_]+\.js$/ }, ({ path }) => {
      const name = basename(path, ".js");
      if (name === "index" || names.includes(name)) return undefined;
      return { contents: `import { placeholder } from "../placeholder.js"; export default placeholder("${name}");` };
    });
  };
  return { name: "only-views", setup };
}

/** The licences of what is bundled, in full: they ask to travel with every copy. */
async function licences() {
  const parts = [];
  for (const name of ["preact", "@preact/signals", "@preact/signals-core", "htm"]) {
    const folder = join(HERE, "node_modules", name);
    const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? await readFile(join(folder, file), "utf8") : "";
    parts.push(`${name} ${version}\n${"=".repeat(40)}\n${text.trim()}\n`);
  }
  return `bench.js holds these packages beside our own code (Apache-2.0).\n\n${parts.join("\n\n")}`;
}

/** Every file of the bundle: name → text. */
async function bundle() {
  const only = flag("--only");
  const readable = process.argv.includes("--readable");
  const result = await build({
    entryPoints: [join(HERE, "src", "index.js")],
    absWorkingDir: HERE,
    outfile: join(STATIC, "bench.js"),
    write: false,
    bundle: true,
    format: "esm",
    target: ["es2022"],
    charset: "utf8",
    minify: !readable,
    sourcemap: readable ? "inline" : false,
    legalComments: "inline",
    banner: {
      js: "/*! gpt-oss-workbench, Apache-2.0. Holds preact, @preact/signals (MIT), htm (Apache-2.0): see licences.txt. */",
    },
    plugins: only === null ? [] : [onlyViews(only.split(","))],
  });
  const files = Object.fromEntries(result.outputFiles.map((file) => [basename(file.path), file.text]));
  return { ...files, "licences.txt": await licences() };
}

/** The names of the files that differ from what is on disk. */
async function differing(files, folder) {
  const wrong = [];
  for (const [name, text] of Object.entries(files)) {
    const there = await readFile(join(folder, name), "utf8").catch(() => null);
    if (there !== text) wrong.push(name);
  }
  return wrong;
}

const files = await bundle();
if (process.argv.includes("--check")) {
  const wrong = await differing(files, STATIC);
  if (wrong.length) {
    console.error(`not what src/ gives: ${wrong.join(", ")}. Run: cd workbench/widgets/js && npm ci && node build.mjs`);
    process.exit(1);
  }
  console.log("the bundle is fresh");
} else {
  const folder = flag("--out") ?? STATIC;
  await mkdir(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(folder, name), text);
    console.log(`${name} ${(Buffer.byteLength(text) / 1024).toFixed(1)} kB`);
  }
}
