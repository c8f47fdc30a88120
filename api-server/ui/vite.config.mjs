import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const own = (file) => fileURLToPath(new URL(file, import.meta.url));
const readJson = (file) => JSON.parse(readFileSync(own(file), 'utf8'));

// Two modules inside the packages are replaced by ours:
// - plugin-system's module-federation runtime reaches its shared packages with require(), pins versions that are
//   out of date and pulls in all ~7000 icons;
// - dashboards' useDashboard() forgets every field that it does not know (src/dashboard/lossless.ts).
const replacements = {
  name: 'replace-package-modules',
  enforce: 'pre',
  resolveId(id, importer) {
    if (id.endsWith('/PluginRuntime') && importer?.includes('@perses-dev/plugin-system')) {
      return own('src/plugins/runtime.ts');
    }
    if (id === './useDashboard' && importer?.includes('@perses-dev/dashboards')) {
      return own('src/dashboard/use-dashboard.ts');
    }
    if (id === 'perses-dashboards-use-dashboard') {
      return own('node_modules/@perses-dev/dashboards/dist/context/useDashboard.js');
    }
    return undefined;
  },
};

// `virtual:shared-modules`: the packages of shared-packages.json with the versions that are really installed.
// pack.mjs leaves these packages out of the plugins, so both must read one list.
const sharedModules = {
  name: 'shared-modules',
  resolveId: (id) => (id === 'virtual:shared-modules' ? `\0${id}` : undefined),
  load(id) {
    if (id !== '\0virtual:shared-modules') return undefined;
    const names = readJson('shared-packages.json');
    const packageOf = (name) => name.split('/').slice(0, name.startsWith('@') ? 2 : 1).join('/');
    const version = (name) => readJson(`node_modules/${packageOf(name)}/package.json`).version;
    const imports = names.map((name, i) => `import * as m${i} from ${JSON.stringify(name)};`);
    const entries = names.map((name, i) => `[${JSON.stringify(name)}, ${JSON.stringify(version(name))}, m${i}]`);
    // A function, since plugin-system imports this module while it is itself still being set up.
    return `${imports.join('\n')}\nexport default () => [${entries.join(', ')}];`;
  },
};

const server = process.env.PERSES_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [replacements, sharedModules, react()],
  // Relative addresses: index.html carries <base href>, which the server sets to its api_prefix.
  base: './',
  // The icons' CommonJS files come without their default export when an ES module imports them.
  resolve: { alias: [{ find: /^mdi-material-ui\/(?=[A-Z])/, replacement: 'mdi-material-ui/esm/' }] },
  define: { global: 'globalThis' },
  build: { outDir: 'dist/app', chunkSizeWarningLimit: 4000, reportCompressedSize: false, target: 'es2022', rolldownOptions: { checks: { eval: false } } },
  server: { proxy: { '/api': server, '/proxy': server, '/plugins': server } },
});
