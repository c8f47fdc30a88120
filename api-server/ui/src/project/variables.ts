import type { VariableDefinition, VariableResource } from '@perses-dev/core';

/** The server keeps the name of a variable in its metadata only; the packages read it from the spec. */
export function definitionOf({ metadata, spec }: VariableResource): VariableDefinition {
  const definition = structuredClone(spec);
  definition.spec.name ||= metadata.name;
  return definition;
}
