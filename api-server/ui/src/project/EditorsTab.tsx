// Variables or datasources of a project: a list, and the editors that the plugin system brings along.
import { Button, Stack } from '@mui/material';
import { Drawer, ErrorAlert, ErrorBoundary, useSnackbar } from '@perses-dev/components';
import type { DatasourceResource, DatasourceSpec, VariableDefinition, VariableResource } from '@perses-dev/core';
import { DatasourceStoreProvider, VariableProvider } from '@perses-dev/dashboards';
import { DatasourceEditorForm, PluginRegistry, TimeRangeProvider, ValidationProvider, VariableEditorForm } from '@perses-dev/plugin-system';
import type { DatasourceDefinition } from '@perses-dev/core';
import { useQuery } from '@tanstack/react-query';
import Plus from 'mdi-material-ui/Plus';
import { useState } from 'react';
import { datasourceApi } from '../api/datasources';
import { deleteResource, listResources, refetchLists, saveResource } from '../api/resources';
import { DeleteDialog } from '../components/DeleteDialog';
import { ResourceTable } from '../components/ResourceTable';
import { defaultPluginKinds, pluginLoader } from '../plugins/loader';
import { definitionOf } from './variables';

type Resource = DatasourceResource | VariableResource;
type Kind = Resource['kind'];

interface EditorsTabProps {
  kind: Kind;
  project: string;
  canWrite: boolean;
}

const noop = () => undefined;

// No createdAt and updatedAt, though the type has them: the server sets them and refuses empty ones.
const draft = (kind: Kind, project: string) =>
  ({
    kind,
    metadata: { name: '', project },
    spec:
      kind === 'Datasource'
        ? { default: false, plugin: { kind: 'PrometheusDatasource', spec: {} } }
        : { kind: 'TextVariable', spec: { name: '', value: '' } },
  }) as unknown as Resource;

function detailOf(resource: Resource): string {
  if (resource.kind === 'Variable') return resource.spec.kind === 'TextVariable' ? 'Text' : `List, ${resource.spec.spec.plugin.kind}`;
  return `${resource.spec.plugin.kind}${resource.spec.default ? ', default' : ''}`;
}

interface EditorProps {
  edited: Resource;
  canWrite: boolean;
  onSave: (name: string, spec: DatasourceSpec | VariableDefinition) => void;
  onClose: () => void;
}

function Editor({ edited, canWrite, onSave, onClose }: EditorProps) {
  const isNew = edited.metadata.name === '';
  const action = isNew ? 'create' : canWrite ? 'update' : 'read';
  const form = { action, isDraft: false, isReadonly: !canWrite, onClose, onActionChange: noop } as const;
  if (edited.kind === 'Datasource') {
    return (
      <DatasourceEditorForm {...form} initialDatasourceDefinition={{ name: edited.metadata.name, spec: edited.spec }}
        onSave={({ name, spec }: DatasourceDefinition) => onSave(name, spec)} />
    );
  }
  // The preview of a variable's values runs queries, hence the three providers.
  return (
    <DatasourceStoreProvider datasourceApi={datasourceApi} projectName={edited.metadata.project}>
      <TimeRangeProvider timeRange={{ pastDuration: '1h' }} refreshInterval="0s">
        <VariableProvider>
          <VariableEditorForm {...form} initialVariableDefinition={definitionOf(edited)}
            onSave={(definition) => onSave(definition.spec.name, definition)} />
        </VariableProvider>
      </TimeRangeProvider>
    </DatasourceStoreProvider>
  );
}

export default function EditorsTab({ kind, project, canWrite }: EditorsTabProps) {
  const { successSnackbar, exceptionSnackbar } = useSnackbar();
  const { data } = useQuery(['resources', kind, project], () => listResources<Resource>(kind, project), { keepPreviousData: false });
  const [edited, setEdited] = useState<Resource>();
  const [deleting, setDeleting] = useState<string>();
  const close = () => setEdited(undefined);

  async function save(resource: Resource, name: string, spec: DatasourceSpec | VariableDefinition) {
    try {
      const isNew = resource.metadata.name === '';
      await saveResource({ ...resource, metadata: { ...resource.metadata, name }, spec } as Resource, isNew);
      successSnackbar(`${kind} ${name} saved`);
      close();
      await refetchLists();
    } catch (error) {
      exceptionSnackbar(error);
    }
  }

  return (
    <PluginRegistry pluginLoader={pluginLoader} defaultPluginKinds={defaultPluginKinds}>
      <ValidationProvider>
        {canWrite && (
          <Stack direction="row" justifyContent="flex-end" sx={{ mb: 1.5 }}>
            <Button variant="contained" startIcon={<Plus />} onClick={() => setEdited(draft(kind, project))}>New {kind.toLowerCase()}</Button>
          </Stack>
        )}
        {data && (
          <ResourceTable
            empty={`No ${kind.toLowerCase()}s yet`}
            onDelete={canWrite ? setDeleting : undefined}
            rows={[...data]
              .sort((a, b) => a.metadata.name.localeCompare(b.metadata.name, undefined, { numeric: true }))
              .map((resource) => ({
                name: resource.metadata.name,
                detail: detailOf(resource),
                updatedAt: resource.metadata.updatedAt,
                open: () => setEdited(resource),
              }))}
          />
        )}
        <Drawer isOpen={edited !== undefined} onClose={close}>
          <ErrorBoundary FallbackComponent={ErrorAlert}>
            {edited && <Editor edited={edited} canWrite={canWrite} onClose={close} onSave={(name, spec) => void save(edited, name, spec)} />}
          </ErrorBoundary>
        </Drawer>
        {deleting !== undefined && (
          <DeleteDialog what={`${kind.toLowerCase()} ${deleting}`} onClose={() => setDeleting(undefined)}
            onDelete={async () => {
              await deleteResource(kind, project, deleting);
              await refetchLists();
            }} />
        )}
      </ValidationProvider>
    </PluginRegistry>
  );
}
