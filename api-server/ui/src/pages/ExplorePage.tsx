import { Box, MenuItem, TextField } from '@mui/material';
import type { ProjectResource } from '@perses-dev/core';
import { DatasourceStoreProvider, VariableProvider } from '@perses-dev/dashboards';
import { ExploreManager, ExplorerManagerProviderWithQueryParams } from '@perses-dev/explore';
import {
  PluginRegistry,
  ProjectStoreProvider,
  TimeRangeProviderWithQueryParams,
  useInitialRefreshInterval,
  useInitialTimeRange,
  useProjectStore,
} from '@perses-dev/plugin-system';
import { useQuery } from '@tanstack/react-query';
import { datasourceApi } from '../api/datasources';
import { listProjects } from '../api/resources';
import { useTitle } from '../components/use-title';
import { defaultPluginKinds, pluginLoader } from '../plugins/loader';

/** The project store's word for "no project". */
const NONE = 'none';

function ProjectPicker() {
  const { project, setProject } = useProjectStore();
  const { data = [] } = useQuery(['projects'], listProjects);
  const names = data.map(({ metadata }) => metadata.name);
  const { name } = project.metadata;
  return (
    <TextField select label="Project" value={name === NONE || names.includes(name) ? name : NONE} sx={{ minWidth: 200, bgcolor: 'background.paper' }}
      onChange={(e) => setProject({ kind: 'Project', metadata: { name: e.target.value } } as ProjectResource)}>
      <MenuItem value={NONE}>Global datasources</MenuItem>
      {names.map((option) => <MenuItem key={option} value={option}>{option}</MenuItem>)}
    </TextField>
  );
}

// Put together here, since ViewExplore does not tell its datasource store about the project.
function Explore() {
  const { name } = useProjectStore().project.metadata;
  const range = useInitialTimeRange('1h');
  const refresh = useInitialRefreshInterval('0s');
  return (
    <DatasourceStoreProvider key={name} datasourceApi={datasourceApi} projectName={name === NONE ? undefined : name}>
      <TimeRangeProviderWithQueryParams initialTimeRange={range} initialRefreshInterval={refresh}>
        <VariableProvider>
          <Box component="main" sx={{ p: 2, flexGrow: 1, overflow: 'auto', bgcolor: 'background.default' }}>
            <ExplorerManagerProviderWithQueryParams>
              <ExploreManager exploreTitleComponent={<ProjectPicker />} />
            </ExplorerManagerProviderWithQueryParams>
          </Box>
        </VariableProvider>
      </TimeRangeProviderWithQueryParams>
    </DatasourceStoreProvider>
  );
}

export default function ExplorePage() {
  useTitle('Explore');
  return (
    <ProjectStoreProvider enabledURLParams>
      <PluginRegistry pluginLoader={pluginLoader} defaultPluginKinds={defaultPluginKinds}>
        <Explore />
      </PluginRegistry>
    </ProjectStoreProvider>
  );
}
