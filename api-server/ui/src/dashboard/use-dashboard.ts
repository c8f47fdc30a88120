// Stands in for the dashboards package's own hook (see vite.config.mjs), through which the editor, its JSON dialog,
// its save button and its search for unsaved changes read and write the dashboard. So none of them loses a field.
import { useDashboard as useKnownFields } from 'perses-dashboards-use-dashboard';
import { useCallback, useMemo } from 'react';
import { useBase } from './base';
import type { AnyDashboard } from './base';
import { restoreUnknown } from './lossless';

export function useDashboard(): { dashboard: AnyDashboard; setDashboard: (dashboard: AnyDashboard) => void } {
  const { dashboard: known, setDashboard: setKnown } = useKnownFields();
  const { base, setBase } = useBase();
  const dashboard = useMemo(() => (base ? restoreUnknown(base, known) : known), [base, known]);
  const setDashboard = useCallback(
    (changed: AnyDashboard) => {
      setBase(changed);
      setKnown(changed);
    },
    [setBase, setKnown]
  );
  return { dashboard, setDashboard };
}
