import { Box, Button, Chip, InputAdornment, Link, Stack, TextField, Typography } from '@mui/material';
import type { DashboardResource, ProjectResource } from '@perses-dev/core';
import { useQuery } from '@tanstack/react-query';
import FolderOutline from 'mdi-material-ui/FolderOutline';
import Magnify from 'mdi-material-ui/Magnify';
import Plus from 'mdi-material-ui/Plus';
import { useMemo, useState } from 'react';
import { Link as RouterLink, useNavigate } from 'react-router-dom';
import { byTitle, createDashboard, createProject, listAllDashboards, listProjects, refetchLists, titleOf } from '../api/resources';
import { useSession } from '../api/session';
import { CreateDialog } from '../components/CreateDialog';
import { Page } from '../components/Page';
import { ResourceTable } from '../components/ResourceTable';
import { useTitle } from '../components/use-title';

/** So that a project with hundreds of dashboards does not hide the others. */
const SHOWN_PER_PROJECT = 8;

function groupByProject(dashboards: DashboardResource[]): Map<string, DashboardResource[]> {
  const groups = new Map<string, DashboardResource[]>();
  for (const dashboard of dashboards) {
    const { project } = dashboard.metadata;
    const group = groups.get(project);
    if (group) group.push(dashboard);
    else groups.set(project, [dashboard]);
  }
  return groups;
}

function ProjectSection({ project, dashboards, showAll }: { project: ProjectResource; dashboards: DashboardResource[]; showAll: boolean }) {
  const { name } = project.metadata;
  const path = `/projects/${encodeURIComponent(name)}`;
  const shown = showAll ? dashboards : dashboards.slice(0, SHOWN_PER_PROJECT);
  return (
    <Box component="section" aria-label={`Project ${name}`} sx={{ mb: 3 }}>
      <Stack direction="row" alignItems="center" gap={1} sx={{ mb: 1 }}>
        <FolderOutline fontSize="small" color="action" />
        <Typography variant="h2">
          <Link component={RouterLink} to={path} color="text.primary" underline="hover">{titleOf(project)}</Link>
        </Typography>
        <Chip label={dashboards.length} size="small" />
        {project.spec?.display?.description && <Typography color="text.secondary" noWrap>{project.spec.display.description}</Typography>}
      </Stack>
      <ResourceTable
        empty="No dashboards yet"
        rows={shown.map((dashboard) => ({
          name: dashboard.metadata.name,
          title: titleOf(dashboard),
          tags: (dashboard.metadata as { tags?: string[] }).tags,
          updatedAt: dashboard.metadata.updatedAt,
          open: `${path}/dashboards/${encodeURIComponent(dashboard.metadata.name)}`,
        }))}
      />
      {shown.length < dashboards.length && (
        <Button component={RouterLink} to={path} size="small" sx={{ mt: 0.5 }}>Show all {dashboards.length}</Button>
      )}
    </Box>
  );
}

export function HomePage() {
  useTitle(undefined);
  const navigate = useNavigate();
  const session = useSession();
  const projects = useQuery(['projects'], listProjects);
  const dashboards = useQuery(['dashboards'], listAllDashboards);
  const [search, setSearch] = useState('');
  const [creating, setCreating] = useState<'project' | 'dashboard'>();

  const sections = useMemo(() => {
    const wanted = search.trim().toLowerCase();
    const has = (text: string) => text.toLowerCase().includes(wanted);
    const groups = groupByProject(dashboards.data ?? []);
    return [...(projects.data ?? [])]
      .sort(byTitle)
      .map((project) => {
        const all = (groups.get(project.metadata.name) ?? []).sort(byTitle);
        const isFound = (one: ProjectResource | DashboardResource) => has(one.metadata.name) || has(titleOf(one));
        const isProjectFound = isFound(project);
        return { project, isProjectFound, dashboards: isProjectFound ? all : all.filter(isFound) };
      })
      .filter(({ isProjectFound, dashboards: found }) => isProjectFound || found.length > 0);
  }, [projects.data, dashboards.data, search]);

  const canWrite = session.data?.readonly === false;
  const names = projects.data?.map(({ metadata }) => metadata.name).sort() ?? [];
  return (
    <Page
      title="Dashboards"
      error={projects.error ?? dashboards.error}
      actions={
        <>
          <TextField placeholder="Search projects and dashboards" value={search} onChange={(e) => setSearch(e.target.value)} sx={{ width: 280, bgcolor: 'background.paper' }}
            slotProps={{
              htmlInput: { 'aria-label': 'Search' },
              input: { startAdornment: <InputAdornment position="start"><Magnify fontSize="small" /></InputAdornment> },
            }} />
          {canWrite && <Button variant="outlined" startIcon={<Plus />} onClick={() => setCreating('project')}>New project</Button>}
          {canWrite && <Button variant="contained" startIcon={<Plus />} disabled={names.length === 0} onClick={() => setCreating('dashboard')}>New dashboard</Button>}
        </>
      }
    >
      {projects.data && dashboards.data && sections.map(({ project, dashboards: shown }) => (
        <ProjectSection key={project.metadata.name} project={project} dashboards={shown} showAll={search !== ''} />
      ))}
      {projects.data?.length === 0 && <ResourceTable rows={[]} empty="No projects yet. Create one to start." />}
      {search && sections.length === 0 && <ResourceTable rows={[]} empty={`Nothing matches "${search}".`} />}
      {creating === 'project' && (
        <CreateDialog title="New project" onClose={() => setCreating(undefined)}
          onCreate={async (name, title) => {
            await createProject(name, title);
            await refetchLists();
          }} />
      )}
      {creating === 'dashboard' && (
        <CreateDialog title="New dashboard" projects={names} onClose={() => setCreating(undefined)}
          onCreate={async (name, title, project) => {
            const { metadata } = await createDashboard(project, name, title);
            void refetchLists();
            navigate(`/projects/${encodeURIComponent(metadata.project)}/dashboards/${encodeURIComponent(metadata.name)}`, { state: { edit: true } });
          }} />
      )}
    </Page>
  );
}
