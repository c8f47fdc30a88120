// Module-federation host: where remote plugins come from and which packages they share with this app.
// Stands in for plugin-system's own PluginRuntime (see vite.config.mjs), so it exports the same two functions.
import { createInstance } from '@module-federation/runtime';
import type { ModuleFederation } from '@module-federation/runtime';
import sharedModules from 'virtual:shared-modules';

type RemoteModule = Record<string, unknown>;
interface PluginRef {
  moduleName: string;
  name: string;
  baseURL?: string;
}

// Remotes are webpack builds: they find a default export only on an object marked __esModule, which the
// namespace objects of this build are not. `lib` (not `get`) makes the shared copy count as loaded, and a loaded
// copy wins over the copies that each plugin carries, whatever their versions.
function share(version: string, namespace: object) {
  let lib: unknown;
  return {
    version,
    lib: () => (lib ??= Object.defineProperty({ ...namespace }, '__esModule', { value: true })),
    shareConfig: { singleton: true, requiredVersion: `^${version}` },
  };
}

let host: ModuleFederation | undefined;

function runtime(): ModuleFederation {
  host ??= createInstance({
    name: 'perses-ui-host',
    remotes: [],
    shared: Object.fromEntries(sharedModules().map(([name, version, namespace]) => [name, share(version, namespace)])),
  });
  return host;
}

/** Loads one plugin of a plugin module; answers the remote module, whose export of that name is the plugin. */
export async function loadPlugin(moduleName: string, pluginName: string, baseURL = '/plugins'): Promise<RemoteModule | null> {
  const federation = runtime();
  if (!federation.options.remotes.some((remote) => remote.name === moduleName)) {
    federation.registerRemotes([{ name: moduleName, alias: moduleName, entry: `${baseURL}/${moduleName}/mf-manifest.json` }]);
  }
  return federation.loadRemote<RemoteModule>(`${moduleName}/${pluginName}`);
}

export function usePluginRuntime({ plugin }: { plugin: PluginRef }) {
  return {
    pluginRuntime: runtime(),
    loadPlugin: () => loadPlugin(plugin.moduleName, plugin.name, plugin.baseURL),
  };
}
