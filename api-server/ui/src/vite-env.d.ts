/// <reference types="vite/client" />

declare module 'virtual:shared-modules' {
  /** Name, installed version and namespace of every package that plugins share with this app. */
  const modules: () => [name: string, version: string, namespace: object][];
  export default modules;
}

/** The dashboards package's own hook, which src/dashboard/use-dashboard.ts wraps. */
declare module 'perses-dashboards-use-dashboard' {
  export { useDashboard } from '@perses-dev/dashboards';
}
