import type { PluginLoader, PluginModuleResource } from '@perses-dev/plugin-system';
import { getJson } from '../api/http';
import { loadPlugin } from './runtime';

/**
 * Lists one entry per plugin instead of one per module: the registry imports whole modules, and the
 * Prometheus module alone would bring its explorer (a code editor and more) into every dashboard.
 */
export const pluginLoader: PluginLoader = {
  async getInstalledPlugins() {
    const modules = await getJson<PluginModuleResource[]>('/api/v1/plugins');
    return modules.flatMap((m) => m.spec.plugins.map((plugin) => ({ ...m, spec: { ...m.spec, plugins: [plugin] } })));
  },
  async importPluginModule({ metadata, spec }) {
    const loaded = await Promise.all(spec.plugins.map((plugin) => loadPlugin(metadata.name, plugin.spec.name)));
    return Object.assign({}, ...loaded) as Record<string, unknown>;
  },
};

/** What new panels and queries start with. */
export const defaultPluginKinds = { Panel: 'TimeSeriesChart', TimeSeriesQuery: 'PrometheusTimeSeriesQuery' };
