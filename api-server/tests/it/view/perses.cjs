// What Perses' Prometheus plugin asks, by its own code: cases on standard input, one answer each on standard output.
// Argument: the folder with the installed packages of the web UI (`api-server/ui`); NODE_PATH: those that plugins share with it.
const Module = require('node:module');
const path = require('node:path');
const fs = require('node:fs');

// What only a browser needs.
const load = Module._load;
Module._load = (name, ...rest) => (/\.css$|^@module-federation\/enhanced/.test(name) ? {} : load(name, ...rest));
const core = require('@perses-dev/core');
const lib = path.join(process.argv[2], 'plugins/node_modules/@perses-dev/prometheus-plugin/lib/cjs');
const { getTimeSeriesData } = require(path.join(lib, 'plugins/prometheus-time-series-query/get-time-series-data.js'));
console.warn = () => {};

async function ask({ spec, scrapeInterval, start, end, width, step, offset, mode, variables }) {
  Date.prototype.getTimezoneOffset = () => offset;
  const timeRange = { start: new Date(start), end: new Date(end) };
  const length = end - start;
  const builtin = {
    __from: String(start),
    __to: String(end),
    __range: core.formatDuration(core.intervalToPrometheusDuration(timeRange)),
    __range_s: (length / 1000).toString(),
    __range_ms: length.toString(),
    __dashboard: 'd',
    __project: 'p',
    __interval: '$__interval',
    __interval_ms: '$__interval_ms',
    __rate_interval: '$__rate_interval',
  };
  const variableState = {};
  for (const [name, value] of Object.entries({ ...variables, ...builtin })) variableState[name] = { value, loading: false };
  const suggestedStepMs = step ?? (width === null ? 0 : core.getSuggestedStepMs(timeRange, width));
  let sent;
  const query = (params) => {
    sent = Object.fromEntries(Object.entries(params).map(([name, value]) => [name, value.toString()]));
    return { status: 'success' };
  };
  const context = {
    timeRange,
    variableState,
    suggestedStepMs,
    mode,
    datasourceStore: {
      listDatasourceSelectItems: async () => [],
      getDatasource: async () => ({ plugin: { spec: { scrapeInterval: scrapeInterval ?? undefined } } }),
      getDatasourceClient: async () => ({ instantQuery: query, rangeQuery: query }),
    },
  };
  try {
    await getTimeSeriesData({ ...spec, minStep: spec.minStep ?? undefined }, context);
  } catch {
    return 'error';
  }
  return sent ?? 'nothing';
}

(async () => {
  const answers = [];
  for (const one of JSON.parse(fs.readFileSync(0, 'utf8'))) answers.push(await ask(one));
  process.stdout.write(JSON.stringify(answers));
})();
