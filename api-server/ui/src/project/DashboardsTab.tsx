import { Button, Stack } from '@mui/material';
import { useQuery } from '@tanstack/react-query';
import Plus from 'mdi-material-ui/Plus';
import { useState } from 'react';
import { useNavigate } from 'react-router-dom';
import { byTitle, createDashboard, deleteResource, listDashboards, refetchLists, titleOf } from '../api/resources';
import { CreateDialog } from '../components/CreateDialog';
import { DeleteDialog } from '../components/DeleteDialog';
import { ResourceTable } from '../components/ResourceTable';

export function DashboardsTab({ project, canWrite }: { project: string; canWrite: boolean }) {
  const navigate = useNavigate();
  const { data } = useQuery(['dashboards', project], () => listDashboards(project), { keepPreviousData: false });
  const [creating, setCreating] = useState(false);
  const [deleting, setDeleting] = useState<string>();
  const pathOf = (name: string) => `/projects/${encodeURIComponent(project)}/dashboards/${encodeURIComponent(name)}`;

  return (
    <>
      {canWrite && (
        <Stack direction="row" justifyContent="flex-end" sx={{ mb: 1.5 }}>
          <Button variant="contained" startIcon={<Plus />} onClick={() => setCreating(true)}>New dashboard</Button>
        </Stack>
      )}
      {data && (
        <ResourceTable
          empty="No dashboards yet"
          onDelete={canWrite ? setDeleting : undefined}
          rows={[...data]
            .sort(byTitle)
            .map((dashboard) => ({
              name: dashboard.metadata.name,
              title: titleOf(dashboard),
              tags: (dashboard.metadata as { tags?: string[] }).tags,
              updatedAt: dashboard.metadata.updatedAt,
              open: pathOf(dashboard.metadata.name),
            }))}
        />
      )}
      {creating && (
        <CreateDialog title="New dashboard" onClose={() => setCreating(false)}
          onCreate={async (name, title) => {
            const { metadata } = await createDashboard(project, name, title);
            void refetchLists();
            navigate(pathOf(metadata.name), { state: { edit: true } });
          }} />
      )}
      {deleting !== undefined && (
        <DeleteDialog what={`dashboard ${deleting}`} onClose={() => setDeleting(undefined)}
          onDelete={async () => {
            await deleteResource('Dashboard', project, deleting);
            await refetchLists();
          }} />
      )}
    </>
  );
}
