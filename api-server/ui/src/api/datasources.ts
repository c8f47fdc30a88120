// How the packages find datasources and reach them through the server's proxy.
import type { DatasourceResource, DatasourceSelector, GlobalDatasourceResource } from '@perses-dev/core';
import type { DatasourceApi } from '@perses-dev/dashboards';
import { HttpError, getJson } from './http';
import { queryClient } from './query-client';

type AnyDatasource = DatasourceResource | GlobalDatasourceResource;

const seg = encodeURIComponent;

// Every panel query resolves its datasource several times over, so the lists behind that are cached.
const cached = <T>(url: string) =>
  queryClient.fetchQuery({ queryKey: ['datasources', url], queryFn: () => getJson<T[]>(url), staleTime: 60_000 });
const ofProject = (project: string) => cached<DatasourceResource>(`/api/v1/projects/${seg(project)}/datasources`);
// Who may not read global datasources has none; those of the project work all the same.
const global = () =>
  cached<GlobalDatasourceResource>('/api/v1/globaldatasources').catch((reason: unknown) => {
    if (reason instanceof HttpError && reason.status === 403) return [];
    throw reason;
  });

const matches =
  ({ kind, name }: DatasourceSelector) =>
  (datasource: AnyDatasource) =>
    datasource.spec.plugin.kind === kind &&
    (name ? datasource.metadata.name.toLowerCase() === name.toLowerCase() : datasource.spec.default);
const ofKind = (kind?: string) => (datasource: AnyDatasource) => !kind || datasource.spec.plugin.kind === kind;

export const datasourceApi: DatasourceApi = {
  getDatasource: async (project, selector) => (await ofProject(project)).find(matches(selector)),
  getGlobalDatasource: async (selector) => (await global()).find(matches(selector)),
  listDatasources: async (project, kind) => (await ofProject(project)).filter(ofKind(kind)),
  listGlobalDatasources: async (kind) => (await global()).filter(ofKind(kind)),
  buildProxyUrl: ({ project, dashboard, name }) =>
    [
      '/proxy',
      project && `projects/${seg(project)}`,
      dashboard && `dashboards/${seg(dashboard)}`,
      `${project || dashboard ? 'datasources' : 'globaldatasources'}/${seg(name)}`,
    ]
      .filter(Boolean)
      .join('/'),
};

