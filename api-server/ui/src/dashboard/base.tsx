import type { DashboardResource, EphemeralDashboardResource } from '@perses-dev/core';
import { createContext, useContext, useMemo, useState } from 'react';
import type { ReactNode } from 'react';

export type AnyDashboard = DashboardResource | EphemeralDashboardResource;

interface Base {
  base?: AnyDashboard;
  setBase: (dashboard: AnyDashboard) => void;
}

const BaseContext = createContext<Base>({ setBase: () => undefined });

/** Remembers the whole dashboard beside the editor's store, which keeps only the fields that it knows. */
export function BaseProvider({ dashboard, children }: { dashboard: AnyDashboard; children: ReactNode }) {
  const [base, setBase] = useState(dashboard);
  const value = useMemo(() => ({ base, setBase }), [base]);
  return <BaseContext.Provider value={value}>{children}</BaseContext.Provider>;
}

export const useBase = () => useContext(BaseContext);
