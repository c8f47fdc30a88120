// Packs what the server ships: dist/plugins from the installed plugin tarballs, dist/plugins.json (the answer of
// GET /api/v1/plugins), a .gz and .br beside every file that compresses, and dist/stamp, by which the server's
// build script knows that dist belongs to these sources. Run after `vite build`.
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { extname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';

const UI = fileURLToPath(new URL('.', import.meta.url));
const DIST = join(UI, 'dist');
const INSTALLED = join(UI, 'plugins/node_modules');
const COMPRESSIBLE = new Set(['.html', '.js', '.css', '.json', '.svg', '.txt', '.map', '.wasm']);
// Below this the headers cost more than is saved.
const SMALLEST = 256;
// For 25 MB of plugins quality 11 takes ten times as long as 9 and saves an eighth; the app is what every visit loads.
const BROTLI_QUALITY = { app: 11, plugins: 9 };

const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));

/** All files below a folder, sorted, as paths with `/`. */
function filesOf(root, skip = new Set()) {
  return readdirSync(root, { withFileTypes: true })
    .filter(({ name }) => !skip.has(name))
    .flatMap((entry) => (entry.isDirectory() ? filesOf(join(root, entry.name), skip) : entry.isFile() ? [join(root, entry.name)] : []))
    .sort();
}

/** The same hash as `input_key` in build.rs. */
function stamp() {
  const skip = new Set(['node_modules', 'dist']);
  const files = filesOf(UI, skip).map((file) => [relative(UI, file).split(sep).join('/'), file]);
  files.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const hash = createHash('sha256');
  for (const [name, file] of files) {
    const content = readFileSync(file);
    hash.update(`${name}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

const assetsOf = ({ js, css }) => [js, css].flatMap((kind) => [...kind.sync, ...kind.async]);

/**
 * Every plugin tarball carries a copy of each package that it shares with its host. The host's copy always wins
 * (src/plugins/runtime.ts), so the copies of what our host shares are never fetched: 54 of 88 MB.
 */
function neverFetched(manifest, shared) {
  const kept = new Set(manifest.exposes.flatMap(({ assets }) => assetsOf(assets)));
  kept.add(manifest.metaData.remoteEntry.name);
  for (const { name, assets } of manifest.shared) if (!shared.has(name)) assetsOf(assets).forEach((file) => kept.add(file));
  const copies = manifest.shared.filter(({ name }) => shared.has(name)).flatMap(({ assets }) => assetsOf(assets));
  return new Set(copies.filter((file) => !kept.has(file)));
}

function packPlugin(folder, shared) {
  const { perses, version } = readJson(join(folder, 'package.json'));
  const manifest = readJson(join(folder, 'mf-manifest.json'));
  const { name } = manifest;
  const target = join(DIST, 'plugins', name);
  // Some manifests compute their path with a function in a string, which the runtime would have to eval(): the
  // content security policy forbids that, rightly.
  delete manifest.metaData.getPublicPath;
  manifest.metaData.publicPath = `/plugins/${name}/`;
  const dropped = neverFetched(manifest, shared);
  mkdirSync(target, { recursive: true });
  cpSync(join(folder, '__mf'), join(target, '__mf'), {
    recursive: true,
    filter: (source) => {
      const file = relative(folder, source).split(sep).join('/');
      return !dropped.has(file.replace(/\.LICENSE\.txt$/, '')) && !file.endsWith('.map');
    },
  });
  writeFileSync(join(target, 'mf-manifest.json'), JSON.stringify(manifest));
  cpSync(join(folder, 'LICENSE'), join(target, 'LICENSE.txt'));
  return {
    kind: 'PluginModule',
    metadata: { name, version, registry: '' },
    spec: { schemasPath: perses.schemasPath ?? '', plugins: perses.plugins },
    status: { isLoaded: true, inDev: false },
  };
}

function packPlugins() {
  const shared = new Set(readJson(join(UI, 'shared-packages.json')));
  rmSync(join(DIST, 'plugins'), { recursive: true, force: true });
  const wanted = Object.keys(readJson(join(UI, 'plugins/package.json')).dependencies).sort();
  const modules = wanted.map((name) => packPlugin(join(INSTALLED, name), shared));
  modules.sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  writeFileSync(join(DIST, 'plugins.json'), JSON.stringify(modules));
  return modules.length;
}

const brotli = promisify(brotliCompress);
const zip = promisify(gzip);

async function compress(file) {
  const quality = BROTLI_QUALITY[relative(DIST, file).split(sep)[0]];
  const content = readFileSync(file);
  if (content.length < SMALLEST) return;
  const params = { [constants.BROTLI_PARAM_QUALITY]: quality, [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
  const [br, gz] = await Promise.all([brotli(content, { params }), zip(content, { level: 9 })]);
  writeFileSync(`${file}.br`, br);
  writeFileSync(`${file}.gz`, gz);
}

async function compressAll() {
  const files = ['app', 'plugins'].flatMap((part) => filesOf(join(DIST, part))).filter((file) => COMPRESSIBLE.has(extname(file)));
  const queue = [...files].sort((a, b) => statSync(b).size - statSync(a).size);
  const worker = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) await compress(file);
  };
  await Promise.all(Array.from({ length: 4 }, worker));
  return files.length;
}

if (!existsSync(join(DIST, 'app/index.html'))) throw new Error('dist/app/index.html is missing: run `npm run build` first');
const began = Date.now();
const plugins = packPlugins();
const compressed = await compressAll();
writeFileSync(join(DIST, 'stamp'), stamp());
console.log(`packed ${plugins} plugin modules, compressed ${compressed} files in ${((Date.now() - began) / 1000).toFixed(1)} s`);
