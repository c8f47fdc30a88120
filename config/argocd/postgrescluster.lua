-- Health of a PostgresCluster of Crunchy's operator for Argo CD. It has no condition that says that it is ready: every
-- instance set, and the pooler if there is one, is compared with what its spec asks for.
local health = { status = "Progressing", message = "the cluster is being made" }
local status = obj.status
if status == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "Crunchy's operator has not looked at the latest spec yet"
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local progressing = conditions.Progressing
if progressing ~= nil and progressing.status == "False" then
  if progressing.reason == "Paused" then
    return { status = "Suspended", message = progressing.message }
  end
  return { status = "Degraded", message = progressing.message }
end
local resize = conditions.PersistentVolumeResizeError
if resize ~= nil and resize.status == "True" then
  return { status = "Degraded", message = resize.message }
end
if obj.spec.shutdown == true then
  return { status = "Suspended", message = "spec.shutdown is true" }
end
local sets = {}
for _, set in ipairs(status.instances or {}) do
  sets[set.name] = set
end
for index, wanted in ipairs(obj.spec.instances or {}) do
  -- The API server's default for a set without a name is two digits, counted from 00.
  local name = wanted.name or string.format("%02d", index - 1)
  if name == "" then
    name = string.format("%02d", index - 1)
  end
  local set = sets[name]
  local ready = set and set.readyReplicas or 0
  local updated = set and set.updatedReplicas or 0
  local replicas = wanted.replicas or 1
  if ready < replicas or updated < replicas then
    health.message = ready .. " of " .. replicas .. " instances of set " .. name .. " are ready, " .. updated .. " updated"
    return health
  end
end
local proxy = conditions.ProxyAvailable
if obj.spec.proxy ~= nil and (proxy == nil or proxy.status ~= "True") then
  health.message = "PgBouncer is not available yet"
  return health
end
return { status = "Healthy", message = "all instances are ready" }
