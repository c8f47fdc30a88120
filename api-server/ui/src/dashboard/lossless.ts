// The editor of these packages knows the fields of Perses 0.52 and hands back only those. A dashboard may hold more
// (annotations, links, timezone, fields of versions to come): here they are put back.
import type { DashboardResource } from '@perses-dev/core';

type Fields = Record<string, unknown>;

const KNOWN = {
  spec: ['display', 'panels', 'layouts', 'variables', 'duration', 'refreshInterval', 'datasources', 'ttl'],
  panel: ['display', 'plugin', 'queries', 'links'],
  layout: ['display', 'items', 'repeatVariable'],
  item: ['x', 'y', 'width', 'height', 'content'],
};

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);
const asFields = (value: unknown): Fields => (isFields(value) ? value : {});
const asList = (value: unknown): Fields[] => (Array.isArray(value) ? value.filter(isFields) : []);

/** `edited` plus what `base` has beyond the known names. */
function withUnknown(base: unknown, edited: Fields, known: string[]): Fields {
  const unknown = Object.entries(asFields(base)).filter(([name]) => !known.includes(name));
  return { ...Object.fromEntries(unknown), ...edited };
}

const refOf = (item: Fields) => String(asFields(item.content).$ref);
const itemsOf = (layout: Fields) => asList(asFields(layout.spec).items);

/** Groups and their items carry no name, so they are recognised by the panels that they show. */
function restoreLayouts(base: Fields[], edited: Fields[]): Fields[] {
  const items = new Map(base.flatMap(itemsOf).map((item) => [refOf(item), item]));
  const groups = new Map(base.flatMap((layout) => itemsOf(layout).map((item) => [refOf(item), layout] as const)));
  return edited.map((layout) => {
    const own = itemsOf(layout);
    const before = asFields(own.map((item) => groups.get(refOf(item))).find(Boolean));
    const spec = withUnknown(before.spec, asFields(layout.spec), KNOWN.layout);
    spec.items = own.map((item) => withUnknown(items.get(refOf(item)), item, KNOWN.item));
    return { ...withUnknown(before, layout, ['kind', 'spec']), spec };
  });
}

function restorePanels(base: Fields, edited: Fields): Fields {
  const restored = Object.entries(edited).map(([key, panel]) => {
    const before = asFields(base[key]);
    if (panel === before || !isFields(panel)) return [key, panel];
    const spec = withUnknown(before.spec, asFields(panel.spec), KNOWN.panel);
    return [key, { ...withUnknown(before, panel, ['kind', 'spec']), spec }];
  });
  return Object.fromEntries(restored) as Fields;
}

/** The edited dashboard with every field of `base` that the editor does not know. */
export function restoreUnknown<T extends { spec: object }>(base: T, edited: T): T {
  const before = base.spec as Fields;
  const after = edited.spec as Fields;
  const spec = withUnknown(before, after, KNOWN.spec);
  if (Array.isArray(after.layouts)) spec.layouts = restoreLayouts(asList(before.layouts), asList(after.layouts));
  if (isFields(after.panels)) spec.panels = restorePanels(asFields(before.panels), after.panels);
  return { ...edited, spec };
}

/** True when the dashboard has groups of a kind that this editor would break (tabs): such a one is only shown. */
export const hasForeignLayouts = ({ spec }: DashboardResource) => asList(spec.layouts).some(({ kind }) => kind !== 'Grid');

/** For showing only: each tab becomes a group with the tab's name. */
export function flattenLayouts(dashboard: DashboardResource): DashboardResource {
  const layouts = asList(dashboard.spec.layouts).flatMap((layout) => {
    if (layout.kind === 'Grid') return [layout];
    return asList(asFields(layout.spec).tabs).map((tab) => ({
      kind: 'Grid',
      spec: { display: { title: String(tab.name ?? ''), collapse: { open: true } }, items: asList(tab.items) },
    }));
  });
  return { ...dashboard, spec: { ...dashboard.spec, layouts: layouts as unknown as DashboardResource['spec']['layouts'] } };
}
