// Projects, dashboards, variables and datasources over the Perses HTTP API.
import type { DashboardResource, DatasourceResource, ProjectResource, VariableResource } from '@perses-dev/core';
import { getJson, send } from './http';
import { queryClient } from './query-client';

const seg = encodeURIComponent;

export type ProjectScoped = DashboardResource | DatasourceResource | VariableResource;
export type ResourceKind = ProjectScoped['kind'];

const collection = (kind: ResourceKind, project: string) => `/api/v1/projects/${seg(project)}/${kind.toLowerCase()}s`;

export const listProjects = () => getJson<ProjectResource[]>('/api/v1/projects');
export const getProject = (name: string) => getJson<ProjectResource>(`/api/v1/projects/${seg(name)}`);
export const deleteProject = (name: string) => send<void>('DELETE', `/api/v1/projects/${seg(name)}`);
export const createProject = (name: string, title: string) =>
  send<ProjectResource>('POST', '/api/v1/projects', { kind: 'Project', metadata: { name }, spec: { display: { name: title } } });

/** Of the specs only `display.name`: a parameter of this server, which others pass over. */
const TITLES = '?metadata_only=true&display=true';
/** Every dashboard that the user may read, without its spec but for its title. */
export const listAllDashboards = () => getJson<DashboardResource[]>(`/api/v1/dashboards${TITLES}`);
export const listDashboards = (project: string) =>
  getJson<DashboardResource[]>(`${collection('Dashboard', project)}${TITLES}`);

/** What people call it. */
export const titleOf = ({ metadata, spec }: ProjectResource | DashboardResource) => spec?.display?.name || metadata.name;
export const byTitle = (a: ProjectResource | DashboardResource, b: ProjectResource | DashboardResource) =>
  titleOf(a).localeCompare(titleOf(b), undefined, { numeric: true });
export const getDashboard = (project: string, name: string) =>
  getJson<DashboardResource>(`${collection('Dashboard', project)}/${seg(name)}`);

export const createDashboard = (project: string, name: string, title: string) =>
  send<DashboardResource>('POST', collection('Dashboard', project), {
    kind: 'Dashboard',
    metadata: { name, project },
    spec: { display: { name: title }, duration: '1h', refreshInterval: '0s', variables: [], layouts: [], panels: {} },
  });

export const listResources = <T extends ProjectScoped>(kind: T['kind'], project: string) => getJson<T[]>(collection(kind, project));

export function saveResource<T extends ProjectScoped>(resource: T, isNew = false): Promise<T> {
  const { name, project } = resource.metadata;
  const path = collection(resource.kind, project);
  return isNew ? send<T>('POST', path, resource) : send<T>('PUT', `${path}/${seg(name)}`, resource);
}

export const deleteResource = (kind: ResourceKind, project: string, name: string) =>
  send<void>('DELETE', `${collection(kind, project)}/${seg(name)}`);

/** After a write: lists are shown again from the server. */
export const refetchLists = () => queryClient.invalidateQueries();
/** The same for what is shown next: the page on the screen would ask for what was just deleted. */
export const refetchLater = () => queryClient.invalidateQueries({ refetchType: 'none' });

/** An identifier from a title, within the server's rule for names. */
export const slug = (title: string) =>
  title
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9_.-]+/g, '-')
    .replace(/^[-.]+|[-.]+$/g, '')
    .slice(0, 75);
