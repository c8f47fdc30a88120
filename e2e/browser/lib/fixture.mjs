// A project of the tests' own: a datasource and a dashboard over what every Prometheus says of itself.
import { randomBytes } from 'node:crypto';
import { call, signIn, until } from './api.mjs';
import { PROMETHEUS } from './env.mjs';

export const PROJECT = `browser-${randomBytes(4).toString('hex')}`;
export const DASHBOARD = 'overview';

const ENDPOINTS = [
  ['query', 'POST'], ['query_range', 'POST'], ['labels', 'POST'], ['series', 'POST'], ['parse_query', 'POST'],
  ['metadata', 'GET'], ['label/([a-zA-Z0-9_-]+)/values', 'GET'],
];

const query = (expression, seriesNameFormat) => ({
  kind: 'TimeSeriesQuery',
  spec: { plugin: { kind: 'PrometheusTimeSeriesQuery', spec: { query: expression, ...(seriesNameFormat && { seriesNameFormat }) } } },
});
const panel = (name, kind, spec, ...queries) => ({ kind: 'Panel', spec: { display: { name }, plugin: { kind, spec }, queries } });
const item = (x, y, width, height, key, more) => ({ x, y, width, height, content: { $ref: `#/spec/panels/${key}` }, ...more });

/** Fields that the packages of the UI do not know; saving must keep every one of them. */
export const UNKNOWN = {
  timezone: 'Europe/Vienna',
  links: [{ name: 'Runbook', url: 'https://runbook.invalid/', targetBlank: true }],
  annotations: [{ display: { name: 'Deployments' }, plugin: { kind: 'StaticAnnotation', spec: {} } }],
  fieldOfAVersionToCome: { nested: [1, { two: true }] },
};

export function dashboard() {
  const rate = panel('HTTP requests', 'TimeSeriesChart', { legend: { position: 'bottom', mode: 'list' } },
    query('sum by (handler) (prometheus_http_requests_total{job=~"$job"})', '{{handler}}'));
  rate.spec.fieldOfAPanelToCome = 'kept';
  return {
    kind: 'Dashboard',
    metadata: { name: DASHBOARD, project: PROJECT },
    spec: {
      display: { name: 'Overview' },
      duration: '30m',
      refreshInterval: '0s',
      ...UNKNOWN,
      variables: [{
        kind: 'ListVariable',
        spec: {
          name: 'job', allowAllValue: true, allowMultiple: true, defaultValue: '$__all',
          plugin: { kind: 'PrometheusLabelValuesVariable', spec: { labelName: 'job', matchers: ['up'] } },
        },
      }],
      panels: {
        rate,
        series: panel('Series', 'StatChart', { calculation: 'last-number', sparkline: {} }, query('prometheus_tsdb_head_series')),
        up: panel('Targets up', 'GaugeChart', { calculation: 'last-number', format: { unit: 'percent-decimal' }, max: 1 }, query('sum(up) / count(up)')),
        memory: panel('Memory', 'TimeSeriesChart', { yAxis: { format: { unit: 'bytes' } } }, query('process_resident_memory_bytes', '{{instance}}')),
        bars: panel('Samples by job', 'BarChart', { calculation: 'last-number' }, query('scrape_samples_scraped', '{{job}}')),
        table: panel('Scrapes', 'TimeSeriesTable', {}, query('up')),
        text: panel('About', 'Markdown', { text: '## Prometheus\nWhat it says of **itself**.\n\n- charts are plugins\n- data through the proxy' }),
      },
      layouts: [
        { kind: 'Grid', spec: { display: { title: 'Traffic', collapse: { open: true } }, items: [item(0, 0, 12, 8, 'rate', { fieldOfAnItemToCome: 7 }), item(12, 0, 6, 8, 'series'), item(18, 0, 6, 8, 'up')] } },
        { kind: 'Grid', spec: { display: { title: 'Process', collapse: { open: true } }, items: [item(0, 0, 8, 8, 'memory'), item(8, 0, 8, 8, 'bars'), item(16, 0, 8, 4, 'text'), item(16, 4, 8, 4, 'table')] } },
      ],
    },
  };
}

/** Groups of a kind that the packages of the UI do not know. */
export const TABBED = 'tabbed';
export function tabbed() {
  const { spec } = dashboard();
  return {
    kind: 'Dashboard',
    metadata: { name: TABBED, project: PROJECT },
    spec: {
      display: { name: 'Tabbed' },
      duration: '30m',
      panels: { series: spec.panels.series, text: spec.panels.text },
      layouts: [{
        kind: 'Tabs',
        spec: { tabs: [{ name: 'First tab', items: [item(0, 0, 12, 6, 'series')] }, { name: 'Second tab', items: [item(0, 0, 12, 6, 'text')] }] },
      }],
    },
  };
}

export const path = `/api/v1/projects/${PROJECT}/dashboards/${DASHBOARD}`;

export async function create() {
  await until('the server', signIn);
  await call('POST', '/api/v1/projects', { kind: 'Project', metadata: { name: PROJECT }, spec: { display: { name: 'Browser tests' } } });
  await call('POST', `/api/v1/projects/${PROJECT}/datasources`, {
    kind: 'Datasource',
    metadata: { name: 'prometheus', project: PROJECT },
    spec: {
      default: true,
      plugin: {
        kind: 'PrometheusDatasource',
        spec: {
          scrapeInterval: '15s',
          proxy: { kind: 'HTTPProxy', spec: { url: PROMETHEUS, allowedEndpoints: ENDPOINTS.map(([end, method]) => ({ endpointPattern: `/api/v1/${end}`, method })) } },
        },
      },
    },
  });
  for (const body of [dashboard(), tabbed()]) await call('POST', `/api/v1/projects/${PROJECT}/dashboards`, body);
  // A Prometheus that has only just started knows nothing yet, and a line needs two points.
  const metric = encodeURIComponent('count_over_time(up[10m]) >= 3');
  const ask = `/proxy/projects/${PROJECT}/datasources/prometheus/api/v1/query`;
  await until('data in Prometheus', async () => {
    const response = await call('POST', `${ask}?query=${metric}`);
    return response.data.result.length > 0;
  }, 90);
}

export const remove = () => call('DELETE', `/api/v1/projects/${PROJECT}`);
