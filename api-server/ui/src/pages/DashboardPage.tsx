import { Alert, Box, Breadcrumbs, Link, Typography } from '@mui/material';
import { ErrorAlert, ErrorBoundary, useSnackbar } from '@perses-dev/components';
import { getResourceDisplayName } from '@perses-dev/core';
import type { DashboardResource, EphemeralDashboardResource, VariableResource } from '@perses-dev/core';
import { ViewDashboard } from '@perses-dev/dashboards';
import { PluginRegistry, UsageMetricsProvider, ValidationProvider } from '@perses-dev/plugin-system';
import { useQuery } from '@tanstack/react-query';
import { useMemo } from 'react';
import { Link as RouterLink, useLocation, useParams } from 'react-router-dom';
import { datasourceApi } from '../api/datasources';
import { queryClient } from '../api/query-client';
import { getDashboard, listResources, saveResource } from '../api/resources';
import { useSession } from '../api/session';
import { useTitle } from '../components/use-title';
import { BaseProvider } from '../dashboard/base';
import { flattenLayouts, hasForeignLayouts } from '../dashboard/lossless';
import { defaultPluginKinds, pluginLoader } from '../plugins/loader';
import { definitionOf } from '../project/variables';

function Title({ dashboard }: { dashboard: DashboardResource }) {
  const { project } = dashboard.metadata;
  return (
    <Breadcrumbs sx={{ alignSelf: 'center' }}>
      <Link component={RouterLink} to="/" color="text.secondary" underline="hover">Dashboards</Link>
      <Link component={RouterLink} to={`/projects/${encodeURIComponent(project)}`} color="text.secondary" underline="hover">{project}</Link>
      <Typography component="h1" variant="h2" color="text.primary">{getResourceDisplayName(dashboard)}</Typography>
    </Breadcrumbs>
  );
}

function useProjectVariables(project: string) {
  const { data, error } = useQuery(['variables', project], () => listResources<VariableResource>('Variable', project), { keepPreviousData: false });
  const external = useMemo(() => data && [{ source: 'project', definitions: data.map(definitionOf) }], [data]);
  return { external, error };
}

export default function DashboardPage() {
  const { project = '', name = '' } = useParams();
  const location = useLocation();
  const session = useSession();
  const { successSnackbar, exceptionSnackbar } = useSnackbar();
  const variables = useProjectVariables(project);
  const loaded = useQuery(['dashboard', project, name], () => getDashboard(project, name), { keepPreviousData: false, cacheTime: 0 });

  useTitle(loaded.data && getResourceDisplayName(loaded.data));

  async function save(edited: DashboardResource | EphemeralDashboardResource): Promise<DashboardResource> {
    try {
      const saved = await saveResource(edited as DashboardResource);
      queryClient.setQueryData(['dashboard', project, name], saved);
      void queryClient.invalidateQueries(['dashboards']);
      successSnackbar('Dashboard saved');
      return saved;
    } catch (error) {
      exceptionSnackbar(error);
      throw error;
    }
  }

  const error = loaded.error ?? variables.error;
  if (error instanceof Error) return <Alert severity="error" sx={{ m: 2 }}>{error.message}</Alert>;
  if (!loaded.data || !variables.external || !session.data) return null;
  const isForeign = hasForeignLayouts(loaded.data);
  const dashboard = isForeign ? flattenLayouts(loaded.data) : loaded.data;
  const startsEditing = (location.state as { edit?: boolean } | null)?.edit === true;
  return (
    <Box component="main" sx={{ flexGrow: 1, minHeight: 0, display: 'flex', flexDirection: 'column', bgcolor: 'background.default' }}>
      {isForeign && <Alert severity="info" sx={{ borderRadius: 0 }}>This dashboard has tabs, which this editor would lose. It is shown read-only.</Alert>}
      <PluginRegistry pluginLoader={pluginLoader} defaultPluginKinds={defaultPluginKinds}>
        <ValidationProvider>
          <ErrorBoundary FallbackComponent={ErrorAlert}>
            <UsageMetricsProvider project={project} dashboard={name}>
              <BaseProvider key={`${project}/${name}`} dashboard={dashboard}>
                <ViewDashboard
                  dashboardResource={dashboard}
                  datasourceApi={datasourceApi}
                  externalVariableDefinitions={variables.external}
                  dashboardTitleComponent={<Title dashboard={dashboard} />}
                  onSave={save}
                  isReadonly={isForeign || session.data.readonly}
                  isEditing={startsEditing && !isForeign && !session.data.readonly}
                  isVariableEnabled
                  isDatasourceEnabled
                  isInitialVariableSticky
                  isLeavingConfirmDialogEnabled
                  sx={{ minHeight: 0, flexGrow: 1 }}
                />
              </BaseProvider>
            </UsageMetricsProvider>
          </ErrorBoundary>
        </ValidationProvider>
      </PluginRegistry>
    </Box>
  );
}
