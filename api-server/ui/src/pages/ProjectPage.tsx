import { Breadcrumbs, Button, Link, Tab, Tabs, Typography } from '@mui/material';
import { useQuery } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { Link as RouterLink, useNavigate, useParams } from 'react-router-dom';
import { deleteProject, getProject, refetchLater } from '../api/resources';
import { useSession } from '../api/session';
import { DeleteDialog } from '../components/DeleteDialog';
import { Page } from '../components/Page';
import { useTitle } from '../components/use-title';
import { DashboardsTab } from '../project/DashboardsTab';

const EditorsTab = lazy(() => import('../project/EditorsTab'));

const TABS = ['dashboards', 'variables', 'datasources'];

export function ProjectPage() {
  const { project = '', tab = 'dashboards' } = useParams();
  const navigate = useNavigate();
  const session = useSession();
  const { data, error } = useQuery(['project', project], () => getProject(project), { keepPreviousData: false });
  const [deleting, setDeleting] = useState(false);
  const canWrite = session.data?.readonly === false;
  const path = `/projects/${encodeURIComponent(project)}`;
  const title = data?.spec?.display?.name || project;
  useTitle(title);

  return (
    <Page
      error={error}
      title={
        <Breadcrumbs component="span" sx={{ font: 'inherit' }}>
          <Link component={RouterLink} to="/" color="text.secondary" underline="hover" sx={{ font: 'inherit' }}>Dashboards</Link>
          <Typography component="span" color="text.primary" sx={{ font: 'inherit' }}>{title}</Typography>
        </Breadcrumbs>
      }
      actions={canWrite && data && <Button color="error" variant="outlined" onClick={() => setDeleting(true)}>Delete project</Button>}
    >
      <Tabs value={TABS.includes(tab) ? tab : 'dashboards'} sx={{ mb: 2, borderBottom: 1, borderColor: 'divider' }}>
        {TABS.map((name) => (
          <Tab key={name} value={name} label={name[0]?.toUpperCase() + name.slice(1)} component={RouterLink}
            to={name === 'dashboards' ? path : `${path}/${name}`} sx={{ textTransform: 'none' }} />
        ))}
      </Tabs>
      {data && (
        <Suspense fallback={null}>
          {tab === 'variables' && <EditorsTab key="variables" kind="Variable" project={project} canWrite={canWrite} />}
          {tab === 'datasources' && <EditorsTab key="datasources" kind="Datasource" project={project} canWrite={canWrite} />}
          {!['variables', 'datasources'].includes(tab) && <DashboardsTab project={project} canWrite={canWrite} />}
        </Suspense>
      )}
      {deleting && (
        <DeleteDialog what={`project ${title}`} consequence="All its dashboards, variables and datasources go with it."
          onClose={() => setDeleting(false)}
          onDelete={async () => {
            await deleteProject(project);
            await refetchLater();
            navigate('/');
          }} />
      )}
    </Page>
  );
}
